"""Schedulers under test behind the same few verbs."""

from datetime import UTC, datetime
from typing import Protocol

from control_plane.adapters.schedulers.maestro import MaestroScheduler
from control_plane.app.schedulers import Job, Run, RunState, Scheduler
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId
from tests.schedulers.fakes import FakeScheduler
from tests.schedulers.servers import Maestro


def a_job(attempt: str = "rt_000001_a1", **changed: object) -> Job:
    """A job of an attempt."""
    told: dict[str, object] = {
        "attempt_id": AttemptId(attempt),
        "retrain_id": RetrainId(attempt.rpartition("_a")[0]),
        "model_id": ModelId("eta"),
        "lease_token": LeaseToken("secret"),
        "data_until": datetime(2026, 3, 2, tzinfo=UTC),
        "tier": 1,
        "team": "ml",
        "causes": ("STALE", "RULE"),
    }
    return Job(**(told | changed))  # type: ignore[arg-type]  # a test says what it changes


def run_of(job: Job, run: str = "") -> Run:
    """The run of a job."""
    return Run(attempt_id=job.attempt_id, model_id=job.model_id, run=run)


class World(Protocol):
    """A scheduler on which jobs run until they are told to end."""

    scheduler: Scheduler
    can_be_down: bool

    async def let(self, job: Job, state: RunState) -> None:
        """Let the training end so: SUCCEEDED or FAILED."""
        ...

    async def runs(self, job: Job) -> int:
        """How many runs of a job there are."""
        ...

    async def parameters(self, job: Job) -> dict[str, str]:
        """What the training was told."""
        ...

    def down(self, down: bool) -> None:
        """Switch it off, or on again."""
        ...

    def forget(self) -> None:
        """As if nobody had deployed the workflow."""
        ...

    async def close(self) -> None:
        """Stop it."""
        ...


class FakeWorld:
    can_be_down = True

    def __init__(self) -> None:
        self.fake = FakeScheduler()
        self.scheduler: Scheduler = self.fake

    async def let(self, job: Job, state: RunState) -> None:
        self.fake.set(job.attempt_id, state, "it failed" if state is RunState.FAILED else "")

    async def runs(self, job: Job) -> int:
        return int(job.attempt_id in self.fake.runs)

    async def parameters(self, job: Job) -> dict[str, str]:
        return self.fake.jobs[job.attempt_id].parameters()

    def down(self, down: bool) -> None:
        self.fake.mood = "down" if down else ""

    def forget(self) -> None:
        self.fake.mood = "refusing"

    async def close(self) -> None:
        await self.scheduler.close()


class MaestroWorld:
    can_be_down = True

    def __init__(self) -> None:
        self.maestro = Maestro()
        self.scheduler: Scheduler = MaestroScheduler(self.maestro.url, "maestro", timeout_s=5)

    async def let(self, job: Job, state: RunState) -> None:
        (instance,) = self.maestro.of(job.attempt_id)
        instance["status"] = state.value
        instance["timeline"] = [{"message": "step train failed: it failed"}] if state is RunState.FAILED else []

    async def runs(self, job: Job) -> int:
        return len(self.maestro.of(job.attempt_id))

    async def parameters(self, job: Job) -> dict[str, str]:
        (instance,) = self.maestro.of(job.attempt_id)
        return {name: one["value"] for name, one in instance["run_params"].items()}

    def down(self, down: bool) -> None:
        self.maestro.down = down

    def forget(self) -> None:
        self.maestro.workflows.clear()

    async def close(self) -> None:
        await self.scheduler.close()
        self.maestro.close()
