"""What the rules make of a model, in words: what happens now, and what would with another rule."""

from collections.abc import Sequence
from datetime import datetime

from control_plane.core.decide.rules import Effect
from control_plane.core.retraining.rules import off_peak
from control_plane.core.rules.types import RuleAction, RuleMatch, RuleOutcome
from control_plane.core.staleness.verdict import Action, Evaluation, Level
from control_plane.core.state import ModelRecord

MODELS_NAMED_MAX = 10
"""In the sentence about a rule; it counts the rest."""


def named(match: RuleMatch) -> str:
    """A match in words: `wake_up (fleet)`, with its reason if it has one."""
    return f"{match.name} ({match.scope}){f': {match.reason}' if match.reason else ''}"


def consequence(record: ModelRecord, outcome: RuleOutcome, now: datetime) -> str:
    """What follows for a model, without who says so: `a retrain now, page`."""
    told = [_retraining(record, outcome, now)]
    told += [action.value.lower() for action in (RuleAction.ALERT, RuleAction.PAGE) if outcome.told(action)]
    return ", ".join(told)


def _retraining(record: ModelRecord, outcome: RuleOutcome, now: datetime) -> str:
    """The retraining part of `plan.wanted_retrain`, in words."""
    holds = outcome.retraining
    policy = record.retraining_policy
    if record.live_retrain is not None:
        return "a retrain is under way"
    match holds.action if holds is not None else None:
        case RuleAction.IGNORE:
            return "no retrain"
        case RuleAction.REQUIRE_APPROVAL:
            return "no retrain until somebody asks for it"
        case RuleAction.RETRAIN_OFF_PEAK:
            if record.standing.evaluation is not None and _at_fault(record.standing.evaluation):
                return "no retrain: the data is at fault"
            return _if_automatic(record, _soon(record, now) if off_peak(policy, now) else _at_night(record))
        case RuleAction.RETRAIN:
            return _if_automatic(record, _soon(record, now))
        case _:
            return _without_rules(record, now)


def _if_automatic(record: ModelRecord, what: str) -> str:
    return what if record.retraining_policy.automatic else "no retrain: retraining.automatic is off"


def _at_night(record: ModelRecord) -> str:
    policy = record.retraining_policy
    return f"a retrain from {policy.off_peak_start_hour:02d}:00 UTC on"


def _soon(record: ModelRecord, now: datetime) -> str:
    ended_at = record.retrain_ended_at
    cooling = ended_at is not None and now < ended_at + record.retraining_policy.cooldown
    return "a retrain after its cooldown" if cooling else "a retrain now"


def _at_fault(evaluation: Evaluation) -> bool:
    return evaluation.recommended_action is Action.ALERT_DATA_OWNER


def _without_rules(record: ModelRecord, now: datetime) -> str:
    standing = record.standing
    if standing.level is not Level.STALE:
        return "no retrain"
    if standing.evaluation is None or standing.evaluation.recommended_action is not Action.RETRAIN:
        return "no retrain: it would mend nothing"
    return _if_automatic(record, _soon(record, now))


def explanation(record: ModelRecord, outcome: RuleOutcome) -> str:
    """What holds about retraining and by whom; empty if no rule has a word in it."""
    holds = outcome.retraining
    if holds is None:
        return ""
    by, policy = named(holds), record.retraining_policy
    if holds.action.requests and not policy.automatic:
        return f"no retrain, since retraining.automatic is off, though a rule asks for one: {by}"
    match holds.action:
        case RuleAction.IGNORE:
            return f"no retrain is requested: {by}"
        case RuleAction.REQUIRE_APPROVAL:
            return f"retraining waits for somebody to ask (`runway retrains request {record.model_id}`): {by}"
        case RuleAction.RETRAIN_OFF_PEAK:
            hours = f"{policy.off_peak_start_hour:02d}:00 to {policy.off_peak_end_hour:02d}:00 UTC"
            return f"retraining is for off-peak hours, {hours}: {by}"
        case _:
            return f"a retrain is asked for: {by}"


def told(record: ModelRecord) -> list[str]:
    """What the rules say of a model, in sentences; none if they say nothing."""
    outcome = record.rule_outcome
    about = explanation(record, outcome)
    sentences = [f"What the rules say: {about}."] if about else []
    for match in outcome.matches:
        if not match.action.about_retraining:
            since = f"{match.since:%Y-%m-%d %H:%M}"
            sentences.append(f"{match.action.value.capitalize()} since {since}, by {named(match)}.")
    return sentences


def acts_on(effects: Sequence[Effect], unseen: int) -> str:
    """`This rule would act on 7 models now: a, b, c ...`"""
    models = [effect.record.model_id for effect in effects if effect.found is True]
    faulty = [effect.record.model_id for effect in effects if isinstance(effect.found, str)]
    count = len(models)
    if not count:
        told = "This rule would act on no model now"
    else:
        told = f"This rule would act on {count:,} {'model' if count == 1 else 'models'} now: {_names(models)}"
    if faulty:
        told += f"; it could not be evaluated for {len(faulty):,}: {_names(faulty)}"
    if unseen:
        told += f"; {unseen:,} more {'has' if unseen == 1 else 'have'} not been looked at yet"
    return f"{told}."


def _names(models: Sequence[str]) -> str:
    more = len(models) - MODELS_NAMED_MAX
    return ", ".join(models[:MODELS_NAMED_MAX]) + (f" and {more:,} more" if more > 0 else "")
