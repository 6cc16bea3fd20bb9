"""What every leadership promises: one leader, rising epochs, a fence."""

import asyncio
import time
from contextlib import suppress

import pytest

from control_plane.adapters.postgres.leadership import PostgresLeadership
from control_plane.core.errors import Reason, Unavailable
from tests.contract.worlds import PostgresWorld, World


async def test_epochs_rise(world: World) -> None:
    first = world.leadership()
    one = await first.acquire()
    await first.heartbeat()
    await first.release()
    second = world.leadership()
    assert await second.acquire() > one
    await second.release()


async def test_the_second_waits_for_the_first(world: World) -> None:
    first, second = world.leadership(), world.leadership()
    one = await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    for _ in range(20):
        await first.heartbeat()
        assert not waiting.done()
    await first.release()
    assert await waiting > one
    await second.heartbeat()
    await second.release()


async def test_a_deposed_leader_learns_it_by_its_heartbeat(world: World) -> None:
    first, second = world.leadership(), world.leadership()
    await first.acquire()
    world.depose()
    with pytest.raises(Unavailable) as caught:
        await first.heartbeat()
    assert caught.value.reason is Reason.NOT_LEADER
    await second.acquire()
    await first.release()
    await second.heartbeat()
    await second.release()


async def test_without_leadership_there_is_no_heartbeat(world: World) -> None:
    with pytest.raises(Unavailable) as caught:
        await world.leadership().heartbeat()
    assert caught.value.reason is Reason.NOT_LEADER


async def test_who_stops_waiting_holds_nothing(world: World) -> None:
    first, second, third = world.leadership(), world.leadership(), world.leadership()
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await first.heartbeat()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    await first.release()
    await third.acquire()
    await third.heartbeat()
    await third.release()


async def test_release_may_be_repeated(world: World) -> None:
    first = world.leadership()
    await first.release()
    await first.acquire()
    await first.release()
    await first.release()
    assert await first.acquire() > 0
    await first.release()


async def test_acquiring_again_lets_go_first(world: World) -> None:
    first = world.leadership()
    one = await first.acquire()
    assert await first.acquire() > one
    await first.release()


async def test_a_long_wait_asks_again(postgres_world: PostgresWorld) -> None:
    first, second = PostgresLeadership(postgres_world.url), PostgresLeadership(postgres_world.url, wait_s=0.01)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    for _ in range(50):
        await first.heartbeat()
    assert not waiting.done()
    await first.release()
    await waiting
    await second.heartbeat()
    await second.release()


async def test_a_loop_at_work_on_one_long_thing_keeps_its_leadership(postgres_world: PostgresWorld) -> None:
    first = PostgresLeadership(postgres_world.url, idle_s=1.0)
    await first.acquire()
    time.sleep(2.5)  # the loop is busy, longer than the server bears with silence
    await first.heartbeat()
    await first.release()


async def test_a_stuck_loop_loses_its_leadership(postgres_world: PostgresWorld) -> None:
    stuck = PostgresLeadership(postgres_world.url, idle_s=1.0, stall_s=0.0)
    await stuck.acquire()
    second = PostgresLeadership(postgres_world.url)
    await second.acquire()  # returns when the silent session has been ended
    with pytest.raises(Unavailable) as caught:
        await stuck.heartbeat()
    assert caught.value.reason is Reason.NOT_LEADER
    await second.heartbeat()
    await second.release()


async def test_tables_of_another_layout_are_refused(postgres_world: PostgresWorld) -> None:
    first = PostgresLeadership(postgres_world.url)
    await first.acquire()
    await first.release()
    postgres_world.run("UPDATE runway.leadership SET layout = 99")
    with pytest.raises(Unavailable, match=r"layout 99.*RUNWAY_DATABASE_URL"):
        await first.acquire()


async def test_a_database_that_is_not_there_is_said(postgres_world: PostgresWorld) -> None:
    with pytest.raises(Unavailable, match="does not exist") as caught:
        await PostgresLeadership(postgres_world.url.replace("/runway?", "/nowhere?")).acquire()
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
