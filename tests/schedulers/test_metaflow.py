"""The contract against the real Metaflow, and what is its own: processes that outlive who started them."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from control_plane.app.schedulers import RunState
from tests.schedulers.contract import CLAUSES, ended
from tests.schedulers.real import MetaflowWorld
from tests.schedulers.worlds import World, a_job, run_of

pytestmark = pytest.mark.slow


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MetaflowWorld]:
    monkeypatch.setenv("RUNWAY_DATABASE_URL", "postgresql://somebody:secret@host/name")
    found = MetaflowWorld(tmp_path, monkeypatch)
    yield found
    await found.close()


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
async def test_the_contract_is_kept(world: MetaflowWorld, clause: Callable[[World, str], Awaitable[None]]) -> None:
    await clause(world, "mf")


async def test_a_flow_outlives_who_started_it_and_is_tagged_with_its_attempt(world: MetaflowWorld) -> None:
    job = a_job("rt_o1_a1")
    started = await world.scheduler.start(job)
    (told,) = await world.trainings.told(job)
    assert "secret@host" not in str(told)
    other = world.anew()
    assert (await other.status(run_of(job))).state is RunState.RUNNING
    assert (await other.start(job)).run == started.run
    await world.let(job, RunState.SUCCEEDED)
    assert (await ended(other, job, started.run)).state is RunState.SUCCEEDED
    assert await world.runs(job) == 1
    tags = [file.read_text() for file in world.store.rglob("*_self.json") if "runway_attempt" in file.read_text()]
    assert any("runway_attempt:rt_o1_a1" in text for text in tags)
    await other.close()


async def test_a_flow_that_was_killed_has_failed(world: MetaflowWorld) -> None:
    job = a_job("rt_k1_a1")
    started = await world.scheduler.start(job)
    await world.trainings.told(job)
    pid = int((world.home / job.attempt_id / "pid").read_text().split()[0])
    os.killpg(pid, signal.SIGKILL)
    status = await ended(world.scheduler, job, started.run)
    assert (status.state, status.failure) == (RunState.FAILED, "the flow was killed")
