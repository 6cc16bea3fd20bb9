"""The single writer: queue -> decide -> one transaction -> answers; see `node.py` for the whole."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic

import structlog

from control_plane.app import limits
from control_plane.app.callers import Callers
from control_plane.app.ports import CommandT, EventLog, S
from control_plane.app.replica import Replica
from control_plane.app.revisions import RevisionWaiters
from control_plane.app.saving import Saving
from control_plane.app.watch import Changes
from control_plane.core.errors import Reason, RunwayError, Unavailable

log = structlog.get_logger("runway.node")


class SuspectError(Exception):
    """The state may be half changed: discard it."""


@dataclass(slots=True)
class Counters:
    """What the node has done since it was made; for metrics."""

    commands: int = 0
    events: int = 0
    batches: int = 0
    refused: int = 0
    terms: int = 0
    in_doubt: int = 0
    faults: int = 0


class Writer(Generic[S, CommandT]):
    """Writes for one node, term after term."""

    def __init__(
        self,
        *,
        callers: Callers[CommandT],
        event_log: EventLog,
        revisions: RevisionWaiters,
        saving: Saving[S, CommandT],
        counters: Counters,
        now: Callable[[S], datetime],
    ) -> None:
        self._callers = callers
        self._log = event_log
        self._revisions = revisions
        self._saving = saving
        self._counters = counters
        self._now = now
        self.busy_since: float | None = None
        """Monotonic seconds at which the pass under way began; None between passes."""

    async def run(self, replica: Replica[S, CommandT], epoch: int, changes: Changes, stopping: asyncio.Event) -> None:
        """Queue -> decide -> one transaction -> answers, until stopped and empty."""
        while True:
            self.busy_since = None
            while not self._callers:
                if stopping.is_set():
                    return
                await self._callers.arrive()
            await asyncio.sleep(0)  # callers that were just answered get into this batch
            self.busy_since = time.monotonic()
            self._decide_queued(replica, self._now(replica.state))
            batch = replica.take()
            if batch is None:
                self._callers.stored()
                continue
            self._callers.under_way(batch)
            try:
                await self._log.append(epoch, batch.records)
            except Unavailable as error:
                self._callers.not_stored(error)
                raise
            replica.stored(batch)
            self._counters.batches += 1
            self._counters.events += len(batch.records)
            self._callers.stored()
            self._revisions.reached(replica.durable)
            changes.publish(batch.envelopes)
            if self._saving.due(replica):
                await self._saving.begin(replica)

    def _decide_queued(self, replica: Replica[S, CommandT], now: datetime) -> None:
        while replica.pending < limits.BATCH_EVENTS_MAX:
            queued = self._callers.pop()
            if queued is None:
                return
            submission, future = queued
            before = replica.state.revision
            self._counters.commands += 1
            try:
                self._callers.promise(future, replica.decide(submission, now))
            except RunwayError as error:
                self._counters.refused += 1
                self._callers.promise(future, error)
            except Exception as error:  # the edge of the driver: a broken rule fails one command, not all
                self._counters.faults += 1
                log.exception("command.fault", command=type(submission.command).__name__)
                self._callers.promise(
                    future,
                    Unavailable(Reason.INTERNAL, f"The command failed inside: {type(error).__name__}."),
                )
                if replica.state.revision != before:
                    raise SuspectError(f"applying {type(submission.command).__name__} failed") from error
