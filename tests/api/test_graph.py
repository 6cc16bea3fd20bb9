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
    shallow = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id="dataset:weather", filter=graph_pb2.ImpactFilter(depth_max=1)))
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
