"""The rules of a manifest: what it changes, what is wrong with it, and what that makes of each model."""

from dataclasses import replace
from datetime import datetime

from control_plane.core.commands import ApplyFleet
from control_plane.core.decide import fleet_changes
from control_plane.core.decide.fleet_changes import Action, Change
from control_plane.core.decide.fleet_draft import Draft
from control_plane.core.decide.rules import outcome_changes, rule_violations
from control_plane.core.events import RuleRemoved, RuleSet
from control_plane.core.ids import ModelId
from control_plane.core.rules.types import RULES_MAX, Rule
from control_plane.core.state import State


def rule_name(rule: Rule) -> str:
    """A rule in words."""
    return f"{rule.name} ({rule.scope})"


def plan_rules(state: State, command: ApplyFleet, draft: Draft, now: datetime) -> None:
    """Rules that are new or other, and with `prune` those that the manifest does not have."""
    for index, rule in enumerate(command.rules):
        _judge(draft, index, rule)
    named = {rule.key for rule in command.rules}
    changed = [rule for rule in command.rules if rule != state.rules.rule(*rule.key)]
    gone = [rule for rule in state.rules.rules() if rule.key not in named] if command.prune else []
    new = sum(state.rules.rule(*rule.key) is None for rule in changed)
    if len(state.rules) + new - len(gone) > RULES_MAX:
        draft.wrong("rules", "count", f"at most {RULES_MAX} rules can be in force: join some with ||")
    if draft.violations:
        return
    for rule in sorted(changed, key=lambda one: one.key):
        before = state.rules.rule(*rule.key)
        fields = fleet_changes.differences(before, rule) if before is not None else ()
        action = Action.UPDATE if before is not None else Action.CREATE
        draft.changes.append(Change(action, "rules", f"rule:{rule_name(rule)}", fields))
        draft.rule_events.append(
            RuleSet(scope=rule.scope, name=rule.name, version=_next_version(state, rule), rule=rule)
        )
    for rule in sorted(gone, key=lambda one: one.key):
        draft.changes.append(Change(Action.DELETE, "rules", f"rule:{rule_name(rule)}"))
        draft.rule_events.append(RuleRemoved(scope=rule.scope, name=rule.name, version=_next_version(state, rule)))
    draft.outcome_events.extend(outcome_changes(state, changed, gone, {}, now))


def _judge(draft: Draft, index: int, rule: Rule) -> None:
    where = f"rules[{index}]"
    for found in rule_violations(rule, where):
        draft.violations.append(replace(found, message=f"{rule_name(rule)}: {found.message}"))
    kind, _, name = rule.scope.partition(":")
    if kind == "model" and ModelId(name) not in draft.facts:
        remedy = "it is neither in the manifest nor in the fleet; remove the rule or add the model"
        draft.wrong(f"{where}.scope", "exists", f"{rule_name(rule)}: there is no such model: {remedy}")


def _next_version(state: State, rule: Rule) -> int:
    newest = state.rules.newest(*rule.key)
    return newest.version + 1 if newest is not None else 1
