"""The driver before a scheduler that cannot be trusted, killed again and again: no retrain is lost, none is doubled."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from control_plane.adapters.memory.server import MemoryEventLog, MemoryLeadership, MemoryServer, MemorySnapshotStore
from control_plane.adapters.schedulers.maestro import MaestroScheduler
from control_plane.app.breaker_watch import BreakerWatch
from control_plane.app.chain import first_bad
from control_plane.app.machine import FleetMachine
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.app.scheduler_driver import STOP_TRIES_MAX, SchedulerDriver
from control_plane.app.schedulers import RunState, Scheduler
from control_plane.core.commands import (
    CancelRetrain,
    Command,
    RegisterModel,
    RegisterVersion,
    ReportSuccess,
    RequestRetrain,
    Result,
    TripBreaker,
)
from control_plane.core.errors import Refused
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, TeamId
from control_plane.core.registry.types import ModelFacts, TaskType, VersionFacts
from control_plane.core.retraining.types import (
    Attempt,
    AttemptState,
    BreakerState,
    FailureClass,
    Retrain,
    RetrainCause,
    RetrainState,
)
from control_plane.core.state import State
from tests.schedulers.fakes import FakeScheduler
from tests.schedulers.servers import Maestro, Wire

START = datetime(2026, 3, 2, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@dataclass(slots=True)
class StillClock:
    """Moves when told."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at


@dataclass(slots=True)
class Plane:
    """A control plane in memory that can be killed, with a driver beside it. `seconds` is the driver's clock."""

    server: MemoryServer = field(default_factory=lambda: MemoryServer(first_bad))
    clock: StillClock = field(default_factory=StillClock)
    seconds: float = 1_000.0
    node: Node[State, Command] = field(init=False)
    driver: SchedulerDriver = field(init=False)

    async def begin(self, schedulers: Mapping[str, Scheduler]) -> None:
        """Lead, with a driver that remembers nothing."""
        self.node = Node(
            machine=FleetMachine(),
            event_log=MemoryEventLog(self.server),
            snapshots=MemorySnapshotStore(self.server),
            leadership=MemoryLeadership(self.server),
            clock=self.clock,
            tick_s=3600.0,
            snapshot_every=50,
        )
        await self.node.start()
        self.driver = SchedulerDriver(
            node=self.node,
            schedulers=schedulers,
            watch=BreakerWatch(self.node, lambda: 0.5),
            tick_s=0.01,
            call_s_max=1.0,
            monotonic=lambda: self.seconds,
        )

    async def end(self) -> None:
        """Give up whatever is under way."""
        await self.driver.stop()
        await self.node.stop()

    async def do(self, command: Command) -> Result:
        """Submit as an operator."""
        return (await self.node.submit(Submission(command=command, actor="ann", reason="a test"))).result

    async def turn(self, seconds: float = 1.0) -> None:
        """Let time pass, do what is due, and drive."""
        self.clock.at += seconds * SECOND
        self.seconds += seconds
        await self.node.tick()
        await self.driver.turn()

    async def wanted(self, name: str, tier: int = 3) -> ModelId:
        """A model that shall be retrained."""
        model_id = ModelId(name)
        facts = ModelFacts(model_id=model_id, owner="team:ml", team=TeamId("ml"), tier=tier, task_type=TaskType.BINARY)
        await self.do(RegisterModel(facts=facts, policies={"retraining.attempts_max": 20}))
        await self.do(RequestRetrain(model_id=model_id, cause=RetrainCause.OPERATOR, ignore_cooldown=True))
        return model_id

    async def trained(self, attempt_id: str, token: str, *, report: bool = True) -> None:
        """What a training does at its end; as it does, it minds nothing when its lease is gone."""
        attempt, lease = AttemptId(attempt_id), LeaseToken(token)
        model_id = self.node.state.retrain_of_attempt(attempt).model_id
        facts = VersionFacts(artifact_uri=f"s3://{attempt}", artifact_sha256="a" * 64, trained_until=START)
        try:
            made = await self.do(RegisterVersion(model_id=model_id, facts=facts, attempt_id=attempt, lease_token=lease))
            if report:
                await self.do(ReportSuccess(attempt_id=attempt, lease_token=lease, version=made.version or 0))
        except Refused:
            return

    def retrain(self, model_id: str) -> Retrain:
        """A model's newest retrain."""
        state = self.node.state
        return state.retrains[state.models[ModelId(model_id)].retrain_ids[-1]]

    def attempts(self) -> list[Attempt]:
        """All attempts so far."""
        return [attempt for retrain in self.node.state.retrains.values() for attempt in retrain.attempts]


