"""GroundTruthService."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import common_pb2, ground_truth_pb2, ground_truth_pb2_grpc

from control_plane.api.convert.common import instant_from
from control_plane.api.convert.ground_truth import counted_hour
from control_plane.api.convert.ingest import batch_accepted, outcomes_ipc, predictions_ipc
from control_plane.api.convert.performance import GRAINS, performance_response
from control_plane.api.convert.registry import model_id_from
from control_plane.api.coverage import coverage_answer, fleet_answer
from control_plane.api.errors import invalid, to_status
from control_plane.api.interceptors import Context, validate
from control_plane.api.plane import Plane
from control_plane.app.ground_truth import GroundTruth
from control_plane.core.errors import RunwayError
from control_plane.core.registry.types import ModelVersion

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

BATCHES_IN_FLIGHT_MAX = 16
"""Batches of one stream that may wait for their fdatasync together; enough to keep the disk busy."""

RANGE_DEFAULT = timedelta(days=7)
RANGE_MAX = timedelta(days=400)
"""A year and its neighbours; a longer range is asked for in parts."""


class GroundTruthServicer(ground_truth_pb2_grpc.GroundTruthServiceServicer):
    """Parse, store or read, render."""

    def __init__(self, plane: Plane, ground_truth: GroundTruth, degraded: Callable[[], Sequence[str]] = tuple) -> None:
        """`degraded`: what of the taking in and sharing of facts is not as it should be, in words."""
        self._plane = plane
        self._degraded = degraded
        self._ground_truth = ground_truth

    async def IngestPredictions(  # noqa: N802
        self, request_iterator: AsyncIterator[ground_truth_pb2.IngestPredictionsRequest], context: Context
    ) -> AsyncIterator[ground_truth_pb2.IngestPredictionsResponse]:
        """One answer per batch, in order."""
        async for response in _in_order(request_iterator, self._predictions):
            yield response

    async def IngestOutcomes(  # noqa: N802
        self, request_iterator: AsyncIterator[ground_truth_pb2.IngestOutcomesRequest], context: Context
    ) -> AsyncIterator[ground_truth_pb2.IngestOutcomesResponse]:
        """One answer per batch, in order."""
        async for response in _in_order(request_iterator, self._outcomes):
            yield response

    async def IngestHistograms(  # noqa: N802
        self, request_iterator: AsyncIterator[ground_truth_pb2.IngestHistogramsRequest], context: Context
    ) -> AsyncIterator[ground_truth_pb2.IngestHistogramsResponse]:
        """One answer per hour, in order."""
        async for response in _in_order(request_iterator, self._histograms):
            yield response

    async def _predictions(
        self, request: ground_truth_pb2.IngestPredictionsRequest
    ) -> ground_truth_pb2.IngestPredictionsResponse:
        try:
            validate(request)
            state = await self._plane.read(common_pb2.ReadOptions())
            record = state.model(model_id_from(request.model_id))
            version = state.version(record.model_id, request.version)
            ipc = await _in_arrow(predictions_ipc, request, plain=bool(request.predictions))
            receipt = await self._ground_truth.append_predictions(
                request.batch_id,
                record,
                version,
                ipc,
                source=request.source,
                now=self._plane.now(),
            )
        except RunwayError as error:
            return ground_truth_pb2.IngestPredictionsResponse(batch_id=request.batch_id, refused=to_status(error))
        return ground_truth_pb2.IngestPredictionsResponse(
            batch_id=request.batch_id,
            accepted=batch_accepted(receipt),
        )

    async def _outcomes(
        self, request: ground_truth_pb2.IngestOutcomesRequest
    ) -> ground_truth_pb2.IngestOutcomesResponse:
        try:
            validate(request)
            state = await self._plane.read(common_pb2.ReadOptions())
            record = state.model(model_id_from(request.model_id))
            ipc = await _in_arrow(outcomes_ipc, request, plain=bool(request.outcomes))
            receipt = await self._ground_truth.append_outcomes(
                request.batch_id,
                record,
                request.label_type,
                ipc,
                source=request.source,
                now=self._plane.now(),
            )
        except RunwayError as error:
            return ground_truth_pb2.IngestOutcomesResponse(batch_id=request.batch_id, refused=to_status(error))
        return ground_truth_pb2.IngestOutcomesResponse(
            batch_id=request.batch_id,
            accepted=batch_accepted(receipt),
        )

    async def _histograms(
        self, request: ground_truth_pb2.IngestHistogramsRequest
    ) -> ground_truth_pb2.IngestHistogramsResponse:
        try:
            validate(request)
            state = await self._plane.read(common_pb2.ReadOptions())
            record = state.model(model_id_from(request.model_id))
            version = state.version(record.model_id, request.version)
            receipt = await self._ground_truth.append_histograms(
                request.batch_id, record, version, counted_hour(request), self._plane.now()
            )
        except RunwayError as error:
            return ground_truth_pb2.IngestHistogramsResponse(batch_id=request.batch_id, refused=to_status(error))
        return ground_truth_pb2.IngestHistogramsResponse(
            batch_id=request.batch_id,
            accepted=batch_accepted(receipt),
        )

    async def GetCoverage(  # noqa: N802
        self, request: ground_truth_pb2.GetCoverageRequest, context: Context
    ) -> ground_truth_pb2.GetCoverageResponse:
        """How much of the truth has arrived, and why not more."""
        _check_now(request.read)
        answer = await coverage_answer(self._plane, self._ground_truth, request, RANGE_MAX)
        answer.degraded.extend(self._degraded())
        return answer

    async def ListCoverage(  # noqa: N802
        self, request: ground_truth_pb2.ListCoverageRequest, context: Context
    ) -> ground_truth_pb2.ListCoverageResponse:
        """How much of the truth has arrived, of all models."""
        _check_now(request.read)
        return await fleet_answer(self._plane, self._ground_truth, request)

    async def GetPerformance(  # noqa: N802
        self, request: ground_truth_pb2.GetPerformanceRequest, context: Context
    ) -> ground_truth_pb2.GetPerformanceResponse:
        """How good the model is on the truth that has arrived."""
        asked = request.read.WhichOneof("as_of")
        if asked is not None:
            raise invalid(f"read.{asked}", "not_kept", "ask with known_at for what was believed at a time")
        state = await self._plane.read(request.read)
        record = state.model(model_id_from(request.model_id))
        if request.version:
            state.version(record.model_id, request.version)
        known_at = _instant(request.known_at, "known_at") if request.HasField("known_at") else None
        start, end = _range(request, known_at or self._plane.now())
        await self._ground_truth.tell(record, None)
        report = await self._ground_truth.read(
            lambda store: store.performance(
                record.model_id,
                request.version or None,
                start,
                end,
                self._plane.now(),
                label_type=request.label_type,
                grain=GRAINS[request.grain],
                slice_name=request.slice,
                known_at=known_at,
                provisional=request.provisional,
            )
        )

        def version_of(number: int) -> ModelVersion | None:
            if not number:
                return record.production
            return record.versions[number - 1] if number <= len(record.versions) else None

        answer = performance_response(report, record.label_spec, version_of, state.revision)
        answer.degraded.extend(self._degraded())
        return answer


def _check_now(options: common_pb2.ReadOptions) -> None:
    """Refuse a moment of the past: what had arrived by then is not kept apart from what came later."""
    asked = options.WhichOneof("as_of")
    if asked is not None:
        raise invalid(
            f"read.{asked}",
            "not_kept",
            "predictions and outcomes are kept as they are now, not as they were known then: "
            "ask for a range of predictions with start_time and end_time instead",
        )


def _range(request: ground_truth_pb2.GetPerformanceRequest, now: datetime) -> tuple[datetime, datetime]:
    """The asked stretch of prediction time; the last seven days unless said otherwise."""
    end = _instant(request.end_time, "end_time") if request.HasField("end_time") else now
    start = _instant(request.start_time, "start_time") if request.HasField("start_time") else end - RANGE_DEFAULT
    if start >= end:
        raise invalid("start_time", "order", f"{start.isoformat()} is not before {end.isoformat()}")
    if end - start > RANGE_MAX:
        raise invalid("start_time", "range", f"at most {RANGE_MAX.days} days at once")
    return start, end


def _instant(message: Timestamp, field: str) -> datetime:
    return instant_from(message, field)


async def _in_arrow(turn: Callable[[RequestT], bytes], request: RequestT, *, plain: bool) -> bytes:
    """Plain rows are turned beside the loop: a hundred thousand of them take half a second."""
    return await asyncio.to_thread(turn, request) if plain else turn(request)


async def _in_order(
    requests: AsyncIterator[RequestT], store: Callable[[RequestT], Awaitable[ResponseT]]
) -> AsyncIterator[ResponseT]:
    """Store batches side by side, answer in the order they came."""
    answers: asyncio.Queue[asyncio.Future[ResponseT] | None] = asyncio.Queue(BATCHES_IN_FLIGHT_MAX)

    async def take() -> None:
        try:
            async for request in requests:
                await answers.put(asyncio.ensure_future(store(request)))
        except asyncio.CancelledError:
            raise  # nobody listens any more, and the queue may be full
        except BaseException:
            await answers.put(None)
            raise
        await answers.put(None)

    taking = asyncio.create_task(take())
    try:
        while (answer := await answers.get()) is not None:
            yield await answer
        await taking
    finally:
        # The client went away: what it sent is stored all the same, and it will ask again under the same ids.
        taking.cancel()
        left = [answers.get_nowait() for _ in range(answers.qsize())]
        await asyncio.gather(taking, *(answer for answer in left if answer is not None), return_exceptions=True)
