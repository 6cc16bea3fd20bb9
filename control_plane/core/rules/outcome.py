"""Which of the matching rules holds, and what an outcome becomes when one rule changes. Pure."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from control_plane.core.rules.types import Rule, RuleFault, RuleMatch, RuleOutcome

NARROWNESS = {"fleet": 0, "tier": 1, "team": 2, "model": 3}
"""The narrower scope wins among rules of one priority."""


def scope_order(scope: str, name: str) -> tuple[int, str, str]:
    """Sort key of files and lists: the widest scope first, then by name."""
    return NARROWNESS.get(scope.partition(":")[0], len(NARROWNESS)), scope, name


def rank(priority: int, scope: str, name: str) -> tuple[int, int, str, str]:
    """Sort key, highest first: priority, then the narrower scope, then the name. Total: no two rules share it."""
    return -priority, -NARROWNESS[scope.partition(":")[0]], name, scope


def rule_rank(rule: Rule | RuleMatch) -> tuple[int, int, str, str]:
    """The same of a rule or a match."""
    return rank(rule.priority, rule.scope, rule.name)


def outcome_of(results: Iterable[tuple[Rule, bool | str]], before: RuleOutcome, at: datetime) -> RuleOutcome:
    """What evaluated rules come to.

    Args:
        results: each rule with whether it holds, or why that could not be found out.
        before: the outcome of the look before: a rule that held then goes on to hold.
    """
    since = {(match.scope, match.name, match.action): match.since for match in before.matches}
    matches: list[RuleMatch] = []
    faults: list[tuple[tuple[int, int, str, str], RuleFault]] = []
    for rule, found in results:
        if found is True:
            matches.append(
                RuleMatch(
                    name=rule.name,
                    scope=rule.scope,
                    action=rule.action,
                    priority=rule.priority,
                    reason=rule.reason,
                    since=since.get((rule.scope, rule.name, rule.action), at),
                )
            )
        elif isinstance(found, str):
            faults.append((rule_rank(rule), RuleFault(name=rule.name, scope=rule.scope, message=found)))
    return RuleOutcome(
        matches=tuple(sorted(matches, key=rule_rank)),
        faults=tuple(fault for _, fault in sorted(faults, key=lambda one: one[0])),
    )


def with_result(outcome: RuleOutcome, rule: Rule, found: bool | str, at: datetime) -> RuleOutcome:
    """The outcome after one rule, new or changed, was evaluated anew; the others as they were."""
    rest = without(outcome, rule.scope, rule.name)
    own = outcome_of([(rule, found)], outcome, at)
    return RuleOutcome(
        matches=tuple(sorted((*rest.matches, *own.matches), key=rule_rank)),
        faults=(*rest.faults, *own.faults),
    )


def without(outcome: RuleOutcome, scope: str, name: str) -> RuleOutcome:
    """The outcome if a rule had never been."""
    matches = tuple(match for match in outcome.matches if (match.scope, match.name) != (scope, name))
    faults = tuple(fault for fault in outcome.faults if (fault.scope, fault.name) != (scope, name))
    if len(matches) == len(outcome.matches) and len(faults) == len(outcome.faults):
        return outcome
    return msgspec.structs.replace(outcome, matches=matches, faults=faults)


def begun(before: RuleOutcome, after: RuleOutcome) -> list[RuleMatch]:
    """Matches that were not there before, or act otherwise now."""
    return ended(after, before)


def ended(before: RuleOutcome, after: RuleOutcome) -> list[RuleMatch]:
    """Matches that are not there any more, or act otherwise now."""
    holding = {(match.scope, match.name, match.action) for match in after.matches}
    return [match for match in before.matches if (match.scope, match.name, match.action) not in holding]
