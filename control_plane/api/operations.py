"""OperationsService."""

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import cast

from runway.v1 import operations_pb2, operations_pb2_grpc

from control_plane.api.convert.common import instant_from, timestamp
from control_plane.api.convert.operations import event
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.api.watching import Watching, interest_of
from control_plane.app.clock import DrivenClock
from control_plane.app.evaluator import Evaluator
from control_plane.app.ground_truth import GroundTruth
from control_plane.app.node import Node
from control_plane.app.ports import Clock
from control_plane.app.queries import gpu_hours_this_week, retrain_counts, rollout_counts, verdict_counts
from control_plane.core.commands import AdvanceClock, Command, HoldRetraining, ReleaseRetraining, SetLimits
from control_plane.core.errors import Reason, Refused
from control_plane.core.retraining.types import BreakerState, RetrainingLimits
from control_plane.core.state import State
from control_plane.core.subjects import subject_of

SERVER_VERSION = "0.1.0"

EVENTS_DEFAULT = 100
"""Entries of a ListEvents that does not say how many."""

PAGE_EVENTS = 1_000
"""Entries that ListEvents reads from the log at once."""

SCAN_S_MAX = 2.0
"""How long ListEvents looks through the log for the few it is asked for, before it says how far it has come."""

ANSWER_BYTES = 8 * 2**20
"""An answer of ListEvents ends when it is this large."""


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
        self._watching = Watching(node, evaluator)
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
            gpu_hours_this_week=gpu_hours_this_week(state, self._plane.now()),
            rollouts=rollout_counts(state),
            open_breakers=sorted(
                breaker.scheduler
                for breaker in state.breakers.values()
                if breaker.state is not BreakerState.CLOSED and not breaker.bypassed_by
            ),
        )

    async def Watch(  # noqa: N802
        self, request: operations_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[operations_pb2.WatchResponse]:
        """Snapshot items, snapshot end, events with progress."""
        self._watchers += 1
        try:
            async for message in self._watching.stream(request):
                yield cast("operations_pb2.WatchResponse", message)  # encoded already; the interceptors let it pass
        finally:
            self._watchers -= 1

    async def ListEvents(  # noqa: N802
        self, request: operations_pb2.ListEventsRequest, context: Context
    ) -> operations_pb2.ListEventsResponse:
        """The audit log, oldest first."""
        models = [request.model_id] if request.model_id else []
        interest = interest_of(request.kinds, models, models_field="model_id")
        events_max = request.events_max or EVENTS_DEFAULT
        revision, scanned = self._node.revision, request.after_revision
        reply = operations_pb2.ListEventsResponse(revision=revision)
        begun_s, size = time.monotonic(), 0
        while scanned < revision:
            page = await self._node.events(scanned, PAGE_EVENTS)
            for envelope in page:
                if len(reply.events) >= events_max or size >= ANSWER_BYTES:
                    break
                scanned = envelope.seq
                if interest.everything or interest.wants(subject_of(self._node.state, envelope)):
                    reply.events.append(event(envelope, self._node.state))
                    size += reply.events[-1].ByteSize()
            if not page or scanned < page[-1].seq or time.monotonic() - begun_s >= SCAN_S_MAX:
                break
        reply.scanned_revision = scanned
        return reply

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
        given = request.limits
        limits = RetrainingLimits(
            running_max=given.running_max,
            running_per_team_max=given.running_per_team_max,
            tier1_reserve=given.tier1_reserve,
            by_team=dict(given.by_team),
            by_resource_class=dict(given.by_resource_class),
            by_scheduler=dict(given.by_scheduler),
            gpu_hours_per_week=dict(given.gpu_hours_per_week),
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
        running_max=limits.running_max,
        running_per_team_max=limits.running_per_team_max,
        tier1_reserve=limits.tier1_reserve,
        by_team=limits.by_team,
        by_resource_class=limits.by_resource_class,
        by_scheduler=limits.by_scheduler,
        gpu_hours_per_week=limits.gpu_hours_per_week,
    )
