"""FactsService: what is stored of predictions and outcomes, for those who run it."""

from runway.v1 import common_pb2, facts_pb2, facts_pb2_grpc

from control_plane.api.convert.joins import join_range, join_response
from control_plane.api.convert.registry import model_id_from
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.app.ground_truth import GroundTruth


class FactsServicer(facts_pb2_grpc.FactsServiceServicer):
    """Parse, ask the store, render."""

    def __init__(self, plane: Plane, ground_truth: GroundTruth, engine: str = "embedded") -> None:
        self._plane = plane
        self._ground_truth = ground_truth
        self._engine = engine

    async def JoinPartition(  # noqa: N802
        self, request: facts_pb2.JoinPartitionRequest, context: Context
    ) -> facts_pb2.JoinPartitionResponse:
        """Join a stretch of time again, and wait for it."""
        start, end = join_range(request, self._plane.now())
        state = await self._plane.read(common_pb2.ReadOptions())
        record = state.model(model_id_from(request.model_id)) if request.model_id else None
        report = await self._ground_truth.join_partition(
            start, end, self._plane.now(), record=record, authoritative=request.authoritative
        )
        return join_response(report, self._engine)

    async def ListOrphans(  # noqa: N802
        self, request: facts_pb2.ListOrphansRequest, context: Context
    ) -> facts_pb2.ListOrphansResponse:
        """Outcomes whose prediction was never seen."""
        raise NotImplementedError

    async def ListDeadLetters(  # noqa: N802
        self, request: facts_pb2.ListDeadLettersRequest, context: Context
    ) -> facts_pb2.ListDeadLettersResponse:
        """Batches that could not be used."""
        raise NotImplementedError

    async def ReplayDeadLetters(  # noqa: N802
        self, request: facts_pb2.ReplayDeadLettersRequest, context: Context
    ) -> facts_pb2.ReplayDeadLettersResponse:
        """Take dead letters in again."""
        raise NotImplementedError

    async def EraseFacts(  # noqa: N802
        self, request: facts_pb2.EraseFactsRequest, context: Context
    ) -> facts_pb2.EraseFactsResponse:
        """Erase predictions and all that hangs on them."""
        raise NotImplementedError

    async def ListErasures(  # noqa: N802
        self, request: facts_pb2.ListErasuresRequest, context: Context
    ) -> facts_pb2.ListErasuresResponse:
        """Receipts of earlier erasures."""
        raise NotImplementedError

    async def GetIngestStatus(  # noqa: N802
        self, request: facts_pb2.GetIngestStatusRequest, context: Context
    ) -> facts_pb2.GetIngestStatusResponse:
        """Where facts come from, and what is degraded."""
        raise NotImplementedError
