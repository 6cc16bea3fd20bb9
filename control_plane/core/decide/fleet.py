"""The whole fleet at once: what a manifest changes, all that is wrong with it, and the events of it as one decision.

1. Policies, nodes, models, dependencies, rules, in this order; each is judged as if the ones before it had happened, so
   that a manifest may use what it brings along.
2. What the manifest names is made to be what it says, field by field. What it does not name stays; with `prune`,
   declared nodes, dependencies, policies and rules that it does not name go. Models never go, and nothing that was only
   discovered does.
3. Everything wrong is found before anything is answered; one violation per broken rule, naming the entry.
4. The same manifest again is no change and no event.

The rules themselves are those of the registry, the policies and the graph; here they are only asked.
"""

import hashlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import msgspec

from control_plane.core.commands import (
    ApplyFleet,
    Result,
)
from control_plane.core.decide import fleet_changes
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.fleet_changes import Action, Change
from control_plane.core.decide.fleet_draft import Draft, edge_text, implied
from control_plane.core.decide.fleet_graph import plan_dependencies, plan_nodes, prune_dependencies, prune_nodes
from control_plane.core.decide.fleet_rules import plan_rules, rule_name
from control_plane.core.decide.policies import ValueChange, facts_changes, scope_violations
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import (
    Event,
    ModelRegistered,
    ModelUpdated,
    PoliciesSet,
    RulesMatched,
    encode_event,
)
from control_plane.core.graph.facts import Node
from control_plane.core.ids import ModelId, TeamId, model_node
from control_plane.core.policies import RELATED, is_scope, normal, overrides_violations
from control_plane.core.registry.rules import facts_violations
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """What a manifest would change. With violations there are no changes and no events."""

    changes: tuple[Change, ...] = ()
    policy_changes: tuple[ValueChange, ...] = ()
    models_not_in_manifest: tuple[ModelId, ...] = ()
    events: tuple[Event, ...] = ()
    violations: tuple[Violation, ...] = ()

    @property
    def etag(self) -> str:
        """Changes with what would happen."""
        digest = hashlib.sha256(msgspec.json.encode(self.changes))
        for event in self.events:
            if isinstance(event, RulesMatched):  # these know when the plan was made, and follow from the others
                continue
            digest.update(encode_event(event))
        return digest.hexdigest()[:32]


def apply_fleet(state: State, command: ApplyFleet, now: datetime) -> Decision:
    """Make the fleet what the manifest says, all or nothing.

    Raises:
        Invalid: with all that is wrong.
        Refused: ETAG_MISMATCH, the plan that somebody agreed to is not the one that would happen now.
    """
    plan = plan_fleet(state, command, now)
    if plan.violations:
        raise Invalid(Reason.INVALID_ARGUMENT, *plan.violations)
    if command.plan_etag and command.plan_etag != plan.etag:
        raise Refused(
            Reason.ETAG_MISMATCH,
            "the fleet was changed since the plan was made, and the plan would be another one now: plan again",
            etag=plan.etag,
        )
    return Decision(events=plan.events, result=Result(changed=len(plan.changes)))


class _Remembered(NamedTuple):
    """The plan that was made last. A large one takes most of a second, and whoever applies has just looked at it."""

    state: weakref.ref[State]
    revision: int
    command: ApplyFleet
    plan: FleetPlan

    def answers(self, state: State, command: ApplyFleet) -> bool:
        """Would the same be found again? Two manifests are the same if they are the same objects."""
        mine = self.command
        return (
            self.state() is state
            and self.revision == state.revision
            and not command.prune
            and not mine.prune
            and mine.policies is command.policies
            and mine.rules is command.rules
            and mine.nodes is command.nodes
            and mine.models is command.models
            and mine.dependencies is command.dependencies
        )


_last: list[_Remembered] = []
"""At most one; a memory only, the same call gives the same plan without it."""


def plan_fleet(state: State, command: ApplyFleet, now: datetime) -> FleetPlan:
    """What the manifest would change, or all that is wrong with it. Changes nothing, raises nothing."""
    if _last and _last[0].answers(state, command):
        return _last.pop().plan
    plan = _plan(state, command, now)
    _last[:] = [_Remembered(weakref.ref(state), state.revision, command, plan)]
    return plan


