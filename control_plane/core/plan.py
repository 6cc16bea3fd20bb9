"""What is due now, by itself: leases that ran out, validations nobody reported, retrains that policies ask for.

`plan(state, now)` is pure and returns commands, bounded per tick. Each is decided again when its turn comes, so a
plan that is late or repeated does no harm.
"""

from datetime import datetime

from control_plane.core.commands import (
    CloseHealed,
    Command,
    ExpireAttempt,
    ExpireValidation,
    RequestRetrain,
    SettleLineage,
)
from control_plane.core.decide.lineage import lineage_due
from control_plane.core.decide.retraining import healed
from control_plane.core.retraining.rules import overdue
from control_plane.core.retraining.types import RetrainCause, RetrainState
from control_plane.core.rollout.rules import silent_too_long
from control_plane.core.staleness.verdict import Action, Level
from control_plane.core.state import ModelRecord, State

COMMANDS_PER_TICK_MAX = 500
"""Half a second of decisions; what is left over is due at the next tick."""


def plan(state: State, now: datetime) -> list[Command]:
    """Commands that are due at `now`, the ones that free something first."""
    due: list[Command] = []
    due.extend(_lost_attempts(state, now))
    due.extend(_silent_validations(state, now))
    due.extend(CloseHealed(retrain_id=r.retrain_id) for r in state.living() if healed(state, r))
    if lineage_due(state, now):
        due.append(SettleLineage())
    due.extend(_wanted_retrains(state, now))
    return due[:COMMANDS_PER_TICK_MAX]


def _lost_attempts(state: State, now: datetime) -> list[Command]:
    found: list[Command] = []
    for retrain in state.living():
        attempt = retrain.running_attempt
        if retrain.state is not RetrainState.RUNNING or attempt is None:
            continue
        if overdue(attempt, state.models[retrain.model_id].retraining_policy, now):
            found.append(ExpireAttempt(attempt_id=attempt.attempt_id))
    return found


def _silent_validations(state: State, now: datetime) -> list[Command]:
    return [
        ExpireValidation(rollout_id=rollout.rollout_id)
        for rollout in state.validating()
        if silent_too_long(rollout, state.models[rollout.model_id].validation_policy, now)
    ]


def _wanted_retrains(state: State, now: datetime) -> list[Command]:
    return [
        RequestRetrain(model_id=model_id, cause=RetrainCause.STALE)
        for model_id, record in state.models.items()
        if wants_retrain(record, now)
    ]


def wants_retrain(record: ModelRecord, now: datetime) -> bool:
    """Stale by a verdict that a retrain can mend, automatic by policy, none live, and its own cooldown is over."""
    if record.retired or not record.retraining_policy.automatic or record.live_retrain is not None:
        return False
    standing = record.standing
    if standing.level is not Level.STALE or standing.evaluation is None:
        return False
    if standing.evaluation.recommended_action is not Action.RETRAIN:
        return False
    ended_at = record.retrain_ended_at
    return ended_at is None or now >= ended_at + record.retraining_policy.cooldown
