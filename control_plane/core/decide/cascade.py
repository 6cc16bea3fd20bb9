"""After an upstream promotion: models downstream wait, are looked at afresh, and retrain only if that says so."""

from datetime import datetime, timedelta

from control_plane.core.commands import Result, SettleCascade
from control_plane.core.decide.decision import Decision
from control_plane.core.events import CascadeSettled
from control_plane.core.staleness.verdict import Action, Evaluation, Level
from control_plane.core.state import ModelRecord, State

LOOK_WAIT_MAX = timedelta(days=1)
"""A model that nobody looks at any more does not wait for ever: then its last verdict counts."""


def settled_by(record: ModelRecord, evaluation: Evaluation, level: Level) -> tuple[CascadeSettled, ...]:
    """What the first look after the cooldown says; `level` is the verdict that stands with it."""
    cascade = record.cascade
    if cascade is None or cascade.harmed is not None or evaluation.at < cascade.until:
        return ()
    stale = Level.STALE in (level, evaluation.level)
    harmed = stale and evaluation.recommended_action is Action.RETRAIN
    is_ = f"it is {evaluation.level.value} with a score of {evaluation.score:.2f} ({evaluation.threshold:.2f} is stale)"
    if stale and not harmed:
        is_ += ", which no retrain mends"
    return (_settled(record, harmed, is_),)


def settle_cascade(state: State, command: SettleCascade, now: datetime) -> Decision:
    """Nobody has looked for too long: the verdict that stands decides."""
    record = state.model(command.model_id)
    result = Result(model_id=command.model_id)
    if not overlooked(record, now):
        return Decision(result=result)
    standing = record.standing
    harmed = standing.level is Level.STALE
    why = f"nobody has looked at it since, its verdict is {standing.level.value}"
    return Decision(events=(_settled(record, harmed, why),), result=result)


def overlooked(record: ModelRecord, now: datetime) -> bool:
    """Has a model waited too long for the look after its cooldown?"""
    cascade = record.cascade
    return cascade is not None and cascade.harmed is None and now > cascade.until + LOOK_WAIT_MAX


def _settled(record: ModelRecord, harmed: bool, why: str) -> CascadeSettled:
    cascade = record.cascade
    assert cascade is not None
    return CascadeSettled(model_id=record.model_id, upstream=cascade.upstream, harmed=harmed, why=why)
