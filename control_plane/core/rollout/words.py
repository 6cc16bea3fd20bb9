"""Rollouts in words."""

from control_plane.core.rollout.types import MetricJudgement, Rollout, RolloutState


def percent(share: float) -> str:
    """A share of the traffic, for people.

    >>> percent(0.05), percent(0.125), percent(1.0)
    ('5%', '12.5%', '100%')
    """
    return f"{100 * share:.4g}%"


def metric_words(metric: MetricJudgement) -> str:
    """What the judge found of one metric; better is positive."""
    return (
        f"{metric.name} {metric.candidate_mean:.4g} against {metric.control_mean:.4g} "
        f"({metric.difference:+.1%}, surely between {metric.low:+.1%} and {metric.high:+.1%}; "
        f"tolerated is {-metric.tolerance:.1%})"
    )


def told(before: Rollout, after: Rollout, actor: str) -> str:
    """What has just happened to a rollout, as one sentence of its story; empty if nothing worth telling."""
    if before.validation != after.validation and after.validation is not None:
        said = "passed" if after.validation.passed else "failed"
        why = after.validation.explanation
        return f"validation {said}" + (f": {why}" if why else "")
    if before.checks != after.checks:
        check = after.checks[-1]
        return f"check {check.name} {'passed' if check.passed else 'failed'}: {check.explanation}"
    if len(after.approvals) > len(before.approvals):
        approval = after.approvals[-1]
        return f"approved by {approval.approver}" + (f": {approval.reason}" if approval.reason else "")
    if before.state is not after.state or before.step != after.step:
        return _moved(after)
    if before.held_by != after.held_by:
        held = f"held by {after.held_by}" + (f": {after.hold_reason}" if after.hold_reason else "")
        return held if after.held_by else f"released by {actor}"
    if before.judgement != after.judgement and after.judgement is not None:
        return f"the judge says {after.judgement.verdict.value}: {after.judgement.reason}"
    if before.weight_failure != after.weight_failure and after.weight_failure:
        return f"the serving system did not do as it was told: {after.weight_failure}"
    if before.weight_applied != after.weight_applied and after.weight_applied is not None:
        return f"{percent(after.weight_applied)} of the traffic goes to it now"
    return ""


def _moved(rollout: Rollout) -> str:
    until = f" until {rollout.approval_until:%Y-%m-%d %H:%M}" if rollout.approval_until is not None else ""
    match rollout.state:
        case RolloutState.AWAITING_APPROVAL:
            return f"waits for approval{until}"
        case RolloutState.AWAITING_DECISION:
            return f"the judge is undecided: somebody must decide{until}"
        case RolloutState.SHADOW:
            return f"sees a copy of the traffic of {rollout.plan.serving}"
        case RolloutState.CANARY:
            step = f"step {rollout.step + 1} of {len(rollout.plan.steps)}"
            return f"is to serve {percent(rollout.weight)} of the traffic ({step})"
        case state:
            ended = state.value.lower().replace("_", " ")
            validation = rollout.validation
            # That a validation failed has just been told, with the same words.
            told_already = (
                validation is not None and not validation.passed and validation.explanation == rollout.conclusion
            )
            return f"{ended}: {rollout.conclusion}" if rollout.conclusion and not told_already else ended
