"""The whole fleet at once: what a manifest changes, all that is wrong with it, and the events of it as one decision.

1. Policies, nodes, models, dependencies, in this order; each is judged as if the ones before it had happened, so that a
   manifest may use what it brings along.
2. What the manifest names is made to be what it says, field by field. What it does not name stays; with `prune`,
   declared nodes, dependencies and policies that it does not name go. Models never go, and nothing that was only
   discovered does.
3. Everything wrong is found before anything is answered; one violation per broken rule, naming the entry.
4. The same manifest again is no change and no event.

The rules themselves are those of the registry, the policies and the graph; here they are only asked.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from control_plane.core.commands import ApplyFleet, Result
from control_plane.core.decide import fleet_changes
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.fleet_changes import Action, Change
from control_plane.core.decide.policies import ValueChange, facts_changes, scope_violations
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import (
    DependenciesDeclared,
    DependenciesRetracted,
    Event,
    ModelRegistered,
    ModelUpdated,
    NodesDeclared,
    NodesRemoved,
    PoliciesSet,
    encode_event,
)
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, DependencyType, Node, NodeKind
from control_plane.core.graph.rules import dependency_problems
from control_plane.core.ids import ModelId, NodeId, TeamId, model_node
from control_plane.core.policies import Overrides, is_scope, normal, overrides_violations
from control_plane.core.registry.rules import facts_violations
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.state import State

T = TypeVar("T")

EVENT_ENTRIES_MAX = 5_000
"""Nodes or dependencies in one event: a few hundred kilobytes, so that nobody who reads the log meets a giant."""


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
        digest = hashlib.sha256()
        for event in self.events:
            digest.update(encode_event(event))
        return digest.hexdigest()[:32]


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A plan in the making: what was found so far, and the fleet as it would be."""

    graph: DependencyGraph
    facts: dict[ModelId, ModelFacts]
    """Of every model, after the manifest."""
    scopes: dict[str, Overrides] = field(default_factory=dict)
    """Scopes that say something else after it."""
    changes: list[Change] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    policy_events: list[Event] = field(default_factory=list)
    model_policy_events: list[Event] = field(default_factory=list)
    model_events: list[Event] = field(default_factory=list)
    node_events: list[Event] = field(default_factory=list)
    edge_events: list[Event] = field(default_factory=list)
    removal_events: list[Event] = field(default_factory=list)

    def wrong(self, where: str, rule: str, message: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(field=where, rule=rule, message=message))


def apply_fleet(state: State, command: ApplyFleet) -> Decision:
    """Make the fleet what the manifest says, all or nothing.

    Raises:
        Invalid: with all that is wrong.
        Refused: ETAG_MISMATCH, the plan that somebody agreed to is not the one that would happen now.
    """
    plan = plan_fleet(state, command)
    if plan.violations:
        raise Invalid(Reason.INVALID_ARGUMENT, *plan.violations)
    if command.plan_etag and command.plan_etag != plan.etag:
        raise Refused(
            Reason.ETAG_MISMATCH,
            "the fleet was changed since the plan was made, and the plan would be another one now: plan again",
            etag=plan.etag,
        )
    return Decision(events=plan.events, result=Result(changed=len(plan.changes)))


def plan_fleet(state: State, command: ApplyFleet) -> FleetPlan:
    """What the manifest would change, or all that is wrong with it. Changes nothing, raises nothing."""
    draft = _Draft(
        graph=state.graph.scratch(),
        facts={model_id: record.facts for model_id, record in state.models.items()},
    )
    _unique(draft, "policies", [scope for scope, _ in command.policies])
    _unique(draft, "nodes", [node.node_id for node in command.nodes])
    _unique(draft, "models", [facts.model_id for facts, _ in command.models])
    _unique(draft, "dependencies", [_edge_text(edge) for edge in command.dependencies])
    _plan_models(state, command, draft)
    _plan_policies(state, command, draft)
    _plan_nodes(state, command, draft)
    _plan_dependencies(state, command, draft)
    named = {facts.model_id for facts, _ in command.models}
    unnamed = tuple(sorted(model_id for model_id in state.models if model_id not in named))
    if draft.violations:
        return FleetPlan(violations=tuple(draft.violations), models_not_in_manifest=unnamed)
    return FleetPlan(
        changes=tuple(sorted(draft.changes, key=lambda change: change.order)),
        policy_changes=tuple(_policy_changes(state, draft)),
        models_not_in_manifest=unnamed,
        events=(
            *draft.policy_events,
            *draft.node_events,
            *draft.model_events,
            *draft.model_policy_events,
            *draft.edge_events,
            *draft.removal_events,
        ),
    )


