"""Staleness: verdicts after hysteresis, and the coverage alert."""

from control_plane.core.commands import RecordCoverage, RecordEvaluation, Result
from control_plane.core.decide.cascade import settled_by, spared
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.rules import at_look
from control_plane.core.events import CoverageAlertCleared, CoverageAlertRaised, Event, StreakChanged, VerdictChanged
from control_plane.core.staleness.verdict import settle
from control_plane.core.state import State


def record_evaluation(state: State, command: RecordEvaluation) -> Decision:
    """A verdict changes only when `settle` says so; an evaluation that a promotion overtook is dropped."""
    record = state.model(command.model_id)
    result = Result(model_id=command.model_id)
    evaluation = command.evaluation
    production = record.production
    if record.retired or production is None or production.number != evaluation.version:
        return Decision(result=result)
    standing = record.standing
    level, streak = settle(standing.level, standing.streak, evaluation, record.staleness_policy, since=standing.since)
    settled = settled_by(record, evaluation, level)
    matched: tuple[Event, ...] = (
        *settled,
        *spared(state, record, settled, evaluation.level),
        *at_look(state, record, evaluation, level),
    )
    if level is not standing.level:
        changed = VerdictChanged(
            model_id=command.model_id,
            version=evaluation.version,
            from_level=standing.level,
            to_level=level,
            streak=streak,
            evaluation=evaluation,
        )
        return Decision(events=(changed, *matched), result=result)
    if streak != standing.streak:
        return Decision(events=(StreakChanged(model_id=command.model_id, streak=streak), *matched), result=result)
    return Decision(events=matched, result=result)


def record_coverage(state: State, command: RecordCoverage) -> Decision:
    """Raise the alert below the policy's minimum, clear it at or above; nothing mature says nothing."""
    record = state.model(command.model_id)
    result = Result(model_id=command.model_id)
    if record.retired or command.coverage is None:
        return Decision(result=result)
    minimum = record.staleness_policy.coverage_min
    low = command.coverage < minimum
    if low and not record.coverage_alert:
        raised = CoverageAlertRaised(
            model_id=command.model_id,
            coverage=command.coverage,
            coverage_min=minimum,
            cause=command.cause,
            explanation=command.explanation,
        )
        return Decision(events=(raised,), result=result)
    if not low and record.coverage_alert:
        cleared = CoverageAlertCleared(model_id=command.model_id, coverage=command.coverage)
        return Decision(events=(cleared,), result=result)
    return Decision(result=result)
