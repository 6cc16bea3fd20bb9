"""A year of a large fleet in minutes: the real rules, driven by a heap of virtual times.

Nothing happens between two times on the heap, so nothing is computed there: models are looked at by their cadence,
trainings renew and report, canaries are looked at, people answer, schedulers fail and come back. After anything that
changed the state, and every ten minutes anyway, the control plane's own `plan` is asked what is due. One seed, one
year; every event goes past the checkers, which know the events and none of the rules.

The fleet: domains of fifty models in five layers, each model fed by about ten others of its domain, some shared ones
above them which feed many domains.
"""

import gc
import heapq
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import zstandard
from msgspec.structs import replace

from control_plane.app.machine import FleetMachine
from control_plane.app.ports import Record, Snapshot
from control_plane.app.replica import Answer, Replica, Submission
from control_plane.core.commands import (
    AbortRollout,
    ApproveRollout,
    Command,
    DeclareDependencies,
    DeclineRollout,
    LeaseRetrains,
    OpenBreaker,
    PromoteVersion,
    RecordEvaluation,
    RecordLook,
    RecordProbe,
    RegisterModel,
    RegisterVersion,
    RenewLease,
    ReportFailure,
    ReportSuccess,
    ReportValidation,
    ReportWeight,
    SetFreeze,
    SetLimits,
    SetPolicies,
)
from control_plane.core.errors import RunwayError
from control_plane.core.events import CascadeCooldownStarted, RolloutEnded, RolloutStarted, RolloutStepped, event_kind
from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, NodeId, RolloutId, TeamId
from control_plane.core.plan import plan
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import ModelFacts, TaskType, VersionFacts
from control_plane.core.retraining.breaker import Call, CallOutcome, tripped
from control_plane.core.retraining.types import (
    BreakerState,
    FailureClass,
    RetrainingLimits,
    RetrainingPolicy,
    RetrainState,
)
from control_plane.core.rollout.types import FreezeWindow, RolloutState, Validation
from control_plane.core.staleness.verdict import Action, Confidence, Evaluation, Level
from control_plane.core.state import State
from tests.simulation.arms import Arms, Traffic
from tests.simulation.checkers import Checkers
from tests.simulation.releases import Releases
from tests.simulation.slots import Slots

