"""The node when its store misbehaves: nobody is told what is not so, nothing is lost, nothing is applied
twice."""

import asyncio
from collections import Counter

import numpy as np
import pytest

from control_plane.adapters.memory.server import Mood
from control_plane.app import limits
from control_plane.app.chain import first_bad
from control_plane.app.node import Phase
from control_plane.app.ports import CorruptLog, Record
from control_plane.app.replica import Answer
from control_plane.core.errors import AppendOutcomeUnknown, Reason, Unavailable
from tests.contract.nodes import ToyNode, add, at_once, entries, leading, make_node, until
from tests.contract.worlds import MemoryWorld


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RETRY_S_MIN", 0.001)
    monkeypatch.setattr(limits, "RETRY_S_MAX", 0.01)
    monkeypatch.setattr(limits, "HEARTBEAT_S", 0.005)


async def test_a_lost_answer_to_a_stored_append_is_found_in_the_log() -> None:
    world = MemoryWorld()
    async with leading(world) as node:
        await node.submit(add("a", 1))
        world.server.next_appends.append(Mood.UNKNOWN_KEPT)
        answers = await asyncio.gather(*(node.submit(add("a", 1)) for _ in range(3)))
        assert [answer.result.changed for answer in answers] == [2, 3, 4]
        assert node.state.totals == {"a": 4}
        assert node.counters.terms == 2
        assert node.counters.in_doubt == 1


async def test_a_lost_append_is_told_and_may_be_sent_again() -> None:
    world = MemoryWorld()
    async with leading(world) as node:
        world.server.next_appends.append(Mood.UNKNOWN_LOST)
        with pytest.raises(Unavailable) as caught:
            await node.submit(add("a", 1, request_id="r1"))
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
        assert not (await node.submit(add("a", 1, request_id="r1"))).repeated
        assert node.state.totals == {"a": 1}


@pytest.mark.parametrize("mood", [Mood.UNKNOWN_KEPT, Mood.UNKNOWN_LOST])
async def test_a_term_that_ends_while_it_asks_the_log_forgets_nobody(
    mood: Mood, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = MemoryWorld()
    async with leading(world) as node:
        await node.submit(add("a", 1))
        read, asked = node._log.read, 0

        async def cut_off_twice(after_seq: int, limit: int) -> list[Record]:
            nonlocal asked
            if limit == 1 and asked < 2:
                asked += 1
                raise Unavailable(Reason.STORE_UNAVAILABLE, "cut off")
            return await read(after_seq, limit)

        monkeypatch.setattr(node._log, "read", cut_off_twice)
        world.server.next_appends.append(mood)
        answers = await asyncio.gather(
            *(node.submit(add("a", 1, request_id=f"r{at}")) for at in range(3)), return_exceptions=True
        )
        assert asked == 2
        told = [answer for answer in answers if isinstance(answer, Answer)]
        assert len(told) == (3 if mood is Mood.UNKNOWN_KEPT else 0)
        assert node.state.totals == {"a": 1 + len(told)}


async def test_a_refused_append_is_told_at_once() -> None:
    world = MemoryWorld()
    async with leading(world) as node:
        await node.submit(add("a", 1))
        world.server.next_appends.append(Mood.BROKEN)
        with pytest.raises(Unavailable) as caught:
            await node.submit(add("a", 1))
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
        await until(lambda: node.phase is Phase.LEADING)
        assert node.state.totals == {"a": 1}


async def test_what_a_reader_saw_of_a_failed_batch_is_not_released() -> None:
    world = MemoryWorld()
    async with leading(world) as node:
        world.server.next_appends.append(Mood.BROKEN)
        writing = asyncio.create_task(node.submit(add("a", 1)))
        await at_once(lambda: node.state.revision == 1)
        with pytest.raises(Unavailable):
            await node.read(lambda state: state.totals.get("a"))
        with pytest.raises(Unavailable):
            await writing


async def test_commands_wait_while_the_store_is_away_for_a_moment() -> None:
    world = MemoryWorld()
    async with leading(world) as node:
        await node.submit(add("a", 1))
        world.server.mood = Mood.BROKEN
        await until(lambda: node.phase is not Phase.LEADING)
        writing = [asyncio.create_task(node.submit(add("a", 1))) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in writing)
        world.server.mood = Mood.NORMAL
        answers = await asyncio.gather(*writing)
        assert sorted(answer.result.changed for answer in answers) == [2, 3, 4, 5, 6]


async def test_a_store_that_stays_away_is_told_to_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STORE_WAIT_S_MAX", 0.02)
    world = MemoryWorld()
    async with leading(world) as node:
        world.server.next_appends.append(Mood.UNKNOWN_KEPT)
        writing = asyncio.create_task(node.submit(add("a", 1, request_id="r1")))
        await at_once(lambda: node.state.revision == 1)
        world.server.mood = Mood.BROKEN
        await until(lambda: node.phase is not Phase.LEADING)
        waiting = asyncio.create_task(node.submit(add("b", 1)))
        with pytest.raises(AppendOutcomeUnknown):
            await writing
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):  # no more waiting from now on
            await node.submit(add("b", 1))
        world.server.mood = Mood.NORMAL
        await until(lambda: node.phase is Phase.LEADING)
        assert (await node.submit(add("a", 1, request_id="r1"))).repeated
        assert node.state.totals == {"a": 1}


