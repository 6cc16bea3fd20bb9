"""From partials to metrics with standard errors.

Each number says how sure it is: a metric without its standard error cannot be tested against a baseline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from control_plane.core.ground_truth.labels import Task
from control_plane.core.ground_truth.partials import (
    CELLS,
    SCORE_BINS,
    SUMS,
    Float64s,
    Partial,
    count_at,
    score_cells,
)

Z_95 = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""
SHARES = frozenset({"auc", "accuracy"})
ERRORS = frozenset({"log_loss", "brier", "mae", "rmse"})
LOG_SPREAD_MAX = 50.0
"""Beyond this an interval on the log scale is without bounds for all purposes, and must not overflow."""
HIGHER_IS_BETTER = frozenset({"auc", "accuracy", "r2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """A metric over `sample_size` labelled predictions. `standard_error` is 0 only if the sample shows no spread."""

    name: str
    value: float
    standard_error: float
    sample_size: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval: on the logit scale for shares, so that it stays between 0 and 1 (Agresti 2002, 3.1), on the
        log scale for errors, which are never negative, else symmetric."""
        value, error = self.value, Z_95 * self.standard_error
        if self.name in SHARES and 0 < value < 1:
            logit, spread = math.log(value / (1 - value)), error / (value * (1 - value))
            return _expit(logit - spread), _expit(logit + spread)
        if self.name in ERRORS and value > 0:
            return value * math.exp(-error / value), value * math.exp(min(error / value, LOG_SPREAD_MAX))
        return value - error, value + error


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What metrics are made of: labelled rows as weighted sums. What is true of two stretches of time is their sum."""

    right: float
    """Weight of the rows on the right side of the threshold; of a binary label."""
    scores: Float64s
    """By label, negatives first; shape (2, SCORE_BINS)."""
    sums: Float64s
    """In the order of `SUMS`."""
    weight: Float64s
    """Of negatives and positives, shape (2,); all rows count as negatives if the label is not binary."""
    weight_squared: Float64s
    """Sums of squared weights, likewise."""
    doubt: Float64s
    """Standard errors of `weight`, where it was inferred from how much has arrived by now; shape (2,)."""
    inferred: bool = False
    """Some negatives are what is left when the positives that will still come are taken away."""

    @property
    def rows(self) -> float:
        """Labelled rows it stands for."""
        return float(self.weight.sum())

    @property
    def design(self) -> float:
        """Kish's design effect of the class that is known worst."""
        known = self.weight > 0
        return max(1.0, float(np.max(self.weight_squared[known] / self.weight[known], initial=1.0)))


def labelled_of(parts: Sequence[tuple[Partial, float]], task: Task) -> Labelled:
    """The labelled rows of partials, each of which stands for `weight` times its rows. Nothing is rounded."""
    cells = np.concatenate([part.cell for part, _ in parts]) if parts else np.zeros(0, np.int32)
    counts = np.concatenate([part.count * weight for part, weight in parts]) if parts else np.zeros(0)
    dense = np.asarray(np.bincount(cells, counts, CELLS), np.float64)
    sums = np.sum([part.sums * weight for part, weight in parts], axis=0) if parts else np.zeros(len(SUMS))
    right = dense[count_at("true_positive")] + dense[count_at("true_negative")]
    scores = score_cells(dense)
    positive = float(dense[count_at("true_positive")] + dense[count_at("false_negative")])
    labelled = float(dense[count_at("joined")] + dense[count_at("absent")])
    squared = np.array([labelled - positive, positive])
    if any(weight != 1 or part.design != 1 for part, weight in parts):
        squared = np.zeros(2)
        for part, weight in parts:
            n, ones = part.labelled, part.of("true_positive") + part.of("false_negative")
            squared += np.array([n - ones, ones]) * weight * weight * part.design
    return Labelled(
        right=float(right),
        scores=scores,
        sums=np.asarray(sums, np.float64),
        weight=np.array([labelled - positive, positive]),
        weight_squared=squared,
        doubt=np.zeros(2),
    )


def added(parts: Sequence[Labelled]) -> Labelled:
    """The sum. Doubts add up as they are: they come from one arrival curve, and err together."""
    if len(parts) == 1:
        return parts[0]
    return Labelled(
        right=sum(part.right for part in parts),
        scores=np.sum([part.scores for part in parts], axis=0) if parts else np.zeros((2, SCORE_BINS)),
        sums=np.sum([part.sums for part in parts], axis=0) if parts else np.zeros(len(SUMS)),
        weight=np.sum([part.weight for part in parts], axis=0) if parts else np.zeros(2),
        weight_squared=np.sum([part.weight_squared for part in parts], axis=0) if parts else np.zeros(2),
        doubt=np.sum([part.doubt for part in parts], axis=0) if parts else np.zeros(2),
        inferred=any(part.inferred for part in parts),
    )


def metrics_of(partial: Partial, task: Task) -> tuple[MetricValue, ...]:
    """All metrics that the labelled predictions of a partial support, in a fixed order; none without labels.

    AUC needs both classes, R2 needs values that vary; they are left out otherwise, never guessed.
    """
    return metrics_from(labelled_of([(partial, 1.0)], task), task) if partial.labelled else ()


def metrics_from(labelled: Labelled, task: Task) -> tuple[MetricValue, ...]:
    """The same of weighted rows. Standard errors carry the design effect and the doubt about weights; the sample size
    is that of as many unweighted rows as would say as much."""
    n = labelled.rows
    if n <= 0:
        return ()
    found = _binary(labelled, n) if task == "binary" else _regression(labelled, n)
    wider, rows = math.sqrt(labelled.design), max(1, round(n / labelled.design))
    doubts = _doubts(labelled) if task == "binary" and labelled.doubt.any() else {}
    return tuple(
        replace(
            one,
            standard_error=math.hypot(one.standard_error * wider, doubts.get(one.name, 0.0)),
            sample_size=rows,
        )
        for one in found
        if one is not None
    )


