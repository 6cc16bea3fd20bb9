"""What a run was worth.

Truth has the grain of a day: `truly_stale` and `quality` are asked once for each version and UTC day on which it
served, and hold for all its hours of that day.

- retrains: attempts that were leased. GPU hours: the sum over them of the model's `retrain_gpu_hours`, or of the hours
  that a training takes where the owner said nothing.
- stale hours: model-hours in which production was truly stale.
- quality of a model on a day: the metric of what served, weighted by hours, turned so that higher is better. Quality of
  a day: the mean over models that have one. Quality: the mean over models and days. The same for fresh versions.
- A *stretch* is a longest run of hours in which a model was truly stale, across promotions. An *alarm* is a request for
  a retrain. It is false if the model was not truly stale in that hour.
- false alarms per model-month: false alarms / (models x days / 30).
- A stretch is *detected* if a request for its model was live in it. Its delay is from its start to that request, 0 if
  the request was live before. The detection delay is the median over detected stretches.
- recall: detected / all stretches, 1 if there are none. precision: true / all alarms, 1 if there are none.
  F1 = 2 recall precision / (recall + precision).
- regret: the oracle's quality minus this one's.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from control_plane.backtest.contenders import DAY, HOUR, day_of
from control_plane.backtest.report import Point, Result, RetrainRow
from control_plane.backtest.run import Asked, Run, Stint
from control_plane.backtest.world import Trained, World
from control_plane.core.ids import ModelId

DAYS_PER_MONTH = 30

RETRAIN_LOG_MAX = 10_000
"""Rows of a report: a fleet of 5,000 that retrains weekly for a fortnight. The counts are of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A model was truly stale in [start, end)."""

    model_id: ModelId
    start: datetime
    end: datetime


class Truth:
    """What the world answers, remembered: many contenders ask the same."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._stale: dict[tuple[ModelId, int, datetime], bool] = {}
        self._quality: dict[tuple[ModelId, int, datetime], float | None] = {}
        self._fresh: dict[tuple[ModelId, datetime], float | None] = {}

    def stale(self, trained: Trained, day: datetime) -> bool:
        """Truly stale on that day."""
        key = (trained.model_id, trained.number, day)
        if key not in self._stale:
            self._stale[key] = bool(self.world.truly_stale(trained, self._within(day)))
        return self._stale[key]

    def quality(self, trained: Trained, day: datetime) -> float | None:
        """Of that day, higher is better."""
        key = (trained.model_id, trained.number, day)
        if key not in self._quality:
            self._quality[key] = _turned(self.world.quality(trained, self._within(day)), trained)
        return self._quality[key]

    def fresh(self, trained: Trained, day: datetime) -> float | None:
        """Of a fresh version of the same model."""
        key = (trained.model_id, day)
        if key not in self._fresh:
            self._fresh[key] = _turned(self.world.fresh_quality(trained.model_id, self._within(day)), trained)
        return self._fresh[key]

    def _within(self, day: datetime) -> datetime:
        return max(day, self.world.start)


def _turned(value: float | None, trained: Trained) -> float | None:
    return value if value is None or trained.higher_is_better else -value


def days_of(since: datetime, until: datetime) -> Iterator[tuple[datetime, float]]:
    """The UTC days that [since, until) touches, with the hours of it on each.

    >>> from datetime import UTC
    >>> [hours for _, hours in days_of(datetime(2026, 1, 1, 22, tzinfo=UTC), datetime(2026, 1, 3, 1, tzinfo=UTC))]
    [2.0, 24.0, 1.0]
    """
    day = day_of(since)
    while day < until:
        yield day, (min(day + DAY, until) - max(day, since)) / HOUR
        day += DAY


