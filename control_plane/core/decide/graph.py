"""Graph: nodes and edges."""

from control_plane.core.commands import DeclareDependencies, DeclareNodes, Result, RetractDependencies
from control_plane.core.decide.decision import Decision
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.events import DependenciesDeclared, DependenciesRetracted, NodesDeclared
from control_plane.core.graph.facts import NodeKind
from control_plane.core.graph.rules import changed_dependencies, check_dependencies, check_retractions
from control_plane.core.state import State


def declare_nodes(state: State, command: DeclareNodes) -> Decision:
    """Add or change datasets, features and consumers; a model's node belongs to the registry."""
    models = [
        Violation(
            field=f"nodes[{index}].node_id",
            rule="kind",
            message=f"{node.node_id} is a model: register or update it through RegistryService",
        )
        for index, node in enumerate(command.nodes)
        if node.kind is NodeKind.MODEL
    ]
    if models:
        raise Invalid(Reason.INVALID_ARGUMENT, *models)
    last = {node.node_id: node for node in command.nodes}
    changed = tuple(
        last[node_id]
        for node_id in sorted(last)
        if not state.graph.has_node(node_id) or state.graph.node(node_id) != last[node_id]
    )
    events = (NodesDeclared(nodes=changed),) if changed else ()
    return Decision(events=events, result=Result(changed=len(changed)))


def declare_dependencies(state: State, command: DeclareDependencies) -> Decision:
    """Add edges, all or none; what is there already is no change."""
    check_dependencies(state.graph, command.dependencies)
    changed = changed_dependencies(state.graph, command.dependencies)
    events = (DependenciesDeclared(dependencies=changed),) if changed else ()
    return Decision(events=events, result=Result(changed=len(changed)))


def retract_dependencies(state: State, command: RetractDependencies) -> Decision:
    """Remove every edge between each pair, all or none."""
    check_retractions(state.graph, command.dependencies)
    by_key = {dependency.key: dependency for dependency in command.dependencies}
    removed = tuple(by_key[key] for key in sorted(by_key))
    events = (DependenciesRetracted(dependencies=removed),) if removed else ()
    return Decision(events=events, result=Result(changed=len(removed)))
