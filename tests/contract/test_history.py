"""A past state is the fold of the log up to there, at every cut, wherever snapshots were taken; on every store."""

import asyncio

import pytest

from control_plane.app import limits
from control_plane.app.history import History
from control_plane.app.ports import CorruptLog
from control_plane.app.replica import Replica
from control_plane.core.errors import Reason, Refused
from tests.contract.nodes import ToyNode, add, entries, leading
from tests.contract.toy import ToyCommand, ToyMachine, ToyState
from tests.contract.worlds import World


async def filled(node: ToyNode, *, events: int, snapshot_at: tuple[int, ...]) -> None:
    """One event after another, with snapshots where asked."""
    for number in range(1, events + 1):
        await node.submit(add(key=f"k{number % 3}", amount=number, request_id=f"r{number}"))
        if number in snapshot_at:
            await node.snapshot()


async def folded(world: World, revision: int) -> ToyState:
    """The dumb twin: from the beginning."""
    whole: Replica[ToyState, ToyCommand] = Replica(ToyMachine())
    whole.replay((await entries(world))[:revision])
    return whole.state


@pytest.mark.parametrize("snapshot_at", [(), (1,), (4, 9), (12,), tuple(range(1, 13))])
async def test_a_past_state_is_the_fold_up_to_there(world: World, snapshot_at: tuple[int, ...]) -> None:
    async with leading(world) as node:
        await filled(node, events=12, snapshot_at=snapshot_at)
        for revision in range(1, 13):
            assert await node.history.state_at(revision) == await folded(world, revision)


async def test_the_state_before_a_request_is_that_before_its_first_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PAGE_RECORDS", 3)
    async with leading(world) as node:
        for number, (before, last) in enumerate([(0, 2), (2, 9), (9, 10), (10, 16)]):
            await node.submit(add(request_id=f"r{number}", parts=last - before))
            assert await node.history.state_before(last) == await folded(world, before)


async def test_the_revision_of_a_time_is_the_last_event_by_then(world: World) -> None:
    async with leading(world) as node:
        await filled(node, events=6, snapshot_at=(3,))
        for record in await entries(world):
            assert await node.history.revision_at(record.at) == record.seq


async def test_callers_of_one_revision_share_one_state(world: World) -> None:
    async with leading(world) as node:
        await filled(node, events=8, snapshot_at=(2,))
        found = await asyncio.gather(*(node.history.state_at(5) for _ in range(20)))
        assert all(state is found[0] for state in found)
        assert node.history.built == 1
        impatient = asyncio.create_task(node.history.state_at(6))
        patient = asyncio.create_task(node.history.state_at(6))
        await asyncio.sleep(0)
        impatient.cancel()
        assert (await patient).revision == 6
        assert node.history.built == 2


async def test_only_the_last_few_stay_in_memory(world: World) -> None:
    async with leading(world) as node:
        await filled(node, events=limits.PAST_STATES_MAX + 2, snapshot_at=())
        first = await node.history.state_at(1)
        for revision in range(2, limits.PAST_STATES_MAX + 2):
            await node.history.state_at(revision)
        again = await node.history.state_at(1)
        assert again == first
        assert again is not first


async def test_a_snapshot_that_cannot_be_read_is_passed_over(world: World) -> None:
    async with leading(world) as node:
        await filled(node, events=9, snapshot_at=(3, 7))
        store = world.snapshots()
        newest = await store.newest()
        assert newest is not None
        await store.save(type(newest)(seq=newest.seq, hash=newest.hash, codec=newest.codec, blob=b"junk"))
        await store.close()
        assert await node.history.state_at(8) == await folded(world, 8)


async def test_an_event_that_was_changed_is_told(world: World) -> None:
    async with leading(world) as node:
        await filled(node, events=9, snapshot_at=(3,))
        world.change(5, actor="mallory")
        with pytest.raises(CorruptLog) as caught:
            await node.history.state_at(7)
        assert caught.value.seq == 5
        assert (await node.history.state_at(4)).revision == 4


async def test_too_far_from_a_snapshot_is_refused(world: World) -> None:
    async with leading(world) as node:
        await filled(node, events=9, snapshot_at=(8,))
    log, snapshots = world.log(), world.snapshots()
    history = History[ToyState, ToyCommand](machine=ToyMachine(), event_log=log, snapshots=snapshots, tail_events_max=3)
    assert (await history.state_at(3)).revision == 3
    assert (await history.state_at(9)).revision == 9
    with pytest.raises(Refused) as caught:
        await history.state_at(7)
    assert caught.value.reason is Reason.HISTORY_NOT_KEPT
    await history.close()
    await log.close()
    await snapshots.close()
