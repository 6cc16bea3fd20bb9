"""Runs retrains on schedulers that are called: leases on their behalf, starts, follows, stops.

Theory of operation. Nothing is remembered that the log does not say; each turn compares the log with the scheduler:

    the log says                       | what is done
    -----------------------------------+------------------------------------------------------------------------
    an attempt runs, its run unknown   | started under the attempt's id, again and again until somebody knows
    an attempt runs, its run known     | asked how it is; its lease renewed while it lives
    ... and the run ended, no report   | its registered version is reported, else a failure with the link to its log
    an attempt was cancelled or expired| its run is stopped
    retrains wait, the breaker allows  | leased

A first try that surely did nothing gives the lease back (`SCHEDULER`: costs no attempt). One that nobody knows about
keeps its lease and is asked for again under the same id, so it is neither lost nor done twice, whoever is killed in
between; and whatever a later try says, the first may have been heard. Whether a try is the first only the life knows
that leased it.
While the breaker is open nothing is started; half open, one thing at a time is.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from control_plane.app.breaker_watch import ACTOR, BreakerWatch
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.app.rollout_driver import Pause
from control_plane.app.scheduler_reports import AttemptReports, attempt_of, running_on, startable
from control_plane.app.schedulers import (
    Run,
    RunState,
    RunStatus,
    Scheduler,
    SchedulerRefused,
    SchedulerUnavailable,
)
from control_plane.core.commands import Command, LeaseRetrains
from control_plane.core.errors import RunwayError
from control_plane.core.ids import AttemptId, LeaseToken
from control_plane.core.retraining.breaker import CallOutcome
from control_plane.core.retraining.types import Attempt, AttemptState, BreakerState, FailureClass, Retrain, RetrainState
from control_plane.core.state import State

log = structlog.get_logger("runway.schedulers")

CALL_S_MAX = 20.0
"""A scheduler that says nothing for so long has failed; nobody knows whether it did what it was told."""
CALLS_AT_ONCE_MAX = 8
LEASES_PER_TURN_MAX = 50
POLL_S = 5.0
"""How often a run is asked after: fifty of them make ten calls a second."""
REPORT_GRACE_S = 15.0
"""A run that has ended may still be on its way to say so."""
STOPS_LOOKED_BACK = timedelta(days=1)
"""After a start, what ended so long ago is stopped once more, in case nobody got around to it."""
STOP_TRIES_MAX = 5
"""A start that nobody knows about may still arrive; after these tries nobody waits for it any more. Its training then
learns from its first call that the lease is gone."""
LEASE_TOKEN_BYTES = 16

TO_BE_STOPPED = frozenset({AttemptState.CANCELLED, AttemptState.LEASE_EXPIRED})


@dataclass(slots=True)
class _Followed:
    """What saves work about one attempt; forgotten without harm."""

    pause: Pause = field(default_factory=Pause)
    polled_s: float = float("-inf")
    ended_s: float | None = None
    stop_tries: int = 0
    untried: bool = False
    """Leased in this life, and nobody has been asked to start it yet."""
    note: str = ""


class SchedulerDriver:
    """Owns the loop. `schedulers` by the name that `retraining.scheduler` says."""

    def __init__(
        self,
        *,
        node: Node[State, Command],
        schedulers: Mapping[str, Scheduler],
        watch: BreakerWatch,
        tick_s: float,
        call_s_max: float = CALL_S_MAX,
        poll_s: float = POLL_S,
        report_grace_s: float = REPORT_GRACE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._schedulers = dict(schedulers)
        self._watch = watch
        self._reports = AttemptReports(node)
        self._tick_s = tick_s
        self._call_s_max = call_s_max
        self._poll_s = poll_s
        self._report_grace_s = report_grace_s
        self._monotonic = monotonic
        self._gates = {name: asyncio.Semaphore(CALLS_AT_ONCE_MAX) for name in schedulers}
        self._leasing_pauses = {name: Pause() for name in schedulers}
        self._refusals: dict[str, str] = {}
        self._followed: dict[AttemptId, _Followed] = {}
        self._seen: dict[str, set[AttemptId]] = {name: set() for name in schedulers}
        """Attempts that ran, or may have, and whose end was not looked at yet."""
        self._epoch = -1
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, if there is anything to drive."""
        if self._schedulers:
            self._task = asyncio.create_task(self._run(), name="scheduler driver")

    async def stop(self) -> None:
        """End; calls under way are given up, for they will be made again."""
        self._stopping.set()
        if self._task is not None:
            await self._task
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for scheduler in self._schedulers.values():
            await scheduler.close()

    def addresses(self) -> dict[str, str]:
        """Where each scheduler is called."""
        return {name: scheduler.address for name, scheduler in self._schedulers.items()}

    def trouble(self, name: str) -> str:
        """What somebody should look at, in words; empty if nothing."""
        seen = self._seen.get(name, set())
        notes = {self._followed[one].note: one for one in seen if one in self._followed and self._followed[one].note}
        told = [f"{note} ({attempt_id} waits)" for note, attempt_id in sorted(notes.items())]
        return "; ".join(filter(None, (self._refusals.get(name, ""), *told)))

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.begin_turn()
            except RunwayError as error:
                log.debug("schedulers.not_leading", message=error.message)
            except Exception:
                log.exception("schedulers.turn_failed")
            try:
                await asyncio.wait_for(self._stopping.wait(), self._tick_s)
            except TimeoutError:
                continue

    async def turn(self) -> None:
        """One whole turn, to the end of everything it began. The loop does not wait for slow schedulers; tests do."""
        self.begin_turn()
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def begin_turn(self) -> None:
        """Begin whatever is due and not under way. Raises Unavailable(NOT_LEADER)."""
        state = self._node.state
        if self._epoch != self._node.epoch:
            self._look_back(state)
            self._epoch = self._node.epoch
        for name in self._schedulers:
            self._begin_runs(state, name)
            self._begin_stops(state, name)
            self._begin_leasing(state, name)

    # --- what is due ---

    def _look_back(self, state: State) -> None:
        """What may still have a run though its attempt has ended: somebody else may have been about to stop it."""
        since = self._node.now() - STOPS_LOOKED_BACK
        for retrain in state.retrains.values():
            for attempt in retrain.attempts:
                ended = attempt.state in TO_BE_STOPPED and (attempt.ended_at or since) >= since
                if ended and attempt.scheduler in self._seen:
                    self._seen[attempt.scheduler].add(attempt.attempt_id)

    def _begin_runs(self, state: State, name: str) -> None:
        """Start what has no run yet, most important first; ask after what has one; keep leases alive."""
        at_s, now = self._monotonic(), self._node.now()
        running = running_on(state, name)
        self._seen[name] |= {attempt.attempt_id for _, attempt in running}
        startable = self._starts_allowed(state, name)
        for retrain, attempt in running:
            attempt_id = attempt.attempt_id
            followed = self._followed.setdefault(attempt_id, _Followed())
            ttl = state.models[retrain.model_id].retraining_policy.lease_ttl
            if attempt.expires_at - now < ttl / 2:
                self._spawn(f"renew {attempt_id}", self._reports.renew(attempt, ""))
            if attempt.run:
                if followed.pause.over(at_s) and at_s - followed.polled_s >= self._poll_s:
                    self._spawn(f"run {attempt_id}", self._poll(name, retrain, attempt, followed))
            elif startable > 0:
                startable -= 1
                if followed.pause.over(at_s):
                    self._spawn(f"run {attempt_id}", self._start(name, attempt_id, followed))

    def _starts_allowed(self, state: State, name: str) -> int:
        """How many starts may be tried now: while half open one, be it of a probe or of one that nobody knows about."""
        breaker = state.breakers.get(name)
        if breaker is None or breaker.bypassed_by or breaker.state is BreakerState.CLOSED:
            return LEASES_PER_TURN_MAX
        return 1 if breaker.state is BreakerState.HALF_OPEN else 0

    def _begin_stops(self, state: State, name: str) -> None:
        at_s = self._monotonic()
        for attempt_id in sorted(self._seen[name]):
            attempt = attempt_of(state.retrain_of_attempt(attempt_id), attempt_id)
            if attempt.state is AttemptState.RUNNING:
                continue
            followed = self._followed.setdefault(attempt_id, _Followed())
            if attempt.state not in TO_BE_STOPPED:
                self._forget(name, attempt_id)
            elif followed.pause.over(at_s):
                self._spawn(f"run {attempt_id}", self._stop(name, attempt_id, followed))

    def _begin_leasing(self, state: State, name: str) -> None:
        breaker = state.breakers.get(name)
        shut = breaker is not None and not breaker.bypassed_by and breaker.state is not BreakerState.CLOSED
        unsettled = any(not attempt.run for _, attempt in running_on(state, name))
        if shut and breaker is not None and (breaker.state is BreakerState.OPEN or unsettled):
            return
        waiting = any(retrain.state is RetrainState.WAITING for retrain in state.living())
        if waiting and not state.held and self._leasing_pauses[name].over(self._monotonic()):
            self._spawn(f"lease {name}", self._lease(name))

    def _spawn(self, key: str, work: Awaitable[None]) -> None:
        if key in self._tasks:
            # A coroutine that is never awaited warns; closing it says that this is meant.
            close = getattr(work, "close", None)
            if close is not None:
                close()
            return

        async def guarded() -> None:
            try:
                await work
            except RunwayError as error:
                log.debug("schedulers.put_off", of=key, message=error.message)
            except Exception:
                log.exception("schedulers.failed", of=key)
            finally:
                del self._tasks[key]

        self._tasks[key] = asyncio.create_task(guarded(), name=key)

    def _forget(self, name: str, attempt_id: AttemptId) -> None:
        self._seen[name].discard(attempt_id)
        if f"run {attempt_id}" not in self._tasks:
            self._followed.pop(attempt_id, None)

    # --- leasing and starting ---

    async def _lease(self, name: str) -> None:
        """Take what may run now and start it at once. After a refusal of everything one is enough to try with."""
        most = 1 if name in self._refusals else LEASES_PER_TURN_MAX
        state = self._node.state
        command = LeaseRetrains(
            scheduler=name,
            lease_tokens=tuple(LeaseToken(secrets.token_hex(LEASE_TOKEN_BYTES)) for _ in range(most)),
            known_attempt_ids=tuple(attempt.attempt_id for _, attempt in running_on(state, name)),
        )
        answer = await self._node.submit(Submission(command=command, actor=ACTOR, reason=f"for {name}"))
        if answer.result.attempt_ids:
            log.info("schedulers.leased", scheduler=name, count=len(answer.result.attempt_ids))
            for attempt_id in answer.result.attempt_ids:
                self._followed.setdefault(attempt_id, _Followed(untried=True))
            self._begin_runs(self._node.state, name)

    async def _start(self, name: str, attempt_id: AttemptId, followed: _Followed) -> None:
        """Start an attempt that the log holds, whether or not it was tried before."""
        async with self._gates[name]:
            (retrain, job), _ = await self._node.read(lambda state: startable(state, attempt_id))
            attempt = attempt_of(retrain, attempt_id)
            if attempt.state is not AttemptState.RUNNING or attempt.run:
                return
            scheduler, unsure, first = self._schedulers[name], "", followed.untried
            followed.untried = False
            try:
                async with asyncio.timeout(self._call_s_max):
                    started = await scheduler.start(job)
            except TimeoutError:
                unsure = f"{name} did not answer within {self._call_s_max:g} s"
                await self._watch.told(name, CallOutcome.FAILED, unsure)
            except SchedulerUnavailable as error:
                await self._watch.told(name, CallOutcome.FAILED if error.counts else CallOutcome.REFUSED, str(error))
                if error.sure and first:
                    await self._reports.fail(attempt, str(error), FailureClass.SCHEDULER)
                    if not error.counts:
                        self._pause_leasing(name)  # what the breaker does not hear of it cannot hold back
                else:
                    unsure = str(error)
            except SchedulerRefused as error:
                if first or await self._is_missing(name, retrain, attempt, followed):
                    await self._refused(name, attempt, error)
                else:
                    unsure = str(error)
            else:
                await self._has_started(name, attempt, started.run, started.note, followed)
        if unsure:
            followed.pause.failed(self._monotonic(), refused=False)
            log.warning("schedulers.start_unknown", scheduler=name, attempt=attempt_id, message=unsure)

    async def _has_started(self, name: str, attempt: Attempt, run: str, note: str, followed: _Followed) -> None:
        followed.pause.worked()
        followed.note = note
        self._refusals.pop(name, None)
        self._leasing_pauses[name].worked()
        # What lies there and waits proves nothing about a scheduler that is tried out.
        await self._watch.told(name, CallOutcome.SUCCEEDED, probe=not note)
        await self._reports.renew(attempt, run)
        log.info("schedulers.started", scheduler=name, attempt=attempt.attempt_id, run=run)
        if note:
            log.warning("schedulers.waits", scheduler=name, attempt=attempt.attempt_id, message=note)

    async def _refused(self, name: str, attempt: Attempt, error: SchedulerRefused) -> None:
        """A job that is refused fails as itself; where everything is refused the retrain goes back and all wait."""
        await self._watch.told(name, CallOutcome.REFUSED, str(error))
        if error.whole:
            self._refusals[name] = str(error)
            self._pause_leasing(name)
            log.error("schedulers.refuses_everything", scheduler=name, message=str(error))
        failure_class = FailureClass.SCHEDULER if error.whole else FailureClass.UNKNOWN
        await self._reports.fail(attempt, f"{name} refused to start it: {error}", failure_class)

    async def _is_missing(self, name: str, retrain: Retrain, attempt: Attempt, followed: _Followed) -> bool:
        """A start is refused that was asked for before: did the first one do nothing? A run that is there is taken."""
        run = Run(attempt_id=attempt.attempt_id, model_id=retrain.model_id)
        status = await self._asked(name, self._schedulers[name].status(run), followed, probe=False)
        if status is not None and status.state is not RunState.MISSING:
            await self._has_started(name, attempt, status.run, status.note, followed)
        return status is not None and status.state is RunState.MISSING

    def _pause_leasing(self, name: str) -> None:
        """Wait twice as long as the last time; what fails together is one failure."""
        pause, at_s = self._leasing_pauses[name], self._monotonic()
        if pause.over(at_s):
            pause.failed(at_s, refused=False)

    # --- following and stopping ---

    async def _poll(self, name: str, retrain: Retrain, attempt: Attempt, followed: _Followed) -> None:
        """Ask how a run is, and report for it what it did not report itself."""
        run = Run(attempt_id=attempt.attempt_id, model_id=retrain.model_id, run=attempt.run)
        async with self._gates[name]:
            followed.polled_s = self._monotonic()
            status = await self._asked(name, self._schedulers[name].status(run), followed, probe=attempt.probe)
        if status is None:
            return
        followed.note = status.note
        if status.state in {RunState.QUEUED, RunState.RUNNING}:
            followed.ended_s = None
            return
        followed.ended_s = at_s = followed.ended_s if followed.ended_s is not None else self._monotonic()
        if self._monotonic() - at_s >= self._report_grace_s or status.state is RunState.FAILED:
            await self._reports.report_for(name, attempt.attempt_id, status)

    async def _asked(
        self, name: str, asking: Awaitable[RunStatus], followed: _Followed, *, probe: bool
    ) -> RunStatus | None:
        """What came of asking after a run; None when nothing did."""
        try:
            async with asyncio.timeout(self._call_s_max):
                status = await asking
        except TimeoutError:
            await self._watch.told(name, CallOutcome.FAILED, f"{name} did not answer within {self._call_s_max:g} s")
        except SchedulerUnavailable as error:
            await self._watch.told(name, CallOutcome.FAILED if error.counts else CallOutcome.REFUSED, str(error))
            followed.note = followed.note if error.counts else str(error)
        except SchedulerRefused as error:
            await self._watch.told(name, CallOutcome.REFUSED, str(error))
            followed.note = f"{name} does not say how it is: {error}"
        else:
            followed.pause.worked()
            await self._watch.told(name, CallOutcome.SUCCEEDED, probe=probe and not status.note)
            return status
        followed.pause.failed(self._monotonic(), refused=False)
        return None

    async def _stop(self, name: str, attempt_id: AttemptId, followed: _Followed) -> None:
        """End the run of an attempt that has ended for the control plane."""
        retrain, _ = await self._node.read(lambda state: state.retrain_of_attempt(attempt_id))
        attempt = attempt_of(retrain, attempt_id)
        run = Run(attempt_id=attempt_id, model_id=retrain.model_id, run=attempt.run)
        failure, found = "", False
        async with self._gates[name]:
            try:
                async with asyncio.timeout(self._call_s_max):
                    found = await self._schedulers[name].stop(run)
            except TimeoutError:
                failure = f"{name} did not answer within {self._call_s_max:g} s"
                await self._watch.told(name, CallOutcome.FAILED, failure)
            except SchedulerUnavailable as error:
                failure = str(error)
                await self._watch.told(name, CallOutcome.FAILED if error.counts else CallOutcome.REFUSED, failure)
            except SchedulerRefused as error:
                await self._watch.told(name, CallOutcome.REFUSED, str(error))
                log.warning("schedulers.stop_refused", scheduler=name, attempt=attempt_id, message=str(error))
                found = True
            else:
                await self._watch.told(name, CallOutcome.SUCCEEDED)
        followed.stop_tries += not failure
        if found or (not failure and (attempt.run or followed.stop_tries >= STOP_TRIES_MAX)):
            self._seen[name].discard(attempt_id)
            del self._followed[attempt_id]
            log.info("schedulers.stopped", scheduler=name, attempt=attempt_id)
            return
        followed.pause.failed(self._monotonic(), refused=False)
