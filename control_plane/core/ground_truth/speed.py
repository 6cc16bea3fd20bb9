"""The speed view: recent hours of predictions and outcomes in memory, joined when read.

Theory of operation. Rows are filed by time buckets: a prediction under the hour of its `predicted_at`, an outcome
under the hour in its id (`NO_HOUR` if the id carries none). A bucket of predictions remembers which hours its ids
carry, almost always its own, and so knows which outcome buckets can hold its truth.

| a bucket is | when | its predictions are served by |
|---|---|---|
| live | its hour is not before the model's horizon | this view, exactly |
| shed | memory ran short while it was the largest | the batch join, once that ran |
| expired | the horizon has passed it | its last partials from here, until the batch join replaces them |

The horizon only moves forward. An outcome for an expired hour is *late*: it is not kept here and is left to the
batch join. A silent stream moves no horizon and so loses nothing; only `expire`, called with the clock, does.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, NO_HOUR, IdColumns, Int64s, id_hours
from control_plane.core.ground_truth.join import (
    Bools,
    Float64s,
    Int32s,
    Joined,
    Outcomes,
    Predictions,
    distinct_outcomes,
    distinct_predictions,
    join,
    positions,
    sorted_outcomes,
    sorted_predictions,
)
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, Rows, partials_of

ROWS_MAX = 4_000_000
"""Rows held by all buckets together: about 150 MB. Beyond it the largest bucket is shed to the batch join."""
EARLY_HOURS_MAX = 24
"""How far an outcome may be observed before its prediction and still be waited for; clocks differ, not by days."""

VersionPartials = dict[int, Partial]


@dataclass(slots=True)
class _PredictionBucket:
    """Predictions of one hour: runs in order of arrival, and the hours their ids carry."""

    runs: list[Predictions] = field(default_factory=list)
    hours_in_ids: set[int] = field(default_factory=set)
    distinct: bool = True
    """There is one run at most, and no id is in it twice."""
    rows: int = 0
    """Rows filed, repeated ones included."""

    def merged(self) -> Predictions:
        """One run, each id once."""
        if not self.distinct:
            self.runs = [distinct_predictions(self.runs)]
            self.distinct = True
        return self.runs[0]


@dataclass(slots=True)
class _OutcomeBucket:
    """Outcomes of one label type whose ids carry one hour."""

    runs: list[Outcomes] = field(default_factory=list)
    observed_us_max: int = 0
    distinct: bool = True
    rows: int = 0

    def merged(self) -> Outcomes:
        """One run, each (id, revision) once."""
        if not self.distinct:
            self.runs = [distinct_outcomes(self.runs)]
            self.distinct = True
        return self.runs[0]


@dataclass(slots=True)
class _Model:
    """Buckets of one model."""

    horizon: int
    predictions: dict[int, _PredictionBucket] = field(default_factory=dict)
    outcomes: dict[tuple[str, int], _OutcomeBucket] = field(default_factory=dict)
    shed: set[int] = field(default_factory=set)
    read_by: dict[int, set[int]] = field(default_factory=dict)
    """Hour in ids -> prediction hours whose buckets carry it."""
    cache: dict[tuple[str, int], tuple[bool, VersionPartials]] = field(default_factory=dict)
    """(label type, hour) -> (computed as mature, partials by version)."""

    def forget(self, hour: int) -> None:
        """Drop what was computed for an hour."""
        for key in [key for key in self.cache if key[1] == hour]:
            del self.cache[key]


class SpeedView:
    """Recent hours of every model. Not safe for concurrent use; its owner serialises."""

    def __init__(self, rows_max: int = ROWS_MAX) -> None:
        self._models: dict[str, _Model] = {}
        self.rows_max = rows_max
        self.rows = 0
        """Rows filed in live buckets, repeated ones included."""
        self.rows_shed = 0

    def horizon(self, model_id: str) -> int:
        """Hours before this one have expired; 0 if none has."""
        model = self._models.get(model_id)
        return model.horizon if model else 0

    def set_horizon(self, model_id: str, hour: int) -> None:
        """Start a model at a horizon known from before a restart. Never moves back."""
        model = self._model(model_id)
        model.horizon = max(model.horizon, hour)

    def add_predictions(
        self, model_id: str, version: int, ids: IdColumns, predicted_us: Int64s, score: Float64s, *, tell_new: bool
    ) -> Bools | None:
        """File predictions under their hours.

        Args:
            tell_new: also find out which rows are new, at the price of a search.
        Returns:
            Mask of rows whose id was not here before, shape (n,), or None if not asked for. Rows of expired and
            shed hours count as new: nothing is known about them.
        """
        model = self._model(model_id)
        rows = Predictions(
            key=ids.key,
            high=ids.high,
            predicted_us=predicted_us,
            score=score,
            version=np.full(len(score), version, np.int32),
        )
        new = np.ones(len(score), np.bool_) if tell_new else None
        hours = predicted_us // MICROSECONDS_PER_HOUR
        in_ids = id_hours(ids)
        for hour, at in _split(hours):
            if hour < model.horizon or hour in model.shed:
                continue
            bucket = model.predictions.setdefault(hour, _PredictionBucket())
            run = rows if at is None else rows.take(at)
            if new is not None:
                new[slice(None) if at is None else at] = _unseen(bucket, run)
            for hour_in_ids in _distinct_hours(in_ids if at is None else in_ids[at]):
                bucket.hours_in_ids.add(hour_in_ids)
                model.read_by.setdefault(hour_in_ids, set()).add(hour)
            bucket.runs.append(sorted_predictions(run))
            bucket.distinct = False
            bucket.rows += len(run.key)
            self.rows += len(run.key)
            model.forget(hour)
        self._keep_within_rows_max()
        return new

    def add_outcomes(
        self,
        model_id: str,
        label_type: str,
        ids: IdColumns,
        observed_us: Int64s,
        value: Float64s,
        revision: Int32s,
    ) -> dict[int, int]:
        """File outcomes under the hours in their ids.

        Returns:
            Late rows by the hour they belong to, as far as known: these are not kept.
        """
        model = self._model(model_id)
        hours, late = late_outcomes(ids, observed_us, model.horizon)
        rows = Outcomes(key=ids.key, high=ids.high, observed_us=observed_us, value=value, revision=revision, late=late)
        late_by_hour: dict[int, int] = {}
        if late.any():
            belongs = np.where(hours == NO_HOUR, observed_us // MICROSECONDS_PER_HOUR, hours)[late]
            for hour, count in zip(*np.unique(belongs, return_counts=True), strict=True):
                late_by_hour[int(hour)] = int(count)
            hours, rows = hours[~late], rows.take(~late)
        for hour, at in _split(hours):
            if hour in model.shed and hour not in model.read_by:
                continue
            bucket = model.outcomes.setdefault((label_type, hour), _OutcomeBucket())
            run = rows if at is None else rows.take(at)
            bucket.runs.append(sorted_outcomes(run))
            bucket.distinct = False
            bucket.rows += len(run.key)
            bucket.observed_us_max = max(bucket.observed_us_max, int(run.observed_us.max()))
            self.rows += len(run.key)
            for prediction_hour in model.read_by.get(hour, ()):
                model.forget(prediction_hour)
        self._keep_within_rows_max()
        return late_by_hour

    def models(self) -> list[str]:
        """Models that anything is known of, in order."""
        return sorted(self._models)

    def hours(self, model_id: str) -> list[int]:
        """Live hours with predictions, ascending; shed hours are not live."""
        model = self._models.get(model_id)
        return sorted(model.predictions) if model else []

    def shed_hours(self, model_id: str) -> list[int]:
        """Hours given up for want of memory, ascending."""
        model = self._models.get(model_id)
        return sorted(model.shed) if model else []

    def partials(self, model_id: str, spec: LabelSpec, hour: int, mature_before_hour: int) -> VersionPartials | None:
        """Partials by version of one live hour; None if the hour is not live.

        Args:
            mature_before_hour: hours before this one are mature: absence may then mean negative.
        """
        model = self._models.get(model_id)
        if model is None or hour not in model.predictions:
            return None
        mature = hour < mature_before_hour
        known = model.cache.get((spec.label_type, hour))
        if known is not None and (known[0] == mature or not spec.absence_means_negative):
            return known[1]
        partials = _join_hour(model, spec, hour, mature)
        model.cache[(spec.label_type, hour)] = (mature, partials)
        return partials

    def shed(self, model_id: str, hour: int) -> None:
        """Give an hour up at once: it is known to be too large."""
        model = self._model(model_id)
        if hour >= model.horizon:
            self._shed(model, hour)

    def forget_cached(self, model_id: str) -> None:
        """Compute a model's partials anew: its label changed."""
        if model_id in self._models:
            self._models[model_id].cache.clear()

    def orphans(self, model_id: str, label_type: str, first_hour: int, end_hour: int) -> dict[int, int]:
        """Outcomes here whose prediction is not: distinct ids by the hour in them, first_hour <= hour < end_hour."""
        model = self._models.get(model_id)
        counts: dict[int, int] = {}
        for (label, hour), bucket in sorted(model.outcomes.items()) if model else ():
            if model is None or label != label_type or not first_hour <= hour < end_hour:
                continue
            readers = model.read_by.get(hour, set())
            if any(reader in model.shed for reader in readers):
                continue
            outcomes = bucket.merged()
            orphan = np.ones(len(outcomes.key), np.bool_)
            for reader in sorted(readers):
                orphan &= positions(model.predictions[reader].merged().ids, outcomes.ids) < 0
            # Sorted by id: an id begins wherever its columns differ from those of the row before.
            orphan[1:] &= (outcomes.key[1:] != outcomes.key[:-1]) | (outcomes.high[1:] != outcomes.high[:-1])
            distinct = int(orphan.sum())
            if distinct:
                counts[hour] = distinct
        return counts

    def expire(self, model_id: str, before_hour: int) -> None:
        """Let go of all hours before one. The caller has kept their partials."""
        model = self._model(model_id)
        if before_hour <= model.horizon:
            return
        model.horizon = before_hour
        for hour in [hour for hour in model.predictions if hour < before_hour]:
            self._drop_predictions(model, hour)
        model.shed = {hour for hour in model.shed if hour >= before_hour}
        for key, bucket in list(model.outcomes.items()):
            seen_until = bucket.observed_us_max // MICROSECONDS_PER_HOUR + EARLY_HOURS_MAX
            if NO_HOUR < key[1] < before_hour or seen_until < before_hour:
                self.rows -= bucket.rows
                del model.outcomes[key]
            elif key[1] == NO_HOUR:
                self._drop_seen_before(bucket, before_hour)

    def _drop_seen_before(self, bucket: _OutcomeBucket, hour: int) -> None:
        """The bucket of ids without time never empties by itself: let go of its old rows."""
        outcomes = bucket.merged()
        keep = outcomes.observed_us // MICROSECONDS_PER_HOUR + EARLY_HOURS_MAX >= hour
        bucket.runs = [outcomes.take(keep)]
        kept = int(keep.sum())
        self.rows -= bucket.rows - kept
        bucket.rows = kept

    def _drop_predictions(self, model: _Model, hour: int) -> None:
        bucket = model.predictions.pop(hour)
        self.rows -= bucket.rows
        for hour_in_ids in bucket.hours_in_ids:
            readers = model.read_by[hour_in_ids]
            readers.discard(hour)
            if not readers:
                del model.read_by[hour_in_ids]
        model.forget(hour)

    def _keep_within_rows_max(self) -> None:
        """Shed the largest buckets until the rest fits: that frees most and harms fewest hours."""
        while self.rows > self.rows_max:
            model, hour, _ = max(
                ((model, hour, bucket.rows) for model in self._models.values() for hour, bucket in _sizes(model)),
                key=lambda found: found[2],
            )
            before = self.rows
            self._shed(model, hour)
            self.rows_shed += before - self.rows

    def _shed(self, model: _Model, hour: int) -> None:
        for key in [key for key in model.outcomes if key[1] == hour]:
            self.rows -= model.outcomes.pop(key).rows
        for reader in {hour, *model.read_by.get(hour, ())}:
            if reader in model.predictions:
                self._drop_predictions(model, reader)
            model.shed.add(reader)

    def _model(self, model_id: str) -> _Model:
        return self._models.setdefault(model_id, _Model(horizon=0))


