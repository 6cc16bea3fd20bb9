"""What events do to rollouts."""

from typing import assert_never

from msgspec.structs import replace

from control_plane.core.events import (
    ApprovalAsked,
    CanaryJudged,
    CheckReported,
    Envelope,
    RolloutApproved,
    RolloutEnded,
    RolloutHeld,
    RolloutReleased,
    RolloutsGrouped,
    RolloutStarted,
    RolloutStepped,
    ValidationReported,
    WeightReported,
)
from control_plane.core.rollout.rules import newest_of_each
from control_plane.core.rollout.types import Approval, Moment, Rollout, RolloutState
from control_plane.core.rollout.words import told
from control_plane.core.state import State, begun

RolloutChange = (
    ValidationReported
    | CheckReported
    | ApprovalAsked
    | RolloutApproved
    | RolloutStepped
    | WeightReported
    | CanaryJudged
    | RolloutHeld
    | RolloutReleased
    | RolloutEnded
)

STORY_MOMENTS_MAX = 100
"""Kept with a rollout; older ones stay in the log."""


def rollout_changed(state: State, envelope: Envelope, event: RolloutStarted | RolloutChange) -> None:
    """Begin a rollout, or make it what it is after the event."""
    record = state.models[event.model_id]
    if isinstance(event, RolloutStarted):
        state.rollouts_count += 1
        state.rollouts[event.rollout_id] = begun(event, envelope.at)
        state.live_rollouts[event.rollout_id] = None
        record.live_rollout = event.rollout_id
        record.rollout_ids.append(event.rollout_id)
        if event.retrain_id is not None:
            retrain = state.retrains[event.retrain_id]
            state.retrains[event.retrain_id] = replace(retrain, rollout_id=event.rollout_id)
        return
    before = state.rollouts[event.rollout_id]
    after = _next(before, envelope, event)
    sentence = told(before, after, envelope.actor)
    if isinstance(event, RolloutEnded) and envelope.reason and envelope.reason not in sentence:
        sentence += f" ({envelope.actor}: {envelope.reason})"
    if sentence:
        after = replace(after, story=(*after.story, Moment(at=envelope.at, sentence=sentence))[-STORY_MOMENTS_MAX:])
    state.rollouts[event.rollout_id] = after
    if after.unconfirmed:
        state.unconfirmed_rollouts[event.rollout_id] = None
    else:
        state.unconfirmed_rollouts.pop(event.rollout_id, None)
    if isinstance(event, RolloutEnded):
        state.live_rollouts.pop(event.rollout_id, None)
        if record.live_rollout == event.rollout_id:
            record.live_rollout = None


def _next(rollout: Rollout, envelope: Envelope, event: RolloutChange) -> Rollout:
    match event:
        case ValidationReported():
            return replace(rollout, validation=event.validation)
        case CheckReported():
            return replace(rollout, checks=newest_of_each(rollout.checks, event.check))
        case ApprovalAsked():
            state = RolloutState.AWAITING_DECISION if event.decision else RolloutState.AWAITING_APPROVAL
            return replace(rollout, state=state, approval_until=event.until)
        case RolloutApproved():
            approval = Approval(approver=event.approver, at=envelope.at, reason=envelope.reason)
            return replace(rollout, approvals=(*rollout.approvals, approval))
        case RolloutStepped():
            return replace(
                rollout,
                state=event.state,
                step=event.step,
                weight=event.weight,
                stepped_at=envelope.at,
                canary_since=envelope.at
                if rollout.canary_since is None or rollout.state is RolloutState.SHADOW
                else rollout.canary_since,
                step_counts=event.counts,
                approval_until=None,
            )
        case WeightReported():
            if event.weight is None:
                return replace(rollout, weight_failure=event.failure)
            return replace(rollout, weight_applied=event.weight, weight_failure="")
        case CanaryJudged():
            return replace(rollout, judgement=event.judgement)
        case RolloutHeld():
            return replace(rollout, held_by=event.by, hold_reason=event.why)
        case RolloutReleased():
            return replace(rollout, held_by="", hold_reason="")
        case RolloutEnded():
            weight = 1.0 if event.state is RolloutState.PROMOTED else 0.0
            return replace(
                rollout,
                state=event.state,
                ended_at=envelope.at,
                conclusion=event.conclusion,
                weight=weight if rollout.plan.serving else rollout.weight,
                held_by="",
                hold_reason="",
            )
        case _:
            assert_never(event)


def grouped(state: State, event: RolloutsGrouped) -> None:
    """They move together from now on."""
    state.groups[event.group.group_id] = event.group
    for rollout_id in event.group.rollout_ids:
        rollout = state.rollouts[rollout_id]
        state.rollouts[rollout_id] = replace(rollout, group_id=event.group.group_id)
