"""Everything that can have happened. Events are facts in the past tense; `evolve` applies them and never refuses.

An event's kind on the log is its class name, its version `SCHEMA_VERSION`. A field may be added with a default;
anything else is a new version with an upcaster, and every version ever written stays in `tests/golden`.
"""

from datetime import datetime
from typing import get_args

import msgspec

from control_plane.core.commands import Result
from control_plane.core.erasure import LayerReceipt
from control_plane.core.graph.facts import Dependency, Node
from control_plane.core.graph.lineage_facts import EdgeChange, EdgeState, LineagePolicy, LineageRun, NodeMove
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, NodeId, RetrainId, RolloutId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import Lifecycle, ModelFacts, VersionFacts
from control_plane.core.retraining.types import (
    AttemptState,
    RetrainCause,
    RetrainingLimits,
    RetrainState,
)
from control_plane.core.rollout.types import RolloutState, Validation
from control_plane.core.rules.types import Rule, RuleMatch, RuleOutcome
from control_plane.core.staleness.verdict import Evaluation, Level, Streak


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all events; the tag is the class name."""


class ModelRegistered(_Event, frozen=True, kw_only=True):
    """A model joined the fleet. What it says itself about its policies follows as `PoliciesSet`."""

    facts: ModelFacts


class ModelUpdated(_Event, frozen=True, kw_only=True):
    """Facts changed; carries all of them."""

    facts: ModelFacts


class PoliciesSet(_Event, frozen=True, kw_only=True):
    """A scope says something else from now on; carries all that it says. Versions of a scope count from 1."""

    scope: str
    version: int
    overrides: Overrides


class RuleSet(_Event, frozen=True, kw_only=True):
    """A rule says something else from now on, or is new. Versions of a rule count from 1."""

    scope: str
    name: str
    version: int
    rule: Rule


class RuleRemoved(_Event, frozen=True, kw_only=True):
    """A rule is gone."""

    scope: str
    name: str
    version: int


class RulesMatched(_Event, frozen=True, kw_only=True):
    """The rules make something else of a model: other ones hold, or act otherwise.

    `begun` are the matches that were not there before, `ended` those that hold no more.
    """

    model_id: ModelId
    version: int
    level: Level
    score: float
    threshold: float
    outcome: RuleOutcome
    begun: tuple[RuleMatch, ...] = ()
    ended: tuple[RuleMatch, ...] = ()


class LifecycleChanged(_Event, frozen=True, kw_only=True):
    """Somebody activated, deprecated or retired a model. `consumers`: who used it when it was retired by force."""

    model_id: ModelId
    before: Lifecycle
    after: Lifecycle
    consumers: tuple[NodeId, ...] = ()


class LoadChecked(_Event, frozen=True, kw_only=True):
    """Somebody tried to load a version."""

    model_id: ModelId
    version: int
    passed: bool
    environment: str = ""
    detail: str = ""


class VersionRegistered(_Event, frozen=True, kw_only=True):
    """A version was added."""

    model_id: ModelId
    version: int
    facts: VersionFacts
    attempt_id: AttemptId | None = None


class AliasMoved(_Event, frozen=True, kw_only=True):
    """An alias points elsewhere; version 0 means nowhere."""

    model_id: ModelId
    alias: str
    from_version: int
    to_version: int


class NodesDeclared(_Event, frozen=True, kw_only=True):
    """Nodes were added or changed."""

    nodes: tuple[Node, ...]


class DependenciesDeclared(_Event, frozen=True, kw_only=True):
    """Edges were added or changed."""

    dependencies: tuple[Dependency, ...]


class DependenciesRetracted(_Event, frozen=True, kw_only=True):
    """Edges were removed."""

    dependencies: tuple[Dependency, ...]


class NodesDiscovered(_Event, frozen=True, kw_only=True):
    """Sources named nodes that nobody has declared, or said more of such nodes; carries all of their facts."""

    nodes: tuple[Node, ...]


class NodesRemoved(_Event, frozen=True, kw_only=True):
    """Nodes without edges were removed."""

    node_ids: tuple[NodeId, ...]


class NodesMoved(_Event, frozen=True, kw_only=True):
    """Nodes became others: renamed, or recognized as the same. `quarantined`: moved edges that would close a cycle."""

    moves: tuple[NodeMove, ...]
    quarantined: tuple[EdgeChange, ...] = ()


class LineageReported(_Event, frozen=True, kw_only=True):
    """Sources told something new of runs. Nodes have ids here.

    `untyped` counts pairs of input and output that no type of edge joins. `wanted_moves` are discovered nodes that turn
    out to be others by what was told.
    """

    runs: tuple[LineageRun, ...]
    untyped: int = 0
    wanted_moves: tuple[NodeMove, ...] = ()


class EdgesSettled(_Event, frozen=True, kw_only=True):
    """Edges changed their states: found, seen again, suspect, retired, quarantined or let in."""

    changes: tuple[EdgeChange, ...]


class OverrideSet(_Event, frozen=True, kw_only=True):
    """Somebody has the last word on an edge."""

    dependency: Dependency
    present: bool
    owner: str
    reason: str
    expires_at: datetime | None = None


class OverrideCleared(_Event, frozen=True, kw_only=True):
    """An override was taken back, or expired; the edge is `after` since, None if nothing else speaks of it."""

    dependency: Dependency
    owner: str
    expired: bool
    after: EdgeState | None
    reason: str
    cycle: tuple[NodeId, ...] = ()


class LineagePolicySet(_Event, frozen=True, kw_only=True):
    """Other bounds for edges that are no longer seen."""

    policy: LineagePolicy


class FactsErased(_Event, frozen=True, kw_only=True):
    """Predictions and all that hangs on them are gone from every layer."""

    erasure_id: str
    erased_at: datetime
    actor: str
    reason: str
    prediction_ids: int
    ids_sha256: str
    layers: tuple[LayerReceipt, ...]
    receipt_sha256: str


class UnfinishedRunsDropped(_Event, frozen=True, kw_only=True):
    """Runs that never said how they ended are forgotten, as (source, job, run)."""

    runs: tuple[tuple[str, str, str], ...]
    reason: str


class StreakChanged(_Event, frozen=True, kw_only=True):
    """An evaluation disagreed with the verdict, or agreed again; the verdict stands (hysteresis)."""

    model_id: ModelId
    streak: Streak


class VerdictChanged(_Event, frozen=True, kw_only=True):
    """The verdict on a model changed."""

    model_id: ModelId
    version: int
    from_level: Level
    to_level: Level
    streak: Streak
    evaluation: Evaluation


class CoverageAlertRaised(_Event, frozen=True, kw_only=True):
    """Too little of the mature truth has arrived."""

    model_id: ModelId
    coverage: float
    coverage_min: float
    cause: str = ""
    """The likeliest cause, one of `core.ground_truth.findings.Cause`; empty if it was not looked for."""
    explanation: str = ""


class CoverageAlertCleared(_Event, frozen=True, kw_only=True):
    """Enough of the mature truth has arrived again."""

    model_id: ModelId
    coverage: float


class RetrainRequested(_Event, frozen=True, kw_only=True):
    """A retrain waits."""

    retrain_id: RetrainId
    model_id: ModelId
    cause: RetrainCause
    score: float
    not_before: datetime
    ignore_cooldown: bool = False


class RetrainJoined(_Event, frozen=True, kw_only=True):
    """A live retrain was asked for once more."""

    retrain_id: RetrainId
    model_id: ModelId
    cause: RetrainCause
    not_before: datetime
    ignore_cooldown: bool = False


class RetrainLeased(_Event, frozen=True, kw_only=True):
    """A scheduler took a retrain: an attempt runs."""

    retrain_id: RetrainId
    model_id: ModelId
    attempt_id: AttemptId
    number: int
    scheduler: str
    lease_token: LeaseToken
    expires_at: datetime
    wave: int


class LeaseRenewed(_Event, frozen=True, kw_only=True):
    """The attempt lives."""

    retrain_id: RetrainId
    model_id: ModelId
    attempt_id: AttemptId
    expires_at: datetime
    run: str = ""


class AttemptEnded(_Event, frozen=True, kw_only=True):
    """An attempt ended. `retry_at` set: it will be tried again; else see RetrainEnded or RolloutStarted."""

    retrain_id: RetrainId
    model_id: ModelId
    attempt_id: AttemptId
    state: AttemptState
    failure: str = ""
    run: str = ""
    version: int | None = None
    retry_at: datetime | None = None


class RetrainEnded(_Event, frozen=True, kw_only=True):
    """A retrain came to its end."""

    retrain_id: RetrainId
    model_id: ModelId
    state: RetrainState
    conclusion: str


class RolloutStarted(_Event, frozen=True, kw_only=True):
    """A candidate is on its way."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    production_before: int
    retrain_id: RetrainId | None = None