def _plan(state: State, command: ApplyFleet, now: datetime) -> FleetPlan:
    draft = Draft(
        graph=state.graph.scratch(),
        facts={model_id: record.facts for model_id, record in state.models.items()},
    )
    _unique(draft, "policies", [scope for scope, _ in command.policies])
    _unique(draft, "rules", [rule_name(rule) for rule in command.rules])
    _unique(draft, "nodes", [node.node_id for node in command.nodes])
    _unique(draft, "models", [facts.model_id for facts, _ in command.models])
    if len({edge.key for edge in command.dependencies}) < len(command.dependencies):
        _unique(draft, "dependencies", [edge_text(edge) for edge in command.dependencies])
    _plan_models(state, command, draft)
    _plan_policies(state, command, draft)
    plan_nodes(state, command, draft)
    if command.prune:
        prune_dependencies(state, command, draft, now)
    plan_dependencies(state, command, draft)
    if command.prune:
        prune_nodes(state, command, draft)
    plan_rules(state, command, draft, now)
    named = {facts.model_id for facts, _ in command.models}
    unnamed = tuple(sorted(model_id for model_id in state.models if model_id not in named))
    if draft.violations:
        return FleetPlan(violations=tuple(draft.violations), models_not_in_manifest=unnamed)
    return FleetPlan(
        changes=tuple(sorted((*draft.changes, *draft.models.values()), key=lambda change: change.order)),
        policy_changes=tuple(_policy_changes(state, draft)),
        models_not_in_manifest=unnamed,
        events=(
            *draft.policy_events,
            *draft.retract_events,
            *draft.node_events,
            *draft.model_events,
            *draft.model_policy_events,
            *draft.edge_events,
            *draft.removal_events,
            *draft.rule_events,
            *draft.outcome_events,
        ),
    )


def _unique(draft: Draft, kind: str, names: Iterable[str]) -> None:
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        at = first.setdefault(name, index)
        if at != index:
            draft.wrong(f"{kind}[{index}]", "unique", f"{name} is {kind}[{at}] already: keep one of them")


# Models


def _plan_models(state: State, command: ApplyFleet, draft: Draft) -> None:
    """Facts of models; what they say about policies is judged with the other scopes."""
    for index, (facts, own) in enumerate(command.models):
        where = f"models[{index}]"
        for found in facts_violations(facts):
            message = f"{facts.model_id}: {found.message}"
            path = found.field.replace("model.", f"{where}.", 1)
            draft.violations.append(replace(found, field=path, message=message))
        wrong = overrides_violations(own, f"{where}.policies")
        draft.violations.extend(replace(one, message=f"{facts.model_id}: {one.message}") for one in wrong)
        if not wrong:
            draft.scopes[f"model:{facts.model_id}"] = normal(own)
        record = state.models.get(facts.model_id)
        if record is None:
            draft.models[facts.model_id] = Change(Action.CREATE, "models", f"model:{facts.model_id}")
            draft.model_events.append(ModelRegistered(facts=facts))
        elif record.facts != facts:
            fields = fleet_changes.differences(record.facts, facts)
            draft.models[facts.model_id] = Change(Action.UPDATE, "models", f"model:{facts.model_id}", fields)
            draft.model_events.append(ModelUpdated(facts=facts))
        draft.facts[facts.model_id] = facts
        _put_model(draft, facts, record.facts if record is not None else None)


def _put_model(draft: Draft, facts: ModelFacts, before: ModelFacts | None) -> None:
    """The model and its consumers in the scratch graph, as the events will put them into the real one."""
    node_id = model_node(facts.model_id)
    if before is None and not draft.graph.has_node(node_id):
        draft.graph.put_node(Node(node_id=node_id))
    kept = () if before is None else before.consumers
    added = [implied(facts.model_id, name) for name in facts.consumers if name not in kept]
    for edge in added:
        if not draft.graph.has_node(edge.downstream):
            draft.graph.put_node(Node(node_id=edge.downstream))
    draft.graph.add_dependencies(added)
    lost = [implied(facts.model_id, name) for name in kept if name not in facts.consumers]
    draft.graph.remove_dependencies(lost)
    draft.lost.update(edge.key for edge in lost)


# Policies


def _plan_policies(state: State, command: ApplyFleet, draft: Draft) -> None:
    """What scopes say, checked against all models as they will be."""
    from_models = dict(draft.scopes)
    for index, (scope, overrides) in enumerate(command.policies):
        where = f"policies[{index}]"
        kind, _, name = scope.partition(":")
        if not is_scope(scope):
            remedy = "write fleet, tier:1 to tier:4, team:<team> or model:<model id>"
            draft.wrong(f"{where}.scope", "scope", f"{scope[:120]!r} is no scope: {remedy}")
        elif kind == "model" and ModelId(name) not in draft.facts:
            remedy = "it is neither in the manifest nor in the fleet; remove the policies or add the model"
            draft.wrong(f"{where}.scope", "exists", f"{scope}: there is no such model: {remedy}")
        elif from_models.get(scope):
            remedy = "say its policies in one place"
            draft.wrong(f"{where}.scope", "unique", f"{scope}: the model's own entry has policies too: {remedy}")
        elif wrong := overrides_violations(overrides, f"{where}.policies"):
            draft.violations.extend(replace(one, message=f"{scope}: {one.message}") for one in wrong)
        else:
            draft.scopes[scope] = normal(overrides)
    if command.prune:
        for scope in state.policies.scopes():
            draft.scopes.setdefault(scope, {})
    draft.scopes = {
        scope: overrides for scope, overrides in draft.scopes.items() if overrides != state.policies.overrides(scope)
    }
    if not draft.violations:
        _judge_policies(draft, state, command)
    named = {f"model:{facts.model_id}" for facts, _ in command.models}
    for scope in sorted(draft.scopes, key=_scope_order):
        _set_policies(state, draft, scope, of_model=scope in named)


