"""Rows by the hours they are filed under, and which of them come too late for theirs."""

from collections.abc import Iterable

import numpy as np

from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, NO_HOUR, IdColumns, Int64s, id_hours
from control_plane.core.ground_truth.join import Bools

EARLY_HOURS_MAX = 24
"""How far an outcome may be observed before its prediction and still be waited for; clocks differ, not by days."""


def late_outcomes(ids: IdColumns, observed_us: Int64s, horizon: int) -> tuple[Int64s, Bools]:
    """Hours in the ids, and which rows are late at a horizon. Shapes (n,).

    An id without time, or with another clock's, is late once it was observed so long ago that its prediction has
    expired too.
    """
    hours = id_hours(ids)
    seen_until = observed_us // MICROSECONDS_PER_HOUR + EARLY_HOURS_MAX
    return hours, ((hours != NO_HOUR) & (hours < horizon)) | (seen_until < horizon)


def by_hour(hours: Int64s) -> Iterable[tuple[int, Int64s | None]]:
    """Distinct hours with the positions of their rows, in order of arrival; None for all rows."""
    if len(hours) == 0:
        return
    first = int(hours[0])
    if (hours == first).all():
        yield first, None
        return
    order = np.argsort(hours, kind="stable")
    for hour in distinct_hours(hours):
        start, end = np.searchsorted(hours, [hour, hour + 1], sorter=order)
        yield hour, order[start:end]


def distinct_hours(hours: Int64s) -> list[int]:
    low, high = int(hours.min()), int(hours.max())
    return [low] if low == high else [int(hour) for hour in np.unique(hours)]
