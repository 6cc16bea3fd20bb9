"""How sure an evaluation is, with the reason in words.

| what is known                                                       | confidence |
|---------------------------------------------------------------------|------------|
| nothing but the age, or too little data                             | LOW        |
| no outcomes, or too few                                             | LOW        |
| outcomes through a proxy only                                       | MEDIUM     |
| outcomes, but fewer than the policy's coverage                      | MEDIUM     |
| outcomes, but age or a drift signal is missing                      | MEDIUM     |
| all four signals, outcomes that cover what they should              | HIGH       |

The lowest row that applies decides; the reason names all that apply.
"""

from control_plane.core.staleness.evidence import Evidence
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.signals import Reading
from control_plane.core.staleness.verdict import Confidence


def confidence_of(policy: StalenessPolicy, evidence: Evidence, readings: dict[str, Reading]) -> tuple[Confidence, str]:
    """Confidence and its reason, from what is known and what is not."""
    low: list[str] = []
    medium: list[str] = []
    performance = readings["performance"]
    if performance.value is None:
        low.append(performance.explanation)
    elif evidence.performance is not None and evidence.performance.proxy:
        medium.append(f"outcomes come from the proxy {evidence.performance.proxy} only")
    drifts = [readings[name] for name in ("input_drift", "prediction_drift")]
    if all(drift.value is None for drift in drifts):
        weak = low if evidence.features is not None or evidence.prediction is not None else medium
        weak.append(drifts[0].explanation if evidence.features is not None else drifts[1].explanation)
    else:
        medium.extend(drift.explanation for drift in drifts if drift.value is None)
    if readings["age"].value is None:
        medium.append(readings["age"].explanation)
    if performance.value is not None and evidence.coverage is not None and evidence.coverage < policy.coverage_min:
        medium.append(
            f"outcomes cover {evidence.coverage:.1%} of what should be known by now, "
            f"{policy.coverage_min:.1%} is asked for"
        )
    if low:
        return Confidence.LOW, "; ".join(low + medium)
    if medium:
        return Confidence.MEDIUM, "; ".join(medium)
    covered = f", which cover {evidence.coverage:.1%}" if evidence.coverage is not None else ""
    return (
        Confidence.HIGH,
        f"all four signals are known, performance from {performance.sample_size:,} outcomes{covered}",
    )
