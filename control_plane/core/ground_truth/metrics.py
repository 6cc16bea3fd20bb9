"""From partials to metrics with standard errors.

Each number says how sure it is: a metric without its standard error cannot be tested against a baseline.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.labels import Task
from control_plane.core.ground_truth.partials import Float64s, Partial

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


def metrics_of(partial: Partial, task: Task) -> tuple[MetricValue, ...]:
    """All metrics that the labelled predictions of a partial support, in a fixed order; none without labels.

    AUC needs both classes, R2 needs values that vary; they are left out otherwise, never guessed.
    """
    n = partial.labelled
    if n == 0:
        return ()
    found = _binary(partial, n) if task == "binary" else _regression(partial, n)
    metrics = tuple(metric for metric in found if metric is not None)
    if partial.design <= 1:
        return metrics
    wider, rows = math.sqrt(partial.design), max(1, round(n / partial.design))
    return tuple(replace(one, standard_error=one.standard_error * wider, sample_size=rows) for one in metrics)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def coverage(joined: int, predicted: int) -> float | None:
    """joined / predicted over mature predictions; None if nothing is mature.

    >>> coverage(4, 5)
    0.8
    """
    return joined / predicted if predicted else None


def auc(scores: Int64s) -> tuple[float, float] | None:
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


def _mean(name: str, total: float, squares: float, n: int) -> MetricValue:
    """A mean with the standard error of the mean."""
    mean = total / n
    variance = max(squares / n - mean * mean, 0.0) * (n / (n - 1)) if n > 1 else 0.0
    return MetricValue(name=name, value=mean, standard_error=float(np.sqrt(variance / n)), sample_size=n)


def _binary(partial: Partial, n: int) -> list[MetricValue | None]:
    area = auc(partial.scores())
    right = partial.of("true_positive") + partial.of("true_negative")
    return [
        None if area is None else MetricValue(name="auc", value=area[0], standard_error=area[1], sample_size=n),
        _mean("accuracy", right, right, n),
        _mean("log_loss", partial.sum_of("log_loss"), partial.sum_of("log_loss_squared"), n),
        _mean("brier", partial.sum_of("brier"), partial.sum_of("brier_squared"), n),
    ]


def _regression(partial: Partial, n: int) -> list[MetricValue | None]:
    squared, fourth = partial.sum_of("error_squared"), partial.sum_of("error_fourth")
    mse = _mean("mse", squared, fourth, n)
    rmse = float(np.sqrt(mse.value))
    return [
        _mean("mae", partial.sum_of("error_absolute"), squared, n),
        MetricValue(  # delta method: d sqrt(x) = dx / (2 sqrt(x))
            name="rmse", value=rmse, standard_error=mse.standard_error / (2 * rmse) if rmse else 0.0, sample_size=n
        ),
        _mean("bias", partial.sum_of("error"), squared, n),
        _r2(squared, partial.sum_of("value"), partial.sum_of("value_squared"), n),
    ]


def _r2(squared: float, total: float, squares: float, n: int) -> MetricValue | None:
    """1 - SSE / SST. Standard error after Olkin and Finn 1995 for one predictor, the prediction itself.

    se^2 = 4 R2 (1 - R2)^2 (n - 2)^2 / ((n^2 - 1)(n + 3)); a negative R2 counts as 0 in it.
    """
    spread = squares - total * total / n
    if n < 3 or spread <= 1e-12 * max(squares, 1e-300):
        return None
    r2 = 1 - squared / spread
    inside = max(r2, 0.0)
    variance = 4 * inside * (1 - inside) ** 2 * (n - 2) ** 2 / ((n * n - 1) * (n + 3))
    return MetricValue(name="r2", value=r2, standard_error=float(np.sqrt(variance)), sample_size=n)
