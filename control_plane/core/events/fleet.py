"""Models, what is known of them, and the control plane itself."""

from datetime import datetime

from control_plane.core.erasure import LayerReceipt
from control_plane.core.events.base import EventBase
from control_plane.core.ids import AttemptId, ModelId, NodeId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import Lifecycle, ModelFacts, VersionFacts
from control_plane.core.rules.types import Rule, RuleMatch, RuleOutcome
from control_plane.core.staleness.verdict import Evaluation, Level, Streak


class ModelRegistered(EventBase, frozen=True, kw_only=True):
    """A model joined the fleet. What it says itself about its policies follows as `PoliciesSet`."""

    facts: ModelFacts


class ModelUpdated(EventBase, frozen=True, kw_only=True):
    """Facts changed; carries all of them."""

    facts: ModelFacts


class PoliciesSet(EventBase, frozen=True, kw_only=True):
    """A scope says something else from now on; carries all that it says. Versions of a scope count from 1."""

    scope: str
    version: int
    overrides: Overrides


class RuleSet(EventBase, frozen=True, kw_only=True):
    """A rule says something else from now on, or is new. Versions of a rule count from 1."""

    scope: str
    name: str
    version: int
    rule: Rule


class RuleRemoved(EventBase, frozen=True, kw_only=True):
    """A rule is gone."""

    scope: str
    name: str
    version: int


class RulesMatched(EventBase, frozen=True, kw_only=True):
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


class LifecycleChanged(EventBase, frozen=True, kw_only=True):
    """Somebody activated, deprecated or retired a model. `consumers`: who used it when it was retired by force."""

    model_id: ModelId
    before: Lifecycle
    after: Lifecycle
    consumers: tuple[NodeId, ...] = ()


class LoadChecked(EventBase, frozen=True, kw_only=True):
    """Somebody tried to load a version."""

    model_id: ModelId
    version: int
    passed: bool
    environment: str = ""
    detail: str = ""


class VersionRegistered(EventBase, frozen=True, kw_only=True):
    """A version was added."""

    model_id: ModelId
    version: int
    facts: VersionFacts
    attempt_id: AttemptId | None = None


class AliasMoved(EventBase, frozen=True, kw_only=True):
    """An alias points elsewhere; version 0 means nowhere."""

    model_id: ModelId
    alias: str
    from_version: int
    to_version: int


class FactsErased(EventBase, frozen=True, kw_only=True):
    """Predictions and all that hangs on them are gone from every layer."""

    erasure_id: str
    erased_at: datetime
    actor: str
    reason: str
    prediction_ids: int
    ids_sha256: str
    layers: tuple[LayerReceipt, ...]
    receipt_sha256: str


class StreakChanged(EventBase, frozen=True, kw_only=True):
    """An evaluation disagreed with the verdict, or agreed again; the verdict stands (hysteresis)."""

    model_id: ModelId
    streak: Streak


class VerdictChanged(EventBase, frozen=True, kw_only=True):
    """The verdict on a model changed."""

    model_id: ModelId
    version: int
    from_level: Level
    to_level: Level
    streak: Streak
    evaluation: Evaluation


class CoverageAlertRaised(EventBase, frozen=True, kw_only=True):
    """Too little of the mature truth has arrived."""

    model_id: ModelId
    coverage: float
    coverage_min: float
    cause: str = ""
    """The likeliest cause, one of `core.ground_truth.findings.Cause`; empty if it was not looked for."""
    explanation: str = ""


class CoverageAlertCleared(EventBase, frozen=True, kw_only=True):
    """Enough of the mature truth has arrived again."""

    model_id: ModelId
    coverage: float


class ClockAdvanced(EventBase, frozen=True, kw_only=True):
    """A driven clock moved."""

    to: datetime
