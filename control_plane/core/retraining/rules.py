"""Rules of retraining: who may run now, in which order, and what a failure leads to.

Every function is pure; `now` is the control plane's clock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId
from control_plane.core.retraining.types import (
    Attempt,
    AttemptState,
    Retrain,
    RetrainCause,
    RetrainingLimits,
    RetrainingPolicy,
    RetrainState,
)
from control_plane.core.timewindow import spelled

BACKOFF_DOUBLINGS_MAX = 10
"""2^10 times the first backoff: with 5 minutes, three and a half days; beyond that a person must look anyway."""

SPAN_MAX = timedelta(days=3650)
"""Ten years: longer than any model lives, short enough that adding it to a time never leaves the calendar, which
would stop the plan of the whole fleet."""

BACKOFF_MAX = timedelta(days=3)
"""The first of up to `BACKOFF_DOUBLINGS_MAX` doublings: they end within `SPAN_MAX`."""


def policy_violations(policy: RetrainingPolicy) -> list[Violation]:
    """All broken rules of a retraining policy."""
    found = []
    for name in ("cooldown", "cascade_cooldown"):
        if not timedelta(0) <= getattr(policy, name) <= SPAN_MAX:
            found.append(_violation(name, f"must be from 0 to {SPAN_MAX.days} days"))
    if not timedelta(0) <= policy.retry_backoff <= BACKOFF_MAX:
        found.append(_violation("retry_backoff", f"must be from 0 to {BACKOFF_MAX.days} days"))
    for name in ("lease_ttl", "attempt_timeout"):
        if not timedelta(0) < getattr(policy, name) <= SPAN_MAX:
            found.append(_violation(name, f"must be longer than 0 and at most {SPAN_MAX.days} days"))
    if policy.attempt_timeout < policy.lease_ttl:
        found.append(_violation("attempt_timeout", "must not be shorter than lease_ttl"))
    if not 1 <= policy.attempts_max <= 20:
        found.append(_violation("attempts_max", "must be 1 to 20"))
    return found


def limits_violations(limits: RetrainingLimits) -> None:
    """Raise `Invalid` for limits that could never run anything."""
    found = [
        Violation(
            field=f"limits.{name}",
            rule="positive",
            message="must be at least 1; to stop retraining use a hold",
        )
        for name in ("running_max", "running_per_team_max")
        if getattr(limits, name) < 1
    ]
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)


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
    waited = max(now - max(retrain.requested_at, retrain.not_before), timedelta(0))
    return (tier - waited // AGING, -retrain.score, retrain.requested_at, retrain.retrain_id)


def releasable(
    retrains: Iterable[Retrain],
    *,
    now: datetime,
    limits: RetrainingLimits,
    tier: Callable[[ModelId], int],
    team: Callable[[ModelId], str],
    live_upstream: Callable[[ModelId], Sequence[ModelId]],
    cooling_until: Mapping[ModelId, datetime],
    leases_max: int,
) -> list[Retrain]:
    """The retrains that may be leased now, in order, at most `leases_max`.

    1. Only waiting ones whose time has come.
    2. Not while an upstream promotion is still cooling, unless an operator said to ignore that.
    3. Not before every upstream model with a live retrain has ended it (topological order).
    4. Never more running than the limits, in the fleet or in a team.
    """
    live = list(retrains)
    running_by_team: dict[str, int] = {}
    running = 0
    for retrain in live:
        if retrain.state is RetrainState.RUNNING:
            running += 1
            running_by_team[team(retrain.model_id)] = running_by_team.get(team(retrain.model_id), 0) + 1
    chosen: list[Retrain] = []
    waiting = [r for r in live if r.state is RetrainState.WAITING and r.not_before <= now]
    for retrain in sorted(waiting, key=lambda r: priority(r, tier(r.model_id), now)):
        if len(chosen) >= leases_max or running >= limits.running_max:
            break
        of_team = team(retrain.model_id)
        if running_by_team.get(of_team, 0) >= limits.running_per_team_max:
            continue
        if not retrain.ignore_cooldown and now < cooling_until.get(retrain.model_id, now):
            continue
        if live_upstream(retrain.model_id):
            continue
        chosen.append(retrain)
        running += 1
        running_by_team[of_team] = running_by_team.get(of_team, 0) + 1
    return chosen


def waiting_for(
    retrain: Retrain,
    *,
    now: datetime,
    held: bool,
    live_upstream: Sequence[ModelId],
    cooling_until: datetime | None,
    running: int,
    running_of_team: int,
    limits: RetrainingLimits,
) -> list[str]:
    """Why a waiting retrain does not run, in words; empty when a scheduler may take it."""
    if retrain.state is not RetrainState.WAITING:
        return []
    why = []
    if held:
        why.append("retraining is held for the whole fleet (`runway release` ends that)")
    if retrain.not_before > now:
        why.append(
            f"{'its next try' if retrain.attempts else 'its cooldown'} (until {retrain.not_before:%Y-%m-%d %H:%M})"
        )
    if cooling_until is not None and cooling_until > now and not retrain.ignore_cooldown:
        why.append(f"the cooldown after an upstream promotion (until {cooling_until:%Y-%m-%d %H:%M})")
    if live_upstream:
        why.append(f"upstream retrains to end first: {', '.join(live_upstream)}")
    if running >= limits.running_max:
        why.append(f"a free slot: {running} of {limits.running_max} run")
    elif running_of_team >= limits.running_per_team_max:
        why.append(f"a free slot of its team: {running_of_team} of {limits.running_per_team_max} run")
    return why


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


def retry_at(policy: RetrainingPolicy, attempt: Attempt, now: datetime) -> datetime | None:
    """When to try again after `attempt` failed at `now`; None when it was the last."""
    if attempt.number >= policy.attempts_max:
        return None
    doublings = min(attempt.number - 1, BACKOFF_DOUBLINGS_MAX)
    return now + policy.retry_backoff * (1 << doublings)


def overdue(attempt: Attempt, policy: RetrainingPolicy, now: datetime) -> str:
    """Why a running attempt counts as failed at `now`: its lease expired or it ran too long. Empty if neither."""
    if attempt.state is not AttemptState.RUNNING:
        return ""
    if now > attempt.expires_at:
        return f"no sign of life since before {attempt.expires_at:%Y-%m-%d %H:%M}: the lease expired"
    if now > attempt.leased_at + policy.attempt_timeout:
        return f"still running after {spelled(policy.attempt_timeout)}: timed out"
    return ""
