"""GraphService: nodes, edges, cycles with their path, impact and upstream."""

import grpc
import pytest
from runway.v1 import common_pb2, graph_pb2

from tests.api.worlds import Api, by, refused

Edge = tuple[str, str]

SHORTEST = graph_pb2.ImpactFilter(paths=graph_pb2.PATHS_SHORTEST)


def edges(
    *pairs: Edge, dry: bool = False, kind: "graph_pb2.DependencyType.ValueType" = graph_pb2.DEPENDENCY_TYPE_UNSPECIFIED
) -> graph_pb2.DeclareDependenciesRequest:
    """Dependencies to declare."""
    return graph_pb2.DeclareDependenciesRequest(
        mutation=by(validate_only=dry),
        dependencies=[
            graph_pb2.Dependency(upstream_id=upstream, downstream_id=downstream, type=kind)
            for upstream, downstream in pairs
        ],
    )


async def nodes(api: Api, *ids: str) -> int:
    request = graph_pb2.DeclareNodesRequest(nodes=[graph_pb2.Node(node_id=one, team="data") for one in ids])
    return (await api.graph.DeclareNodes(request)).changed


@pytest.fixture
async def fleet(api: Api) -> Api:
    """weather -> wind -> delay -> arrival -> desk, and delay -> desk."""
    await nodes(api, "dataset:weather", "feature:wind")
    await api.model("delay", consumers=["desk"])
    await api.model("arrival", tier=common_pb2.TIER_1, consumers=["desk"])
    declared = await api.graph.DeclareDependencies(
        edges(("dataset:weather", "feature:wind"), ("feature:wind", "model:delay"), ("model:delay", "model:arrival"))
    )
    assert declared.changed == 3
    return api


async def test_impact_is_told_by_wave_with_paths(fleet: Api) -> None:
    request = graph_pb2.GetImpactRequest(node_id="dataset:weather", filter=SHORTEST)
    reply = await fleet.graph.GetImpact(request)
    assert reply.completeness == graph_pb2.Completeness(complete=True)
    assert [(row.node_id, row.wave, row.distance) for row in reply.reached] == [
        ("feature:wind", 1, 1),
        ("model:delay", 2, 2),
        ("model:arrival", 3, 3),
        ("consumer:desk", 4, 3),
    ]
    assert list(reply.reached[-1].path) == ["dataset:weather", "feature:wind", "model:delay", "consumer:desk"]
    assert (reply.reached[2].team, reply.reached[2].tier) == ("flights", common_pb2.TIER_1)
    shallow = await fleet.graph.GetImpact(
        graph_pb2.GetImpactRequest(node_id="dataset:weather", filter=graph_pb2.ImpactFilter(depth_max=1))
    )
    assert [row.node_id for row in shallow.reached] == ["feature:wind"]
    assert shallow.completeness.reasons == ["3 nodes lie deeper than 1"]
    assert not shallow.completeness.complete
    only_models = graph_pb2.ImpactFilter(kinds=[graph_pb2.NODE_KIND_MODEL])
    models = graph_pb2.GetImpactRequest(node_id="dataset:weather", filter=only_models)
    assert [row.node_id for row in (await fleet.graph.GetImpact(models)).reached] == ["model:delay", "model:arrival"]


async def test_upstream_is_the_way_back(fleet: Api) -> None:
    reply = await fleet.graph.GetUpstream(graph_pb2.GetUpstreamRequest(node_id="arrival", filter=SHORTEST))
    assert {row.node_id for row in reply.reached} == {"model:delay", "feature:wind", "dataset:weather"}
    nothing = await fleet.graph.GetUpstream(graph_pb2.GetUpstreamRequest(node_id="dataset:weather"))
    assert not nothing.reached
    assert nothing.completeness.complete


async def test_a_cycle_is_refused_with_its_path_and_nothing_is_declared(fleet: Api) -> None:
    before = await fleet.revision()
    await fleet.model("fine")
    refusal = await refused(
        fleet.graph.DeclareDependencies(edges(("model:arrival", "model:fine"), ("model:arrival", "feature:wind")))
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DEPENDENCY_CYCLE")
    assert refusal.metadata["path"] == "model:arrival -> feature:wind -> model:delay -> model:arrival"
    assert refusal.metadata["fields"] == "dependencies[1]"
    assert await fleet.revision() == before + 1
    reply = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id="arrival"))
    assert [row.node_id for row in reply.reached] == ["consumer:desk"]


