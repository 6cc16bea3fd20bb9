"""Windows over recorded hours that move: what enters is added, what leaves is taken away, in whole numbers.

So a window costs what it moves by, not what it holds, and its sums are exact however often it moved.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from control_plane.core.ground_truth.labels import Task
from control_plane.core.ground_truth.metrics import MetricValue, auc, metrics_of
from control_plane.core.ground_truth.partials import CELLS, COUNTS, SCORE_BINS, SUMS, Partial

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

SCORES_AT = CELLS - 3 * SCORE_BINS
"""Where the histograms of scores by label begin in a dense partial; that of all scores is behind them."""


class CountWindow:
    """The sum of the rows of a matrix whose hours are in [first, last); both only ever grow, else it starts anew.

    Args:
        hours: ascending, with repetitions; shape (n,).
        counts: shape (n, cells).
    """

    def __init__(self, hours: Int64s, counts: npt.NDArray[np.integer]) -> None:
        self._hours, self._counts = hours, counts
        self._low = self._high = 0
        self.sum: Int64s = np.zeros(counts.shape[1], np.int64)

    def move(self, first: int, last: int) -> Int64s:
        """The sum over [first, last); valid until it moves on, and not to be changed."""
        low, high = (int(at) for at in np.searchsorted(self._hours, (first, last)))
        if low < self._low or high < self._high or low >= self._high:
            self._low = self._high = low
            self.sum[:] = 0
        self._add(self._high, high)
        self._take(self._low, low)
        self._low, self._high = low, high
        return self.sum

    def _add(self, start: int, stop: int) -> None:
        for row in range(start, stop):
            self.sum += self._counts[row]

    def _take(self, start: int, stop: int) -> None:
        for row in range(start, stop):
            self.sum -= self._counts[row]


class PartialWindow:
    """The sum of the partials whose hours are in [first, last).

    Args:
        hours: ascending; shape (n,).
        partials: n of them.
    """

    def __init__(self, hours: Int64s, partials: Sequence[Partial]) -> None:
        self._hours, self._partials = hours, partials
        self._low = self._high = 0
        self._dense: Int64s = np.zeros(CELLS, np.int64)
        self._sums = np.zeros((len(partials) + 1, len(SUMS)))
        for at, partial in enumerate(partials):
            self._sums[at + 1] = self._sums[at] + partial.sums

    def move(self, first: int, last: int) -> None:
        """Now the sum over [first, last)."""
        low, high = (int(at) for at in np.searchsorted(self._hours, (first, last)))
        if low < self._low or high < self._high or low >= self._high:
            self._low = self._high = low
            self._dense[:] = 0
        for row in range(self._high, high):
            self._dense[self._partials[row].cell] += self._partials[row].count
        for row in range(self._low, low):
            self._dense[self._partials[row].cell] -= self._partials[row].count
        self._low, self._high = low, high

    def of(self, name: str) -> int:
        """One of `COUNTS`."""
        return int(self._dense[COUNTS.index(name)])

    @property
    def labelled(self) -> int:
        """Predictions whose truth is known."""
        return self.of("joined") + self.of("absent")

    def metric(self, name: str, task: Task) -> MetricValue | None:
        """One metric over the window; None where it cannot be told."""
        return dense_metric(self._dense, self._sums[self._high] - self._sums[self._low], name, task)


def dense_metric(dense: Int64s, sums: Float64s, name: str, task: Task) -> MetricValue | None:
    """A metric of a dense partial; None without labels, or where they do not support it."""
    labelled = int(dense[COUNTS.index("joined")] + dense[COUNTS.index("absent")])
    if labelled == 0:
        return None
    if name == "auc":
        area = auc(dense[SCORES_AT : SCORES_AT + 2 * SCORE_BINS].reshape(2, SCORE_BINS))
        if area is None:
            return None
        return MetricValue(name=name, value=area[0], standard_error=area[1], sample_size=labelled)
    cell = np.flatnonzero(dense)
    partial = Partial(cell=cell.astype(np.int32), count=dense[cell], sums=sums)
    return next((metric for metric in metrics_of(partial, task) if metric.name == name), None)


def daily(hours: Int64s, partials: Sequence[Partial], first_day: int, days: int) -> tuple[Int64s, Float64s]:
    """Partials summed up by day, dense; hours of other days are left out.

    Returns:
        Counts, shape (days, CELLS), and sums, shape (days, len(SUMS)).
    """
    dense = np.zeros((days, CELLS), np.int64)
    sums = np.zeros((days, len(SUMS)))
    for hour, partial in zip(hours.tolist(), partials, strict=True):
        day = hour // 24 - first_day
        if 0 <= day < days:
            dense[day, partial.cell] += partial.count
            sums[day] += partial.sums
    return dense, sums