@asynccontextmanager
async def leading(**schedulers: Scheduler) -> AsyncIterator[Plane]:
    plane = Plane()
    await plane.begin(schedulers)
    try:
        yield plane
    finally:
        await plane.end()


async def test_a_retrain_is_leased_started_and_followed_to_its_report() -> None:
    fake = FakeScheduler()
    async with leading(airflow=fake) as plane:
        await plane.wanted("eta")
        await plane.turn()
        (attempt,) = plane.attempts()
        assert (attempt.scheduler, attempt.run) == ("airflow", "fake/rt_000001_a1")
        job = fake.jobs["rt_000001_a1"]
        assert (job.model_id, job.lease_token, job.causes) == ("eta", attempt.lease_token, ("OPERATOR",))
        await plane.turn(400)
        assert plane.attempts()[0].expires_at > plane.clock.at + 300 * SECOND  # renewed while it lives
        await plane.trained(job.attempt_id, job.lease_token)
        fake.set(job.attempt_id, RunState.SUCCEEDED)
        await plane.turn(100)
        assert plane.retrain("eta").state is RetrainState.VALIDATING
        assert fake.starts == ["rt_000001_a1"]


async def test_a_version_whose_report_was_lost_is_reported() -> None:
    fake = FakeScheduler()
    async with leading(airflow=fake) as plane:
        await plane.wanted("eta")
        await plane.turn()
        job = fake.jobs["rt_000001_a1"]
        await plane.trained(job.attempt_id, job.lease_token, report=False)
        fake.set(job.attempt_id, RunState.SUCCEEDED)
        await plane.turn(10)
        assert plane.retrain("eta").state is RetrainState.RUNNING  # it may still be on its way to say so
        await plane.turn(30)
        assert plane.retrain("eta").state is RetrainState.VALIDATING


@pytest.mark.parametrize(
    ("state", "failure", "said", "failure_class"),
    [
        (RunState.SUCCEEDED, "", "registered no version", FailureClass.UNKNOWN),
        (RunState.FAILED, "CUDA out of memory", "CUDA out of memory", FailureClass.OUT_OF_MEMORY),
        (RunState.FAILED, "", "the run failed in airflow", FailureClass.UNKNOWN),
        (RunState.STOPPED, "", "the run was stopped in airflow", FailureClass.BUG),
    ],
)
async def test_a_run_that_ends_without_a_report_is_a_failure_with_the_link_to_its_log(
    state: RunState, failure: str, said: str, failure_class: FailureClass
) -> None:
    fake = FakeScheduler()
    async with leading(airflow=fake) as plane:
        await plane.wanted("eta")
        await plane.turn()
        fake.set("rt_000001_a1", state, failure)
        for _ in range(3):
            await plane.turn(20)
        attempt = plane.attempts()[0]
        assert said in attempt.failure
        assert (attempt.state, attempt.failure_class) == (AttemptState.FAILED, failure_class)
        assert attempt.log_url == "http://fake/rt_000001_a1"


async def test_a_start_that_nobody_answered_is_asked_for_again_under_the_same_id() -> None:
    fake = FakeScheduler(mood="lost")
    async with leading(airflow=fake) as plane:
        await plane.wanted("eta")
        for _ in range(4):
            await plane.turn(400)  # longer than half a lease: it is kept alive all the while
        assert set(fake.starts) == {"rt_000001_a1"}
        assert len(fake.starts) > 1
        assert plane.attempts()[0].run == ""
        fake.mood = ""
        await plane.turn(60)
        assert plane.attempts()[0].run == "fake/rt_000001_a1"
        assert list(fake.runs) == ["rt_000001_a1"]


