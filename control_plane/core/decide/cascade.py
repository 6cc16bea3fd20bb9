"""After an upstream promotion: models downstream wait, are looked at afresh, and retrain only if that says so."""

from datetime import datetime, timedelta

from control_plane.core.commands import Result, SettleCascade
from control_plane.core.decide.attempts import retrain_ended
from control_plane.core.decide.decision import Decision
from control_plane.core.events import CascadeSettled, Event
from control_plane.core.retraining.types import RetrainCause, RetrainState
from control_plane.core.staleness.verdict import Action, Evaluation, Level
from control_plane.core.state import ModelRecord, State

LOOK_WAIT_MAX = timedelta(days=1)
"""A model that nobody looks at any more does not wait for ever: then its last verdict counts."""


def settled_by(record: ModelRecord, evaluation: Evaluation, level: Level) -> tuple[CascadeSettled, ...]:
    """What the first look after the cooldown says; `level` is the verdict that stands with it.

    1. An embedding whose new version is compatible with the one that the model was trained with did it no harm. If the
       model is STALE all the same, that is its own doing: it is retrained for that.
    2. Otherwise it is harmed if it is STALE in a way that a retrain mends.
    """
    cascade = record.cascade
    if cascade is None or cascade.harmed is not None or evaluation.at < cascade.until:
        return ()
    stale = Level.STALE in (level, evaluation.level)
    embedding = next((one for one in evaluation.upstreams if one.model_id == cascade.upstream), None)
    if embedding is not None and embedding.compatible:
        return (_settled(record, False, embedding.explanation),)
    harmed = stale and evaluation.recommended_action is Action.RETRAIN
    if harmed and embedding is not None:
        return (_settled(record, True, embedding.explanation),)
    is_ = f"it is {evaluation.level.value} with a score of {evaluation.score:.2f} ({evaluation.threshold:.2f} is stale)"
    if stale and not harmed:
        is_ += ", which no retrain mends"
    return (_settled(record, harmed, is_),)


BY_VERDICT = frozenset({RetrainCause.STALE, RetrainCause.UPSTREAM})


def spared(state: State, record: ModelRecord, settled: tuple[CascadeSettled, ...], last: Level) -> tuple[Event, ...]:
    """The end of a waiting retrain that only a verdict asked for, if the look after the cooldown found no harm.

    In one decision with that look, so that nobody leases it in between: the verdict itself takes more looks to change.
    """
    if last is Level.STALE or not settled or settled[0].harmed or record.live_retrain is None:
        return ()
    retrain = state.retrains[record.live_retrain]
    if retrain.state is not RetrainState.WAITING or not BY_VERDICT.issuperset(retrain.causes):
        return ()
    why = f"no longer needed: the new version of {settled[0].upstream} did it no harm, {settled[0].why}"
    return (retrain_ended(retrain, RetrainState.CANCELLED, why),)


def in_doubt(record: ModelRecord) -> bool:
    """Does an old verdict stand that the look after the cooldown, and all since, have not confirmed?"""
    cascade, recent = record.cascade, record.standing.streak.recent
    return cascade is not None and cascade.harmed is False and bool(recent) and recent[-1] is not Level.STALE


def group_of(state: State, record: ModelRecord) -> str:
    """What all retrains share that follow from one promotion, at any distance: named for the retrain at its root."""
    cascade = record.cascade
    if cascade is None or cascade.harmed is not True:
        return ""
    upstream = state.models[cascade.upstream]
    for rollout_id in reversed(upstream.rollout_ids):
        rollout = state.rollouts[rollout_id]
        if rollout.version == cascade.version:
            if rollout.retrain_id is None:
                return f"cascade_{rollout_id}"
            return state.retrains[rollout.retrain_id].group or f"cascade_{rollout.retrain_id}"
    return ""


def settle_cascade(state: State, command: SettleCascade, now: datetime) -> Decision:
    """Nobody has looked for too long: the verdict that stands decides."""
    record = state.model(command.model_id)
    result = Result(model_id=command.model_id)
    if not overlooked(record, now):
        return Decision(result=result)
    standing = record.standing
    harmed = standing.level is Level.STALE
    settled = (_settled(record, harmed, f"nobody has looked at it since, its verdict is {standing.level.value}"),)
    return Decision(events=(*settled, *spared(state, record, settled, standing.level)), result=result)


def overlooked(record: ModelRecord, now: datetime) -> bool:
    """Has a model waited too long for the look after its cooldown?"""
    cascade = record.cascade
    return cascade is not None and cascade.harmed is None and now > cascade.until + LOOK_WAIT_MAX


def _settled(record: ModelRecord, harmed: bool, why: str) -> CascadeSettled:
    cascade = record.cascade
    assert cascade is not None
    return CascadeSettled(model_id=record.model_id, upstream=cascade.upstream, harmed=harmed, why=why)
