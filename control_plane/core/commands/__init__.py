"""Every change somebody can ask for. A command is data: `decide` says whether it may happen and what follows.

The commands at the end are the control plane's own: `plan` issues them when their time has come.
"""

import msgspec

from control_plane.core.commands.alerts import RemoveDestination, SetDestination, SilenceAlert
from control_plane.core.commands.fleet import (
    AdvanceClock,
    ApplyFleet,
    EraseFacts,
    MoveAlias,
    RecordCoverage,
    RecordEvaluation,
    RegisterModel,
    RegisterVersion,
    RemoveAlias,
    RemoveRule,
    ReportLoadCheck,
    SetLifecycle,
    SetPolicies,
    SetRule,
    UpdateModel,
)
from control_plane.core.commands.graph import (
    ClearOverride,
    DeclareDependencies,
    DeclareNodes,
    RemoveNodes,
    RenameNode,
    ReportLineage,
    RetractDependencies,
    SetLineagePolicy,
    SetOverride,
    SettleLineage,
)
from control_plane.core.commands.retraining import (
    ApplyRetrainPlan,
    BypassBreaker,
    CancelRetrain,
    CloseHealed,
    ExpireAttempt,
    ExpireRetrain,
    HalfOpenBreaker,
    HoldRetrain,
    HoldRetraining,
    LeaseRetrains,
    OpenBreaker,
    RecordProbe,
    ReleaseRetrain,
    ReleaseRetraining,
    RenewLease,
    ReportFailure,
    ReportSuccess,
    RequestRetrain,
    ResetBreaker,
    SetLimits,
    SettleCascade,
    TripBreaker,
)
from control_plane.core.commands.rollout import (
    AbortRollout,
    AdvanceRollout,
    ApproveRollout,
    DeclineRollout,
    ExpireApproval,
    ExpireValidation,
    GroupRollouts,
    HoldRollout,
    PromoteVersion,
    RecordLook,
    RecordUplift,
    ReleaseRollout,
    RemoveFreeze,
    ReportCheck,
    ReportValidation,
    ReportWeight,
    RollBack,
    SetFreeze,
    StepRollout,
)
from control_plane.core.graph.lineage_facts import QuarantinedEdge
from control_plane.core.ids import AttemptId, ModelId, NodeId, RetrainId, RolloutId

__all__ = [
    "AbortRollout",
    "AdvanceClock",
    "AdvanceRollout",
    "ApplyFleet",
    "ApplyRetrainPlan",
    "ApproveRollout",
    "BypassBreaker",
    "CancelRetrain",
    "ClearOverride",
    "CloseHealed",
    "Command",
    "DeclareDependencies",
    "DeclareNodes",
    "DeclineRollout",
    "EraseFacts",
    "ExpireApproval",
    "ExpireAttempt",
    "ExpireRetrain",
    "ExpireValidation",
    "GroupRollouts",
    "HalfOpenBreaker",
    "HoldRetrain",
    "HoldRetraining",
    "HoldRollout",
    "LeaseRetrains",
    "MoveAlias",
    "OpenBreaker",
    "PromoteVersion",
    "RecordCoverage",
    "RecordEvaluation",
    "RecordLook",
    "RecordProbe",
    "RecordUplift",
    "RegisterModel",
    "RegisterVersion",
    "ReleaseRetrain",
    "ReleaseRetraining",
    "ReleaseRollout",
    "RemoveAlias",
    "RemoveDestination",
    "RemoveFreeze",
    "RemoveNodes",
    "RemoveRule",
    "RenameNode",
    "RenewLease",
    "ReportCheck",
    "ReportFailure",
    "ReportLineage",
    "ReportLoadCheck",
    "ReportSuccess",
    "ReportValidation",
    "ReportWeight",
    "RequestRetrain",
    "ResetBreaker",
    "Result",
    "RetractDependencies",
    "RollBack",
    "SetDestination",
    "SetFreeze",
    "SetLifecycle",
    "SetLimits",
    "SetLineagePolicy",
    "SetOverride",
    "SetPolicies",
    "SetRule",
    "SettleCascade",
    "SettleLineage",
    "SilenceAlert",
    "StepRollout",
    "TripBreaker",
    "UpdateModel",
]

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
    | ReportCheck
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
    | HoldRetrain
    | ReleaseRetrain
    | ExpireRetrain
    | SettleCascade
    | ApplyRetrainPlan
    | OpenBreaker
    | HalfOpenBreaker
    | RecordProbe
    | TripBreaker
    | ResetBreaker
    | BypassBreaker
    | ApproveRollout
    | DeclineRollout
    | AbortRollout
    | HoldRollout
    | ReleaseRollout
    | AdvanceRollout
    | RecordLook
    | ReportWeight
    | GroupRollouts
    | SetFreeze
    | RemoveFreeze
    | RecordUplift
    | StepRollout
    | ExpireApproval
    | SetDestination
    | RemoveDestination
    | SilenceAlert
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
    retrain_ids: tuple[RetrainId, ...] = ()
    group: str = ""
    rollout_id: RolloutId | None = None
    node_id: NodeId | None = None
    dependencies: int = 0
    quarantined: tuple[QuarantinedEdge, ...] = ()
