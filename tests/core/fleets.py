"""A fleet in memory without any I/O: commands in, events applied, for tests of the rules."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from control_plane.core.commands import (
    ApproveRollout,
    Command,
    DeclareDependencies,
    LeaseRetrains,
    RecordEvaluation,
    RegisterModel,
    RegisterVersion,
    ReportSuccess,
    ReportValidation,
    RequestRetrain,
    Result,
)
from control_plane.core.decide import decide
from control_plane.core.errors import Reason, RunwayError
from control_plane.core.events import Envelope, Event
from control_plane.core.evolve import evolve
from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, NodeId, TeamId
from control_plane.core.plan import plan
from control_plane.core.policies import Overrides, overrides_of
from control_plane.core.registry.types import ModelFacts, TaskType, VersionFacts
from control_plane.core.retraining.types import RetrainCause, RetrainingPolicy
from control_plane.core.rollout.types import RolloutState, Validation, ValidationPolicy
from control_plane.core.staleness.verdict import Action, Confidence, Evaluation, Level
from control_plane.core.state import State

START = datetime(2013, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@dataclass(slots=True)
class Fleet:
    """The rules with nothing around them."""

    state: State = field(default_factory=State)
    now: datetime = START
    events: list[Event] = field(default_factory=list)

    def do(self, command: Command) -> Result:
        """Decide and apply; refusals come out."""
        decision = decide(self.state, command, self.now)
        for event in decision.events:
            evolve(
                self.state,
                Envelope(
                    seq=self.state.revision + 1, epoch=1, at=self.now, actor="tester", reason="because", event=event
                ),
            )
        self.events.extend(decision.events)
        return decision.result

    def new_events(self, command: Command) -> list[str]:
        """Kinds of the events that a command led to."""
        before = len(self.events)
        self.do(command)
        return [type(event).__name__ for event in self.events[before:]]

    def pass_time(self, span: timedelta) -> list[str]:
        """Let time pass and do what is due; kinds of what happened."""
        self.now += span
        before = len(self.events)
        for command in plan(self.state, self.now):
            self.do(command)
        return [type(event).__name__ for event in self.events[before:]]

    # What most tests begin with

    def model(
        self,
        name: str,
        *,
        tier: int = 2,
        team: str = "flights",
        policy: RetrainingPolicy | None = None,
        validation: ValidationPolicy | None = None,
        overrides: Overrides | None = None,
        serving: bool = False,
    ) -> ModelId:
        """Register a model; with a version in production if asked."""
        model_id = ModelId(name)
        facts = ModelFacts(
            model_id=model_id, owner="team:flights", team=TeamId(team), tier=tier, task_type=TaskType.BINARY
        )
        own = overrides_of("retraining", policy) if policy is not None else {}
        own |= overrides_of("validation", validation) if validation is not None else {}
        own |= overrides or {}
        self.do(RegisterModel(facts=facts, policies=own))
        if serving:
            self.promote(model_id)
        return model_id

    def edge(self, upstream: str, downstream: str) -> None:
        """The second model consumes the first."""
        dependency = Dependency(
            upstream=NodeId(f"model:{upstream}"),
            downstream=NodeId(f"model:{downstream}"),
            edge_type=DependencyType.CONSUMES_OUTPUT,
        )
        self.do(DeclareDependencies(dependencies=(dependency,)))

    def request(self, model_id: str, *, ignore_cooldown: bool = True) -> Result:
        """An operator asks for a retrain."""
        return self.do(
            RequestRetrain(model_id=ModelId(model_id), cause=RetrainCause.OPERATOR, ignore_cooldown=ignore_cooldown)
        )

    def lease(self, leases_max: int = 100, known: tuple[AttemptId, ...] = ()) -> tuple[AttemptId, ...]:
        """Lease as one scheduler; the token of an attempt is `t` and the place in the call."""
        tokens = tuple(LeaseToken(f"t{number}") for number in range(leases_max))
        return self.do(LeaseRetrains(scheduler="dagster", lease_tokens=tokens, known_attempt_ids=known)).attempt_ids

    def token(self, attempt_id: AttemptId) -> LeaseToken:
        """The token an attempt was leased with."""
        retrain = self.state.retrain_of_attempt(attempt_id)
        return next(a.lease_token for a in retrain.attempts if a.attempt_id == attempt_id)

    def leased_models(self, attempts: tuple[AttemptId, ...]) -> list[str]:
        """Whose attempts these are."""
        return [self.state.retrain_of_attempt(attempt_id).model_id for attempt_id in attempts]

    def train(self, attempt_id: AttemptId) -> int:
        """The attempt makes a version and says so."""
        model_id = self.state.retrain_of_attempt(attempt_id).model_id
        token = self.token(attempt_id)
        version = self.do(
            RegisterVersion(model_id=model_id, facts=a_version(self.now), attempt_id=attempt_id, lease_token=token)
        ).version
        assert version is not None
        self.do(ReportSuccess(attempt_id=attempt_id, lease_token=token, version=version))
        return version

    def validate(self, model_id: str, version: int, *, passed: bool = True) -> Result:
        """Somebody compares candidate and production."""
        validation = Validation(passed=passed, metric="auc", candidate=0.8, production=0.7, sample_size=1000)
        return self.do(ReportValidation(model_id=ModelId(model_id), version=version, validation=validation))

    def promote(self, model_id: ModelId) -> None:
        """All the way from a request to production, without a cooldown in between."""
        self.request(model_id)
        attempt = next(a for a in self.lease() if self.state.retrain_of_attempt(a).model_id == model_id)
        self.validate(model_id, self.train(attempt))
        rollout = self.state.rollouts[self.state.models[model_id].rollout_ids[-1]]
        if rollout.state is RolloutState.AWAITING_APPROVAL:
            self.do(ApproveRollout(rollout_id=rollout.rollout_id, approver="a person"))

    def look(self, model_id: str, *, stale: bool, score: float = 0.8) -> None:
        """An evaluation of the production version, repeated until the verdict follows."""
        production = self.state.models[ModelId(model_id)].production
        assert production is not None
        for _ in range(3):
            self.do(
                RecordEvaluation(
                    model_id=ModelId(model_id),
                    evaluation=an_evaluation(production.number, self.now, stale=stale, score=score),
                )
            )


def a_version(until: datetime) -> VersionFacts:
    """A version that needs nothing else."""
    return VersionFacts(artifact_uri="file:///x", artifact_sha256="a" * 64, trained_until=until)


def an_evaluation(version: int, now: datetime, *, stale: bool, score: float = 0.8) -> Evaluation:
    """A sure look."""
    score = score if stale else 0.1
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


def reason_of(act: Callable[[], object]) -> Reason:
    """Why an act is refused."""
    try:
        done = act()
    except RunwayError as error:
        return error.reason
    raise AssertionError(f"not refused: {done}")
