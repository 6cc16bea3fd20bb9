"""Counts calls to schedulers and tells the log when that changes a breaker.

The calls of the last minute live here and nowhere else: a new leader counts from nothing, which opens a breaker a few
calls later and never wrongly. What the breaker *is* stands in the log.
"""

from collections import deque
from collections.abc import Callable

import structlog

from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.core.commands import Command, OpenBreaker, RecordProbe
from control_plane.core.retraining.breaker import Call, CallOutcome, tripped
from control_plane.core.retraining.types import BreakerState
from control_plane.core.state import State

log = structlog.get_logger("runway.schedulers")

ACTOR = "runway"
CALLS_KEPT_MAX = 2_000
"""Of each scheduler: sixteen polls a second for two minutes; the share of the newest is as good as that of all."""
DETAIL_CHARS_MAX = 300


class BreakerWatch:
    """One for all schedulers. `jitter` gives numbers from 0 to 1."""

    def __init__(self, node: Node[State, Command], jitter: Callable[[], float]) -> None:
        self._node = node
        self._jitter = jitter
        self._calls: dict[str, deque[Call]] = {}
        self._epoch = -1

    async def told(self, scheduler: str, outcome: CallOutcome, detail: str = "", *, probe: bool = False) -> None:
        """A call went so. `probe`: it was about the attempt that tries the scheduler out, so a success counts."""
        if outcome is CallOutcome.REFUSED:
            return  # our fault: it neither counts nor breaks a row
        now, detail = self._node.now(), detail[:DETAIL_CHARS_MAX]
        if self._epoch != self._node.epoch:  # whoever led meanwhile counted, and wrote down what came of it
            self._calls.clear()
            self._epoch = self._node.epoch
        breaker = self._node.state.breakers.get(scheduler)
        if breaker is None or breaker.state is BreakerState.CLOSED:
            calls = self._calls.setdefault(scheduler, deque(maxlen=CALLS_KEPT_MAX))
            calls.append(Call(now, outcome, detail))
            why = tripped(calls, now)
            if why:
                log.warning("scheduler.breaker_opens", scheduler=scheduler, message=why)
                await self._submit(OpenBreaker(scheduler=scheduler, reason=why, jitter=self._jitter()))
                calls.clear()  # not before it stands in the log: else five more would have to fail
            return
        # What was counted before it opened is over; what fails while it is open is no news.
        self._calls.pop(scheduler, None)
        failed = outcome is CallOutcome.FAILED
        if breaker.state is BreakerState.HALF_OPEN and (failed or (probe and outcome is CallOutcome.SUCCEEDED)):
            command = RecordProbe(scheduler=scheduler, succeeded=not failed, detail=detail, jitter=self._jitter())
            await self._submit(command)

    def probing(self, scheduler: str) -> bool:
        """Does a leased attempt try the scheduler out?"""
        return any(
            attempt.probe and attempt.scheduler == scheduler
            for retrain in self._node.state.running()
            if (attempt := retrain.running_attempt) is not None
        )

    async def _submit(self, command: OpenBreaker | RecordProbe) -> None:
        await self._node.submit(Submission(command=command, actor=ACTOR, reason="counted calls"))
