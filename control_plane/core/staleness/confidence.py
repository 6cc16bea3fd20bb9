"""How sure an evaluation is, with the reason in words.

| what is known                                                       | confidence |
|---------------------------------------------------------------------|------------|
| nothing but the age, or too little data                             | LOW        |
| no outcomes, or too few, and nothing to stand in for them           | LOW        |
| performance estimated from the scores alone                         | LOW        |
| outcomes through a proxy that hardly follows the metric             | LOW        |
| outcomes through a proxy only, or read off labelled consumers       | MEDIUM     |
| outcomes, but fewer than the policy's coverage                      | MEDIUM     |
| outcomes, but age or a drift signal is missing                      | MEDIUM     |
| an upstream changed, and nobody knows whether it stayed compatible  | MEDIUM     |
| all signals, outcomes that cover what they should                   | HIGH       |

The lowest row that applies decides; the reason names all that apply.
"""

from collections.abc import Sequence

from control_plane.core.staleness.evidence import Evidence, PerformanceSource
from control_plane.core.staleness.performance import Measured
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.signals import Reading
from control_plane.core.staleness.verdict import Confidence

PROXY_CORRELATION_MIN = 0.3
"""Below this a proxy explains less than a tenth of what the metric does."""


def confidence_of(
    policy: StalenessPolicy,
    evidence: Evidence,
    readings: dict[str, Reading],
    measured: Measured | None,
    unknown_upstreams: Sequence[str] = (),
) -> tuple[Confidence, str]:
    """Confidence and its reason, from what is known and what is not."""
    low: list[str] = []
    medium: list[str] = []
    performance = readings["performance"]
    if measured is None:
        low.append(performance.explanation)
    elif measured.source is not PerformanceSource.LABELS:
        (low if _weak(measured) else medium).append(_source(measured))
    inputs, predictions = readings["input_drift"], readings["prediction_drift"]
    if inputs.value is None and predictions.value is None:
        weak = low if evidence.features is not None or evidence.prediction is not None else medium
        weak.append(inputs.explanation if evidence.features is not None else predictions.explanation)
    else:
        medium.extend(drift.explanation for drift in (inputs, predictions) if drift.value is None)
    if readings["age"].value is None:
        medium.append(readings["age"].explanation)
    concept = readings.get("concept_drift")
    if concept is not None and concept.value is None:
        medium.append(concept.explanation)
    coverage = evidence.coverage
    labelled = measured is not None and measured.source is PerformanceSource.LABELS
    if labelled and coverage is not None and coverage < policy.coverage_min:
        medium.append(
            f"outcomes cover {coverage:.1%} of what should be known by now, {policy.coverage_min:.1%} is asked for"
        )
    medium.extend(unknown_upstreams)
    if low:
        return Confidence.LOW, "; ".join(low + medium)
    if medium:
        return Confidence.MEDIUM, "; ".join(medium)
    covered = f", which cover {coverage:.1%}" if coverage is not None else ""
    return (
        Confidence.HIGH,
        f"all {'five' if concept is not None else 'four'} signals are known, "
        f"performance from {performance.sample_size:,} outcomes{covered}",
    )


def _weak(measured: Measured) -> bool:
    if measured.source is PerformanceSource.PROXY:
        known = measured.evidence.proxy_correlation
        return known is not None and not known >= PROXY_CORRELATION_MIN
    return measured.source is PerformanceSource.ESTIMATE


def _source(measured: Measured) -> str:
    found = measured.evidence
    match measured.source:
        case PerformanceSource.PROXY:
            known = found.proxy_correlation
            if known is None:
                return f"outcomes come from the proxy {found.proxy} only"
            return f"outcomes come from the proxy {found.proxy} only, which follows {found.metric} with r = {known:.2f}"
        case PerformanceSource.DOWNSTREAM:
            return "performance is read off its labelled consumers: send outcomes of its own to be sure"
        case _:
            return (
                "performance is estimated from the scores alone, which cannot see concept drift: "
                "send outcomes or add a proxy metric"
            )