def _doubts(labelled: Labelled) -> dict[str, float]:
    """What not knowing the weights of the classes does to each metric, by name: one standard error.

    A mean over both classes is m = pi m1 + (1 - pi) m0 with pi = W1 / (W0 + W1), so that
    dm = (m1 - m0) pi (1 - pi) (dW1 / W1 - dW0 / W0); both errors are taken at their worst.
    """
    (w0, w1), (d0, d1) = labelled.weight.tolist(), labelled.doubt.tolist()
    if w0 <= 0 or w1 <= 0:
        return {}
    share = w1 / (w0 + w1)
    mix = share * (1 - share) * (d1 / w1 + d0 / w0)
    doubts = {}
    for name in ("log_loss", "brier"):
        total, positive = _sum(labelled, name), _sum(labelled, f"{name}_positive")
        doubts[name] = abs(positive / w1 - (total - positive) / w0) * mix
    half = SCORE_BINS // 2
    right1 = float(labelled.scores[1, half:].sum()) / w1
    right0 = float(labelled.scores[0, :half].sum()) / w0
    doubts["accuracy"] = abs(right1 - right0) * mix
    area = auc(labelled.scores)
    if labelled.inferred and area is not None:  # positives still to come would hide among the negatives
        doubts["auc"] = abs(area[0] - 0.5) * d0 / w0
    return doubts


def _sum(labelled: Labelled, name: str) -> float:
    return float(labelled.sums[SUMS.index(name)])


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def coverage(joined: int, predicted: int) -> float | None:
    """joined / predicted over mature predictions; None if nothing is mature.

    >>> coverage(4, 5)
    0.8
    """
    return joined / predicted if predicted else None


def auc(scores: npt.NDArray[Any]) -> tuple[float, float] | None:
    """Area under the ROC curve from a histogram of scores by label, with its standard error.

    AUC = P(score of a positive > score of a negative) + 1/2 P(equal), over bins. The standard error is DeLong's:
    var = S10 / P + S01 / N, with the sample variances of the placements of P positives and N negatives.

    Args:
        scores: shape (2, B), negatives first.
    Returns:
        (auc, standard error), or None if a class is missing.
    Source: DeLong, DeLong, Clarke-Pearson 1988.

    >>> auc(np.array([[2, 2, 0], [0, 2, 2]]))[0]
    0.875
    """
    negative, positive = scores[0].astype(np.float64), scores[1].astype(np.float64)
    n, p = float(negative.sum()), float(positive.sum())
    if n == 0 or p == 0:
        return None
    below = (np.cumsum(negative) - negative / 2) / n
    above = 1 - (np.cumsum(positive) - positive / 2) / p
    area = float(positive @ below / p)
    variance = _spread(below, positive, area, p) / p + _spread(above, negative, area, n) / n
    return area, float(np.sqrt(variance))


def _spread(placement: Float64s, weight: Float64s, mean: float, n: float) -> float:
    """Sample variance of placements with integer weights."""
    if n < 2:
        return 0.0
    return float(weight @ (placement - mean) ** 2 / (n - 1))


def _mean(name: str, total: float, squares: float, n: float) -> MetricValue:
    """A mean with the standard error of the mean."""
    mean = total / n
    variance = max(squares / n - mean * mean, 0.0) * (n / (n - 1)) if n > 1 else 0.0
    return MetricValue(name=name, value=mean, standard_error=float(np.sqrt(variance / n)), sample_size=round(n))


def _binary(labelled: Labelled, n: float) -> list[MetricValue | None]:
    area = auc(labelled.scores)
    return [
        None if area is None else MetricValue(name="auc", value=area[0], standard_error=area[1], sample_size=round(n)),
        _mean("accuracy", labelled.right, labelled.right, n),
        _mean("log_loss", _sum(labelled, "log_loss"), _sum(labelled, "log_loss_squared"), n),
        _mean("brier", _sum(labelled, "brier"), _sum(labelled, "brier_squared"), n),
    ]


def _regression(labelled: Labelled, n: float) -> list[MetricValue | None]:
    squared, fourth = _sum(labelled, "error_squared"), _sum(labelled, "error_fourth")
    mse = _mean("mse", squared, fourth, n)
    rmse = float(np.sqrt(mse.value))
    return [
        _mean("mae", _sum(labelled, "error_absolute"), squared, n),
        MetricValue(  # delta method: d sqrt(x) = dx / (2 sqrt(x))
            name="rmse",
            value=rmse,
            standard_error=mse.standard_error / (2 * rmse) if rmse else 0.0,
            sample_size=round(n),
        ),
        _mean("bias", _sum(labelled, "error"), squared, n),
        _r2(squared, _sum(labelled, "value"), _sum(labelled, "value_squared"), n),
    ]


def _r2(squared: float, total: float, squares: float, n: float) -> MetricValue | None:
    """1 - SSE / SST. Standard error after Olkin and Finn 1995 for one predictor, the prediction itself.

    se^2 = 4 R2 (1 - R2)^2 (n - 2)^2 / ((n^2 - 1)(n + 3)); a negative R2 counts as 0 in it.
    """
    spread = squares - total * total / n
    if n < 3 or spread <= 1e-12 * max(squares, 1e-300):
        return None
    r2 = 1 - squared / spread
    inside = max(r2, 0.0)
    variance = 4 * inside * (1 - inside) ** 2 * (n - 2) ** 2 / ((n * n - 1) * (n + 3))
    return MetricValue(name="r2", value=r2, standard_error=float(np.sqrt(variance)), sample_size=round(n))
