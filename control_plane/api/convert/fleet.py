"""Manifests: what people declare, to a command and back from a state."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runway.v1 import fleet_pb2, graph_pb2, policies_pb2, registry_pb2, rules_pb2

from control_plane.api.convert.graph import dependency, node, type_of
from control_plane.api.convert.policies import overrides_from, policies_message, policy_change
from control_plane.api.convert.registry import facts_from, facts_message
from control_plane.api.convert.rule_messages import rule_from, rule_message
from control_plane.core.commands import ApplyFleet
from control_plane.core.decide.fleet import FleetPlan
from control_plane.core.decide.fleet_changes import Action, Change
from control_plane.core.decide.fleet_draft import declared_dependencies, implied
from control_plane.core.errors import Invalid, Violation
from control_plane.core.graph.facts import Dependency, Node, NodeKind
from control_plane.core.ids import SLUG, ModelId, NodeId, TeamId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.rules.outcome import scope_order
from control_plane.core.state import State

ACTIONS = {
    Action.CREATE: fleet_pb2.CHANGE_ACTION_CREATE,
    Action.UPDATE: fleet_pb2.CHANGE_ACTION_UPDATE,
    Action.DELETE: fleet_pb2.CHANGE_ACTION_DELETE,
}

_ENTRY = re.compile(r"(policies|rules|nodes|models|dependencies)\[(\d+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadManifest:
    """A manifest as a command, with what was wrong on the way.

    An entry that breaks a rule of the contract is left out or, if others may rest on it, stands in with its id only, so
    that everything else can still be judged. `kept` says which entry of the manifest each one of the command was.
    """

    command: ApplyFleet
    violations: tuple[Violation, ...]
    kept: dict[str, list[int]]

    def told(self, found: Sequence[Violation]) -> list[Violation]:
        """All violations, with the indices of the manifest."""
        if not self.violations:
            return list(found)

        def index(match: re.Match[str]) -> str:
            return f"{match[1]}[{self.kept[match[1]][int(match[2])]}]"

        return [*self.violations, *(replace(one, field=_ENTRY.sub(index, one.field)) for one in found)]


def read_manifest(request: fleet_pb2.ApplyFleetRequest, broken: Sequence[Violation]) -> ReadManifest:
    """The command of a request; `broken` are the rules of the contract that its manifest breaks."""
    manifest = request.manifest
    reading = _Reading(manifest, broken)
    command = ApplyFleet(
        policies=reading.all("policies", manifest.policies, _layer_from, lambda _: None),
        rules=reading.all("rules", manifest.rules, rule_from, lambda _: None),
        nodes=reading.all("nodes", manifest.nodes, _node_from, _node_stub),
        models=reading.all("models", manifest.models, _model_from, _model_stub),
        dependencies=reading.all("dependencies", manifest.dependencies, _dependency_from, lambda _: None),
        prune=request.prune,
        plan_etag=request.plan_etag,
    )
    return ReadManifest(command=command, violations=tuple(reading.violations), kept=reading.kept)


class _Reading:
    def __init__(self, manifest: fleet_pb2.Manifest, broken: Sequence[Violation]) -> None:
        self.violations: list[Violation] = []
        self.kept: dict[str, list[int]] = {}
        self._broken: dict[str, set[int]] = {}
        for one in broken:
            found = _ENTRY.match(one.field)
            message = one.message
            if found is not None:
                index = int(found[2])
                self._broken.setdefault(found[1], set()).add(index)
                message = f"{_name(getattr(manifest, found[1])[index])}: {message}"
            self.violations.append(replace(one, message=message))

    def all(self, kind: str, entries: Sequence[Any], read: Callable[[Any], Any], stub: Callable[[Any], Any]) -> Any:
        """The entries of a kind that can be read."""
        broken = self._broken.get(kind, set())
        kept = self.kept.setdefault(kind, [])
        found = []
        for index, entry in enumerate(entries):
            value = stub(entry) if index in broken else self._read(f"{kind}[{index}]", entry, read, stub)
            if value is not None:
                found.append(value)
                kept.append(index)
        return tuple(found)

    def _read(self, where: str, entry: Any, read: Callable[[Any], Any], stub: Callable[[Any], Any]) -> Any:
        try:
            return read(entry)
        except Invalid as error:
            for one in error.violations:
                field = f"{where}.{one.field.removeprefix('model.')}"
                self.violations.append(replace(one, field=field, message=f"{_name(entry)}: {one.message}"))
            return stub(entry)


def _name(entry: Any) -> str:
    match entry:
        case policies_pb2.PolicyLayer():
            return entry.scope[:120] or "a scope without a name"
        case rules_pb2.Rule():
            return f"{entry.name[:100] or 'a rule without a name'} ({entry.scope[:120]})"
        case graph_pb2.Node():
            return entry.node_id[:120] or "a node without an id"
        case registry_pb2.Model():
            return entry.model_id[:120] or "a model without an id"
        case _:
            return f"{entry.upstream_id[:120]} -> {entry.downstream_id[:120]}"


def _layer_from(message: policies_pb2.PolicyLayer) -> tuple[str, Overrides]:
    return message.scope, overrides_from(message.policies)


def _node_from(message: graph_pb2.Node) -> Node:
    return Node(
        node_id=NodeId(message.node_id),
        title=message.title,
        description=message.description,
        owner=message.owner,
        team=message.team,
        external_ids=tuple(message.external_ids),
    )


def _node_stub(message: graph_pb2.Node) -> Node | None:
    kind, _, name = message.node_id.partition(":")
    fits = kind in ("dataset", "feature", "consumer") and SLUG.fullmatch(name)
    return Node(node_id=NodeId(message.node_id)) if fits else None


def _model_from(message: registry_pb2.Model) -> tuple[ModelFacts, Overrides]:
    return facts_from(message), overrides_from(message.policies)


def _model_stub(message: registry_pb2.Model) -> tuple[ModelFacts, Overrides] | None:
    if not SLUG.fullmatch(message.model_id):
        return None
    consumers = tuple(dict.fromkeys(name for name in message.consumers if SLUG.fullmatch(name)))
    facts = ModelFacts(
        model_id=ModelId(message.model_id),
        team=TeamId("unknown"),
        tier=4,
        task_type=TaskType.BINARY,
        consumers=consumers,
    )
    return facts, {}


def _dependency_from(message: graph_pb2.Dependency) -> Dependency:
    """The contract's rules have looked at the ids already; 50,000 times they need not be parsed again."""
    upstream, downstream = NodeId(message.upstream_id), NodeId(message.downstream_id)
    return Dependency(
        upstream=upstream,
        downstream=downstream,
        edge_type=type_of(message.type, upstream, downstream),
        pinned=message.pinned,
        note=message.note,
    )


