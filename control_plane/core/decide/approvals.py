"""People say yes or no to a rollout; freeze windows say not now."""

from datetime import datetime

from msgspec.structs import replace

from control_plane.core.commands import (
    ApproveRollout,
    DeclineRollout,
    ExpireApproval,
    RemoveFreeze,
    Result,
    SetFreeze,
)
from control_plane.core.decide.canary import check_unfrozen, live, result_of, why_validated
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.onward import back, cleared, onward, together, validated
from control_plane.core.errors import Invalid, NotFound, Reason, Refused, Violation
from control_plane.core.events import Event, FreezeRemoved, FreezeSet, RolloutApproved
from control_plane.core.rollout.canary import asked_for_by, missing_approvals
from control_plane.core.rollout.freeze import freeze_violations
from control_plane.core.rollout.types import Approval, Rollout, RolloutState
from control_plane.core.state import State

WAITING = (RolloutState.AWAITING_APPROVAL, RolloutState.AWAITING_DECISION)


def approve_rollout(state: State, command: ApproveRollout, now: datetime) -> Decision:
    """One more yes; with the last one it goes on.

    1. Only what waits for people can be approved, and only in time.
    2. Four eyes: never whoever asked for the version, and nobody twice.
    """
    rollout = _waiting(state, state.rollout(command.rollout_id))
    if rollout.approval_until is not None and now > rollout.approval_until:
        raise Refused(
            Reason.ROLLOUT_NOT_WAITING,
            f"{rollout.rollout_id} was to be approved until {rollout.approval_until:%Y-%m-%d %H:%M}: too late",
            rollout_id=rollout.rollout_id,
        )
    decision = rollout.state is RolloutState.AWAITING_DECISION
    fault = asked_for_by(rollout, () if decision else rollout.approvals, command.approver)
    if fault:
        raise Refused(Reason.APPROVAL_NOT_YOURS, fault, rollout_id=rollout.rollout_id, approver=command.approver)
    known = replace(rollout, approvals=(*rollout.approvals, Approval(approver=command.approver, at=now)))
    approved = RolloutApproved(
        rollout_id=rollout.rollout_id,
        model_id=rollout.model_id,
        version=rollout.version,
        approver=command.approver,
        missing=0 if decision else missing_approvals(known),
    )
    follow: tuple[Event, ...]
    if decision:
        check_unfrozen(state, rollout, now)
        follow = onward(state, together(state, known), now, f"decided by {command.approver}")
    elif not validated(state, rollout):
        follow = ()  # approved, but its policy wants a load check meanwhile: that brings it further
    else:
        follow = cleared(state, known, now, f"approved by {command.approver}; {why_validated(rollout)}")
    return Decision(events=(approved, *follow), result=result_of(rollout))


def decline_rollout(state: State, command: DeclineRollout) -> Decision:
    """No: it ends, and production stays."""
    rollout = _waiting(state, state.rollout(command.rollout_id))
    why = f"declined by {command.by or 'somebody'}" + (f": {command.why}" if command.why else "")
    return Decision(events=back(state, rollout, why), result=result_of(rollout))


def expire_approval(state: State, command: ExpireApproval, now: datetime) -> Decision:
    """Nobody said yes in time: silence is a no."""
    rollout = state.rollout(command.rollout_id)
    if not approval_expired(state, rollout, now):
        return Decision(result=result_of(rollout))
    asked = "approved it" if missing_approvals(rollout) else "showed that it loads"
    if rollout.state is RolloutState.AWAITING_DECISION:
        asked = "decided"
    why = f"nobody {asked} until {rollout.approval_until:%Y-%m-%d %H:%M}"
    return Decision(events=back(state, rollout, why), result=result_of(rollout))


def approval_expired(state: State, rollout: Rollout, now: datetime) -> bool:
    """Has a rollout waited for people for too long? One that has all that it needs waits for a freeze to end."""
    if rollout.state not in WAITING or rollout.approval_until is None or now <= rollout.approval_until:
        return False
    if rollout.state is RolloutState.AWAITING_DECISION:
        return True
    return missing_approvals(rollout) > 0 or not validated(state, rollout)


def _waiting(state: State, rollout: Rollout) -> Rollout:
    live(state, rollout)
    if rollout.state in WAITING and (rollout.state is RolloutState.AWAITING_DECISION or missing_approvals(rollout) > 0):
        return rollout
    raise Refused(
        Reason.ROLLOUT_NOT_WAITING,
        f"{rollout.rollout_id} of {rollout.model_id} waits for nobody, it is "
        f"{rollout.state.value.lower().replace('_', ' ')}: `runway rollouts show {rollout.rollout_id}` says more",
        rollout_id=rollout.rollout_id,
    )


def set_freeze(state: State, command: SetFreeze, now: datetime) -> Decision:
    """No step forward for a scope in a window of time; the same name again replaces it."""
    found = freeze_violations(command.freeze, now)
    scope = command.freeze.scope
    if scope.startswith("model:") and scope.removeprefix("model:") not in state.models:
        found.append(Violation(field="freeze.scope", rule="exists", message=f"there is no {scope}"))
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    if state.freezes.get(command.freeze.name) == command.freeze:
        return Decision(result=Result(scope=scope))
    return Decision(events=(FreezeSet(freeze=command.freeze),), result=Result(scope=scope, changed=1))


def remove_freeze(state: State, command: RemoveFreeze) -> Decision:
    """Take a window back."""
    if command.name not in state.freezes:
        have = ", ".join(sorted(state.freezes)) or "none"
        raise NotFound(Reason.FREEZE_NOT_FOUND, f"no freeze {command.name!r}; there are: {have}", name=command.name)
    return Decision(events=(FreezeRemoved(name=command.name),), result=Result(changed=1))
