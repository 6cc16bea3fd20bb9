"""Measures what each promotion brought: the new version against the one before, on the truth of both.

Theory of operation. A version is measured on a window as long as staleness looks at (`staleness.window_days`), for
which the model says how many outcomes it takes, or as its label window where that is longer. Outcomes are complete one
label window after their predictions: then the first window of a promoted version can be read, and beside it the last
window of the version before. Both are kept in the log, once for each rollout. Nothing is remembered between two turns:
what is due is read from the state, so a new leader goes on where the last one was. A promotion of which too few
outcomes speak is asked about for a while, then let be: no number is better than a wrong one.
"""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from control_plane.app.fact_reports import PerformanceRow
from control_plane.app.fact_store import FactStore
from control_plane.app.ground_truth import GroundTruth
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.core.commands import Command, RecordUplift
from control_plane.core.errors import RunwayError
from control_plane.core.ids import ModelId
from control_plane.core.rollout.gate import higher_is_better
from control_plane.core.rollout.types import Rollout, RolloutState, Uplift
from control_plane.core.state import ModelRecord, State

log = structlog.get_logger("runway.uplift")

ACTOR = "runway"
TURN_S = 10.0
"""Windows last days: a minute would be soon enough, but for a replay in which a day passes in seconds."""
TRY_AGAIN = timedelta(hours=6)
"""Late outcomes may still make enough of too few."""
GIVE_UP = timedelta(days=14)
"""After it could first be measured: outcomes that are not here by then do not come."""
MEASURED_PER_TURN_MAX = 20
"""Each reads two windows of one model, a fraction of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Predictions of [start, end) of both versions, and from when on the outcomes of both are complete."""

    before: tuple[datetime, datetime]
    after: tuple[datetime, datetime]
    complete_at: datetime


class UpliftWatch:
    """Owns the loop that measures."""

    def __init__(self, node: Node[State, Command], ground_truth: GroundTruth, turn_s: float = TURN_S) -> None:
        self._node = node
        self._ground_truth = ground_truth
        self._turn_s = turn_s
        self._tried: dict[str, datetime] = {}
        """When a rollout was found to have too few outcomes; forgotten with the process, which costs one more look."""
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin to measure."""
        self._task = asyncio.create_task(self._run(), name="uplift")

    async def stop(self) -> None:
        """Finish the turn under way."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def tick(self) -> int:
        """Measure what is due, up to a bound; how many were recorded."""
        now, state = self._node.now(), self._node.state
        recorded = 0
        for rollout, windows in list(self._due(state, now))[:MEASURED_PER_TURN_MAX]:
            record = state.models[rollout.model_id]
            found = await self._measure(state, record, rollout, windows, now)
            if found is None:
                self._tried[rollout.rollout_id] = now
                continue
            await self._node.submit(
                Submission(command=RecordUplift(uplift=found), actor=ACTOR, reason="its outcomes are complete")
            )
            self._tried.pop(rollout.rollout_id, None)
            recorded += 1
        return recorded

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.tick()
            except RunwayError as error:
                # Not leading, or the store is away: both end by themselves.
                log.info("uplift.postponed", reason=error.reason.value, message=error.message)
            except Exception as error:
                log.error("uplift.failed", error=repr(error), exc_info=error)
            try:
                async with asyncio.timeout(self._turn_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    def _due(self, state: State, now: datetime) -> Iterable[tuple[Rollout, Windows]]:
        for model_id, record in state.models.items():
            if not record.facts.task_type.has_outcomes or record.retired:
                continue
            for rollout, windows in unmeasured(state, model_id, now):
                tried = self._tried.get(rollout.rollout_id)
                if tried is None or now >= tried + TRY_AGAIN:
                    yield rollout, windows

    async def _measure(
        self, state: State, record: ModelRecord, rollout: Rollout, windows: Windows, now: datetime
    ) -> Uplift | None:
        await self._ground_truth.tell(record, None)

        def both(store: FactStore) -> tuple[PerformanceRow, PerformanceRow]:
            def total(version: int, window: tuple[datetime, datetime]) -> PerformanceRow:
                return store.performance(record.model_id, version, *window, now).total

            return total(rollout.production_before, windows.before), total(rollout.version, windows.after)

        before, after = await self._ground_truth.read(both)
        return uplift_of(state, record, rollout, before, after, now)


def unmeasured(state: State, model_id: ModelId, now: datetime) -> Iterable[tuple[Rollout, Windows]]:
    """Promotions of a model that can be measured and are not, newest first."""
    record = state.models[model_id]
    served_until, span = now, span_of(record)
    for rollout_id in reversed(record.rollout_ids):
        rollout = state.rollouts[rollout_id]
        if rollout.ended_at is None or rollout.state not in (RolloutState.PROMOTED, RolloutState.ROLLED_BACK):
            continue
        window = record.label_spec.window
        if now > rollout.ended_at + span + window + GIVE_UP:
            return
        if rollout.state is RolloutState.PROMOTED:
            windows = windows_of(rollout, span, window, served_until)
            if windows is not None and windows.complete_at <= now and rollout_id not in state.uplifts:
                yield rollout, windows
            served_until = rollout.ended_at
        else:
            # A canary that went back changed nothing; a promotion that was taken back leaves no window of its own.
            served_until = min(served_until, rollout.ended_at)


def span_of(record: ModelRecord) -> timedelta:
    """How long a version is measured: `labels_min` outcomes are asked for, and it was set for staleness' window."""
    return max(record.label_spec.window, timedelta(days=record.staleness_policy.window_days))


def windows_of(rollout: Rollout, span: timedelta, label_window: timedelta, served_until: datetime) -> Windows | None:
    """The last `span` of the version before, until its canary began, and the first of the new one while it served."""
    if rollout.ended_at is None or not rollout.production_before:
        return None
    promoted_at = rollout.ended_at
    alone_until = min(rollout.canary_since or promoted_at, promoted_at)
    until = min(promoted_at + span, served_until)
    if until <= promoted_at:
        return None
    return Windows(
        before=(alone_until - span, alone_until),
        after=(promoted_at, until),
        complete_at=promoted_at + span + label_window,
    )


def uplift_of(
    state: State, record: ModelRecord, rollout: Rollout, before: PerformanceRow, after: PerformanceRow, now: datetime
) -> Uplift | None:
    """The difference of the primary metric, positive if better; None while too few outcomes speak of either version."""
    name = record.label_spec.primary_metric
    then, since = before.metric(name), after.metric(name)
    least = record.staleness_policy.labels_min
    if then is None or since is None or min(then.sample_size, since.sample_size) < least:
        return None
    difference = since.value - then.value
    error = math.hypot(then.standard_error, since.standard_error)
    if not (math.isfinite(difference) and math.isfinite(error)):
        return None
    retrain = state.retrains[rollout.retrain_id] if rollout.retrain_id is not None else None
    return Uplift(
        retrain_id=rollout.retrain_id,
        model_id=record.model_id,
        rollout_id=rollout.rollout_id,
        version=rollout.version,
        metric=name,
        before=then.value,
        after=since.value,
        uplift=difference if higher_is_better(name) else -difference,
        standard_error=error,
        sample_size=min(then.sample_size, since.sample_size),
        gpu_hours=sum(attempt.gpu_hours for attempt in retrain.attempts) if retrain is not None else 0.0,
        measured_at=now,
    )
