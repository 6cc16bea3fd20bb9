"""What events do to nodes and edges: the graph, its ledger and the times of discovered edges change together."""

from collections.abc import Mapping
from typing import assert_never

from msgspec.structs import replace

from control_plane.core.events import (
    DependenciesDeclared,
    DependenciesRetracted,
    EdgesSettled,
    Envelope,
    LineagePolicySet,
    LineageReported,
    NodesDeclared,
    NodesDiscovered,
    NodesMoved,
    NodesRemoved,
    OverrideCleared,
    OverrideSet,
    UnfinishedRunsDropped,
)
from control_plane.core.graph import lineage_fold as fold
from control_plane.core.graph.facts import Dependency, DependencyType, Node
from control_plane.core.graph.lineage import Override
from control_plane.core.graph.lineage_moves import apply_moves
from control_plane.core.ids import NodeId, model_node, node_name
from control_plane.core.registry.types import ModelFacts
from control_plane.core.state import State


def _node_of(facts: ModelFacts) -> Node:
    return Node(
        node_id=model_node(facts.model_id),
        description=facts.description,
        owner=facts.owner,
        team=facts.team,
        tier=facts.tier,
    )


def put_model_node(state: State, envelope: Envelope, facts: ModelFacts, before: tuple[str, ...]) -> None:
    """The model's node, and an edge to each consumer; consumers it lost are disconnected."""
    node_id = model_node(facts.model_id)
    parts = state.lineage_parts
    fold.put_model_node(parts, _node_of(facts))
    state.graph.put_retrain_cost(node_id, facts.retrain_gpu_hours)
    for name in sorted(set(facts.consumers) - set(before)):
        consumer = NodeId(f"consumer:{name}")
        if not state.graph.has_node(consumer):
            fold.put_node(parts, Node(node_id=consumer))
        fold.declare(parts, (_consumes(node_id, name),), envelope.seq, envelope.actor, envelope.at)
    lost = sorted(set(before) - set(facts.consumers))
    fold.retract(parts, [_consumes(node_id, name) for name in lost])


def _consumes(model: NodeId, consumer: str) -> Dependency:
    return Dependency(
        upstream=model, downstream=NodeId(f"consumer:{consumer}"), edge_type=DependencyType.CONSUMES_OUTPUT
    )


def change_graph(  # noqa: PLR0912 - one branch per event
    state: State,
    envelope: Envelope,
    event: NodesDeclared
    | DependenciesDeclared
    | DependenciesRetracted
    | NodesDiscovered
    | NodesRemoved
    | NodesMoved
    | LineageReported
    | EdgesSettled
    | OverrideSet
    | OverrideCleared
    | LineagePolicySet
    | UnfinishedRunsDropped,
) -> None:
    """One event about nodes or edges."""
    parts = state.lineage_parts
    versions = state.graph.topology_version, state.graph.nodes_version
    match event:
        case DependenciesDeclared():
            fold.declare(parts, event.dependencies, envelope.seq, envelope.actor, envelope.at)
            state.graph_revision = envelope.seq
        case DependenciesRetracted():
            fold.retract(parts, event.dependencies)
        case NodesDeclared() | NodesDiscovered():
            for node in event.nodes:
                fold.put_node(parts, node)
        case NodesRemoved():
            fold.remove_nodes(parts, event.node_ids)
        case NodesMoved():
            apply_moves(parts, event.moves, event.quarantined)
            _rename_consumers(state, {move.node_id: move.new_node_id for move in event.moves})
        case LineageReported():
            fold.report(parts, event.runs, envelope.at)
            fold.want_moves(parts, event.wanted_moves)
        case EdgesSettled():
            fold.settle(parts, event.changes)
        case OverrideSet():
            said = Override(
                present=event.present,
                owner=event.owner,
                reason=event.reason,
                set_at=envelope.at,
                expires_at=event.expires_at,
                revision=envelope.seq,
            )
            fold.override(parts, event.dependency, said)
        case OverrideCleared():
            fold.clear_override(parts, event.dependency, event.after, event.reason, event.cycle)
        case LineagePolicySet():
            state.lineage.set_policy(event.policy)
        case UnfinishedRunsDropped():
            fold.drop_unfinished(parts, event.runs)
        case _:
            assert_never(event)
    if (state.graph.topology_version, state.graph.nodes_version) != versions:
        state.graph_revision = envelope.seq


def _rename_consumers(state: State, moves: Mapping[NodeId, NodeId]) -> None:
    """Models name their consumers in their facts too."""
    names = {node_name(old): node_name(new) for old, new in moves.items() if old.startswith("consumer:")}
    if not names:
        return
    for record in state.models.values():
        if names.keys() & set(record.facts.consumers):
            consumers = tuple(dict.fromkeys(names.get(name, name) for name in record.facts.consumers))
            record.facts = replace(record.facts, consumers=consumers)
