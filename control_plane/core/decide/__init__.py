"""What a command leads to: `decide(state, command, now)` gives events or refuses. Never changes the state.

One module per part; this file only says which.
"""

from datetime import datetime
from typing import assert_never

from control_plane.core.commands import (
    AbortRollout,
    AdvanceClock,
    AdvanceRollout,
    ApplyFleet,
    ApplyRetrainPlan,
    ApproveRollout,
    BypassBreaker,
    CancelRetrain,
    ClearOverride,
    CloseHealed,
    Command,
    DeclareDependencies,
    DeclareNodes,
    DeclineRollout,
    EraseFacts,
    ExpireApproval,
    ExpireAttempt,
    ExpireRetrain,
    ExpireValidation,
    GroupRollouts,
    HalfOpenBreaker,
    HoldRetrain,
    HoldRetraining,
    HoldRollout,
    LeaseRetrains,
    MoveAlias,
    OpenBreaker,
    PromoteVersion,
    RecordCoverage,
    RecordEvaluation,
    RecordLook,
    RecordProbe,
    RecordUplift,
    RegisterModel,
    RegisterVersion,
    ReleaseRetrain,
    ReleaseRetraining,
    ReleaseRollout,
    RemoveAlias,
    RemoveDestination,
    RemoveFreeze,
    RemoveNodes,
    RemoveRule,
    RenameNode,
    RenewLease,
    ReportCheck,
    ReportFailure,
    ReportLineage,
    ReportLoadCheck,
    ReportSuccess,
    ReportValidation,
    ReportWeight,
    RequestRetrain,
    ResetBreaker,
    RetractDependencies,
    RollBack,
    SetDestination,
    SetFreeze,
    SetLifecycle,
    SetLimits,
    SetLineagePolicy,
    SetOverride,
    SetPolicies,
    SetRule,
    SettleCascade,
    SettleLineage,
    SilenceAlert,
    StepRollout,
    TripBreaker,
    UpdateModel,
)
from control_plane.core.decide import (
    alerts,
    approvals,
    attempts,
    breakers,
    canary,
    cascade,
    erasure,
    fleet,
    graph,
    leases,
    lifecycle,
    lineage,
    operations,
    plan_apply,
    policies,
    registry,
    requests,
    rollout,
    rules,
    staleness,
)
from control_plane.core.decide.decision import Decision
from control_plane.core.state import State

__all__ = ["Decision", "decide"]


def decide(state: State, command: Command, now: datetime) -> Decision:  # noqa: PLR0912, PLR0915 - one line per command
    """Events that `command` leads to at `now`, and its result; raises `Invalid` or `Refused`."""
    match command:
        case RegisterModel():
            return registry.register_model(state, command)
        case UpdateModel():
            return registry.update_model(state, command)
        case RegisterVersion():
            return registry.register_version(state, command, now)
        case MoveAlias():
            return registry.move_alias(state, command)
        case SetPolicies():
            return policies.set_policies(state, command)
        case SetRule():
            return rules.set_rule(state, command, now)
        case RemoveRule():
            return rules.remove_rule(state, command, now)
        case RemoveAlias():
            return registry.remove_alias(state, command)
        case SetLifecycle():
            return lifecycle.set_lifecycle(state, command, now)
        case ReportLoadCheck():
            return rollout.report_load_check(state, command, now)
        case DeclareNodes():
            return graph.declare_nodes(state, command)
        case DeclareDependencies():
            return graph.declare_dependencies(state, command)
        case RetractDependencies():
            return graph.retract_dependencies(state, command, now)
        case RemoveNodes():
            return graph.remove_nodes(state, command)
        case RenameNode():
            return graph.rename_node(state, command)
        case ReportLineage():
            return lineage.report_lineage(state, command, now)
        case SetOverride():
            return lineage.set_override(state, command, now)
        case ClearOverride():
            return lineage.clear_override(state, command, now)
        case SetLineagePolicy():
            return lineage.set_lineage_policy(state, command, now)
        case SettleLineage():
            return lineage.settle_lineage(state, now)
        case EraseFacts():
            return erasure.record_erasure(state, command, now)
        case ApplyFleet():
            return fleet.apply_fleet(state, command, now)
        case RecordEvaluation():
            return staleness.record_evaluation(state, command)
        case RecordCoverage():
            return staleness.record_coverage(state, command)
        case RequestRetrain():
            return requests.request_retrain(state, command, now)
        case CancelRetrain():
            return requests.cancel_retrain(state, command, now)
        case HoldRetrain():
            return requests.hold_retrain(state, command)
        case ReleaseRetrain():
            return requests.release_retrain(state, command)
        case OpenBreaker():
            return breakers.open_breaker(state, command, now)
        case HalfOpenBreaker():
            return breakers.half_open_breaker(state, command, now)
        case RecordProbe():
            return breakers.record_probe(state, command, now)
        case TripBreaker():
            return breakers.trip_breaker(state, command, now)
        case ResetBreaker():
            return breakers.reset_breaker(state, command, now)
        case BypassBreaker():
            return breakers.bypass_breaker(state, command, now)
        case ApplyRetrainPlan():
            return plan_apply.apply_retrain_plan(state, command, now)
        case SettleCascade():
            return cascade.settle_cascade(state, command, now)
        case ExpireRetrain():
            return requests.expire_retrain(state, command, now)
        case CloseHealed():
            return requests.close_healed(state, command)
        case LeaseRetrains():
            return leases.lease_retrains(state, command, now)
        case RenewLease():
            return attempts.renew_lease(state, command, now)
        case ReportSuccess():
            return attempts.report_success(state, command, now)
        case ReportFailure():
            return attempts.report_failure(state, command, now)
        case ExpireAttempt():
            return attempts.expire_attempt(state, command, now)
        case ReportValidation():
            return rollout.report_validation(state, command, now)
        case ReportCheck():
            return rollout.report_check(state, command, now)
        case ExpireValidation():
            return rollout.expire_validation(state, command, now)
        case PromoteVersion():
            return rollout.promote_version(state, command, now)
        case RollBack():
            return rollout.roll_back(state, command, now)
        case RecordLook():
            return canary.record_look(state, command, now)
        case StepRollout():
            return canary.step_rollout(state, command, now)
        case ReportWeight():
            return canary.report_weight(state, command)
        case HoldRollout():
            return canary.hold_rollout(state, command)
        case ReleaseRollout():
            return canary.release_rollout(state, command)
        case AbortRollout():
            return canary.abort_rollout(state, command)
        case AdvanceRollout():
            return canary.advance_rollout(state, command, now)
        case GroupRollouts():
            return canary.group_rollouts(state, command)
        case RecordUplift():
            return canary.record_uplift(state, command)
        case ApproveRollout():
            return approvals.approve_rollout(state, command, now)
        case DeclineRollout():
            return approvals.decline_rollout(state, command)
        case ExpireApproval():
            return approvals.expire_approval(state, command, now)
        case SetFreeze():
            return approvals.set_freeze(state, command, now)
        case RemoveFreeze():
            return approvals.remove_freeze(state, command)
        case SetLimits() | HoldRetraining() | ReleaseRetraining() | AdvanceClock():
            return operations.operate(state, command)
        case SetDestination():
            return alerts.set_destination(state, command)
        case RemoveDestination():
            return alerts.remove_destination(state, command)
        case SilenceAlert():
            return alerts.silence_alert(state, command, now)
        case _:
            assert_never(command)