def late_outcomes(ids: IdColumns, observed_us: Int64s, horizon: int) -> tuple[Int64s, Bools]:
    """Hours in the ids, and which rows are late at a horizon. Shapes (n,).

    An id without time, or with another clock's, is late once it was observed so long ago that its prediction has
    expired too.
    """
    hours = id_hours(ids)
    seen_until = observed_us // MICROSECONDS_PER_HOUR + EARLY_HOURS_MAX
    return hours, ((hours != NO_HOUR) & (hours < horizon)) | (seen_until < horizon)


def _split(hours: Int64s) -> Iterable[tuple[int, Int64s | None]]:
    """Distinct hours with the positions of their rows, in order of arrival; None for all rows."""
    if len(hours) == 0:
        return
    first = int(hours[0])
    if (hours == first).all():
        yield first, None
        return
    order = np.argsort(hours, kind="stable")
    for hour in _distinct_hours(hours):
        start, end = np.searchsorted(hours, [hour, hour + 1], sorter=order)
        yield hour, order[start:end]


def _distinct_hours(hours: Int64s) -> list[int]:
    low, high = int(hours.min()), int(hours.max())
    return [low] if low == high else [int(hour) for hour in np.unique(hours)]


def _sizes(model: _Model) -> Iterable[tuple[int, _PredictionBucket | _OutcomeBucket]]:
    yield from model.predictions.items()
    for (_, hour), bucket in model.outcomes.items():
        yield hour, bucket


