"""When a score will reach its threshold, if it goes on as it did."""

import math

import numpy as np

from control_plane.core.statistics.sample import InvalidSample, Series

POINTS_MIN = 6
"""Fewer looks than this are no trend."""
POINTS_MAX = 200
"""All pairs of so many are some milliseconds; thin more before."""
SURE = 1.6448536269514722
"""One-sided 95 % quantile of the standard normal: a rise that may be chance forecasts nothing."""


def crossing(times_s: Series, scores: Series, threshold: float, now_s: float) -> float | None:
    """Seconds after `now_s` at which a robust line through the scores reaches the threshold; None if it will not.

    The slope is the median of all pairwise slopes (Theil 1950, Sen 1968), which a quarter of wild looks does not move;
    the line goes through the median of what is left. None with fewer than 6 looks, if Mann-Kendall's test does not show
    a rise at 95 %, or if the line is at the threshold already.

    Args:
        times_s: times of the looks in seconds, ascending, shape (n,), n <= 200.
        scores: shape (n,); all finite.
    Raises:
        InvalidSample: there is not one score for each time.

    >>> crossing([0, 10, 20, 30, 40, 50], [0.1, 0.15, 0.2, 0.25, 0.3, 0.35], threshold=0.6, now_s=50)
    50.0
    >>> crossing([0, 10, 20, 30, 40, 50], [0.3, 0.3, 0.3, 0.3, 0.3, 0.3], threshold=0.6, now_s=50) is None
    True
    """
    t, y = np.asarray(times_s, np.float64), np.asarray(scores, np.float64)
    if t.shape != y.shape or t.ndim != 1:
        raise InvalidSample("scores", "shape", f"{t.shape} and {y.shape}: give one score for each time")
    t, y = t[-POINTS_MAX:], y[-POINTS_MAX:]
    if t.size < POINTS_MIN or not (np.isfinite(t).all() and np.isfinite(y).all()):
        return None
    first, second = np.triu_indices(t.size, 1)
    apart = t[second] - t[first]
    rise = y[second] - y[first]
    ordered = apart > 0
    if not ordered.any():
        return None
    slope = float(np.median(rise[ordered] / apart[ordered]))
    if slope <= 0 or _rise(y, rise[ordered]) < SURE:
        return None
    level = float(np.median(y - slope * (t - now_s)))
    if level >= threshold:
        return None
    return round((threshold - level) / slope, 6)


def _rise(y: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", rise: object) -> float:
    """Mann-Kendall's z of a rise, corrected for ties. Source: Gilbert 1987, section 16.4.2."""
    n = y.size
    s = float(np.sign(np.asarray(rise)).sum())
    _, ties = np.unique(y, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    return (s - 1) / math.sqrt(variance) if s > 0 and variance > 0 else 0.0
