"""The difference of two graphs against its dumb twin, and that it leads from one to the other."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.diff import diff
from control_plane.core.graph.facts import Dependency, DependencyType, GraphSnapshot, Node
from control_plane.core.ids import NodeId
from tests.reference.diff_twin import changes

IDS = [NodeId(f"{kind}:n{i}") for kind in ("dataset", "model") for i in range(4)]


@st.composite
def graphs(draw: st.DrawFn) -> DependencyGraph:
    """A graph whose edges lead from earlier to later ids, so that it has no cycle."""
    graph = DependencyGraph()
    ids = sorted(draw(st.sets(st.sampled_from(IDS))))
    for node_id in ids:
        graph.put_node(Node(node_id=node_id, owner=draw(st.sampled_from(["", "ana", "bo"]))))
    pairs = [(a, b) for place, a in enumerate(ids) for b in ids[place + 1 :]]
    for a, b in draw(st.lists(st.sampled_from(pairs), max_size=12)) if pairs else ():
        edge_type = draw(st.sampled_from([DependencyType.CONSUMES_OUTPUT, DependencyType.TRAINED_ON]))
        note = draw(st.sampled_from(["", "note"]))
        graph.add_dependencies([Dependency(upstream=a, downstream=b, edge_type=edge_type, note=note)])
    return graph


@given(graphs(), graphs())
def test_a_diff_is_what_the_twin_finds(before: DependencyGraph, after: DependencyGraph) -> None:
    old, new = before.to_snapshot(), after.to_snapshot()
    found = diff(old, new)
    assert (
        list(found.nodes_added),
        list(found.nodes_removed),
        [(change.before, change.after) for change in found.nodes_changed],
    ) == changes(old.nodes, new.nodes, "node_id")
    assert (
        list(found.dependencies_added),
        list(found.dependencies_removed),
        [(change.before, change.after) for change in found.dependencies_changed],
    ) == changes(old.dependencies, new.dependencies, "key")
    assert found.empty == (old == new)


@given(graphs(), graphs())
def test_what_a_diff_says_makes_the_later_graph_of_the_earlier(before: DependencyGraph, after: DependencyGraph) -> None:
    found = diff(before.to_snapshot(), after.to_snapshot())
    before.remove_dependencies(found.dependencies_removed)
    for gone in found.nodes_removed:
        before.remove_node(gone.node_id)
    for put in (*found.nodes_added, *(change.after for change in found.nodes_changed)):
        before.put_node(put)
    before.add_dependencies([*found.dependencies_added, *(change.after for change in found.dependencies_changed)])
    assert before.to_snapshot() == after.to_snapshot()


@given(graphs(), st.data())
def test_what_was_captured_stays_as_it_was(graph: DependencyGraph, data: st.DataObject) -> None:
    whole: GraphSnapshot = graph.to_snapshot()
    captured = graph.captured()
    for node_id in data.draw(st.lists(st.sampled_from(IDS), unique=True)):
        if graph.has_node(node_id):
            graph.remove_node(node_id)
        else:
            graph.put_node(Node(node_id=node_id))
    assert captured() == whole
