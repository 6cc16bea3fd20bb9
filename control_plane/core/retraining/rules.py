"""Rules of retraining: who may run now, in which order, and what a failure leads to.

Every function is pure; `now` is the control plane's clock.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop

from control_plane.core.errors import Reason, Refused, Violation
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId
from control_plane.core.retraining.limits import Claim, Usage, slots_of
from control_plane.core.retraining.types import (
    Attempt,
    AttemptState,
    Retrain,
    RetrainCause,
    RetrainingPolicy,
    RetrainState,
)
from control_plane.core.timewindow import spelled

SPAN_MAX = timedelta(days=3650)
"""Ten years: longer than any model lives, short enough that adding it to a time never leaves the calendar, which
would stop the plan of the whole fleet."""

BACKOFF_MAX = timedelta(days=3)
"""The first of up to `BACKOFF_DOUBLINGS_MAX` doublings: they end within `SPAN_MAX`."""


def policy_violations(policy: RetrainingPolicy) -> list[Violation]:
    """All broken rules of a retraining policy."""
    found = [
        _violation(name, f"must be from 0 to {most.days} days")
        for names, most in ((MAY_BE_NONE, SPAN_MAX), (("retry_backoff",), BACKOFF_MAX))
        for name in names
        if not timedelta(0) <= getattr(policy, name) <= most
    ]
    found += [
        _violation(name, f"must be longer than 0 and at most {SPAN_MAX.days} days")
        for name in MUST_LAST
        if not timedelta(0) < getattr(policy, name) <= SPAN_MAX
    ]
    rules = (
        ("attempt_timeout", policy.attempt_timeout >= policy.lease_ttl, "must not be shorter than lease_ttl"),
        ("attempts_max", 1 <= policy.attempts_max <= 20, "must be 1 to 20"),
        (
            "every",
            policy.every <= timedelta(0) or policy.every >= policy.cooldown,
            "must be 0 (never) or at least as long as the cooldown",
        ),
        (
            "cascade_cooldown_max",
            policy.cascade_cooldown_max >= policy.cascade_cooldown,
            "must not be shorter than cascade_cooldown",
        ),
        ("gpus", 0 <= policy.gpus < float("inf"), "must be a finite number of at least 0"),
        ("impact_max", policy.impact_max >= 0, "must be at least 0"),
        ("preemptions_max", policy.preemptions_max >= 0, "must be at least 0"),
    )
    return found + [_violation(name, message) for name, kept, message in rules if not kept]


MAY_BE_NONE = ("cooldown", "cascade_cooldown", "every", "cascade_cooldown_max", "data_backoff")
MUST_LAST = ("lease_ttl", "attempt_timeout", "duration_expected", "request_ttl")


def _violation(name: str, message: str) -> Violation:
    return Violation(field=f"retraining.{name}", rule="range", message=message)


def earliest_start(
    policy: RetrainingPolicy, now: datetime, last_ended_at: datetime | None, ignore_cooldown: bool
) -> datetime:
    """When a retrain asked for at `now` may first run: after the model's own cooldown."""
    if ignore_cooldown or last_ended_at is None:
        return now
    return max(now, last_ended_at + policy.cooldown)


def off_peak(policy: RetrainingPolicy, now: datetime) -> bool:
    """Is `now` in the off-peak hours, [start, end) UTC, over midnight if end is smaller? Start and end alike: always.

    >>> off_peak(RetrainingPolicy(off_peak_start_hour=22, off_peak_end_hour=6), datetime(2024, 3, 1, 5, 59))
    True
    """
    start, end = policy.off_peak_start_hour, policy.off_peak_end_hour
    if start < end:
        return start <= now.hour < end
    return now.hour >= start or now.hour < end


def merged_causes(causes: tuple[RetrainCause, ...], cause: RetrainCause) -> tuple[RetrainCause, ...]:
    """The causes of a retrain that is asked for once more."""
    return causes if cause in causes else (*causes, cause)


AGING = timedelta(days=1)
"""Each whole day that a retrain could have run counts as one tier more: a tier 4 overtakes fresh requests of tier 1
after four days, so that no stream of important ones starves it."""


