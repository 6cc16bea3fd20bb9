"""Performance expected from scores alone (CBPE), where outcomes are late or never come.

If scores are calibrated, they say how many of them will be right: a bin of scores with a rate r of positives brings r
positives per prediction. From a histogram of all current scores and the rate of each bin follow the confusion counts,
and from those every metric. It sees that predictions became harder; it is blind to concept drift, because it takes the
rates to be what they were. An estimate, and marked so wherever it stands in.
"""

from dataclasses import dataclass

import numpy as np

from control_plane.core.statistics.sample import Bools, Float64s, Int64s, InvalidSample

LABELLED_MIN = 200
"""Outcomes behind a calibration, below which there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A metric as the scores let it be expected."""

    value: float
    standard_error: float
    """From the sampling of outcomes and from the calibration's own error; not from concept drift."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Rate of positives by score bin, ascending, with its error; shapes (B,)."""

    rate: Float64s
    error: Float64s


def calibration(total: Int64s, positive: Int64s) -> Calibration | None:
    """Rates of positives that rise with the score (isotonic regression by pooling adjacent violators).

    Bins without outcomes take the rate of their neighbours. None with fewer than 200 outcomes or with one class only.

    Args:
        total: predictions with an outcome by score bin, ascending scores, shape (B,).
        positive: positive ones among them.
    Raises:
        InvalidSample: shapes differ, or counts are no counts.
    Source: Ayer et al. 1955; standard error sqrt(r (1 - r) / n) of each pooled block.

    >>> calibration(np.array([100, 100, 100]), np.array([10, 30, 20])).rate.round(2).tolist()
    [0.1, 0.25, 0.25]
    """
    n, k = np.asarray(total, np.float64), np.asarray(positive, np.float64)
    if n.shape != k.shape or n.ndim != 1:
        raise InvalidSample("positive", "shape", f"{n.shape} and {k.shape}: give two rows over the same score bins")
    if (n < 0).any() or (k < 0).any() or (k > n).any():
        raise InvalidSample("positive", "count", "counts are 0 or more, and positives at most the totals")
    if n.sum() < LABELLED_MIN or not 0 < k.sum() < n.sum():
        return None
    known = np.flatnonzero(n)
    blocks: list[list[float]] = []  # positives, total, bins with outcomes
    for one, of in zip(k[known].tolist(), n[known].tolist(), strict=True):
        blocks.append([one, of, 1])
        while len(blocks) > 1 and _falls(blocks[-2], blocks[-1]):
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    rate, error = [], []
    for one, of, bins in blocks:
        # Half a count of each class keeps a block of one class from claiming to be certain.
        smoothed = (one + 0.5) / (of + 1)
        rate += [one / of] * int(bins)
        error += [float(np.sqrt(smoothed * (1 - smoothed) / of))] * int(bins)
    at = np.arange(n.size)
    return Calibration(rate=np.interp(at, known, rate), error=np.interp(at, known, error))


def _falls(before: list[float], after: list[float]) -> bool:
    """Must two neighbours be pooled?"""
    return before[0] * after[1] > after[0] * before[1]


def expected_metrics(counts: Int64s, known: Calibration, chosen: Bools, middle: Float64s) -> dict[str, Expected]:
    """What accuracy, AUC, log-loss and Brier score of these predictions are to be expected.

    Args:
        counts: all current predictions by score bin, ascending, shape (B,).
        known: rates by the same bins.
        chosen: bins whose predictions are called positive, shape (B,).
        middle: the score that stands for each bin, in (0, 1), shape (B,).
    Returns:
        By name; metrics that cannot be expected (no predictions, one class) are missing.
    Source: Kivimaki et al. 2023, Confidence-based Performance Estimation.

    >>> two = Calibration(rate=np.array([0.1, 0.9]), error=np.array([0.01, 0.01]))
    >>> found = expected_metrics(np.array([500, 500]), two, np.array([False, True]), np.array([0.1, 0.9]))
    >>> round(found["accuracy"].value, 3), round(found["auc"].value, 3)
    (0.9, 0.9)
    """
    n = np.asarray(counts, np.float64)
    total = float(n.sum())
    if not (n.shape == known.rate.shape == chosen.shape == middle.shape):
        raise InvalidSample("counts", "shape", "counts, rates, choices and scores are over the same bins")
    if (n < 0).any() or not ((middle > 0) & (middle < 1)).all():
        raise InvalidSample("counts", "range", "counts are 0 or more, and the scores of bins lie between 0 and 1")
    if total == 0:
        return {}
    share, rate = n / total, known.rate
    right = np.where(chosen, rate, 1 - rate)
    losses = {
        "log_loss": (-np.log(middle), -np.log1p(-middle)),
        "brier": ((1 - middle) ** 2, middle**2),
    }
    found = {"accuracy": _mean(share, right, np.ones(n.size), right * (1 - right), known, total)}
    for name, (if_positive, if_negative) in losses.items():
        apart = np.abs(if_positive - if_negative)
        mean = rate * if_positive + (1 - rate) * if_negative
        found[name] = _mean(share, mean, apart, rate * (1 - rate) * apart**2, known, total)
    area = _auc(n, known)
    if area is not None:
        found["auc"] = area
    return found


def _mean(
    share: Float64s, value: Float64s, slope: Float64s, variance: Float64s, known: Calibration, total: float
) -> Expected:
    """A mean over predictions: value and outcome variance by bin, and how it moves with the bin's rate."""
    mean = float(share @ value)
    sampling = float(share @ (variance + (value - mean) ** 2)) / total
    calibrating = float(((share * slope * known.error) ** 2).sum())
    return Expected(value=mean, standard_error=float(np.sqrt(sampling + calibrating)))


def _auc(n: Float64s, known: Calibration) -> Expected | None:
    """P(positive above negative) + half of the ties, of the expected class histograms."""
    positive, negative = n * known.rate, n * (1 - known.rate)
    p, q = float(positive.sum()), float(negative.sum())
    if p <= 0 or q <= 0:
        return None
    below = (np.cumsum(negative) - negative / 2) / q
    above = 1 - (np.cumsum(positive) - positive / 2) / p
    area = float(positive @ below / p)
    of_positives = float(positive @ (below - area) ** 2 / p) / max(p - 1, 1)
    of_negatives = float(negative @ (above - area) ** 2 / q) / max(q - 1, 1)
    # d area / d rate of a bin: a prediction that is positive instead of negative.
    slope = n * ((below - area) / p + (area - above) / q)
    calibrating = float(((slope * known.error) ** 2).sum())
    return Expected(value=area, standard_error=float(np.sqrt(of_positives + of_negatives + calibrating)))
