"""The performance signal: how much worse the metric surely is, and what it was measured on.

| source     | what it is                                        | confidence at most               |
|------------|---------------------------------------------------|----------------------------------|
| LABELS     | outcomes of the model's own predictions           | HIGH                             |
| PROXY      | outcomes of a named stand-in                      | MEDIUM; LOW if it hardly follows |
| DOWNSTREAM | what the labelled consumers of this model lost    | MEDIUM                           |
| ESTIMATE   | expected from the scores alone (CBPE)             | LOW                              |

Outcomes count where there are `labels_min` of them. Where there are not, the first weaker source that is usable
stands in and says so; the last two only if the policy allows estimates. The floor is watched on outcomes alone: a
hard trigger must not stand on a guess.
"""

import math
from functools import lru_cache
from statistics import NormalDist

import msgspec

from control_plane.core.staleness.evidence import Evidence, MetricRole, PerformanceEvidence, PerformanceSource
from control_plane.core.staleness.guardrails import tolerances
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.signals import Reading
from control_plane.core.staleness.verdict import MetricReading
from control_plane.core.statistics.performance import Z_95, MetricDrop, metric_drop, performance_signal

SIGNIFICANT_AT = 0.05
"""Level of the one-sided test of the metric's drop, the same as its 95 % bound."""
REACH = 8.0
"""Bounds of a drop are at most so many times the largest of its numbers."""
SLICES_NAMED_MAX = 3
ESTIMATED = (PerformanceSource.DOWNSTREAM, PerformanceSource.ESTIMATE)


