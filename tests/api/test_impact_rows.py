"""The rows written on the wire directly are the rows that message objects would give."""

from itertools import pairwise

import pytest
from runway.v1 import common_pb2, graph_pb2

from control_plane.api.convert.impact_rows import ImpactRows
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, DependencyType, Node
from control_plane.core.graph.impact import ImpactFilter, PathsWanted, impact
from control_plane.core.ids import NodeId


def chain(length: int) -> DependencyGraph:
    """node 0 -> 1 -> 2 ..., a shortcut 0 -> 2, and one node with facts too long for a one-byte length."""
    graph = DependencyGraph()
    ids = [NodeId(f"model:m{i}") for i in range(length)]
    for number, node_id in enumerate(ids):
        owner = "ana" * (60 if number == 1 else number % 2)
        graph.put_node(Node(node_id=node_id, owner=owner, team="ops", tier=number % 5 or None))
    pairs = [*pairwise(ids), (ids[0], ids[2])]
    graph.add_dependencies(
        Dependency(upstream=up, downstream=down, edge_type=DependencyType.EMBEDS) for up, down in pairs
    )
    return graph


@pytest.mark.parametrize("paths", list(PathsWanted))
@pytest.mark.parametrize("length", [3, 100, 300])
def test_rows_equal_those_of_message_objects(length: int, paths: PathsWanted) -> None:
    graph, rows = chain(length), ImpactRows()
    answer = impact(graph, NodeId("model:m0"), ImpactFilter(paths=paths))
    expected = [
        graph_pb2.Reached(
            node_id=row.node_id,
            wave=row.wave,
            distance=row.distance,
            path=row.path,
            path_count=row.path_count or 0.0,
            all_paths=[graph_pb2.Path(node_ids=path) for path in row.all_paths],
            owner=graph.node(row.node_id).owner,
            team=graph.node(row.node_id).team,
            tier=common_pb2.Tier.ValueType(graph.node(row.node_id).tier or 0),
        )
        for row in answer.reached()
    ]
    assert list(graph_pb2.GetImpactResponse.FromString(rows.encode(graph, answer)).reached) == expected
    assert list(graph_pb2.GetUpstreamResponse.FromString(rows.encode(graph, answer)).reached) == expected


def test_changed_facts_are_seen() -> None:
    graph, rows = chain(3), ImpactRows()
    answer = impact(graph, NodeId("model:m0"))
    rows.encode(graph, answer)
    graph.put_node(Node(node_id=NodeId("model:m2"), owner="ben"))
    found = graph_pb2.GetImpactResponse.FromString(rows.encode(graph, answer)).reached
    assert [row.owner for row in found] == ["ana" * 60, "ben"]


def test_another_graph_at_the_same_version_is_another_graph() -> None:
    before, after, rows = chain(3), chain(3), ImpactRows()
    after.put_node(Node(node_id=NodeId("model:m1"), owner="ben"))
    before.put_node(Node(node_id=NodeId("model:m1"), owner="ana"))
    rows.encode(before, impact(before, NodeId("model:m0")))
    assert before.nodes_version == after.nodes_version
    found = graph_pb2.GetImpactResponse.FromString(rows.encode(after, impact(after, NodeId("model:m0")))).reached
    assert found[0].owner == "ben"


def test_no_rows_are_no_bytes() -> None:
    graph = chain(3)
    assert ImpactRows().encode(graph, impact(graph, NodeId("model:m2"))) == b""
