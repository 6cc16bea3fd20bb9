"""What is due now, by itself: leases that ran out, validations nobody reported, retrains that policies ask for.

`plan(state, now)` is pure and returns commands, bounded per tick. Each is decided again when its turn comes, so a
plan that is late or repeated does no harm.
"""

from collections.abc import Iterable
from datetime import datetime

from control_plane.core.commands import (
    CloseHealed,
    Command,
    ExpireApproval,
    ExpireAttempt,
    ExpireRetrain,
    ExpireValidation,
    HalfOpenBreaker,
    RequestRetrain,
    SettleCascade,
    SettleLineage,
    StepRollout,
)
from control_plane.core.decide.approvals import approval_expired
from control_plane.core.decide.canary import step_events
from control_plane.core.decide.cascade import in_doubt, overlooked
from control_plane.core.decide.lineage import lineage_due
from control_plane.core.decide.requests import expired, not_wanted
from control_plane.core.retraining.breaker import half_open_due
from control_plane.core.retraining.rules import off_peak, overdue
from control_plane.core.retraining.types import RetrainCause, RetrainState
from control_plane.core.rollout.rules import silent_too_long
from control_plane.core.rules.types import RuleAction
from control_plane.core.staleness.verdict import Action, Level
from control_plane.core.state import ModelRecord, State

COMMANDS_PER_TICK_MAX = 500
"""Half a second of decisions; what is left over is due at the next tick."""


def plan(state: State, now: datetime) -> list[Command]:
    """Commands that are due at `now`, the ones that free something first."""
    due: list[Command] = []
    due.extend(_lost_attempts(state, now))
    due.extend(_silent_validations(state, now))
    due.extend(_rollouts(state, now))
    due.extend(CloseHealed(retrain_id=r.retrain_id) for r in state.living() if not_wanted(state, r))
    due.extend(ExpireRetrain(retrain_id=r.retrain_id) for r in state.living() if expired(r, now))
    if lineage_due(state, now):
        due.append(SettleLineage())
    due.extend(HalfOpenBreaker(scheduler=b.scheduler) for b in state.breakers.values() if half_open_due(b, now))
    # By id: a set has no order of its own, and the same state shall plan the same.
    restless = [state.models[model_id] for model_id in sorted(state.restless)]
    due.extend(SettleCascade(model_id=record.model_id) for record in restless if overlooked(record, now))
    due.extend(_wanted_retrains(restless, now))
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


def _rollouts(state: State, now: datetime) -> list[Command]:
    """Rollouts that nobody approved in time, and those that time alone brings further."""
    found: list[Command] = []
    for rollout in state.rolling():
        if approval_expired(state, rollout, now):
            found.append(ExpireApproval(rollout_id=rollout.rollout_id))
        elif step_events(state, rollout, now):
            found.append(StepRollout(rollout_id=rollout.rollout_id))
    return found


def _wanted_retrains(restless: Iterable[ModelRecord], now: datetime) -> list[Command]:
    return [
        RequestRetrain(model_id=record.model_id, cause=cause)
        for record in restless
        if (cause := wanted_retrain(record, now)) is not None
    ]


def wanted_retrain(record: ModelRecord, now: datetime) -> RetrainCause | None:
    """Why a retrain is to be requested now; None if none is.

    1. Never for a retired model, one whose policy is not automatic, one with a live retrain, or in its own cooldown;
       nor between an upstream promotion and the look that says what it did; nor by an older verdict which that look
       does not confirm.
    2. A rule has the last word: retrain asks whatever the verdict, retrain off-peak only in those hours and not where
       the data is at fault, require approval and ignore never ask.
    3. Without one, STALE by a verdict that a retrain can mend asks.
    """
    policy = record.retraining_policy
    if record.retired or not policy.automatic or record.live_retrain is not None:
        return None
    cascade = record.cascade
    if cascade is not None and cascade.harmed is None:
        return None
    cause = _cause(record, now)
    if cause is RetrainCause.STALE and in_doubt(record):
        cause = None
    if cause is RetrainCause.STALE and cascade is not None and cascade.harmed and _since(record, cascade.began_at):
        cause = RetrainCause.UPSTREAM
    if cause is None and _overdue_by_schedule(record, now):
        cause = RetrainCause.SCHEDULE
    ended_at = record.retrain_ended_at
    if cause is None or (ended_at is not None and now < ended_at + policy.cooldown):
        return None
    return cause


def _since(record: ModelRecord, at: datetime) -> bool:
    """Has the model not been retrained since?"""
    return record.retrain_ended_at is None or record.retrain_ended_at < at


def _overdue_by_schedule(record: ModelRecord, now: datetime) -> bool:
    """Was what serves trained longer ago than the policy's backstop allows?"""
    every, production = record.retraining_policy.every, record.production
    if not every or production is None:
        return False
    return now >= (production.facts.trained_until or production.registered_at) + every


def _cause(record: ModelRecord, now: datetime) -> RetrainCause | None:
    standing, holds = record.standing, record.rule_outcome.retraining
    recommended = standing.evaluation.recommended_action if standing.evaluation is not None else None
    match holds.action if holds is not None else None:
        case None:
            return RetrainCause.STALE if standing.level is Level.STALE and recommended is Action.RETRAIN else None
        case RuleAction.RETRAIN:
            return RetrainCause.RULE
        case RuleAction.RETRAIN_OFF_PEAK:
            futile = recommended is Action.ALERT_DATA_OWNER
            return RetrainCause.RULE if off_peak(record.retraining_policy, now) and not futile else None
        case _:
            return None
