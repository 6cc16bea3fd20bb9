"""How good a version was, or would have been, day by day. What history has is measured, the rest is estimated:

1. A version that served on a day: its metric on that day's outcomes. With fewer than 1,000 of them the day before and
   after are taken in, then three days to each side.
2. The *level* of a model is what its versions were worth in their first week in production, weighted by outcomes; if
   none began in the history that was read, what the oldest recorded week was worth.
3. A fresh version is worth the level, or what production was worth on that day if that is better.
4. A version that history does not have, trained at t, is worth what a fresh one is, less what it lost since t. Where
   one recorded version has served both at t and on the day, that is what this one lost between the two: the world moved
   as much for both. Else it is what versions of this model have lost by that age, in weeks, never less than at a lower
   age.
5. A version that served in history, on a day on which it did not any more: what it was last worth, less what was lost
   since in the same two ways.

What this cannot see: a world that became harder for every version shows as loss of the old ones, and is given back to
each new one in full.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from control_plane.app.fact_reports import RecordedPartials
from control_plane.backtest.recording import RecordedModel, RecordedVersion
from control_plane.backtest.windows import daily, dense_metric
from control_plane.core.ground_truth.metrics import HIGHER_IS_BETTER
from control_plane.core.ground_truth.partials import COUNTS

Float64s = npt.NDArray[np.float64]

OUTCOMES_MIN = 1_000
"""Outcomes behind a day's metric, if a wider window can help: an AUC of 0.8 then has an error of about 0.015."""
REACHES = (0, 1, 3)
"""Days to each side that are taken in, in turn."""
WEEK = 7
WEEKS_MAX = 60

_JOINED, _ABSENT = COUNTS.index("joined"), COUNTS.index("absent")


