"""FactsService: what is stored of predictions and outcomes, for those who run it."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from runway.v1 import common_pb2, facts_pb2, facts_pb2_grpc

from control_plane.api.convert.arrivals import dead_letter, kafka_lag
from control_plane.api.convert.erasures import check_whom, erasure_message, layer_receipt
from control_plane.api.convert.facts import ingest_source, orphan_outcome, sampled_model
from control_plane.api.convert.joins import join_range, join_response
from control_plane.api.convert.registry import model_id_from
from control_plane.api.interceptors import Context
from control_plane.api.plane import ANONYMOUS, Plane
from control_plane.app.erasure import Erasure
from control_plane.app.fact_reports import SourceActivity
from control_plane.app.ground_truth import GroundTruth, SampledModel
from control_plane.app.intake import Intake
from control_plane.core.commands import EraseFacts
from control_plane.core.ids import ModelId
from control_plane.core.state import State

LISTED_DEFAULT = 100
SILENT_AFTER = timedelta(days=1)
"""A sender without a sign for so long is marked; what is usual for each is what coverage looks at."""


class FactsServicer(facts_pb2_grpc.FactsServiceServicer):
    """Parse, ask the store, render."""

    def __init__(
        self,
        plane: Plane,
        ground_truth: GroundTruth,
        intake: Intake,
        *,
        engine: str = "embedded",
        speed_view: str = "memory",
        erasure: Erasure | None = None,
    ) -> None:
        self._erasure = erasure
        self._plane = plane
        self._ground_truth = ground_truth
        self._intake = intake
        self._engine = engine
        self._speed_view = speed_view

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
        state = await self._plane.read(common_pb2.ReadOptions())
        model_id = state.model(model_id_from(request.model_id)).model_id
        limit = request.limit or LISTED_DEFAULT
        listed = await self._ground_truth.read(lambda store: store.orphans(model_id, limit))
        total = await self._ground_truth.read(lambda store: store.orphans_total(model_id))
        return facts_pb2.ListOrphansResponse(orphans=[orphan_outcome(one) for one in listed], total=total)

    async def ListDeadLetters(  # noqa: N802
        self, request: facts_pb2.ListDeadLettersRequest, context: Context
    ) -> facts_pb2.ListDeadLettersResponse:
        """Batches that could not be used, newest first. Models that nobody registered are listed too."""
        letters, total = await self._intake.find(bare(request.model_id), request.limit or LISTED_DEFAULT)
        return facts_pb2.ListDeadLettersResponse(letters=[dead_letter(one) for one in letters], total=total)

    async def ReplayDeadLetters(  # noqa: N802
        self, request: facts_pb2.ReplayDeadLettersRequest, context: Context
    ) -> facts_pb2.ReplayDeadLettersResponse:
        """Take dead letters in again, or throw them away."""
        if request.discard:
            gone = await self._intake.discard(request.ids, bare(request.model_id))
            return facts_pb2.ReplayDeadLettersResponse(discarded=gone)
        done = await self._intake.replay(request.ids, bare(request.model_id))
        return facts_pb2.ReplayDeadLettersResponse(replayed=done.replayed, left=[dead_letter(one) for one in done.left])

    async def EraseFacts(  # noqa: N802
        self, request: facts_pb2.EraseFactsRequest, context: Context
    ) -> facts_pb2.EraseFactsResponse:
        """Erase predictions and all that hangs on them, then put it on record. With `validate_only` nothing happens."""
        check_whom(request)
        mutation = request.mutation
        if mutation.validate_only or self._erasure is None:
            return facts_pb2.EraseFactsResponse()
        mutation.request_id = mutation.request_id or str(uuid.uuid4())
        erased = await self._erasure.erase(
            mutation.request_id, request.prediction_ids, request.entity_ids, self._plane.now()
        )
        command = EraseFacts(
            actor=mutation.actor or ANONYMOUS,
            reason=mutation.reason,
            prediction_ids=erased.ids,
            ids_sha256=erased.ids_sha256,
            layers=tuple(map(layer_receipt, erased.layers)),
        )
        outcome = await self._plane.submit(command, mutation)
        receipt = next(one for one in reversed(outcome.state.erasures) if one.revision <= outcome.revision)
        return facts_pb2.EraseFactsResponse(receipt=erasure_message(receipt))

    async def ListErasures(  # noqa: N802
        self, request: facts_pb2.ListErasuresRequest, context: Context
    ) -> facts_pb2.ListErasuresResponse:
        """Receipts of earlier erasures, newest first."""
        state = await self._plane.read(request.read)
        newest = list(reversed(state.erasures))[: request.limit or LISTED_DEFAULT]
        return facts_pb2.ListErasuresResponse(receipts=map(erasure_message, newest))

    async def GetIngestStatus(  # noqa: N802
        self, request: facts_pb2.GetIngestStatusRequest, context: Context
    ) -> facts_pb2.GetIngestStatusResponse:
        """Where facts come from, and what is degraded."""
        model_id = bare(request.model_id)
        stats = await self._ground_truth.read(lambda store: store.stats())
        _, letters = await self._intake.find(model_id, 1)
        orphans = stats.orphans
        if model_id:
            orphans = await self._ground_truth.read(lambda store: store.orphans_total(model_id))
        sources = await self._ground_truth.read(lambda store: store.sources(model_id))
        speed_rates = await self._ground_truth.read(lambda store: store.speed_rates())
        state = await self._plane.read(common_pb2.ReadOptions())
        sampled = _sampled(state, self._ground_truth.sampled(), speed_rates, model_id)
        degraded = [*self._intake.degraded(), *_degraded(sampled, self._ground_truth.pressure)]
        now = self._plane.now()
        return facts_pb2.GetIngestStatusResponse(
            engine=self._engine,
            speed_view=self._speed_view,
            pressure=self._ground_truth.pressure,
            sources=[ingest_source(one, now - _last_sign(one) > SILENT_AFTER) for one in sources],
            sampled=[sampled_model(one, min(one.rate, speed_rates.get(one.model_id, 1.0))) for one in sampled],
            dead_letters=letters,
            orphans=orphans,
            due_hours=stats.due_hours,
            speed_rows=stats.speed_rows,
            kafka=[kafka_lag(lag) for source in self._intake.sources for lag in source.lags()],
            degraded=degraded,
        )


def bare(model_id: str) -> str:
    """A model id as it was sent, registered or not; empty means all."""
    return model_id.removeprefix("model:")


def _last_sign(source: SourceActivity) -> datetime:
    return max(at for at in (source.last_predictions_at, source.last_outcomes_at) if at is not None)


def _sampled(
    state: State, ingested: Sequence[SampledModel], speed_rates: Mapping[str, float], model_id: str
) -> list[SampledModel]:
    """Models of which less than everything is ingested, or held by the speed view, by id."""
    found = {one.model_id: one for one in ingested}
    for one in speed_rates:
        record = state.models.get(ModelId(one))
        if record is not None and record.model_id not in found:
            found[record.model_id] = SampledModel(
                model_id=record.model_id,
                tier=record.facts.tier,
                policy_rate=record.ground_truth_policy.sample_rate,
                rate=record.ground_truth_policy.sample_rate,
            )
    return [one for _, one in sorted(found.items()) if model_id in ("", one.model_id)]


def _degraded(sampled: Sequence[SampledModel], pressure: float) -> list[str]:
    """Models that give up rows while the server is short of room."""
    lowered = [one for one in sampled if one.rate < one.policy_rate]
    if not lowered:
        return []
    tiers = sorted({one.tier for one in lowered}, reverse=True)
    return [
        f"{len(lowered)} models of tier {', '.join(map(str, tiers))} are sampled below their policy: the room for "
        f"waiting batches was short ({pressure:.0%} is taken now); their estimates stay unbiased, with wider intervals"
    ]
