"""Does a stand-in move with the real thing? Rank correlation of two series, day by day, with its interval."""

import math
from dataclasses import dataclass

import numpy as np

from control_plane.core.statistics.sample import Float64s, InvalidSample, Series

PAIRS_MIN = 8
"""With fewer days any correlation is chance: 7 pairs reach 0.7 one time in ten."""
Z_TWO_SIDED_90 = 1.6448536269514722


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """Spearman's rank correlation with a 90 % interval."""

    value: float
    low: float
    high: float
    pairs: int


def rank_correlation(first: Series, second: Series) -> Correlation | None:
    """Spearman's correlation of two series; None with fewer than 8 finite pairs, or if one of them does not vary.

    The interval is Fisher's, z = atanh(rho) +- 1.645 sqrt((1 + rho^2 / 2) / (n - 3)).

    Args:
        first, second: shape (n,), pair by pair; pairs with a value that is not finite are left out.
    Raises:
        InvalidSample: lengths differ.
    Source: Bonett and Wright 2000 for the variance.

    >>> rank_correlation(range(10), range(10)).value
    1.0
    >>> rank_correlation([1, 2], [1, 2]) is None
    True
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise InvalidSample("second", "shape", f"{x.shape} and {y.shape}: give two series of one length")
    there = np.isfinite(x) & np.isfinite(y)
    x, y = _ranks(x[there]), _ranks(y[there])
    if x.size < PAIRS_MIN or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    rho = float(np.clip(x @ y / math.sqrt(float(x @ x) * float(y @ y)), -1.0, 1.0))
    if abs(rho) == 1.0:
        return Correlation(value=rho, low=rho, high=rho, pairs=int(x.size))
    width = Z_TWO_SIDED_90 * math.sqrt((1 + rho * rho / 2) / (x.size - 3))
    z = math.atanh(rho)
    return Correlation(value=rho, low=math.tanh(z - width), high=math.tanh(z + width), pairs=int(x.size))


def _ranks(values: Float64s) -> Float64s:
    """Ranks from 1, equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return ((2 * ends - count + 1) / 2)[place]