async def test_a_batch_that_is_a_cycle_by_itself_is_refused(api: Api) -> None:
    names = [f"m{number:02d}_with_a_name_as_long_as_names_get_when_people_describe_everything" for number in range(40)]
    for name in names:
        await api.model(name)
    ring = [(f"model:{a}", f"model:{b}") for a, b in zip(names, names[1:] + names[:1], strict=True)]
    refusal = await refused(api.graph.DeclareDependencies(edges(*ring)))
    assert refusal.reason == "DEPENDENCY_CYCLE"
    assert refusal.metadata["path"].startswith(f"model:{names[-1]} -> model:{names[0]} -> ")
    assert not (await api.graph.GetGraph(graph_pb2.GetGraphRequest())).dependencies


async def test_all_that_is_wrong_with_a_batch_is_told_at_once(fleet: Api) -> None:
    refusal = await refused(
        fleet.graph.DeclareDependencies(
            edges(("model:delay", "model:delay"), ("consumer:desk", "model:delay"), ("dataset:nope", "model:delay"))
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert {field.partition(".")[0] for field in refusal.violations} == {f"dependencies[{n}]" for n in range(3)}
    unknown = await refused(fleet.graph.DeclareDependencies(edges(("dataset:nope", "model:delay"))))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "NODE_NOT_FOUND")
    shapes = await refused(fleet.graph.DeclareDependencies(edges(("weather", "delay"), ("x:y", "model:A"))))
    assert set(shapes.violations) == {
        f"dependencies[{n}].{end}" for n in range(2) for end in ("upstream_id", "downstream_id")
    }
    wrong = edges(("dataset:weather", "model:delay"), kind=graph_pb2.DEPENDENCY_TYPE_EMBEDS)
    assert (await refused(fleet.graph.DeclareDependencies(wrong))).reason == "INVALID_ARGUMENT"
    empty = await refused(fleet.graph.DeclareDependencies(edges()))
    assert set(empty.violations) == {"dependencies"}


async def test_declaring_again_changes_nothing_and_a_dry_run_neither(fleet: Api) -> None:
    before = await fleet.revision()
    again = await fleet.graph.DeclareDependencies(edges(("feature:wind", "model:delay")))
    assert (again.changed, again.revision) == (0, before)
    dry = await fleet.graph.DeclareDependencies(edges(("dataset:weather", "model:arrival"), dry=True))
    assert dry.changed == 1
    assert (
        await refused(fleet.graph.DeclareDependencies(edges(("model:arrival", "feature:wind"), dry=True)))
    ).reason == ("DEPENDENCY_CYCLE")
    assert await nodes(fleet, "dataset:weather") == 0
    assert await fleet.revision() == before


async def test_retracting_is_all_or_nothing(fleet: Api) -> None:
    def retraction(*pairs: Edge) -> graph_pb2.RetractDependenciesRequest:
        return graph_pb2.RetractDependenciesRequest(dependencies=edges(*pairs).dependencies)

    refusal = await refused(
        fleet.graph.RetractDependencies(
            retraction(("feature:wind", "model:delay"), ("dataset:weather", "model:arrival"))
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEPENDENCY_NOT_FOUND")
    done = await fleet.graph.RetractDependencies(retraction(("feature:wind", "model:delay")))
    assert done.changed == 1
    reply = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id="dataset:weather"))
    assert [row.node_id for row in reply.reached] == ["feature:wind"]
    # What was a cycle is none any more.
    await fleet.graph.DeclareDependencies(edges(("model:arrival", "feature:wind")))


async def test_nodes_of_models_belong_to_the_registry(fleet: Api) -> None:
    refusal = await refused(nodes(fleet, "dataset:fine", "model:made_up"))
    assert refusal.violations == {"nodes[1].node_id": "KIND"}
    assert (await refused(nodes(fleet))).violations.keys() == {"nodes"}
    assert set((await refused(nodes(fleet, "table:x", "dataset:"))).violations) == {
        "nodes[0].node_id",
        "nodes[1].node_id",
    }


async def test_the_whole_graph_can_be_read_by_kind(fleet: Api) -> None:
    whole = await fleet.graph.GetGraph(graph_pb2.GetGraphRequest())
    assert {node.node_id for node in whole.nodes} == {
        "dataset:weather",
        "feature:wind",
        "model:delay",
        "model:arrival",
        "consumer:desk",
    }
    assert len(whole.dependencies) == 5
    data = await fleet.graph.GetGraph(graph_pb2.GetGraphRequest(kinds=[graph_pb2.NODE_KIND_MODEL]))
    assert {node.node_id for node in data.nodes} == {"model:delay", "model:arrival"}


@pytest.mark.parametrize(
    ("node_id", "reason"), [("model:nope", "NODE_NOT_FOUND"), ("x:y", "INVALID_ID"), ("A", "INVALID_ID")]
)
async def test_unknown_nodes(api: Api, node_id: str, reason: str) -> None:
    assert (await refused(api.graph.GetImpact(graph_pb2.GetImpactRequest(node_id=node_id)))).reason == reason
    assert (await refused(api.graph.GetUpstream(graph_pb2.GetUpstreamRequest(node_id=node_id)))).reason == reason


async def test_a_repeated_declaration_gets_its_first_answer(fleet: Api) -> None:
    request = edges(("dataset:weather", "model:arrival"))
    request.mutation.request_id = "g1"
    first = await fleet.graph.DeclareDependencies(request)
    assert first.changed == 1
    assert await fleet.graph.DeclareDependencies(request) == first
    request.dependencies[0].upstream_id = "feature:wind"
    assert (await refused(fleet.graph.DeclareDependencies(request))).reason == "REQUEST_ID_REUSED"


async def test_an_answer_is_summed_up_whatever_is_chosen_from_it(fleet: Api) -> None:
    wanted = graph_pb2.ImpactFilter(kinds=[graph_pb2.NODE_KIND_MODEL], tiers=[common_pb2.TIER_1], teams=["flights"])
    reply = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id="dataset:weather", filter=wanted))
    assert [(row.node_id, row.wave, row.distance) for row in reply.reached] == [("model:arrival", 1, 3)]
    assert reply.completeness.complete
    assert dict(reply.summary.by_kind) == {"feature": 1, "model": 2, "consumer": 1}
    assert reply.summary.tier_1_models == ["model:arrival"]
    assert reply.summary.models_by_tier[1] == 1
    assert reply.summary.consumers == ["consumer:desk"]
    assert set(reply.summary.teams) == {"data", "flights"}
    assert reply.summary.retrain_cost_unknown == 2
    nobody = graph_pb2.ImpactFilter(teams=["nobody"])
    empty = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id="dataset:weather", filter=nobody))
    assert not empty.reached
    assert empty.summary == reply.summary


