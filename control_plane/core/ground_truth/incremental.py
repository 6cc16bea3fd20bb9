"""An incremental two-sided join: what arrives costs what it touches, however much is here already.

Theory of operation. Rows are filed by time: a prediction under the hour of its `predicted_at`, an outcome under the
hour in its id. Each file is a few sorted runs without repeated rows, merged geometrically, and rows that were not
looked at yet. A *fold* looks at those, in two steps that never mix:

A. New predictions are joined with the outcomes that wait for them; what that gives is added to the running partials.
B. New outcomes find their predictions. Of just these predictions the partials are computed without and with the new
   outcomes, by the same functions as anywhere else, and the difference is added. So a correction takes back what it
   corrects, and an outcome sent again changes nothing.

The twin is the join of all rows at once: any order of arrivals, folds and reads gives its counts exactly, and its
sums up to the order of summation.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from control_plane.core.ground_truth.ids import IdColumns, Int64s
from control_plane.core.ground_truth.join import (
    Bools,
    Joined,
    Outcomes,
    Predictions,
    distinct_ids,
    distinct_outcomes,
    distinct_predictions,
    join,
    matching,
    positions,
)
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, Rows, difference, merge, partials_of

VersionPartials = dict[int, Partial]

RUN_RATIO = 4
"""A run is merged into the one before it unless that is so many times as large: a row is copied log4(rows) times."""


@dataclass(slots=True)
class _PredictionFile:
    """Predictions of one hour."""

    runs: list[Predictions] = field(default_factory=list)
    """Looked at: distinct over all of them."""
    fresh: list[Predictions] = field(default_factory=list)
    """Not looked at, in order of arrival."""
    hours_in_ids: set[int] = field(default_factory=set)

    @property
    def rows(self) -> int:
        return sum(len(run.key) for run in (*self.runs, *self.fresh))

    def unseen(self, rows: Predictions) -> Predictions:
        """Rows whose id is in no run; `rows` are distinct."""
        seen = np.zeros(len(rows.key), np.bool_)
        for run in self.runs:
            seen |= positions(run.ids, rows.ids) >= 0
        return rows.take(~seen) if seen.any() else rows

    def find(self, ids: IdColumns) -> Predictions | None:
        """Those of distinct ids that are here; None if there are none."""
        found = [run.take(at[at >= 0]) for run in self.runs if len(at := positions(run.ids, ids))]
        found = [rows for rows in found if len(rows.key)]
        return None if not found else found[0] if len(found) == 1 else distinct_predictions(found)

    def has(self, ids: IdColumns) -> Bools:
        """Which ids are here; shape of `ids`."""
        here = np.zeros(len(ids.key), np.bool_)
        for run in self.runs:
            here |= positions(run.ids, ids) >= 0
        return here

    def keep(self, new: Predictions) -> None:
        """Take rows in that are in no run."""
        self.runs.append(new)
        while len(self.runs) > 1 and len(self.runs[-2].key) < RUN_RATIO * len(self.runs[-1].key):
            self.runs[-2:] = [distinct_predictions(self.runs[-2:])]

    def everything(self) -> Predictions | None:
        """All rows that were looked at, as one run."""
        if len(self.runs) > 1:
            self.runs = [distinct_predictions(self.runs)]
        return self.runs[0] if self.runs else None


@dataclass(slots=True)
class _OutcomeFile:
    """Outcomes of one label type whose ids carry one hour."""

    runs: list[Outcomes] = field(default_factory=list)
    fresh: list[Outcomes] = field(default_factory=list)
    observed_us_max: int = 0
    ids: int = 0
    """Distinct ids that were looked at ..."""
    matched: int = 0
    """... and of these, those with a prediction."""

    @property
    def rows(self) -> int:
        return sum(len(run.key) for run in (*self.runs, *self.fresh))

    def find(self, ids: IdColumns) -> list[Outcomes]:
        """All rows of distinct ids, by run."""
        found = [run.take(at) for run in self.runs if len(at := matching(run.ids, ids))]
        return [rows for rows in found if len(rows.key)]

    def unseen(self, rows: Outcomes) -> Outcomes:
        """Rows whose (id, revision) is in no run; `rows` are distinct."""
        here = self.find(distinct_ids(rows.ids))
        if not here:
            return rows
        known = here[0] if len(here) == 1 else distinct_outcomes(here)
        at = matching(rows.ids, distinct_ids(known.ids))
        again = at[_revision_is_in(rows.take(at), known)]
        keep = np.ones(len(rows.key), np.bool_)
        keep[again] = False
        return rows.take(keep)

    def keep(self, new: Outcomes) -> None:
        """Take rows in that are in no run."""
        self.runs.append(new)
        while len(self.runs) > 1 and len(self.runs[-2].key) < RUN_RATIO * len(self.runs[-1].key):
            self.runs[-2:] = [distinct_outcomes(self.runs[-2:])]


@dataclass(slots=True)
class _Sum:
    """A running partial by version, of one label and one hour."""

    spec: LabelSpec
    by_version: VersionPartials = field(default_factory=dict)

    def add(self, partials: VersionPartials) -> None:
        for version, partial in partials.items():
            before = self.by_version.get(version)
            self.by_version[version] = partial if before is None else merge([before, partial])


class IncrementalJoin:
    """The join of some ids. Not safe for concurrent use; its owner serialises."""

    def __init__(self) -> None:
        self._predictions: dict[int, _PredictionFile] = {}
        self._outcomes: dict[tuple[str, int], _OutcomeFile] = {}
        self._read_by: dict[int, set[int]] = {}
        """Hour in ids -> prediction hours whose ids carry it."""
        self._sums: dict[tuple[str, int, bool], _Sum] = {}
        """(label type, hour, as mature) -> running partials; only of what was asked for."""
        self.fresh_rows = 0
        """Rows that no fold has looked at."""

    @property
    def rows(self) -> int:
        """Rows that are here, those included that a fold will find to be repeated."""
        predictions = sum(file.rows for file in self._predictions.values())
        return predictions + sum(file.rows for file in self._outcomes.values())

    def add_predictions(self, hour: int, hours_in_ids: Iterable[int], rows: Predictions) -> None:
        """File predictions of one hour."""
        file = self._predictions.setdefault(hour, _PredictionFile())
        for in_ids in hours_in_ids:
            file.hours_in_ids.add(in_ids)
            self._read_by.setdefault(in_ids, set()).add(hour)
        file.fresh.append(rows)
        self.fresh_rows += len(rows.key)

    def new_predictions(self, hour: int, rows: Predictions) -> Bools:
        """Which rows have an id that is neither filed under the hour nor earlier in `rows`. Folds; shape (n,)."""
        self.fold()
        new = np.zeros(len(rows.key), np.bool_)
        new[first_of_each(rows.ids)] = True
        file = self._predictions.get(hour)
        return new if file is None else new & ~file.has(rows.ids)

    def add_outcomes(self, label_type: str, hour: int, rows: Outcomes) -> None:
        """File outcomes of one label type whose ids carry one hour."""
        file = self._outcomes.setdefault((label_type, hour), _OutcomeFile())
        file.fresh.append(rows)
        file.observed_us_max = max(file.observed_us_max, int(rows.observed_us.max(initial=0)))
        self.fresh_rows += len(rows.key)

    def fold(self) -> None:
        """Look at everything that was not looked at yet."""
        if not self.fresh_rows:
            return
        for hour, predictions in self._predictions.items():
            if predictions.fresh:
                new = predictions.unseen(distinct_predictions(predictions.fresh))
                predictions.fresh = []
                if len(new.key):
                    self._fold_predictions(hour, predictions, new)
        for (label_type, in_ids), outcomes in self._outcomes.items():
            if outcomes.fresh:
                rows = outcomes.unseen(distinct_outcomes(outcomes.fresh))
                outcomes.fresh = []
                if len(rows.key):
                    self._fold_outcomes(label_type, in_ids, outcomes, rows)
        self.fresh_rows = 0

    def _fold_predictions(self, hour: int, file: _PredictionFile, new: Predictions) -> None:
        """Step A. Every outcome that was looked at has waited for these; none is joined twice."""
        waiting: dict[str, list[Outcomes]] = {}
        for (label_type, in_ids), outcomes in self._outcomes.items():
            if in_ids in file.hours_in_ids and outcomes.runs:
                found = outcomes.find(new.ids)
                if found:
                    waiting.setdefault(label_type, []).extend(found)
                    outcomes.matched += self._first_matched(found, in_ids, hour)
        for (label_type, of, mature), total in self._sums.items():
            if of == hour:
                total.add(_partials(total.spec, new, waiting.get(label_type, []), mature=mature))
        file.keep(new)

    def _first_matched(self, found: list[Outcomes], in_ids: int, hour: int) -> int:
        """Ids of outcomes that had no prediction until now: an id may have been predicted in another hour too."""
        ids = distinct_ids((found[0] if len(found) == 1 else distinct_outcomes(found)).ids)
        before = np.zeros(len(ids.key), np.bool_)
        for reader in self._read_by.get(in_ids, set()) - {hour}:
            before |= self._predictions[reader].has(ids)
        return int(np.count_nonzero(~before))

    def _fold_outcomes(self, label_type: str, in_ids: int, file: _OutcomeFile, new: Outcomes) -> None:
        """Step B."""
        ids = distinct_ids(new.ids)
        known = file.find(ids)
        matched = np.zeros(len(ids.key), np.bool_)
        for hour in sorted(self._read_by.get(in_ids, ())):
            here = self._predictions[hour].has(ids)
            if here.any():
                matched |= here
                affected = self._predictions[hour].find(IdColumns(ids.key[here], ids.high[here]))
                if affected is not None:
                    self._add_difference(label_type, hour, in_ids, affected, new)
        if known:
            earlier = distinct_ids((known[0] if len(known) == 1 else distinct_outcomes(known)).ids)
            first = positions(earlier, ids) < 0
            file.ids += int(np.count_nonzero(first))
            file.matched += int(np.count_nonzero(first & matched))
        else:
            file.ids += len(ids.key)
            file.matched += int(np.count_nonzero(matched))
        file.keep(new)

    def _add_difference(self, label_type: str, hour: int, in_ids: int, affected: Predictions, new: Outcomes) -> None:
        """What new outcomes change in the partials of the predictions they are for."""
        sums = [
            (total, mature) for (label, of, mature), total in self._sums.items() if label == label_type and of == hour
        ]
        if not sums:
            return
        known = [
            rows
            for other in sorted(self._predictions[hour].hours_in_ids)
            if (file := self._outcomes.get((label_type, other))) is not None
            for rows in file.find(affected.ids)
        ]
        for total, mature in sums:
            before = _partials(total.spec, affected, known, mature=mature)
            after = _partials(total.spec, affected, [*known, new], mature=mature)
            total.add({version: difference(partial, before[version]) for version, partial in after.items()})

    def partials(self, spec: LabelSpec, hour: int, *, mature: bool) -> VersionPartials | None:
        """Partials by version of one hour; None if it has no predictions. Folds."""
        if hour not in self._predictions:
            return None
        self.fold()
        key = (spec.label_type, hour, mature and spec.absence_means_negative)
        total = self._sums.get(key)
        if total is None or total.spec != spec:
            total = self._sums[key] = _Sum(spec)
            everything = self._predictions[hour].everything()
            if everything is not None:
                total.add(_partials(spec, everything, self._waiting(spec.label_type, hour), mature=key[2]))
        return total.by_version

    def _waiting(self, label_type: str, hour: int) -> list[Outcomes]:
        """All outcomes that may be of an hour's predictions."""
        files = (self._outcomes.get((label_type, in_ids)) for in_ids in sorted(self._predictions[hour].hours_in_ids))
        return [run for file in files if file is not None for run in file.runs]

    def orphans(self, label_type: str) -> dict[int, int]:
        """Distinct ids of outcomes without a prediction, by the hour in them. Folds."""
        self.fold()
        return {
            hour: file.ids - file.matched
            for (label, hour), file in sorted(self._outcomes.items())
            if label == label_type and file.ids > file.matched
        }

    def hours(self) -> list[int]:
        """Hours with predictions, ascending."""
        return sorted(self._predictions)

    def hours_in_ids(self) -> set[int]:
        """Hours that the ids of predictions carry."""
        return set(self._read_by)

    def outcome_files(self) -> list[tuple[str, int, int]]:
        """(label type, hour in ids, latest observation in microseconds)."""
        return [(label, hour, file.observed_us_max) for (label, hour), file in self._outcomes.items()]

    def drop_predictions(self, hour: int) -> None:
        """Let go of an hour of predictions. Outcomes that were joined with them stay joined."""
        self.fold()
        file = self._predictions.pop(hour, None)
        if file is None:
            return
        for in_ids in file.hours_in_ids:
            readers = self._read_by[in_ids]
            readers.discard(hour)
            if not readers:
                del self._read_by[in_ids]
        for key in [key for key in self._sums if key[1] == hour]:
            del self._sums[key]

    def drop_outcomes(self, label_type: str, hour: int, observed_before_us: int | None = None) -> None:
        """Let go of outcomes whose ids carry an hour; with a limit, only of those observed before it."""
        self.fold()
        file = self._outcomes.get((label_type, hour))
        if file is None:
            return
        left = [] if observed_before_us is None else file.runs
        kept = [run for rows in left if len((run := rows.take(rows.observed_us >= (observed_before_us or 0))).key)]
        if not kept:
            del self._outcomes[(label_type, hour)]
            return
        run = kept[0] if len(kept) == 1 else distinct_outcomes(kept)
        file.runs = [run]
        ids = distinct_ids(run.ids)
        matched = np.zeros(len(ids.key), np.bool_)
        for reader in self._read_by.get(hour, ()):
            matched |= self._predictions[reader].has(ids)
        file.ids, file.matched = len(ids.key), int(np.count_nonzero(matched))

    def forget_sums(self, label_type: str | None = None) -> None:
        """Compute partials anew when they are asked for: the label changed."""
        for key in [key for key in self._sums if label_type in (None, key[0])]:
            del self._sums[key]

    def everything(self) -> tuple[list[tuple[int, frozenset[int], Predictions]], list[tuple[str, int, Outcomes]]]:
        """All rows, to be filed elsewhere: predictions with their hour and the hours in their ids, and outcomes."""
        self.fold()
        predictions = [
            (hour, frozenset(file.hours_in_ids), rows)
            for hour, file in self._predictions.items()
            if (rows := file.everything()) is not None
        ]
        outcomes = [(label, hour, run) for (label, hour), file in self._outcomes.items() for run in file.runs]
        return predictions, outcomes


