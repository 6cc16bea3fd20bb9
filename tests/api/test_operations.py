"""OperationsService: watch, audit log, clock, limits, holds, snapshots, status."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from runway.v1 import operations_pb2, registry_pb2

from control_plane.app import limits
from tests.api.worlds import START, Api, Host, a_model, by, instant, refused

Watching = grpc.aio.UnaryStreamCall[operations_pb2.WatchRequest, operations_pb2.WatchResponse]


async def take(watching: Watching, count: int) -> list[operations_pb2.WatchResponse]:
    """The next so many items."""
    return [await anext(aiter(watching)) for _ in range(count)]


def what(item: operations_pb2.WatchResponse) -> str:
    """Which kind of item, and of what."""
    kind = item.WhichOneof("item")
    if kind == "event":
        return f"{item.event.kind} {item.event.model_id}".strip()
    if kind == "snapshot_item":
        return f"item {item.snapshot_item.model.model_id}"
    return str(kind)


async def events(api: Api, **asked: int | str) -> list[operations_pb2.Event]:
    reply = await api.operations.ListEvents(operations_pb2.ListEventsRequest(**asked))  # type: ignore[arg-type]
    return list(reply.events)


async def test_a_watcher_gets_items_then_their_end_then_events(api: Api) -> None:
    await api.serving("a")
    await api.serving("b")
    watching = api.operations.Watch(operations_pb2.WatchRequest(include_snapshot=True))
    items = await take(watching, 3)
    assert [what(item) for item in items] == ["item a", "item b", "snapshot_end"]
    assert items[0].snapshot_item.model.aliases["production"] == 1
    assert items[2].snapshot_end.revision == await api.revision()
    await api.model("c")
    [event] = await take(watching, 1)
    assert what(event) == "ModelRegistered c"
    assert event.event.revision == items[2].snapshot_end.revision + 1
    assert event.event.sentence == "c joined the fleet (tier 2, team flights)"
    watching.cancel()


async def test_a_watcher_resumes_from_its_revision_without_gap_or_repeat(api: Api) -> None:
    for name in ("a", "b"):
        await api.model(name)
    first = api.operations.Watch(operations_pb2.WatchRequest())
    seen = await take(first, 1)
    first.cancel()
    second = api.operations.Watch(operations_pb2.WatchRequest(after_revision=seen[-1].event.revision))
    await api.model("c")
    seen += await take(second, 2)
    second.cancel()
    assert [what(item) for item in seen] == [f"ModelRegistered {name}" for name in "abc"]
    assert [item.event.revision for item in seen] == [1, 2, 3]


async def test_a_watcher_hears_of_progress_when_nothing_happens(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.model("a")
    changes = api.plane.node._changes
    follow = changes.follow
    monkeypatch.setattr(changes, "follow", lambda since, _progress_s: follow(since, 0.01))
    watching = api.operations.Watch(operations_pb2.WatchRequest(after_revision=1))
    [item] = await take(watching, 1)
    assert (item.progress.revision, item.progress.now) == (1, instant(START))
    watching.cancel()


async def test_a_watcher_chooses_models_and_kinds(api: Api) -> None:
    request = operations_pb2.WatchRequest(model_ids=["b"], kinds=["VersionRegistered", "AliasMoved"])
    watching = api.operations.Watch(request)
    for name in ("a", "b"):
        await api.serving(name)
    assert [what(item) for item in await take(watching, 2)] == ["VersionRegistered b", "AliasMoved b"]
    watching.cancel()


async def test_a_watcher_that_comes_too_late_is_told_where_to_begin(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        await api.model(f"m{number}")
    monkeypatch.setattr(limits, "WATCH_BACKLOG_EVENTS_MAX", 2)
    refusal = await refused(take(api.operations.Watch(operations_pb2.WatchRequest(after_revision=1)), 1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "WATCH_TOO_OLD")
    assert refusal.metadata == {"since": "1", "oldest_revision": "4"}
    # The audit log is whole all the same.
    assert [event.revision for event in await events(api)] == [1, 2, 3, 4, 5, 6]
    future = await refused(take(api.operations.Watch(operations_pb2.WatchRequest(after_revision=99)), 1))
    assert (future.code, future.reason) == (grpc.StatusCode.UNAVAILABLE, "REVISION_NOT_REACHED")


async def test_too_many_watchers_are_turned_away(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WATCHERS_MAX", 1)
    await api.model("a")
    watching = api.operations.Watch(operations_pb2.WatchRequest())
    await take(watching, 1)
    refusal = await refused(take(api.operations.Watch(operations_pb2.WatchRequest()), 1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    status = await api.operations.GetStatus(operations_pb2.GetStatusRequest())
    assert status.watchers == 1
    watching.cancel()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (operations_pb2.WatchRequest(after_revision=-1), "after_revision"),
        (operations_pb2.WatchRequest(model_ids=["Not A Slug"]), "model_ids"),
        (operations_pb2.WatchRequest(kinds=["x"] * 101), "kinds"),
    ],
)
async def test_a_watch_that_cannot_be(api: Api, request_: operations_pb2.WatchRequest, field: str) -> None:
    assert set((await refused(take(api.operations.Watch(request_), 1))).violations) == {field}


async def test_lease_tokens_are_told_to_the_scheduler_alone(api: Api) -> None:
    await api.model("a")
    watching = api.operations.Watch(operations_pb2.WatchRequest(kinds=["RetrainLeased"]))
    await api.retrain("a")
    [lease] = await api.lease()
    [item] = await take(watching, 1)
    watching.cancel()
    listed = await events(api)
    assert lease.lease_token
    assert json.loads(item.event.payload_json)["lease_token"] == "***"
    assert lease.lease_token not in "".join(str(event) for event in (item, *listed))
    assert lease.lease_token not in str(await api.find_retrain("rt_000001"))


async def test_the_audit_log_says_who_and_why(api: Api) -> None:
    await api.serving("a")
    await api.model("b")
    found = await events(api, model_id="a")
    assert [event.kind for event in found] == [
        "ModelRegistered",
        "VersionRegistered",
        "RolloutStarted",
        "AliasMoved",
        "RolloutEnded",
    ]
    assert (found[-1].actor, found[-1].reason) == ("tester", "a test wants it")
    assert json.loads(found[0].payload_json)["type"] == "ModelRegistered"
    assert [event.revision for event in await events(api, events_max=2)] == [1, 2]
    assert [event.revision for event in await events(api, events_max=2, after_revision=2)] == [3, 4]
    assert await events(api, after_revision=6) == []


# The clock


async def test_a_clock_is_driven_forward_and_recovers_where_it_was(host: Host) -> None:
    host.settings["clock"] = "driven"
    to = datetime(2013, 1, 5, tzinfo=UTC)
    async with host.life() as api:
        advance = operations_pb2.AdvanceClockRequest(mutation=by(), now=instant(to))
        assert (await api.operations.AdvanceClock(advance)).now == instant(to)
        await api.model("a")
        status = await api.operations.GetStatus(operations_pb2.GetStatusRequest())
        assert (status.clock_mode, status.now) == (operations_pb2.CLOCK_MODE_DRIVEN, instant(to))
        back = operations_pb2.AdvanceClockRequest(now=instant(to - timedelta(seconds=1)))
        refusal = await refused(api.operations.AdvanceClock(back))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CLOCK_MOVED_BACK")
        far = operations_pb2.AdvanceClockRequest(now=instant(datetime(9999, 1, 1, tzinfo=UTC)))
        assert (await refused(api.operations.AdvanceClock(far))).violations == {"now": "RANGE"}
        assert (await refused(api.operations.AdvanceClock(operations_pb2.AdvanceClockRequest()))).violations == {
            "now": "REQUIRED"
        }
    async with host.life() as api:
        status = await api.operations.GetStatus(operations_pb2.GetStatusRequest())
        assert status.now == instant(to)
        model = await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="a"))
        assert model.model.registered_at == instant(to)


async def test_a_wall_clock_is_not_driven(api: Api) -> None:
    request = operations_pb2.AdvanceClockRequest(now=instant(START))
    refusal = await refused(api.operations.AdvanceClock(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CLOCK_NOT_DRIVEN")


# Limits, holds, snapshots, status


async def test_limits_must_let_something_run(api: Api) -> None:
    none = operations_pb2.SetLimitsRequest(limits=operations_pb2.RetrainingLimits())
    assert set((await refused(api.operations.SetLimits(none))).violations) == {
        "limits.running_max",
        "limits.running_per_team_max",
    }
    some = operations_pb2.RetrainingLimits(running_max=7, running_per_team_max=2)
    dry = operations_pb2.SetLimitsRequest(mutation=by(validate_only=True), limits=some)
    before = (await api.operations.SetLimits(dry)).limits
    assert before.running_max == 50
    assert (await api.operations.SetLimits(operations_pb2.SetLimitsRequest(limits=some))).limits == some


async def test_holding_twice_is_holding_once(api: Api) -> None:
    first = await api.operations.HoldRetraining(operations_pb2.HoldRetrainingRequest())
    second = await api.operations.HoldRetraining(operations_pb2.HoldRetrainingRequest())
    assert first.revision == second.revision == 1
    released = await api.operations.ReleaseRetraining(operations_pb2.ReleaseRetrainingRequest())
    assert released.revision == 2
    assert [event.kind for event in await events(api)] == ["RetrainingHeld", "RetrainingReleased"]


async def test_a_snapshot_is_taken_when_asked_for_and_the_next_life_begins_with_it(host: Host) -> None:
    async with host.life() as api:
        await api.serving("a")
        dry = operations_pb2.TakeSnapshotRequest(mutation=by(validate_only=True))
        assert (await api.operations.TakeSnapshot(dry)).revision == 0
        taken = await api.operations.TakeSnapshot(operations_pb2.TakeSnapshotRequest())
        assert taken.revision == await api.revision()
        assert list(host.database.snapshots) == [taken.revision]
        await api.model("b")
    # A snapshot from which nothing can be read is passed over.
    newest = max(host.database.snapshots)
    host.database.snapshots.pop(newest)
    async with host.life() as api:
        status = await api.operations.GetStatus(operations_pb2.GetStatusRequest())
        assert (status.models, status.epoch, status.snapshot_revision) == (2, 2, taken.revision)


async def test_status_says_how_the_fleet_is(api: Api) -> None:
    await api.serving("a")
    await api.model("b", consumers=["desk"])
    await api.retrain("b")
    status = await api.operations.GetStatus(operations_pb2.GetStatusRequest())
    assert status.leader
    assert (status.models, status.nodes, status.dependencies) == (2, 3, 1)
    assert dict(status.verdicts) == {"UNKNOWN": 2}
    assert dict(status.retrains) == {"WAITING": 1}
    assert not status.retraining_held
    assert status.revision == await api.revision()
    assert status.clock_mode == operations_pb2.CLOCK_MODE_WALL


async def test_many_clients_at_once_lose_nothing(api: Api) -> None:
    names = [f"m{number:03d}" for number in range(150)]
    requests = [
        registry_pb2.RegisterModelRequest(mutation=by(request_id=f"r-{name}"), model=a_model(name)) for name in names
    ]
    replies = await asyncio.gather(*(api.registry.RegisterModel(request) for request in (*requests, *requests)))
    assert sorted({reply.revision for reply in replies}) == list(range(1, 151))
    listed = await events(api, events_max=1000)
    assert [event.revision for event in listed] == list(range(1, 151))
