"""Rules, their outcome and effects between the wire and the core."""

from runway.v1 import rules_pb2

from control_plane.api.convert.common import timestamp
from control_plane.core.decide.rule_words import explanation
from control_plane.core.decide.rules import etag_of
from control_plane.core.rules.context import ContextField
from control_plane.core.rules.faults import Fault
from control_plane.core.rules.types import NO_OUTCOME, Rule, RuleAction, RuleFault, RuleMatch, RuleVersion
from control_plane.core.state import ModelRecord

ACTIONS = {
    RuleAction.RETRAIN: rules_pb2.RULE_ACTION_RETRAIN,
    RuleAction.RETRAIN_OFF_PEAK: rules_pb2.RULE_ACTION_RETRAIN_OFF_PEAK,
    RuleAction.REQUIRE_APPROVAL: rules_pb2.RULE_ACTION_REQUIRE_APPROVAL,
    RuleAction.IGNORE: rules_pb2.RULE_ACTION_IGNORE,
    RuleAction.ALERT: rules_pb2.RULE_ACTION_ALERT,
    RuleAction.PAGE: rules_pb2.RULE_ACTION_PAGE,
}
ACTIONS_FROM = {number: action for action, number in ACTIONS.items()}


def rule_from(message: rules_pb2.Rule) -> Rule:
    """A rule as somebody wrote it; what the server sets is left aside. The contract has checked its action."""
    return Rule(
        name=message.name,
        scope=message.scope,
        when=message.when,
        action=ACTIONS_FROM.get(message.action, RuleAction.ALERT),
        priority=message.priority,
        reason=message.reason,
        disabled=message.disabled,
    )


def rule_message(rule: Rule, version: RuleVersion | None = None) -> rules_pb2.Rule:
    """A rule, with who set it and when if that is known."""
    message = rules_pb2.Rule(
        name=rule.name,
        scope=rule.scope,
        when=rule.when,
        action=ACTIONS[rule.action],
        priority=rule.priority,
        reason=rule.reason,
        disabled=rule.disabled,
    )
    if version is not None:
        message.MergeFrom(
            rules_pb2.Rule(
                set_at=timestamp(version.set_at),
                set_by=version.set_by,
                version=version.version,
                revision=version.revision,
                etag=etag_of(version.version),
            )
        )
    return message


def rule_match(match: RuleMatch) -> rules_pb2.RuleMatch:
    """A rule that holds for a model."""
    return rules_pb2.RuleMatch(
        name=match.name,
        scope=match.scope,
        action=ACTIONS[match.action],
        reason=match.reason,
        since=timestamp(match.since),
    )


def outcome_message(record: ModelRecord) -> rules_pb2.RuleOutcome | None:
    """What the rules make of a model; None if no rule has anything to say."""
    outcome = record.rule_outcome
    if outcome == NO_OUTCOME:
        return None
    holds = outcome.retraining
    return rules_pb2.RuleOutcome(
        retraining=ACTIONS[holds.action] if holds is not None else rules_pb2.RULE_ACTION_UNSPECIFIED,
        matches=[rule_match(match) for match in outcome.matches],
        faults=[fault_text(fault) for fault in outcome.faults],
        explanation=explanation(record, outcome),
    )


def fault_text(fault: RuleFault) -> str:
    """A rule that could not be evaluated, in words."""
    return f"{fault.name} ({fault.scope}): {fault.message}"


def fault_message(fault: Fault) -> rules_pb2.RuleFault:
    """Where an expression is wrong."""
    return rules_pb2.RuleFault(line=fault.line, column=fault.column, message=fault.message)


def context_field(field: ContextField) -> rules_pb2.RuleContextField:
    """A name that rules may use."""
    return rules_pb2.RuleContextField(
        name=field.name, type=field.type, description=field.description, example=field.example
    )
