"""What sources show beside a manifest: never exported, never pruned, and it gives way to what is declared."""

from control_plane.api.convert.fleet import manifest_of
from control_plane.core.commands import ReportLineage
from control_plane.core.decide import decide
from control_plane.core.graph.lineage_facts import LineageNode, LineageRun, RunState
from control_plane.core.ids import NodeId
from control_plane.core.state import State
from tests.fleet.fleets import NOW, SMALL, applied, happen, planned, small, wrong


def _seen(state: State, upstream: str, downstream: str, *, name: str = "") -> None:
    """A source tells of a completed run that read one node and wrote the other, which it may know by a name."""
    written = LineageNode(external_id=name) if name else LineageNode(node_id=downstream)
    told = LineageRun(
        source="airflow",
        job=f"{upstream}.{downstream}",
        run_id="1",
        state=RunState.COMPLETE,
        event_time=NOW,
        inputs=(LineageNode(node_id=upstream),),
        outputs=(written,),
    )
    happen(state, *decide(state, ReportLineage(runs=(told,)), NOW).events)


def _edges(state: State) -> set[tuple[str, str]]:
    return {(edge.upstream, edge.downstream) for edge in state.graph.dependencies()}


def test_discovered_edges_are_neither_exported_nor_pruned() -> None:
    state = State()
    applied(state, small())
    before = manifest_of(state)
    _seen(state, "dataset:raw", "dataset:weather")
    _seen(state, "feature:temp", "model:route")
    assert manifest_of(state) == before
    assert planned(state, before, prune=True).events == ()
    assert {("dataset:raw", "dataset:weather"), ("feature:temp", "model:route")} <= _edges(state)


def test_an_edge_that_is_no_longer_declared_stays_as_discovered_while_a_source_shows_it() -> None:
    state = State()
    applied(state, small())
    _seen(state, "feature:temp", "model:air_time")
    without = small(SMALL.replace("feature:temp, {upstream", "{upstream"))
    [change] = planned(state, without, prune=True).changes
    assert change.subject == "feature:temp -> model:air_time (reads_feature)"
    applied(state, without, prune=True)
    assert ("feature:temp", "model:air_time") in _edges(state)
    assert planned(state, without, prune=True).events == ()
    assert manifest_of(state).dependencies != small().dependencies


def test_a_node_that_is_no_longer_declared_stays_as_discovered_while_a_source_shows_it() -> None:
    state = State()
    applied(state, small())
    _seen(state, "dataset:weather", "dataset:copy")
    models = small(SMALL[SMALL.index("models:") :].replace("feature:temp, ", ""))
    applied(state, models, prune=True)
    assert not state.graph.has_node(NodeId("feature:temp"))
    assert not state.graph.node(NodeId("dataset:weather")).declared
    assert ("dataset:weather", "dataset:copy") in _edges(state)
    assert planned(state, models, prune=True).events == ()
    assert [node.node_id for node in manifest_of(state).nodes] == []


def test_a_declaration_wins_over_a_discovered_edge_that_would_close_a_cycle() -> None:
    state = State()
    applied(state, small(SMALL.replace(", {upstream: model:route, type: embeds, note: four numbers}", "")))
    _seen(state, "model:air_time", "model:route")
    assert ("model:air_time", "model:route") in _edges(state)
    assert wrong(state, small()) == []
    applied(state, small())
    assert ("model:route", "model:air_time") in _edges(state)
    assert ("model:air_time", "model:route") not in _edges(state)
    assert planned(state, small()).events == ()


def test_a_node_that_claims_a_name_takes_over_what_lineage_made_of_it() -> None:
    state = State()
    applied(state, small())
    _seen(state, "dataset:weather", "", name="postgres://db/shop.orders")
    [made] = [node.node_id for node in state.graph.nodes() if not node.declared]
    claiming = small(SMALL + "---\nnodes: [{node_id: dataset:orders, external_ids: ['postgres://db/shop.orders']}]\n")
    applied(state, claiming)
    assert not state.graph.has_node(made)
    assert ("dataset:weather", "dataset:orders") in _edges(state)
    assert planned(state, claiming, prune=True).events == ()


def test_a_discovered_node_that_is_declared_keeps_its_names_and_says_what_the_manifest_says() -> None:
    state = State()
    applied(state, small())
    _seen(state, "dataset:weather", "", name="postgres://db/shop.orders")
    [made] = [node for node in state.graph.nodes() if not node.declared]
    manifest = small(SMALL + f"---\nnodes: [{{node_id: '{made.node_id}', owner: team:data}}]\n")
    applied(state, manifest)
    assert planned(state, manifest, prune=True).events == ()
    declared = state.graph.node(made.node_id)
    assert (declared.declared, declared.title, declared.external_ids) == (True, "", made.external_ids)
    again = manifest_of(state)
    assert planned(state, again, prune=True).events == ()


def test_a_name_of_another_node_is_refused_with_it() -> None:
    state = State()
    applied(state, small("nodes: [{node_id: dataset:a, external_ids: ['s3://b/a']}]"))
    found = wrong(state, small("nodes: [{node_id: dataset:c, external_ids: ['s3://b/a']}]"))
    assert any("'s3://b/a' is a name of dataset:a" in one for one in found)