def _unique(draft: _Draft, kind: str, names: Iterable[str]) -> None:
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        at = first.setdefault(name, index)
        if at != index:
            draft.wrong(f"{kind}[{index}]", "unique", f"{name} is {kind}[{at}] already: keep one of them")


# Models


def _plan_models(state: State, command: ApplyFleet, draft: _Draft) -> None:
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
            draft.changes.append(Change(Action.CREATE, "models", f"model:{facts.model_id}"))
            draft.model_events.append(ModelRegistered(facts=facts))
        elif record.facts != facts:
            fields = fleet_changes.differences(record.facts, facts)
            draft.changes.append(Change(Action.UPDATE, "models", f"model:{facts.model_id}", fields))
            draft.model_events.append(ModelUpdated(facts=facts))
        draft.facts[facts.model_id] = facts
        _put_model(draft.graph, facts, record.facts if record is not None else None)


def _put_model(graph: DependencyGraph, facts: ModelFacts, before: ModelFacts | None) -> None:
    """The model and its consumers in the scratch graph, as the events will put them into the real one."""
    node_id = model_node(facts.model_id)
    if before is None:
        graph.put_node(Node(node_id=node_id))
    kept = set() if before is None else set(before.consumers)
    added = [implied(facts.model_id, name) for name in facts.consumers if name not in kept]
    for edge in added:
        if not graph.has_node(edge.downstream):
            graph.put_node(Node(node_id=edge.downstream))
    graph.add_dependencies(added)
    graph.remove_dependencies([implied(facts.model_id, name) for name in sorted(kept - set(facts.consumers))])


def implied(model_id: ModelId, consumer: str) -> Dependency:
    """The dependency of an application that a model names as its consumer."""
    return Dependency(
        upstream=model_node(model_id),
        downstream=NodeId(f"consumer:{consumer}"),
        edge_type=DependencyType.CONSUMES_OUTPUT,
    )


# Policies


def _plan_policies(state: State, command: ApplyFleet, draft: _Draft) -> None:
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
    for scope in sorted(draft.scopes, key=_scope_order):
        _set_policies(state, draft, scope)


def _judge_policies(draft: _Draft, state: State, command: ApplyFleet) -> None:
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
    heard.extend(_listener(scope) for scope in sorted(spoken))
    for found in scope_violations(state, heard, draft.scopes, "policies"):
        draft.violations.append(replace(found, field=_blamed(found, at)))


def _listener(scope: str) -> ModelFacts:
    """A model as it might join a scope that speaks to nobody."""
    kind, _, name = scope.partition(":")
    return ModelFacts(
        model_id=ModelId("any_model"),
        team=TeamId(name if kind == "team" else "any_team"),
        tier=int(name) if kind == "tier" else 4,
        task_type=TaskType.BINARY,
    )


def _blamed(found: Violation, at: dict[str, str]) -> str:
    """The entry whose words collide: the one that the message gives as the source, or the first model it names."""
    model = found.message.partition(":")[0].partition(",")[0].partition(" and ")[0]
    for scope in (f"model:{model}", *at):
        if scope in at and (scope in found.message or scope == f"model:{model}"):
            return f"{at[scope]}.{found.field}"
    return found.field


def _set_policies(state: State, draft: _Draft, scope: str) -> None:
    newest = state.policies.newest(scope)
    before, after = state.policies.overrides(scope), draft.scopes[scope]
    event = PoliciesSet(scope=scope, version=newest.version + 1 if newest is not None else 1, overrides=after)
    (draft.model_policy_events if scope.startswith("model:") else draft.policy_events).append(event)
    fields = fleet_changes.override_differences(before, after)
    action = Action.UPDATE if before and after else Action.CREATE if after else Action.DELETE
    draft.changes.append(Change(action, "policies", f"policy:{scope}", fields if action is Action.UPDATE else ()))


def _scope_order(scope: str) -> tuple[int, str]:
    return ("fleet", "tier", "team", "model").index(scope.partition(":")[0]), scope


