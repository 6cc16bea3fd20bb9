"""What the node promises on every store: answers that are durable, once each, and a state that is the
log's."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from control_plane.app import limits
from control_plane.app.chain import hash_of
from control_plane.app.node import Phase, Submission
from control_plane.app.ports import CorruptLog
from control_plane.core.errors import Invalid, Reason, Refused, Unavailable
from tests.contract.nodes import SteppingClock, add, at_once, entries, leading, make_node, until
from tests.contract.toy import Break, ToyMachine
from tests.contract.worlds import World


async def test_an_answer_means_the_log_has_it(world: World) -> None:
    async with leading(world) as node:
        answer = await node.submit(add("a", 3))
        assert (answer.result.changed, answer.revision) == (3, 1)
        assert node.revision == 1
        (entry,) = await entries(world)
        assert (entry.seq, entry.actor, entry.reason, entry.payload) == (
            1,
            "test",
            "why not",
            '{"type":"Added","key":"a","amount":3}',
        )


async def test_many_callers_share_a_transaction(world: World) -> None:
    async with leading(world) as node:
        answers = await asyncio.gather(*(node.submit(add()) for _ in range(200)))
        assert sorted(answer.result.changed for answer in answers) == list(range(1, 201))
        assert node.counters.batches < 10
        assert node.state.totals == {"a": 200}


async def test_a_new_node_knows_what_the_old_one_knew(world: World) -> None:
    async with leading(world) as node:
        await asyncio.gather(*(node.submit(add(key, 2)) for key in "abcab"))
        before = node.state
    for machine in (ToyMachine(), ToyMachine(snapshot_codec=2)):  # by snapshot, and without it
        async with leading(world, machine) as node:
            assert node.state == before
            assert node.revision == 5
            await node.submit(add("z", 0))


async def test_a_snapshot_and_its_tail_are_the_whole(world: World) -> None:
    async with leading(world) as node:
        await node.submit(add("a", 5, request_id="r1"))
        await node.snapshot()
        await node.submit(add("b", 7, parts=3))
        before = node.state
        other = make_node(world)
        starting = asyncio.create_task(other.start())
        world.depose()
        await node.stop()
    await starting
    assert other.state.totals == before.totals
    assert (await other.submit(add("a", 5, request_id="r1"))).repeated
    await other.stop()


async def test_refusals_change_nothing_and_wait_for_what_they_saw(world: World) -> None:
    async with leading(world) as node:
        outcomes = await asyncio.gather(
            node.submit(add("a", 2)), node.submit(add("a", -3)), node.submit(add("a", 1)), return_exceptions=True
        )
        assert isinstance(outcomes[1], Refused)
        assert node.state.totals == {"a": 3}
        assert len(await entries(world)) == 2


async def test_nothing_to_change_is_no_event(world: World) -> None:
    async with leading(world) as node:
        await node.submit(add("a", 4))
        answer = await node.submit(add("a", 0))
        assert (answer.result.changed, answer.revision) == (4, 1)
        assert len(await entries(world)) == 1


async def test_the_same_request_gets_the_same_answer(world: World) -> None:
    async with leading(world) as node:
        first = await node.submit(add("a", 3, request_id="r1", parts=2))
        await node.submit(add("a", 10))
        again = await node.submit(add("a", 3, request_id="r1", parts=2))
        assert (again.result, again.revision, again.repeated) == (first.result, first.revision, True)
        with pytest.raises(Refused) as caught:
            await node.submit(add("a", 4, request_id="r1"))
        assert caught.value.reason is Reason.REQUEST_ID_REUSED
        assert node.state.totals == {"a": 16}
    async with leading(world) as node:
        assert (await node.submit(add("a", 3, request_id="r1", parts=2))).result == first.result
    async with leading(world, ToyMachine(snapshot_codec=7)) as node:
        assert (await node.submit(add("a", 3, request_id="r1", parts=2))).revision == first.revision
        assert node.state.totals == {"a": 16}


async def test_a_digest_of_the_request_stands_in_for_the_commands(world: World) -> None:
    async with leading(world) as node:
        first = await node.submit(replace(add("a", 3, request_id="r1"), digest="set a to three"))
        again = await node.submit(replace(add("a", 0, request_id="r1"), digest="set a to three"))
        assert (again.result, again.repeated) == (first.result, True)
        with pytest.raises(Refused):
            await node.submit(replace(add("a", 3, request_id="r1"), digest="set a to four"))


async def test_one_request_sent_many_times_at_once_is_applied_once(world: World) -> None:
    async with leading(world) as node:
        answers = await asyncio.gather(*(node.submit(add("a", 3, request_id="r1")) for _ in range(20)))
        assert {(answer.result.changed, answer.revision) for answer in answers} == {(3, 1)}
        assert node.state.totals == {"a": 3}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("request_id", "x" * 129),
        ("request_id", "a\x1fb"),
        ("actor", "nul\x00"),
        ("actor", "x" * 201),
        ("reason", "lone \udc80 surrogate"),
        ("reason", "x" * 2001),
    ],
)
async def test_text_that_the_log_cannot_keep_is_invalid(world: World, field: str, text: str) -> None:
    submission = {"actor": "a", "reason": "r", "request_id": "i", field: text}
    async with leading(world) as node:
        with pytest.raises(Invalid) as caught:
            await node.submit(Submission(command=add().command, **submission))
        assert [violation.field for violation in caught.value.violations] == [field]
        await node.submit(Submission(command=add().command, actor="ünïcode", reason="two\nlines", request_id="1"))


async def test_a_bug_in_a_rule_fails_one_command(world: World) -> None:
    async with leading(world) as node:
        outcomes = await asyncio.gather(
            node.submit(add("a")),
            node.submit(Submission(command=Break(where="decide"))),
            node.submit(add("a")),
            return_exceptions=True,
        )
        assert isinstance(outcomes[1], Unavailable)
        assert outcomes[1].reason is Reason.INTERNAL
        assert node.state.totals == {"a": 2}
        assert node.counters.faults == 1
        assert node.counters.terms == 1


async def test_a_bug_in_evolve_discards_the_state_and_stores_nothing(world: World) -> None:
    async with leading(world) as node:
        await node.submit(add("a"))
        with pytest.raises(Unavailable):
            await node.submit(Submission(command=Break(where="evolve")))
        await until(lambda: node.phase is Phase.LEADING)
        assert (await node.submit(add("a"))).result.changed == 2
        assert node.counters.terms == 2
        assert len(await entries(world)) == 2


async def test_time_in_the_log_never_runs_backwards(world: World) -> None:
    clock = SteppingClock()
    async with leading(world) as node:
        node._clock = clock
        await node.submit(add())
        clock.at = datetime(2012, 6, 1, tzinfo=UTC)
        await node.submit(add())
        first, second = await entries(world)
        assert first.at == second.at
        assert node.now() >= second.at


async def test_a_read_waits_for_the_revision_it_asks_for(world: World) -> None:
    async with leading(world) as node:
        reading = asyncio.create_task(node.read(lambda state: dict(state.totals), min_revision=3, timeout_s=30))
        for _ in range(3):
            await node.submit(add("a"))
        assert await reading == ({"a": 3}, 3)
        with pytest.raises(Unavailable) as caught:
            await node.at_least(4, timeout_s=0.01)
        assert caught.value.reason is Reason.REVISION_NOT_REACHED
        assert caught.value.details["revision"] == "3"


async def test_what_is_read_is_released_only_when_durable(world: World) -> None:
    async with leading(world) as node:
        writing = asyncio.create_task(node.submit(add("a")))
        await at_once(lambda: node.state.revision == 1)
        seen, revision = await node.read(lambda state: state.totals.get("a", 0))
        assert (seen, revision) == (1, 1)
        assert len(await entries(world)) == 1
        await writing


async def test_a_caller_that_goes_away_before_its_turn_leaves_no_trace(world: World) -> None:
    async with leading(world) as node:
        leaving = asyncio.create_task(node.submit(add("gone")))
        await asyncio.sleep(0)
        leaving.cancel()
        await node.submit(add("a"))
        assert node.state.totals.get("a") == 1
        assert len(await entries(world)) == node.revision


async def test_what_is_due_is_submitted_by_the_tick(world: World) -> None:
    machine = ToyMachine()
    async with leading(world, machine) as node:
        machine.due = [add("a", 2).command, add("b", -1).command]
        assert await node.tick() == 1
        assert await node.tick() == 0
        (entry,) = await entries(world)
        assert (entry.actor, entry.reason) == ("runway", "due")


async def test_a_stopping_node_answers_the_queue_and_takes_a_snapshot(world: World) -> None:
    node = make_node(world)
    await node.start()
    writing = [asyncio.create_task(node.submit(add("a"))) for _ in range(50)]
    await asyncio.sleep(0)
    await node.stop()
    assert len(await asyncio.gather(*writing)) == 50
    with pytest.raises(Unavailable) as caught:
        await node.submit(add())
    assert caught.value.reason is Reason.SHUTTING_DOWN
    with pytest.raises(Unavailable):
        _ = node.state
    store = world.snapshots()
    newest = await store.newest()
    assert newest is not None
    assert newest.seq == 50
    await store.close()
    assert node.phase is Phase.STOPPED
    await node.stop()


async def test_a_node_can_be_stopped_while_it_stands_by(world: World) -> None:
    async with leading(world) as first:
        second = make_node(world)
        starting = asyncio.create_task(second.start())
        await first.submit(add())
        with pytest.raises(Unavailable) as caught:
            await second.submit(add())
        assert caught.value.reason is Reason.NOT_LEADER
        await second.stop()
        await starting
        await first.submit(add())


async def test_the_next_one_leads_when_the_first_is_deposed(world: World) -> None:
    async with leading(world) as first:
        await first.submit(add("a", 1))
        second = make_node(world)
        starting = asyncio.create_task(second.start())
        await first.submit(add("a", 1))
        world.depose()
        await starting
        answer = await second.submit(add("a", 1))
        assert answer.result.changed == 3
        with pytest.raises(Unavailable) as caught:  # it still believes; the log does not
            await first.submit(add("a", 100))
        assert caught.value.reason in {Reason.NOT_LEADER, Reason.STORE_UNAVAILABLE}
        assert [entry.epoch for entry in await entries(world)] == [1, 1, 2]
        await second.stop()
        await until(lambda: first.phase is Phase.LEADING)
        assert (await first.submit(add("a", 1))).result.changed == 4


async def test_snapshots_are_taken_on_the_way(world: World) -> None:
    async with leading(world, snapshot_every=10) as node:
        for _ in range(12):
            await node.submit(add())
        store = world.snapshots()
        while (newest := await store.newest()) is None:
            await asyncio.sleep(0.005)
        assert newest.seq == 10
        await store.close()


# --- a log that cannot be trusted stops the start ---


async def _stored(world: World, count: int) -> None:
    async with leading(world) as node:
        for number in range(count):
            await node.submit(add("a", request_id=f"r{number}"))


@pytest.mark.parametrize("codec", [1, 2], ids=["behind a snapshot", "in the tail"])
@pytest.mark.parametrize(
    ("harm", "seq", "said"),
    [
        ("change", 3, "does not match its content"),
        ("remove", 4, "missing"),
        ("version", 5, "reads up to 1"),
        ("reseal", 4, "prev_hash"),
    ],
)
async def test_a_damaged_log_stops_the_start(world: World, codec: int, harm: str, seq: int, said: str) -> None:
    await _stored(world, 8)
    if harm == "change":
        world.change(3, payload='{"type":"Added","key":"a","amount":1000000}')
    elif harm == "remove":
        world.remove(4)
    elif harm == "version":
        log = world.log()
        damaged = (await log.read(4, 1))[0]
        await log.close()
        future = msgspec.structs.replace(damaged, version=2)
        world.change(5, version=2, hash=hash_of(future))
    else:
        world.change(3, hash=bytes(32))
        seq = 3
        said = "does not match its content"
    with pytest.raises(CorruptLog) as caught:
        async with leading(world, ToyMachine(snapshot_codec=codec)):
            pass
    assert caught.value.seq == seq
    assert f"seq {seq}" in str(caught.value)
    assert said in str(caught.value)
    assert "Restore" in str(caught.value)


async def test_an_event_that_cannot_be_read_stops_the_start(world: World) -> None:
    await _stored(world, 2)
    leadership, log = world.leadership(), world.log()
    epoch = await leadership.acquire()
    last = (await log.read(1, 1))[0]
    odd = msgspec.structs.replace(
        last, seq=3, epoch=epoch, kind="Subtracted", payload='{"type":"Subtracted"}', prev_hash=last.hash
    )
    await log.append(epoch, [msgspec.structs.replace(odd, hash=hash_of(odd))])
    await log.close()
    await leadership.release()
    with pytest.raises(CorruptLog, match="Subtracted") as caught:
        async with leading(world):
            pass
    assert caught.value.seq == 3


async def test_a_log_that_ends_before_its_snapshot_stops_the_start(world: World) -> None:
    await _stored(world, 5)
    world.remove(5)
    with pytest.raises(CorruptLog, match="entries are lost") as caught:
        async with leading(world):
            pass
    assert caught.value.seq == 5


async def test_an_unreadable_snapshot_is_passed_over(world: World) -> None:
    async with leading(world) as node:
        await node.submit(add("a"))
        await node.snapshot()
        await node.submit(add("a"))
        before = node.state
    store = world.snapshots()
    newest = await store.newest()
    assert newest is not None
    for blob in (b"", newest.blob[:-3], newest.blob + b"x", bytes(100)):
        await store.save(msgspec.structs.replace(newest, blob=blob))
        async with leading(world) as node:
            assert node.state == before
    await store.close()


# --- watching ---


async def test_a_watcher_hears_everything_in_order(world: World) -> None:
    async with leading(world) as node:
        for _ in range(3):
            await node.submit(add("a"))
        heard: list[int] = []
        stream = node.watch(1)
        async for batch in stream:
            heard.extend(envelope.seq for envelope in batch.envelopes)
            assert batch.revision == heard[-1]
            if heard[-1] == 3:
                await node.submit(add("b", parts=2))
            if heard[-1] == 5:
                break
        await stream.aclose()
        assert heard == [2, 3, 4, 5]


async def test_a_watcher_may_begin_before_the_ring(world: World) -> None:
    await _stored(world, 5)
    async with leading(world) as node:
        stream = node.watch(0)
        batch = await anext(stream)
        assert [envelope.seq for envelope in batch.envelopes] == [1, 2, 3, 4, 5]
        await stream.aclose()


async def test_silence_is_told_from_a_broken_stream(world: World) -> None:
    async with leading(world) as node:
        await node.submit(add())
        stream = node.watch(1, progress_s=0.01)
        batch = await anext(stream)
        assert (list(batch.envelopes), batch.revision) == ([], 1)
        await stream.aclose()


async def test_a_watcher_from_the_future_is_refused(world: World) -> None:
    async with leading(world) as node:
        with pytest.raises(Unavailable) as caught:
            await anext(node.watch(1))
        assert caught.value.reason is Reason.REVISION_NOT_REACHED


async def test_a_watcher_that_is_slow_or_late_is_told_to_resume(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RING_EVENTS_MAX", 10)
    monkeypatch.setattr(limits, "WATCH_BACKLOG_EVENTS_MAX", 50)
    async with leading(world) as node:
        slow = node.watch(0, progress_s=0.01)
        await anext(slow)  # caught up
        for _ in range(6):
            await node.submit(add("a", parts=10))
        with pytest.raises(Refused) as caught:
            await anext(slow)
        assert caught.value.reason is Reason.WATCH_TOO_OLD
        with pytest.raises(Refused) as caught:
            await anext(node.watch(9))
        assert caught.value.details["oldest_revision"] == "10"
        resumed = node.watch(10)
        assert (await anext(resumed)).envelopes[0].seq == 11
        await resumed.aclose()


async def test_watchers_are_told_when_the_node_steps_down(world: World) -> None:
    async with leading(world) as node:
        await node.submit(add())
        stream = node.watch(1)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        world.depose()
        with pytest.raises(Unavailable):
            await waiting


async def test_history_too_old_for_the_start_is_checked_beside_the_service(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VERIFY_RECORDS_MAX", 2)
    monkeypatch.setattr(limits, "VERIFY_PAGE_RECORDS", 2)
    monkeypatch.setattr(limits, "VERIFY_PAUSE_S", 0.001)
    await _stored(world, 9)
    world.change(3, payload='{"type":"Added","key":"a","amount":9}')
    async with leading(world) as node:
        with pytest.raises(CorruptLog) as caught:
            await node.ended()
        assert caught.value.seq == 3