def plan_message(plan: FleetPlan, problems: Sequence[Violation], revision: int) -> fleet_pb2.ApplyFleetResponse:
    """What a manifest changes, or what is wrong with it."""
    return fleet_pb2.ApplyFleetResponse(
        changes=map(_change, plan.changes) if not problems else (),
        policy_changes=map(policy_change, plan.policy_changes) if not problems else (),
        models_not_in_manifest=plan.models_not_in_manifest,
        revision=revision,
        problems=[fleet_pb2.ManifestProblem(field=one.field, rule=one.rule, message=one.message) for one in problems],
        plan_etag="" if problems else plan.etag,
    )


def _change(found: Change) -> fleet_pb2.Change:
    return fleet_pb2.Change(
        action=ACTIONS[found.action],
        subject=found.subject,
        fields=[fleet_pb2.FieldChange(field=one.field, before=one.before, after=one.after) for one in found.fields],
    )


# Export


def manifest_of(state: State, team: str = "") -> fleet_pb2.Manifest:
    """Everything that is declared, in order; or what belongs to a team: its models, its nodes, and what they rest on.

    What follows from something else is left out: a consumer that a model names and nobody describes, and the dependency
    that goes with it. A model's own policies stand in the model.
    """
    records = [record for _, record in sorted(state.models.items()) if team in ("", record.facts.team)]
    named = {implied(model_id, name) for model_id, one in state.models.items() for name in one.facts.consumers}
    consumers = {edge.downstream for edge in named}
    nodes = [
        found
        for found in state.graph.nodes((NodeKind.DATASET, NodeKind.FEATURE, NodeKind.CONSUMER))
        if found.declared
        and team in ("", found.team)
        and not (found.node_id in consumers and found == Node(node_id=found.node_id))
    ]
    theirs = {found.node_id for found in nodes} | {NodeId(f"model:{record.model_id}") for record in records}
    edges = [
        edge
        for edge in sorted(declared_dependencies(state), key=lambda edge: edge.key)
        if edge not in named and (not team or edge.downstream in theirs)
    ]
    theirs_in = {f"team:{team}", *(f"model:{record.model_id}" for record in records)}
    return fleet_pb2.Manifest(
        policies=[
            policies_pb2.PolicyLayer(scope=scope, policies=policies_message(state.policies.overrides(scope)))
            for scope in state.policies.scopes()
            if not scope.startswith("model:") and scope in (f"team:{team}" if team else scope,)
        ],
        rules=[
            rule_message(rule)
            for rule in sorted(state.rules.rules(), key=lambda rule: scope_order(rule.scope, rule.name))
            if not team or rule.scope in theirs_in
        ],
        nodes=[_declared_node(found) for found in nodes],
        models=[_declared_model(state, record.facts) for record in records],
        dependencies=map(dependency, edges),
    )


def _declared_node(found: Node) -> graph_pb2.Node:
    message = node(found)
    message.ClearField("kind")
    message.ClearField("declared")
    return message


def _declared_model(state: State, facts: ModelFacts) -> registry_pb2.Model:
    message = facts_message(facts)
    own = state.policies.overrides(f"model:{facts.model_id}")
    if own:
        message.policies.CopyFrom(policies_message(own))
    return message