def _policy_changes(state: State, draft: _Draft) -> Iterator[ValueChange]:
    """What becomes of the policies of models that are there already."""
    said_before = {scope: state.policies.overrides(scope) for scope in draft.scopes}
    wide = {scope for scope in draft.scopes if not scope.startswith("model:")}
    for model_id in sorted(state.models):
        before, after = state.models[model_id].facts, draft.facts[model_id]
        mine = {"fleet", *(scope for one in (before, after) for scope in (f"tier:{one.tier}", f"team:{one.team}"))}
        moved = (before.tier, before.team, before.task_type) != (after.tier, after.team, after.task_type)
        if moved or f"model:{model_id}" in draft.scopes or mine & wide:
            yield from facts_changes(state, before, after, said_before, draft.scopes)


# Nodes and dependencies


def _plan_nodes(state: State, command: ApplyFleet, draft: _Draft) -> None:
    changed = []
    for index, node in enumerate(command.nodes):
        if node.kind is NodeKind.MODEL:
            remedy = "put it under models"
            draft.wrong(f"nodes[{index}].node_id", "kind", f"{node.node_id} is a model: {remedy}")
            continue
        before = state.graph.node(node.node_id) if state.graph.has_node(node.node_id) else None
        if before != node:
            changed.append(node)
            known = before is not None and before.declared
            fields = fleet_changes.differences(before, node) if known else ()
            action = Action.UPDATE if known else Action.CREATE
            draft.changes.append(Change(action, "nodes", node.node_id, fields))
        draft.graph.put_node(node)
    changed.sort(key=lambda node: node.node_id)
    draft.node_events.extend(NodesDeclared(nodes=tuple(part)) for part in _parts(changed))


def _plan_dependencies(state: State, command: ApplyFleet, draft: _Draft) -> None:
    declared = {edge.key: edge for edge in declared_dependencies(state)}
    wanted = {edge.key: edge for edge in command.dependencies}
    consumed = {implied(facts.model_id, name).key for facts in draft.facts.values() for name in facts.consumers}
    if command.prune:
        gone = [edge for key, edge in sorted(declared.items()) if key not in wanted and key not in consumed]
        draft.graph.remove_dependencies(gone)
        draft.changes.extend(Change(Action.DELETE, "dependencies", _edge_text(edge)) for edge in gone)
        draft.removal_events.extend(DependenciesRetracted(dependencies=tuple(part)) for part in _parts(gone))
        _prune_nodes(state, command, draft)
    problems = dependency_problems(draft.graph, command.dependencies)
    for problem in problems:
        draft.wrong(problem.field, problem.rule, _named_problem(problem.message, command.dependencies[problem.index]))
    changed = [edge for key, edge in sorted(wanted.items()) if declared.get(key) != edge]
    for edge in changed:
        before = declared.get(edge.key)
        if before is None and edge.key in consumed and not edge.pinned and not edge.note:
            continue
        fields = fleet_changes.differences(before, edge) if before is not None else ()
        action = Action.UPDATE if before is not None else Action.CREATE
        draft.changes.append(Change(action, "dependencies", _edge_text(edge), fields))
    draft.edge_events.extend(DependenciesDeclared(dependencies=tuple(part)) for part in _parts(changed))


def _prune_nodes(state: State, command: ApplyFleet, draft: _Draft) -> None:
    named = {node.node_id for node in command.nodes}
    kept = {NodeId(f"consumer:{name}") for facts in draft.facts.values() for name in facts.consumers}
    ends = {end for edge in command.dependencies for end in (edge.upstream, edge.downstream)}
    gone = []
    for node in state.graph.nodes():
        if node.kind is NodeKind.MODEL or not node.declared or node.node_id in named or node.node_id in kept:
            continue
        if node.node_id in ends:
            continue  # that the manifest uses what it does not declare is told with the dependency
        gone.append(node.node_id)
    draft.changes.extend(Change(Action.DELETE, "nodes", node_id) for node_id in gone)
    draft.removal_events.extend(NodesRemoved(node_ids=tuple(part)) for part in _parts(gone))


def declared_dependencies(state: State) -> Iterable[Dependency]:
    """Every dependency that somebody declared, also where an override keeps it from counting."""
    return state.graph.dependencies()


def _edge_text(edge: Dependency) -> str:
    # Joined by hand: an enum in an f-string costs ten times as much, and here are 50,000.
    return edge.upstream + " -> " + edge.downstream + " (" + edge.edge_type.value + ")"


def _named_problem(message: str, edge: Dependency) -> str:
    return message if edge.downstream in message else f"{edge.downstream}: {message}"


def _parts(entries: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(entries), EVENT_ENTRIES_MAX):
        yield entries[start : start + EVENT_ENTRIES_MAX]
