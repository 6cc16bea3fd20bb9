"""A whole control plane and its fake Dagster under a virtual clock: one seed, one history.

The control plane is the real one without I/O: `FleetMachine` in a `Replica`, its log a list that survives crashes. The
scheduler is as bad as they come: it is slow, hangs, crashes, reports late, reports twice, and loses answers. A step is
one virtual minute; everything random comes from one generator.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import zstandard

from control_plane.app.machine import FleetMachine
from control_plane.app.ports import Record, Snapshot
from control_plane.app.replica import Answer, Replica, Submission
from control_plane.core.commands import (
    ApproveRollout,
    CancelRetrain,
    Command,
    DeclareDependencies,
    DeclineRollout,
    HoldRetraining,
    LeaseRetrains,
    RecordEvaluation,
    RegisterModel,
    RegisterVersion,
    ReleaseRetraining,
    RemoveRule,
    RenewLease,
    ReportFailure,
    ReportLoadCheck,
    ReportSuccess,
    ReportValidation,
    RequestRetrain,
    Result,
    SetLifecycle,
    SetLimits,
    SetPolicies,
    SetRule,
)
from control_plane.core.errors import RunwayError
from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, NodeId, TeamId, node_name
from control_plane.core.plan import plan
from control_plane.core.policies import Overrides, overrides_of
from control_plane.core.registry.types import Lifecycle, ModelFacts, TaskType, VersionFacts
from control_plane.core.retraining.types import RetrainCause, RetrainingLimits, RetrainingPolicy
from control_plane.core.rollout.types import RolloutState, Validation, ValidationPolicy
from control_plane.core.rules.types import Rule, RuleAction
from control_plane.core.staleness.verdict import Action, Confidence, Evaluation, Level
from control_plane.core.state import State
from tests.simulation.checkers import Checkers
from tests.simulation.edges import Sources, check_edges
from tests.simulation.hazards import SERVING, Hazards
from tests.simulation.releases import Releases
from tests.simulation.slots import Slots
from tests.simulation.turns import Turns

START = datetime(2013, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

POLICY = RetrainingPolicy(
    cooldown=timedelta(hours=2),
    cascade_cooldown=timedelta(minutes=30),
    lease_ttl=timedelta(minutes=10),
    attempt_timeout=timedelta(minutes=90),
    attempts_max=3,
    retry_backoff=timedelta(minutes=5),
    gpus=1.0,
)
VALIDATION = ValidationPolicy(timeout=timedelta(minutes=30))
OWN: Overrides = (
    overrides_of("retraining", POLICY) | overrides_of("validation", VALIDATION) | {"rollout.approval_ttl": "7200s"}
)
OWN |= SERVING
del OWN["retraining.resource_class"]  # the team says it
LIMITS = RetrainingLimits(
    running_max=4,
    running_per_team_max=2,
    tier1_reserve=2,
    by_team={"team2": 1},
    by_resource_class={"big": 1},
    by_scheduler={"fake": 3},
    gpu_hours_per_week={"team0": 3.0},
)
UNSPENT = RetrainingLimits(running_max=4, running_per_team_max=2)
"""Without budgets and reserves: what waits for next week would never end in a test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Chances, per step or per occasion."""

    crash: float = 0.01
    """The control plane dies, per step."""
    lost_answer: float = 0.1
    """An answer does not reach its caller, who asks again."""
    hang: float = 0.05
    """A training never ends and gives no sign of life."""
    failure: float = 0.15
    late_report: float = 0.25
    late_tick: float = 0.3
    """Nothing looks for what is due, per step."""
    duplicate_report: float = 0.2
    silent_validation: float = 0.1
    bad_candidate: float = 0.25
    forgetful_scheduler: float = 0.02
    """The scheduler restarts and forgets what it runs, per step."""


QUIET = Faults(
    crash=0,
    lost_answer=0,
    hang=0,
    failure=0,
    late_report=0,
    late_tick=0,
    duplicate_report=0,
    silent_validation=0,
    bad_candidate=0,
    forgetful_scheduler=0,
)


@dataclass(slots=True)
class Training:
    """A run in the fake Dagster."""

    model_id: ModelId
    attempt_id: AttemptId
    token: LeaseToken
    ends_at: datetime
    hangs: bool
    fails: bool
    report_at: datetime
    done: bool = False


@dataclass(slots=True)
class World:
    """Everything of one history."""

    seed: int
    faults: Faults = field(default_factory=Faults)
    models: int = 14
    rng: np.random.Generator = field(init=False)
    now: datetime = START
    log: list[Record] = field(default_factory=list)
    snapshot: Snapshot | None = None
    replica: Replica[State, Command] = field(init=False)
    checkers: Checkers = field(init=False)
    trainings: dict[AttemptId, Training] = field(default_factory=dict)
    answers: dict[str, Result] = field(default_factory=dict)
    requests: int = 0
    epoch: int = 1
    met: Counter[str] = field(default_factory=Counter)
    """Faults that have happened, by name."""

    sources: Sources = field(init=False)
    hazards: Hazards = field(init=False)
    slots: Slots = field(default_factory=Slots)
    releases: Releases = field(default_factory=Releases)
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        self.sources = Sources(self.seed, self.models)
        self.rng = np.random.default_rng(self.seed)
        self.checkers = Checkers(limits=LIMITS, policy=POLICY)
        self.turns = Turns(self._above)
        self.replica = Replica(FleetMachine())
        self.replica.epoch = self.epoch
        self.hazards = Hazards(self, self.seed)
        self.hazards.begin()
        self._register()

    # The control plane

    @property
    def state(self) -> State:
        """What the control plane knows."""
        return self.replica.state

    def submit(self, command: Command, actor: str = "simulation") -> Answer | RunwayError:
        """Send a command as a client does: the same request id until an answer arrives."""
        self.requests += 1
        request_id = f"request-{self.requests}"
        while True:
            answer = self._decide_and_store(command, request_id, actor)
            if isinstance(answer, Answer) and answer.result is not None:
                self.checkers.answered(request_id, answer)
            if not self._fault("lost_answer"):
                return answer

    def _decide_and_store(self, command: Command, request_id: str, actor: str) -> Answer | RunwayError:
        submission = Submission(command=command, request_id=request_id, actor=actor, reason="")
        while True:
            try:
                answer = self.replica.decide(submission, self.now)
            except RunwayError as error:
                return error
            if self._fault("crash"):
                # Dies between deciding and storing: nobody saw it, it never happened.
                self.crash()
                continue
            self._store()
            if self._fault("crash"):
                # Dies between storing and answering: the client asks again.
                self.crash()
                continue
            return answer

    def _store(self) -> None:
        batch = self.replica.take()
        if batch is None:
            return
        self.log.extend(batch.records)
        self.replica.stored(batch)
        for envelope in batch.envelopes:
            self.checkers.happened(envelope)
            self.slots.happened(envelope)
            self.turns.happened(envelope)
            self.releases.happened(envelope)
        self.releases.decided_all()

    def crash(self) -> None:
        """Lose the memory, recover from snapshot and log; both ways to the state must agree."""
        self.epoch += 1
        whole = Replica(FleetMachine())
        whole.replay(self.log)
        recovered = Replica(FleetMachine())
        if self.snapshot is not None:
            recovered.restore(self.snapshot)
        recovered.replay(self.log[recovered.durable :])
        machine = FleetMachine()
        assert machine.encode_snapshot(whole.state) == machine.encode_snapshot(recovered.state)
        self.replica = recovered
        self.replica.epoch = self.epoch

    def take_snapshot(self) -> None:
        """As the node does from time to time."""
        seq, digest, blob = self.replica.snapshot()
        self.snapshot = Snapshot(seq=seq, hash=digest, codec=FleetMachine.snapshot_codec, blob=zstandard.compress(blob))

    def _above(self, model_id: str) -> frozenset[str]:
        """Models upstream of one, by every edge that counts, declared or discovered."""
        return frozenset(node_name(node) for node in self.state.graph.upstream_models(NodeId(f"model:{model_id}")))

    # The fleet

    def _register(self) -> None:
        self.submit(SetLimits(limits=LIMITS))
        names = [ModelId(f"m{number:02d}") for number in range(self.models)]
        for number, name in enumerate(names):
            facts = ModelFacts(
                model_id=name,
                owner="team:sim",
                team=TeamId(f"team{number % 3}"),
                tier=1 + number % 4,
                task_type=TaskType.BINARY,
            )
            self.submit(RegisterModel(facts=facts, policies=OWN))
        edges = [
            Dependency(
                upstream=NodeId(f"model:{names[first]}"),
                downstream=NodeId(f"model:{names[second]}"),
                edge_type=DependencyType.CONSUMES_OUTPUT,
            )
            for first in range(self.models)
            for second in range(first + 1, self.models)
            if self._chance(0.2)
        ]
        self.checkers.edges(edges)
        if edges:
            self.submit(DeclareDependencies(dependencies=tuple(edges)))

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _fault(self, name: str) -> bool:
        """Does a fault of this name happen now? Counted, so that a suite can show what it has met."""
        happens = self._chance(getattr(self.faults, name))
        if happens:
            self.met[name] += 1
        return happens

    def _model(self) -> ModelId:
        return ModelId(f"m{int(self.rng.integers(self.models)):02d}")

    # One minute

    def step(self, *, demand: bool = True) -> None:
        """One virtual minute: people and evidence, what is due, the scheduler, its reports."""
        self.now += MINUTE
        if demand:
            self._demand()
        if not self._fault("late_tick"):
            for command in plan(self.state, self.now):
                self.submit(command, actor="runway")
        if self._fault("forgetful_scheduler"):
            for training in self.trainings.values():
                training.done = training.done or self._chance(0.5)
        self._approve()
        self.hazards.step()
        self._lease()
        for training in list(self.trainings.values()):
            self._advance(training)
        if self._chance(0.02):
            self.take_snapshot()
        if self._fault("crash"):
            self.crash()

    def _demand(self) -> None:
        if self._chance(0.15):
            self.submit(
                RequestRetrain(model_id=self._model(), cause=RetrainCause.OPERATOR, ignore_cooldown=self._chance(0.3))
            )
        if self._chance(0.3):
            self._evaluate(self._model())
        if self._chance(0.02) and self.state.live_retrains:
            live = list(self.state.live_retrains)
            self.submit(CancelRetrain(retrain_id=live[int(self.rng.integers(len(live)))]))
        self._govern()
        for command in self.sources.commands(self.state, self.now):
            self.submit(command)
        check_edges(self.state)
        if self._chance(0.01):
            self.submit(ReleaseRetraining() if self.state.held else HoldRetraining())

    def _approve(self) -> None:
        """People look at what waits for them, sooner or later; whoever asked tries too."""
        for rollout in list(self.state.rolling()):
            if rollout.state is RolloutState.AWAITING_APPROVAL and self._chance(0.1):
                self.submit(ApproveRollout(rollout_id=rollout.rollout_id, approver=rollout.requested_by))
                if self._chance(0.8):
                    self.submit(ApproveRollout(rollout_id=rollout.rollout_id, approver="a person"))
                else:
                    self.submit(DeclineRollout(rollout_id=rollout.rollout_id, by="a person"))

    def _rule(self) -> None:
        """Somebody says what follows from a look, or no more."""
        scopes = ("fleet", "tier:2", "team:team1", f"model:{self._model()}")
        scope = scopes[int(self.rng.integers(len(scopes)))]
        name = f"rule{int(self.rng.integers(3))}"
        if self._chance(0.4):
            self.submit(RemoveRule(scope=scope, name=name))
            return
        texts = ("verdict == STALE", "score < 0.5", "true", "tier / (tier - 2) > 0", "retrain.hours_since > 3.0")
        rule = Rule(
            name=name,
            scope=scope,
            when=texts[int(self.rng.integers(len(texts)))],
            action=list(RuleAction)[int(self.rng.integers(len(RuleAction)))],
            priority=int(self.rng.integers(3)),
        )
        self.submit(SetRule(rule=rule))

    def _govern(self) -> None:
        """Somebody sets a policy, ends or revives a model, or tries to load a version."""
        if self._chance(0.03):
            scopes = ["fleet", "tier:1", "tier:3", "team:team0", "team:team2", f"model:{self._model()}"]
            scope = scopes[int(self.rng.integers(len(scopes)))]
            said: Overrides = dict(OWN) if scope.startswith("model:") else {}
            if self._chance(0.6):
                said["rollout.require_load_check"] = self._chance(0.6)
            if self._chance(0.3):
                said["staleness.window_days"] = float(self.rng.integers(1, 30))
            self.submit(SetPolicies(scope=scope, overrides=said))
        if self._chance(0.05):
            self._rule()
        if self._chance(0.02):
            life = (Lifecycle.RETIRED, Lifecycle.ACTIVE, Lifecycle.ACTIVE, Lifecycle.DEPRECATED)
            chosen = life[int(self.rng.integers(len(life)))]
            self.submit(SetLifecycle(model_id=self._model(), lifecycle=chosen, force=self._chance(0.5)))
        if self._chance(0.05):
            model_id = self._model()
            versions = len(self.state.models[model_id].versions)
            if versions:
                self._load(model_id, int(self.rng.integers(1, versions + 1)))

    def _load(self, model_id: ModelId, version: int) -> None:
        self.submit(ReportLoadCheck(model_id=model_id, version=version, passed=self._chance(0.8)))

    def _evaluate(self, model_id: ModelId) -> None:
        production = self.state.models[model_id].production
        if production is None:
            return
        stale = self._chance(0.5)
        self.submit(
            RecordEvaluation(
                model_id=model_id,
                evaluation=_look(production.number, self.now, stale=stale),
            )
        )

    # The fake Dagster

    def _lease(self) -> None:
        known = tuple(t.attempt_id for t in self.trainings.values() if not t.done)
        tokens = tuple(LeaseToken(f"token-{self.rng.integers(2**62)}") for _ in range(3))
        answer = self.submit(LeaseRetrains(scheduler="fake", lease_tokens=tokens, known_attempt_ids=known))
        if not isinstance(answer, Answer) or self._fault("lost_answer"):
            return
        for attempt_id in answer.result.attempt_ids:
            retrain = self.state.retrain_of_attempt(attempt_id)
            attempt = retrain.running_attempt
            if attempt is None or attempt.attempt_id != attempt_id:
                continue
            before = self.trainings.get(attempt_id)
            if before is not None and not before.done:
                continue
            if not self.hazards.starts(attempt_id, attempt):
                continue
            ends_at = self.now + MINUTE * int(self.rng.integers(1, 25))
            late = MINUTE * int(self.rng.integers(5, 60)) if self._fault("late_report") else timedelta(0)
            self.trainings[attempt_id] = Training(
                model_id=retrain.model_id,
                attempt_id=attempt_id,
                token=attempt.lease_token,
                ends_at=ends_at,
                hangs=self._fault("hang"),
                fails=self._fault("failure"),
                report_at=ends_at + late,
            )

    def _advance(self, training: Training) -> None:
        if training.done or training.hangs:
            return
        if self.now < training.ends_at:
            if isinstance(
                self.submit(RenewLease(attempt_id=training.attempt_id, lease_token=training.token)), RunwayError
            ):
                training.done = True
            return
        if self.now < training.report_at:
            return
        training.done = True
        for _ in range(1 + int(self._fault("duplicate_report"))):
            self._report(training)

    def _report(self, training: Training) -> None:
        if training.fails:
            self.submit(
                ReportFailure(attempt_id=training.attempt_id, lease_token=training.token, failure="out of memory")
            )
            return
        registered = self.submit(
            RegisterVersion(
                model_id=training.model_id,
                facts=VersionFacts(
                    artifact_uri=f"memory:{training.attempt_id}", artifact_sha256="a" * 64, trained_until=self.now
                ),
                attempt_id=training.attempt_id,
                lease_token=training.token,
            )
        )
        if not isinstance(registered, Answer) or registered.result.version is None:
            return
        version = registered.result.version
        if self._chance(0.6):
            self._load(training.model_id, version)
        reported = self.submit(
            ReportSuccess(attempt_id=training.attempt_id, lease_token=training.token, version=version)
        )
        if isinstance(reported, Answer) and not self._fault("silent_validation"):
            validation = Validation(
                passed=not self._fault("bad_candidate"), metric="auc", candidate=0.7, sample_size=1000
            )
            self.checkers.validated(training.model_id, version, validation)
            self.hazards.candidate(training.model_id, version)
            self.hazards.validate(ReportValidation(model_id=training.model_id, version=version, validation=validation))

    # Histories

    def run(self, steps: int) -> None:
        """A history with faults, then quiet until the queue is empty."""
        for _ in range(steps):
            self.step()
        self.drain()

    def drain(self, steps_max: int = 3_000) -> None:
        """Stop the faults; every retrain must come to its end."""
        self.faults = QUIET
        self.submit(ReleaseRetraining())
        self.submit(SetLimits(limits=UNSPENT))
        self.hazards.stop()
        for version in self.state.rules.all_versions():
            # A rule that always asks would fill the queue for ever.
            self.submit(RemoveRule(scope=version.scope, name=version.name))
        for training in self.trainings.values():
            training.done = training.done or training.hangs
        for _ in range(steps_max):
            for model_id in list(self.state.models):
                self._calm(model_id)
            self.step(demand=False)
            if not self.state.live_retrains:
                break
        self.checkers.at_rest(self.state)
        self.slots.at_rest()
        self.releases.at_rest(self.state)

    def _calm(self, model_id: ModelId) -> None:
        """A good look at a model, so that nothing new is asked for."""
        record = self.state.models[model_id]
        production = record.production
        cooled = record.cascade is not None and record.cascade.harmed is None and self.now >= record.cascade.until
        if production is None or (record.standing.level is Level.FRESH and not cooled):
            return
        fresh = _look(production.number, self.now, stale=False)
        self.submit(RecordEvaluation(model_id=model_id, evaluation=fresh))


def _look(version: int, now: datetime, *, stale: bool) -> Evaluation:
    score = 0.8 if stale else 0.1
    return Evaluation(
        version=version,
        at=now,
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
