"""Nodes, edges, impact."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from runway.v1 import graph_pb2

from control_plane.api.convert.common import duration, timestamp
from control_plane.core.graph.causes import CommonCause
from control_plane.core.graph.diff import GraphDiff
from control_plane.core.graph.facts import Dependency, DependencyType, Node, NodeKind
from control_plane.core.graph.impact import ImpactFilter, PathsWanted
from control_plane.core.graph.paths import PATHS_MAX
from control_plane.core.graph.preview import Change
from control_plane.core.graph.rules import usual_type
from control_plane.core.graph.summary import Summary
from control_plane.core.ids import NodeId, parse_node_id

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


def node_from(message: graph_pb2.Node, index: int) -> Node:
    """A node to declare."""
    return Node(
        node_id=parse_node_id(message.node_id, f"nodes[{index}].node_id"),
        title=message.title,
        description=message.description,
        owner=message.owner,
        team=message.team,
        external_ids=tuple(message.external_ids),
    )


def node(found: Node) -> graph_pb2.Node:
    """A node on the wire."""
    return graph_pb2.Node(
        node_id=found.node_id,
        kind=KINDS[found.kind],
        title=found.title,
        description=found.description,
        owner=found.owner,
        team=found.team,
        external_ids=found.external_ids,
        declared=found.declared,
    )


def dependency_from(message: graph_pb2.Dependency, index: int, field: str = "dependencies") -> Dependency:
    """An edge to declare; a type that is not stated follows from the kinds it joins."""
    upstream = parse_node_id(message.upstream_id, f"{field}[{index}].upstream_id")
    downstream = parse_node_id(message.downstream_id, f"{field}[{index}].downstream_id")
    return Dependency(
        upstream=upstream,
        downstream=downstream,
        edge_type=type_of(message.type, upstream, downstream),
        pinned=message.pinned,
        note=message.note,
    )


def type_of(stated: "graph_pb2.DependencyType.ValueType", upstream: NodeId, downstream: NodeId) -> DependencyType:
    """The type of an edge: the stated one, else the usual one; of kinds that nothing joins any, the rules refuse it."""
    return TYPES_FROM.get(stated) or usual_type(upstream, downstream) or DependencyType.DERIVED_FROM


def dependency(found: Dependency) -> graph_pb2.Dependency:
    """An edge on the wire."""
    return graph_pb2.Dependency(
        upstream_id=found.upstream,
        downstream_id=found.downstream,
        type=TYPES[found.edge_type],
        pinned=found.pinned,
        note=found.note,
    )


PATHS_FROM = {
    graph_pb2.PATHS_SHORTEST: PathsWanted.SHORTEST,
    graph_pb2.PATHS_ALL: PathsWanted.ALL,
}


def kinds_from(numbers: "Iterable[graph_pb2.NodeKind.ValueType]") -> frozenset[NodeKind]:
    """Kinds; unspecified ones choose nothing and are passed over."""
    return frozenset(KINDS_FROM[number] for number in numbers if number in KINDS_FROM)


def filter_from(message: graph_pb2.ImpactFilter) -> ImpactFilter:
    """What to look at, and what of it to show."""
    return ImpactFilter(
        depth_max=message.depth_max or None,
        kinds=kinds_from(message.kinds),
        tiers=frozenset(int(tier) for tier in message.tiers if tier),
        teams=frozenset(message.teams),
        types=frozenset(TYPES_FROM[number] for number in message.types if number in TYPES_FROM),
        paths=PATHS_FROM.get(message.paths, PathsWanted.NONE),
        paths_max=message.paths_max or PATHS_MAX,
    )


def completeness(
    reasons: Sequence[str], *, oldest: datetime | None, suspect: int, now: datetime
) -> graph_pb2.Completeness:
    """How far an answer can be trusted, at a moment."""
    return graph_pb2.Completeness(
        complete=not reasons,
        reasons=reasons,
        oldest_lineage_at=timestamp(oldest),
        oldest_lineage_age=None if oldest is None else duration(max(now - oldest, timedelta(0))),
        suspect_edges=suspect,
    )


def summary(found: Summary) -> graph_pb2.ImpactSummary:
    """What an answer comes to, on the wire."""
    return graph_pb2.ImpactSummary(
        by_kind={kind.value: number for kind, number in found.by_kind.items()},
        models_by_tier=found.models_by_tier,
        tier_1_models=found.tier_1_models,
        owners=found.owners,
        teams=found.teams,
        consumers=found.consumers,
        retrain_gpu_hours=found.retrain_gpu_hours,
        retrain_cost_unknown=found.retrain_cost_unknown,
    )


def change_from(request: graph_pb2.PreviewChangeRequest) -> Change:
    """A change to look at before it is made."""
    return Change(
        retire=[parse_node_id(text, f"retire_node_ids[{place}]") for place, text in enumerate(request.retire_node_ids)],
        add=[dependency_from(one, place, "add") for place, one in enumerate(request.add)],
        remove=[dependency_from(one, place, "remove") for place, one in enumerate(request.remove)],
    )


def common_cause(found: CommonCause, facts: Node) -> graph_pb2.CommonCause:
    """A common cause with whom to ask about it."""
    return graph_pb2.CommonCause(
        node_id=found.node_id,
        distance=found.distance,
        nearest=found.nearest,
        root=found.root,
        owner=facts.owner,
        team=facts.team,
    )


def graph_diff(found: GraphDiff, from_revision: int, to_revision: int) -> graph_pb2.DiffGraphResponse:
    """A diff on the wire."""
    return graph_pb2.DiffGraphResponse(
        nodes_added=map(node, found.nodes_added),
        nodes_removed=map(node, found.nodes_removed),
        nodes_changed=[
            graph_pb2.NodeChange(before=node(change.before), after=node(change.after)) for change in found.nodes_changed
        ],
        dependencies_added=map(dependency, found.dependencies_added),
        dependencies_removed=map(dependency, found.dependencies_removed),
        dependencies_changed=[
            graph_pb2.DependencyChange(before=dependency(change.before), after=dependency(change.after))
            for change in found.dependencies_changed
        ],
        from_revision=from_revision,
        to_revision=to_revision,
    )
