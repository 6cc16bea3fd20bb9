"""What a promotion does to 400 models downstream that all drift: no storm.

- storm_max_running: retrains that ever ran at once (at most 50).
- storm_unharmed_retrained: retrains of models that a fresh look found unharmed (none).

One upstream model is promoted; every model below it drifts, three quarters of them are really harmed. Everything goes
through the real rules, minute by minute. Beside it what event-driven retraining does: each downstream model is
retrained at once, in no order, because something upstream changed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bench.table import Row
from control_plane.app.machine import FleetMachine
from control_plane.app.replica import Answer, Replica, Submission
from control_plane.core.commands import (
    Command,
    DeclareDependencies,
    LeaseRetrains,
    PromoteVersion,
    RecordEvaluation,
    RegisterModel,
    RegisterVersion,
    ReportSuccess,
    ReportValidation,
)
from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, NodeId, TeamId
from control_plane.core.plan import plan
from control_plane.core.registry.types import ModelFacts, TaskType, VersionFacts
from control_plane.core.rollout.types import Validation
from control_plane.core.staleness.verdict import Action, Confidence, Evaluation, Level
from control_plane.core.state import State

IDS = ("storm_max_running", "storm_unharmed_retrained")
DOWNSTREAM = 400
START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)
TRAINING = timedelta(minutes=30)
DAYS_MAX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What happened: most at once, the tiers in the order of their leases, who ran, and how long it took."""

    running_max: int
    tiers: tuple[int, ...]
    unharmed_retrained: int
    retrained: int
    hours: float


class Fleet:
    """A control plane without I/O, and one upstream model with all the others below it."""

    def __init__(self) -> None:
        self.replica: Replica[State, Command] = Replica(FleetMachine())
        self.replica.epoch = 1
        self.now = START
        self.names = [ModelId(f"m{number:03d}") for number in range(DOWNSTREAM)]
        self.harmed = {name for number, name in enumerate(self.names) if number % 4}
        self.trainings: dict[str, tuple[datetime, LeaseToken, ModelId]] = {}
        for number, name in enumerate([ModelId("upstream"), *self.names]):
            facts = ModelFacts(
                model_id=name,
                owner="team:bench",
                team=TeamId(f"team{number % 20}"),
                tier=1 + number % 4,
                task_type=TaskType.BINARY,
            )
            self.submit(RegisterModel(facts=facts, policies={"rollout.approvals": 0, "retraining.lease_ttl": "7200s"}))
            self.submit(PromoteVersion(model_id=name, version=self.version(name), force=True))
        edges = tuple(
            Dependency(
                upstream=NodeId("model:upstream"),
                downstream=NodeId(f"model:{name}"),
                edge_type=DependencyType.CONSUMES_OUTPUT,
            )
            for name in self.names
        )
        self.submit(DeclareDependencies(dependencies=edges))

    @property
    def state(self) -> State:
        """What the control plane knows."""
        return self.replica.state

    def submit(self, command: Command) -> Answer:
        """Decide, and take it as stored."""
        answer = self.replica.decide(Submission(command=command, actor="bench", reason=""), self.now)
        batch = self.replica.take()
        if batch is not None:
            self.replica.stored(batch)
        return answer

    def version(self, model_id: ModelId) -> int:
        """Register a version."""
        facts = VersionFacts(artifact_uri="memory:1", artifact_sha256="a" * 64, trained_until=self.now)
        number = self.submit(RegisterVersion(model_id=model_id, facts=facts)).result.version
        assert number is not None
        return number

    def look(self, model_id: ModelId, *, stale: bool) -> None:
        """An evaluation of what serves."""
        production = self.state.models[model_id].production
        assert production is not None
        score = 0.8 if stale else 0.1
        evaluation = Evaluation(
            version=production.number,
            at=self.now,
            level=Level.STALE if stale else Level.FRESH,
            score=score,
            score_low=score,
            score_high=score,
            weighted_average=score,
            noisy_or=score,
            threshold=0.6,
            confidence=Confidence.HIGH,
            confidence_reason="enough of everything",
            signals=(),
            recommended_action=Action.RETRAIN if stale else Action.NONE,
        )
        self.submit(RecordEvaluation(model_id=model_id, evaluation=evaluation))