def _partials(spec: LabelSpec, predictions: Predictions, found: list[Outcomes], *, mature: bool) -> VersionPartials:
    """Join distinct predictions with outcomes, each (id, revision) once over all of `found` but for ids that were sent
    with two hours in them, and sum up by version."""
    outcomes = distinct_outcomes(found) if found else _NO_OUTCOMES
    joined = join(predictions, outcomes, spec.window_us)
    versions, group = np.unique(predictions.version, return_inverse=True)
    rows = joined_rows(predictions, outcomes, joined, group.astype(np.int64), mature=mature)
    summed = partials_of(spec, rows, len(versions))
    return {int(version): partial for version, partial in zip(versions, summed, strict=True)}


def joined_rows(predictions: Predictions, outcomes: Outcomes, joined: Joined, group: Int64s, *, mature: bool) -> Rows:
    """The rows that `partials_of` sums up."""
    has = joined.winner >= 0
    winner = joined.winner[has]
    n = len(predictions.key)
    value, delay_us = np.full(n, np.nan), np.zeros(n, np.int64)
    late, imputed = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    value[has] = outcomes.value[winner]
    delay_us[has] = outcomes.observed_us[winner] - predictions.predicted_us[has]
    late[has] = outcomes.late[winner]
    imputed[has] = outcomes.revision[winner] < 0
    return Rows(
        group=group,
        score=predictions.score,
        value=value,
        delay_us=delay_us,
        late=late,
        outside=joined.outside,
        mature=np.full(n, mature),
        imputed=imputed,
    )


