"""Requests for retrains: asked for, merged, superseded, held, released, cancelled, forgotten."""

from datetime import datetime

from msgspec.structs import replace

from control_plane.core.commands import (
    CancelRetrain,
    CloseHealed,
    ExpireRetrain,
    HoldRetrain,
    ReleaseRetrain,
    RequestRetrain,
    Result,
)
from control_plane.core.decide.attempts import attempt_ended, retrain_ended
from control_plane.core.decide.cascade import group_of
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.onward import back
from control_plane.core.errors import Reason, Refused
from control_plane.core.events import Event, RetrainHeld, RetrainJoined, RetrainReleased, RetrainRequested
from control_plane.core.ids import RetrainId, model_node
from control_plane.core.relations import check_not_retired
from control_plane.core.retraining.failures import gpu_hours_spent
from control_plane.core.retraining.rules import earliest_start, merged_causes, next_off_peak
from control_plane.core.retraining.types import AttemptState, Retrain, RetrainCause, RetrainState
from control_plane.core.staleness.verdict import Level
from control_plane.core.state import ModelRecord, State
from control_plane.core.timewindow import spelled


def request_retrain(state: State, command: RequestRetrain, now: datetime, made: int = 0) -> Decision:
    """One live retrain per model: a further request adds its cause and may lift the cooldown, or takes its place.

    `made`: retrains that the same decision has requested before this one.
    """
    record = state.model(command.model_id)
    check_not_retired(record)
    if record.live_retrain is None:
        return _requested(state, record, command, now, (), made)
    live = state.retrains[record.live_retrain]
    if command.supersede:
        successor = RetrainId(f"rt_{state.retrains_count + made + 1:06d}")
        ended = ended_by_hand(state, live, RetrainState.SUPERSEDED, f"superseded by {successor}", now, successor)
        return _requested(state, record, command, now, ended, made)
    return _joined(state, record, live, command, now)


def _requested(
    state: State,
    record: ModelRecord,
    command: RequestRetrain,
    now: datetime,
    before: tuple[Event, ...],
    made: int,
) -> Decision:
    retrain_id = RetrainId(f"rt_{state.retrains_count + made + 1:06d}")
    policy, evaluation = record.retraining_policy, record.standing.evaluation
    not_before = _start_asked_for(state, record, command, now)
    holds = record.rule_outcome.retraining
    requested = RetrainRequested(
        retrain_id=retrain_id,
        model_id=command.model_id,
        cause=command.cause,
        score=evaluation.score if evaluation is not None else 0.0,
        not_before=not_before,
        ignore_cooldown=command.ignore_cooldown,
        group=command.group or (group_of(state, record) if command.cause is RetrainCause.UPSTREAM else ""),
        expires_at=not_before + policy.request_ttl,
        rule=holds.name if command.cause is RetrainCause.RULE and holds is not None else "",
    )
    return Decision(
        events=(*before, requested),
        result=Result(model_id=command.model_id, retrain_id=retrain_id, created=True, changed=1),
    )


def _start_asked_for(state: State, record: ModelRecord, command: RequestRetrain, now: datetime) -> datetime:
    """When what is asked for now may first run."""
    policy = record.retraining_policy
    # The end of one that is superseded now is not in the record yet: its successor waits only for those before it.
    not_before = earliest_start(policy, now, record.retrain_ended_at, command.ignore_cooldown)
    if command.off_peak or (not command.ignore_cooldown and touches_many(state, record)):
        return next_off_peak(policy, not_before)
    return not_before


def touches_many(state: State, record: ModelRecord) -> bool:
    """Would its promotion make more models wait and look than its policy allows at any hour?"""
    return len(state.graph.downstream_models(model_node(record.model_id))) > record.retraining_policy.impact_max


def _joined(state: State, record: ModelRecord, live: Retrain, command: RequestRetrain, now: datetime) -> Decision:
    """What a further request changes: its cause is kept, and a person may bring the start forward, never put it off."""
    result = Result(model_id=command.model_id, retrain_id=live.retrain_id, created=False)
    if live.state is not RetrainState.WAITING:
        return Decision(result=result)
    ignores = live.ignore_cooldown or command.ignore_cooldown
    not_before = live.not_before
    # A backoff after a failed attempt is kept; only cooldowns and the wait for the night can be ended.
    if command.cause is RetrainCause.OPERATOR and not live.attempts:
        not_before = min(not_before, _start_asked_for(state, record, command, now))
    same = merged_causes(live.causes, command.cause) == live.causes and ignores == live.ignore_cooldown
    if same and not_before == live.not_before:
        return Decision(result=result)
    joined = RetrainJoined(
        retrain_id=live.retrain_id,
        model_id=command.model_id,
        cause=command.cause,
        not_before=not_before,
        ignore_cooldown=ignores,
    )
    return Decision(events=(joined,), result=result)


def ended_by_hand(
    state: State,
    retrain: Retrain,
    ended_as: RetrainState,
    why: str,
    now: datetime,
    successor: RetrainId | None = None,
) -> tuple[Event, ...]:
    """The end of a live retrain: a worker that still runs loses its lease, a candidate on its way is dropped."""
    events: list[Event] = []
    attempt = retrain.running_attempt
    record = state.models[retrain.model_id]
    if attempt is not None:
        policy = record.retraining_policy
        spent = gpu_hours_spent(attempt, None, policy.gpus, policy.duration_expected, now)
        events.append(attempt_ended(retrain, attempt, AttemptState.CANCELLED, why, gpu_hours=spent))
    if retrain.state is RetrainState.VALIDATING and retrain.rollout_id is not None:
        rollout = state.rollouts[retrain.rollout_id]
        if rollout.live:
            # Without its retrain, which ends here in a way of its own.
            events.extend(back(state, replace(rollout, retrain_id=None), f"its retrain was {why}", aborted=True))
    events.append(retrain_ended(retrain, ended_as, why, successor))
    return tuple(events)