def day_number(at: datetime) -> int:
    """Days since 1970, UTC."""
    return int(at.astimezone(UTC).timestamp() // 86_400)


class Estimates:
    """Of one model. Days are numbered from `first_day`; all values point upwards: a metric that is better low is
    negated.
    """

    def __init__(self, model: RecordedModel, first_day: int, days: int) -> None:
        self.metric = model.label.primary_metric
        self.higher_is_better = self.metric in HIGHER_IS_BETTER
        self._sign = 1.0 if self.higher_is_better else -1.0
        self._task = model.label.task
        self._first_day, self._days = first_day, days
        self._measured: dict[int, Float64s] = {}
        self._weeks: dict[int, tuple[float, int]] = {}
        """First recorded week of a version: its value, and the outcomes behind it."""
        by_version = {version.number: version for version in model.versions}
        for recorded in model.hours.partials:
            if recorded.version in by_version:
                self._measure(recorded)
        began = {
            number: week
            for number, week in self._weeks.items()
            if by_version[number].served and day_number(by_version[number].served[0][0]) >= first_day
        }
        self.level = self._level(began, by_version)
        self._lost_by_week = self._aging(by_version)

    def measured(self, number: int, day: int) -> float | None:
        """What a recorded version was worth on a day; None if it is not known."""
        series = self._measured.get(number)
        at = day - self._first_day
        if series is None or not 0 <= at < self._days or np.isnan(series[at]):
            return None
        return float(series[at])

    def of_recorded(self, version: RecordedVersion, day: int) -> float | None:
        """Rules 1 and 5."""
        known = self.measured(version.number, day)
        if known is not None:
            return known
        last = self._last_known(version.number, day)
        if last is None:
            return self.of_new(version.trained_until, day)
        then, value = last
        born = day_number(version.trained_until)
        return value - self._lost(then, day, age_then=then - born, age_now=day - born)

    def of_new(self, trained_until: datetime, day: int) -> float | None:
        """Rule 4; None if nothing of the model was ever measured."""
        fresh = self.fresh(day)
        if fresh is None:
            return None
        born = day_number(trained_until)
        return fresh - self._lost(born, day, age_then=0, age_now=day - born)

    def fresh(self, day: int) -> float | None:
        """Rule 3."""
        if self.level is None:
            return None
        known = [value for number in self._measured if (value := self.measured(number, day)) is not None]
        return max([self.level, *known])

    def as_metric(self, value: float) -> float:
        """Back to how the metric points."""
        return value * self._sign

    def _measure(self, recorded: RecordedPartials) -> None:
        dense, sums = daily(recorded.hours, recorded.partials, self._first_day, self._days)
        counts = np.concatenate([np.zeros((1, dense.shape[1]), np.int64), np.cumsum(dense, axis=0)])
        totals = np.concatenate([np.zeros((1, sums.shape[1])), np.cumsum(sums, axis=0)])
        labelled = counts[:, _JOINED] + counts[:, _ABSENT]

        def worth(low: int, high: int) -> float | None:
            found = dense_metric(counts[high] - counts[low], totals[high] - totals[low], self.metric, self._task)
            return found.value * self._sign if found is not None else None

        series = np.full(self._days, np.nan)
        own = np.diff(labelled)
        for day in np.flatnonzero(own).tolist():
            for reach in REACHES:
                low, high = max(day - reach, 0), min(day + reach + 1, self._days)
                if labelled[high] - labelled[low] >= OUTCOMES_MIN or reach == REACHES[-1]:
                    value = worth(low, high)
                    series[day] = np.nan if value is None else value
                    break
        self._measured[recorded.version] = series
        present = np.flatnonzero(own)
        if present.size:
            low = int(present[0])
            high = min(low + WEEK, self._days)
            value = worth(low, high)
            if value is not None:
                self._weeks[recorded.version] = (value, int(labelled[high] - labelled[low]))

    def _level(self, began: dict[int, tuple[float, int]], versions: dict[int, RecordedVersion]) -> float | None:
        weeks: Sequence[tuple[float, int]] = list(began.values())
        if not weeks and self._weeks:
            oldest = min(self._weeks, key=lambda number: versions[number].trained_until)
            weeks = [self._weeks[oldest]]
        outcomes = sum(count for _, count in weeks)
        return sum(value * count for value, count in weeks) / outcomes if outcomes else None

    def _aging(self, versions: dict[int, RecordedVersion]) -> Float64s:
        """What versions of this model have lost against the level, by age in weeks; shape (WEEKS_MAX,)."""
        total, times = np.zeros(WEEKS_MAX), np.zeros(WEEKS_MAX)
        for number, series in self._measured.items():
            born = day_number(versions[number].trained_until)
            for at in np.flatnonzero(~np.isnan(series)).tolist():
                week = min(max(self._first_day + at - born, 0) // WEEK, WEEKS_MAX - 1)
                total[week] += (self.level or 0.0) - series[at]
                times[week] += 1
        lost = np.where(times > 0, total / np.maximum(times, 1), 0.0)
        lost[0] = 0.0
        return np.maximum.accumulate(np.maximum(lost, 0.0))

    def _lost(self, then: int, now: int, *, age_then: int, age_now: int) -> float:
        """Between two days, never less than 0."""
        if now <= then:
            return 0.0
        for number in self._measured:
            before, after = self.measured(number, then), self.measured(number, now)
            if before is not None and after is not None:
                return max(before - after, 0.0)
        return max(float(self._by_age(age_now) - self._by_age(age_then)), 0.0)

    def _by_age(self, days: int) -> float:
        return float(self._lost_by_week[min(max(days, 0) // WEEK, WEEKS_MAX - 1)])

    def _last_known(self, number: int, day: int) -> tuple[int, float] | None:
        series = self._measured.get(number)
        if series is None:
            return None
        known = np.flatnonzero(~np.isnan(series[: max(day - self._first_day, 0)]))
        if not known.size:
            return None
        return self._first_day + int(known[-1]), float(series[known[-1]])
