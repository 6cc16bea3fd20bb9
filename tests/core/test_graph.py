"""The dependency graph by example: what a person would ask, and what must be refused."""

from itertools import pairwise

import msgspec
import pytest

from control_plane.core.errors import Invalid, NotFound, Reason, Refused
from control_plane.core.graph.causes import common_causes
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, DependencyType, GraphSnapshot, Node, NodeKind
from control_plane.core.graph.impact import ImpactFilter, PathsWanted, impact, upstream
from control_plane.core.graph.order import (
    nearest_downstream_models,
    nearest_upstream_models,
    topological_waves,
)
from control_plane.core.graph.paths import all_paths
from control_plane.core.graph.preview import Change, preview
from control_plane.core.graph.rules import (
    ENDS,
    PROBLEMS_IN_MESSAGE_MAX,
    check_dependencies,
    check_dependency,
    dependency_problems,
)
from control_plane.core.ids import NodeId

WEATHER, TEMP = NodeId("dataset:weather"), NodeId("feature:temp")
AIR, DELAY, MISSED = NodeId("model:air_time"), NodeId("model:delay"), NodeId("model:missed")
SHARE, DESK = NodeId("feature:delay_share"), NodeId("consumer:desk")


SHORTEST = ImpactFilter(paths=PathsWanted.SHORTEST)


def edge(up: str, down: str, edge_type: str = "consumes_output", note: str = "") -> Dependency:
    return Dependency(upstream=NodeId(up), downstream=NodeId(down), edge_type=DependencyType(edge_type), note=note)


def flights() -> DependencyGraph:
    """weather -> temp -> air_time -> delay -> delay_share -> missed -> desk, and air_time -> missed."""
    graph = DependencyGraph()
    for node_id in (WEATHER, TEMP, AIR, DELAY, MISSED, SHARE, DESK):
        graph.put_node(Node(node_id=node_id))
    graph.add_dependencies(
        (
            edge(WEATHER, TEMP, "derived_from"),
            edge(TEMP, AIR, "reads_feature"),
            edge(AIR, DELAY),
            edge(DELAY, SHARE),
            edge(SHARE, MISSED, "reads_feature"),
            edge(AIR, MISSED),
            edge(MISSED, DESK),
        )
    )
    return graph


def test_impact_is_ordered_by_wave_and_complete() -> None:
    answer = impact(flights(), WEATHER)
    assert answer.node_ids == (TEMP, AIR, DELAY, SHARE, MISSED, DESK)
    assert answer.waves.tolist() == [1, 2, 3, 4, 5, 6]
    assert answer.distances.tolist() == [1, 2, 3, 4, 3, 4]
    assert answer.complete
    assert answer.reasons == ()


def test_impact_of_some_kinds_counts_waves_among_them() -> None:
    answer = impact(flights(), WEATHER, ImpactFilter(kinds=frozenset({NodeKind.MODEL})))
    assert answer.by_wave() == ((AIR,), (DELAY,), (MISSED,))
    assert answer.distances.tolist() == [2, 3, 3]
    assert answer.complete


def test_bounded_depth_says_what_it_left_out() -> None:
    answer = impact(flights(), WEATHER, ImpactFilter(depth_max=3))
    assert answer.node_ids == (TEMP, AIR, DELAY, MISSED)
    assert answer.waves.tolist() == [1, 2, 3, 3]
    assert not answer.complete
    assert answer.reasons == ("2 nodes lie deeper than 3",)
    assert impact(flights(), WEATHER, ImpactFilter(depth_max=6)).complete


def test_depth_below_one_is_invalid() -> None:
    with pytest.raises(Invalid, match="at least 1"):
        impact(flights(), WEATHER, ImpactFilter(depth_max=0))


def test_paths_are_shortest_and_counted() -> None:
    answer = impact(flights(), WEATHER, SHORTEST)
    rows = {row.node_id: row for row in answer.reached()}
    assert rows[MISSED].path == (WEATHER, TEMP, AIR, MISSED)
    assert rows[MISSED].path_count == 2
    assert rows[TEMP].path_count == 1


