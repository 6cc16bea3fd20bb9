"""What counts as a sample: the checks that every statistic here makes before it computes.

A statistic over wrong input is worse than none, because its number looks like any other. So shapes, signs and
emptiness are checked once, and everything wrong is an `InvalidSample` that names the argument.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from control_plane.core.errors import Invalid, Reason, Violation

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Counts = Sequence[int] | npt.NDArray[np.integer] | npt.NDArray[np.floating]
"""Counts per bin, shape (B,): integers >= 0, in whatever type they arrive."""

Series = Sequence[float] | npt.NDArray[np.floating]
"""Numbers in an order, shape (n,)."""

COUNT_MAX = 2**53
"""Beyond this a double no longer holds every integer; it is 900,000 days of 10 billion predictions."""


class InvalidSample(Invalid):
    """The sample cannot be used: wrong shape, a negative or fractional count, nothing in it."""

    def __init__(self, field: str, rule: str, message: str) -> None:
        super().__init__(Reason.INVALID_SAMPLE, Violation(field=field, rule=rule, message=message))


def as_counts(counts: Counts, field: str) -> Float64s:
    """Counts of one histogram as doubles.

    Args:
        counts: shape (B,), B >= 2.
        field: what to call it in an error.
    Raises:
        InvalidSample: not one-dimensional, fewer than two cells, a negative, fractional, NaN or huge count,
        or sum 0.
    """
    found = np.asarray(counts)
    if found.ndim != 1 or found.size < 2:
        raise InvalidSample(field, "shape", f"counts have shape {found.shape}: give one row of at least 2 cells")
    if not (np.issubdtype(found.dtype, np.integer) or np.issubdtype(found.dtype, np.floating)):
        raise InvalidSample(field, "type", f"counts are of type {found.dtype}: give integers")
    doubles = found.astype(np.float64)
    if not np.all((doubles >= 0) & (doubles <= COUNT_MAX) & (doubles == np.floor(doubles))):
        raise InvalidSample(field, "count", "every count is an integer from 0 to 2^53")
    if not doubles.any():
        raise InvalidSample(field, "empty", "the sample is empty: all counts are 0")
    return doubles


def as_pair(reference: Counts, current: Counts) -> tuple[Float64s, Float64s]:
    """Counts of two samples over the same bins; raises `InvalidSample` as `as_counts`, or if shapes
    differ.
    """
    r, c = as_counts(reference, "reference"), as_counts(current, "current")
    if r.shape != c.shape:
        raise InvalidSample(
            "current", "shape", f"reference has {r.size} cells and current has {c.size}: bin both alike"
        )
    return r, c
