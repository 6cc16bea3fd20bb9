"""Reads that join several parts of the state. Pure; callers wait for the revision before and after."""

from collections import Counter
from datetime import datetime

from control_plane.core.decide.leases import claim_of, unsettled, usage_now
from control_plane.core.retraining.breaker import standing_words
from control_plane.core.retraining.rules import waiting_for
from control_plane.core.retraining.types import Retrain, RetrainState
from control_plane.core.state import State


def why_waiting(state: State, retrain: Retrain, now: datetime) -> list[str]:
    """Why a waiting retrain does not run at `now`, in words."""
    if retrain.state is not RetrainState.WAITING:
        return []
    record = state.models[retrain.model_id]
    return waiting_for(
        retrain,
        now=now,
        fleet_held=state.held,
        live_upstream=state.live_upstream(retrain.model_id),
        cooling_until=record.cooling_until,
        unsettled=unsettled(record, now),
        claim=claim_of(state, retrain),
        usage=usage_now(state, now),
        breaker=_breaker_words(state, record.retraining_policy.scheduler),
    )


def _breaker_words(state: State, scheduler: str) -> str:
    """Why its scheduler gets nothing now; where any may run it, only if none gets anything."""
    if scheduler:
        return standing_words(state.breakers.get(scheduler))
    words = [standing_words(breaker) for breaker in state.breakers.values()]
    return words[0] if words and all(words) else ""


def verdict_counts(state: State) -> Counter[str]:
    """Models by verdict."""
    return Counter(record.standing.level.value for record in state.models.values())


def retrain_counts(state: State) -> Counter[str]:
    """Live retrains by state."""
    return Counter(retrain.state.value for retrain in state.living())


def rollout_counts(state: State) -> Counter[str]:
    """Live rollouts by state."""
    return Counter(rollout.state.value for rollout in state.rolling())


def gpu_hours_this_week(state: State, now: datetime) -> dict[str, float]:
    """Team -> GPU hours spent or reserved this week; teams with a budget or with any of either."""
    usage = usage_now(state, now)
    teams = {*usage.limits.gpu_hours_per_week, *usage.spent, *(t for t, hours in usage.reserved.items() if hours)}
    return {team: usage.spent.get(team, 0.0) + usage.reserved.get(team, 0.0) for team in sorted(teams)}
