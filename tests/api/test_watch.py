"""Watch through gRPC: snapshot, events, progress, filters, and those who are too slow."""

import asyncio
from itertools import cycle, islice
from typing import Any

import grpc
import pytest
from runway.v1 import operations_pb2, registry_pb2

from control_plane.api import snapshots, watching
from control_plane.app import limits
from control_plane.core.subjects import subject_of
from tests.api.watchers import Reader, what
from tests.api.worlds import START, Api, Host, a_model, by, instant, refused
from tests.reference.watch_twin import filtered


async def test_a_watcher_gets_items_then_their_end_then_events(api: Api) -> None:
    await api.serving("a")
    await api.serving("b")
    reader = Reader.of(api, include_snapshot=True)
    first, second, end = await reader.take(3)
    assert [what(item) for item in (first, second, end)] == ["item a", "item b", "end"]
    assert first.model.aliases["production"] == 1
    assert end.revision == await api.revision()
    await api.model("c")
    [event] = await reader.take(1)
    assert what(event) == "ModelRegistered c"
    assert event.revision == end.revision + 1
    assert event.sentence == "c joined the fleet (tier 2, team flights)"
    assert event.team == "flights"
    reader.close()


async def test_a_watcher_resumes_from_its_revision_without_gap_or_repeat(api: Api) -> None:
    for name in ("a", "b"):
        await api.model(name)
    first = Reader.of(api)
    [seen, _] = await first.take(2)
    first.close()
    second = Reader.of(api, seen.revision)
    await api.model("c")
    found = [seen, *await second.take(2)]
    assert [what(item) for item in found] == [f"ModelRegistered {name}" for name in "abc"]
    assert [item.revision for item in found] == [1, 2, 3]
    second.close()