def test_paths_beyond_the_limit_are_left_out_and_named() -> None:
    answer = impact(flights(), WEATHER, ImpactFilter(paths=PathsWanted.SHORTEST, path_nodes_max=5))
    assert [bool(path) for path in answer.paths] == [True, True, False, False, False, False]
    assert not answer.complete
    assert "paths of 4 nodes left out" in answer.reasons[0]


def test_upstream_starts_at_the_node_and_goes_up() -> None:
    answer = upstream(flights(), MISSED, SHORTEST)
    assert answer.node_ids == (SHARE, DELAY, AIR, TEMP, WEATHER)
    assert answer.waves.tolist() == [1, 2, 3, 4, 5]
    assert answer.paths[-1] == (MISSED, AIR, TEMP, WEATHER)


def test_all_paths_and_their_bound() -> None:
    graph = flights()
    every = all_paths(graph, WEATHER, DESK)
    assert every.paths == (
        (WEATHER, TEMP, AIR, MISSED, DESK),
        (WEATHER, TEMP, AIR, DELAY, SHARE, MISSED, DESK),
    )
    assert every.complete
    one = all_paths(graph, WEATHER, DESK, paths_max=1)
    assert len(one.paths) == 1
    assert one.total == 2
    assert not one.complete
    assert one.why_incomplete == "1 of 2 paths left out: the limit is 1"
    assert all_paths(graph, DESK, WEATHER).total == 0


def test_path_numbers_beyond_any_enumeration() -> None:
    graph = DependencyGraph()
    layers = 1100
    nodes = [[NodeId(f"model:m{i}_{side}") for side in "ab"] for i in range(layers)]
    graph_edges = [edge(up, down) for a, b in pairwise(nodes) for up in a for down in b]
    for node_id in (n for pair in nodes for n in pair):
        graph.put_node(Node(node_id=node_id))
    graph.add_dependencies(graph_edges)
    source, target = nodes[0][0], nodes[-1][0]
    found = all_paths(graph, source, target, paths_max=3)
    assert found.total == 2 ** (layers - 2)
    assert len(found.paths) == 3
    assert not found.complete
    assert [*impact(graph, source, SHORTEST).reached()][-1].path_count == float("inf")


@pytest.mark.parametrize("ask", [impact, upstream, nearest_upstream_models, nearest_downstream_models])
def test_unknown_nodes_are_not_found(ask: "object") -> None:
    assert callable(ask)
    with pytest.raises(NotFound, match="there is no node model:nobody") as caught:
        ask(flights(), NodeId("model:nobody"))
    assert caught.value.reason == Reason.NODE_NOT_FOUND


def test_model_neighbours_look_through_features() -> None:
    graph = flights()
    assert nearest_upstream_models(graph, MISSED) == (AIR, DELAY)
    assert nearest_upstream_models(graph, DELAY) == (AIR,)
    assert nearest_downstream_models(graph, TEMP) == (AIR,)
    assert graph.upstream_models(DESK) == (AIR, DELAY, MISSED)
    assert graph.downstream_models(AIR) == (DELAY, MISSED)
    assert graph.upstream_among(MISSED, [DELAY, DESK, MISSED, NodeId("model:nobody")]) == (DELAY,)


def test_waves_honour_what_lies_between() -> None:
    graph = flights()
    assert topological_waves(graph, [MISSED, DELAY]) == ((DELAY,), (MISSED,))
    assert topological_waves(graph, [MISSED, AIR]) == ((AIR,), (MISSED,))
    assert topological_waves(graph, []) == ()
    with pytest.raises(NotFound, match="model:nobody"):
        topological_waves(graph, [NodeId("model:nobody"), AIR])