async def test_a_full_queue_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUEUE_COMMANDS_MAX", 3)
    async with leading(MemoryWorld()) as node:
        outcomes = await asyncio.gather(*(node.submit(add()) for _ in range(5)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert [error.reason for error in refused] == [Reason.LIMIT_EXCEEDED] * 2
        assert node.state.totals == {"a": 3}


async def test_a_snapshot_that_cannot_be_stored_is_no_reason_to_stop() -> None:
    world = MemoryWorld()
    async with leading(world) as node:
        await node.submit(add())
        store = node._saving._snapshots

        async def broken(snapshot: object) -> None:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "no room")

        store.save = broken  # type: ignore[method-assign]
        await node.snapshot()
        await node.submit(add())
        assert node.counters.terms == 1


# --- simulated weather ---

MOODS = (Mood.NORMAL, Mood.SLOW, Mood.BROKEN, Mood.UNKNOWN_KEPT, Mood.UNKNOWN_LOST)
WEIGHTS = (0.6, 0.1, 0.1, 0.1, 0.1)
CLIENTS = 6
REQUESTS = 25


async def _client(nodes: list[ToyNode], number: int, told: Counter[str], values: dict[str, int]) -> None:
    """Sends each request until it is answered, to whichever node takes it."""
    for count in range(REQUESTS):
        request_id = f"{number}-{count}"
        turn = number
        while request_id not in told:
            turn += 1
            try:
                answer = await nodes[turn % len(nodes)].submit(add(f"k{number}", 1, request_id=request_id, parts=2))
            except (Unavailable, AppendOutcomeUnknown):
                await asyncio.sleep(0.001)
                continue
            told[request_id] += 1
            values[request_id] = answer.result.changed


@pytest.mark.parametrize("seed", range(8))
async def test_under_any_weather_each_request_is_applied_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes, one store that loses appends and answers, leaders deposed at random, six clients that
    retry.
    """
    monkeypatch.setattr(limits, "STORE_WAIT_S_MAX", 0.05)
    rng = np.random.default_rng(seed)
    world = MemoryWorld()
    world.server.delay_s = 0.002
    nodes = [make_node(world, snapshot_every=20), make_node(world, snapshot_every=20)]
    starts = [asyncio.create_task(node.start()) for node in nodes]
    told: Counter[str] = Counter()
    values: dict[str, int] = {}

    async def weather() -> None:
        while len(told) < CLIENTS * REQUESTS:
            world.server.next_appends.extend(
                rng.choice(np.array(MOODS, dtype=object), size=3, p=[0.6, 0.1, 0.1, 0.1, 0.1])
            )
            if rng.random() < 0.2:
                world.depose()
            await asyncio.sleep(0.003)
        world.server.next_appends.clear()

    await asyncio.gather(weather(), *(_client(nodes, number, told, values) for number in range(CLIENTS)))
    for node in nodes:
        await node.stop()
    await asyncio.gather(*starts)

    log = await entries(world)
    assert first_bad(log, after_seq=0, prev_hash=b"", version_max=1) is None
    assert [entry.epoch for entry in log] == sorted(entry.epoch for entry in log)
    assert Counter(entry.request_id for entry in log) == dict.fromkeys(told, 2)
    for number in range(CLIENTS):
        assert [values[f"{number}-{count}"] for count in range(REQUESTS)] == [2 * c + 2 for c in range(REQUESTS)]
    async with leading(world) as node:
        assert node.state.totals == {f"k{number}": 2 * REQUESTS for number in range(CLIENTS)}


async def test_a_first_start_without_a_database_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "START_WAIT_S_MAX", 0.02)
    world = MemoryWorld()
    world.server.mood = Mood.BROKEN
    node = make_node(world)
    with pytest.raises(Unavailable, match="broken"):
        await node.start()
    with pytest.raises(Unavailable, match="broken"):
        await node.ended()
    await node.stop()


async def test_a_log_that_breaks_while_running_ends_the_node_and_is_noticed() -> None:
    world = MemoryWorld()
    async with leading(world) as node:
        for _ in range(3):
            await node.submit(add())
        world.remove(2)
        world.depose()
        with pytest.raises(CorruptLog) as caught:
            await node.ended()
        assert caught.value.seq == 2
        assert node.phase is Phase.FAILED
        with pytest.raises(Unavailable, match="seq 2"):
            await node.submit(add())


async def test_a_quiet_leader_goes_on_leading() -> None:
    world = MemoryWorld()
    async with leading(world) as node:
        await asyncio.sleep(10 * limits.HEARTBEAT_S)
        await node.submit(add())
        assert (node.counters.terms, node.counters.faults) == (1, 0)


async def test_a_stuck_writer_lets_another_one_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WRITER_STALL_S_MAX", 0.01)
    world = MemoryWorld()
    async with leading(world) as node:
        world.server.delay_s = 3600.0
        world.server.next_appends.append(Mood.SLOW)
        with pytest.raises(Unavailable):  # it was cut off before the fake appended anything
            await node.submit(add())
        assert (await node.submit(add())).revision == 1
        assert node.counters.terms == 2
        assert node.counters.faults == 0
