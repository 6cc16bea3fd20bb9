"""Everything the control plane knows, as a fold over its log.

`State` is one object that `evolve` changes in place. Reading it is free; nothing but `evolve` writes it. The same log
gives the same state, bit for bit, so a snapshot is just a cheaper prefix.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from control_plane.core.alerts.types import Destination, Silence
from control_plane.core.commands import Result
from control_plane.core.erasure import ErasureReceipt
from control_plane.core.errors import NotFound, Reason
from control_plane.core.events import RolloutStarted
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.edge_times import EdgeTimes
from control_plane.core.graph.lineage import Ledger
from control_plane.core.graph.lineage_fold import Parts
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.policy import GroundTruthPolicy
from control_plane.core.ids import (
    AttemptId,
    ModelId,
    RetrainId,
    RolloutId,
    TeamId,
    model_node,
    node_name,
)
from control_plane.core.policies import EffectivePolicies, Overrides, PolicyBook, built_in
from control_plane.core.registry.types import PRODUCTION, AliasMove, Lifecycle, ModelFacts, ModelVersion, TaskType
from control_plane.core.retraining.types import Breaker, Retrain, RetrainingLimits, RetrainingPolicy, RetrainState
from control_plane.core.rollout.types import (
    FreezeWindow,
    Rollout,
    RolloutGroup,
    RolloutPolicy,
    RolloutState,
    Uplift,
    ValidationPolicy,
)
from control_plane.core.rules.book import RuleBook
from control_plane.core.rules.types import NO_OUTCOME, RuleOutcome
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import Evaluation, Level, Streak

EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
"""`at` of an empty log."""

REQUESTS_KEPT_MAX = 100_000
"""Remembered request ids. At 25 retrains and some thousand mutations a day that is weeks of retries."""

REQUESTS_DROPPED = 1_000
"""How many of the oldest are forgotten at once when there are too many."""

VERDICT_CHANGES_KEPT_MAX = 100
"""Per model, for `ListVerdictChanges`; older ones stay in the log."""


LOAD_CHECKS_KEPT_MAX = 100
"""Per version; older ones stay in the log."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a model's production version. `evaluation` is the one that brought the verdict about."""

    level: Level = Level.UNKNOWN
    since: datetime
    version: int = 0
    streak: Streak = Streak()
    evaluation: Evaluation | None = None


