"""Reads that join several parts of the state. Pure; callers wait for the revision before and after."""

from collections import Counter
from datetime import datetime

from control_plane.core.retraining.rules import waiting_for
from control_plane.core.retraining.types import Retrain
from control_plane.core.state import State


def why_waiting(state: State, retrain: Retrain, now: datetime) -> list[str]:
    """Why a waiting retrain does not run at `now`, in words."""
    record = state.models[retrain.model_id]
    running = state.running()
    team = record.facts.team
    return waiting_for(
        retrain,
        now=now,
        held=state.held,
        live_upstream=state.live_upstream(retrain.model_id),
        cooling_until=record.cooling_until,
        running=len(running),
        running_of_team=sum(state.models[r.model_id].facts.team == team for r in running),
        limits=state.limits,
    )


def verdict_counts(state: State) -> Counter[str]:
    """Models by verdict."""
    return Counter(record.standing.level.value for record in state.models.values())


def retrain_counts(state: State) -> Counter[str]:
    """Live retrains by state."""
    return Counter(retrain.state.value for retrain in state.living())
