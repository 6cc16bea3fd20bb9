"""The graph's part of a manifest: nodes and dependencies, as the single commands would declare and retract them, but in
the graph as it would be with everything else that the manifest brings.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

import msgspec

from control_plane.core.commands import ApplyFleet, DeclareDependencies, DeclareNodes, RetractDependencies
from control_plane.core.decide import fleet_changes, graph
from control_plane.core.decide.fleet_changes import Action, Change
from control_plane.core.decide.fleet_draft import (
    Draft,
    declared_dependencies,
    declared_dependency,
    edge_text,
    implied,
    parts,
)
from control_plane.core.errors import Invalid, RunwayError
from control_plane.core.events import (
    DependenciesDeclared,
    DependenciesRetracted,
    EdgesSettled,
    NodesDeclared,
    NodesMoved,
    NodesRemoved,
)
from control_plane.core.graph.facts import Dependency, Node, NodeKind
from control_plane.core.graph.lineage_facts import EdgeKey
from control_plane.core.graph.lineage_names import normal_name
from control_plane.core.graph.rules import dependency_problems
from control_plane.core.ids import NodeId
from control_plane.core.state import State


def _trial(state: State, draft: Draft) -> State:
    """The state with the graph as it would be, for rules that ask both."""
    trial = copy.copy(state)
    trial.graph = draft.graph
    return trial


def plan_nodes(state: State, command: ApplyFleet, draft: Draft) -> None:
    """Nodes as `DeclareNodes` would; one that lineage made under a name that a node of the manifest claims goes."""
    nodes = tuple(_with_names(state, node) for node in command.nodes if node.kind is not NodeKind.MODEL)
    at = [index for index, node in enumerate(command.nodes) if node.kind is not NodeKind.MODEL]
    for index, node in enumerate(command.nodes):
        if node.kind is NodeKind.MODEL:
            draft.wrong(f"nodes[{index}].node_id", "kind", f"{node.node_id} is a model: put it under models")
    for node in nodes:
        if not draft.graph.has_node(node.node_id):
            draft.graph.put_node(node)
    try:
        events = graph.declare_nodes(state, DeclareNodes(nodes=nodes)).events
    except Invalid as error:
        for one in error.violations:
            index = int(one.field.partition("[")[2].partition("]")[0])
            path = one.field.replace(f"nodes[{index}]", f"nodes[{at[index]}]", 1)
            draft.violations.append(replace(one, field=path, message=f"{nodes[index].node_id}: {one.message}"))
        return
    except RunwayError as error:
        draft.wrong("nodes", error.reason.value.lower(), error.message)
        return
    said = {node.node_id: node for node in nodes}
    for event in events:
        if isinstance(event, NodesDeclared):
            _declare_nodes(state, draft, [_as_said(node, said[node.node_id]) for node in event.nodes])
        elif isinstance(event, NodesMoved):
            _move_nodes(draft, event)
            draft.node_events.append(event)
            draft.node_events.append(NodesDeclared(nodes=tuple(_taken_over(state, event, said))))


def _with_names(state: State, node: Node) -> Node:
    """The node with the names that lineage knows it by already: a manifest adds to them and takes none away."""
    known = state.graph.node(node.node_id).external_ids if state.graph.has_node(node.node_id) else ()
    names = dict.fromkeys((*known, *(normal_name(name) for name in node.external_ids)))
    return msgspec.structs.replace(node, external_ids=tuple(names))


def _as_said(node: Node, said: Node) -> Node:
    """The node with the words of the manifest, not those that lineage found for it: the same again is no change."""
    return msgspec.structs.replace(node, title=said.title, description=said.description)


def _taken_over(state: State, event: NodesMoved, said: Mapping[NodeId, Node]) -> Iterator[Node]:
    """Nodes that others became, as the manifest says, with the names of the others."""
    names: dict[NodeId, list[str]] = {}
    for move in event.moves:
        names.setdefault(move.new_node_id, []).extend(state.graph.node(move.node_id).external_ids)
    for node_id in sorted(names):
        node = said[node_id]
        yield msgspec.structs.replace(node, external_ids=tuple(dict.fromkeys((*node.external_ids, *names[node_id]))))


def _declare_nodes(state: State, draft: Draft, nodes: Iterable[Node]) -> None:
    for node in nodes:
        before = state.graph.node(node.node_id) if state.graph.has_node(node.node_id) else None
        known = before is not None and before.declared
        fields = fleet_changes.differences(before, node) if known else ()
        action = Action.UPDATE if known else Action.CREATE
        draft.changes.append(Change(action, "nodes", node.node_id, fields))
        draft.graph.put_node(node)
    draft.node_events.extend(NodesDeclared(nodes=tuple(part)) for part in parts(list(nodes)))


def _move_nodes(draft: Draft, event: NodesMoved) -> None:
    """Discovered nodes that become declared ones, in the scratch graph: edges go along, but for quarantined ones."""
    moved = {move.node_id: move.new_node_id for move in event.moves}
    barred = {change.key for change in event.quarantined}
    for move in event.moves:
        for edge in draft.graph.remove_node(move.node_id) if draft.graph.has_node(move.node_id) else ():
            ends = moved.get(edge.upstream, edge.upstream), moved.get(edge.downstream, edge.downstream)
            there = replace_ends(edge, *ends)
            fits = draft.graph.has_node(ends[0]) and draft.graph.has_node(ends[1]) and ends[0] != ends[1]
            if fits and there.key not in barred:
                draft.graph.add_dependencies((there,))


def replace_ends(edge: Dependency, upstream: NodeId, downstream: NodeId) -> Dependency:
    """The same dependency between other nodes."""
    return Dependency(
        upstream=upstream, downstream=downstream, edge_type=edge.edge_type, pinned=edge.pinned, note=edge.note
    )


def prune_dependencies(state: State, command: ApplyFleet, draft: Draft, now: datetime) -> None:
    """Declarations that the manifest does not have are taken back; what sources still show stays, as discovered."""
    named = {edge.key for edge in command.dependencies} | draft.lost
    named |= {implied(facts.model_id, name).key for facts in draft.facts.values() for name in facts.consumers}
    gone = [edge for edge in declared_dependencies(state) if edge.key not in named]
    gone.sort(key=lambda edge: edge.key)
    draft.changes.extend(Change(Action.DELETE, "dependencies", edge_text(edge)) for edge in gone)
    for part in parts(gone):
        for event in graph.retract_dependencies(state, RetractDependencies(dependencies=tuple(part)), now).events:
            draft.retract_events.append(event)
            if isinstance(event, DependenciesRetracted):
                records = state.lineage.records
                draft.graph.remove_dependencies(edge for edge in event.dependencies if edge.key not in records)
            elif isinstance(event, EdgesSettled):
                _settle(draft, event)


def _settle(draft: Draft, event: EdgesSettled) -> None:
    """Edges that stop counting, in the scratch graph."""
    draft.graph.remove_dependencies(
        Dependency(upstream=change.upstream, downstream=change.downstream, edge_type=change.edge_type)
        for change in event.changes
        if not change.after.counts
    )


def plan_dependencies(state: State, command: ApplyFleet, draft: Draft) -> None:
    """Dependencies as `DeclareDependencies` would, in the graph with everything else that the manifest brings."""
    declare = DeclareDependencies(dependencies=command.dependencies)
    try:
        events = graph.declare_dependencies(_trial(state, draft), declare).events
    except RunwayError:
        for problem in dependency_problems(draft.graph, command.dependencies):
            message = _named_problem(problem.message, command.dependencies[problem.index])
            draft.wrong(problem.field, problem.rule, message)
        return
    changed: dict[EdgeKey, Dependency] = {}
    for event in events:
        if isinstance(event, DependenciesDeclared):
            changed.update((edge.key, edge) for edge in event.dependencies)
        else:
            draft.edge_events.append(event)
    # What a model stops implying is declared again if the manifest says it by itself.
    changed.update((edge.key, edge) for edge in command.dependencies if edge.key in draft.lost)
    plain = {implied(facts.model_id, name) for facts in draft.facts.values() for name in facts.consumers}
    said = [edge for _, edge in sorted(changed.items()) if edge not in plain]
    for edge in said:
        before = declared_dependency(state, edge.key)
        fields = fleet_changes.differences(before, edge) if before is not None else ()
        action = Action.UPDATE if before is not None else Action.CREATE
        if fields or before is None:
            draft.changes.append(Change(action, "dependencies", edge_text(edge), fields))
    draft.edge_events.extend(DependenciesDeclared(dependencies=tuple(part)) for part in parts(said))


def prune_nodes(state: State, command: ApplyFleet, draft: Draft) -> None:
    """Nodes that the manifest does not have go; one that lineage still shows stays, as discovered."""
    named = {node.node_id for node in command.nodes}
    named |= {NodeId(f"consumer:{name}") for facts in draft.facts.values() for name in facts.consumers}
    named |= {end for edge in command.dependencies for end in (edge.upstream, edge.downstream)}
    gone = [
        node
        for node in state.graph.nodes((NodeKind.DATASET, NodeKind.FEATURE, NodeKind.CONSUMER))
        if node.declared and node.node_id not in named
    ]
    draft.changes.extend(Change(Action.DELETE, "nodes", node.node_id) for node in gone)
    used = [node for node in gone if draft.graph.upstream_of(node.node_id) or draft.graph.downstream_of(node.node_id)]
    kept = {node.node_id for node in used}
    removed = [node.node_id for node in gone if node.node_id not in kept]
    draft.removal_events.extend(NodesDeclared(nodes=tuple(undeclared(node) for node in part)) for part in parts(used))
    draft.removal_events.extend(NodesRemoved(node_ids=tuple(part)) for part in parts(removed))


def undeclared(node: Node) -> Node:
    """What is left of a node when nobody says any more that it is there."""
    return Node(node_id=node.node_id, title=node.title, external_ids=node.external_ids, declared=False)


def _named_problem(message: str, edge: Dependency) -> str:
    return message if edge.downstream in message else f"{edge.downstream}: {message}"