def priority(retrain: Retrain, tier: int, now: datetime) -> tuple[int, float, datetime, RetrainId]:
    """Sort key of the queue: tier first, then the staler, then the older, then the id so that order is total."""
    asked, could = retrain.requested_at, retrain.not_before
    days = (now - (could if could > asked else asked)).days  # of which AGING is one
    return (tier - days if days > 0 else tier, -retrain.score, asked, retrain.retrain_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks for leases, and what keeps single retrains from running whatever the limits say.

    `tier` and `claim` say how much a model matters and what its retrain would hold, `scheduler_of` who may run a model
    (empty: anybody), `wave_of` its place among all that is live (1: nothing upstream of it is), `cooling_until` the
    end of its cascade cooldown, `unsettled` whether nobody has looked at it since that ended.
    """

    scheduler: str
    now: datetime
    tier: Callable[[ModelId], int]
    claim: Callable[[Retrain], Claim]
    scheduler_of: Callable[[ModelId], str]
    wave_of: Callable[[ModelId], int]
    cooling_until: Callable[[ModelId], datetime | None]
    unsettled: Callable[[ModelId], bool]


def releasable(live: Iterable[Retrain], asking: Asking, usage: Usage, leases_max: int) -> list[Retrain]:
    """The retrains that may be leased now, in order, at most `leases_max`; `usage` counts them in.

    1. Only waiting ones that nobody holds, whose time has come and is not over, and which this scheduler may run.
    2. Not while an upstream promotion is still cooling, unless an operator said to ignore that; nor, unless an operator
       asked, before somebody has looked since.
    3. Not before every upstream model with a live retrain has ended it (topological order).
    4. By tier, score and age; never more than the limits of the fleet, the scheduler, the team, the resource class and
       the team's budget.
    """
    now, tier = asking.now, asking.tier
    queue = [
        (priority(r, tier(r.model_id), now), r)
        for r in live
        if r.state is RetrainState.WAITING and r.not_before <= now and not r.held_by
    ]
    # A heap: of ten thousand that wait, only as many are put in order as are looked at.
    heapify(queue)
    chosen: list[Retrain] = []
    while queue and len(chosen) < leases_max and not usage.full(1) and not usage.scheduler_full(asking.scheduler):
        _, retrain = heappop(queue)
        if usage.full(tier(retrain.model_id)) or not may_run(retrain, asking):
            continue
        claim = asking.claim(retrain)
        if usage.in_the_way(claim):
            continue
        chosen.append(retrain)
        usage.take(claim, asking.scheduler)
    return chosen


def may_run(retrain: Retrain, asking: Asking) -> bool:
    """May a waiting retrain run now as far as order, cooldown and scheduler go? Limits are not asked."""
    now, model_id = asking.now, retrain.model_id
    if retrain.expires_at is not None and now > retrain.expires_at:
        return False
    if asking.scheduler_of(model_id) not in ("", asking.scheduler):
        return False
    if not retrain.ignore_cooldown:
        until = asking.cooling_until(model_id)
        if until is not None and now < until:
            return False
        if RetrainCause.OPERATOR not in retrain.causes and asking.unsettled(model_id):
            return False
    return asking.wave_of(model_id) <= 1


def waiting_for(
    retrain: Retrain,
    *,
    now: datetime,
    fleet_held: bool,
    live_upstream: Sequence[ModelId],
    cooling_until: datetime | None,
    unsettled: bool,
    claim: Claim,
    usage: Usage,
    breaker: str = "",
) -> list[str]:
    """Why a waiting retrain does not run, in words; empty when a scheduler may take it.

    `breaker`: why its scheduler gets nothing now, empty if it does.
    """
    if retrain.state is not RetrainState.WAITING:
        return []
    why = []
    if fleet_held:
        why.append("retraining is held for the whole fleet (`runway release` ends that)")
    if retrain.held_by:
        reason = f": {retrain.hold_reason}" if retrain.hold_reason else ""
        why.append(f"{retrain.held_by} holds it{reason} (`runway retrains release {retrain.retrain_id}` ends that)")
    if retrain.not_before > now:
        what = "its next try" if retrain.attempts else "its cooldown, or the off-peak hours"
        why.append(f"{what} (until {retrain.not_before:%Y-%m-%d %H:%M})")
    if not retrain.ignore_cooldown:
        if cooling_until is not None and cooling_until > now:
            why.append(f"the cooldown after an upstream promotion (until {cooling_until:%Y-%m-%d %H:%M})")
        elif unsettled and RetrainCause.OPERATOR not in retrain.causes:
            why.append("a fresh look at it, now that its cooldown after an upstream promotion is over")
    if live_upstream:
        why.append(f"upstream retrains to end first: {', '.join(live_upstream)}")
    if breaker:
        why.append(breaker)
    if usage.full(claim.tier):
        slots = slots_of(usage.limits, claim.tier)
        kept = f" ({usage.limits.running_max - slots} are kept for tier 1)" if slots < usage.limits.running_max else ""
        why.append(f"a free slot: {usage.running} of {slots} run{kept}")
    else:
        limit = usage.in_the_way(claim)
        if limit:
            why.append(limit)
    return why


def next_off_peak(policy: RetrainingPolicy, now: datetime) -> datetime:
    """`now` if these are off-peak hours, else when the next begin."""
    if off_peak(policy, now):
        return now
    start = now.replace(hour=policy.off_peak_start_hour, minute=0, second=0, microsecond=0)
    return start if start > now else start + timedelta(days=1)


def held_lease(retrain: Retrain, attempt_id: AttemptId, token: LeaseToken, now: datetime) -> Attempt:
    """The running attempt that this token holds, else `Refused(LEASE_LOST)`."""
    attempt = retrain.running_attempt
    if attempt is None or attempt.attempt_id != attempt_id or attempt.lease_token != token:
        raise Refused(
            Reason.LEASE_LOST,
            f"the lease of {attempt_id} is gone ({_how_it_ended(retrain, attempt_id)}): "
            "stop the work, its result is not used",
            attempt_id=attempt_id,
        )
    if attempt.expires_at < now:
        raise Refused(
            Reason.LEASE_LOST,
            f"the lease of {attempt_id} expired at {attempt.expires_at:%Y-%m-%d %H:%M:%S}: stop the work",
            attempt_id=attempt_id,
        )
    return attempt


def _how_it_ended(retrain: Retrain, attempt_id: AttemptId) -> str:
    for attempt in retrain.attempts:
        if attempt.attempt_id == attempt_id:
            return f"attempt {attempt.state.value.lower().replace('_', ' ')}"
    return "no such attempt"


def overdue(attempt: Attempt, policy: RetrainingPolicy, now: datetime) -> str:
    """Why a running attempt counts as failed at `now`: its lease expired or it ran too long. Empty if neither."""
    if attempt.state is not AttemptState.RUNNING:
        return ""
    if now > attempt.expires_at:
        return f"no sign of life since before {attempt.expires_at:%Y-%m-%d %H:%M}: the lease expired"
    if now > attempt.leased_at + policy.attempt_timeout:
        return f"still running after {spelled(policy.attempt_timeout)}: timed out"
    return ""