def test_a_cycle_is_refused_with_its_path() -> None:
    with pytest.raises(Refused) as caught:
        check_dependency(flights(), edge(MISSED, AIR))
    assert caught.value.reason == Reason.DEPENDENCY_CYCLE
    assert caught.value.details["path"] == "model:missed -> model:air_time -> model:missed"
    assert "closes the cycle model:missed -> model:air_time -> model:missed" in str(caught.value)


def test_a_cycle_through_a_feature_is_found() -> None:
    graph = flights()
    assert graph.find_cycle(MISSED, TEMP) == (MISSED, TEMP, AIR, MISSED)
    assert graph.find_cycle(TEMP, MISSED) is None


def test_every_problem_of_a_batch_is_reported() -> None:
    batch = (
        edge(AIR, AIR),
        edge(DESK, AIR),
        edge("model:nobody", "feature:nothing"),
        edge(WEATHER, AIR, "reads_feature"),
        edge("Model:X", AIR),
        edge(MISSED, DELAY, "embeds"),
        edge(AIR, DESK),
    )
    problems = dependency_problems(flights(), batch)
    assert [(p.index, p.rule) for p in problems] == [
        (0, "no_self"),
        (1, "kinds"),
        (2, "exists"),
        (2, "exists"),
        (3, "kinds"),
        (4, "node_id"),
        (5, "acyclic"),
    ]
    with pytest.raises(Invalid) as caught:
        check_dependencies(flights(), batch)
    assert len(caught.value.violations) == len(problems)
    assert "use trained_on" in caught.value.message
    with pytest.raises(NotFound) as missing:
        check_dependencies(flights(), (batch[2], batch[5]))
    assert missing.value.details["path"] == "model:missed -> model:delay -> feature:delay_share -> model:missed"


def test_a_cycle_within_a_batch_blames_the_edge_that_closes_it() -> None:
    graph = DependencyGraph()
    ids = [NodeId(f"model:m{i}") for i in range(4)]
    for node_id in ids:
        graph.put_node(Node(node_id=node_id))
    ring = [edge(ids[i], ids[(i + 1) % 4]) for i in range(4)]
    problems = dependency_problems(graph, [*ring, edge(ids[0], ids[2]), edge(ids[2], ids[1])])
    assert [(p.index, p.path) for p in problems] == [
        (3, (ids[3], ids[0], ids[1], ids[2], ids[3])),
        (5, (ids[2], ids[1], ids[2])),
    ]
    assert graph.dependency_count == 0


def test_a_long_list_of_problems_is_cut_in_the_message() -> None:
    batch = [edge(f"model:n{i}", AIR) for i in range(PROBLEMS_IN_MESSAGE_MAX + 3)]
    with pytest.raises(NotFound, match="and 3 more"):
        check_dependencies(flights(), batch)


def test_nothing_depends_on_a_consumer() -> None:
    assert all(up is not NodeKind.CONSUMER for ends in ENDS.values() for up, _ in ends)


def test_declaring_twice_changes_nothing() -> None:
    graph = flights()
    before = graph.topology_version
    assert graph.add_dependencies([edge(AIR, DELAY)]) == 0
    assert graph.topology_version == before
    noted = edge(AIR, DELAY, note="since March")
    assert graph.add_dependencies([noted]) == 1
    assert graph.between(AIR, DELAY) == (noted,)


def test_several_types_between_two_nodes_are_one_path() -> None:
    graph = flights()
    graph.add_dependencies([edge(AIR, DELAY, "embeds")])
    assert graph.dependency_count == 8
    assert all_paths(graph, AIR, DELAY).total == 1
    assert graph.remove_dependencies([edge(AIR, DELAY)]) == 1
    assert DELAY in impact(graph, AIR).node_ids
    assert graph.remove_dependencies([edge(AIR, DELAY), edge(AIR, DELAY, "embeds")]) == 1
    assert DELAY not in impact(graph, AIR).node_ids


def test_facts_change_without_touching_the_edges() -> None:
    graph = flights()
    before = graph.topology_version
    owned = Node(node_id=AIR, owner="ana@example.com", team="ops", tier=1)
    assert graph.put_node(owned)
    assert not graph.put_node(owned)
    assert graph.node(AIR) == owned
    assert graph.topology_version == before


