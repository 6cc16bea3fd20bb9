"""Models, policies, rules, evidence, and the control plane itself."""

from datetime import datetime

import msgspec

from control_plane.core.commands.base import CommandBase
from control_plane.core.erasure import LayerReceipt
from control_plane.core.graph.facts import Dependency, Node
from control_plane.core.ids import AttemptId, LeaseToken, ModelId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import Lifecycle, ModelFacts, VersionFacts
from control_plane.core.rules.types import Rule
from control_plane.core.staleness.verdict import Evaluation


class RegisterModel(CommandBase, frozen=True, kw_only=True):
    """Add a model, with what it says itself about its policies."""

    facts: ModelFacts
    policies: Overrides = msgspec.field(default_factory=dict)


class UpdateModel(CommandBase, frozen=True, kw_only=True):
    """Replace facts or the model's own policies; `None` leaves them. `etag` empty means: do not check."""

    model_id: ModelId
    facts: ModelFacts | None = None
    policies: Overrides | None = None
    etag: str = ""


class RegisterVersion(CommandBase, frozen=True, kw_only=True):
    """Add a trained version; with an attempt, its lease must still be held."""

    model_id: ModelId
    facts: VersionFacts
    attempt_id: AttemptId | None = None
    lease_token: LeaseToken | None = None


class MoveAlias(CommandBase, frozen=True, kw_only=True):
    """Point a team's own alias at a version."""

    model_id: ModelId
    alias: str
    version: int
    expected_version: int | None = None


class RemoveAlias(CommandBase, frozen=True, kw_only=True):
    """Remove a team's own alias."""

    model_id: ModelId
    alias: str


class SetLifecycle(CommandBase, frozen=True, kw_only=True):
    """Activate, deprecate or retire a model; `force` retires one that others consume."""

    model_id: ModelId
    lifecycle: Lifecycle
    force: bool = False


class ReportLoadCheck(CommandBase, frozen=True, kw_only=True):
    """Somebody tried to load a version."""

    model_id: ModelId
    version: int
    passed: bool
    environment: str = ""
    detail: str = ""


class SetPolicies(CommandBase, frozen=True, kw_only=True):
    """Replace all that a scope says; nothing removes it. `etag` empty means: do not check."""

    scope: str
    overrides: Overrides
    etag: str = ""


class SetRule(CommandBase, frozen=True, kw_only=True):
    """Add a rule, or replace the one of its name and scope. `etag` empty means: do not check.

    `looks` are the newest evaluations known of the models it speaks to: what it makes of them is decided at once.
    """

    rule: Rule
    etag: str = ""
    looks: dict[ModelId, Evaluation] = msgspec.field(default_factory=dict)


class RemoveRule(CommandBase, frozen=True, kw_only=True):
    """Remove a rule."""

    scope: str
    name: str


class EraseFacts(CommandBase, frozen=True, kw_only=True):
    """Put on record that predictions were erased from every layer; never which, but a hash over their ids."""

    actor: str
    reason: str
    prediction_ids: int
    ids_sha256: str
    layers: tuple[LayerReceipt, ...]


class ApplyFleet(CommandBase, frozen=True, kw_only=True):
    """Make the fleet what a manifest says, all or nothing.

    `policies` are scopes with what they say, `models` with what they say of their own policies. With `prune` declared
    nodes, dependencies, policies and rules that the manifest does not name go. `plan_etag` empty means: do not check.
    """

    policies: tuple[tuple[str, Overrides], ...] = ()
    rules: tuple[Rule, ...] = ()
    nodes: tuple[Node, ...] = ()
    models: tuple[tuple[ModelFacts, Overrides], ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    prune: bool = False
    plan_etag: str = ""

    def agreed(self, plan_etag: str) -> "ApplyFleet":
        """The same, if the plan is this one."""
        return msgspec.structs.replace(self, plan_etag=plan_etag)


class AdvanceClock(CommandBase, frozen=True, kw_only=True):
    """Move a driven clock forward to `to`."""

    to: datetime


class RecordEvaluation(CommandBase, frozen=True, kw_only=True):
    """What a look at the evidence said. Discarded if another version is in production by now."""

    model_id: ModelId
    evaluation: Evaluation


class RecordCoverage(CommandBase, frozen=True, kw_only=True):
    """How much of the mature truth has arrived, for the coverage alert. None: nothing is mature."""

    model_id: ModelId
    coverage: float | None
    cause: str = ""
    """The likeliest cause if it is low, one of `core.ground_truth.findings.Cause`; empty if none was looked for."""
    explanation: str = ""
