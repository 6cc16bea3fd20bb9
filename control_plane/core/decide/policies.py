"""Policies: what a scope may say, and what that changes for whom."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from control_plane.core.commands import Result, SetPolicies
from control_plane.core.decide.decision import Decision
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import PoliciesSet
from control_plane.core.ids import ModelId
from control_plane.core.policies import (
    FLEET,
    Overrides,
    Scalar,
    built_in,
    is_scope,
    normal,
    overrides_violations,
    policies_violations,
    resolve,
    scalars,
    sourced,
)
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.relations import models_in
from control_plane.core.state import State

MODELS_NAMED_MAX = 3
"""Models that one violation names; it counts the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueChange:
    """One field of one model before and after a change."""

    model_id: ModelId
    field: str
    before: Scalar | None
    after: Scalar | None
    source_before: str
    source_after: str


def set_policies(state: State, command: SetPolicies) -> Decision:
    """Replace what a scope says. Refused if it breaks the policies in force of any model it speaks to."""
    scope = command.scope
    if not is_scope(scope):
        message = f"{scope[:120]!r} is no scope: write fleet, tier:1 to tier:4, team:<team> or model:<model id>"
        raise Invalid(Reason.INVALID_ARGUMENT, Violation(field="scope", rule="scope", message=message))
    kind, _, name = scope.partition(":")
    if kind == "model":
        state.model(ModelId(name))
    newest = state.policies.newest(scope)
    etag = etag_of(newest.version if newest is not None else 0)
    if command.etag and command.etag != etag:
        raise Refused(
            Reason.ETAG_MISMATCH,
            f"{scope} was changed meanwhile (etag {etag}, yours {command.etag}): read it again",
            scope=scope,
            etag=etag,
        )
    found = overrides_violations(command.overrides)
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    overrides = normal(command.overrides)
    before = state.policies.overrides(scope)
    version = newest.version if newest is not None else 0
    if overrides == before:
        return Decision(result=Result(scope=scope, version=version))
    facts = [record.facts for record in models_in(state, scope)]
    found = scope_violations(state, facts, {scope: overrides}) or _alone(state, scope, overrides)
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    event = PoliciesSet(scope=scope, version=version + 1, overrides=overrides)
    return Decision(events=(event,), result=Result(scope=scope, version=version + 1, changed=1))


def etag_of(version: int) -> str:
    """The etag of a scope at a version; 0 if it never said anything."""
    return f"v{version}"


def own_policies(state: State, model_id: ModelId, overrides: Overrides) -> tuple[PoliciesSet, ...]:
    """The event by which a model says something else, if it does."""
    scope = f"model:{model_id}"
    newest = state.policies.newest(scope)
    if normal(overrides) == state.policies.overrides(scope):
        return ()
    version = newest.version if newest is not None else 0
    return (PoliciesSet(scope=scope, version=version + 1, overrides=normal(overrides)),)


def scope_violations(
    state: State,
    facts: Collection[ModelFacts],
    instead: Mapping[str, Mapping[str, Scalar]],
    prefix: str = "policies",
) -> list[Violation]:
    """All broken rules of the policies that models would have, if some scopes said something else.

    Models that break the same rule with values from the same scopes are told together.
    """
    by_kind: dict[tuple[object, ...], list[ModelId]] = {}
    resolved: dict[tuple[object, ...], list[Violation]] = {}
    for one in facts:
        layers = state.policies.layers(one.tier, one.team, one.model_id, instead)
        key = (one.tier, one.team, one.task_type, *layers[3][1].items())
        by_kind.setdefault(key, []).append(one.model_id)
        if key not in resolved:
            policies, sources = resolve(built_in(one.tier, one.task_type), layers)
            resolved[key] = [sourced(violation, sources) for violation in policies_violations(policies)]
    named = len(facts) > 1 or not all(scope == f"model:{one.model_id}" for scope in instead for one in facts)
    broken: dict[tuple[str, str, str], list[ModelId]] = {}
    for key, violations in resolved.items():
        for violation in violations:
            told = (violation.field, violation.rule, violation.message)
            broken.setdefault(told, []).extend(by_kind[key])
    return [
        Violation(field=f"{prefix}.{field}", rule=rule, message=f"{_named(models) if named else ''}{message}")
        for (field, rule, message), models in broken.items()
    ]


def _named(models: list[ModelId]) -> str:
    names = ", ".join(models[:MODELS_NAMED_MAX])
    more = f" and {len(models) - MODELS_NAMED_MAX:,} more models" if len(models) > MODELS_NAMED_MAX else ""
    return f"{names}{more}: "


def _alone(state: State, scope: str, overrides: Overrides) -> list[Violation]:
    """Broken rules of a scope that speaks to no model yet, as if one without words of its own had joined."""
    if models_in(state, scope):
        return []
    kind, _, name = scope.partition(":")
    layers = [(FLEET, state.policies.overrides(FLEET))] if scope != FLEET else []
    tier = int(name) if kind == "tier" else 4
    policies, sources = resolve(built_in(tier, TaskType.BINARY), [*layers, (scope, overrides)])
    found = [sourced(violation, sources) for violation in policies_violations(policies)]
    return [replace(violation, field=f"policies.{violation.field}") for violation in found]


def changes(
    state: State, scope: str, before: Mapping[str, Scalar], after: Mapping[str, Scalar]
) -> Iterator[ValueChange]:
    """What changes for whom if a scope says `after` instead of `before`, all else as it stands; by model, field."""
    known: dict[tuple[object, ...], list[ValueChange]] = {}
    for record in models_in(state, scope):
        facts = record.facts
        key = (facts.tier, facts.team, facts.task_type, *record.own_policies.items())
        found = known.get(key)
        if found is None:
            found = known[key] = list(facts_changes(state, facts, facts, {scope: before}, {scope: after}))
        yield from (replace(change, model_id=facts.model_id) for change in found)


def facts_changes(
    state: State,
    before: ModelFacts,
    after: ModelFacts,
    said_before: Mapping[str, Mapping[str, Scalar]],
    said_after: Mapping[str, Mapping[str, Scalar]],
) -> Iterator[ValueChange]:
    """What changes for one model between two sets of facts and words, by field. A model that changes its team or tier
    inherits from others."""
    layers = (
        state.policies.layers(before.tier, before.team, before.model_id, said_before),
        state.policies.layers(after.tier, after.team, after.model_id, said_after),
    )
    old, old_sources = resolve(built_in(before.tier, before.task_type), layers[0])
    new, new_sources = resolve(built_in(after.tier, after.task_type), layers[1])
    if old == new and old_sources == new_sources:
        return
    old_values, new_values = scalars(old), scalars(new)
    for path in sorted(old_values):
        if old_values[path] != new_values[path] or old_sources[path] != new_sources[path]:
            yield ValueChange(
                model_id=after.model_id,
                field=path,
                before=old_values[path],
                after=new_values[path],
                source_before=old_sources[path],
                source_after=new_sources[path],
            )
