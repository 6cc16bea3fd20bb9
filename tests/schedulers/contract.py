"""What every scheduler does, the fake and the real ones alike. Each function is a test over a world."""

import asyncio

import pytest

from control_plane.app.schedulers import RunState, RunStatus, Scheduler, SchedulerRefused, SchedulerUnavailable
from tests.schedulers.worlds import World, a_job, run_of

WAIT_S_MAX = 180.0
LIVE = frozenset({RunState.QUEUED, RunState.RUNNING})


async def ended(scheduler: Scheduler, job: object, run: str) -> RunStatus:
    """Its status, as soon as it has ended."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            status = await scheduler.status(run_of(job, run))  # type: ignore[arg-type]
            if status.state not in LIVE:
                return status
            await asyncio.sleep(0.05)


async def a_start_is_one_run_however_often_it_is_asked_for(world: World, tag: str) -> None:
    job = a_job(f"rt_{tag}1_a1")
    first = await world.scheduler.start(job)
    assert first.run
    assert (await world.scheduler.status(run_of(job, first.run))).state in LIVE
    again = await asyncio.gather(*(world.scheduler.start(job) for _ in range(3)))
    assert {started.run for started in again} == {first.run}
    assert await world.runs(job) == 1
    other = await world.scheduler.start(a_job(f"rt_{tag}1_a2"))
    assert other.run != first.run
    await world.scheduler.stop(run_of(a_job(f"rt_{tag}1_a2"), other.run))
    await world.scheduler.stop(run_of(job, first.run))


async def a_training_is_told_what_it_must_know(world: World, tag: str) -> None:
    job = a_job(f"rt_{tag}2_a1", memory_scale=4)
    started = await world.scheduler.start(job)
    told = await world.parameters(job)
    expected = {name: value for name, value in job.parameters().items() if value}
    assert {name: told.get(name) for name in expected} == expected
    assert (told["causes"], told["memory_scale"], told["lease_token"]) == ("STALE,RULE", "4", "secret")
    await world.scheduler.stop(run_of(job, started.run))


async def a_run_that_ends_well_has_succeeded_with_a_link(world: World, tag: str) -> None:
    job = a_job(f"rt_{tag}3_a1")
    started = await world.scheduler.start(job)
    await world.let(job, RunState.SUCCEEDED)
    status = await ended(world.scheduler, job, started.run)
    assert status.state is RunState.SUCCEEDED
    assert "://" in status.log_url
    assert not status.failure
    again = await world.scheduler.start(job)
    assert again.run == started.run
    assert await world.runs(job) == 1


async def a_run_that_fails_says_so_with_a_sentence_and_a_link(world: World, tag: str) -> None:
    job = a_job(f"rt_{tag}4_a1")
    started = await world.scheduler.start(job)
    await world.let(job, RunState.FAILED)
    status = await ended(world.scheduler, job, started.run)
    assert status.state is RunState.FAILED
    assert status.failure
    assert "://" in status.log_url


async def a_run_can_be_stopped_and_stopping_twice_is_stopping_once(world: World, tag: str) -> None:
    job = a_job(f"rt_{tag}5_a1")
    started = await world.scheduler.start(job)
    assert await world.scheduler.stop(run_of(job, started.run))
    status = await ended(world.scheduler, job, started.run)
    assert status.state in {RunState.STOPPED, RunState.FAILED}
    assert await world.scheduler.stop(run_of(job, started.run))


async def a_run_is_found_without_what_start_answered(world: World, tag: str) -> None:
    job = a_job(f"rt_{tag}6_a1")
    started = await world.scheduler.start(job)
    status = await world.scheduler.status(run_of(job))
    assert status.state in LIVE
    assert status.run == started.run
    assert await world.scheduler.stop(run_of(job))


async def a_run_that_is_not_there_is_missing(world: World, tag: str) -> None:
    job = a_job(f"rt_{tag}7_a1")
    assert (await world.scheduler.status(run_of(job))).state is RunState.MISSING
    assert not await world.scheduler.stop(run_of(job))


async def a_scheduler_that_is_down_is_unavailable_and_comes_back(world: World, tag: str) -> None:
    if not world.can_be_down:
        return
    job = a_job(f"rt_{tag}8_a1")
    world.down(True)
    with pytest.raises(SchedulerUnavailable):
        await world.scheduler.start(job)
    with pytest.raises(SchedulerUnavailable):
        await world.scheduler.status(run_of(job))
    world.down(False)
    started = await world.scheduler.start(job)
    assert await world.runs(job) == 1
    await world.scheduler.stop(run_of(job, started.run))


async def a_workflow_that_nobody_deployed_is_refused_in_a_sentence(world: World, tag: str) -> None:
    """The last one: nothing can be started afterwards."""
    world.forget()
    with pytest.raises(SchedulerRefused, match="there is no"):
        await world.scheduler.start(a_job(f"rt_{tag}9_a1"))


CLAUSES = (
    a_start_is_one_run_however_often_it_is_asked_for,
    a_training_is_told_what_it_must_know,
    a_run_that_ends_well_has_succeeded_with_a_link,
    a_run_that_fails_says_so_with_a_sentence_and_a_link,
    a_run_can_be_stopped_and_stopping_twice_is_stopping_once,
    a_run_is_found_without_what_start_answered,
    a_run_that_is_not_there_is_missing,
    a_scheduler_that_is_down_is_unavailable_and_comes_back,
    a_workflow_that_nobody_deployed_is_refused_in_a_sentence,
)
