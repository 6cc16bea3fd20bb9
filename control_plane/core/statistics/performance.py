"""Did the metric really get worse, or is it the sample?

A drop counts only as far as it is sure: the signal uses the lower confidence bound of the drop, so that fifty
unlucky labels move nothing and five thousand do.
"""

import math
from dataclasses import dataclass

from control_plane.core.statistics.sample import InvalidSample

Z_95 = 1.6448536269514722
"""95 % quantile of the standard normal: one-sided bounds at 95 % confidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDrop:
    """How much worse a metric is than its baseline; positive is worse. All in the metric's units, but
    `p_value`.
    """

    drop: float
    standard_error: float
    p_value: float
    """Of the one-sided test that the metric did not get worse."""
    lower_bound: float
    """The drop is at least this, with 95 % confidence."""


def metric_drop(
    baseline: float,
    current: float,
    *,
    baseline_error: float = 0.0,
    current_error: float = 0.0,
    higher_is_better: bool,
) -> MetricDrop:
    """Compare a metric with its baseline, measured on independent rows.

    drop = baseline - current (turned round if lower is better), se = sqrt(se_b^2 + se_c^2), one-sided z test,
    lower bound = drop - 1.645 se.

    Args:
        baseline, current: the metric then and now.
        baseline_error, current_error: their standard errors, >= 0.
        higher_is_better: True for AUC or accuracy, False for RMSE or log-loss.
    Raises:
        InvalidSample: a value is NaN or infinite, or a standard error negative.

    >>> found = metric_drop(0.80, 0.75, current_error=0.01, higher_is_better=True)
    >>> round(found.drop, 3), round(found.lower_bound, 3), found.p_value < 1e-6
    (0.05, 0.034, True)
    >>> metric_drop(0.80, 0.85, higher_is_better=True).p_value
    1.0
    """
    for field, value in (("baseline", baseline), ("current", current)):
        if not math.isfinite(value):
            raise InvalidSample(field, "finite", f"the metric is {value}: give a finite number")
    for field, value in (("baseline_error", baseline_error), ("current_error", current_error)):
        if not (math.isfinite(value) and value >= 0):
            raise InvalidSample(field, "range", f"the standard error is {value}: give a finite number, 0 or more")
    drop = baseline - current if higher_is_better else current - baseline
    error = math.hypot(baseline_error, current_error)
    z = drop / error if error > 0 else math.copysign(math.inf, drop) if drop else -math.inf
    p_value = 0.5 * math.erfc(z / math.sqrt(2))
    return MetricDrop(drop=drop, standard_error=error, p_value=p_value, lower_bound=drop - Z_95 * error)


def performance_signal(drop: MetricDrop, tolerance: float) -> float:
    """clamp(lower bound of the drop / tolerance, 0, 1): 0 while the drop may be chance, 1 when it is surely
    beyond.

    Args:
        tolerance: the drop that the owner cannot accept, in the metric's units, > 0.
    Raises:
        InvalidSample: the tolerance is not positive.

    >>> performance_signal(metric_drop(0.75, 0.50, higher_is_better=True), tolerance=0.5)
    0.5
    """
    if not tolerance > 0:
        raise InvalidSample("tolerance", "range", f"the tolerance is {tolerance}: give a positive number")
    return min(max(drop.lower_bound / tolerance, 0.0), 1.0)