class ValidationReported(_Event, frozen=True, kw_only=True):
    """Somebody compared the candidate with production."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    validation: Validation


class RolloutEnded(_Event, frozen=True, kw_only=True):
    """Promoted, refused or rolled back."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    state: RolloutState
    conclusion: str


class CascadeCooldownStarted(_Event, frozen=True, kw_only=True):
    """An upstream promotion: these models wait, are then evaluated, and retrain only if the evidence says so."""

    upstream: ModelId
    version: int
    until: dict[ModelId, datetime]


class LimitsSet(_Event, frozen=True, kw_only=True):
    """Limits on what runs at once changed."""

    limits: RetrainingLimits


class RetrainingHeld(_Event, frozen=True, kw_only=True):
    """Nothing new is leased."""


class RetrainingReleased(_Event, frozen=True, kw_only=True):
    """Leasing goes on."""


class ClockAdvanced(_Event, frozen=True, kw_only=True):
    """A driven clock moved."""

    to: datetime


Event = (
    ModelRegistered
    | ModelUpdated
    | PoliciesSet
    | RuleSet
    | RuleRemoved
    | RulesMatched
    | LifecycleChanged
    | LoadChecked
    | VersionRegistered
    | AliasMoved
    | NodesDeclared
    | DependenciesDeclared
    | DependenciesRetracted
    | NodesDiscovered
    | NodesRemoved
    | NodesMoved
    | LineageReported
    | EdgesSettled
    | OverrideSet
    | OverrideCleared
    | LineagePolicySet
    | UnfinishedRunsDropped
    | StreakChanged
    | VerdictChanged
    | CoverageAlertRaised
    | CoverageAlertCleared
    | RetrainRequested
    | RetrainJoined
    | RetrainLeased
    | LeaseRenewed
    | AttemptEnded
    | RetrainEnded
    | RolloutStarted
    | ValidationReported
    | RolloutEnded
    | CascadeCooldownStarted
    | LimitsSet
    | RetrainingHeld
    | RetrainingReleased
    | ClockAdvanced
    | FactsErased
)

SCHEMA_VERSION = 2
"""Version of the event schema written now; a log entry of a higher one stops the start."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """An event with its place in the log.

    `request_digest` and `result` stand on the last event of a command that carried a request id; they are what makes
    a repeated request get its first answer.
    """

    seq: int
    epoch: int
    at: datetime
    actor: str
    reason: str
    event: Event
    request_id: str = ""
    request_digest: str = ""
    result: Result | None = None
    prev_hash: bytes = b""
    hash: bytes = b""


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """JSON of an event, tag included; the same event gives the same bytes."""
    return _encoder.encode(event)


def decode_event(payload: bytes | str) -> Event:
    """Inverse of `encode_event`. Raises msgspec.ValidationError on an unknown kind or a broken field."""
    return _decoder.decode(payload)


def event_kind(event: Event) -> str:
    """Name of an event's kind, as in the log."""
    return type(event).__name__


EVENT_KINDS = frozenset(kind.__name__ for kind in get_args(Event))
"""Names of all kinds there are."""