async def test_an_outage_opens_the_breaker_and_is_ridden_out() -> None:
    fake = FakeScheduler(mood="down")
    async with leading(airflow=fake) as plane:
        for number in range(8):
            await plane.wanted(f"m{number}", tier=1 if number == 7 else 3)
        for _ in range(10):
            await plane.turn(5)
        breaker = plane.node.state.breakers["airflow"]
        assert breaker.state is BreakerState.OPEN
        assert all(plane.retrain(f"m{number}").state is RetrainState.WAITING for number in range(8))
        assert {attempt.failure_class for attempt in plane.attempts()} == {FailureClass.SCHEDULER}
        tried = len(plane.attempts())
        await plane.turn(1)
        assert len(plane.attempts()) == tried  # nothing is leased while it is open
        fake.mood = ""
        for _ in range(700):
            if fake.runs:
                break
            await plane.turn(1)
        # One probe, of the most important.
        (first,) = fake.runs
        assert plane.node.state.retrain_of_attempt(AttemptId(first)).model_id == "m7"
        for _ in range(30):
            await plane.turn(10)
        assert plane.node.state.breakers["airflow"].state is BreakerState.CLOSED
        assert len(fake.runs) == 8
        assert all(plane.retrain(f"m{number}").state is RetrainState.RUNNING for number in range(8))


async def test_a_scheduler_that_refuses_everything_gets_one_at_a_time_and_says_why() -> None:
    fake = FakeScheduler(mood="locked")
    async with leading(airflow=fake) as plane:
        for number in range(4):
            await plane.wanted(f"m{number}")
        for _ in range(20):
            await plane.turn(5)
        assert "airflow" not in plane.node.state.breakers  # 4xx do not count
        assert all(plane.retrain(f"m{number}").state is RetrainState.WAITING for number in range(4))
        assert plane.driver.trouble("airflow") == "answered 401"
        tried = len(plane.attempts())
        await plane.turn(1)
        assert len(plane.attempts()) <= tried + 1
        fake.mood = ""
        await plane.turn(70)
        await plane.turn(70)
        assert (len(fake.runs), plane.driver.trouble("airflow")) == (4, "")


async def test_a_job_that_is_refused_fails_as_itself() -> None:
    fake = FakeScheduler(mood="refusing")
    async with leading(airflow=fake) as plane:
        await plane.wanted("eta")
        await plane.turn()
        (attempt,) = plane.attempts()
        assert (attempt.state, attempt.failure_class) == (AttemptState.FAILED, FailureClass.UNKNOWN)
        assert attempt.failure == "airflow refused to start it: there is no such workflow"
        assert plane.retrain("eta").not_before > plane.clock.at  # after the backoff


async def test_cancelled_retrains_are_stopped_even_by_a_driver_that_did_not_see_it() -> None:
    fake = FakeScheduler()
    async with leading(airflow=fake) as plane:
        await plane.wanted("eta")
        await plane.wanted("fare")
        await plane.turn()
        await plane.do(CancelRetrain(retrain_id=plane.retrain("eta").retrain_id))
        await plane.turn()
        assert fake.runs["rt_000001_a1"].state is RunState.STOPPED
        await plane.do(CancelRetrain(retrain_id=plane.retrain("fare").retrain_id))
        await plane.end()
        await plane.begin({"airflow": fake})
        await plane.turn()
        assert fake.runs["rt_000002_a1"].state is RunState.STOPPED


async def test_a_cancelled_retrain_whose_start_arrives_late_is_stopped_all_the_same() -> None:
    fake = FakeScheduler(mood="lost")
    async with leading(airflow=fake) as plane:
        await plane.wanted("eta")
        await plane.turn()
        late = fake.runs.pop("rt_000001_a1")
        await plane.do(CancelRetrain(retrain_id=plane.retrain("eta").retrain_id))
        fake.mood = ""
        for _ in range(STOP_TRIES_MAX - 2):
            await plane.turn(60)
        fake.runs["rt_000001_a1"] = late
        await plane.turn(60)
        assert fake.runs["rt_000001_a1"].state is RunState.STOPPED


async def test_a_run_that_lies_in_a_paused_dag_is_said_and_does_not_close_the_breaker() -> None:
    fake = FakeScheduler(mood="down")
    async with leading(airflow=fake) as plane:
        for number in range(6):
            await plane.wanted(f"m{number}")
        await plane.turn(5)
        opened = plane.node.state.breakers["airflow"]
        fake.mood, fake.waits = "", "DAG x is paused: unpause it"
        for _ in range(40):
            await plane.turn(5)
        (run,) = fake.runs  # the probe, and nothing after it
        half_open = plane.node.state.breakers["airflow"]
        assert (opened.state, half_open.state) == (BreakerState.OPEN, BreakerState.HALF_OPEN)
        assert plane.driver.trouble("airflow") == f"DAG x is paused: unpause it ({run} waits)"
        fake.waits = ""
        fake.set(run, RunState.RUNNING)
        for _ in range(6):
            await plane.turn(10)
        assert plane.node.state.breakers["airflow"].state is BreakerState.CLOSED
        assert (len(fake.runs), plane.driver.trouble("airflow")) == (6, "")


