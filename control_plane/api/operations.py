"""OperationsService."""

from collections.abc import AsyncIterator
from datetime import datetime

from runway.v1 import operations_pb2, operations_pb2_grpc

from control_plane.api.convert.common import instant_from, timestamp
from control_plane.api.convert.operations import event
from control_plane.api.convert.registry import model
from control_plane.api.convert.staleness import staleness
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.app.clock import DrivenClock
from control_plane.app.evaluator import Evaluator
from control_plane.app.ground_truth import GroundTruth
from control_plane.app.node import Node
from control_plane.app.ports import Clock
from control_plane.app.queries import retrain_counts, verdict_counts
from control_plane.core.commands import AdvanceClock, Command, HoldRetraining, ReleaseRetraining, SetLimits
from control_plane.core.errors import Reason, Refused
from control_plane.core.events import Envelope, event_kind, event_model
from control_plane.core.ids import ModelId, parse_model_id
from control_plane.core.retraining.types import RetrainingLimits
from control_plane.core.state import State

SERVER_VERSION = "0.1.0"

EVENTS_DEFAULT = 100
"""Entries of a ListEvents that does not say how many."""

PAGE_EVENTS = 1_000
"""Entries that ListEvents reads from the log at once."""


class OperationsServicer(operations_pb2_grpc.OperationsServiceServicer):
    """Parse, submit or read, render."""

    def __init__(
        self,
        *,
        plane: Plane,
        node: Node[State, Command],
        evaluator: Evaluator,
        ground_truth: GroundTruth,
        clock: Clock,
        started_at: datetime,
    ) -> None:
        self._plane = plane
        self._node = node
        self._evaluator = evaluator
        self._ground_truth = ground_truth
        self._clock = clock
        self._started_at = started_at
        self._watchers = 0

    def end_watches(self) -> None:
        """Tell every watcher to come again elsewhere; part of the drain."""
        self._node.end_watches()

    async def GetStatus(  # noqa: N802
        self, request: operations_pb2.GetStatusRequest, context: Context
    ) -> operations_pb2.GetStatusResponse:
        """How the control plane is."""
        state = self._node.state
        facts = self._ground_truth.counts()
        driven = isinstance(self._clock, DrivenClock)
        return operations_pb2.GetStatusResponse(
            server_version=SERVER_VERSION,
            leader=True,
            epoch=self._node.epoch,
            revision=state.revision,
            snapshot_revision=self._node.snapshot_revision,
            clock_mode=operations_pb2.CLOCK_MODE_DRIVEN if driven else operations_pb2.CLOCK_MODE_WALL,
            now=timestamp(self._node.now()),
            started_at=timestamp(self._started_at),
            models=len(state.models),
            nodes=len(state.graph),
            dependencies=state.graph.dependency_count,
            verdicts=verdict_counts(state),
            retrains=retrain_counts(state),
            limits=_limits(state.limits),
            retraining_held=state.held,
            predictions_ingested=facts.predictions,
            outcomes_ingested=facts.outcomes,
            watchers=self._watchers,
        )

    async def Watch(  # noqa: N802
        self, request: operations_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[operations_pb2.WatchResponse]:
        """Snapshot items, snapshot end, events, progress."""
        models = frozenset(parse_model_id(text, "model_ids") for text in request.model_ids)
        kinds = frozenset(request.kinds)
        since = request.after_revision
        self._watchers += 1
        try:
            if request.include_snapshot:
                items, since = await self._node.read(lambda state: self._items(state, models))
                for item in items:
                    yield operations_pb2.WatchResponse(snapshot_item=item)
                yield operations_pb2.WatchResponse(snapshot_end=operations_pb2.SnapshotEnd(revision=since))
            async for batch in self._node.watch(since):
                for envelope in batch.envelopes:
                    if _wanted(envelope, models, kinds):
                        yield operations_pb2.WatchResponse(event=event(envelope))
                if not batch.envelopes:
                    progress = operations_pb2.Progress(revision=batch.revision, now=timestamp(self._node.now()))
                    yield operations_pb2.WatchResponse(progress=progress)
        finally:
            self._watchers -= 1

    def _items(self, state: State, models: frozenset[ModelId]) -> list[operations_pb2.SnapshotItem]:
        return [
            operations_pb2.SnapshotItem(
                model=model(state.models[model_id]),
                staleness=staleness(state.models[model_id], self._evaluator.latest.get(model_id)),
            )
            for model_id in sorted(state.models)
            if not models or model_id in models
        ]

    async def ListEvents(  # noqa: N802
        self, request: operations_pb2.ListEventsRequest, context: Context
    ) -> operations_pb2.ListEventsResponse:
        """The audit log, oldest first."""
        models = frozenset({parse_model_id(request.model_id)}) if request.model_id else frozenset()
        events_max = request.events_max or EVENTS_DEFAULT
        found: list[operations_pb2.Event] = []
        after, revision = request.after_revision, self._node.revision
        while len(found) < events_max and after < revision:
            page = await self._node.events(after, PAGE_EVENTS)
            if not page:
                break
            found.extend(event(envelope) for envelope in page if _wanted(envelope, models, frozenset()))
            after = page[-1].seq
        return operations_pb2.ListEventsResponse(events=found[:events_max], revision=revision)

    async def AdvanceClock(  # noqa: N802
        self, request: operations_pb2.AdvanceClockRequest, context: Context
    ) -> operations_pb2.AdvanceClockResponse:
        """Move a driven clock forward."""
        if not isinstance(self._clock, DrivenClock):
            raise Refused(
                Reason.CLOCK_NOT_DRIVEN,
                "this control plane follows the wall clock: start it with RUNWAY_CLOCK=driven to drive its time",
            )
        command = AdvanceClock(to=instant_from(request.now, "now"))
        outcome = await self._plane.submit(command, request.mutation)
        return operations_pb2.AdvanceClockResponse(now=timestamp(self._node.now()), revision=outcome.revision)

    async def SetLimits(  # noqa: N802
        self, request: operations_pb2.SetLimitsRequest, context: Context
    ) -> operations_pb2.SetLimitsResponse:
        """Change how many retrains may run at once."""
        limits = RetrainingLimits(
            running_max=request.limits.running_max, running_per_team_max=request.limits.running_per_team_max
        )
        outcome = await self._plane.submit(SetLimits(limits=limits), request.mutation)
        return operations_pb2.SetLimitsResponse(limits=_limits(outcome.state.limits), revision=outcome.revision)

    async def HoldRetraining(  # noqa: N802
        self, request: operations_pb2.HoldRetrainingRequest, context: Context
    ) -> operations_pb2.HoldRetrainingResponse:
        """Lease nothing new."""
        outcome = await self._plane.submit(HoldRetraining(), request.mutation)
        return operations_pb2.HoldRetrainingResponse(revision=outcome.revision)

    async def ReleaseRetraining(  # noqa: N802
        self, request: operations_pb2.ReleaseRetrainingRequest, context: Context
    ) -> operations_pb2.ReleaseRetrainingResponse:
        """Lease again."""
        outcome = await self._plane.submit(ReleaseRetraining(), request.mutation)
        return operations_pb2.ReleaseRetrainingResponse(revision=outcome.revision)

    async def TakeSnapshot(  # noqa: N802
        self, request: operations_pb2.TakeSnapshotRequest, context: Context
    ) -> operations_pb2.TakeSnapshotResponse:
        """Write a snapshot now."""
        if not request.mutation.validate_only:
            await self._node.snapshot()
        return operations_pb2.TakeSnapshotResponse(revision=self._node.snapshot_revision)


def _limits(limits: RetrainingLimits) -> operations_pb2.RetrainingLimits:
    return operations_pb2.RetrainingLimits(
        running_max=limits.running_max, running_per_team_max=limits.running_per_team_max
    )


def _wanted(envelope: Envelope, models: frozenset[ModelId], kinds: frozenset[str]) -> bool:
    if models and event_model(envelope.event) not in models:
        return False
    return not kinds or event_kind(envelope.event) in kinds
