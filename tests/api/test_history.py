"""Any read as of a past revision or time, through gRPC."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from runway.v1 import common_pb2, graph_pb2, ground_truth_pb2, registry_pb2, staleness_pb2

from tests.api.worlds import START, Api, by, instant, refused

DAY = timedelta(days=1)


def at(revision: int) -> common_pb2.ReadOptions:
    """As of a revision."""
    return common_pb2.ReadOptions(as_of_revision=revision)


def on(day: float) -> common_pb2.ReadOptions:
    """As of a day after the beginning."""
    return common_pb2.ReadOptions(as_of_time=instant(START + day * DAY))


async def in_production(api: Api, read: common_pb2.ReadOptions) -> dict[str, int]:
    """Versions in production over the whole fleet."""
    moves = (await api.registry.ListAliases(registry_pb2.ListAliasesRequest(alias="production", read=read))).moves
    return {move.model_id: move.to_version for move in moves}


async def reached(api: Api, node_id: str, read: common_pb2.ReadOptions) -> list[str]:
    """What a node reaches."""
    found = await api.graph.GetImpact(graph_pb2.GetImpactRequest(node_id=node_id, read=read))
    return [row.node_id for row in found.reached]


async def test_what_was_in_production_then_for_one_model_and_for_all(api: Api) -> None:
    await api.serving("delay")
    api.clock.at += DAY
    await api.serving("taxi")
    api.clock.at += DAY
    await api.promote("delay", await api.version("delay"))
    api.clock.at += DAY
    assert await in_production(api, on(0.5)) == {"delay": 1}
    assert await in_production(api, on(1.5)) == {"delay": 1, "taxi": 1}
    assert await in_production(api, on(2)) == {"delay": 2, "taxi": 1}
    assert await in_production(api, common_pb2.ReadOptions()) == {"delay": 2, "taxi": 1}
    for day, version in ((1.9, 1), (2.0, 2)):
        request = registry_pb2.GetVersionRequest(model_id="delay", alias="production", read=on(day))
        assert (await api.registry.GetVersion(request)).version.version == version


async def test_models_are_listed_as_they_were(api: Api) -> None:
    await api.model("delay", description="first words")
    then = await api.revision()
    await api.model("taxi")
    await api.registry.UpdateModel(
        registry_pb2.UpdateModelRequest(
            mutation=by(),
            model=registry_pb2.Model(model_id="delay", description="other words"),
            update_mask=FieldMask(paths=["description"]),
        )
    )
    past = await api.registry.ListModels(registry_pb2.ListModelsRequest(read=at(then)))
    assert [(model.model_id, model.description) for model in past.models] == [("delay", "first words")]
    assert past.revision == then
    now = await api.registry.ListModels(registry_pb2.ListModelsRequest())
    assert [(model.model_id, model.description) for model in now.models] == [
        ("delay", "other words"),
        ("taxi", ""),
    ]


async def test_impact_before_an_edge_was_declared_does_not_know_it(api: Api) -> None:
    await api.model("delay")
    await api.model("taxi")
    before = await api.revision()
    await api.edge("model:delay", "model:taxi")
    declared = await api.revision()
    await api.model("gate")
    await api.edge("model:taxi", "model:gate")
    assert await reached(api, "model:delay", at(before)) == []
    assert await reached(api, "model:delay", at(declared)) == ["model:taxi"]
    assert await reached(api, "model:delay", common_pb2.ReadOptions()) == ["model:taxi", "model:gate"]
    request = graph_pb2.DiffGraphRequest(to=at(declared))
    getattr(request, "from").CopyFrom(at(before))
    found = await api.graph.DiffGraph(request)
    assert [(edge.upstream_id, edge.downstream_id) for edge in found.dependencies_added] == [
        ("model:delay", "model:taxi")
    ]
    assert not found.nodes_added
    assert (found.from_revision, found.to_revision) == (before, declared)


async def test_every_read_is_the_same_as_it_was_when_it_was_now(api: Api) -> None:
    """The twin is the control plane itself, a while ago."""
    seen = []
    for number in range(4):
        await api.serving(f"m_{number}")
        if number:
            await api.edge(f"model:m_{number - 1}", f"model:m_{number}")
        seen.append(
            (
                await api.registry.ListModels(registry_pb2.ListModelsRequest()),
                await api.graph.GetGraph(graph_pb2.GetGraphRequest()),
            )
        )
        if number == 1:
            await api.plane.node.snapshot()
    for models, graph in seen:
        read = at(models.revision)
        assert await api.registry.ListModels(registry_pb2.ListModelsRequest(read=read)) == models
        assert await api.graph.GetGraph(graph_pb2.GetGraphRequest(read=read)) == graph


@pytest.mark.parametrize("revision", [0, 10_000])
async def test_a_revision_that_never_was_is_told(api: Api, revision: int) -> None:
    await api.model("delay")
    found = await refused(api.graph.GetGraph(graph_pb2.GetGraphRequest(read=at(revision))))
    if revision:
        # Not UNAVAILABLE: a client would try for seconds what only another question can answer.
        assert found.violations == {"read.as_of_revision": "PAST"}
        assert found.metadata["revision"] == str(await api.revision())
    else:
        assert found.violations == {"read.as_of_revision": "RANGE"}


async def test_a_time_of_the_future_or_before_everything_is_told(api: Api) -> None:
    await api.model("delay")
    for day, rule in ((1.0, "PAST"), (-1.0, "RANGE")):
        found = await refused(api.graph.GetGraph(graph_pb2.GetGraphRequest(read=on(day))))
        assert (found.code, found.violations) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            {"read.as_of_time": rule},
        )


async def test_predictions_of_the_past_are_refused_and_verdicts_are_the_states_own(api: Api) -> None:
    await api.serving("delay")
    then = await api.revision()
    await api.model("taxi")
    request = ground_truth_pb2.GetCoverageRequest(model_id="delay", read=at(then))
    found = await refused(api.ground_truth.GetCoverage(request))
    assert found.violations == {"read.as_of_revision": "NOT_KEPT"}
    await api.staleness.EvaluateModel(staleness_pb2.EvaluateModelRequest(mutation=by(), model_id="delay"))
    past = await api.staleness.GetStaleness(staleness_pb2.GetStalenessRequest(model_id="delay", read=at(then)))
    assert past.revision == then
    assert not past.staleness.HasField("evaluation")
