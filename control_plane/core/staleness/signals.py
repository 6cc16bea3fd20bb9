"""The signals, each from 0 (good) to 1 (bad), or missing with the reason why.

1. age: age / backstop. A fact, the weakest of the four. 2. input drift: drifted features by importance, see
`input_drift`. 3. prediction drift: debiased KL(current || reference) of the score, 1 at half of
`psi_significant` (PSI is the sum of
   both directions of KL, so half of it is one). The field calls this "concept drift"; it is not: whether
   P(y|x) changed is seen through outcomes alone.
4. performance: the sure part of the metric's drop / tolerance, see `performance`.
5. concept drift proper, where outcomes by score are known: by how much the rate of positives among predictions of
   like score moved. It weighs nothing unless the policy says so, because a performance drop has it already.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np

from control_plane.core.staleness.evidence import Evidence, PerformanceSource, PredictionCounts
from control_plane.core.staleness.input_drift import InputDrift
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.statistics.concept import concept_drift as statistic
from control_plane.core.statistics.drift import kl_bias
from control_plane.core.statistics.fleet import row_divergence, row_drift

SECONDS_PER_DAY = 86_400.0
CONCEPT_FULL = 0.10
"""Change of the share of positives at like scores that counts in full: ten points."""
NAMED_MAX = 3
"""Features named in one sentence."""


class Reading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A signal before it is weighed. `value` is None if missing; `explanation` then says why."""

    value: float | None
    raw: float = 0.0
    sample_size: int = 0
    significant: bool = False
    explanation: str
    source: PerformanceSource | None = None
    """Of performance."""


def age(policy: StalenessPolicy, evidence: Evidence, now: datetime) -> Reading:
    """Time since the end of the training data."""
    until = evidence.trained_until
    if until is None:
        return Reading(value=None, explanation="nobody said until when its training data reach")
    days = (now - until).total_seconds() / SECONDS_PER_DAY
    if days < 0:
        return Reading(value=0.0, raw=days, explanation=f"its training data end in the future, on {until:%Y-%m-%d}")
    return Reading(
        value=min(days / policy.age_backstop_days, 1.0),
        raw=days,
        significant=days >= policy.age_backstop_days,
        explanation=(
            f"its training data end on {until.date().isoformat()}, {days:.1f} days ago; "
            f"the backstop is {policy.age_backstop_days:g} days"
        ),
    )


def input_drift(policy: StalenessPolicy, evidence: Evidence, found: InputDrift | None) -> Reading:
    """Drift of the features."""
    if evidence.features is None:
        return Reading(value=None, explanation="its version has no reference profile of its features")
    if found is None:
        return Reading(value=None, explanation=_nothing(policy))
    size = found.sample_size
    if size < policy.predictions_min:
        return Reading(value=None, sample_size=size, explanation=_too_few(size, policy))
    if not found.drifted:
        text = f"none of its {found.features} features drifted"
    else:
        named = [f"{feature.name} (PSI {feature.psi:.2f})" for feature in found.top[:NAMED_MAX] if feature.drifted]
        text = (
            f"{found.drifted} of its {found.features} features drifted, {found.share:.0%} by importance: "
            f"{', '.join(named)}{' and more' if found.drifted > len(named) else ''}"
        )
    return Reading(
        value=found.value, raw=found.share, sample_size=size, significant=found.drifted > 0, explanation=text
    )


class PredictionDrift(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Distance of the current predictions from the reference's."""

    kl: float
    kl_debiased: float
    js: float
    p_value: float
    sample_size: int


def prediction_drifts(histograms: Sequence[PredictionCounts | None]) -> list[PredictionDrift | None]:
    """Prediction drift of each model, histograms of one length together; None if a side is empty or there is
    none.
    """
    found: list[PredictionDrift | None] = [None] * len(histograms)
    given = {at: pair for at, pair in enumerate(histograms) if pair is not None}
    for cells in sorted({pair.reference.size for pair in given.values()}):
        group = [at for at, pair in given.items() if pair.reference.size == cells]
        reference = np.stack([given[at].reference for at in group])
        current = np.stack([given[at].current for at in group])
        tests = row_drift(reference, current, np.full(len(group), cells))
        kl, js = row_divergence(reference, current)
        for place, at in enumerate(group):
            n, m = float(tests.reference_size[place]), float(tests.current_size[place])
            if n == 0 or m == 0:
                continue
            found[at] = PredictionDrift(
                kl=float(kl[place]),
                kl_debiased=float(kl[place]) - kl_bias(cells, n, m),
                js=float(js[place]),
                p_value=float(tests.p_value[place]),
                sample_size=int(m),
            )
    return found


def prediction_drift(policy: StalenessPolicy, evidence: Evidence, found: PredictionDrift | None) -> Reading:
    """Drift of the predictions."""
    if evidence.prediction is None:
        return Reading(value=None, explanation="its version has no reference histogram of its predictions")
    if found is None:
        return Reading(value=None, explanation=_nothing(policy))
    size = found.sample_size
    if size < policy.predictions_min:
        return Reading(value=None, sample_size=size, explanation=_too_few(size, policy))
    significant = found.p_value <= policy.false_discovery_rate
    sure = max(found.kl_debiased, 0.0) if significant else 0.0
    distance = f"KL {found.kl:.3f} nats, JS distance {found.js:.2f}"
    return Reading(
        value=min(sure / (policy.psi_significant / 2), 1.0),
        raw=found.kl_debiased,
        sample_size=size,
        significant=significant,
        explanation=(
            f"its predictions have moved: {distance}"
            if sure > 0
            else f"its predictions look like those at training time ({distance})"
        ),
    )


def _nothing(policy: StalenessPolicy) -> str:
    return f"there is nothing to compare: no counts of its reference, or none of the last {policy.window_days:g} days"


def _too_few(size: int, policy: StalenessPolicy) -> str:
    return (
        f"there are {size:,} predictions in the last {policy.window_days:g} days, it takes {policy.predictions_min:,}"
    )


def concept_drift(policy: StalenessPolicy, evidence: Evidence) -> Reading | None:
    """Change of the share of positives among predictions of like score; None if there is nothing to show and the
    policy gives it no weight.

    The signal is the root mean square change, in shares, as far as it is more than chance, 1 at `CONCEPT_FULL`.
    """
    found = None
    why = "nobody knows whether like scores still mean the same: there are no outcomes by score"
    counts = evidence.concept
    if counts is not None:
        found = statistic(
            counts.reference_total, counts.reference_positive, counts.current_total, counts.current_positive
        )
        if found.sample_size < max(policy.labels_min, 1) or found.freedom == 0:
            why = f"{found.sample_size:,} outcomes by score are too few to say whether like scores still mean the same"
            found = None
    if found is None:
        return Reading(value=None, explanation=why) if policy.weights.concept_drift > 0 else None
    significant = found.p_value <= policy.false_discovery_rate
    sure = found.distance if significant else 0.0
    points = f"{found.distance * 100:.1f} points"
    return Reading(
        value=min(sure / CONCEPT_FULL, 1.0),
        raw=found.distance,
        sample_size=found.sample_size,
        significant=significant,
        explanation=(
            f"like scores mean something else now: their share of positives moved by {points}"
            if sure > 0
            else f"like scores still mean the same: their share of positives moved by {points}, which may be chance"
        ),
    )
