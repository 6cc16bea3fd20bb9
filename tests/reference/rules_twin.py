"""Which rule holds, found by comparing every two of them in words."""

from collections.abc import Sequence

from control_plane.core.rules.types import Rule, RuleAction

SCOPES = ["fleet", "tier", "team", "model"]


def beats(one: Rule, other: Rule) -> bool:
    """The higher priority; of equal ones the narrower scope; of equal ones the name that comes first."""
    if one.priority != other.priority:
        return one.priority > other.priority
    mine, theirs = SCOPES.index(one.scope.split(":")[0]), SCOPES.index(other.scope.split(":")[0])
    if mine != theirs:
        return mine > theirs
    return one.name < other.name


def winner(holding: Sequence[Rule]) -> Rule | None:
    """Of the rules that hold the one whose word on retraining counts: nobody beats it."""
    about = [rule for rule in holding if rule.action not in (RuleAction.ALERT, RuleAction.PAGE)]
    for rule in about:
        if not any(beats(other, rule) for other in about if other is not rule):
            return rule
    return None
