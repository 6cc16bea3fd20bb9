"""The judge of a canary: PASS, MARGINAL, FAIL or NODATA, from what candidate and control have measured so far.

FAIL     surely worse, and as far as can be told by more than is tolerated
PASS     surely not worse than tolerated
MARGINAL neither yet
NODATA   too few numbers, none, or numbers that are none; or arms of unequal size: hold, never promote

Every look is judged on all that was measured since the canary began: both arms are of the same size at every step, so
that the steps may be added up. The allowed error is shared among the metrics.
"""

import math

from msgspec.structs import replace

from control_plane.core.rollout.canary import SAMPLE_RATIO_MAX
from control_plane.core.rollout.sample_ratio import sample_ratio_evidence
from control_plane.core.rollout.sequential import difference_of, radius
from control_plane.core.rollout.types import (
    Arm,
    CanaryMetric,
    Direction,
    Judgement,
    JudgeVerdict,
    Look,
    MetricJudgement,
    RolloutPlan,
)
from control_plane.core.rollout.words import metric_words

COUNT_MIN = 30
"""Observations of an arm below which its spread is unknown."""
FALSE_PASS_MAX = 0.05
"""Chance that a candidate which is worse than tolerated is ever called PASS."""

_SEVERITY = (JudgeVerdict.FAIL, JudgeVerdict.NODATA, JudgeVerdict.MARGINAL, JudgeVerdict.PASS)
"""The worst of all metrics is the verdict."""


def judge(plan: RolloutPlan, look: Look, step: int) -> Judgement:
    """What a look says at a step. `look` is cumulative since the canary began."""
    evidence = sample_ratio_evidence(look.candidate_requests, look.control_requests)
    metrics = tuple(
        judge_metric(plan, metric, look.candidate.get(metric.name), look.control.get(metric.name))
        for metric in plan.metrics
    )
    verdict = min((metric.verdict for metric in metrics), key=_SEVERITY.index, default=JudgeVerdict.PASS)
    requests = look.candidate_requests + look.control_requests
    reason = _reason(metrics, verdict)
    if not plan.metrics and requests == 0:
        verdict, reason = JudgeVerdict.NODATA, "no request has been seen yet"
    if evidence > SAMPLE_RATIO_MAX and verdict is not JudgeVerdict.FAIL:
        verdict = JudgeVerdict.NODATA
        reason = (
            f"the arms are not of equal size: {look.candidate_requests:,} requests to the candidate, "
            f"{look.control_requests:,} to the control. Requests get lost or are split by what they are; "
            "no number of this canary is to be trusted"
        )
    if look.trouble and verdict is JudgeVerdict.NODATA:
        reason = f"{look.trouble}; {reason}"
    return Judgement(
        verdict=verdict,
        trouble=look.trouble,
        at=look.at,
        step=step,
        metrics=metrics,
        reason=reason,
        sample_ratio_evidence=evidence,
        requests=requests,
    )


def judge_metric(
    plan: RolloutPlan, metric: CanaryMetric, candidate: Arm | None, control: Arm | None
) -> MetricJudgement:
    """One metric: its confidence sequence against 0 and against its tolerance."""
    nothing = MetricJudgement(
        name=metric.name, verdict=JudgeVerdict.NODATA, direction=metric.direction, tolerance=metric.tolerance
    )
    if candidate is None or control is None:
        return nothing
    nothing = replace(nothing, candidate_count=candidate.count, control_count=control.count)
    if min(candidate.count, control.count) < COUNT_MIN or not _sound(candidate) or not _sound(control):
        return nothing
    sign = 1.0 if metric.direction is Direction.HIGHER else -1.0
    # A control at 0 gives nothing to be relative to: then all that the candidate has is the difference.
    scale = abs(control.mean) or abs(candidate.mean) or 1.0
    found = difference_of(candidate, control, scale)
    better = sign * found.value / scale
    early, whole = horizons(plan)
    low = better - radius(found, whole, FALSE_PASS_MAX / len(plan.metrics)) / scale
    high = better + radius(found, early, plan.false_rollback_max / len(plan.metrics)) / scale
    if not (math.isfinite(better) and math.isfinite(low) and math.isfinite(high)):
        return nothing
    if high < 0 and low <= -metric.tolerance:
        verdict = JudgeVerdict.FAIL
    else:
        verdict = JudgeVerdict.PASS if low > -metric.tolerance else JudgeVerdict.MARGINAL
    return replace(
        nothing,
        verdict=verdict,
        control_mean=control.mean,
        candidate_mean=candidate.mean,
        difference=better,
        low=low,
        high=high,
    )


def horizons(plan: RolloutPlan) -> tuple[float, float]:
    """Observations per arm until the last step begins, when harm is to be caught, and until the plan's end."""
    counts = [step.observations_min for step in plan.steps] or [1]
    return float(sum(counts[:-1]) or counts[0]), float(sum(counts))


def _sound(arm: Arm) -> bool:
    return math.isfinite(arm.mean) and math.isfinite(arm.m2) and arm.m2 >= 0


def _reason(metrics: tuple[MetricJudgement, ...], verdict: JudgeVerdict) -> str:
    if not metrics:
        return "its plan names no metric: time and requests decide"
    worst = [metric for metric in metrics if metric.verdict is verdict]
    if verdict is not JudgeVerdict.NODATA:
        return "; ".join(metric_words(metric) for metric in worst)
    return "; ".join(
        f"{metric.name} has no usable numbers yet ({metric.candidate_count} of the candidate, "
        f"{metric.control_count} of the control; each needs {COUNT_MIN} that are finite)"
        for metric in worst
    )
