"""Every change somebody can ask for. A command is data: `decide` says whether it may happen and what follows.

The commands at the end are the control plane's own: `plan` issues them when their time has come.
"""

from datetime import datetime

import msgspec

from control_plane.core.erasure import LayerReceipt
from control_plane.core.graph.facts import Dependency, Node
from control_plane.core.graph.lineage_facts import LineagePolicy, LineageRun, QuarantinedEdge
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, NodeId, RetrainId, RolloutId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import Lifecycle, ModelFacts, VersionFacts
from control_plane.core.retraining.types import RetrainCause, RetrainingLimits
from control_plane.core.rollout.types import Validation
from control_plane.core.rules.types import Rule
from control_plane.core.staleness.verdict import Evaluation


class _Command(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all commands; the tag is the class name."""


class RegisterModel(_Command, frozen=True, kw_only=True):
    """Add a model, with what it says itself about its policies."""

    facts: ModelFacts
    policies: Overrides = {}


class UpdateModel(_Command, frozen=True, kw_only=True):
    """Replace facts or the model's own policies; `None` leaves them. `etag` empty means: do not check."""

    model_id: ModelId
    facts: ModelFacts | None = None
    policies: Overrides | None = None
    etag: str = ""


class RegisterVersion(_Command, frozen=True, kw_only=True):
    """Add a trained version; with an attempt, its lease must still be held."""

    model_id: ModelId
    facts: VersionFacts
    attempt_id: AttemptId | None = None
    lease_token: LeaseToken | None = None


class MoveAlias(_Command, frozen=True, kw_only=True):
    """Point a team's own alias at a version."""

    model_id: ModelId
    alias: str
    version: int
    expected_version: int | None = None


class RemoveAlias(_Command, frozen=True, kw_only=True):
    """Remove a team's own alias."""

    model_id: ModelId
    alias: str


class SetLifecycle(_Command, frozen=True, kw_only=True):
    """Activate, deprecate or retire a model; `force` retires one that others consume."""

    model_id: ModelId
    lifecycle: Lifecycle
    force: bool = False


class ReportLoadCheck(_Command, frozen=True, kw_only=True):
    """Somebody tried to load a version."""

    model_id: ModelId
    version: int
    passed: bool
    environment: str = ""
    detail: str = ""


class SetPolicies(_Command, frozen=True, kw_only=True):
    """Replace all that a scope says; nothing removes it. `etag` empty means: do not check."""

    scope: str
    overrides: Overrides
    etag: str = ""


class SetRule(_Command, frozen=True, kw_only=True):
    """Add a rule, or replace the one of its name and scope. `etag` empty means: do not check.

    `looks` are the newest evaluations known of the models it speaks to: what it makes of them is decided at once.
    """

    rule: Rule
    etag: str = ""
    looks: dict[ModelId, Evaluation] = {}


class RemoveRule(_Command, frozen=True, kw_only=True):
    """Remove a rule."""

    scope: str
    name: str


class DeclareNodes(_Command, frozen=True, kw_only=True):
    """Add datasets, features and consumers, or change their facts."""

    nodes: tuple[Node, ...]


class DeclareDependencies(_Command, frozen=True, kw_only=True):
    """Add edges, all or none."""

    dependencies: tuple[Dependency, ...]


class RetractDependencies(_Command, frozen=True, kw_only=True):
    """Remove edges, all or none; their ends and types say which."""

    dependencies: tuple[Dependency, ...]


class RemoveNodes(_Command, frozen=True, kw_only=True):
    """Remove datasets, features and consumers, all or none."""

    node_ids: tuple[NodeId, ...]


class RenameNode(_Command, frozen=True, kw_only=True):
    """Give a node another id; if that is a node already, the two become one."""

    node_id: NodeId
    new_node_id: NodeId


class ReportLineage(_Command, frozen=True, kw_only=True):
    """What runs have read and written, as their sources tell it."""

    runs: tuple[LineageRun, ...]


class SetOverride(_Command, frozen=True, kw_only=True):
    """Have the last word on an edge. `replace_revision`: the override of somebody else that is replaced, or 0."""

    dependency: Dependency
    present: bool
    owner: str
    reason: str
    expires_at: datetime | None = None
    replace_revision: int = 0


class ClearOverride(_Command, frozen=True, kw_only=True):
    """Take the last word back; its ends and type say which."""

    dependency: Dependency


class EraseFacts(_Command, frozen=True, kw_only=True):
    """Put on record that predictions were erased from every layer; never which, but a hash over their ids."""

    actor: str
    reason: str
    prediction_ids: int
    ids_sha256: str
    layers: tuple[LayerReceipt, ...]


class SetLineagePolicy(_Command, frozen=True, kw_only=True):
    """When discovered edges become suspect, and when they are retired."""

    policy: LineagePolicy


class ApplyFleet(_Command, frozen=True, kw_only=True):
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


class RequestRetrain(_Command, frozen=True, kw_only=True):
    """Ask for a retrain, or add a cause to the live one."""

    model_id: ModelId
    cause: RetrainCause
    ignore_cooldown: bool = False


class CancelRetrain(_Command, frozen=True, kw_only=True):
    """End a live retrain without a result."""

    retrain_id: RetrainId


class LeaseRetrains(_Command, frozen=True, kw_only=True):
    """Take what may run now. `lease_tokens` are fresh random strings, one for each lease that may be given."""

    scheduler: str
    lease_tokens: tuple[LeaseToken, ...]
    known_attempt_ids: tuple[AttemptId, ...] = ()


class RenewLease(_Command, frozen=True, kw_only=True):
    """The attempt is still being worked on."""

    attempt_id: AttemptId
    lease_token: LeaseToken
    run: str = ""


class ReportSuccess(_Command, frozen=True, kw_only=True):
    """The attempt produced a version."""

    attempt_id: AttemptId
    lease_token: LeaseToken
    version: int
    run: str = ""


class ReportFailure(_Command, frozen=True, kw_only=True):
    """The attempt failed. `permanent`: trying again is pointless."""

    attempt_id: AttemptId
    lease_token: LeaseToken
    failure: str
    run: str = ""
    permanent: bool = False


class ReportValidation(_Command, frozen=True, kw_only=True):
    """Candidate against production on a holdout."""

    model_id: ModelId
    version: int
    validation: Validation


class PromoteVersion(_Command, frozen=True, kw_only=True):
    """Promote by hand; `force` skips the validation and needs a reason."""

    model_id: ModelId
    version: int
    force: bool = False


class RollBack(_Command, frozen=True, kw_only=True):
    """Point production at the version before."""

    model_id: ModelId


class SetLimits(_Command, frozen=True, kw_only=True):
    """How many attempts may run at once."""

    limits: RetrainingLimits


class HoldRetraining(_Command, frozen=True, kw_only=True):
    """Lease nothing new."""


class ReleaseRetraining(_Command, frozen=True, kw_only=True):
    """Lease again."""


class AdvanceClock(_Command, frozen=True, kw_only=True):
    """Move a driven clock forward to `to`."""

    to: datetime


class RecordEvaluation(_Command, frozen=True, kw_only=True):
    """What a look at the evidence said. Discarded if another version is in production by now."""

    model_id: ModelId
    evaluation: Evaluation


class RecordCoverage(_Command, frozen=True, kw_only=True):
    """How much of the mature truth has arrived, for the coverage alert. None: nothing is mature."""

    model_id: ModelId
    coverage: float | None
    cause: str = ""
    """The likeliest cause if it is low, one of `core.ground_truth.findings.Cause`; empty if none was looked for."""
    explanation: str = ""


class ExpireAttempt(_Command, frozen=True, kw_only=True):
    """An attempt's lease or time ran out."""

    attempt_id: AttemptId


class ExpireValidation(_Command, frozen=True, kw_only=True):
    """Nobody validated the candidate in time."""

    rollout_id: RolloutId


class SettleLineage(_Command, frozen=True, kw_only=True):
    """Time has passed, or the graph has changed: move the edges whose state no longer follows from what is known."""


class CloseHealed(_Command, frozen=True, kw_only=True):
    """A waiting retrain whose only cause is gone: the model is fresh again."""

    retrain_id: RetrainId


Command = (
    RegisterModel
    | UpdateModel
    | RegisterVersion
    | MoveAlias
    | RemoveAlias
    | SetLifecycle
    | ReportLoadCheck
    | SetPolicies
    | SetRule
    | RemoveRule
    | DeclareNodes
    | DeclareDependencies
    | RetractDependencies
    | RemoveNodes
    | RenameNode
    | ReportLineage
    | SetOverride
    | ClearOverride
    | SetLineagePolicy
    | EraseFacts
    | SettleLineage
    | ApplyFleet
    | RequestRetrain
    | CancelRetrain
    | LeaseRetrains
    | RenewLease
    | ReportSuccess
    | ReportFailure
    | ReportValidation
    | PromoteVersion
    | RollBack
    | SetLimits
    | HoldRetraining
    | ReleaseRetraining
    | AdvanceClock
    | RecordEvaluation
    | RecordCoverage
    | ExpireAttempt
    | ExpireValidation
    | CloseHealed
)


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a command came to: the ids its answer is rendered from. Kept in the log with the command's last event,
    so that the same request id gets the same answer after a restart."""

    model_id: ModelId | None = None
    version: int | None = None
    alias: str | None = None
    scope: str | None = None
    changed: int = 0
    retrain_id: RetrainId | None = None
    created: bool = False
    attempt_ids: tuple[AttemptId, ...] = ()
    rollout_id: RolloutId | None = None
    node_id: NodeId | None = None
    dependencies: int = 0
    quarantined: tuple[QuarantinedEdge, ...] = ()
