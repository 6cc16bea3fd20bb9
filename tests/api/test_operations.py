"""OperationsService: audit log, clock, limits, holds, snapshots, status."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from runway.v1 import operations_pb2, registry_pb2

from control_plane.api import operations
from tests.api.watchers import Reader
from tests.api.worlds import START, Api, Host, a_model, by, instant, refused


async def events(api: Api, **asked: int | str | list[str]) -> list[operations_pb2.Event]:
    reply = await api.operations.ListEvents(operations_pb2.ListEventsRequest(**asked))  # type: ignore[arg-type]
    return list(reply.events)


async def test_lease_tokens_are_told_to_the_scheduler_alone(api: Api) -> None:
    await api.model("a")
    watching = Reader.of(api, kinds=["RetrainLeased"])
    await api.retrain("a")
    [lease] = await api.lease()
    [item] = await watching.take(1)
    watching.close()
    listed = await events(api)
    assert lease.lease_token
    assert json.loads(item.payload_json)["lease_token"] == "***"
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
    assert {event.team for event in found} == {"flights"}
    assert [event.revision for event in await events(api, events_max=2)] == [1, 2]
    assert [event.revision for event in await events(api, events_max=2, after_revision=2)] == [3, 4]
    assert await events(api, after_revision=6) == []


async def test_the_audit_log_is_searched_in_parts(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        await api.model(f"m{number}")
    await api.operations.HoldRetraining(operations_pb2.HoldRetrainingRequest())
    asked = operations_pb2.ListEventsRequest(kinds=["RetrainingHeld"])
    whole = await api.operations.ListEvents(asked)
    assert ([event.revision for event in whole.events], whole.scanned_revision) == ([7], 7)
    # A log too long to look through in one call: each answer says how far it looked.
    monkeypatch.setattr(operations, "PAGE_EVENTS", 2)
    monkeypatch.setattr(operations, "SCAN_S_MAX", 0.0)
    nothing = await api.operations.ListEvents(asked)
    assert (list(nothing.events), nothing.scanned_revision, nothing.revision) == ([], 2, 7)
    monkeypatch.undo()
    monkeypatch.setattr(operations, "ANSWER_BYTES", 1)
    large = await api.operations.ListEvents(operations_pb2.ListEventsRequest())
    assert ([event.revision for event in large.events], large.scanned_revision) == ([1], 1)
    unknown = operations_pb2.ListEventsRequest(kinds=["VerdictChange"], model_id="Not A Slug")
    refusal = await refused(api.operations.ListEvents(unknown))
    assert set(refusal.violations) == {"kinds[0]", "model_id"}
    assert "VerdictChanged" in refusal.metadata["known_kinds"].split(",")


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