async def test_an_open_breaker_starts_nothing_and_a_probe_is_alone() -> None:
    fake = FakeScheduler()
    async with leading(airflow=fake) as plane:
        await plane.do(TripBreaker(scheduler="airflow", by="ann", reason="upgrade"))
        for number in range(3):
            await plane.wanted(f"m{number}")
        for _ in range(5):
            await plane.turn(1000)
        assert not plane.attempts()


TROUBLED_STEPS = 150
FLAKY = {"": 5, "lost": 1, "mute": 2, "broken": 2, "busy": 1, "hang": 1}


@pytest.mark.parametrize("seed", range(8))
async def test_no_retrain_is_lost_and_none_is_doubled_whatever_breaks(seed: int) -> None:
    """A real HTTP server that drops answers, fails and hangs; the control plane killed in between; trainings that
    report, forget to, or fail."""
    chance = np.random.default_rng(seed)
    maestro = Maestro(Wire.flaky(seed, FLAKY))
    plane = Plane()

    def called() -> dict[str, Scheduler]:
        return {"maestro": MaestroScheduler(maestro.url, "maestro", timeout_s=0.1)}

    await plane.begin(called())
    models = [await plane.wanted(f"m{number}", tier=1 + number % 4) for number in range(12)]
    try:
        for step in range(400):
            if step == TROUBLED_STEPS:
                maestro.wire.moods = lambda: ""
            if step < TROUBLED_STEPS and chance.random() < 0.2:
                plane.driver.begin_turn()
                for _ in range(int(chance.integers(1, 200))):
                    await asyncio.sleep(0)  # so that calls are under way when it is killed
                await plane.end()
                await plane.begin(called())
            await plane.turn(float(chance.integers(1, 40)))
            await _train(plane, maestro, chance, flawless=step >= TROUBLED_STEPS)
            _check(plane, maestro, models)
            if all(plane.retrain(model).state is RetrainState.VALIDATING for model in models):
                break
        for _ in range(10):
            await plane.turn(120)
        for model in models:
            retrain = plane.retrain(model)
            assert retrain.state is RetrainState.VALIDATING, (model, retrain.state, retrain.attempts[-1])
            assert len(plane.node.state.models[model].retrain_ids) == 1
            assert sum(attempt.state is AttemptState.SUCCEEDED for attempt in retrain.attempts) == 1
        assert not [one for one in maestro.instances if one["status"] in {"CREATED", "IN_PROGRESS"}]
    finally:
        await plane.end()
        maestro.close()


async def _train(plane: Plane, maestro: Maestro, chance: np.random.Generator, *, flawless: bool) -> None:
    for instance in list(maestro.instances):
        if instance["status"] == "CREATED":
            instance["status"] = "IN_PROGRESS"
        elif instance["status"] == "IN_PROGRESS" and chance.random() < 0.3:
            attempt = instance["run_params"]["attempt_id"]["value"]
            token = instance["run_params"]["lease_token"]["value"]
            how = "reports" if flawless else str(chance.choice(["reports", "forgets", "fails", "idles"]))
            if how in {"reports", "forgets"}:
                await plane.trained(attempt, token, report=how == "reports")
            instance["status"] = "FAILED" if how == "fails" else "SUCCEEDED"


def _check(plane: Plane, maestro: Maestro, models: list[ModelId]) -> None:
    """Never two instances of an attempt, nor two live ones of a model; what was given back never ran."""
    uuids = [instance["workflow_uuid"] for instance in maestro.instances]
    assert len(uuids) == len(set(uuids))
    given_back = {attempt.attempt_id for attempt in plane.attempts() if attempt.failure_class is FailureClass.SCHEDULER}
    for model in models:
        live = [
            one["run_params"]["attempt_id"]["value"]
            for one in maestro.instances
            if one["run_params"]["model_id"]["value"] == model and one["status"] in {"CREATED", "IN_PROGRESS"}
        ]
        assert len(live) <= 1
    assert not given_back & {one["run_params"]["attempt_id"]["value"] for one in maestro.instances}
    known = {attempt.attempt_id for attempt in plane.attempts()}
    assert {one["run_params"]["attempt_id"]["value"] for one in maestro.instances} <= known
