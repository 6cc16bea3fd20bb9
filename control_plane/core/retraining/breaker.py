"""The circuit breaker of a scheduler: when it opens, for how long, and what may be leased meanwhile.

Calls are counted by whoever makes them and live in its memory; what the breaker *is* stands in the log, so that no
restart forgets that a scheduler is down. Every function is pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec.structs import replace

from control_plane.core.retraining.types import Breaker, BreakerState

CONSECUTIVE_MAX = 5
"""So many failures one after the other open it."""
WINDOW = timedelta(minutes=1)
CALLS_MIN = 20
"""Calls within the window from which on their share of failures counts."""
FAILED_SHARE_MAX = 0.5
OPEN_FOR = timedelta(seconds=30)
"""The first time; doubles with each opening in a row."""
OPEN_FOR_MAX = timedelta(minutes=10)
"""Never longer, jitter included."""
JITTER = 0.2
"""Part of the open time that is spread, so that many control planes do not come back at once."""
SUCCESSES_TO_CLOSE = 3
DRAIN_FOR = timedelta(minutes=10)
"""After closing, what has waited is let go at a bounded rate for so long."""
DRAIN_PER_MINUTE = 10


class CallOutcome(StrEnum):
    """How a call to a scheduler went; see the contract's `CallOutcome`."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REFUSED = "REFUSED"


def outcome_of_status(status: int) -> CallOutcome:
    """What an HTTP status says of the scheduler: 408 and 5xx are its trouble, other 4xx are ours.

    >>> [outcome_of_status(status).value for status in (200, 404, 408, 503)]
    ['SUCCEEDED', 'REFUSED', 'FAILED', 'FAILED']
    """
    if status == 408 or status >= 500:
        return CallOutcome.FAILED
    return CallOutcome.REFUSED if status >= 400 else CallOutcome.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Call:
    """One call to a scheduler."""

    at: datetime
    outcome: CallOutcome
    detail: str = ""


def tripped(calls: Sequence[Call], now: datetime) -> str:
    """Why a closed breaker opens, in words; empty if it does not. `calls`: oldest first, refusals do not count.

    1. Five failures in a row.
    2. Half of at least twenty calls within the last minute.
    """
    counted = [call for call in calls if call.outcome is not CallOutcome.REFUSED]
    last = counted[-CONSECUTIVE_MAX:]
    if len(last) == CONSECUTIVE_MAX and all(call.outcome is CallOutcome.FAILED for call in last):
        return f"{CONSECUTIVE_MAX} calls failed one after the other, the last: {last[-1].detail or 'no answer'}"
    recent = [call for call in counted if now - call.at < WINDOW]
    failed = [call for call in recent if call.outcome is CallOutcome.FAILED]
    if len(recent) >= CALLS_MIN and len(failed) >= FAILED_SHARE_MAX * len(recent):
        return (
            f"{len(failed)} of {len(recent)} calls failed within a minute, the last: {failed[-1].detail or 'no answer'}"
        )
    return ""


def open_for(openings: int, jitter: float) -> timedelta:
    """How long the breaker stays open at its n-th opening in a row; `jitter` from 0 to 1.

    Doubled, spread by a fifth to both sides; at the bound the spread is moved below it, so that it stays a spread.

    >>> [open_for(openings, 0.5).total_seconds() for openings in (1, 3, 50)]
    [30.0, 120.0, 500.0]
    >>> [open_for(50, jitter).total_seconds() for jitter in (0, 1)]
    [400.0, 600.0]
    """
    doublings = min(openings - 1, 10)
    longest = min(OPEN_FOR * (1 << doublings) * (1 + JITTER), OPEN_FOR_MAX)
    shortest = longest * ((1 - JITTER) / (1 + JITTER))
    return shortest + (longest - shortest) * jitter


def opened(breaker: Breaker, reason: str, jitter: float, now: datetime) -> Breaker:
    """The breaker after too many failures, or after a failed probe."""
    openings = breaker.openings + 1
    return Breaker(
        scheduler=breaker.scheduler,
        state=BreakerState.OPEN,
        since=now,
        reason=reason,
        open_until=now + open_for(openings, jitter),
        openings=openings,
    )


def half_opened(breaker: Breaker, now: datetime) -> Breaker:
    """It is tried out."""
    return replace(breaker, state=BreakerState.HALF_OPEN, since=now, open_until=None, successes=0)


def probed(breaker: Breaker, succeeded: bool, detail: str, jitter: float, now: datetime) -> Breaker:
    """After a call while half open: three successes close it, one failure opens it again, for longer.

    A bypass is somebody's word: it outlasts both, until it is taken back by a reset.
    """
    if not succeeded:
        after = opened(breaker, f"it was tried out and failed: {detail or 'no answer'}", jitter, now)
    elif breaker.successes + 1 >= SUCCESSES_TO_CLOSE:
        after = closed(breaker, f"{SUCCESSES_TO_CLOSE} tries went well", now)
    else:
        return replace(breaker, successes=breaker.successes + 1)
    return replace(after, bypassed_by=breaker.bypassed_by)


def closed(breaker: Breaker, reason: str, now: datetime) -> Breaker:
    """All is well again."""
    return Breaker(scheduler=breaker.scheduler, state=BreakerState.CLOSED, since=now, reason=reason)


def half_open_due(breaker: Breaker, now: datetime) -> bool:
    """Has the time come to try it out? One that was tripped by hand waits for a hand."""
    return breaker.state is BreakerState.OPEN and breaker.open_until is not None and now >= breaker.open_until


def draining(breaker: Breaker, now: datetime) -> bool:
    """Has it closed a short while ago, so that what has waited is let go at a bounded rate?"""
    return breaker.state is BreakerState.CLOSED and not breaker.bypassed_by and now < breaker.since + DRAIN_FOR


def leases_allowed(breaker: Breaker | None, wanted: int, probing: bool, leased_since: int, now: datetime) -> int:
    """How many retrains its scheduler may lease now, of those it wants.

    `probing`: one is being tried out. `leased_since`: leases given within the last minute, for the drain.

    1. Closed, or bypassed: all it wants; for some time after it closed only so many a minute.
    2. Open: none. 3. Half open: one, if none is being tried out.
    """
    if breaker is None or breaker.bypassed_by:
        return wanted
    match breaker.state:
        case BreakerState.OPEN:
            return 0
        case BreakerState.HALF_OPEN:
            return 0 if probing else min(wanted, 1)
        case BreakerState.CLOSED if draining(breaker, now):
            return min(wanted, max(DRAIN_PER_MINUTE - leased_since, 0))
        case _:
            return wanted


def standing_words(breaker: Breaker | None) -> str:
    """Why its scheduler gets nothing now, in words; empty if it does."""
    if breaker is None or breaker.bypassed_by or breaker.state is BreakerState.CLOSED:
        return ""
    if breaker.state is BreakerState.HALF_OPEN:
        return f"scheduler {breaker.scheduler}, which is tried out with one retrain at a time"
    until = f" until {breaker.open_until:%H:%M:%S}" if breaker.open_until else " until somebody resets it"
    return f"scheduler {breaker.scheduler}, whose breaker is open{until} ({breaker.reason})"