def first_of_each(ids: IdColumns) -> Int64s:
    """Where each id comes first."""
    order = np.lexsort((np.arange(len(ids.key)), ids.high, ids.key))
    key, high = ids.key[order], ids.high[order]
    repeated = np.zeros(len(order), np.bool_)
    repeated[1:] = (key[1:] == key[:-1]) & (high[1:] == high[:-1])
    return order[~repeated]


def _revision_is_in(rows: Outcomes, known: Outcomes) -> Bools:
    """Which rows have their (id, revision) among `known`; shape (n,)."""
    n, m = len(rows.key), len(known.key)
    key = np.concatenate([known.key, rows.key])
    high = np.concatenate([known.high, rows.high])
    revision = np.concatenate([known.revision, rows.revision])
    order = np.lexsort((np.arange(n + m), revision, high, key))
    same = np.zeros(n + m, np.bool_)
    a, b = order[1:], order[:-1]
    same[a] = (key[a] == key[b]) & (high[a] == high[b]) & (revision[a] == revision[b])
    return same[m:]


_NO_OUTCOMES = Outcomes(
    key=np.zeros(0, np.uint64),
    high=np.zeros(0, np.uint64),
    observed_us=np.zeros(0, np.int64),
    value=np.zeros(0),
    revision=np.zeros(0, np.int32),
    late=np.zeros(0, np.bool_),
)
