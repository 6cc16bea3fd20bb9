"""Concept drift proper: did P(outcome | score) change?

Prediction drift sees that scores moved; whether the world still answers a score the way it did is seen through outcomes
alone. Compared is the share of positives among predictions of like score, so a shift of the scores by itself is no
concept drift.
"""

from dataclasses import dataclass

import numpy as np

from control_plane.core.statistics.sample import Float64s, Int64s, InvalidSample

EXPECTED_MIN = 5.0
"""Neighbouring score bins are pooled until each holds so many expected positives and negatives on both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptDrift:
    """How far the shares of positives are apart, in shares (0 to 1), and whether that is more than chance."""

    distance: float
    """Root mean square change of the share over the current scores, less what chance adds, at least 0."""
    p_value: float
    freedom: int
    """Score bins after pooling; 0 if nothing could be tested, and then the p-value is 1."""
    sample_size: int
    """Current predictions with an outcome."""


def concept_drift(
    reference_total: Int64s, reference_positive: Int64s, current_total: Int64s, current_positive: Int64s
) -> ConceptDrift:
    """Compare the shares of positives by score bin.

    With shares a = k0 / n0 and b = k1 / n1 of a bin and p = (k0 + k1) / (n0 + n1): var = p (1 - p) (1/n0 + 1/n1),
    chi2 = sum (b - a)^2 / var over the pooled bins, with as many degrees of freedom, and
    distance^2 = max(0, sum w ((b - a)^2 - var)), w the current share of the bin.

    Args:
        reference_total: predictions with an outcome by score bin, ascending scores, shape (B,), B >= 1.
        reference_positive: positive ones among them, at most the totals.
        current_total, current_positive: likewise for now.
    Raises:
        InvalidSample: shapes differ, a count is negative, or there are more positives than predictions.

    >>> total = np.array([1000, 1000, 1000])
    >>> concept_drift(total, np.array([100, 200, 300]), total, np.array([100, 200, 300])).distance
    0.0
    >>> found = concept_drift(total, np.array([100, 200, 300]), total, np.array([200, 300, 400]))
    >>> round(found.distance, 3), found.p_value < 1e-9
    (0.098, True)
    """
    columns = [
        np.asarray(column, np.float64)
        for column in (reference_total, reference_positive, current_total, current_positive)
    ]
    if any(column.shape != columns[0].shape or column.ndim != 1 for column in columns):
        raise InvalidSample("concept", "shape", "give four rows over the same score bins")
    n0, k0, n1, k1 = columns
    if min(float(column.min(initial=0.0)) for column in columns) < 0:
        raise InvalidSample("concept", "count", "a count is negative")
    if (k0 > n0).any() or (k1 > n1).any():
        raise InvalidSample("concept", "count", "there are more positives than predictions in a bin")
    size = int(n1.sum())
    groups = _pooled(n0, k0, n1, k1)
    if not groups:
        return ConceptDrift(distance=0.0, p_value=1.0, freedom=0, sample_size=size)
    n0, k0, n1, k1 = np.array(groups).T
    share = (k0 + k1) / (n0 + n1)
    variance = share * (1 - share) * (1 / n0 + 1 / n1)
    change = (k1 / n1 - k0 / n0) ** 2
    statistic = float((change / variance).sum())
    excess = float((n1 / n1.sum()) @ (change - variance))

    from scipy import special  # noqa: PLC0415 - takes 0.4 s to import, and a start should not wait for it

    return ConceptDrift(
        distance=float(np.sqrt(max(excess, 0.0))),
        p_value=float(special.chdtrc(len(groups), statistic)),
        freedom=len(groups),
        sample_size=size,
    )


def _pooled(n0: Float64s, k0: Float64s, n1: Float64s, k1: Float64s) -> list[Float64s]:
    """Neighbours together until all four expected cells are large enough; what is left over joins the last group."""
    groups: list[Float64s] = []
    held = np.zeros(4)
    for row in np.stack([n0, k0, n1, k1], axis=1):
        held = held + row
        if _testable(held):
            groups.append(held)
            held = np.zeros(4)
    if groups and held.any():
        groups[-1] = groups[-1] + held
    return groups


def _testable(held: Float64s) -> bool:
    n0, k0, n1, k1 = held.tolist()
    if n0 == 0 or n1 == 0:
        return False
    share = (k0 + k1) / (n0 + n1)
    return bool(min(n0, n1) * min(share, 1 - share) >= EXPECTED_MIN)
