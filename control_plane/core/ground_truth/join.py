"""The two-sided join of predictions and outcomes, on sorted columns.

Theory of operation. Each side is kept as runs of columns sorted by id key. Arriving rows become a run; nothing is
joined then. When an hour is read, the runs of either side are merged (a stable sort of sorted runs is a merge),
repeated rows fall out as neighbours, and one binary search joins the sides. So it cannot matter who came first, a
correction cannot be added to what it corrects, and an arrival costs a sort and nothing else.

| case | rule |
|---|---|
| the same prediction again | the first to arrive stays |
| the same (outcome, revision) again | the first to arrive stays |
| several revisions inside the window | the highest wins |
| an imputed outcome | has a negative revision (its own less 2^31), so that any observed one wins over it |
| an outcome after the window, of whatever revision | as if it had not come; the prediction counts as `outside` |
| an outcome observed before its prediction | counts |
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control_plane.core.ground_truth.ids import IdColumns, Int64s, UInt64s

Float64s = npt.NDArray[np.float64]
Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Columns of predictions, n rows. Sorted by (key, high) and distinct after `distinct_predictions`."""

    key: UInt64s
    high: UInt64s
    predicted_us: Int64s
    score: Float64s
    version: Int32s

    def take(self, at: Int64s | Bools) -> "Predictions":
        """Rows by position or mask."""
        return Predictions(
            key=self.key[at],
            high=self.high[at],
            predicted_us=self.predicted_us[at],
            score=self.score[at],
            version=self.version[at],
        )

    @property
    def ids(self) -> IdColumns:
        """The id columns."""
        return IdColumns(self.key, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Columns of outcomes, n rows. Sorted by (key, high, revision) and distinct after `distinct_outcomes`."""

    key: UInt64s
    high: UInt64s
    observed_us: Int64s
    value: Float64s
    revision: Int32s
    late: Bools

    def take(self, at: Int64s | Bools) -> "Outcomes":
        """Rows by position or mask."""
        return Outcomes(
            key=self.key[at],
            high=self.high[at],
            observed_us=self.observed_us[at],
            value=self.value[at],
            revision=self.revision[at],
            late=self.late[at],
        )

    @property
    def ids(self) -> IdColumns:
        """The id columns."""
        return IdColumns(self.key, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What became of each prediction; n predictions, m outcomes."""

    winner: Int64s
    """Position of the winning outcome, -1 if there is none. Shape (n,)."""
    outside: Bools
    """Has outcomes, but none inside the window. Shape (n,)."""
    matched: Bools
    """The outcome's prediction is here, inside the window or not. Shape (m,)."""


def sorted_predictions(rows: Predictions) -> Predictions:
    """Sort a run by key; rows of equal key keep their order of arrival only through `distinct_predictions`."""
    return rows.take(np.argsort(rows.key, kind="stable"))


def sorted_outcomes(rows: Outcomes) -> Outcomes:
    """Sort a run by key."""
    return rows.take(np.argsort(rows.key, kind="stable"))


def distinct_predictions(runs: Sequence[Predictions]) -> Predictions:
    """Merge runs, oldest first, into one run in which each id is once: the first that arrived."""
    rows = Predictions(
        key=np.concatenate([run.key for run in runs]),
        high=np.concatenate([run.high for run in runs]),
        predicted_us=np.concatenate([run.predicted_us for run in runs]),
        score=np.concatenate([run.score for run in runs]),
        version=np.concatenate([run.version for run in runs]),
    )
    order = _distinct(rows.key, rows.high, None)
    return rows.take(order)


def distinct_outcomes(runs: Sequence[Outcomes]) -> Outcomes:
    """Merge runs, oldest first, into one run in which each (id, revision) is once: the first that arrived."""
    rows = Outcomes(
        key=np.concatenate([run.key for run in runs]),
        high=np.concatenate([run.high for run in runs]),
        observed_us=np.concatenate([run.observed_us for run in runs]),
        value=np.concatenate([run.value for run in runs]),
        revision=np.concatenate([run.revision for run in runs]),
        late=np.concatenate([run.late for run in runs]),
    )
    return rows.take(_distinct(rows.key, rows.high, rows.revision))


def _distinct(key: UInt64s, high: UInt64s, revision: Int32s | None) -> Int64s:
    """Positions of the first arrival of each id (and revision), ordered by key, then high, then revision.

    Almost always no two keys are equal and one sort is all. Rows that share a key are sorted out exactly: the same
    id again, another revision, or (one in 2^64) another id with the same key.
    """
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    same = ordered[1:] == ordered[:-1]
    if not same.any():
        return order
    minor = np.zeros(len(key), np.int32) if revision is None else revision
    order = order[np.lexsort((order, minor[order], high[order], ordered))]
    repeated = np.zeros(len(order), np.bool_)
    repeated[1:] = (
        (key[order][1:] == key[order][:-1])
        & (high[order][1:] == high[order][:-1])
        & (minor[order][1:] == minor[order][:-1])
    )
    return order[~repeated]


def positions(table: IdColumns, ids: IdColumns) -> Int64s:
    """Where each id stands in a table sorted by (key, high) without repeated ids; -1 if it is not there."""
    size = len(table.key)
    at = np.searchsorted(table.key, ids.key)
    found = np.full(len(ids.key), -1, np.int64)
    open_rows = np.arange(len(ids.key))
    while len(open_rows):
        here = at[open_rows]
        inside = here < size
        open_rows, here = open_rows[inside], here[inside]
        same_key = table.key[here] == ids.key[open_rows]
        open_rows, here = open_rows[same_key], here[same_key]
        hit = table.high[here] == ids.high[open_rows]
        found[open_rows[hit]] = here[hit]
        open_rows = open_rows[~hit]  # another id of the same key: look one further
        at[open_rows] += 1
    return found


def matching(table: IdColumns, ids: IdColumns) -> Int64s:
    """Positions of all rows of a table, sorted by (key, high), whose id is among `ids`; an id may be in it repeatedly.

    Args:
        ids: distinct, in any order; sorted ones are found faster.
    """
    first = np.searchsorted(table.key, ids.key, "left")
    count = np.searchsorted(table.key, ids.key, "right") - first
    found = np.flatnonzero(count)
    if not len(found):
        return found
    repeats = count[found]
    within = np.arange(int(repeats.sum())) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    at: Int64s = np.repeat(first[found], repeats) + within
    rows: Int64s = at[table.high[at] == np.repeat(ids.high[found], repeats)]
    return rows


def distinct_ids(ids: IdColumns) -> IdColumns:
    """Each id once; `ids` are sorted by (key, high)."""
    if len(ids.key) < 2:
        return ids
    first = np.ones(len(ids.key), np.bool_)
    first[1:] = (ids.key[1:] != ids.key[:-1]) | (ids.high[1:] != ids.high[:-1])
    return ids if first.all() else IdColumns(ids.key[first], ids.high[first])


def join(predictions: Predictions, outcomes: Outcomes, window_us: int) -> Joined:
    """Join distinct predictions with distinct outcomes of one label type.

    Args:
        predictions: from `distinct_predictions`, n rows.
        outcomes: from `distinct_outcomes`, m rows.
        window_us: attribution window; an outcome observed exactly that long after the prediction still counts.
    """
    n = len(predictions.key)
    at = positions(predictions.ids, outcomes.ids)
    matched = at >= 0
    rows = np.flatnonzero(matched)
    target = at[rows]
    inside = outcomes.observed_us[rows] - predictions.predicted_us[target] <= window_us
    winner = np.full(n, -1, np.int64)
    # Outcomes ascend by revision within an id, so that the last assignment, which numpy keeps, is the highest.
    winner[target[inside]] = rows[inside]
    seen = np.zeros(n, np.bool_)
    seen[target] = True
    return Joined(winner=winner, outside=seen & (winner < 0), matched=matched)
