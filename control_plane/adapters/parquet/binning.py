"""From a batch of predictions to counts by hour and slice, over the bins of a reference profile."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from control_plane.adapters.parquet.profile import Profile
from control_plane.core.ground_truth.batch import PredictionBatch
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

HOURS_PER_DAY = 24
Admit = Callable[[str], str]
"""The slice that a slice is counted in: itself, or `<name>=other` beyond the limit."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Counts over all cells of a profile (`Profile.width`), and the predictions they were made of."""

    rows: int
    counts: Int64s

    def plus(self, other: "Cells") -> "Cells":
        """The sum of both."""
        return Cells(self.rows + other.rows, self.counts + other.counts)

    def minus(self, other: "Cells") -> "Cells":
        """What is left without the other."""
        return Cells(self.rows - other.rows, self.counts - other.counts)


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of one batch."""

    hours: dict[tuple[str, int], Cells]
    """(slice, hour); the empty slice is all of it."""
    fine_days: dict[int, Int64s]
    """Day -> counts over the fine cells; empty if the profile has none."""


@dataclass(slots=True)
class _Columns:
    """Where each counted row of a batch falls: cells of the coarse vector, of the fine one, and rows outside."""

    cells: list[Int64s | int]
    fine: list[Int64s | int]
    outside: list[tuple[Int64s, int]]
    """(rows, cell)."""


def bin_batch(profile: Profile, batch: PredictionBatch, new: Bools | None, admit: Admit = str) -> Counted:
    """Counts of one batch.

    A feature of the profile that a batch with features lacks counts as missing; a batch without any feature column
    says nothing about features.

    Args:
        batch: one that `Profile.check` accepts.
        new: rows to count, shape (n,); None for all. Predictions that came before are counted already.
    """
    rows = slice(None) if new is None or new.all() else np.flatnonzero(new)
    hours, group = np.unique((batch.predicted_us // MICROSECONDS_PER_HOUR)[rows], return_inverse=True)
    columns = _columns(profile, batch, rows)
    counted = {
        ("", int(hour)): cells for hour, cells in zip(hours, _sum(profile, columns, group, len(hours)), strict=True)
    }
    for name, column in batch.slices.items():
        for key, cells in _sliced(profile, columns, name, column, rows, hours, group, admit):
            counted[key] = counted[key].plus(cells) if key in counted else cells
    fine_days: dict[int, Int64s] = {}
    if columns.fine:
        days, day_of_hour = np.unique(hours // HOURS_PER_DAY, return_inverse=True)
        counts = _count(columns.fine, day_of_hour[group], len(days), profile.fine_cells)
        fine_days = {int(day): counts[at] for at, day in enumerate(days)}
    return Counted(counted, fine_days)


def _columns(profile: Profile, batch: PredictionBatch, rows: slice | Int64s) -> _Columns:
    found = _Columns([], [], [])
    if batch.features:
        for feature in profile.features:
            column = batch.features.get(feature.name)
            if column is None:
                found.cells.append(feature.end - 1)
                if feature.fine is not None:
                    found.fine.append(feature.fine.start + feature.fine.bins.cells - 1)
                continue
            binned = feature.binned(column)
            found.cells.append(binned.cells[rows] + feature.start)
            if feature.fine is not None and binned.fine is not None:
                found.fine.append(binned.fine[rows] + feature.fine.start)
            if binned.outside is not None:
                found.outside.append((np.flatnonzero(binned.outside[rows]), feature.outside_at))
    if profile.prediction is not None:
        found.cells.append(profile.prediction.score_cells(batch.score[rows]) + profile.prediction.start)
    return found


def _sum(profile: Profile, columns: _Columns, group: Int64s, groups: int) -> list[Cells]:
    """Cells of each group of rows."""
    counts = _count(columns.cells, group, groups, profile.width)
    for at, cell in columns.outside:
        counts[:, cell] += np.bincount(group[at], minlength=groups)
    sizes = np.bincount(group, minlength=groups)
    return [Cells(int(sizes[at]), counts[at]) for at in range(groups)]


def _count(columns: list[Int64s | int], group: Int64s, groups: int, width: int) -> Int64s:
    """How often each cell comes in each group, shape (groups, width)."""
    base = group * width
    flat = [base + cells for cells in columns]
    if not flat:
        return np.zeros((groups, width), np.int64)
    return np.bincount(np.concatenate(flat), minlength=groups * width).reshape(groups, width)


def _sliced(
    profile: Profile,
    columns: _Columns,
    name: str,
    column: pa.Array,
    rows: slice | Int64s,
    hours: Int64s,
    group: Int64s,
    admit: Admit,
) -> list[tuple[tuple[str, int], Cells]]:
    """Cells of each (slice, hour) of one slice column; rows without a value are in none."""
    encoded = pc.dictionary_encode(column)
    names = [admit(f"{name}={value}") for value in encoded.dictionary.to_pylist()]
    if not names:
        return []
    slices = sorted(set(names))
    place = np.array([*(slices.index(one) for one in names), len(slices)], np.int64)
    codes = pc.fill_null(encoded.indices, len(names)).to_numpy(zero_copy_only=False)
    where = place[codes][rows]
    every = where * len(hours) + group  # the last group, of rows without a value, is counted and left out
    summed = _sum(profile, columns, every, (len(slices) + 1) * len(hours))
    return [
        ((one, int(hour)), summed[at * len(hours) + number])
        for at, one in enumerate(slices)
        for number, hour in enumerate(hours)
        if summed[at * len(hours) + number].rows
    ]
