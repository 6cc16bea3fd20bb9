"""One contender in one world: the same `decide`, `evolve` and `plan` as in production, under virtual time.

Theory of operation. A fresh `State` is told the fleet by real commands: models, policies, versions, dependencies. Then
time moves hour by hour to the world's end. In each hour, in this order:

1. trainings that have ended register their version, report success, and are validated (`world.compare`);
2. models whose cadence has passed are looked at, all at once, and the looks recorded: hysteresis decides;
3. who decides without verdicts asks (`contenders`);
4. what `plan` says is due is done: retrains that verdicts ask for, those that healed, what ran out of time;
5. a scheduler leases what order, cooldowns and limits allow, and trains.

So a change at an hour serves from that hour on. A cadence shorter than an hour is an hour: evidence has that grain. The
scheduler gives signs of life without end; a training longer than the policy's timeout fails as in production. Nothing
here does I/O, reads a clock or draws a number, so the same world gives the same run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from control_plane.backtest.contenders import (
    HOUR,
    Contender,
    Decider,
    Kind,
    Look,
    Serving,
    decider,
)
from control_plane.backtest.opening import layers_of, validation_of, version_facts
from control_plane.backtest.second import Question, Second, evaluated, look_at
from control_plane.backtest.world import Trained, World
from control_plane.core.commands import (
    Command,
    DeclareDependencies,
    DeclareNodes,
    LeaseRetrains,
    PromoteVersion,
    RecordEvaluation,
    RegisterModel,
    RegisterVersion,
    ReportFailure,
    ReportLoadCheck,
    ReportSuccess,
    ReportValidation,
    RequestRetrain,
    Result,
    SetLimits,
    SetPolicies,
    SetRule,
)
from control_plane.core.decide import decide
from control_plane.core.errors import RunwayError
from control_plane.core.events import AliasMoved, Envelope, Event, RetrainEnded, RetrainLeased, RetrainRequested
from control_plane.core.evolve import evolve
from control_plane.core.graph.facts import Node
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId, node_kind
from control_plane.core.plan import COMMANDS_PER_TICK_MAX, plan
from control_plane.core.policies import Overrides, span_text
from control_plane.core.registry.types import PRODUCTION
from control_plane.core.retraining.types import RetrainCause, RetrainingLimits, RetrainState
from control_plane.core.rules.types import Rule
from control_plane.core.state import ModelRecord, State

ACTOR = "backtest"

PLANS_PER_HOUR_MAX = 20
"""A plan is bounded per tick: in a fleet of 10,000 models that are all due, an hour needs this many."""

LEASES_PER_HOUR_MAX = 1_000
"""Twenty times the usual limit of the fleet."""

USUAL_LIMITS = RetrainingLimits()

Told = Callable[[float], None]
"""Hears the share that is done, once a virtual day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stint:
    """A version in production, [since, until)."""

    trained: Trained
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A retrain from request to end; `until` is the world's end if it had not ended."""

    model_id: ModelId
    at: datetime
    until: datetime
    why: str
    trainings: int
    promoted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One attempt that was leased."""

    model_id: ModelId
    at: datetime
    hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that happened under one contender, in order of time."""

    contender: Contender
    stints: tuple[Stint, ...]
    """By model in the order of the world, then by time; they cover [start, end) of every model."""
    asked: tuple[Asked, ...]
    trainings: tuple[Training, ...]
    revision: int
    """Events that came of it."""
    refused: tuple[str, ...]
    """What `plan` or a contender wanted and the rules refused: first sentences, at most a few."""


@dataclass(slots=True)
class _Attempt:
    model_id: ModelId
    retrain_id: RetrainId
    attempt_id: AttemptId
    token: LeaseToken
    ends_at: datetime
    trained: Trained


@dataclass(slots=True)
class _Open:
    """A request whose end is not known yet."""

    model_id: ModelId
    at: datetime
    why: str
    trainings: int = 0
    until: datetime | None = None
    promoted: bool = False