def test_indices_reused_after_removals_do_not_mix_up_nodes() -> None:
    graph = flights()
    removed = graph.remove_node(AIR)
    assert removed == (edge(TEMP, AIR, "reads_feature"), edge(AIR, DELAY), edge(AIR, MISSED))
    newcomer = NodeId("consumer:newcomer")
    graph.put_node(Node(node_id=newcomer))  # takes the index that air_time had
    assert impact(graph, newcomer).node_ids == ()
    assert impact(graph, WEATHER).node_ids == (TEMP,)
    graph.add_dependencies([edge(DELAY, newcomer)])
    assert impact(graph, DELAY).node_ids == (newcomer, SHARE, MISSED, DESK)
    assert not graph.has_node(AIR)
    with pytest.raises(NotFound):
        graph.node(AIR)


def test_lists_are_sorted_and_narrowed_by_kind() -> None:
    graph = flights()
    assert [n.node_id for n in graph.nodes([NodeKind.MODEL])] == [AIR, DELAY, MISSED]
    assert graph.dependencies([NodeKind.MODEL]) == (edge(AIR, DELAY), edge(AIR, MISSED))
    assert graph.upstream_of(MISSED) == (edge(SHARE, MISSED, "reads_feature"), edge(AIR, MISSED))
    assert graph.downstream_of(AIR) == (edge(AIR, DELAY), edge(AIR, MISSED))
    assert graph.node(AIR).kind is NodeKind.MODEL
    assert len(graph) == 7


def test_an_empty_graph_answers() -> None:
    graph = DependencyGraph()
    assert graph.nodes() == ()
    assert graph.to_snapshot() == GraphSnapshot(nodes=[], dependencies=[])
    graph.put_node(Node(node_id=AIR))
    assert impact(graph, AIR).by_wave() == ()
    assert topological_waves(graph, [AIR]) == ((AIR,),)


def test_a_snapshot_survives_the_codec_and_gives_the_same_answers() -> None:
    graph = flights()
    raw = msgspec.msgpack.encode(graph.to_snapshot())
    again = DependencyGraph.from_snapshot(msgspec.msgpack.decode(raw, type=GraphSnapshot))
    assert msgspec.msgpack.encode(again.to_snapshot()) == raw
    assert list(impact(again, WEATHER, SHORTEST).reached()) == list(impact(graph, WEATHER, SHORTEST).reached())


@pytest.mark.parametrize(
    ("nodes", "dependencies", "what"),
    [
        ([AIR, AIR], [], "a node appears twice"),
        ([AIR], [edge(AIR, DELAY)], "model:delay is not among the nodes"),
        ([AIR, DELAY], [edge(AIR, DELAY), edge(AIR, DELAY)], "a dependency appears twice"),
        ([AIR, DELAY], [edge(AIR, DELAY), edge(DELAY, AIR)], "they contain a cycle"),
    ],
)
def test_a_damaged_snapshot_is_refused(nodes: list[NodeId], dependencies: list[Dependency], what: str) -> None:
    snapshot = GraphSnapshot(nodes=[Node(node_id=n) for n in nodes], dependencies=dependencies)
    with pytest.raises(Invalid, match=what):
        DependencyGraph.from_snapshot(snapshot)


def test_ten_thousand_edges_on_one_node() -> None:
    graph = DependencyGraph()
    hub, count = NodeId("feature:hub"), 10_000
    users = [NodeId(f"model:m{number:05d}") for number in range(count)]
    for node_id in (hub, WEATHER, *users):
        graph.put_node(Node(node_id=node_id))
    batch = [edge(WEATHER, hub, "derived_from"), *(edge(hub, user, "reads_feature") for user in users)]
    check_dependencies(graph, batch)
    graph.add_dependencies(batch)
    answer = impact(graph, WEATHER, SHORTEST)
    assert answer.node_ids == (hub, *users)
    assert answer.paths[-1] == (WEATHER, hub, users[-1])
    assert [c.node_id for c in common_causes(graph, users[:1000])] == [hub, WEATHER]
    retired = preview(graph, Change(retire=[hub]), ImpactFilter())
    assert len(retired.affected) == count + 1
    assert retired.orphaned == retired.directly_hit == tuple(users)
    assert all_paths(graph, WEATHER, users[7]).paths == ((WEATHER, hub, users[7]),)


