"""Nodes, edges, impact."""

from collections.abc import Mapping

from runway.v1 import graph_pb2

from control_plane.core.graph.facts import Dependency, DependencyType, Node, NodeKind
from control_plane.core.ids import NodeId as CoreNodeId
from control_plane.core.ids import parse_node_id

KINDS = {
    NodeKind.DATASET: graph_pb2.NODE_KIND_DATASET,
    NodeKind.FEATURE: graph_pb2.NODE_KIND_FEATURE,
    NodeKind.MODEL: graph_pb2.NODE_KIND_MODEL,
    NodeKind.CONSUMER: graph_pb2.NODE_KIND_CONSUMER,
}
KINDS_FROM = {number: kind for kind, number in KINDS.items()}
TYPES = {
    DependencyType.TRAINED_ON: graph_pb2.DEPENDENCY_TYPE_TRAINED_ON,
    DependencyType.READS_FEATURE: graph_pb2.DEPENDENCY_TYPE_READS_FEATURE,
    DependencyType.CONSUMES_OUTPUT: graph_pb2.DEPENDENCY_TYPE_CONSUMES_OUTPUT,
    DependencyType.EMBEDS: graph_pb2.DEPENDENCY_TYPE_EMBEDS,
    DependencyType.DERIVED_FROM: graph_pb2.DEPENDENCY_TYPE_DERIVED_FROM,
}
TYPES_FROM = {number: kind for kind, number in TYPES.items()}

USUAL_TYPES: Mapping[tuple[str, str], DependencyType] = {
    ("dataset", "model"): DependencyType.TRAINED_ON,
    ("feature", "model"): DependencyType.READS_FEATURE,
}
"""What an edge of no stated type is taken for; model outputs and derived data below."""


def node_from(message: graph_pb2.Node, index: int) -> Node:
    """A node to declare."""
    return Node(
        node_id=parse_node_id(message.node_id, f"nodes[{index}].node_id"),
        description=message.description,
        owner=message.owner,
        team=message.team,
    )


def node(found: Node) -> graph_pb2.Node:
    """A node on the wire."""
    return graph_pb2.Node(
        node_id=found.node_id,
        kind=KINDS[found.kind],
        description=found.description,
        owner=found.owner,
        team=found.team,
    )


def dependency_from(message: graph_pb2.Dependency, index: int) -> Dependency:
    """An edge to declare; a type that is not stated follows from the kinds it joins."""
    upstream = parse_node_id(message.upstream_id, f"dependencies[{index}].upstream_id")
    downstream = parse_node_id(message.downstream_id, f"dependencies[{index}].downstream_id")
    edge_type = TYPES_FROM.get(message.type)
    return Dependency(upstream=upstream, downstream=downstream, edge_type=edge_type or _usual(upstream, downstream))


def _usual(upstream: CoreNodeId, downstream: CoreNodeId) -> DependencyType:
    kinds = (upstream.partition(":")[0], downstream.partition(":")[0])
    if kinds[0] == "model":
        return DependencyType.CONSUMES_OUTPUT
    return USUAL_TYPES.get(kinds, DependencyType.DERIVED_FROM)


def dependency(found: Dependency) -> graph_pb2.Dependency:
    """An edge on the wire."""
    return graph_pb2.Dependency(upstream_id=found.upstream, downstream_id=found.downstream, type=TYPES[found.edge_type])