@dataclass(slots=True)
class _Model:
    """A model of the run beside its record in the state."""

    versions: dict[int, Trained]
    """By the state's number."""
    serves: int
    since: datetime
    stints: list[Stint] = field(default_factory=list)
    looked_at: datetime | None = None
    looked_version: int = 0


REFUSALS_KEPT = 5


def run(
    world: World,
    contender: Contender,
    limits: RetrainingLimits = USUAL_LIMITS,
    rules: Sequence[Rule] = (),
    told: Told | None = None,
    asks: Decider | None = None,
    in_two: bool = False,
) -> Run:
    """Run one contender from the world's start to its end.

    Args:
        rules: in force at the start, for contenders whose verdicts decide.
        asks: instead of who usually decides for a contender of this kind (not of kind POLICIES).
        in_two: share the looks with a second process, see `second`.

    Raises:
        Invalid: policies that no server would take; a model, version or dependency of the world that breaks a rule.
    """
    simulation = _Simulation(world, contender, limits, rules)
    if asks is not None:
        simulation.decider = asks
    if not (in_two and contender.evaluates and len(world.models) > 1):
        return simulation.run(told)
    simulation.second = Second(world)
    try:
        return simulation.run(told)
    finally:
        simulation.second.close()


class _Simulation:
    def __init__(self, world: World, contender: Contender, limits: RetrainingLimits, rules: Sequence[Rule]) -> None:
        self.world = world
        self.contender = contender
        self.decider = decider(contender, world)
        self.state = State()
        self.now = world.start
        self.models: dict[ModelId, _Model] = {}
        self.attempts: list[_Attempt] = []
        self.open: dict[RetrainId, _Open] = {}
        self.trainings: list[Training] = []
        self.refused: list[str] = []
        self.tokens = 0
        self.second: Second | None = None
        self.why = ""
        self._tell_fleet(limits, rules)

    # --- the core ---

    def submit(self, command: Command, why: str = "") -> Result:
        """Decide and evolve."""
        decision = decide(self.state, command, self.now)
        for event in decision.events:
            envelope = Envelope(seq=self.state.revision + 1, epoch=1, at=self.now, actor=ACTOR, reason=why, event=event)
            evolve(self.state, envelope)
            self._heard(event, why)
        return decision.result

    def attempt(self, command: Command, why: str = "") -> None:
        """Submit what may be refused: in production the next tick would ask again, and so does ours."""
        try:
            self.submit(command, why)
        except RunwayError as error:
            if len(self.refused) < REFUSALS_KEPT:
                self.refused.append(str(error))

    def _heard(self, event: Event, why: str) -> None:
        match event:
            case RetrainRequested():
                record = self.state.models[event.model_id]
                evaluation = record.standing.evaluation
                verdict = evaluation.reasons[0] if evaluation is not None and evaluation.reasons else ""
                self.open[event.retrain_id] = _Open(event.model_id, self.now, why or verdict)
            case RetrainLeased():
                hours = self.world.training_hours(event.model_id)
                self.open[event.retrain_id].trainings += 1
                self.trainings.append(Training(model_id=event.model_id, at=self.now, hours=hours))
            case RetrainEnded():
                asked = self.open[event.retrain_id]
                asked.until, asked.promoted = self.now, event.state is RetrainState.PROMOTED
            case AliasMoved() if event.alias == PRODUCTION and event.model_id in self.models:
                self._serves(self.models[event.model_id], event.to_version)
            case _:
                pass

    def _serves(self, model: _Model, number: int) -> None:
        if self.now > model.since:
            model.stints.append(Stint(trained=model.versions[model.serves], since=model.since, until=self.now))
        model.serves, model.since = number, self.now

    # --- the beginning ---

    def _tell_fleet(self, limits: RetrainingLimits, rules: Sequence[Rule]) -> None:
        """Versions go into production before edges exist: a start is no promotion, and must cool nobody down."""
        for facts in self.world.models:
            self.submit(RegisterModel(facts=facts))
        for scope, overrides in layers_of(self.world, self.contender):
            if overrides:
                self.submit(SetPolicies(scope=scope, overrides=overrides))
        for record in self.state.models.values():
            self._keep_lease(record)
        self.submit(SetLimits(limits=limits))
        if self.contender.evaluates:
            for rule in {rule.key: rule for rule in (*rules, *self.contender.rules)}.values():
                self.submit(SetRule(rule=rule))
        for facts in self.world.models:
            trained = self.world.first(facts.model_id)
            number = self._register(trained)
            model = _Model(versions={number: trained}, serves=number, since=self.world.start)
            self.models[facts.model_id] = model
            self.submit(PromoteVersion(model_id=facts.model_id, version=number, force=True), why="served at the start")
        dependencies = tuple(self.world.dependencies)
        ends = {node for one in dependencies for node in (one.upstream, one.downstream)}
        nodes = tuple(Node(node_id=node) for node in sorted(ends) if node_kind(node) != "model")
        if nodes:
            self.submit(DeclareNodes(nodes=nodes))
        if dependencies:
            self.submit(DeclareDependencies(dependencies=dependencies))

    def _keep_lease(self, record: ModelRecord) -> None:
        """A lease as long as an attempt may take: the scheduler here never falls silent."""
        policy = record.retraining_policy
        if policy.lease_ttl < policy.attempt_timeout:
            own: Overrides = {**record.own_policies, "retraining.lease_ttl": span_text(policy.attempt_timeout)}
            self.submit(SetPolicies(scope=f"model:{record.model_id}", overrides=own))

    def _register(self, trained: Trained, attempt: _Attempt | None = None) -> int:
        facts = version_facts(trained, attempt.attempt_id if attempt is not None else "")
        model_id = trained.model_id
        if attempt is None:
            result = self.submit(RegisterVersion(model_id=model_id, facts=facts))
        else:
            result = self.submit(
                RegisterVersion(
                    model_id=model_id, facts=facts, attempt_id=attempt.attempt_id, lease_token=attempt.token
                )
            )
        number = result.version
        assert number is not None
        if self.state.models[model_id].rollout_policy.require_load_check:
            self.submit(ReportLoadCheck(model_id=model_id, version=number, passed=True, environment=ACTOR))
        return number

    # --- an hour ---

    def run(self, told: Told | None) -> Run:
        """All hours."""
        hours = (self.world.end - self.world.start) // HOUR
        for hour in range(hours):
            self.now = self.world.start + HOUR * hour
            self._end_trainings()
            looks = self._look()
            self._wish(looks)
            self._plan()
            self._lease()
            if told is not None and hour % 24 == 0:
                told(hour / hours)
        self.now = self.world.end
        for model in self.models.values():
            self._serves(model, model.serves)
        if told is not None:
            told(1.0)
        return Run(
            contender=self.contender,
            stints=tuple(stint for model in self.models.values() for stint in model.stints),
            asked=tuple(
                Asked(
                    model_id=one.model_id,
                    at=one.at,
                    until=one.until or self.world.end,
                    why=one.why,
                    trainings=one.trainings,
                    promoted=one.promoted,
                )
                for one in self.open.values()
            ),
            trainings=tuple(self.trainings),
            revision=self.state.revision,
            refused=tuple(self.refused),
        )

    def _end_trainings(self) -> None:
        ended = [attempt for attempt in self.attempts if attempt.ends_at <= self.now]
        self.attempts = [attempt for attempt in self.attempts if attempt.ends_at > self.now]
        for attempt in ended:
            self._end_training(attempt)

    def _end_training(self, attempt: _Attempt) -> None:
        """Register, report, validate. A lease that ran out meanwhile was told by `plan`, and its work is not used."""
        retrain = self.state.retrains[attempt.retrain_id]
        running = retrain.running_attempt
        if running is None or running.attempt_id != attempt.attempt_id or running.expires_at < self.now:
            return
        model_id = attempt.model_id
        model = self.models[model_id]
        try:
            number = self._register(attempt.trained, attempt)
        except RunwayError as error:
            failure = ReportFailure(
                attempt_id=attempt.attempt_id, lease_token=attempt.token, failure=str(error), permanent=True
            )
            self.attempt(failure)
            return
        model.versions[number] = attempt.trained
        self.attempt(ReportSuccess(attempt_id=attempt.attempt_id, lease_token=attempt.token, version=number))
        record = self.state.models[model_id]
        if record.live_rollout is None:
            return  # its policy asks for no validation
        trained, production = attempt.trained, model.versions[model.serves]
        found = self.world.compare(trained, production, self.now)
        validation = validation_of(found, trained, record.validation_policy.margin)
        self.attempt(ReportValidation(model_id=model_id, version=number, validation=validation))

    def _look(self) -> list[Look]:
        """Look at every model that is due; with verdicts, record what comes of it."""
        if not self.contender.looks:
            return []
        questions: list[Question] = []
        mine: list[bool] = []
        for place, (model_id, model) in enumerate(self.models.items()):
            policy = self.state.models[model_id].staleness_policy
            due = (
                model.looked_at is None
                or model.looked_version != model.serves
                or self.now - model.looked_at >= policy.cadence
            )
            if due:
                model.looked_at, model.looked_version = self.now, model.serves
                serving = model.versions[model.serves]
                questions.append(Question(serving=serving, number=model.serves, since=model.since, policy=policy))
                mine.append(place % 5 < 2)  # deciding is left to this process alone
        if not self.contender.evaluates:
            return [look_at(self.world, question, self.now) for question in questions]
        if self.second is not None:
            evaluations = self.second.evaluated(self.world, questions, self.now, mine)
        else:
            evaluations = evaluated(self.world, questions, self.now)
        for question, evaluation in zip(questions, evaluations, strict=True):
            self.submit(RecordEvaluation(model_id=question.serving.model_id, evaluation=evaluation))
        return []

    def _wish(self, looks: Sequence[Look]) -> None:
        if self.contender.kind is Kind.POLICIES:
            return
        fleet = {
            model_id: Serving(
                trained=model.versions[model.serves],
                since=model.since,
                busy=self.state.models[model_id].live_retrain is not None,
                margin=self.state.models[model_id].validation_policy.margin,
            )
            for model_id, model in self.models.items()
        }
        for wish in self.decider.wishes(fleet, looks, self.now):
            # As by an operator: a retrain that only a verdict wants is dropped when the verdict is good again.
            command = RequestRetrain(model_id=wish.model_id, cause=RetrainCause.OPERATOR, ignore_cooldown=wish.hurried)
            self.attempt(command, wish.why)

    def _plan(self) -> None:
        for _ in range(PLANS_PER_HOUR_MAX):
            due = plan(self.state, self.now)
            for command in due:
                self.attempt(command)
            if len(due) < COMMANDS_PER_TICK_MAX:
                return

    def _lease(self) -> None:
        waiting = len(self.state.live_retrains)
        if not waiting:
            return
        tokens = min(waiting, LEASES_PER_HOUR_MAX)
        fresh = tuple(LeaseToken(f"token_{self.tokens + at}") for at in range(tokens))
        self.tokens += tokens
        known = tuple(attempt.attempt_id for attempt in self.attempts)
        result = self.submit(LeaseRetrains(scheduler=ACTOR, lease_tokens=fresh, known_attempt_ids=known))
        for attempt_id in result.attempt_ids:
            retrain = self.state.retrain_of_attempt(attempt_id)
            running = retrain.running_attempt
            assert running is not None
            model_id = retrain.model_id
            self.attempts.append(
                _Attempt(
                    model_id=model_id,
                    retrain_id=retrain.retrain_id,
                    attempt_id=attempt_id,
                    token=running.lease_token,
                    ends_at=self.now + HOUR * self.world.training_hours(model_id),
                    trained=self.world.train(model_id, self.now),
                )
            )