def test_a_chain_as_deep_as_the_graph() -> None:
    graph, length = DependencyGraph(), 3_000
    chain = [NodeId(f"model:m{number:05d}") for number in range(length)]
    for node_id in chain:
        graph.put_node(Node(node_id=node_id))
    graph.add_dependencies([edge(up, down) for up, down in pairwise(chain)])
    answer = impact(graph, chain[0])
    assert answer.node_ids == tuple(chain[1:])
    assert answer.wave_count == length - 1
    assert all_paths(graph, chain[0], chain[-1]).paths == (tuple(chain),)


def test_a_change_that_fits_the_order_keeps_the_layout() -> None:
    graph = flights()
    numbering = graph.layout().numbering
    graph.put_node(Node(node_id=NodeId("dataset:alone")))
    graph.add_dependencies([edge(WEATHER, AIR, "trained_on"), edge(TEMP, DELAY, "reads_feature")])
    graph.remove_dependencies([edge(SHARE, MISSED, "reads_feature")])
    assert graph.layout().numbering is numbering
    assert graph.layout(reverse=True).numbering is numbering
    assert impact(graph, NodeId("dataset:alone")).node_ids == ()
    assert impact(graph, WEATHER).distances.tolist() == [1, 1, 2, 2, 3, 3]
    graph.remove_dependencies([edge(AIR, DELAY)])
    graph.add_dependencies([edge(MISSED, DELAY)])  # against the order
    assert graph.layout().numbering is not numbering
    assert impact(graph, MISSED).node_ids == (DESK, DELAY, SHARE)


def test_a_preview_of_what_would_be_refused() -> None:
    graph = flights()
    cycle = preview(graph, Change(add=[edge(MISSED, AIR)]), ImpactFilter())
    assert len(cycle.affected) == 0
    assert "closes the cycle model:missed -> model:air_time -> model:missed" in cycle.refusals[0]
    consumed = preview(graph, Change(retire=[AIR], remove=[edge(DESK, AIR)]), ImpactFilter(paths=PathsWanted.ALL))
    assert consumed.refusals == (
        "model:air_time is consumed by model:delay, model:missed: move them off it first, or retire it with force",
        "model:air_time does not depend on consumer:desk as consumes_output: there is nothing to remove",
    )
    assert consumed.affected.node_ids == (AIR, DELAY, SHARE, MISSED, DESK)
    assert consumed.directly_hit == (DELAY, MISSED)
    assert consumed.orphaned == (DELAY,)
    assert not consumed.affected.complete
    with pytest.raises(NotFound, match="there is no node feature:a, feature:b"):
        preview(graph, Change(retire=[NodeId("feature:b"), NodeId("feature:a")]), ImpactFilter())


def test_what_a_preview_takes_away_and_adds_again_has_not_changed() -> None:
    graph = flights()
    same = next(iter(graph.dependencies()))
    found = preview(graph, Change(add=[same], remove=[same]), ImpactFilter())
    assert (len(found.affected), found.directly_hit, found.orphaned, found.refusals) == (0, (), (), ())


def test_an_edge_against_the_numbering_is_found_though_only_edges_of_another_type_were_asked_for() -> None:
    graph = DependencyGraph()
    for node_id in (WEATHER, TEMP):
        graph.put_node(Node(node_id=node_id))
    graph.layout(types=[DependencyType.TRAINED_ON])
    graph.add_dependencies([edge(WEATHER, TEMP, "derived_from")])
    assert impact(graph, WEATHER, SHORTEST).node_ids == (TEMP,)
