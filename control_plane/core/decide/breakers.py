"""Circuit breakers of schedulers: opened by failures or by hand, tried out, closed."""

from datetime import datetime, timedelta
from zlib import crc32

from msgspec.structs import replace

from control_plane.core.commands import (
    BypassBreaker,
    HalfOpenBreaker,
    OpenBreaker,
    RecordProbe,
    ResetBreaker,
    Result,
    TripBreaker,
)
from control_plane.core.decide.decision import Decision
from control_plane.core.errors import NotFound, Reason
from control_plane.core.events import BreakerChanged, Event
from control_plane.core.retraining import breaker as rules
from control_plane.core.retraining.types import Attempt, Breaker, BreakerState, FailureClass
from control_plane.core.state import State

MINUTE = timedelta(minutes=1)


def breaker_of(state: State, scheduler: str, now: datetime) -> Breaker:
    """A scheduler's breaker; closed if nothing ever happened to it."""
    return state.breakers.get(scheduler) or Breaker(scheduler=scheduler, since=now)


def _changed(breaker: Breaker) -> Decision:
    return Decision(events=(BreakerChanged(breaker=breaker),), result=Result(changed=1))


def open_breaker(state: State, command: OpenBreaker, now: datetime) -> Decision:
    """Too many calls failed; nothing new if it is open already. A bypass stays somebody's word."""
    before = breaker_of(state, command.scheduler, now)
    if before.state is not BreakerState.CLOSED:
        return Decision(result=Result())
    after = rules.opened(before, command.reason, command.jitter, now)
    return _changed(replace(after, bypassed_by=before.bypassed_by))


def half_open_breaker(state: State, command: HalfOpenBreaker, now: datetime) -> Decision:
    """Try it out, if its time has come."""
    before = breaker_of(state, command.scheduler, now)
    if not rules.half_open_due(before, now):
        return Decision(result=Result())
    return _changed(rules.half_opened(before, now))


def record_probe(state: State, command: RecordProbe, now: datetime) -> Decision:
    """How a call went; it says something only while the breaker is half open."""
    before = breaker_of(state, command.scheduler, now)
    if before.state is not BreakerState.HALF_OPEN:
        return Decision(result=Result())
    return _changed(rules.probed(before, command.succeeded, command.detail, command.jitter, now))


def trip_breaker(state: State, command: TripBreaker, now: datetime) -> Decision:
    """Open it by hand: it stays open until somebody resets it."""
    before = breaker_of(state, command.scheduler, now)
    why = f"tripped by {command.by}" + (f": {command.reason}" if command.reason else "")
    if before.state is BreakerState.OPEN and before.open_until is None and not before.bypassed_by:
        return Decision(result=Result())
    return _changed(Breaker(scheduler=command.scheduler, state=BreakerState.OPEN, since=now, reason=why))


def reset_breaker(state: State, command: ResetBreaker, now: datetime) -> Decision:
    """Close it by hand, and end a bypass."""
    before = known(state, command.scheduler)
    if before.state is BreakerState.CLOSED and not before.bypassed_by:
        return Decision(result=Result())
    return _changed(rules.closed(before, "reset by hand", now))


def bypass_breaker(state: State, command: BypassBreaker, now: datetime) -> Decision:
    """Lease in spite of it until it is reset."""
    before = known(state, command.scheduler)
    if before.bypassed_by:
        return Decision(result=Result())
    return _changed(replace(before, bypassed_by=command.by))


def known(state: State, scheduler: str) -> Breaker:
    """The breaker of a scheduler that had one; else `NotFound(SCHEDULER_NOT_FOUND)`."""
    found = state.breakers.get(scheduler)
    if found is None:
        raise NotFound(
            Reason.SCHEDULER_NOT_FOUND,
            f"the breaker of {scheduler!r} never changed: it is closed, or there is no such scheduler "
            "(`runway schedulers` shows them)",
            scheduler=scheduler,
        )
    return found


def leases_allowed(state: State, scheduler: str, wanted: int, now: datetime) -> int:
    """How many retrains a scheduler may lease now as far as its breaker goes."""
    breaker = state.breakers.get(scheduler)
    if breaker is None:
        return wanted
    probing = any(
        attempt.probe and attempt.scheduler == scheduler
        for retrain in state.running()
        if (attempt := retrain.running_attempt) is not None
    )
    recent = _let_go(state, breaker, now) if rules.draining(breaker, now) else 0
    return rules.leases_allowed(breaker, wanted, probing, recent, now)


def _let_go(state: State, breaker: Breaker, now: datetime) -> int:
    """Leases of the last minute since it closed, also of retrains that have ended already."""
    since, found = now - MINUTE, 0
    for record in state.models.values():
        # A model's retrains come one after the other: whatever is older than one that ended then ended before.
        for retrain_id in reversed(record.retrain_ids):
            retrain = state.retrains[retrain_id]
            if retrain.ended_at is not None and retrain.ended_at <= since:
                break
            found += sum(
                attempt.scheduler == breaker.scheduler
                and not attempt.probe
                and attempt.leased_at > since
                and attempt.leased_at >= breaker.since
                for attempt in retrain.attempts
            )
    return found


def probe_ended(state: State, attempt: Attempt, failure_class: FailureClass | None, now: datetime) -> tuple[Event, ...]:
    """What the end of a probe says of its scheduler: that it ran, whatever came of the training, or that it could not
    be started, or that nobody heard of it any more. What spreads the open time follows from the attempt's id."""
    breaker = state.breakers.get(attempt.scheduler)
    if not attempt.probe or breaker is None or breaker.state is not BreakerState.HALF_OPEN:
        return ()
    silent = failure_class is FailureClass.TIMEOUT and now > attempt.expires_at
    started = failure_class is not FailureClass.SCHEDULER and not silent
    detail = "nothing was heard of its retrain" if silent else "it could not start the retrain"
    jitter = crc32(attempt.attempt_id.encode()) / 2**32
    after = rules.probed(breaker, started, detail, jitter, now)
    return (BreakerChanged(breaker=after),)


def is_probe(state: State, scheduler: str) -> bool:
    """Does what the scheduler leases now try it out?"""
    breaker = state.breakers.get(scheduler)
    return breaker is not None and breaker.state is BreakerState.HALF_OPEN and not breaker.bypassed_by