async def test_a_watcher_is_heard_at_once_and_told_of_silence(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.model("a")
    monkeypatch.setattr(limits, "WATCH_PROGRESS_S", 0.01)
    reader = Reader.of(api, 1)
    for _ in range(3):
        response = await reader.more()
        assert (response.progress.revision, response.progress.now) == (1, instant(START))
        assert not response.events
    reader.close()


async def test_a_watcher_chooses_models_teams_and_kinds(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WATCH_PROGRESS_S", 0.05)
    everything, some = Reader.of(api), Reader.of(api, models=["b"], kinds=["VersionRegistered", "AliasMoved"])
    team, either = Reader.of(api, teams=["ops"]), Reader.of(api, teams=["ops"], models=["a"], kinds=["ModelRegistered"])
    await api.serving("a")
    await api.serving("b", team="ops")
    await api.edge("model:a", "model:b")
    last = await api.revision()
    log = await everything.up_to(last)
    chosen = ("VersionRegistered", "AliasMoved")
    assert await some.up_to(last) == [item for item in log if item.kind in chosen and item.model_id == "b"]
    # An edge is about the models at its ends.
    assert await team.up_to(last) == [item for item in log if item.model_id == "b" or not item.model_id]
    assert [what(item) for item in await either.up_to(last)] == ["ModelRegistered a", "ModelRegistered b"]
    for reader in (everything, some, team, either):
        reader.close()


async def test_an_event_is_of_the_team_its_model_had_then(api: Api) -> None:
    before = await api.model("a", team="ops")
    request = registry_pb2.UpdateModelRequest(mutation=by(), model=a_model("a", team="net", description="moved"))
    request.model.etag = before.etag
    request.update_mask.paths.append("team")
    moved = (await api.registry.UpdateModel(request)).revision
    await api.version("a")
    last = await api.revision()
    ops, net = Reader.of(api, teams=["ops"]), Reader.of(api, teams=["net"])
    assert {(item.revision, item.team) for item in await ops.up_to(last)} == {(1, "ops")}
    told = await net.up_to(last)
    assert [item.revision for item in told] == list(range(moved, last + 1))
    assert {item.team for item in told if item.model_id} == {"net"}
    ops.close()
    net.close()


async def test_a_snapshot_has_the_models_and_teams_asked_for(api: Api) -> None:
    for name, team in (("a", "ops"), ("b", "net"), ("c", "web"), ("d", "net")):
        await api.model(name, team=team)
    reader = Reader.of(api, include_snapshot=True, models=["a"], teams=["net"])
    assert [what(item) for item in await reader.take(4)] == ["item a", "item b", "item d", "end"]
    reader.close()


async def test_a_snapshot_is_of_one_revision_whatever_happens_meanwhile(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "ITEMS_AT_ONCE", 1)
    monkeypatch.setattr(snapshots, "MESSAGE_BYTES", 1)
    names = [f"m{number:02d}" for number in range(20)]
    for name in names:
        await api.serving(name)
    reader, joined = (Reader.of(api, include_snapshot=True) for _ in range(2))
    await reader.more()
    await joined.more()
    before = await api.revision()
    for name in names:
        await api.version(name)
    await api.model("later")
    for each in (reader, joined):
        *items, end = await each.take(21)
        assert [item.model.model_id for item in items] == names
        assert {item.model.latest_version for item in items} == {1}
        assert end.revision == before
        assert each.responses >= 20
        # What happened meanwhile comes after the end.
        assert len(await each.take(21)) == 21
        each.close()


async def test_large_events_are_sent_apart_and_enormous_ones_without_payload(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MESSAGE_BYTES", 4_000)
    monkeypatch.setattr("control_plane.api.convert.operations.PAYLOAD_BYTES_MAX", 3_500)
    for number in range(6):
        await api.model(f"m{number}", description="x" * (3_900 if number == 3 else 1_500))
    reader = Reader.of(api)
    found = await reader.up_to(6)
    assert [item.revision for item in found] == [1, 2, 3, 4, 5, 6]
    assert [bool(item.payload_json) for item in found] == [True, True, True, False, True, True]
    assert reader.responses > 2
    reader.close()


async def test_a_watcher_that_comes_too_late_is_told_where_to_begin(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        await api.model(f"m{number}")
    monkeypatch.setattr(limits, "WATCH_BACKLOG_EVENTS_MAX", 2)
    refusal = await refused(Reader.of(api, 1).more())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "WATCH_TOO_OLD")
    assert refusal.metadata == {"since": "1", "oldest_revision": "4"}
    # The audit log is whole all the same.
    listed = await api.operations.ListEvents(operations_pb2.ListEventsRequest())
    assert [event.revision for event in listed.events] == [1, 2, 3, 4, 5, 6]
    future = await refused(Reader.of(api, 99).more())
    assert (future.code, future.reason) == (grpc.StatusCode.UNAVAILABLE, "REVISION_NOT_REACHED")
    assert future.metadata["revision"] == "6"


async def test_too_many_watchers_are_turned_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WATCHERS_MAX", 1)
    reader = Reader.of(api)
    await reader.more()
    refusal = await refused(Reader.of(api).more())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    status = await api.operations.GetStatus(operations_pb2.GetStatusRequest())
    assert status.watchers == 1
    reader.close()


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (operations_pb2.WatchRequest(after_revision=-1), {"after_revision"}),
        (operations_pb2.WatchRequest(kinds=["x"] * 101), {"kinds"}),
        (
            operations_pb2.WatchRequest(model_ids=["ok", "Not A Slug"], teams=["No"], kinds=["LimitsSet", "Limits"]),
            {"model_ids[1]", "teams[0]", "kinds[1]"},
        ),
    ],
)
async def test_a_watch_that_cannot_be(api: Api, request_: operations_pb2.WatchRequest, fields: set[str]) -> None:
    assert set((await refused(Reader(api.operations.Watch(request_)).more())).violations) == fields


async def test_an_unknown_kind_is_answered_with_the_known_ones(api: Api) -> None:
    refusal = await refused(Reader.of(api, kinds=["ModelRegistred"]).more())
    known = refusal.metadata["known_kinds"].split(",")
    assert {"ModelRegistered", "VerdictChanged", "DependenciesDeclared"} <= set(known)


# Many watchers

WATCHERS = 500
STUCK = 1
PAYLOAD_CHARS = 3_000
"""Large enough that what a stuck reader was sent fills its connection's window, after which nothing more is taken."""


@pytest.mark.slow
async def test_500_watchers_get_everything_and_a_stuck_one_is_told_to_resume(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RING_EVENTS_MAX", 400)
    monkeypatch.setattr(limits, "WATCH_PROGRESS_EVENTS", 200)
    monkeypatch.setattr(limits, "WATCH_PROGRESS_S", 0.5)
    async with host.life() as api:
        for number in range(20):
            await api.model(f"m{number:02d}", team=f"team_{number % 4}")
        begin = await api.revision()
        filters: list[dict[str, list[str]]] = [
            {},
            {"models": ["m03"]},
            {"teams": ["team_1"]},
            {"kinds": ["VersionRegistered"]},
            {"kinds": ["ModelUpdated"], "teams": ["team_2"], "models": ["m00"]},
            {"models": [f"m{number:02d}" for number in range(10)]},
        ]
        readers = [Reader.filtered(api, begin, chosen) for chosen in islice(cycle(filters), WATCHERS)]
        await asyncio.gather(*(reader.more() for reader in readers))
        # A connection of its own: flow control has a window for each stream and one for all of a connection.
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{api.plane.server.port}", options=[("grpc.http2.bdp_probe", 0)]
        ) as alone:
            lonely = Api(plane=api.plane, clock=api.clock, channel=alone)
            stuck = Reader.of(lonely, begin)
            await stuck.more()
            for number in range(1_500):
                await _change(api, number)
            last = await api.revision()
            told = await asyncio.gather(*(reader.up_to(last) for reader in readers))
            missed = await _until_refused(stuck)
            resumed = Reader.of(lonely, stuck.revision)
            found = [item.revision for item in (*missed, *await resumed.up_to(last))]
            resumed.close()
        assert found == list(range(begin + 1, last + 1))
        log = await api.plane.node.events(0, last)
        subjects = [subject_of(api.plane.node.state, envelope) for envelope in log]
        for chosen, items in zip(cycle(filters), told, strict=False):
            wanted = filtered(
                subjects, set(chosen.get("kinds", ())), set(chosen.get("models", ())), set(chosen.get("teams", ()))
            )
            assert [item.revision for item in items] == [revision for revision in wanted if revision > begin]
        for reader in readers:
            reader.close()


async def _change(api: Api, number: int) -> None:
    model_id = f"m{number % 20:02d}"
    if number % 10 == 0:
        await api.version(model_id)
        return
    request = registry_pb2.UpdateModelRequest(mutation=by(), model=registry_pb2.Model(model_id=model_id))
    request.model.description = f"{number} " + "x" * PAYLOAD_CHARS
    request.update_mask.paths.append("description")
    await api.registry.UpdateModel(request)


async def _until_refused(reader: Reader) -> list[Any]:
    """What a reader that was stuck still has, and then is told."""
    try:
        while True:
            await reader.more()
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    return list(reader.items)