def cancel_retrain(state: State, command: CancelRetrain, now: datetime, why: str = "cancelled by request") -> Decision:
    """End a live retrain; a worker that still runs loses its lease, a candidate on its way is dropped."""
    retrain = live_retrain(state, command.retrain_id)
    events = ended_by_hand(state, retrain, RetrainState.CANCELLED, why, now)
    return Decision(events=events, result=_result(retrain))


def hold_retrain(state: State, command: HoldRetrain) -> Decision:
    """Let a waiting retrain wait until it is released."""
    retrain = live_retrain(state, command.retrain_id)
    if retrain.state is not RetrainState.WAITING:
        raise Refused(
            Reason.RETRAIN_NOT_WAITING,
            f"{retrain.retrain_id} of {retrain.model_id} is {retrain.state.value.lower()} already: "
            f"`runway retrains cancel {retrain.retrain_id}` ends it, and "
            f"`runway rollouts hold {retrain.rollout_id or 'ROLLOUT'}` holds its candidate",
            retrain_id=retrain.retrain_id,
        )
    if retrain.held_by:
        return Decision(result=_result(retrain))
    held = RetrainHeld(retrain_id=retrain.retrain_id, model_id=retrain.model_id)
    return Decision(events=(held,), result=_result(retrain))


def release_retrain(state: State, command: ReleaseRetrain) -> Decision:
    """Let it go on."""
    retrain = live_retrain(state, command.retrain_id)
    if not retrain.held_by:
        return Decision(result=_result(retrain))
    released = RetrainReleased(retrain_id=retrain.retrain_id, model_id=retrain.model_id)
    return Decision(events=(released,), result=_result(retrain))


def expire_retrain(state: State, command: ExpireRetrain, now: datetime) -> Decision:
    """A request that has not run in time is forgotten; what is still wrong then asks anew."""
    retrain = state.retrain(command.retrain_id)
    if not expired(retrain, now):
        return Decision(result=_result(retrain))
    waiting = now - retrain.requested_at
    waited = f"{waiting.days} days" if waiting.days > 1 else spelled(waiting)
    ended = retrain_ended(retrain, RetrainState.CANCELLED, f"expired: it could not run for {waited}")
    return Decision(events=(ended,), result=_result(retrain))


def expired(retrain: Retrain, now: datetime) -> bool:
    """Has a request waited longer than its time to live? One that somebody holds is not forgotten."""
    return (
        retrain.state is RetrainState.WAITING
        and not retrain.held_by
        and retrain.expires_at is not None
        and now > retrain.expires_at
    )


def close_healed(state: State, command: CloseHealed) -> Decision:
    """Drop a waiting retrain that Runway asked for by itself, once what it asked for is no longer so."""
    retrain = state.retrain(command.retrain_id)
    why = not_wanted(state, retrain)
    if not why:
        return Decision(result=_result(retrain))
    ended = retrain_ended(retrain, RetrainState.CANCELLED, f"no longer needed: {why}")
    return Decision(events=(ended,), result=_result(retrain))


def not_wanted(state: State, retrain: Retrain) -> str:
    """Why a waiting retrain that only verdicts or rules asked for is no longer needed; empty if it is.

    1. A rule that says to ignore the model, or to leave it to people, has the last word since.
    2. Neither a rule nor a verdict that is not FRESH asks for it any more.
    """
    if retrain.state is not RetrainState.WAITING or not BY_ITSELF.issuperset(retrain.causes):
        return ""
    record = state.models[retrain.model_id]
    holds = record.rule_outcome.retraining
    if holds is not None and not holds.action.requests:
        return f"rule {holds.name} says {holds.action.value.lower().replace('_', ' ')}"
    if holds is not None and RetrainCause.RULE in retrain.causes:
        return ""
    by_verdict = not {RetrainCause.STALE, RetrainCause.UPSTREAM}.isdisjoint(retrain.causes)
    if by_verdict and record.standing.level is not Level.FRESH:
        return ""
    return "the model is fresh again" if by_verdict else "no rule asks for it any more"


BY_ITSELF = frozenset({RetrainCause.STALE, RetrainCause.RULE, RetrainCause.UPSTREAM})
"""Causes that Runway finds by itself and that can pass by themselves."""


def live_retrain(state: State, retrain_id: RetrainId) -> Retrain:
    """The retrain, if it has not ended; else `Refused(RETRAIN_FINISHED)`."""
    retrain = state.retrain(retrain_id)
    if retrain.live:
        return retrain
    raise Refused(
        Reason.RETRAIN_FINISHED,
        f"{retrain.retrain_id} has ended already ({retrain.state.value.lower()}: {retrain.conclusion})",
        retrain_id=retrain.retrain_id,
    )


def _result(retrain: Retrain) -> Result:
    return Result(model_id=retrain.model_id, retrain_id=retrain.retrain_id)