async def test_walking_along_some_types_only(fleet: Api) -> None:
    along = graph_pb2.ImpactFilter(
        types=[graph_pb2.DEPENDENCY_TYPE_DERIVED_FROM, graph_pb2.DEPENDENCY_TYPE_READS_FEATURE]
    )
    reply = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id="dataset:weather", filter=along))
    assert [row.node_id for row in reply.reached] == ["feature:wind", "model:delay"]
    back = await fleet.graph.GetUpstream(graph_pb2.GetUpstreamRequest(node_id="consumer:desk", filter=along))
    assert not back.reached


async def test_every_path_up_to_a_limit_that_is_told(fleet: Api) -> None:
    every = graph_pb2.ImpactFilter(paths=graph_pb2.PATHS_ALL)
    request = graph_pb2.GetImpactRequest(node_id="dataset:weather", filter=every)
    desk = (await fleet.graph.GetImpact(request)).reached[-1]
    assert desk.path_count == 2
    assert [len(path.node_ids) for path in desk.all_paths] == [4, 5]
    request.filter.paths_max = 4
    cut = await fleet.graph.GetImpact(request)
    assert sum(len(row.all_paths) for row in cut.reached) == 4
    assert not cut.completeness.complete
    assert cut.completeness.reasons == ["1 of 5 paths left out: the limit is 4"]
    paths = graph_pb2.ListPathsRequest(from_node_id="dataset:weather", to_node_id="consumer:desk")
    found = await fleet.graph.ListPaths(paths)
    assert [list(path.node_ids)[-2] for path in found.paths] == ["model:delay", "model:arrival"]
    assert (found.total, found.complete) == ("2", True)
    paths.paths_max = 1
    one = await fleet.graph.ListPaths(paths)
    assert (len(one.paths), one.total, one.complete) == (1, "2", False)
    assert one.incomplete_reason == "1 of 2 paths left out: the limit is 1"


async def test_common_causes(fleet: Api) -> None:
    request = graph_pb2.GetCommonCausesRequest(node_ids=["arrival", "delay"])
    causes = (await fleet.graph.GetCommonCauses(request)).causes
    assert [(c.node_id, c.distance, c.nearest, c.root) for c in causes] == [
        ("model:delay", 1, True, False),
        ("feature:wind", 2, False, False),
        ("dataset:weather", 3, False, True),
    ]
    assert causes[1].team == "data"
    refusal = await refused(
        fleet.graph.GetCommonCauses(graph_pb2.GetCommonCausesRequest(node_ids=["delay", "nope", "model:gone"]))
    )
    assert refusal.reason == "NODE_NOT_FOUND"
    assert "model:gone, model:nope" in refusal.message
    bad = graph_pb2.GetCommonCausesRequest(node_ids=["delay", "dataset:wätter"])
    assert set((await refused(fleet.graph.GetCommonCauses(bad))).violations) == {"node_ids[1]"}