def _unseen(bucket: _PredictionBucket, run: Predictions) -> Bools:
    """Rows whose id is neither in the bucket nor earlier in the run."""
    unseen = np.zeros(len(run.key), np.bool_)
    unseen[_first_of_each(run)] = True
    if bucket.runs:
        unseen &= positions(bucket.merged().ids, run.ids) < 0
    return unseen


def _first_of_each(run: Predictions) -> Int64s:
    order = np.lexsort((np.arange(len(run.key)), run.high, run.key))
    key, high = run.key[order], run.high[order]
    repeated = np.zeros(len(order), np.bool_)
    repeated[1:] = (key[1:] == key[:-1]) & (high[1:] == high[:-1])
    return order[~repeated]


def _join_hour(model: _Model, spec: LabelSpec, hour: int, mature: bool) -> VersionPartials:
    """Join one hour and sum it up by version."""
    bucket = model.predictions[hour]
    predictions = bucket.merged()
    found = [model.outcomes.get((spec.label_type, in_ids)) for in_ids in sorted(bucket.hours_in_ids)]
    runs = [outcome_bucket.merged() for outcome_bucket in found if outcome_bucket is not None]
    if not runs:
        runs = [_no_outcomes()]
    outcomes = runs[0] if len(runs) == 1 else distinct_outcomes(runs)
    joined = join(predictions, outcomes, spec.window_us)
    versions, group = np.unique(predictions.version, return_inverse=True)
    rows = joined_rows(predictions, outcomes, joined, group.astype(np.int64), mature=mature)
    found_partials = partials_of(spec, rows, len(versions))
    return {int(version): partial for version, partial in zip(versions, found_partials, strict=True)}


def joined_rows(predictions: Predictions, outcomes: Outcomes, joined: Joined, group: Int64s, *, mature: bool) -> Rows:
    """The rows that `partials_of` sums up."""
    has = joined.winner >= 0
    winner = joined.winner[has]
    n = len(predictions.key)
    value, delay_us, late = np.full(n, np.nan), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    value[has] = outcomes.value[winner]
    delay_us[has] = outcomes.observed_us[winner] - predictions.predicted_us[has]
    late[has] = outcomes.late[winner]
    return Rows(
        group=group,
        score=predictions.score,
        value=value,
        delay_us=delay_us,
        late=late,
        outside=joined.outside,
        mature=np.full(n, mature),
    )


def _no_outcomes() -> Outcomes:
    return Outcomes(
        key=np.zeros(0, np.uint64),
        high=np.zeros(0, np.uint64),
        observed_us=np.zeros(0, np.int64),
        value=np.zeros(0),
        revision=np.zeros(0, np.int32),
        late=np.zeros(0, np.bool_),
    )