def storm() -> Storm:
    """Promote the upstream model and let what follows happen."""
    fleet = Fleet()
    fleet.now += timedelta(days=30)
    fleet.submit(PromoteVersion(model_id=ModelId("upstream"), version=fleet.version(ModelId("upstream")), force=True))
    began = fleet.now
    running_max = 0
    tiers: list[int] = []
    retrained: set[ModelId] = set()
    while fleet.now < began + timedelta(days=DAYS_MAX):
        fleet.now += STEP
        for name in fleet.names:
            if name not in retrained:
                # At once after the promotion all drift; later the really harmed still do.
                soon = fleet.now < began + timedelta(hours=2)
                fleet.look(name, stale=name in fleet.harmed or soon)
        for command in plan(fleet.state, fleet.now):
            fleet.submit(command)
        _lease(fleet, tiers)
        running_max = max(running_max, len(fleet.state.running()))
        _finish(fleet, retrained)
        if not fleet.state.live_retrains and len(retrained) >= len(fleet.harmed):
            break
    return Storm(
        running_max=running_max,
        tiers=tuple(tiers),
        unharmed_retrained=len(retrained - fleet.harmed),
        retrained=len(retrained),
        hours=(fleet.now - began) / timedelta(hours=1),
    )


def _lease(fleet: Fleet, tiers: list[int]) -> None:
    tokens = tuple(LeaseToken(f"{fleet.now:%s}-{number}") for number in range(100))
    known = tuple(attempt.attempt_id for r in fleet.state.running() if (attempt := r.running_attempt) is not None)
    answer = fleet.submit(LeaseRetrains(scheduler="bench", lease_tokens=tokens, known_attempt_ids=known))
    for attempt_id in answer.result.attempt_ids:
        retrain = fleet.state.retrain_of_attempt(attempt_id)
        attempt = retrain.running_attempt
        assert attempt is not None
        tiers.append(fleet.state.models[retrain.model_id].facts.tier)
        fleet.trainings[attempt_id] = (fleet.now + TRAINING, attempt.lease_token, retrain.model_id)


def _finish(fleet: Fleet, retrained: set[ModelId]) -> None:
    for name, (ends_at, token, model_id) in list(fleet.trainings.items()):
        if fleet.now < ends_at:
            continue
        del fleet.trainings[name]
        retrained.add(model_id)
        attempt_id = AttemptId(name)
        facts = VersionFacts(artifact_uri="memory:2", artifact_sha256="b" * 64, trained_until=fleet.now)
        registered = RegisterVersion(model_id=model_id, facts=facts, attempt_id=attempt_id, lease_token=token)
        version = fleet.submit(registered).result.version
        assert version is not None
        fleet.submit(ReportSuccess(attempt_id=attempt_id, lease_token=token, version=version))
        validation = Validation(passed=True, metric="auc", candidate=0.8, production=0.7, sample_size=1000)
        fleet.submit(ReportValidation(model_id=model_id, version=version, validation=validation))
        fleet.look(model_id, stale=False)


def run() -> list[Row]:
    """Two rows from one storm."""
    found = storm()
    urgent = found.tiers.count(1)
    first = sum(tier == 1 for tier in found.tiers[:urgent])
    return [
        Row(
            id="storm_max_running",
            value=float(found.running_max),
            unit="retrains",
            peers={"event-driven, at once": float(DOWNSTREAM)},
            note=f"{found.retrained} of {DOWNSTREAM} retrained in {found.hours:.1f} h; of the first {urgent} leases "
            f"{first} were tier 1",
        ),
        Row(
            id="storm_unharmed_retrained",
            value=float(found.unharmed_retrained),
            unit="retrains",
            peers={"event-driven, at once": float(DOWNSTREAM - len(Fleet().harmed))},
            note="a fresh look after the cooldown found them unharmed; all had drifted right after the promotion",
        ),
    ]
