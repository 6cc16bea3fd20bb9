"""No storms: one upstream with 400 models downstream is promoted, all of them drift, 100 of them for a while only.

A day in virtual minutes through the real rules (`plan`, `decide`, `evolve`): models are looked at every quarter of an
hour, a scheduler asks every minute, a training takes half an hour. Before their cooldown ends all 400 are STALE; then
300 stay so until they are retrained, and 100 have settled down by themselves.

- storm_max_running: the most that ever run at once; the limit of the fleet is 50. Raises if a tier is leased while a
  more important one could run, or if somebody who was harmed is never retrained.
- storm_unharmed_retrained: retrains of models that were not harmed.

Beside it what a user would have instead: an event of the promotion that starts everything downstream.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bench.table import Row
from control_plane.core.commands import (
    Command,
    DeclareDependencies,
    LeaseRetrains,
    PromoteVersion,
    RecordEvaluation,
    RegisterModel,
    RegisterVersion,
    ReportSuccess,
    Result,
    SetLimits,
)
from control_plane.core.decide import decide
from control_plane.core.events import Envelope
from control_plane.core.evolve import evolve
from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, TeamId, model_node
from control_plane.core.plan import plan
from control_plane.core.policies import overrides_of
from control_plane.core.registry.types import ModelFacts, TaskType, VersionFacts
from control_plane.core.retraining.types import RetrainCause, RetrainingLimits, RetrainingPolicy, RetrainState
from control_plane.core.staleness.verdict import Action, Confidence, Evaluation, Level
from control_plane.core.state import State

IDS = ("storm_max_running", "storm_unharmed_retrained")
MODELS = 400
RUNNING_MAX = 50
TEAMS = 20
START = datetime(2026, 1, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LOOK_MINUTES = 15
TRAINING = timedelta(minutes=30)
DAY_MINUTES = 24 * 60
UPSTREAM = ModelId("upstream")
POLICY = RetrainingPolicy(lease_ttl=timedelta(hours=1), duration_expected=TRAINING)


@dataclass(slots=True)
class Storm:
    """One fleet, and what is counted while its day goes by."""

    models: int = MODELS
    running_max: int = RUNNING_MAX
    state: State = field(default_factory=State)
    now: datetime = START
    running: dict[AttemptId, tuple[LeaseToken, datetime]] = field(default_factory=dict)
    ran: Counter[ModelId] = field(default_factory=Counter)
    tiers: list[int] = field(default_factory=list)
    """Of everything that was leased, in order."""
    most: int = 0
    overtaken: int = 0
    """Leases given while a more important model could have run."""
    last_end: datetime = START

    def do(self, command: Command) -> Result:
        """Decide and apply."""
        decision = decide(self.state, command, self.now)
        for event in decision.events:
            envelope = Envelope(
                seq=self.state.revision + 1, epoch=1, at=self.now, actor="bench", reason="", event=event
            )
            evolve(self.state, envelope)
        return decision.result

    def name(self, number: int) -> ModelId:
        """Of the models downstream."""
        return ModelId(f"m{number:03d}")

    def harmed(self, number: int) -> bool:
        """Three of four, in every tier."""
        return (number // 4) % 4 != 0

    def begin(self) -> None:
        """Everything serves its first version, upstream its second: everything downstream cools down."""
        # Teams have no limits of their own here, which would let the fourth tier of one overtake the first of another.
        self.do(SetLimits(limits=RetrainingLimits(running_max=self.running_max, running_per_team_max=self.running_max)))
        names = [self.name(number) for number in range(self.models)]
        for number, name in enumerate([*names, UPSTREAM]):
            facts = ModelFacts(
                model_id=name,
                owner="team:bench",
                team=TeamId(f"team_{number % TEAMS}"),
                tier=1 + number % 4,
                task_type=TaskType.BINARY,
            )
            policies = overrides_of("retraining", POLICY) | {"validation.skip": True, "rollout.approvals": 0}
            self.do(RegisterModel(facts=facts, policies=policies))
            self.serve(name)
        edges = tuple(
            Dependency(
                upstream=model_node(UPSTREAM), downstream=model_node(name), edge_type=DependencyType.CONSUMES_OUTPUT
            )
            for name in names
        )
        self.do(DeclareDependencies(dependencies=edges))
        self.serve(UPSTREAM)

    def serve(self, name: ModelId) -> None:
        """A new version in production."""
        version = self.do(RegisterVersion(model_id=name, facts=_facts(self.now))).version
        assert version is not None
        self.do(PromoteVersion(model_id=name, version=version, force=True))

    def minute(self) -> None:
        """Looks, what is due, what ends, and what is leased."""
        self.now += MINUTE
        for number in range(self._minutes() % LOOK_MINUTES, self.models, LOOK_MINUTES):
            self._look(number)
        for command in plan(self.state, self.now):
            self.do(command)
        for attempt_id, (token, until) in list(self.running.items()):
            if until <= self.now:
                self._trained(attempt_id, token)
        self._lease()

    def _minutes(self) -> int:
        return (self.now - START) // MINUTE

    def _look(self, number: int) -> None:
        record = self.state.models[self.name(number)]
        production = record.production
        assert production is not None
        cooling = self.now < START + record.retraining_policy.cascade_cooldown
        stale = production.number == 1 and (cooling or self.harmed(number))
        look = _evaluation(production.number, self.now, stale=stale, score=0.6 + 0.4 * number / self.models)
        self.do(RecordEvaluation(model_id=record.model_id, evaluation=look))

    def _trained(self, attempt_id: AttemptId, token: LeaseToken) -> None:
        del self.running[attempt_id]
        model_id = self.state.retrain_of_attempt(attempt_id).model_id
        register = RegisterVersion(model_id=model_id, facts=_facts(self.now), attempt_id=attempt_id, lease_token=token)
        version = self.do(register).version
        assert version is not None
        self.do(ReportSuccess(attempt_id=attempt_id, lease_token=token, version=version))
        self.last_end = self.now

    def _lease(self) -> None:
        tokens = tuple(LeaseToken(f"{self._minutes()}-{n}") for n in range(2 * self.running_max))
        known = tuple(self.running)
        leased = self.do(LeaseRetrains(scheduler="bench", lease_tokens=tokens, known_attempt_ids=known)).attempt_ids
        tiers = []
        for attempt_id in leased:
            retrain = self.state.retrain_of_attempt(attempt_id)
            attempt = retrain.running_attempt
            assert attempt is not None
            self.running[attempt_id] = (attempt.lease_token, self.now + TRAINING)
            self.ran[retrain.model_id] += 1
            tiers.append(self.state.models[retrain.model_id].facts.tier)
        waiting = [
            self.state.models[one.model_id].facts.tier
            for one in self.state.living()
            if one.state is RetrainState.WAITING and one.not_before <= self.now
        ]
        self.overtaken += sum(tier > min(waiting, default=tier) for tier in tiers)
        self.tiers += tiers
        self.most = max(self.most, len(self.state.running()))


def storm(models: int = MODELS, running_max: int = RUNNING_MAX) -> Storm:
    """One day after the promotion. Raises if what was harmed is not mended, each once and for that cause."""
    found = Storm(models=models, running_max=running_max)
    found.begin()
    for _ in range(DAY_MINUTES):
        found.minute()
    wanted = {found.name(number): 1 for number in range(models) if found.harmed(number)}
    missed = [name for name in wanted if found.ran[name] != 1]
    if missed or found.overtaken:
        raise AssertionError(f"{len(missed)} harmed models not retrained once, {found.overtaken} leases out of turn")
    if any(RetrainCause.UPSTREAM not in retrain.causes for retrain in found.state.retrains.values()):
        raise AssertionError("a retrain has another cause than the promotion upstream")
    return found


def unharmed_retrained(found: Storm) -> int:
    """Retrains that nobody needed."""
    return sum(found.ran[found.name(number)] for number in range(found.models) if not found.harmed(number))


def naive() -> tuple[int, int]:
    """The same day with a trigger on the promotion: the most that run at once, and how many for nothing."""
    fleet = Storm()
    ends = [START + TRAINING for _ in range(fleet.models)]
    most = max(sum(end > START + minute * MINUTE for end in ends) for minute in range(DAY_MINUTES))
    return most, sum(not fleet.harmed(number) for number in range(fleet.models))


def run() -> list[Row]:
    """Two rows of one day."""
    found = storm()
    most, for_nothing = naive()
    hours = (found.last_end - START) / timedelta(hours=1)
    note = (
        f"{MODELS} models downstream, {sum(found.ran.values())} retrained, the last {hours:.1f} h after the promotion"
    )
    return [
        Row(
            id="storm_max_running",
            value=float(found.most),
            unit="at once",
            peers={"trigger on promotion": float(most)},
            note=f"limit {RUNNING_MAX}; no lease out of turn; {note}",
        ),
        Row(
            id="storm_unharmed_retrained",
            value=float(unharmed_retrained(found)),
            unit="retrains",
            peers={"trigger on promotion": float(for_nothing)},
            note=note,
        ),
    ]


def _facts(now: datetime) -> VersionFacts:
    return VersionFacts(artifact_uri="file:///x", artifact_sha256="a" * 64, trained_until=now)


def _evaluation(version: int, now: datetime, *, stale: bool, score: float) -> Evaluation:
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
        confidence_reason="",
        signals=(),
        recommended_action=Action.RETRAIN if stale else Action.NONE,
    )
