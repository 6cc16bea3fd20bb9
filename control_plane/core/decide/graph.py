"""Graph: nodes and edges."""

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from control_plane.core.commands import (
    DeclareDependencies,
    DeclareNodes,
    RemoveNodes,
    RenameNode,
    Result,
    RetractDependencies,
)
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.lineage import named, settled
from control_plane.core.errors import Invalid, NotFound, Reason, Refused, Violation
from control_plane.core.events import (
    DependenciesDeclared,
    DependenciesRetracted,
    EdgesSettled,
    Event,
    NodesDeclared,
    NodesMoved,
    NodesRemoved,
)
from control_plane.core.graph.facts import Dependency, Node, NodeKind
from control_plane.core.graph.lineage_facts import EdgeChange, EdgeKey, EdgeState, NodeMove
from control_plane.core.graph.lineage_moves import plan_moves
from control_plane.core.graph.lineage_names import normal_name
from control_plane.core.graph.lineage_trial import cycles_closed
from control_plane.core.graph.rules import PROBLEMS_IN_MESSAGE_MAX, DependencyProblem, dependency_problems, refuse
from control_plane.core.ids import NodeId, node_kind, node_name
from control_plane.core.state import State

# -- nodes --------------------------------------------------------------------------------------------------------


def declare_nodes(state: State, command: DeclareNodes) -> Decision:
    """Add or change datasets, features and consumers; a model's node belongs to the registry.

    A name that a source knows a node by belongs to one node. If lineage made a node for it, that node becomes this one.
    """
    _check_nodes(state, command.nodes)
    last = {node.node_id: _declared(state, node) for node in command.nodes}
    changed = tuple(
        last[node_id]
        for node_id in sorted(last)
        if not state.graph.has_node(node_id) or state.graph.node(node_id) != last[node_id]
    )
    events: list[Event] = [NodesDeclared(nodes=changed)] if changed else []
    moves: dict[NodeId, NodeId] = {}
    for node in changed:
        for name in node.external_ids:
            owner = state.lineage.claims.get(name)
            if owner is not None and owner != node.node_id:
                moves[owner] = node.node_id
    if moves:
        events.append(_moved(state, tuple(NodeMove(node_id=old, new_node_id=moves[old]) for old in sorted(moves))))
    return Decision(events=tuple(events), result=Result(changed=len(changed)))


def _declared(state: State, node: Node) -> Node:
    """The node as it will be: what lineage found out about one that nobody had declared stays."""
    names = dict.fromkeys(normal_name(name) for name in node.external_ids)
    if state.graph.has_node(node.node_id):
        before = state.graph.node(node.node_id)
        if not before.declared:
            names |= dict.fromkeys(before.external_ids)
            node = replace(node, title=node.title or before.title, description=node.description or before.description)
    return replace(node, external_ids=tuple(names), declared=True)


def _check_nodes(state: State, nodes: Sequence[Node]) -> None:
    found: list[Violation] = []
    taken: list[str] = []
    claimed: dict[str, NodeId] = {}
    for index, node in enumerate(nodes):
        where = f"nodes[{index}]"
        if node.kind is NodeKind.MODEL:
            message = f"{node.node_id} is a model: register or update it through RegistryService"
            found.append(Violation(field=f"{where}.node_id", rule="kind", message=message))
        for place, external_id in enumerate(node.external_ids):
            name, field = normal_name(external_id), f"{where}.external_ids[{place}]"
            if not name:
                found.append(Violation(field=field, rule="required", message="an external id is not empty"))
                continue
            other = claimed.setdefault(name, node.node_id)
            if other != node.node_id:
                message = f"{other} claims {name!r} in the same request: one node each"
                found.append(Violation(field=field, rule="unique", message=message))
            owner = state.lineage.claims.get(name)
            if owner not in (None, node.node_id) and state.graph.node(owner).declared:
                taken.append(f"{name!r} is a name of {owner}, so {node.node_id} cannot have it")
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    if taken:
        raise Refused(
            Reason.NODE_ALREADY_EXISTS,
            f"{_some(taken)}; declare the other node without it first, or rename one to the other",
        )


def remove_nodes(state: State, command: RemoveNodes) -> Decision:
    """Remove nodes that have no edges, all or none."""
    node_ids = tuple(sorted(set(command.node_ids)))
    for node_id in node_ids:
        if not state.graph.has_node(node_id):
            raise _no_node(node_id)
    models = [
        Violation(
            field=f"node_ids[{command.node_ids.index(node_id)}]",
            rule="kind",
            message=f"{node_id} is a registered model: set its lifecycle to retired instead",
        )
        for node_id in node_ids
        if node_name(node_id) in state.models and node_kind(node_id) == NodeKind.MODEL
    ]
    if models:
        raise Invalid(Reason.INVALID_ARGUMENT, *models)
    used = []
    for node_id in node_ids:
        edges = (*state.graph.upstream_of(node_id), *state.graph.downstream_of(node_id))
        others = sorted({d.downstream if d.upstream == node_id else d.upstream for d in edges})
        if others:
            more = f" and {len(others) - 10} more" if len(others) > 10 else ""
            used.append(f"{node_id} has dependencies with {', '.join(others[:10])}{more}")
    if used:
        raise Refused(
            Reason.NODE_IN_USE,
            f"{_some(used)}; retract them, or override those that sources show as not there, then remove it",
        )
    return Decision(events=(NodesRemoved(node_ids=node_ids),), result=Result(changed=len(node_ids)))