async def test_a_preview_changes_nothing(fleet: Api) -> None:
    before = await fleet.revision()
    request = graph_pb2.PreviewChangeRequest(
        retire_node_ids=["feature:wind"],
        add=[
            graph_pb2.Dependency(upstream_id="dataset:weather", downstream_id="model:arrival"),
            graph_pb2.Dependency(upstream_id="model:arrival", downstream_id="model:delay"),
        ],
        filter=SHORTEST,
    )
    reply = await fleet.graph.PreviewChange(request)
    assert [(row.node_id, row.distance, list(row.path)) for row in reply.affected] == [
        ("feature:wind", 0, []),
        ("model:delay", 1, ["feature:wind", "model:delay"]),
        ("model:arrival", 1, ["dataset:weather", "model:arrival"]),
        ("consumer:desk", 2, ["dataset:weather", "model:arrival", "consumer:desk"]),
    ]
    assert list(reply.orphaned) == list(reply.directly_hit) == ["model:delay"]
    assert len(reply.refusals) == 1
    assert "closes the cycle model:arrival -> model:delay -> model:arrival" in reply.refusals[0]
    assert dict(reply.summary.by_kind) == {"feature": 1, "model": 2, "consumer": 1}
    assert (reply.revision, await fleet.revision()) == (before, before)
    unknown = await refused(
        fleet.graph.PreviewChange(graph_pb2.PreviewChangeRequest(retire_node_ids=["feature:wnd", "feature:wind"]))
    )
    assert unknown.reason == "NODE_NOT_FOUND"
    assert unknown.metadata["node_id"] == "feature:wnd"


async def test_answers_of_the_past(fleet: Api) -> None:
    before = await fleet.revision()
    retraction = graph_pb2.RetractDependenciesRequest(dependencies=edges(("feature:wind", "model:delay")).dependencies)
    await fleet.graph.RetractDependencies(retraction)
    request = graph_pb2.GetImpactRequest(node_id="feature:wind")
    assert not (await fleet.graph.GetImpact(request)).reached
    request.read.as_of_revision = before
    then = await fleet.graph.GetImpact(request)
    assert [row.node_id for row in then.reached] == ["model:delay", "model:arrival", "consumer:desk"]
    assert then.revision == before


async def test_nodes_are_removed_and_renamed(fleet: Api) -> None:
    await nodes(fleet, "dataset:old")
    refusal = await refused(
        fleet.graph.RemoveNodes(graph_pb2.RemoveNodesRequest(node_ids=["dataset:old", "feature:wind"]))
    )
    assert "feature:wind" in refusal.message
    gone = await fleet.graph.RemoveNodes(graph_pb2.RemoveNodesRequest(node_ids=["dataset:old"]))
    assert gone.changed == 1
    rename = graph_pb2.RenameNodeRequest(
        mutation=by(validate_only=True), node_id="feature:wind", new_node_id="feature:wind_speed"
    )
    dry = await fleet.graph.RenameNode(rename)
    assert (dry.node.node_id, dry.node.team, dry.dependencies) == ("feature:wind_speed", "data", 2)
    rename.mutation.validate_only = False
    done = await fleet.graph.RenameNode(rename)
    assert done.node == dry.node
    reply = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id="dataset:weather"))
    assert [row.node_id for row in reply.reached][:2] == ["feature:wind_speed", "model:delay"]
    by_old_id = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id="feature:wind"))
    by_new_id = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id="feature:wind_speed"))
    assert by_old_id == by_new_id


@pytest.mark.parametrize(
    "text", ["dataset:wetter\u0301", "dataset:\u0430ir", "feature:\u202ex", "dataset:" + "ä" * 100]
)
async def test_ids_that_only_look_right_are_named_and_refused(api: Api, text: str) -> None:
    """Combining marks, letters of another alphabet, text that turns round."""
    refusal = await refused(nodes(api, "dataset:fine", text))
    assert set(refusal.violations) == {"nodes[1].node_id"}
    assert (await refused(api.graph.GetImpact(graph_pb2.GetImpactRequest(node_id=text)))).code is (
        grpc.StatusCode.INVALID_ARGUMENT
    )
