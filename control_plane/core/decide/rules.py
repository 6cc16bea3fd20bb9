"""Rules: set and removed, asked at every look, and what they come to in words.

Setting or removing a rule is decided together with what that changes for each model, from the newest looks known: no
model waits with the outcome of a rule that is not there any more, and the answer tells the effects that are true.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from control_plane.core.commands import RemoveRule, Result, SetRule
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.rule_context import Look, values_of
from control_plane.core.errors import Invalid, NotFound, Reason, Refused, Violation
from control_plane.core.events import RuleRemoved, RuleSet, RulesMatched
from control_plane.core.ids import ModelId
from control_plane.core.policies import is_scope
from control_plane.core.relations import models_in
from control_plane.core.rules.cel import Compiled, activation, compiled, faults_of, holds, needed, words
from control_plane.core.rules.outcome import begun, ended, outcome_of, with_result, without
from control_plane.core.rules.types import (
    NAME,
    PRIORITY_MAX,
    REASON_CHARS_MAX,
    RULES_MAX,
    Rule,
    RuleOutcome,
)
from control_plane.core.staleness.verdict import Evaluation, Level
from control_plane.core.state import ModelRecord, State

NO_COMPILE = "it is no rule any more: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a rule makes of one model that has been looked at."""

    record: ModelRecord
    look: Look
    found: bool | str
    """Does it hold? A text says why that cannot be found out."""
    after: RuleOutcome
    """The outcome with the rule."""


# Commands


def set_rule(state: State, command: SetRule, now: datetime) -> Decision:
    """Add a rule or replace it.

    Raises:
        Invalid: with all that is wrong, faults of the expression with line and column.
        NotFound: its scope is a model that is not there.
        Refused: ETAG_MISMATCH, or LIMIT_EXCEEDED with too many rules.
    """
    rule = command.rule
    found = rule_violations(rule)
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    kind, _, name = rule.scope.partition(":")
    if kind == "model":
        state.model(ModelId(name))
    newest = state.rules.newest(rule.scope, rule.name)
    version = newest.version if newest is not None else 0
    check_etag(state, rule.scope, rule.name, command.etag)
    before = newest.rule if newest is not None else None
    result = Result(scope=rule.scope, version=version)
    if rule == before:
        return Decision(result=result)
    if before is None and len(state.rules) >= RULES_MAX:
        raise Refused(
            Reason.LIMIT_EXCEEDED, f"{RULES_MAX} rules are in force already: remove one, or join some with ||"
        )
    event = RuleSet(scope=rule.scope, name=rule.name, version=version + 1, rule=rule)
    changes = outcome_changes(state, [rule], [], command.looks, now)
    return Decision(events=(event, *changes), result=Result(scope=rule.scope, version=version + 1, changed=1))


def remove_rule(state: State, command: RemoveRule, now: datetime) -> Decision:
    """Remove a rule; models for which it held are without it at once."""
    newest = state.rules.newest(command.scope, command.name)
    if newest is None or newest.rule is None:
        raise NotFound(
            Reason.RULE_NOT_FOUND,
            f"no rule {command.name[:100]!r} in scope {command.scope[:120]}: `runway rules list` shows what there is",
            scope=command.scope,
            name=command.name,
        )
    event = RuleRemoved(scope=command.scope, name=command.name, version=newest.version + 1)
    return Decision(
        events=(event, *outcome_changes(state, [], [newest.rule], {}, now)),
        result=Result(scope=command.scope, version=newest.version + 1, changed=1),
    )


def etag_of(version: int) -> str:
    """The etag of a rule at a version; 0 if it never was."""
    return f"v{version}"


def check_etag(state: State, scope: str, name: str, given: str) -> None:
    """Raise `Refused` if somebody changed the rule since it was read."""
    newest = state.rules.newest(scope, name)
    etag = etag_of(newest.version if newest is not None else 0)
    if given and given != etag:
        raise Refused(
            Reason.ETAG_MISMATCH,
            f"rule {name} of {scope} was changed meanwhile (etag {etag}, yours {given}): read it again",
            scope=scope,
            name=name,
            etag=etag,
        )


def rule_violations(rule: Rule, field: str = "rule") -> list[Violation]:
    """All that is wrong with a rule by itself."""
    checks = [
        ("name", "pattern", NAME.fullmatch(rule.name), "begins with a small letter, then small letters, digits and _"),
        ("scope", "scope", is_scope(rule.scope), "write fleet, tier:1 to tier:4, team:<team> or model:<model id>"),
        ("priority", "range", 0 <= rule.priority <= PRIORITY_MAX, f"must be from 0 to {PRIORITY_MAX:,}"),
        ("reason", "length", len(rule.reason) <= REASON_CHARS_MAX, f"at most {REASON_CHARS_MAX} characters"),
    ]
    found = [
        Violation(field=f"{field}.{name}", rule=broken, message=f"{str(getattr(rule, name))[:120]!r}: {message}")
        for name, broken, holds_, message in checks
        if not holds_
    ]
    return [*found, *when_violations(rule.when, f"{field}.when")]


