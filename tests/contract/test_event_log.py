"""What every event log promises."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from control_plane.app.chain import hash_of
from control_plane.app.ports import Record
from control_plane.core.errors import Reason, Unavailable
from tests.contract.records import chain, record
from tests.contract.worlds import World


async def test_an_empty_log_has_no_head(world: World, epoch: int) -> None:
    log = world.log()
    assert await log.head() == (0, b"")
    assert await log.read(0, 10) == []
    assert await log.verify(0, 0, 1) is None
    await log.close()


async def test_what_was_appended_comes_back_byte_for_byte(world: World, epoch: int) -> None:
    log = world.log()
    records = chain(5, epoch=epoch)
    await log.append(epoch, records)
    assert await log.read(0, 100) == records
    assert await log.head() == (5, records[-1].hash)
    await log.close()


async def test_pages_follow_one_another(world: World, epoch: int) -> None:
    log = world.log()
    records = chain(7, epoch=epoch)
    await log.append(epoch, records[:3])
    await log.append(epoch, records[3:])
    assert await log.read(0, 3) == records[:3]
    assert await log.read(3, 3) == records[3:6]
    assert await log.read(6, 3) == records[6:]
    assert await log.read(7, 3) == []
    await log.close()


async def test_an_empty_batch_is_nothing(world: World, epoch: int) -> None:
    log = world.log()
    await log.append(epoch, [])
    assert await log.head() == (0, b"")
    await log.close()


@pytest.mark.parametrize("off", [-1, 1])
async def test_another_epoch_appends_nothing(world: World, epoch: int, off: int) -> None:
    log = world.log()
    with pytest.raises(Unavailable) as caught:
        await log.append(epoch + off, chain(2, epoch=epoch))
    assert caught.value.reason is Reason.NOT_LEADER
    assert await log.head() == (0, b"")
    await log.close()


async def test_a_deposed_leader_appends_nothing(world: World) -> None:
    first, second, log = world.leadership(), world.leadership(), world.log()
    old = await first.acquire()
    records = chain(2, epoch=old)
    await log.append(old, records)
    world.depose()
    new = await second.acquire()
    with pytest.raises(Unavailable) as caught:
        await log.append(old, chain(1, records, epoch=old))
    assert caught.value.reason is Reason.NOT_LEADER
    await log.append(new, chain(1, records, epoch=new))
    assert [r.epoch for r in await log.read(0, 10)] == [old, old, new]
    await second.release()
    await first.release()
    await log.close()


@pytest.mark.parametrize("first", [1, 2, 4, 9])
async def test_a_batch_must_follow_the_head_and_is_all_or_nothing(world: World, epoch: int, first: int) -> None:
    log = world.log()
    await log.append(epoch, chain(2, epoch=epoch))
    misplaced = [record(first, b"", epoch=epoch), record(first + 1, b"", epoch=epoch)]
    with pytest.raises(Unavailable) as caught:
        await log.append(epoch, misplaced)
    assert caught.value.reason is Reason.NOT_LEADER
    assert (await log.head())[0] == 2
    await log.close()


async def test_of_two_appends_at_the_same_place_one_wins(world: World, epoch: int) -> None:
    logs = [world.log(), world.log()]
    outcomes = await asyncio.gather(*(log.append(epoch, chain(3, epoch=epoch)) for log in logs), return_exceptions=True)
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert len(refused) == 1
    assert isinstance(refused[0], Unavailable)
    assert refused[0].reason is Reason.NOT_LEADER
    assert (await logs[0].head())[0] == 3
    for log in logs:
        await log.close()


async def test_a_good_log_verifies_from_anywhere(world: World, epoch: int) -> None:
    log = world.log()
    await log.append(epoch, chain(20, epoch=epoch))
    for after, to in [(0, 20), (0, 7), (7, 20), (19, 20), (20, 20)]:
        assert await log.verify(after, to, 1) is None
    await log.close()


async def test_a_changed_event_is_found(world: World, epoch: int) -> None:
    log = world.log()
    await log.append(epoch, chain(9, epoch=epoch))
    world.change(4, payload='{"z": 2}')
    bad = await log.verify(0, 9, 1)
    assert bad is not None
    assert bad.seq == 4
    assert "content" in bad.fault
    assert await log.verify(4, 9, 1) is None
    await log.close()


async def test_a_replaced_event_is_found_at_its_successor(world: World, epoch: int) -> None:
    log = world.log()
    records = chain(9, epoch=epoch)
    await log.append(epoch, records)
    forged = msgspec.structs.replace(records[3], actor="mallory")
    world.change(4, actor="mallory", hash=hash_of(forged))
    bad = await log.verify(0, 9, 1)
    assert bad is not None
    assert bad.seq == 5
    assert "prev_hash" in bad.fault
    await log.close()


@pytest.mark.parametrize("gone", [1, 5])
async def test_a_missing_event_is_found(world: World, epoch: int, gone: int) -> None:
    log = world.log()
    await log.append(epoch, chain(9, epoch=epoch))
    world.remove(gone)
    bad = await log.verify(0, 9, 1)
    assert bad is not None
    assert bad.seq == gone
    assert "missing" in bad.fault
    await log.close()


async def test_an_event_of_the_future_is_found(world: World, epoch: int) -> None:
    log = world.log()
    records = chain(2, epoch=epoch)
    records.append(record(3, records[-1].hash, epoch=epoch, version=2))
    await log.append(epoch, records)
    assert await log.verify(0, 3, 2) is None
    bad = await log.verify(0, 3, 1)
    assert bad is not None
    assert bad.seq == 3
    assert "version 2" in bad.fault
    await log.close()


async def test_a_closed_log_opens_again(world: World, epoch: int) -> None:
    log = world.log()
    await log.append(epoch, chain(1, epoch=epoch))
    await log.close()
    assert (await log.head())[0] == 1
    await log.close()


async def test_the_last_event_not_after_an_instant_is_found(world: World, epoch: int) -> None:
    log = world.log()
    noon = datetime(2013, 3, 3, 12, tzinfo=UTC)
    assert await log.seq_at(noon) == 0
    seconds = [0, 0, 1, 1, 1, 5, 9]
    records: list[Record] = []
    for seq, second in enumerate(seconds, start=1):
        before = records[-1].hash if records else b""
        bare = msgspec.structs.replace(record(seq, before, epoch=epoch), at=noon + timedelta(seconds=second))
        records.append(msgspec.structs.replace(bare, hash=hash_of(bare)))
    await log.append(epoch, records)
    for second in range(-1, 11):
        expected = sum(each <= second for each in seconds)
        assert await log.seq_at(noon + timedelta(seconds=second)) == expected, second
    assert await log.seq_at(noon + timedelta(microseconds=999_999)) == 2
    assert await log.seq_at(datetime.max.replace(tzinfo=UTC)) == len(seconds)
    assert await log.seq_at(datetime.min.replace(tzinfo=UTC)) == 0
    await log.close()
