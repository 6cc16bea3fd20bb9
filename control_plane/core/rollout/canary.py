"""Rules of a canary: when its next step may be taken, and what stands in the way.

Every function is pure. A look is cumulative since the canary began; observations are counted on the smaller arm.
"""

from collections.abc import Mapping
from datetime import datetime

from control_plane.core.rollout.plan import in_hours
from control_plane.core.rollout.types import (
    Approval,
    Judgement,
    JudgeVerdict,
    Look,
    Rollout,
    RolloutPlan,
    RolloutState,
)
from control_plane.core.rollout.words import percent
from control_plane.core.timewindow import spelled

REQUESTS = "requests"
"""Counted where a plan names no metric: each request is an observation."""

SAMPLE_RATIO_MAX = 1_000.0
"""Evidence against equal arms from which on no number of the canary is to be trusted."""

GROWTH_TOLD = 1.25
"""A look that says the same is told again once its arms are so much larger: the log keeps the curve, not all of it."""


def counts_of(plan: RolloutPlan, look: Look) -> dict[str, int]:
    """Metric -> observations of the smaller arm so far."""
    if not plan.metrics:
        return {REQUESTS: min(look.candidate_requests, look.control_requests)}
    return {
        metric.name: min(look.candidate[metric.name].count, look.control[metric.name].count)
        if metric.name in look.candidate and metric.name in look.control
        else 0
        for metric in plan.metrics
    }


def missing_approvals(rollout: Rollout) -> int:
    """How many people must still say yes before the candidate sees traffic."""
    return max(0, rollout.plan.approvals - len(rollout.approvals))


def same_person(one: str, other: str) -> bool:
    """Are these two spellings of one name? Nobody is a second pair of eyes by a capital or a blank.

    >>> same_person("Anna ", "anna"), same_person("anna", "hannah")
    (True, False)
    """
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def asked_for_by(rollout: Rollout, approvals: tuple[Approval, ...], approver: str) -> str:
    """Why somebody may not approve: they asked for it, or have approved already. Empty if they may."""
    if same_person(approver, rollout.requested_by):
        return f"{approver} asked for this version: somebody else must approve it"
    if any(same_person(approval.approver, approver) for approval in approvals):
        return f"{approver} has approved it already: somebody else must approve too"
    return ""


def needs(rollout: Rollout, counts: Mapping[str, int], judgement: Judgement, now: datetime) -> list[str]:
    """What the present step still lacks, in words; empty once the numbers allow the next.

    1. Its bake time is over, and the serving system splits the traffic as it was told.
    2. Each arm has seen enough since the step began.
    3. The judge has numbers to go by, says no FAIL, and sees no metric beyond its tolerance.
    4. Before all of the traffic it says PASS.
    """
    plan, last = rollout.plan, rollout.step == len(rollout.plan.steps) - 1
    step = plan.steps[rollout.step]
    lacking = []
    baked_at = (rollout.stepped_at or rollout.started_at) + step.bake
    if now < baked_at:
        lacking.append(f"its bake time (until {baked_at:%Y-%m-%d %H:%M})")
    if rollout.weight_applied != rollout.weight:
        lacking.append(f"{plan.serving} to give it {percent(rollout.weight)} of the traffic")
    for name, count in sorted(counts.items()):
        seen = count - rollout.step_counts.get(name, 0)
        if seen < step.observations_min:
            lacking.append(f"more of {name}: {max(seen, 0)} of {step.observations_min} in this step")
    if judgement.verdict is JudgeVerdict.NODATA:
        lacking.append(f"numbers: {judgement.reason}")
    lacking += [
        f"{metric.name} within its tolerance: it is {metric.difference:+.1%}, {-metric.tolerance:.1%} is tolerated"
        for metric in judgement.metrics
        if metric.verdict is not JudgeVerdict.NODATA and metric.difference <= -metric.tolerance
    ]
    if last and plan.metrics and judgement.verdict is not JudgeVerdict.PASS:
        lacking.append("the judge's PASS")
    return lacking


def inconclusive_since(rollout: Rollout) -> datetime:
    """From when on a canary waits longer than its step was to last."""
    began = rollout.stepped_at or rollout.started_at
    if rollout.state is not RolloutState.CANARY:
        return began + rollout.plan.shadow
    return began + rollout.plan.steps[rollout.step].bake


def must_ask(rollout: Rollout, now: datetime) -> bool:
    """Has the present step been inconclusive for as long as it may?"""
    return now >= inconclusive_since(rollout) + rollout.plan.wait_max and not rollout.held_by


def says_something_new(before: Judgement | None, after: Judgement) -> bool:
    """Is a look worth keeping in the log?"""
    if before is None or before.step != after.step:
        return True
    if before.verdict is not after.verdict or before.ready != after.ready:
        return True
    if after.verdict is JudgeVerdict.NODATA and before.trouble != after.trouble:
        return True
    if (before.sample_ratio_evidence > SAMPLE_RATIO_MAX) != (after.sample_ratio_evidence > SAMPLE_RATIO_MAX):
        return True
    return after.verdict is not JudgeVerdict.NODATA and after.requests > GROWTH_TOLD * before.requests


def hindrances(rollout: Rollout, now: datetime, freeze: str) -> list[str]:
    """What keeps a rollout from going forward besides its own numbers, in words."""
    found = []
    if rollout.held_by:
        found.append(
            f"{rollout.held_by} holds it"
            + (f": {rollout.hold_reason}" if rollout.hold_reason else "")
            + f" (`runway rollouts release {rollout.rollout_id}` ends that)"
        )
    if freeze:
        found.append(freeze)
    if not in_hours(rollout.plan, now):
        found.append(f"the hours in which steps are taken ({rollout.plan.start_hour}-{rollout.plan.end_hour} h UTC)")
    return found


def waiting_words(rollout: Rollout, now: datetime) -> list[str]:
    """What a rollout's own state waits for, in words."""
    match rollout.state:
        case RolloutState.VALIDATING if rollout.validation is None:
            return ["its validation"]
        case RolloutState.AWAITING_APPROVAL:
            missing = missing_approvals(rollout)
            until = f" (until {rollout.approval_until:%Y-%m-%d %H:%M})" if rollout.approval_until else ""
            who = "somebody" if not rollout.requested_by else f"somebody other than {rollout.requested_by}"
            return [f"{missing} approval{'s' * (missing != 1)} by {who}{until}"] if missing else []
        case RolloutState.AWAITING_DECISION:
            until = f" until {rollout.approval_until:%Y-%m-%d %H:%M}" if rollout.approval_until else ""
            return [f"a decision{until}: `runway rollouts approve` goes on, `runway rollouts decline` goes back"]
        case RolloutState.SHADOW:
            left = inconclusive_since(rollout) - now
            return [f"the end of its shadow, in {spelled(left)}"] if left.total_seconds() > 0 else []
        case _:
            return []