def when_violations(text: str, field: str) -> list[Violation]:
    """Faults of an expression; each begins with line and column."""
    return [Violation(field=field, rule="cel", message=str(fault)) for fault in faults_of(text)]


# At a look


def rules_for(state: State, record: ModelRecord) -> list[Rule]:
    """Rules that speak to a model, highest first; disabled ones do not."""
    facts = record.facts
    return [rule for rule in state.rules.of(facts.tier, facts.team, facts.model_id) if not rule.disabled]


def at_look(state: State, record: ModelRecord, evaluation: Evaluation, verdict: Level) -> tuple[RulesMatched, ...]:
    """The event by which the outcome of a model changes at a look, if it does."""
    rules = rules_for(state, record)
    before = record.rule_outcome
    if not rules and before == RuleOutcome():
        return ()
    look = Look(state, record, evaluation, verdict)
    after = outcome_of(evaluated(look, rules), before, evaluation.at)
    return () if after == before else (_matched(look, after),)


def evaluated(look: Look, rules: Iterable[Rule]) -> list[tuple[Rule, bool | str]]:
    """Each rule with whether it holds; a rule that cannot be evaluated is a fault, and the others go on."""
    texts = [(rule, compiled(rule.when)) for rule in rules]
    sound = [one for _, one in texts if isinstance(one, Compiled)]
    over = activation(values_of(look, needed(sound)), words(sound))
    return [(rule, holds(one, over) if isinstance(one, Compiled) else f"{NO_COMPILE}{one[0]}") for rule, one in texts]


def _matched(look: Look, after: RuleOutcome) -> RulesMatched:
    return RulesMatched(
        model_id=look.record.model_id,
        version=look.evaluation.version,
        level=look.verdict,
        score=look.evaluation.score,
        threshold=look.evaluation.threshold,
        outcome=after,
        begun=tuple(begun(look.record.rule_outcome, after)),
        ended=tuple(ended(look.record.rule_outcome, after)),
    )


# When a rule changes


def effects(state: State, rule: Rule, looks: Mapping[ModelId, Evaluation], now: datetime) -> list[Effect]:
    """What a rule makes of every model it speaks to that has been looked at, by id.

    Args:
        looks: the newest evaluations; where there is none, the one that brought the verdict about is asked.
    """
    found = []
    for record in models_in(state, rule.scope):
        look = look_of(state, record, looks)
        if look is None or record.retired:
            continue
        result = _asked(look, rule)
        after = with_result(record.rule_outcome, rule, result, now)
        found.append(Effect(record=record, look=look, found=result, after=after))
    return found


def look_of(state: State, record: ModelRecord, looks: Mapping[ModelId, Evaluation]) -> Look | None:
    """The newest look at the version in production that is known."""
    production = record.production
    for evaluation in (looks.get(record.model_id), record.standing.evaluation):
        if evaluation is not None and production is not None and evaluation.version == production.number:
            return Look(state, record, evaluation, record.standing.level)
    return None


def outcome_changes(
    state: State, changed: Iterable[Rule], gone: Iterable[Rule], looks: Mapping[ModelId, Evaluation], now: datetime
) -> list[RulesMatched]:
    """The events by which outcomes change when rules are set and removed; one for each model, by id."""
    after: dict[ModelId, RuleOutcome] = {}
    for rule in gone:
        for record in models_in(state, rule.scope):
            before = after.get(record.model_id, record.rule_outcome)
            after[record.model_id] = without(before, rule.scope, rule.name)
    for rule in changed:
        for record in models_in(state, rule.scope):
            look = look_of(state, record, looks)
            if look is not None and not record.retired:
                before = after.get(record.model_id, record.rule_outcome)
                after[record.model_id] = with_result(before, rule, _asked(look, rule), now)
    records = ((state.models[model_id], outcome) for model_id, outcome in sorted(after.items()))
    return [_changed(state, record, outcome, looks) for record, outcome in records if outcome != record.rule_outcome]


def _asked(look: Look, rule: Rule) -> bool | str:
    return not rule.disabled and evaluated(look, [rule])[0][1]


def _changed(
    state: State, record: ModelRecord, after: RuleOutcome, looks: Mapping[ModelId, Evaluation]
) -> RulesMatched:
    look = look_of(state, record, looks)
    return RulesMatched(
        model_id=record.model_id,
        version=record.standing.version,
        level=record.standing.level,
        score=look.evaluation.score if look is not None else 0.0,
        threshold=look.evaluation.threshold if look is not None else 0.0,
        outcome=after,
        begun=tuple(begun(record.rule_outcome, after)),
        ended=tuple(ended(record.rule_outcome, after)),
    )
