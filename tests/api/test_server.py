"""The server itself: health, reflection, message limits, deadlines, drain, faults of the store."""

import asyncio
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from runway.v1 import common_pb2, graph_pb2, ground_truth_pb2, operations_pb2, registry_pb2

from control_plane.adapters.memory.server import Mood
from control_plane.api.server import _names
from tests.api.worlds import MESSAGE_BYTES_MAX, Api, Host, a_model, by, refusal_in, refused

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def healthy(api: Api, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(api.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def test_every_service_is_healthy_while_it_serves(api: Api) -> None:
    for service in ("", *_names()):
        assert await healthy(api, service) == SERVING


async def reflected(api: Api) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(api.channel)

    async def ask() -> object:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async for reply in stub.ServerReflectionInfo(ask()):
        return [service.name for service in reply.list_services_response.service]
    return []


async def test_reflection_shows_all_services_and_can_be_switched_off(host: Host) -> None:
    async with host.life() as api:
        assert set(await reflected(api)) >= {*_names(), "grpc.health.v1.Health"}
    async with host.life(reflection=False) as api:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflected(api)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await healthy(api) == SERVING


async def test_a_message_that_is_too_large_is_refused_before_it_is_read_and_the_server_lives(api: Api) -> None:
    huge = ground_truth_pb2.IngestPredictionsRequest(
        batch_id="b", model_id="m", version=1, arrow_ipc=bytes(300 * 1024 * 1024)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in api.ground_truth.IngestPredictions(iter([huge])):
            pass
    # gRPC itself answers, before any of our code: there is no place for an ErrorInfo (see docs/errors.md).
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MESSAGE_BYTES_MAX) in (caught.value.details() or "")
    await api.model("alive")


async def test_a_deadline_ends_a_call_that_waits(api: Api) -> None:
    ahead = registry_pb2.ListModelsRequest()
    ahead.read.min_revision = 100
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.registry.ListModels(ahead, timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await api.model("alive")


async def test_an_unknown_method_and_a_message_that_is_none(api: Api) -> None:
    unknown = api.channel.unary_unary("/runway.v1.RegistryService/Nothing", bytes, bytes)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unknown(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    garbled = api.channel.unary_unary("/runway.v1.RegistryService/GetModel", bytes, bytes)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await garbled(b"\xff\xff\xff\xff")
    assert caught.value.code() is not grpc.StatusCode.OK
    await api.model("alive")


async def test_the_callers_request_id_comes_back_with_an_error(api: Api) -> None:
    call = api.registry.GetModel(registry_pb2.GetModelRequest(model_id="nope"), metadata=(("x-request-id", "mine-1"),))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert "mine-1" in str(caught.value.trailing_metadata())


async def test_text_in_any_language_gets_through_errors(api: Api) -> None:
    await api.model("delay", owner="имя@пример.рф")
    refusal = await refused(api.model("delay"))
    assert "имя@пример.рф" in refusal.message
    for owner in ("人" * 200, "😀" * 200):
        assert (await refused(api.model("other", owner=owner))).violations == {"model.owner": "OWNER"}


async def test_what_is_not_ascii_is_not_cut_where_it_fits(api: Api) -> None:
    refusal = await refused(api.model("delay", tags={"clé du modèle": "x"}))
    assert refusal.message == ("model.tags: the key 'clé du modèle' must have 1 to 100 characters, no space and no `=`")


async def test_a_refusal_says_what_is_wrong_and_what_to_write_instead(api: Api) -> None:
    broken = registry_pb2.Model(
        model_id="d\u0435lay",
        team="",
        tier=common_pb2.TIER_UNSPECIFIED,
        task_type=77,  # type: ignore[arg-type]
        owner="x" * 300,
        links=[registry_pb2.Link(kind=registry_pb2.LINK_KIND_RUN)],
        tainted_windows=[registry_pb2.TaintedWindow(reason="dust")],
        retrain_gpu_hours=-1,
    )
    refusal = await refused(api.registry.RegisterModel(registry_pb2.RegisterModelRequest(model=broken)))
    tiers = "TIER_1, TIER_2, TIER_3, TIER_4"
    for sentence in (
        "model.model_id: 'd\\u0435lay' is not an id, its 2nd character is CYRILLIC SMALL LETTER IE, which only looks "
        "like 'e': use a lower-case letter, then up to 99 of a-z 0-9 _",
        "model.team: '' is not an id, it is empty: use a lower-case letter",
        f"model.tier: it is missing: write one of {tiers}",
        "model.task_type: 77 cannot be meant: write one of TASK_TYPE_BINARY, ",
        "model.owner: it has 300 characters: use at most 200",
        "model.links[0].url: it is empty: write something",
        "model.tainted_windows[0].from: it is missing: it must be said",
    ):
        assert sentence in refusal.message
    either = await refused(api.registry.GetVersion(registry_pb2.GetVersionRequest(model_id="delay")))
    assert either.message == "which: say exactly one of version, alias"
    edge = graph_pb2.Dependency(upstream_id="temp", downstream_id="model:delay", pinned="V 3")
    refusal = await refused(api.graph.DeclareDependencies(graph_pb2.DeclareDependenciesRequest(dependencies=[edge])))
    assert "'temp' is not a node id: write kind:name" in refusal.message
    assert "'V 3' is neither a version nor an alias: write v3 or production" in refusal.message


async def test_a_fault_of_ours_is_internal_and_says_where_to_look(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("control_plane.api.registry.query_from", broken)
    call = api.registry.ListModels(registry_pb2.ListModelsRequest(), metadata=(("x-request-id", "mine-2"),))
    refusal = await refused(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "mine-2" in refusal.message
    assert "ZeroDivision" not in refusal.message


# Stopping


async def test_a_drain_says_not_serving_tells_watchers_and_finishes_calls_under_way(host: Host) -> None:
    async with host.life() as api:
        await api.model("a")
        watching = api.operations.Watch(operations_pb2.WatchRequest())
        assert (await anext(aiter(watching))).progress.revision == 0
        health = health_pb2_grpc.HealthStub(api.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await anext(aiter(health))).status == SERVING
        host.database.mood = Mood.SLOW
        host.database.delay_s = 0.2
        under_way = asyncio.ensure_future(
            api.registry.RegisterModel(registry_pb2.RegisterModelRequest(model=a_model("b")))
        )
        while not len(api.plane.node._callers._batch[1]):
            await asyncio.sleep(0)
        stopping = asyncio.create_task(api.plane.server.stop())
        assert (await anext(aiter(health))).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [response async for response in watching]
        told = refusal_in(caught.value)
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert (await under_way).model.model_id == "b"
        health.cancel()
        await stopping
        host.database.mood = Mood.NORMAL
    async with host.life() as api:
        assert (await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="b"))).revision == 2


async def test_two_servers_do_not_share_a_port(host: Host, tmp_path: Path) -> None:
    async with host.life() as api:
        second = Host(home=tmp_path / "second")
        with pytest.raises(OSError, match="another program holds the port"):
            await second.born(address=f"127.0.0.1:{api.plane.server.port}")


# The store


async def test_a_store_that_is_away_for_a_moment_is_not_noticed(host: Host) -> None:
    async with host.life() as api:
        await api.model("a")
        host.database.mood = Mood.BROKEN
        host.database.depose()
        waiting = asyncio.ensure_future(api.model("b"))
        await asyncio.sleep(0)
        host.database.mood = Mood.NORMAL
        found = await asyncio.gather(waiting, return_exceptions=True)
        for error in found:
            if isinstance(error, grpc.aio.AioRpcError):
                # It was certainly not stored: the caller may send it again.
                assert refusal_in(error).reason in {"STORE_UNAVAILABLE", "NOT_LEADER"}


@pytest.mark.parametrize("mood", [Mood.UNKNOWN_KEPT, Mood.UNKNOWN_LOST])
async def test_a_lost_answer_of_the_store_is_settled_before_the_caller_hears(host: Host, mood: Mood) -> None:
    async with host.life() as api:
        await api.model("a")
        host.database.next_appends.append(mood)
        request = registry_pb2.RegisterModelRequest(mutation=by(request_id="b1"), model=a_model("b"))
        if mood is Mood.UNKNOWN_KEPT:
            assert (await api.registry.RegisterModel(request)).revision == 2
        else:
            refusal = await refused(api.registry.RegisterModel(request))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert (await api.registry.RegisterModel(request)).revision == 2
        assert len(host.database.records) == 2


def test_our_codes_are_those_of_grpc() -> None:
    assert {code.name for code in grpc.StatusCode} == set(code_pb2.Code.keys())