def rename_node(state: State, command: RenameNode) -> Decision:
    """Give a node another id; if that is a node already, the two become one."""
    old, new = command.node_id, command.new_node_id
    if not state.graph.has_node(old):
        raise _no_node(old)
    if old == new:
        return Decision(result=Result(node_id=new))
    node = state.graph.node(old)
    found: list[Violation] = []
    if node.kind is NodeKind.MODEL and node.declared:
        message = f"{old} is a registered model, whose id is its history: register {node_name(new)} and retire this one"
        found.append(Violation(field="node_id", rule="kind", message=message))
    elif NodeKind(node_kind(new)) is not node.kind and node.declared:
        message = f"{old} is a {node.kind}, {new} is not: declare {new} with its dependencies, then remove {old}"
        found.append(Violation(field="new_node_id", rule="kind", message=message))
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    moves = (NodeMove(node_id=old, new_node_id=new),)
    edges = len(state.graph.upstream_of(old)) + len(state.graph.downstream_of(old))
    event = _moved(state, moves)
    return Decision(events=(event,), result=Result(node_id=new, changed=1, dependencies=edges))


def _moved(state: State, moves: tuple[NodeMove, ...]) -> NodesMoved:
    """Nodes that become others; refused if edges that people declared would then close a cycle."""
    plan = plan_moves(state.graph, state.lineage, moves)
    if plan.refused:
        paths = [" -> ".join(change.cycle) for change in plan.refused]
        raise Refused(
            Reason.DEPENDENCY_CYCLE,
            f"{', '.join(f'{m.node_id} cannot become {m.new_node_id}' for m in moves[:PROBLEMS_IN_MESSAGE_MAX])}: "
            f"that closes the cycle {paths[0]}; retract one of its dependencies first",
            path=paths[0],
            paths="\n".join(paths),
        )
    return NodesMoved(moves=moves, quarantined=plan.quarantined)


def _no_node(node_id: NodeId) -> NotFound:
    return NotFound(
        Reason.NODE_NOT_FOUND, f"there is no node {node_id}: `runway graph show` lists them", node_id=node_id
    )


def _some(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - PROBLEMS_IN_MESSAGE_MAX} more" if len(texts) > PROBLEMS_IN_MESSAGE_MAX else ""
    return "; ".join(texts[:PROBLEMS_IN_MESSAGE_MAX]) + more


# -- edges --------------------------------------------------------------------------------------------------------


def declare_dependencies(state: State, command: DeclareDependencies) -> Decision:
    """Add edges, all or none; what is declared already is no change.

    A declaration wins over discovered edges: those that would close a cycle with it are quarantined.
    """
    problems = dependency_problems(state.graph, command.dependencies)
    displaced: tuple[EdgeChange, ...] = ()
    if problems and state.lineage.records and all(p.reason is Reason.DEPENDENCY_CYCLE for p in problems):
        problems, displaced = _without_discovered(state, command.dependencies)
    refuse(problems)
    last = {(d.upstream, d.downstream, d.edge_type): d for d in command.dependencies}
    changed = tuple(last[key] for key in sorted(last) if _changes(state, key, last[key]))
    events: list[Event] = [EdgesSettled(changes=displaced)] if displaced else []
    if changed:
        events.append(DependenciesDeclared(dependencies=changed))
    return Decision(events=tuple(events), result=Result(changed=len(changed)))


def _changes(state: State, key: EdgeKey, dependency: Dependency) -> bool:
    """Whether declaring an edge changes anything."""
    if key not in state.lineage.declared:
        return True
    record = state.lineage.records.get(key)
    known = record.dependency if record is not None else state.graph.dependency(key)
    return known != dependency


def _without_discovered(
    state: State, dependencies: Sequence[Dependency]
) -> tuple[tuple[DependencyProblem, ...], tuple[EdgeChange, ...]]:
    """Problems of a batch in the graph that people declared, and discovered edges that have to give way to it."""
    ledger = state.lineage
    found = [
        record.dependency
        for key, record in sorted(ledger.records.items())
        if record.state.counts and ledger.discovered_only(key)
    ]
    trial = state.graph.scratch()
    trial.remove_dependencies(found)
    problems = dependency_problems(trial, dependencies)
    if problems:
        return problems, ()
    trial.add_dependencies(dependencies)
    cycles = cycles_closed(trial, found)
    displaced = tuple(
        EdgeChange(
            upstream=d.upstream,
            downstream=d.downstream,
            edge_type=d.edge_type,
            before=ledger.records[d.key].state,
            after=EdgeState.QUARANTINED,
            reason="it would close a cycle with what is declared",
            cycle=cycles[d.key[:2]],
        )
        for d in found
        if d.key[:2] in cycles
    )
    return (), displaced


def retract_dependencies(state: State, command: RetractDependencies, now: datetime) -> Decision:
    """Take declarations back, all or none. What sources still show stays, as discovered."""
    ledger = state.lineage
    missing = []
    for dependency in command.dependencies:
        if dependency.key in ledger.declared:
            continue
        text = f"{dependency.downstream} does not depend on {dependency.upstream} as {dependency.edge_type}"
        if ledger.state_of(dependency.key) is not None:
            text = f"nobody declared {named(dependency)}: override it as not there instead"
        missing.append(text)
    if missing:
        raise NotFound(Reason.DEPENDENCY_NOT_FOUND, _some(missing))
    by_key = {dependency.key: dependency for dependency in command.dependencies}
    removed = tuple(by_key[key] for key in sorted(by_key))
    events: list[Event] = [DependenciesRetracted(dependencies=removed)] if removed else []
    seen = {key: r for key in sorted(by_key) if (r := ledger.records.get(key)) is not None and r.sightings}
    changes = settled(state, seen, ledger.jobs, ledger.policy, now, without=by_key)
    if changes:
        events.append(EdgesSettled(changes=changes))
    return Decision(events=tuple(events), result=Result(changed=len(removed)))
