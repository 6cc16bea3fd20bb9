"""What happens to retrains, rollouts and alerts, in plain sentences."""

from typing import assert_never

from control_plane.core.events import (
    AlertSilenced,
    ApprovalAsked,
    BreakerChanged,
    CanaryJudged,
    CascadeSettled,
    CheckReported,
    DestinationRemoved,
    DestinationSet,
    Envelope,
    FreezeRemoved,
    FreezeSet,
    RetrainHeld,
    RetrainReleased,
    RolloutApproved,
    RolloutHeld,
    RolloutReleased,
    RolloutsGrouped,
    RolloutStepped,
    UpliftMeasured,
    WeightReported,
)
from control_plane.core.retraining.types import BreakerState
from control_plane.core.rollout.types import RolloutState
from control_plane.core.rollout.words import percent

Release = (
    RetrainHeld
    | RetrainReleased
    | CascadeSettled
    | BreakerChanged
    | ApprovalAsked
    | RolloutApproved
    | RolloutStepped
    | CheckReported
    | WeightReported
    | CanaryJudged
    | RolloutHeld
    | RolloutReleased
    | RolloutsGrouped
    | FreezeSet
    | FreezeRemoved
    | UpliftMeasured
    | DestinationSet
    | DestinationRemoved
    | AlertSilenced
)


def release_sentence(envelope: Envelope, event: Release) -> str:  # noqa: PLR0912 - one line per event
    """The event in words; subject first."""
    match event:
        case RetrainHeld():
            return f"{event.retrain_id} of {event.model_id} is held by {envelope.actor}{_because(envelope.reason)}"
        case RetrainReleased():
            return f"{event.retrain_id} of {event.model_id} goes on, released by {envelope.actor}"
        case CascadeSettled():
            harmed = "is harmed" if event.harmed else "is unharmed"
            return f"{event.model_id} {harmed} by the promotion of {event.upstream}: {event.why}"
        case BreakerChanged():
            return _breaker(event)
        case ApprovalAsked():
            what = "needs a decision" if event.decision else f"waits for {_approvals(event.approvals)}"
            return f"{event.model_id} version {event.version} {what} until {event.until:%Y-%m-%d %H:%M}"
        case RolloutApproved():
            missing = f"; {_approvals(event.missing)} to go" if event.missing else ""
            return f"{event.model_id} version {event.version} was approved by {event.approver}{missing}"
        case RolloutStepped():
            return _stepped(event)
        case CheckReported():
            passed = "passed" if event.check.passed else "failed"
            return (
                f"{event.model_id} version {event.version} {passed} check {event.check.name}"
                f"{_because(event.check.explanation)}"
            )
        case WeightReported():
            if event.weight is None:
                return f"{event.model_id} version {event.version}: the serving system failed: {event.failure}"
            return f"{event.model_id} version {event.version} has {percent(event.weight)} of the traffic"
        case CanaryJudged():
            said = event.judgement
            return f"{event.model_id} version {event.version} is judged {said.verdict.value}: {said.reason}"
        case RolloutHeld():
            return f"the rollout of {event.model_id} version {event.version} is held by {event.by}{_because(event.why)}"
        case RolloutReleased():
            return f"the rollout of {event.model_id} version {event.version} goes on, released by {envelope.actor}"
        case RolloutsGrouped():
            return f"{', '.join(event.group.rollout_ids)} move together as {event.group.group_id}"
        case FreezeSet():
            freeze = event.freeze
            return (
                f"{freeze.scope} is frozen from {freeze.starts_at:%Y-%m-%d %H:%M} to {freeze.ends_at:%Y-%m-%d %H:%M} "
                f"({freeze.name}){_because(freeze.reason)}"
            )
        case FreezeRemoved():
            return f"freeze {event.name} was removed by {envelope.actor}"
        case UpliftMeasured():
            return _uplift(event)
        case DestinationSet():
            one = event.destination
            return f"alerts go to {one.name} ({one.kind.value.lower()}) since {envelope.actor} said so"
        case DestinationRemoved():
            return f"alerts go to {event.name} no more"
        case AlertSilenced():
            silence = event.silence
            return f"{silence.key} is silenced until {silence.until:%Y-%m-%d %H:%M} by {silence.by}"
        case _:
            assert_never(event)


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _approvals(count: int) -> str:
    return f"{count} approval{'s' if count != 1 else ''}"


def _breaker(event: BreakerChanged) -> str:
    breaker = event.breaker
    because = _because(breaker.reason)
    if breaker.bypassed_by:
        return f"retrains go to {breaker.scheduler} in spite of its breaker, says {breaker.bypassed_by}{because}"
    match breaker.state:
        case BreakerState.OPEN:
            until = f" until {breaker.open_until:%Y-%m-%d %H:%M:%S}" if breaker.open_until else " until it is reset"
            return f"the breaker of {breaker.scheduler} is open{until}: its retrains wait{because}"
        case BreakerState.HALF_OPEN:
            return f"{breaker.scheduler} is tried out with one retrain at a time ({breaker.successes} of 3 went well)"
        case BreakerState.CLOSED:
            return f"the breaker of {breaker.scheduler} is closed: its retrains go on{because}"


def _stepped(event: RolloutStepped) -> str:
    what = (
        "goes into the shadow" if event.state is RolloutState.SHADOW else f"goes to {percent(event.weight)} of traffic"
    )
    return f"{event.model_id} version {event.version} {what}{_because(event.why)}"


def _uplift(event: UpliftMeasured) -> str:
    one = event.uplift
    cost = f" for {one.gpu_hours:.1f} GPU hours" if one.gpu_hours else ""
    return (
        f"{event.model_id} version {one.version} brought {one.uplift:+.4g} {one.metric}{cost}: "
        f"{one.before:.4g} before, {one.after:.4g} after, "
        f"standard error {one.standard_error:.2g}, {one.sample_size} rows"
    )