def _judge_policies(draft: Draft, state: State, command: ApplyFleet) -> None:
    """Rules on what is in force, for every model that hears something else, and for scopes that nobody hears yet."""
    spoken = {scope for scope in draft.scopes if not scope.startswith("model:")}
    at = {scope: f"policies[{index}]" for index, (scope, _) in enumerate(command.policies)}
    at |= {f"model:{facts.model_id}": f"models[{index}]" for index, (facts, _) in enumerate(command.models)}
    heard: list[ModelFacts] = []
    for model_id, facts in draft.facts.items():
        mine = {"fleet", f"tier:{facts.tier}", f"team:{facts.team}"}
        record = state.models.get(model_id)
        moved = record is None or (record.facts.tier, record.facts.team) != (facts.tier, facts.team)
        if moved or f"model:{model_id}" in draft.scopes or mine & spoken:
            heard.append(facts)
            spoken -= mine
    for found in scope_violations(state, heard, draft.scopes):
        named = found.message.partition(":")[0].partition(",")[0].partition(" and ")[0]
        facts = draft.facts.get(ModelId(named)) or heard[0]
        scopes = (f"model:{facts.model_id}", f"team:{facts.team}", f"tier:{facts.tier}", "fleet")
        draft.violations.append(replace(found, field=_blamed(found, [one for one in scopes if one in at], draft, at)))
    for scope in sorted(spoken):
        for found in scope_violations(state, [_listener(scope)], {scope: draft.scopes[scope]}):
            message = f"{scope}: {found.message.partition(': ')[2]}"
            draft.violations.append(replace(found, field=_blamed(found, [scope], draft, at), message=message))


def _listener(scope: str) -> ModelFacts:
    """A model as it might join a scope that speaks to nobody."""
    kind, _, name = scope.partition(":")
    return ModelFacts(
        model_id=ModelId("any_model"),
        team=TeamId(name if kind == "team" else "any_team"),
        tier=int(name) if kind == "tier" else 4,
        task_type=TaskType.BINARY,
    )


def _blamed(found: Violation, scopes: list[str], draft: Draft, at: dict[str, str]) -> str:
    """The entry whose words collide: the narrowest scope that says the field, or one that the rule looks at too."""
    path = found.field.removeprefix("policies.")
    for wanted in ((path,), RELATED.get(path, ())):
        for scope in scopes:
            said = draft.scopes.get(scope, {})
            if scope in at and any(one in said for one in wanted):
                return f"{at[scope]}.{found.field}"
    return f"{at[scopes[0]]}.{found.field}" if scopes and scopes[0] in at else found.field


def _set_policies(state: State, draft: Draft, scope: str, *, of_model: bool) -> None:
    """`of_model`: the manifest has the model; what it says itself is told as fields of the model."""
    newest = state.policies.newest(scope)
    before, after = state.policies.overrides(scope), draft.scopes[scope]
    event = PoliciesSet(scope=scope, version=newest.version + 1 if newest is not None else 1, overrides=after)
    (draft.model_policy_events if scope.startswith("model:") else draft.policy_events).append(event)
    fields = fleet_changes.override_differences(before, after)
    if of_model:
        change = draft.models.setdefault(ModelId(scope.partition(":")[2]), Change(Action.UPDATE, "models", scope))
        if change.action is Action.UPDATE:
            told = (one._replace(field=f"policies.{one.field}") for one in fields)
            draft.models[ModelId(scope.partition(":")[2])] = change._replace(fields=(*change.fields, *told))
        return
    action = Action.UPDATE if before and after else Action.CREATE if after else Action.DELETE
    draft.changes.append(Change(action, "policies", f"policy:{scope}", fields if action is Action.UPDATE else ()))


def _scope_order(scope: str) -> tuple[int, str]:
    return ("fleet", "tier", "team", "model").index(scope.partition(":")[0]), scope


def _policy_changes(state: State, draft: Draft) -> Iterator[ValueChange]:
    """What becomes of the policies of models that are there already."""
    said_before = {scope: state.policies.overrides(scope) for scope in draft.scopes}
    wide = {scope for scope in draft.scopes if not scope.startswith("model:")}
    for model_id in sorted(state.models):
        before, after = state.models[model_id].facts, draft.facts[model_id]
        mine = {"fleet", *(scope for one in (before, after) for scope in (f"tier:{one.tier}", f"team:{one.team}"))}
        moved = (before.tier, before.team, before.task_type) != (after.tier, after.team, after.task_type)
        if moved or f"model:{model_id}" in draft.scopes or mine & wide:
            yield from facts_changes(state, before, after, said_before, draft.scopes)
