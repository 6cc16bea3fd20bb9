"""What Runway asks of systems that run retrains and are called rather than calling: start this, how is it, stop it.

A scheduler that leases by itself (Dagster's sensor) needs none of this. For the others `scheduler_driver` leases on
their behalf and calls this port. Every run is named by its attempt, so whoever is not sure asks again: a start asked
for twice is one run.
"""

from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId
from control_plane.core.retraining.types import Attempt, FailureClass, Retrain
from control_plane.core.state import State


class SchedulerUnavailable(Exception):
    """Not now. `sure`: nothing was done for certain; else nobody knows, and the same must be asked again.

    `counts`: whether the breaker takes it for a failure of the scheduler.
    """

    def __init__(self, message: str, *, sure: bool = False, counts: bool = True) -> None:
        super().__init__(message)
        self.sure = sure
        self.counts = counts


class SchedulerRefused(Exception):
    """The scheduler says no. `whole`: it says no to whatever we ask (a wrong password), not to this job alone."""

    def __init__(self, message: str, *, whole: bool = False) -> None:
        super().__init__(message)
        self.whole = whole


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a training must know; all of it text or numbers, since schedulers pass on nothing else."""

    attempt_id: AttemptId
    retrain_id: RetrainId
    model_id: ModelId
    lease_token: LeaseToken
    data_until: datetime
    """Train on data up to here."""
    tier: int
    team: str
    causes: tuple[str, ...] = ()
    resource_class: str = "default"
    memory_scale: int = 1
    group: str = ""

    def parameters(self) -> dict[str, str]:
        """As schedulers take them. The training registers its version with `attempt_id` and `lease_token`."""
        return {
            "attempt_id": self.attempt_id,
            "retrain_id": self.retrain_id,
            "model_id": self.model_id,
            "lease_token": self.lease_token,
            "data_until": self.data_until.isoformat(),
            "tier": str(self.tier),
            "team": self.team,
            "causes": ",".join(self.causes),
            "resource_class": self.resource_class,
            "memory_scale": str(self.memory_scale),
            "group": self.group,
        }


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Which run is meant. `run` is what `start` gave; empty while nobody knows whether there is one."""

    attempt_id: AttemptId
    model_id: ModelId
    run: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """It runs, or will."""

    run: str
    note: str = ""
    """What keeps it from running, if something does: a person should look."""


class RunState(StrEnum):
    """How a run stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    MISSING = "MISSING"
    """The scheduler knows no such run."""


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its scheduler sees it."""

    state: RunState
    run: str = ""
    log_url: str = ""
    failure: str = ""
    failure_class: FailureClass | None = None
    note: str = ""


class Scheduler(Protocol):
    """A system that runs retrains when it is told. All calls raise SchedulerUnavailable, SchedulerRefused."""

    @property
    def address(self) -> str:
        """Where it is called."""
        ...

    async def start(self, job: Job) -> Started:
        """Run a job, or find the run of this attempt that there is already."""
        ...

    async def status(self, run: Run) -> RunStatus:
        """How a run stands; MISSING if there is none."""
        ...

    async def stop(self, run: Run) -> bool:
        """End a run; false if there is none. One that has ended already is left as it is."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def job_of(state: State, retrain: Retrain, attempt: Attempt) -> Job:
    """What an attempt's training must know."""
    record = state.models[retrain.model_id]
    return Job(
        attempt_id=attempt.attempt_id,
        retrain_id=retrain.retrain_id,
        model_id=retrain.model_id,
        lease_token=attempt.lease_token,
        data_until=attempt.leased_at,
        tier=record.facts.tier,
        team=record.facts.team,
        causes=tuple(cause.value for cause in retrain.causes),
        resource_class=record.retraining_policy.resource_class,
        memory_scale=attempt.memory_scale,
        group=retrain.group,
    )
