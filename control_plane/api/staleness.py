"""StalenessService."""

from collections.abc import Mapping

from runway.v1 import common_pb2, staleness_pb2, staleness_pb2_grpc

from control_plane.api.convert.common import page
from control_plane.api.convert.registry import model_id_from
from control_plane.api.convert.staleness import VERDICTS_FROM, staleness, verdict_change
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.app.evaluator import Evaluator
from control_plane.core.ids import ModelId
from control_plane.core.staleness.explain import explain
from control_plane.core.staleness.verdict import Evaluation, Level
from control_plane.core.state import ModelRecord

WORST_FIRST = {Level.STALE: 0, Level.AT_RISK: 1, Level.UNKNOWN: 2, Level.FRESH: 3}


class StalenessServicer(staleness_pb2_grpc.StalenessServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane, evaluator: Evaluator) -> None:
        self._plane = plane
        self._evaluator = evaluator

    async def GetStaleness(  # noqa: N802
        self, request: staleness_pb2.GetStalenessRequest, context: Context
    ) -> staleness_pb2.GetStalenessResponse:
        """The verdict of one model."""
        state = await self._plane.read(request.read)
        record = state.model(model_id_from(request.model_id))
        return staleness_pb2.GetStalenessResponse(
            staleness=staleness(record, self._latest(request.read).get(record.model_id)), revision=state.revision
        )

    def _latest(self, options: common_pb2.ReadOptions) -> Mapping[ModelId, Evaluation]:
        """The newest evaluations; none of them if the past is asked for, of which only the verdicts' own are kept."""
        return self._evaluator.latest if options.WhichOneof("as_of") is None else {}

    async def ListStaleness(  # noqa: N802
        self, request: staleness_pb2.ListStalenessRequest, context: Context
    ) -> staleness_pb2.ListStalenessResponse:
        """The fleet, worst first; of one verdict the higher score first."""
        state = await self._plane.read(request.read)
        wanted = {VERDICTS_FROM[number] for number in request.verdicts if number in VERDICTS_FROM}
        latest = self._latest(request.read)
        keyed = sorted(
            (_worst_first(record, latest), record)
            for record in state.models.values()
            if (not wanted or record.standing.level in wanted) and request.team in ("", record.facts.team)
        )
        shown, token = page([record for _, record in keyed], [key for key, _ in keyed], request.page)
        return staleness_pb2.ListStalenessResponse(
            staleness=[staleness(record, latest.get(record.model_id)) for record in shown],
            next_page_token=token,
            revision=state.revision,
        )

    async def ExplainStaleness(  # noqa: N802
        self, request: staleness_pb2.ExplainStalenessRequest, context: Context
    ) -> staleness_pb2.ExplainStalenessResponse:
        """Why, how sure, what to do."""
        state = await self._plane.read(request.read)
        record = state.model(model_id_from(request.model_id))
        latest = self._latest(request.read)
        shown = _shown(record, latest)
        sentences = (
            explain(shown)
            if shown is not None
            else [
                f"{record.model_id} has not been evaluated yet: "
                + ("it has no production version." if record.production is None else "no evidence has arrived.")
            ]
        )
        return staleness_pb2.ExplainStalenessResponse(
            staleness=staleness(record, latest.get(record.model_id)),
            sentences=sentences,
            revision=state.revision,
        )

    async def EvaluateModel(  # noqa: N802
        self, request: staleness_pb2.EvaluateModelRequest, context: Context
    ) -> staleness_pb2.EvaluateModelResponse:
        """Evaluate now."""
        model_id = (
            (await self._plane.read(staleness_pb2.GetStalenessRequest().read))
            .model(model_id_from(request.model_id))
            .model_id
        )
        if not request.mutation.validate_only:
            await self._evaluator.evaluate_now(model_id)
        state = await self._plane.read(staleness_pb2.GetStalenessRequest().read)
        return staleness_pb2.EvaluateModelResponse(
            staleness=staleness(state.model(model_id), self._evaluator.latest.get(model_id)),
            revision=state.revision,
        )

    async def ListVerdictChanges(  # noqa: N802
        self, request: staleness_pb2.ListVerdictChangesRequest, context: Context
    ) -> staleness_pb2.ListVerdictChangesResponse:
        """History of a model's verdict, newest first."""
        state = await self._plane.read(request.read)
        record = state.model(model_id_from(request.model_id))
        return staleness_pb2.ListVerdictChangesResponse(
            changes=[verdict_change(record.model_id, change) for change in reversed(record.verdict_changes)],
            revision=state.revision,
        )


def _worst_first(record: ModelRecord, latest: Mapping[ModelId, Evaluation]) -> str:
    found = _shown(record, latest)
    score = found.score if found is not None else 0.0
    return f"{WORST_FIRST[record.standing.level]}:{1 - score:.6f}:{record.model_id}"


def _shown(record: ModelRecord, latest: Mapping[ModelId, Evaluation]) -> Evaluation | None:
    """The newest evaluation known, else the one that brought the verdict about."""
    found = latest.get(record.model_id)
    return found if found is not None else record.standing.evaluation