def score(run: Run, truth: Truth, oracle_quality: float | None = None) -> Result:
    """All numbers of one run.

    Args:
        oracle_quality: of the oracle's run, for the regret; None: this is the oracle, or there is none.
    """
    world = truth.world
    stretches = stretches_of(run.stints, truth)
    points, quality, quality_fresh = _points(run, truth)
    gpu_hours = {facts.model_id: facts.retrain_gpu_hours for facts in world.models}
    true = [_rings_true(asked, stretches.get(asked.model_id, ())) for asked in run.asked]
    delays = [delay for of in stretches.values() for one in of if (delay := _delay(one, run.asked)) is not None]
    all_stretches = sum(map(len, stretches.values()))
    recall = len(delays) / all_stretches if all_stretches else 1.0
    precision = sum(true) / len(true) if true else 1.0
    months = len(world.models) * ((world.end - world.start) / DAY) / DAYS_PER_MONTH
    rows = [
        RetrainRow(at=asked.at, model_id=asked.model_id, reason=asked.why, truly_stale=stale, promoted=asked.promoted)
        for asked, stale in zip(run.asked, true, strict=True)
    ]
    return Result(
        name=run.contender.name,
        retrains=len(run.trainings),
        gpu_hours=sum(gpu_hours[one.model_id] or one.hours for one in run.trainings),
        stale_hours=sum((one.end - one.start) / HOUR for of in stretches.values() for one in of),
        quality=quality,
        quality_fresh=quality_fresh,
        false_alarms_per_model_month=(len(true) - sum(true)) / months if months else 0.0,
        detection_delay_hours=statistics.median(delays) if delays else None,
        recall=recall,
        precision=precision,
        f1=2 * recall * precision / (recall + precision) if recall + precision else 0.0,
        regret=oracle_quality - quality if oracle_quality is not None else 0.0,
        points=points,
        retrain_log=tuple(rows[:RETRAIN_LOG_MAX]),
    )


def stretches_of(stints: Sequence[Stint], truth: Truth) -> dict[ModelId, list[Stretch]]:
    """Every stretch, by model in the order of the stints, then by time."""
    found: dict[ModelId, list[Stretch]] = {}
    for stint in stints:
        model_id = stint.trained.model_id
        for day, hours in days_of(stint.since, stint.until):
            if not truth.stale(stint.trained, day):
                continue
            start = max(day, stint.since)
            end = start + hours * HOUR
            of = found.setdefault(model_id, [])
            if of and of[-1].end == start:
                of[-1] = Stretch(model_id=model_id, start=of[-1].start, end=end)
            else:
                of.append(Stretch(model_id=model_id, start=start, end=end))
    return found


def _rings_true(asked: Asked, stretches: Sequence[Stretch]) -> bool:
    return any(one.start <= asked.at < one.end for one in stretches)


def _delay(stretch: Stretch, asked: Sequence[Asked]) -> float | None:
    """Hours to the first request that was live in the stretch; None without any."""
    live = [
        one.at
        for one in asked
        if one.model_id == stretch.model_id and one.at < stretch.end and one.until > stretch.start
    ]
    return max((min(live) - stretch.start) / HOUR, 0.0) if live else None


def _points(run: Run, truth: Truth) -> tuple[tuple[Point, ...], float, float]:
    """By day; the quality over all, and that of fresh versions."""
    sums: dict[tuple[datetime, ModelId], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    stale: dict[datetime, float] = defaultdict(float)
    served: dict[datetime, float] = defaultdict(float)
    started: dict[datetime, int] = defaultdict(int)
    for training in run.trainings:
        started[day_of(training.at)] += 1
    for stint in run.stints:
        for day, hours in days_of(stint.since, stint.until):
            served[day] += hours
            stale[day] += hours if truth.stale(stint.trained, day) else 0.0
            for at, value in enumerate((truth.quality(stint.trained, day), truth.fresh(stint.trained, day))):
                if value is not None:
                    cell = sums[day, stint.trained.model_id]
                    cell[2 * at] += value * hours
                    cell[2 * at + 1] += hours
    by_day: dict[datetime, list[float]] = defaultdict(list)
    fresh: list[float] = []
    for (day, _), (weighted, hours, fresh_weighted, fresh_hours) in sums.items():
        if hours:
            by_day[day].append(weighted / hours)
        if fresh_hours:
            fresh.append(fresh_weighted / fresh_hours)
    known = [value for values in by_day.values() for value in values]
    points = []
    last = 0.0
    for day in sorted(served):
        last = statistics.fmean(by_day[day]) if by_day[day] else last
        points.append(
            Point(
                at=max(day, truth.world.start),
                quality=last,
                stale_share=stale[day] / served[day] if served[day] else 0.0,
                retrains=started[day],
            )
        )
    return (
        tuple(points),
        statistics.fmean(known) if known else 0.0,
        statistics.fmean(fresh) if fresh else 0.0,
    )