class VerdictChange(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a model's verdict history."""

    version: int
    from_level: Level
    to_level: Level
    changed_at: datetime
    evaluation: Evaluation
    revision: int


class Cascade(msgspec.Struct, frozen=True, kw_only=True):
    """Why a model cools down: an upstream model was promoted."""

    upstream: ModelId
    version: int
    began_at: datetime
    """Of the first promotion of several in a row: bounds how long the model can be made to wait."""
    until: datetime
    harmed: bool | None = None
    """What the first look after `until` said; None before."""
    why: str = ""


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """GPU hours that a team's ended attempts have spent in one week."""

    week: datetime
    """Monday 00:00 UTC."""
    gpu_hours: float


NO_POLICIES = built_in(4, TaskType.BINARY)
"""In place of the policies in force, where a snapshot leaves them out."""


class ModelRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One model with all that hangs on it. Mutable: `evolve` writes it."""

    facts: ModelFacts
    policies: EffectivePolicies = NO_POLICIES
    """In force; computed from `State.policies` whenever a scope of the model, its tier or its team changes."""
    own_policies: Overrides = {}
    """What the model itself says: the scope `model:<id>`."""
    registered_at: datetime
    updated_at: datetime
    updated_revision: int
    standing: Standing
    team_moves: list[tuple[int, TeamId]] = []
    """From which revision on the model belonged to which team, oldest first."""
    versions: list[ModelVersion] = []
    aliases: dict[str, int] = {}
    alias_moves: list[AliasMove] = []
    verdict_changes: list[VerdictChange] = []
    coverage_alert: bool = False
    coverage_since: datetime | None = None
    coverage_cause: str = ""
    """Why, as was likeliest when the alert was raised; empty without alert."""
    coverage_explanation: str = ""
    retrain_ids: list[RetrainId] = []
    live_retrain: RetrainId | None = None
    live_rollout: RolloutId | None = None
    retrain_ended_at: datetime | None = None
    cooling_until: datetime | None = None
    lifecycle: Lifecycle = Lifecycle.REGISTERED
    rollout_ids: list[RolloutId] = []
    cascade: Cascade | None = None
    """The upstream promotion that it cools down after, until it was looked at afresh."""
    rule_outcome: RuleOutcome = NO_OUTCOME
    """What the rules made of it when it was last looked at, or when a rule changed since."""

    @property
    def staleness_policy(self) -> StalenessPolicy:
        """When the model counts as stale."""
        return self.policies.staleness

    @property
    def retraining_policy(self) -> RetrainingPolicy:
        """What follows from a verdict."""
        return self.policies.retraining

    @property
    def validation_policy(self) -> ValidationPolicy:
        """What a candidate must show."""
        return self.policies.validation

    @property
    def rollout_policy(self) -> RolloutPolicy:
        """What a version must show before an alias points at it."""
        return self.policies.rollout

    @property
    def ground_truth_policy(self) -> GroundTruthPolicy:
        """How its predictions and outcomes are taken in and kept."""
        return self.policies.ground_truth

    @property
    def label_spec(self) -> LabelSpec:
        """What the outcome of a prediction is."""
        return self.policies.label

    @property
    def retired(self) -> bool:
        """Over: not evaluated, not retrained, no alias moves."""
        return self.lifecycle is Lifecycle.RETIRED

    @property
    def model_id(self) -> ModelId:
        """The model's id."""
        return self.facts.model_id

    @property
    def restless(self) -> bool:
        """May time alone bring something about for this model: a retrain that is to be asked for, or the end of a wait?

        Says nothing of when; what is not restless is not looked at by `plan`."""
        if self.standing.level is Level.STALE or self.policies.retraining.every:
            return True
        if self.cascade is not None and self.cascade.harmed is None:
            return True
        return self.rule_outcome.retraining is not None

    @property
    def etag(self) -> str:
        """Changes with every update of the model's facts, its own policies or its place in life."""
        return f"r{self.updated_revision}"

    def team_at(self, revision: int) -> TeamId:
        """The team that the model belonged to at a revision; its first one before that."""
        for since, team in reversed(self.team_moves):
            if since <= revision:
                return team
        return self.team_moves[0][1] if self.team_moves else self.facts.team

    @property
    def production(self) -> ModelVersion | None:
        """The version that serves."""
        number = self.aliases.get(PRODUCTION)
        return self.versions[number - 1] if number else None


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a request id was used for, and what it came to."""

    digest: str
    result: Result
    revision: int


class State:
    """The fold. `revision` is the seq of the last event applied, `at` its time, `last_hash` its hash."""

    def __init__(self) -> None:
        self.revision = 0
        self.epoch = 0
        self.last_hash = b""
        self.at = EPOCH_START
        self.clock: datetime | None = None
        self.models: dict[ModelId, ModelRecord] = {}
        self.policies = PolicyBook()
        self.rules = RuleBook()
        self.lifecycle_revision = 0
        """When a model last changed its place in life. Only for caches in this process; never kept."""
        self.graph = DependencyGraph()
        self.graph_revision = 0
        self.edge_times = EdgeTimes()
        self.lineage = Ledger()
        self.retrains: dict[RetrainId, Retrain] = {}
        self.live_retrains: dict[RetrainId, None] = {}
        self.rollouts: dict[RolloutId, Rollout] = {}
        self.requests: dict[str, RequestRecord] = {}
        self.limits = RetrainingLimits()
        self.held = False
        self.held_since: datetime | None = None
        """When nothing new was leased from on; None if it is."""
        self.retrains_count = 0
        self.rollouts_count = 0
        self.erasures: list[ErasureReceipt] = []
        """Oldest first, at most `RECEIPTS_MAX`; replaced, never changed in place."""
        self.erasures_count = 0
        self.breakers: dict[str, Breaker] = {}
        self.spending: dict[TeamId, Spending] = {}
        """Of the newest week in which something ended, by team."""
        self.freezes: dict[str, FreezeWindow] = {}
        self.groups: dict[str, RolloutGroup] = {}
        self.uplifts: dict[RolloutId, Uplift] = {}
        """Measured, oldest first."""
        self.destinations: dict[str, Destination] = {}
        self.silences: dict[str, Silence] = {}
        self.restless: set[ModelId] = set()
        """Models that `plan` looks at; follows from `models`."""
        self.live_rollouts: dict[RolloutId, None] = {}
        """Oldest first; follows from `rollouts`."""
        self.unconfirmed_rollouts: dict[RolloutId, None] = {}
        """Ended, and what splits the traffic must still be told or has not confirmed it; follows from `rollouts`."""

    @property
    def lineage_parts(self) -> Parts:
        """What changes together when edges do."""
        return Parts(self.graph, self.lineage, self.edge_times)

    # Look-ups that every rule needs; each says what to do when the thing is not there.

    def model(self, model_id: ModelId) -> ModelRecord:
        """The record of a model, else `NotFound`."""
        record = self.models.get(model_id)
        if record is None:
            raise NotFound(
                Reason.MODEL_NOT_FOUND,
                f"no model {model_id!r}: `runway models list` shows what there is",
                model_id=model_id,
            )
        return record

    def version(self, model_id: ModelId, number: int) -> ModelVersion:
        """A version of a model, else `NotFound`."""
        versions = self.model(model_id).versions
        if not 1 <= number <= len(versions):
            have = f"its versions are 1 to {len(versions)}" if versions else "it has no version yet"
            raise NotFound(
                Reason.VERSION_NOT_FOUND,
                f"{model_id} has no version {number}: {have}",
                model_id=model_id,
                version=str(number),
            )
        return versions[number - 1]

    def retrain(self, retrain_id: RetrainId) -> Retrain:
        """A retrain, else `NotFound`."""
        found = self.retrains.get(retrain_id)
        if found is None:
            raise NotFound(
                Reason.RETRAIN_NOT_FOUND,
                f"no retrain {retrain_id!r}: `runway retrains list` shows them",
                retrain_id=retrain_id,
            )
        return found

    def retrain_of_attempt(self, attempt_id: AttemptId) -> Retrain:
        """The retrain an attempt belongs to, else `NotFound`."""
        found = self.retrains.get(RetrainId(attempt_id.rpartition("_a")[0]))
        if found is None or not any(attempt.attempt_id == attempt_id for attempt in found.attempts):
            raise NotFound(Reason.ATTEMPT_NOT_FOUND, f"no attempt {attempt_id!r}", attempt_id=attempt_id)
        return found

    def rollout(self, rollout_id: RolloutId) -> Rollout:
        """A rollout, else `NotFound`."""
        found = self.rollouts.get(rollout_id)
        if found is None:
            raise NotFound(
                Reason.ROLLOUT_NOT_FOUND,
                f"no rollout {rollout_id!r}: `runway rollouts list` shows them",
                rollout_id=rollout_id,
            )
        return found

    # Joins of the parts, used by decide, plan and queries.

    def living(self) -> Iterator[Retrain]:
        """Live retrains, oldest first."""
        return (self.retrains[retrain_id] for retrain_id in self.live_retrains)

    def running(self) -> list[Retrain]:
        """Retrains under a lease."""
        return [retrain for retrain in self.living() if retrain.state is RetrainState.RUNNING]

    def validating(self) -> list[Rollout]:
        """Rollouts that wait for their validation."""
        return [rollout for rollout in self.rolling() if rollout.state is RolloutState.VALIDATING]

    def rolling(self) -> Iterator[Rollout]:
        """Live rollouts, oldest first."""
        return (self.rollouts[rollout_id] for rollout_id in self.live_rollouts)

    def live_upstream(self, model_id: ModelId) -> Sequence[ModelId]:
        """Models upstream of this one (at any distance) whose retrain has not ended, sorted."""
        if not self.live_retrains:
            return ()
        live = {self.retrains[retrain_id].model_id for retrain_id in self.live_retrains}
        live.discard(model_id)
        if not live:
            return ()
        candidates = [model_node(other) for other in live]
        return [ModelId(node_name(node)) for node in self.graph.upstream_among(model_node(model_id), candidates)]


def in_force(state: State, facts: ModelFacts) -> EffectivePolicies:
    """The policies of a model with these facts."""
    return state.policies.in_force(facts.tier, facts.team, facts.model_id, facts.task_type)


def begun(started: RolloutStarted, at: datetime) -> Rollout:
    """The rollout that an event begins; `decide` looks at it before the event is applied."""
    return Rollout(
        rollout_id=started.rollout_id,
        model_id=started.model_id,
        version=started.version,
        production_before=started.production_before,
        state=RolloutState.VALIDATING,
        started_at=at,
        retrain_id=started.retrain_id,
        plan=started.plan,
        requested_by=started.requested_by,
    )