class Measured(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The evidence that the performance signal stands on."""

    evidence: PerformanceEvidence
    source: PerformanceSource
    drop: MetricDrop


def source_of(found: PerformanceEvidence) -> PerformanceSource:
    """What it was measured on; whatever names a proxy is one."""
    return PerformanceSource.PROXY if found.proxy and found.source is PerformanceSource.LABELS else found.source


def performance(policy: StalenessPolicy, evidence: Evidence) -> tuple[Reading, Measured | None]:
    """Drop of the primary metric by the strongest source that is usable, and that source; None if none is."""
    own = evidence.performance
    lack = "there is no ground truth: send outcomes or add a proxy metric" if own is None else _lack(policy, own)
    if own is not None and not lack:
        return _reading(policy, own)
    for found in evidence.fallbacks:
        if (policy.estimate or source_of(found) not in ESTIMATED) and not _lack(policy, found):
            reading, measured = _reading(policy, found, instead=lack)
            return reading, measured
    return Reading(value=None, sample_size=own.sample_size if own is not None else 0, explanation=lack), None


def _lack(policy: StalenessPolicy, found: PerformanceEvidence) -> str:
    """Why the evidence cannot be used; empty if it can."""
    if found.sample_size < max(policy.labels_min, 1):
        return (
            f"too little ground truth: {found.sample_size:,} of the {policy.labels_min:,} outcomes it takes are there"
        )
    if found.baseline is None:
        return f"its version was registered without {found.metric} on a holdout: nothing to compare with"
    if not _finite(found):
        return f"{found.metric} cannot be compared: it went from {found.baseline:g} to {found.current:g}"
    return ""


def _finite(found: PerformanceEvidence) -> bool:
    baseline = found.baseline if found.baseline is not None else 0.0
    if found.baseline_error < 0 or found.current_error < 0:
        return False
    # Sums of what is not finite, or too large to be compared, are not finite.
    return math.isfinite((abs(baseline) + abs(found.current) + found.baseline_error + found.current_error) * REACH)


def _reading(policy: StalenessPolicy, found: PerformanceEvidence, instead: str = "") -> tuple[Reading, Measured]:
    source, drop = source_of(found), _drop(found)
    tolerance = policy.performance_tolerance
    if drop.lower_bound > 0:
        sure = f"worse by at least {drop.lower_bound:.3g}, tolerance {tolerance:g}"
    elif drop.drop > 0:
        sure = f"worse by {drop.drop:.3g}, which may be chance"
    else:
        sure = "not worse"
    unit = "predictions" if source in ESTIMATED else "outcomes"
    explanation = (
        f"{_subject(found, source)} went from {found.baseline:.4g} to {found.current:.4g} "
        f"on {found.sample_size:,} {unit}: {sure}"
    )
    reading = Reading(
        value=performance_signal(drop, tolerance),
        raw=drop.drop,
        sample_size=found.sample_size,
        significant=drop.p_value <= SIGNIFICANT_AT,
        explanation=f"{explanation} ({instead})" if instead else explanation,
        source=source,
    )
    return reading, Measured(evidence=found, source=source, drop=drop)


def _subject(found: PerformanceEvidence, source: PerformanceSource) -> str:
    match source:
        case PerformanceSource.LABELS:
            return found.metric
        case PerformanceSource.PROXY:
            known = found.proxy_correlation
            follows = f", which follows it with r = {known:.2f}" if known is not None and math.isfinite(known) else ""
            return f"{found.metric} (proxy {found.proxy}{follows})"
        case PerformanceSource.DOWNSTREAM:
            return f"{found.metric} ({found.detail or 'read off its labelled consumers'})"
        case PerformanceSource.ESTIMATE:
            also = f"; {found.detail}" if found.detail else ""
            return f"{found.metric} (estimated from the scores alone, blind to concept drift{also})"


def drop_of(found: PerformanceEvidence) -> MetricDrop | None:
    """How much worse the metric is than its baseline; None without one, or if a number is none."""
    return _drop(found) if found.baseline is not None and _finite(found) else None


def _drop(found: PerformanceEvidence) -> MetricDrop:
    assert found.baseline is not None
    return metric_drop(
        found.baseline,
        found.current,
        baseline_error=found.baseline_error,
        current_error=found.current_error,
        higher_is_better=found.higher_is_better,
    )


def below_floor(policy: StalenessPolicy, found: PerformanceEvidence | None) -> bool:
    """Is the metric, on enough outcomes of the model's own, worse than the policy's floor?"""
    floor = policy.performance_floor
    if floor is None or found is None or found.sample_size < max(policy.labels_min, 1):
        return False
    if source_of(found) is not PerformanceSource.LABELS or not math.isfinite(found.current):
        return False
    return found.current < floor if found.higher_is_better else found.current > floor


@lru_cache(maxsize=1024)
def one_sided_z(comparisons: int) -> float:
    """Quantile of one of many one-sided bounds that hold together with 95 % confidence (Bonferroni).

    >>> round(one_sided_z(1), 3), round(one_sided_z(10), 3)
    (1.645, 2.576)
    """
    return Z_95 if comparisons <= 1 else NormalDist().inv_cdf(1 - SIGNIFICANT_AT / comparisons)


def metric_readings(
    policy: StalenessPolicy, evidence: Evidence, measured: Measured | None
) -> tuple[tuple[MetricReading, ...], tuple[str, ...]]:
    """Every metric against its baseline, the primary first, then guardrails and slices; and the vetoes among them.

    A guardrail is a veto if its drop is surely (95 %) its tolerance or more, a slice if its drop of the primary
    metric surely is, with the level divided by the number of slices. Both take `labels_min` outcomes.
    """
    found: list[MetricReading] = []
    vetoes: list[str] = []
    primary = measured.evidence if measured is not None else evidence.performance
    if primary is not None and math.isfinite(primary.current):
        drop = measured.drop if measured is not None else drop_of(primary)
        found.append(_metric(primary, MetricRole.PRIMARY, policy.performance_tolerance, drop))
    if not evidence.guardrails and not evidence.slices:
        return tuple(found), ()
    if evidence.guardrails and policy.guardrails:
        allowed = tolerances(policy.guardrails)
        for guard in evidence.guardrails:
            if guard.metric in allowed and math.isfinite(guard.current):
                found.append(_metric(guard, MetricRole.GUARDRAIL, allowed[guard.metric], drop_of(guard)))
                if _sure(policy, guard, allowed[guard.metric], comparisons=1):
                    vetoes.append(
                        f"guardrail {_change(guard)}, surely worse by {found[-1].drop_low:.3g} or more, "
                        f"tolerance {allowed[guard.metric]:g}"
                    )
    parts = [(part.name, part.performance) for part in evidence.slices if part.performance is not None]
    lost: list[tuple[float, str]] = []
    for name, part in parts:
        if not math.isfinite(part.current):
            continue
        found.append(_metric(part, MetricRole.PRIMARY, policy.performance_tolerance, drop_of(part), name))
        if _sure(policy, part, policy.performance_tolerance, comparisons=len(parts)):
            lost.append((-found[-1].drop, f"in slice {name} {_change(part)}, surely beyond the tolerance"))
    vetoes.extend(text for _, text in sorted(lost)[:SLICES_NAMED_MAX])
    if len(lost) > SLICES_NAMED_MAX:
        vetoes.append(f"and {len(lost) - SLICES_NAMED_MAX} more slices")
    return tuple(found), tuple(vetoes)


def _sure(policy: StalenessPolicy, found: PerformanceEvidence, tolerance: float, *, comparisons: int) -> bool:
    """Is the drop at least the tolerance, in this and all other comparisons with 95 % confidence?"""
    if found.sample_size < max(policy.labels_min, 1) or source_of(found) is not PerformanceSource.LABELS:
        return False
    drop = drop_of(found)
    return drop is not None and drop.drop - one_sided_z(comparisons) * drop.standard_error >= tolerance


def _change(found: PerformanceEvidence) -> str:
    return f"{found.metric} went from {found.baseline:.4g} to {found.current:.4g} on {found.sample_size:,} outcomes"


def _metric(
    found: PerformanceEvidence, role: MetricRole, tolerance: float, drop: MetricDrop | None, slice_name: str = ""
) -> MetricReading:
    correlation = found.proxy_correlation
    return MetricReading(
        name=found.metric,
        role=role,
        slice=slice_name,
        source=source_of(found),
        proxy=found.proxy,
        proxy_correlation=correlation if correlation is not None and math.isfinite(correlation) else None,
        baseline=found.baseline if drop is not None else None,
        current=found.current,
        drop=drop.drop if drop is not None else 0.0,
        drop_low=drop.lower_bound if drop is not None else 0.0,
        drop_high=2 * drop.drop - drop.lower_bound if drop is not None else 0.0,
        p_value=drop.p_value if drop is not None else 1.0,
        sample_size=found.sample_size,
        tolerance=tolerance,
    )
