"""A real control plane in memory (node, rules, log) with a canary about to begin, and a driver beside it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from control_plane.adapters.memory.server import MemoryEventLog, MemoryLeadership, MemoryServer, MemorySnapshotStore
from control_plane.app.chain import first_bad
from control_plane.app.machine import FleetMachine
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.app.rollout_driver import RolloutDriver
from control_plane.app.serving import ServingSystem
from control_plane.core.commands import (
    Command,
    LeaseRetrains,
    PromoteVersion,
    RegisterModel,
    RegisterVersion,
    ReportSuccess,
    ReportValidation,
    RequestRetrain,
    Result,
)
from control_plane.core.ids import LeaseToken, ModelId, TeamId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import ModelFacts, TaskType, VersionFacts
from control_plane.core.retraining.types import RetrainCause
from control_plane.core.rollout.types import Rollout, Validation
from control_plane.core.state import State

START = datetime(2026, 3, 2, tzinfo=UTC)
SERVED: Overrides = {
    "rollout.serving": "fake",
    "rollout.steps": "5%, 20%, 50%",
    "rollout.bake": "600s",
    "rollout.observations_min": 1000,
    "rollout.metrics": "engagement higher 3%",
}


@dataclass(slots=True)
class TestClock:
    """Moves when told."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at


@dataclass(slots=True)
class Plane:
    """One control plane. `seconds` is the driver's monotonic clock."""

    server: MemoryServer = field(default_factory=lambda: MemoryServer(first_bad))
    clock: TestClock = field(default_factory=TestClock)
    seconds: float = 1_000.0
    artifacts: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """URI and digest of versions by number, where a test needs real ones."""
    node: Node[State, Command] = field(init=False)
    driver: RolloutDriver = field(init=False)

    async def begin(self, systems: Mapping[str, ServingSystem], call_s_max: float = 5.0) -> None:
        """Lead, with a new driver that remembers nothing."""
        self.node = Node(
            machine=FleetMachine(),
            event_log=MemoryEventLog(self.server),
            snapshots=MemorySnapshotStore(self.server),
            leadership=MemoryLeadership(self.server),
            clock=self.clock,
            tick_s=3600.0,
        )
        await self.node.start()
        self.driver = RolloutDriver(
            node=self.node, systems=systems, tick_s=0.01, call_s_max=call_s_max, monotonic=lambda: self.seconds
        )

    async def end(self) -> None:
        """Stop both."""
        await self.driver.stop()
        await self.node.stop()

    async def do(self, command: Command) -> Result:
        """Submit as an operator."""
        answer = await self.node.submit(Submission(command=command, actor="ann", reason="a test"))
        return answer.result

    async def pass_time(self, span: timedelta) -> None:
        """Let time pass, do what is due, and drive."""
        self.clock.at += span
        self.seconds += span.total_seconds()
        await self.node.tick()
        await self.driver.turn()

    async def model(self, name: str = "m", policies: Overrides = SERVED) -> ModelId:
        """A model with version 1 in production."""
        model_id = ModelId(name)
        facts = ModelFacts(model_id=model_id, owner="team:ml", team=TeamId("ml"), tier=3, task_type=TaskType.BINARY)
        await self.do(RegisterModel(facts=facts, policies=policies))
        await self.do(RegisterVersion(model_id=model_id, facts=self._facts(1)))
        await self.do(PromoteVersion(model_id=model_id, version=1, force=True))
        return model_id

    async def candidate(self, model_id: ModelId) -> Rollout:
        """Another version of a model, validated: its rollout."""
        await self.validate(await self.trained(model_id))
        return self.rollout(model_id)

    async def trained(self, model_id: ModelId) -> Rollout:
        """Another version of a model that waits for its validation: its rollout."""
        await self.do(RequestRetrain(model_id=model_id, cause=RetrainCause.OPERATOR, ignore_cooldown=True))
        token = LeaseToken(f"t{self.node.state.revision}")
        (attempt,) = (await self.do(LeaseRetrains(scheduler="dagster", lease_tokens=(token,)))).attempt_ids
        made = await self.do(
            RegisterVersion(
                model_id=model_id,
                facts=self._facts(len(self.node.state.models[model_id].versions) + 1),
                attempt_id=attempt,
                lease_token=token,
            )
        )
        number = made.version or 0
        await self.do(ReportSuccess(attempt_id=attempt, lease_token=token, version=number))
        return self.rollout(model_id)

    async def validate(self, rollout: Rollout) -> None:
        """It is as good as production."""
        validation = Validation(passed=True, metric="auc", candidate=0.8, production=0.8, sample_size=1_000)
        await self.do(ReportValidation(model_id=rollout.model_id, version=rollout.version, validation=validation))

    def rollout(self, model_id: ModelId) -> Rollout:
        """The newest rollout of a model."""
        state = self.node.state
        return state.rollouts[state.models[model_id].rollout_ids[-1]]

    def _facts(self, number: int) -> VersionFacts:
        uri, sha256 = self.artifacts.get(number, (f"s3://m/{number}", f"{number:064x}"))
        return VersionFacts(artifact_uri=uri, artifact_sha256=sha256, trained_until=self.clock.at)


@asynccontextmanager
async def leading(systems: Mapping[str, ServingSystem], call_s_max: float = 5.0) -> AsyncIterator[Plane]:
    """A plane that leads."""
    plane = Plane()
    await plane.begin(systems, call_s_max)
    try:
        yield plane
    finally:
        await plane.end()
