"""The speed view: recent hours of predictions and outcomes in memory, joined as they arrive.

Theory of operation. Rows are filed by time buckets: a prediction under the hour of its `predicted_at`, an outcome under
the hour in its id (`NO_HOUR` if the id carries none), and joined incrementally (`incremental.py`).

| an hour is | when | its predictions are served by |
|---|---|---|
| live | it is not before the model's horizon | this view; of a sample, once memory ran short |
| expired | the horizon has passed it | its last partials from here, until the batch join replaces them |

The horizon only moves forward. An outcome for an expired hour is *late*: it is not kept here and is left to the
batch join. A silent stream moves no horizon and so loses nothing; only `expire`, called with the clock, does.

Memory is bounded by `rows_max`. When it is reached, fewer ids are kept: of the models of the lowest tier first, within
a tier of the largest, the rate is halved. Ids are chosen by their hash, so that both sides keep the same ones. A large
model is kept as independent joins of ids by rate, [1/2, 1), [1/4, 1/2) and so on: halving lets go of one of them and
computes nothing. The batch join has every row that was stored, and replaces the estimate.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from control_plane.core.ground_truth.hours import EARLY_HOURS_MAX, by_hour, distinct_hours, late_outcomes
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, NO_HOUR, IdColumns, Int64s, hash_shares, id_hours
from control_plane.core.ground_truth.incremental import IncrementalJoin, VersionPartials
from control_plane.core.ground_truth.join import (
    Bools,
    Float64s,
    Int32s,
    Outcomes,
    Predictions,
    sorted_outcomes,
    sorted_predictions,
)
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import merge

ROWS_MAX = 16_000_000
"""Rows held by all models together, about 40 bytes each and half as much again while runs are merged: 1 GB."""
SPLIT_ROWS = 262_144
"""Rows from which on a model is kept as several joins by rate; fewer are filed anew in a moment when it halves."""
STRATA = 12
"""Joins of a large model: the last holds the ids of every rate below 1 / 2^11."""
LOWEST_TIER = 4


@dataclass(slots=True)
class _Model:
    """Joins of one model's ids, the widest sample first."""

    horizon: int
    tier: int = LOWEST_TIER
    strata: list[IncrementalJoin] = field(default_factory=lambda: [IncrementalJoin()])
    """One, or `STRATA` of them: number k holds the ids with a share in [2^-(k+1), 2^-k), the last all below."""
    halvings: int = 0
    """Strata before this one are let go of: 2^-halvings of the ids are kept."""
    rates: dict[int, float] = field(default_factory=dict)
    """Hour -> share of ids that its rows are taken from, where it is below 1."""
    rows: int = 0

    @property
    def kept(self) -> list[IncrementalJoin]:
        return self.strata[self.halvings :] if len(self.strata) > 1 else self.strata

    @property
    def rate(self) -> float:
        return 2.0**-self.halvings

    def rate_of(self, hours: Iterable[int]) -> float:
        """The lowest rate of some hours."""
        return min((self.rates.get(hour, 1.0) for hour in hours), default=1.0)