START = datetime(2013, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SCHEDULERS = ("dagster", "airflow", "maestro")
DOMAIN, LAYERS = 50, 5
POLICY = RetrainingPolicy(lease_ttl=timedelta(minutes=20), gpus=1.0)
LIMITS = RetrainingLimits(
    running_max=50, running_per_team_max=10, tier1_reserve=5, by_scheduler={"airflow": 20, "maestro": 20}
)
TOLERANCE = 0.03
BAD = -0.2
"""So much worse than tolerated that a judge who lets it pass is wrong, not unlucky: more than ten standard errors."""
SOON = 10 * MINUTE
"""After a change the control plane's own clock comes round."""
SNAPSHOT_EVENTS = 50_000
QUIET = Evaluation(
    version=1,
    at=START,
    level=Level.FRESH,
    score=0.1,
    score_low=0.1,
    score_high=0.1,
    weighted_average=0.1,
    noisy_or=0.1,
    threshold=0.6,
    confidence=Confidence.HIGH,
    confidence_reason="enough of everything",
    signals=(),
)
LOUD = replace(QUIET, level=Level.STALE, score=0.8, score_low=0.8, score_high=0.8, recommended_action=Action.RETRAIN)


@dataclass(slots=True)
class Run:
    """A training in some scheduler."""

    model_id: ModelId
    attempt_id: AttemptId
    token: LeaseToken
    scheduler: str
    ends_at: datetime
    hangs: bool
    failure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of a year."""

    events: int
    evaluations: int
    retrains: int
    promotions: int
    refusals: int
    rollbacks: int
    running_max: int
    openings: int
    failovers: int
    kinds: dict[str, int]


@dataclass(slots=True)
class Year:
    """Everything of one history."""

    seed: int
    models: int = 5_000
    edges: int = 50_000
    days: int = 365
    rng: np.random.Generator = field(init=False)
    now: datetime = START
    replica: Replica[State, Command] = field(init=False)
    checkers: Checkers = field(init=False)
    slots: Slots = field(init=False)
    releases: Releases = field(init=False)
    heap: list[tuple[datetime, int, Callable[[], None]]] = field(default_factory=list)
    pushed: int = 0
    tick_at: datetime | None = None
    tail: list[Record] = field(default_factory=list)
    """What the log holds since the newest snapshot."""
    snapshot: Snapshot | None = None
    requests: int = 0
    evaluations: int = 0
    failovers: int = 0
    stale_at: dict[ModelId, datetime] = field(default_factory=dict)
    down_until: dict[str, datetime] = field(default_factory=dict)
    calls: dict[str, deque[Call]] = field(default_factory=dict)
    runs: dict[AttemptId, Run] = field(default_factory=dict)
    effects: dict[tuple[ModelId, int], float] = field(default_factory=dict)
    arms: dict[RolloutId, Arms] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    openings: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.checkers = Checkers(limits=LIMITS, policy=POLICY)
        self.slots = Slots()
        self.releases = Releases()
        self.replica = Replica(FleetMachine())
        self.replica.epoch = 1
        self.down_until = dict.fromkeys(SCHEDULERS, START)
        self.calls = {name: deque(maxlen=200) for name in SCHEDULERS}

    @property
    def state(self) -> State:
        """What the control plane knows."""
        return self.replica.state

    @property
    def end(self) -> datetime:
        """When the faults stop."""
        return START + self.days * DAY

    # Commands and their events

    def submit(self, command: Command, actor: str = "simulation", *, twice: bool = False) -> Answer | RunwayError:
        """Send a command under a request id; sometimes the answer is lost and it is sent again."""
        self.requests += 1
        submission = Submission(command=command, request_id=f"r{self.requests}", actor=actor, reason="simulated")
        answer = self._decide(submission)
        if isinstance(answer, Answer) and (twice or self._chance(0.01)):
            again = self._decide(submission)
            assert isinstance(again, Answer) and again.result == answer.result, "the same request was answered anew"
        return answer

    def _decide(self, submission: Submission[Command]) -> Answer | RunwayError:
        try:
            answer = self.replica.decide(submission, self.now)
        except RunwayError as error:
            return error
        batch = self.replica.take()
        if batch is None:
            return answer
        self.tail.extend(batch.records)
        self.replica.stored(batch)
        for envelope in batch.envelopes:
            self.kinds[event_kind(envelope.event)] += 1
            self.checkers.happened(envelope)
            self.slots.happened(envelope)
            self.releases.happened(envelope)
        self.releases.decided_all()
        for envelope in batch.envelopes:
            self._react(envelope.event)
        self._tick_soon()
        return answer

    def _react(self, event: object) -> None:
        """What the rest of the world does about an event."""
        match event:
            case RolloutStarted():
                self._later(self._spread(90 * MINUTE), lambda: self._validate(event))
            case RolloutStepped():
                self.arms.setdefault(event.rollout_id, self._arms(event.model_id, event.version))
                self._later(MINUTE, lambda: self._weight(event.rollout_id))
                if event.step <= 0:
                    self._later(HOUR / 2, lambda: self._look(event.rollout_id))
            case RolloutEnded():
                if event.rollout_id in self.arms:
                    self._later(MINUTE, lambda: self._weight(event.rollout_id))
                if event.state is RolloutState.PROMOTED:
                    self._promoted(event.model_id)
            case CascadeCooldownStarted():
                for model_id in sorted(event.until):
                    # Most new versions fit what stands below them; some do not.
                    if self._chance(0.02):
                        self.stale_at[model_id] = self.now
                    if self._chance(0.1):  # an evaluator that looks as soon as the cooldown is over
                        until = event.until[model_id] - self.now
                        self._later(until + MINUTE, lambda model_id=model_id: self._evaluate(model_id))  # type: ignore[misc]
            case _:
                pass

    def _later(self, wait: timedelta, what: Callable[[], None]) -> None:
        self.pushed += 1
        heapq.heappush(self.heap, (self.now + wait, self.pushed, what))

    def _tick_soon(self) -> None:
        if self.tick_at is None or self.tick_at > self.now + SOON:
            self.tick_at = self.now + SOON
            self._later(SOON, self._tick)

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _spread(self, mean: timedelta) -> timedelta:
        return mean * float(self.rng.gamma(4.0, 0.25))

    # The fleet

    def build(self) -> None:
        """Register everything, with a version in production."""
        self._decide_plain(SetLimits(limits=LIMITS))
        fleet: Overrides = {
            "retraining.lease_ttl": "1200s",
            "retraining.gpus": 1.0,
            "rollout.metrics": "engagement higher 3%",
            "rollout.observations_min": 3_000,
        }
        self._decide_plain(SetPolicies(scope="fleet", overrides=fleet))
        for tier in (1, 2):
            self._decide_plain(SetPolicies(scope=f"tier:{tier}", overrides={"rollout.serving": "edge"}))
        teams = math.ceil(self.models / DOMAIN)
        for team in range(teams):
            scheduler = SCHEDULERS[team % len(SCHEDULERS)]
            self._decide_plain(SetPolicies(scope=f"team:team{team}", overrides={"retraining.scheduler": scheduler}))
            self.slots.schedulers[f"team{team}"] = scheduler
        for number in range(self.models):
            self._register(number)
        edges = self._edges()
        self.checkers.edges(edges)
        for first in range(0, len(edges), 1_000):
            self._decide_plain(DeclareDependencies(dependencies=tuple(edges[first : first + 1_000])))

    def _decide_plain(self, command: Command) -> None:
        answer = self._decide(Submission(command=command, actor="operator", reason="the beginning"))
        assert isinstance(answer, Answer), answer

    def _register(self, number: int) -> None:
        model_id = ModelId(f"m{number:05d}")
        draw = self.rng.random()
        tier = 1 if draw < 0.05 else 2 if draw < 0.25 else 3 if draw < 0.6 else 4
        facts = ModelFacts(
            model_id=model_id,
            owner="team:sim",
            team=TeamId(f"team{number // DOMAIN}"),
            tier=tier,
            task_type=TaskType.BINARY,
        )
        self._decide_plain(RegisterModel(facts=facts, policies={}))
        version = VersionFacts(artifact_uri="memory:first", artifact_sha256="a" * 64, trained_until=START)
        self._decide_plain(RegisterVersion(model_id=model_id, facts=version))
        self.releases.forced(model_id, 1)
        self.checkers.passed.add((model_id, 1))
        self._decide_plain(PromoteVersion(model_id=model_id, version=1, force=True, by="operator"))
        # Nobody's fleet begins all fresh.
        self.stale_at[model_id] = START + timedelta(days=float(self.rng.uniform(0, 80)))
        cadence = 6 * HOUR if tier == 1 else DAY
        self._later(cadence * float(self.rng.random()), lambda: self._cadence(model_id, cadence))

    def _edges(self) -> list[Dependency]:
        """Ten upstreams each: nine in the domain's layers above, or shared ones that feed several domains."""
        pairs: set[tuple[int, int]] = set()
        shared = max(self.models // 250, 1)
        domains = math.ceil(self.models / DOMAIN)
        for domain in range(domains):
            first, last = domain * DOMAIN, min((domain + 1) * DOMAIN, self.models)
            for one in self.rng.integers(0, shared, 3):
                for to in self.rng.integers(first, last, 3):
                    # Shared ones are the first models of the domains; edges go from lower to higher numbers only.
                    up, down = int(one) * DOMAIN, int(to)
                    if up < down:
                        pairs.add((up, down))
        while len(pairs) < self.edges:
            domain = int(self.rng.integers(domains))
            low, high = domain * DOMAIN, min((domain + 1) * DOMAIN, self.models)
            a, b = sorted(int(n) for n in self.rng.integers(low, high, 2))
            if (a - low) * LAYERS // DOMAIN < (b - low) * LAYERS // DOMAIN:
                pairs.add((a, b))
        return [
            Dependency(
                upstream=NodeId(f"model:m{a:05d}"),
                downstream=NodeId(f"model:m{b:05d}"),
                edge_type=DependencyType.CONSUMES_OUTPUT,
            )
            for a, b in sorted(pairs)
        ]

    # Staleness

    def _cadence(self, model_id: ModelId, every: timedelta) -> None:
        if not self._chance(0.005):  # metrics are silent now and then
            self._evaluate(model_id)
        if not self.ended:
            self._later(every, lambda: self._cadence(model_id, every))

    def _evaluate(self, model_id: ModelId) -> None:
        production = self.state.models[model_id].production
        if production is None:
            return
        stale = self.now >= self.stale_at[model_id] and not self.ended
        self.evaluations += 1
        look = replace(LOUD if stale else QUIET, version=production.number, at=self.now)
        self._decide(Submission(command=RecordEvaluation(model_id=model_id, evaluation=look), actor="runway"))

    def _promoted(self, model_id: ModelId) -> None:
        self.stale_at[model_id] = self.now + timedelta(days=float(self.rng.gamma(4.0, 22.0)))

    # Schedulers

    def _tick(self) -> None:
        """The control plane's clock: what is due, and what its schedulers take."""
        if self.tick_at != self.now:
            return
        self.tick_at = None
        for command in plan(self.state, self.now):
            self._decide(Submission(command=command, actor="runway"))
        if any(one.state is RetrainState.WAITING and one.not_before <= self.now for one in self.state.living()):
            for scheduler in SCHEDULERS:
                self._lease(scheduler)
        if len(self.tail) >= SNAPSHOT_EVENTS:
            self._snapshot()
        if self.tick_at is None:
            self.tick_at = self.now + 10 * MINUTE
            self._later(10 * MINUTE, self._tick)

    def _lease(self, scheduler: str) -> None:
        if not self.state.live_retrains:
            return
        tokens = tuple(LeaseToken(f"t{self.requests}-{n}") for n in range(10))
        known = tuple(run.attempt_id for run in self.runs.values() if run.scheduler == scheduler)
        command = LeaseRetrains(scheduler=scheduler, lease_tokens=tokens, known_attempt_ids=known)
        answer = self._decide(Submission(command=command, actor=scheduler))
        if not isinstance(answer, Answer):
            return
        for attempt_id in answer.result.attempt_ids:
            self._start(scheduler, attempt_id)

    def _start(self, scheduler: str, attempt_id: AttemptId) -> None:
        retrain = self.state.retrain_of_attempt(attempt_id)
        attempt = retrain.running_attempt
        assert attempt is not None and attempt_id not in self.runs, f"{attempt_id} was given twice"
        failed = self.now < self.down_until[scheduler]
        outcome = CallOutcome.FAILED if failed else CallOutcome.SUCCEEDED
        self.calls[scheduler].append(Call(self.now, outcome, "503"))
        breaker = self.state.breakers.get(scheduler)
        half = breaker is not None and breaker.state is BreakerState.HALF_OPEN
        if failed:
            lost = ReportFailure(
                attempt_id=attempt_id,
                lease_token=attempt.lease_token,
                failure="the scheduler said 503",
                failure_class=FailureClass.SCHEDULER,
            )
            self.submit(lost, scheduler)
            why = tripped(list(self.calls[scheduler]), self.now)
            if why:
                self.openings += 1
                self.calls[scheduler].clear()
                self.submit(OpenBreaker(scheduler=scheduler, reason=why, jitter=float(self.rng.random())))
            return
        if half:
            self.submit(RecordProbe(scheduler=scheduler, succeeded=True, detail="", jitter=float(self.rng.random())))
        takes = min(self._spread(30 * MINUTE), 5 * HOUR)
        failure = ""
        if self._chance(0.06):
            texts = ("CUDA out of memory", "partition of today is missing", "preempted by the cluster", "KeyError: 'x'")
            failure = texts[int(self.rng.integers(len(texts)))]
        run = Run(
            model_id=retrain.model_id,
            attempt_id=attempt_id,
            token=attempt.lease_token,
            scheduler=scheduler,
            ends_at=self.now + takes,
            hangs=self._chance(0.01),
            failure=failure,
        )
        self.runs[attempt_id] = run
        self._later(min(takes, 10 * MINUTE), lambda: self._advance(run))

    def _advance(self, run: Run) -> None:
        if run.attempt_id not in self.runs:
            return
        if run.hangs or (self.now < self.down_until[run.scheduler] and self._chance(0.5)):
            # No sign of life: its lease will run out, whatever it does.
            self._later(30 * MINUTE, lambda: self._forget(run))
            return
        if self.now < run.ends_at:
            renewed = self.submit(RenewLease(attempt_id=run.attempt_id, lease_token=run.token), run.scheduler)
            if isinstance(renewed, RunwayError):
                self.runs.pop(run.attempt_id)
                return
            self._later(min(run.ends_at - self.now, 10 * MINUTE), lambda: self._advance(run))
            return
        self.runs.pop(run.attempt_id)
        if not self._chance(0.01):  # a report is lost: its lease runs out
            self._report(run, twice=self._chance(0.02))

    def _forget(self, run: Run) -> None:
        self.runs.pop(run.attempt_id, None)

    def _report(self, run: Run, *, twice: bool) -> None:
        if run.failure:
            failed = ReportFailure(attempt_id=run.attempt_id, lease_token=run.token, failure=run.failure)
            self.submit(failed, run.scheduler, twice=twice)
            return
        made = VersionFacts(artifact_uri=f"memory:{run.attempt_id}", artifact_sha256="a" * 64, trained_until=self.now)
        registered = self.submit(
            RegisterVersion(model_id=run.model_id, facts=made, attempt_id=run.attempt_id, lease_token=run.token),
            run.scheduler,
        )
        if isinstance(registered, Answer) and registered.result.version is not None:
            version = registered.result.version
            done = ReportSuccess(attempt_id=run.attempt_id, lease_token=run.token, version=version)
            self.submit(done, run.scheduler, twice=twice)

    def outage(self, scheduler: str) -> None:
        """A scheduler answers nothing for some hours; the next outage follows some weeks later."""
        if self.ended:
            return
        lasts = self._spread(4 * HOUR)
        self.down_until[scheduler] = self.now + lasts
        self._later(self._spread(30 * DAY), lambda: self.outage(scheduler))

    # Candidates

    def _validate(self, started: RolloutStarted) -> None:
        """The offline gate sees some bad candidates; what has no canary is seen by it or by nobody."""
        rollout = self.state.rollouts[started.rollout_id]
        if rollout.state is not RolloutState.VALIDATING or self._chance(0.005):  # silence refuses
            return
        bad = self._chance(0.08)
        seen = bad and (not rollout.plan.serving or self._chance(0.5))
        self.effects[(started.model_id, started.version)] = BAD if bad else float(self.rng.uniform(0, 0.02))
        self.releases.measured(started.model_id, started.version, BAD if bad else 0.0)
        validation = Validation(passed=not seen, metric="auc", candidate=0.7, production=0.7, sample_size=1_000)
        self.checkers.validated(started.model_id, started.version, validation)
        self.submit(ReportValidation(model_id=started.model_id, version=started.version, validation=validation))
        after = self.state.rollouts[started.rollout_id]
        if after.state is RolloutState.AWAITING_APPROVAL and not self._chance(0.05):  # some are never answered
            self._later(self._spread(6 * HOUR), lambda: self._answer(started.rollout_id))

    def _answer(self, rollout_id: RolloutId) -> None:
        """Whoever asked tries first, as people do; then somebody else decides."""
        rollout = self.state.rollouts[rollout_id]
        if rollout.state not in (RolloutState.AWAITING_APPROVAL, RolloutState.AWAITING_DECISION):
            return
        self.submit(ApproveRollout(rollout_id=rollout_id, approver=rollout.requested_by))
        sound = self.effects.get((rollout.model_id, rollout.version), 0.0) > BAD
        # Nothing is known of a candidate before its canary; afterwards people read the numbers.
        before = rollout.state is RolloutState.AWAITING_APPROVAL
        if sound or (before and self._chance(0.95)):
            self.submit(ApproveRollout(rollout_id=rollout_id, approver="a person"))
        else:
            self.submit(DeclineRollout(rollout_id=rollout_id, by="a person", why="not convinced"))

    def _arms(self, model_id: ModelId, version: int) -> Arms:
        effect = self.effects.get((model_id, version), 0.0)
        silent = 6 * HOUR if self._chance(0.02) else timedelta(0)
        forever = 10_000 * HOUR if self._chance(0.003) else silent
        return Arms(Traffic(per_hour=40_000, mean=0.5, spread=0.5, effect=effect), self.now, self.now + forever)

    def _weight(self, rollout_id: RolloutId) -> None:
        rollout = self.state.rollouts[rollout_id]
        if rollout.weight_applied == rollout.weight:
            return
        if self._chance(0.05):
            self.submit(ReportWeight(rollout_id=rollout_id, failure="the gateway said 503"), "serving")
            self._later(5 * MINUTE, lambda: self._weight(rollout_id))
            return
        if rollout_id in self.arms:
            self.arms[rollout_id].shift(rollout.weight, self.now, self.rng)
        self.submit(ReportWeight(rollout_id=rollout_id, weight=rollout.weight), "serving")

    def _look(self, rollout_id: RolloutId) -> None:
        rollout = self.state.rollouts[rollout_id]
        if rollout.state is RolloutState.AWAITING_DECISION:
            self._later(self._spread(3 * HOUR), lambda: self._answer(rollout_id))
        if rollout.state not in (RolloutState.CANARY, RolloutState.AWAITING_DECISION):
            return
        if rollout.held_by:
            self.submit(AbortRollout(rollout_id=rollout_id, by="a person", why="its split is broken"))
            return
        look = self.arms[rollout_id].look(self.now, self.rng, "engagement")
        self._decide(Submission(command=RecordLook(rollout_id=rollout_id, look=look), actor="serving"))
        self._later(HOUR / 2, lambda: self._look(rollout_id))

    def freeze(self) -> None:
        """Two days a month in which nothing goes forward, for one tier."""
        if self.ended:
            return
        window = FreezeWindow(
            name=f"quiet{self.now:%m%d}",
            scope=("fleet", "tier:1", "tier:2")[int(self.rng.integers(3))],
            starts_at=self.now + DAY,
            ends_at=self.now + 2 * DAY,
        )
        self.submit(SetFreeze(freeze=window))
        self._later(30 * DAY, self.freeze)

    # Failures of the control plane itself

    def _snapshot(self) -> None:
        seq, digest, blob = self.replica.snapshot()
        squeezed = zstandard.compress(blob, 1)
        self.snapshot = Snapshot(seq=seq, hash=digest, codec=FleetMachine.snapshot_codec, blob=squeezed)
        self.tail.clear()

    def failover(self) -> None:
        """Another node takes over, from the snapshot and what the log holds since; it knows exactly the same."""
        if self.ended:
            return
        if self.snapshot is None:
            self._snapshot()
        assert self.snapshot is not None
        other: Replica[State, Command] = Replica(FleetMachine())
        other.restore(self.snapshot)
        other.replay(self.tail)
        assert other.state.last_hash == self.state.last_hash
        machine = FleetMachine()
        if self.failovers == 0:
            assert machine.encode_snapshot(other.state) == machine.encode_snapshot(self.state)
        self.failovers += 1
        other.epoch = self.failovers + 1
        self.replica = other
        self._later(self._spread(60 * DAY), self.failover)

    # The year

    def run(self) -> Summary:
        """A year of faults, then quiet until nothing waits; whatever was promised holds all the time."""
        gc_before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 50, 1_000)
        try:
            self.build()
            for scheduler in SCHEDULERS:
                self._later(self._spread(20 * DAY), lambda scheduler=scheduler: self.outage(scheduler))  # type: ignore[misc]
            self._later(5 * DAY, self.freeze)
            self._later(self._spread(30 * DAY), self.failover)
            while self.heap and self.now < self.end:
                self._next()
            self.ended = True
            self._drain()
        finally:
            gc.set_threshold(*gc_before)
            gc.unfreeze()
        return self.summary()

    def _next(self) -> None:
        at, _, what = heapq.heappop(self.heap)
        self.now = at
        what()

    def _drain(self) -> None:
        """The faults have stopped: everything that waits comes to its end within some weeks."""
        self.down_until = dict.fromkeys(SCHEDULERS, self.now)
        deadline = self.now + 60 * DAY
        for model_id in sorted(self.state.models):
            if self.state.models[model_id].cascade is not None:
                self._later(5 * HOUR, lambda model_id=model_id: self._evaluate(model_id))  # type: ignore[misc]
        while self.heap and self.now < deadline and (self.state.live_retrains or self.state.live_rollouts):
            self._next()
        self.checkers.at_rest(self.state)
        self.slots.at_rest()
        self.releases.at_rest(self.state)

    def summary(self) -> Summary:
        """The year in numbers."""
        ends = Counter(state.value for state in self.checkers.ended.values())
        return Summary(
            events=self.state.revision,
            evaluations=self.evaluations,
            retrains=len(self.checkers.ended),
            promotions=ends["PROMOTED"],
            refusals=ends["REFUSED"],
            rollbacks=self.releases.rollbacks,
            running_max=self.slots.running_max,
            openings=self.openings,
            failovers=self.failovers,
            kinds=dict(self.kinds),
        )
