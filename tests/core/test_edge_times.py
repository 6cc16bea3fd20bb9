"""The age of the lineage that an answer rests on, against a dict of all sightings."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.edge_times import EdgeTimes
from control_plane.core.graph.facts import Dependency, DependencyType, Node
from control_plane.core.graph.impact import ImpactFilter, impact, upstream
from control_plane.core.ids import NodeId

START = datetime(2013, 3, 1, tzinfo=UTC)
IDS = [NodeId(f"model:m{number}") for number in range(6)]
EDGES = [
    Dependency(upstream=up, downstream=down, edge_type=edge_type)
    for place, up in enumerate(IDS)
    for down in IDS[place + 1 :]
    for edge_type in (DependencyType.EMBEDS, DependencyType.CONSUMES_OUTPUT)
]

changes = st.lists(
    st.tuples(
        st.sampled_from(["see", "see", "see", "forget", "retract"]),
        st.sampled_from(EDGES),
        st.integers(0, 50),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(
    changes=changes, asked=st.sampled_from(IDS), types=st.frozensets(st.sampled_from(list(DependencyType)), max_size=2)
)
def test_oldest_and_suspect_are_those_of_the_edges_used(
    changes: list[tuple[str, Dependency, int, bool]], asked: NodeId, types: frozenset[DependencyType]
) -> None:
    graph, times = DependencyGraph(), EdgeTimes()
    for node_id in IDS:
        graph.put_node(Node(node_id=node_id))
    graph.add_dependencies(EDGES[::3])  # declared: in the graph, but never seen
    seen: dict[tuple[NodeId, NodeId, DependencyType], tuple[datetime, bool]] = {}
    for what, edge, hours, suspect in changes:
        at = START + timedelta(hours=hours)
        if what == "see":
            graph.add_dependencies([edge])
            times.put(edge.key, at, suspect)
            seen[edge.key] = at, suspect
        else:
            times.remove(edge.key)
            seen.pop(edge.key, None)
            if what == "retract":
                graph.remove_dependencies([edge])
        for ask in (impact, upstream):
            answer = ask(graph, asked, ImpactFilter(types=types))
            nodes = {asked, *answer.node_ids}
            used = [
                found for key, found in seen.items() if nodes.issuperset(key[:2]) and (not types or key[2] in types)
            ]
            assert times.oldest(answer.layout, answer.used) == min((at for at, _ in used), default=None)
            assert times.suspect(answer.layout, answer.used) == sum(suspect for _, suspect in used)
    assert len(times) == len(seen)


def test_nothing_seen_is_no_age() -> None:
    graph, times = DependencyGraph(), EdgeTimes()
    graph.put_node(Node(node_id=IDS[0]))
    answer = impact(graph, IDS[0])
    assert times.oldest(answer.layout, answer.used) is None
    assert times.suspect(answer.layout, answer.used) == 0
    times.remove(EDGES[0].key)