class SpeedView:
    """Recent hours of every model. Not safe for concurrent use; its owner serialises."""

    def __init__(self, rows_max: int = ROWS_MAX) -> None:
        self._models: dict[str, _Model] = {}
        self.rows_max = rows_max
        self.rows_shed = 0
        """Rows let go of for want of memory."""

    @property
    def rows(self) -> int:
        """Rows that are held."""
        return sum(model.rows for model in self._models.values())

    def horizon(self, model_id: str) -> int:
        """Hours before this one have expired; 0 if none has."""
        model = self._models.get(model_id)
        return model.horizon if model else 0

    def set_horizon(self, model_id: str, hour: int) -> None:
        """Start a model at a horizon known from before a restart. Never moves back."""
        model = self._model(model_id)
        model.horizon = max(model.horizon, hour)

    def tier(self, model_id: str) -> int:
        """How important a model is; the lowest tier if nobody said."""
        model = self._models.get(model_id)
        return model.tier if model else LOWEST_TIER

    def set_tier(self, model_id: str, tier: int) -> None:
        """Say how important a model is, 1 to 4: lower tiers give up memory first."""
        self._model(model_id).tier = tier

    def rate(self, model_id: str, hour: int) -> float:
        """The share of ids that an hour's partials are of; 1 is all."""
        model = self._models.get(model_id)
        return model.rates.get(hour, 1.0) if model else 1.0

    def restrict(self, model_id: str, hour: int, rate: float) -> None:
        """Rows of an hour were stored for this share of ids only: leave others out, whichever side they are of."""
        model = self._model(model_id)
        if hour >= model.horizon and rate < model.rates.get(hour, 1.0):
            self._lower(model, hour, rate)

    def add_predictions(
        self, model_id: str, version: int, ids: IdColumns, predicted_us: Int64s, score: Float64s, *, tell_new: bool
    ) -> Bools | None:
        """File predictions under their hours.

        Args:
            tell_new: also find out which rows are new, at the price of a search.
        Returns:
            Mask of rows whose id was not here before, shape (n,), or None if not asked for. Rows of expired hours, and
            those outside of a sample, count as new: nothing is known about them.
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
        in_ids = id_hours(ids)
        for hour, at in by_hour(predicted_us // MICROSECONDS_PER_HOUR):
            if hour < model.horizon:
                continue
            place = np.arange(len(score)) if at is None else at
            hours_in_ids = distinct_hours(in_ids if at is None else in_ids[at])
            self._begin(model, (hour, *hours_in_ids))
            low = model.rate_of((hour, *hours_in_ids))
            if low < model.rates.get(hour, 1.0):
                self._lower(model, hour, low)
            for stratum, within in self._strata(model, IdColumns(ids.key[place], ids.high[place]), hour):
                run = rows.take(place[within])
                if new is not None:
                    new[place[within]] = stratum.new_predictions(hour, run)
                stratum.add_predictions(hour, hours_in_ids, sorted_predictions(run))
                model.rows += len(within)
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
        *,
        leave_before: int = 0,
    ) -> dict[int, int]:
        """File outcomes under the hours in their ids.

        Args:
            leave_before: the hour from which on outcomes are waited for, by the clock. Those of earlier hours are left
                to the batch join unless predictions of their hour are here: a new model gets outcomes of weeks.
        Returns:
            Late rows by the hour they belong to, as far as known: these are not kept.
        """
        model = self._model(model_id)
        hours, late = late_outcomes(ids, observed_us, model.horizon)
        if leave_before > model.horizon:
            left = (hours != NO_HOUR) & (hours < leave_before)
            if left.any():
                expected = {hour for stratum in model.kept for hour in stratum.hours_in_ids()}
                late |= left & ~np.isin(hours, np.fromiter(expected, np.int64, len(expected)))
        rows = Outcomes(key=ids.key, high=ids.high, observed_us=observed_us, value=value, revision=revision, late=late)
        late_by_hour: dict[int, int] = {}
        if late.any():
            belongs = np.where(hours == NO_HOUR, observed_us // MICROSECONDS_PER_HOUR, hours)[late]
            for hour, count in zip(*np.unique(belongs, return_counts=True), strict=True):
                late_by_hour[int(hour)] = int(count)
            hours, rows = hours[~late], rows.take(~late)
        for hour, at in by_hour(hours):
            self._begin(model, (hour,))
            run = rows if at is None else rows.take(at)
            for stratum, within in self._strata(model, run.ids, hour):
                stratum.add_outcomes(label_type, hour, sorted_outcomes(run.take(within)))
                model.rows += len(within)
        self._keep_within_rows_max()
        return late_by_hour

    def fold(self, labels_of: Callable[[str], Iterable[LabelSpec]], rows_max: int) -> bool:
        """Join what has arrived, of about so many rows; True if there is more to do.

        Args:
            labels_of: the labels of a model, for which partials are kept up to date from now on.
        """
        folded = 0
        for model_id, model in self._models.items():
            for stratum in model.kept:
                if not stratum.fresh_rows:
                    continue
                if folded >= rows_max:
                    return True
                folded += stratum.fresh_rows
                stratum.fold()
                for spec in labels_of(model_id):
                    for hour in stratum.hours():
                        stratum.partials(spec, hour, mature=False)
        return False

    def models(self) -> list[str]:
        """Models that anything is known of, in order."""
        return sorted(self._models)

    def hours(self, model_id: str) -> list[int]:
        """Live hours with predictions, ascending."""
        model = self._models.get(model_id)
        return sorted({hour for stratum in model.kept for hour in stratum.hours()}) if model else []

    def partials(self, model_id: str, spec: LabelSpec, hour: int, mature_before_hour: int) -> VersionPartials | None:
        """Partials by version of one live hour, of the share of ids that `rate` says; None if the hour is not live.

        Args:
            mature_before_hour: hours before this one are mature: absence may then mean negative.
        """
        model = self._models.get(model_id)
        if model is None:
            return None
        found = [stratum.partials(spec, hour, mature=hour < mature_before_hour) for stratum in model.kept]
        known = [partials for partials in found if partials is not None]
        if not known:
            return None
        if len(known) == 1:
            return known[0]
        versions = sorted({version for partials in known for version in partials})
        return {version: merge(partials[version] for partials in known if version in partials) for version in versions}

    def forget_cached(self, model_id: str) -> None:
        """Compute a model's partials anew: its label changed."""
        model = self._models.get(model_id)
        for stratum in model.kept if model else ():
            stratum.forget_sums()

    def orphans(self, model_id: str, label_type: str, first_hour: int, end_hour: int) -> dict[int, int]:
        """Outcomes here whose prediction is not: distinct ids by the hour in them, first_hour <= hour < end_hour.

        Scaled to all ids where the hour is a sample.
        """
        model = self._models.get(model_id)
        counts: dict[int, int] = {}
        for stratum in model.kept if model else ():
            for hour, count in stratum.orphans(label_type).items():
                if hour == NO_HOUR and model is not None and model.horizon:
                    continue  # their predictions may have expired: the batch join knows
                if first_hour <= hour < end_hour:
                    counts[hour] = counts.get(hour, 0) + count
        return {hour: round(count / self.rate(model_id, hour)) for hour, count in sorted(counts.items())}

    def count(self, ids: IdColumns) -> dict[str, int]:
        """Model id -> rows here of some ids, of models that have any."""
        return self._erase(ids, drop=False)

    def erase(self, ids: IdColumns) -> dict[str, int]:
        """Let go of all rows of some ids; rows by model. As rare as `restrict`, and as costly."""
        return self._erase(ids, drop=True)

    def _erase(self, ids: IdColumns, *, drop: bool) -> dict[str, int]:
        found: dict[str, int] = {}
        for model_id, model in self._models.items():
            for place, stratum in enumerate(model.strata):
                predictions, outcomes = stratum.everything()
                rows = sum(int(_among(run.ids, ids).sum()) for _, _, run in predictions)
                rows += sum(int(_among(run.ids, ids).sum()) for _, _, run in outcomes)
                if not rows:
                    continue
                found[model_id] = found.get(model_id, 0) + rows
                if not drop:
                    continue
                fresh = IncrementalJoin()
                for hour, hours_in_ids, of_hour in predictions:
                    kept = of_hour.take(~_among(of_hour.ids, ids))
                    if len(kept.key):
                        fresh.add_predictions(hour, hours_in_ids, kept)
                for label_type, hour, run in outcomes:
                    left = run.take(~_among(run.ids, ids))
                    if len(left.key):
                        fresh.add_outcomes(label_type, hour, left)
                model.strata[place] = fresh
            self._count(model)
        return found

    def expire(self, model_id: str, before_hour: int) -> None:
        """Let go of all hours before one. The caller has kept their partials."""
        model = self._model(model_id)
        if before_hour <= model.horizon:
            return
        model.horizon = before_hour
        for stratum in model.kept:
            for hour in stratum.hours():
                if hour < before_hour:
                    stratum.drop_predictions(hour)
            for label_type, hour, observed_us in stratum.outcome_files():
                seen_until = observed_us // MICROSECONDS_PER_HOUR + EARLY_HOURS_MAX
                if NO_HOUR < hour < before_hour or seen_until < before_hour:
                    stratum.drop_outcomes(label_type, hour)
                elif hour == NO_HOUR:
                    # This file never empties by itself: let go of its old rows.
                    oldest = (before_hour - EARLY_HOURS_MAX) * MICROSECONDS_PER_HOUR
                    stratum.drop_outcomes(label_type, hour, observed_before_us=oldest)
        model.rates = {hour: rate for hour, rate in model.rates.items() if hour >= before_hour or hour == NO_HOUR}
        self._count(model)
        self._recover()

    def _begin(self, model: _Model, hours: Iterable[int]) -> None:
        """An hour that begins while memory is short begins as a sample."""
        if model.halvings:
            for hour in hours:
                model.rates.setdefault(hour, model.rate)

    def _strata(self, model: _Model, ids: IdColumns, hour: int) -> Iterable[tuple[IncrementalJoin, Int64s]]:
        """Rows of some ids by the join that holds them, those outside of the hour's sample left out."""
        rate = model.rates.get(hour, 1.0)
        if len(model.strata) == 1 and rate >= 1:
            yield model.strata[0], np.arange(len(ids.key))
            return
        share = hash_shares(ids)
        inside = share < rate
        if len(model.strata) == 1:
            at = np.flatnonzero(inside)
            if len(at):
                yield model.strata[0], at
            return
        number = stratum_of(share)
        for k in range(model.halvings, STRATA):
            at = np.flatnonzero((number == k) & inside)
            if len(at):
                yield model.strata[k], at

    def _keep_within_rows_max(self) -> None:
        """Halve rates until the rest fits; what is repeated is found first, for it costs nobody anything."""
        for model in self._models.values():
            if len(model.strata) == 1 and model.rows >= SPLIT_ROWS:
                self._split_model(model)
        if self.rows <= self.rows_max:
            return
        for model in self._models.values():
            for stratum in model.kept:
                stratum.fold()
            self._count(model)
        while self.rows > self.rows_max:
            able = [model for model in self._models.values() if model.rows > 1 and model.halvings < STRATA - 1]
            if not able:
                return
            model = max(able, key=lambda one: (one.tier, one.rows))
            if len(able) > 1:
                # Within a tier the largest; but a tier that holds nearly nothing has nothing to give.
                weighty = [one for one in able if one.rows * len(able) * 8 >= self.rows]
                model = max(weighty or able, key=lambda one: (one.tier, one.rows))
            self._halve(model)

    def _halve(self, model: _Model) -> None:
        if len(model.strata) == 1:
            self._split_model(model)
        model.strata[model.halvings] = IncrementalJoin()
        model.halvings += 1
        hours = set(model.rates)
        for stratum in model.kept:
            hours.update(stratum.hours())
            hours.update(hour for _, hour, _ in stratum.outcome_files())
        for hour in hours:
            model.rates[hour] = min(model.rates.get(hour, 1.0), model.rate)
        before = model.rows
        self._count(model)
        self.rows_shed += before - model.rows

    def _split_model(self, model: _Model) -> None:
        """From one join to several by rate."""
        predictions, outcomes = model.strata[0].everything()
        model.strata = [IncrementalJoin() for _ in range(STRATA)]
        for hour, hours_in_ids, rows in predictions:
            number = stratum_of(hash_shares(rows.ids))
            for k in np.unique(number):
                model.strata[k].add_predictions(hour, hours_in_ids, rows.take(number == k))
        for label_type, hour, run in outcomes:
            number = stratum_of(hash_shares(run.ids))
            for k in np.unique(number):
                model.strata[k].add_outcomes(label_type, hour, run.take(number == k))

    def _lower(self, model: _Model, hour: int, rate: float) -> None:
        """Leave out the ids of an hour whose share is not below a rate. Rare: the hour is filed anew."""
        model.rates[hour] = rate
        for place, stratum in enumerate(model.strata):
            if hour not in stratum.hours() and all(of != hour for _, of, _ in stratum.outcome_files()):
                continue
            predictions, outcomes = stratum.everything()
            fresh = IncrementalJoin()
            for of, hours_in_ids, rows in predictions:
                kept = rows.take(hash_shares(rows.ids) < rate) if of == hour else rows
                if len(kept.key):
                    fresh.add_predictions(of, hours_in_ids, kept)
            for label_type, of, run in outcomes:
                left = run.take(hash_shares(run.ids) < rate) if of == hour else run
                if len(left.key):
                    fresh.add_outcomes(label_type, of, left)
            model.strata[place] = fresh
        self._count(model)

    def _recover(self) -> None:
        """Hours that begin from now on may keep more, once there is room for four times as much."""
        for model in self._models.values():
            if model.halvings and self.rows * 4 < self.rows_max:
                model.halvings -= 1

    def _count(self, model: _Model) -> None:
        model.rows = sum(stratum.rows for stratum in model.kept)

    def _model(self, model_id: str) -> _Model:
        return self._models.setdefault(model_id, _Model(horizon=0))


def stratum_of(share: Float64s) -> Int64s:
    """Number k for a share in [2^-(k+1), 2^-k), at most `STRATA` - 1. Shape (n,).

    >>> stratum_of(np.array([0.9, 0.5, 0.49, 0.25, 0.0])).tolist()
    [0, 0, 1, 1, 11]
    """
    _, exponent = np.frexp(share)
    return np.where(share > 0, np.minimum(-exponent, STRATA - 1), STRATA - 1).astype(np.int64)


def _among(ids: IdColumns, wanted: IdColumns) -> Bools:
    """Which ids are among some. Shape of `ids`."""
    found: Bools = np.isin(ids.key, wanted.key)
    pairs = set(zip(wanted.key.tolist(), wanted.high.tolist(), strict=True))
    for at in np.flatnonzero(found):
        found[at] = (int(ids.key[at]), int(ids.high[at])) in pairs
    return found
