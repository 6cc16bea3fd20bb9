"""Faults of the data that no retrain can mend: a feature goes constant, nulls jump, a category vanishes.

A model trained on broken data is a broken model, so these findings go to the owner of the data and hold
automatic retrains back. They are judged from counts alone, and deliberately narrow: a false one would block a
needed retrain. In particular a number that moved into one of its outermost bins may simply have moved (winter
to summer), so a number counts as constant only within two edges; and what was mostly null already may become
a little more so.
"""

from dataclasses import dataclass

import numpy as np

from control_plane.core.staleness.evidence import FeatureTable, IntMatrix
from control_plane.core.statistics.sample import Bools, Float64s, Int64s

NULL_RISE_MIN = 0.10
"""Rise of the share of nulls that counts as a jump, if the share also at least doubled."""
NULL_FACTOR_MIN = 2.0
CONSTANT_SHARE_MAX = 0.50
"""A cell that held more than this of the reference may well hold all of a week."""
VANISHED_SHARE_MIN = 0.05
"""Share in the reference from which on a category is missed ..."""
VANISHED_EXPECTED_MIN = 20.0
"""... if so many rows of it were expected: chance alone leaves it out once in 5e8 times."""
ROWS_MIN = 100
"""Rows in the current window below which none of this is judged."""
FAULTS_MAX = 10
"""Findings named in one evaluation; an outage of a source hits many features at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFaults:
    """Findings among rows of counts, each of shape (rows,); a row has at most one, the first that fits."""

    burst: Bools
    constant: Bools
    vanished: Bools
    nulls_then: Float64s
    nulls_now: Float64s
    held: Int64s
    """The cell that holds everything, where constant."""


def row_faults(reference: IntMatrix, current: IntMatrix, cells: Int64s, categorical: Bools) -> RowFaults:
    """Findings among features whose counts differ significantly; shapes as in
    `statistics.fleet.row_drift`.
    """
    r, c = reference.astype(np.float64), current.astype(np.float64)
    at, missing = np.arange(len(r)), cells - 1
    n, m = np.maximum(r.sum(axis=1), 1), np.maximum(c.sum(axis=1), 1)
    then, now = r[at, missing] / n, c[at, missing] / m
    enough = m >= ROWS_MIN
    burst = enough & (now - then >= NULL_RISE_MIN) & (now >= NULL_FACTOR_MIN * then)
    r[at, missing] = c[at, missing] = 0.0
    held = np.argmax(c, axis=1)
    inner = categorical | ((held > 0) & (held < cells - 2))
    constant = enough & ~burst & inner & _constant(r, c, held)
    vanished = enough & categorical & ~burst & ~constant & _vanished(r / n[:, None], c, m, cells).any(axis=1)
    return RowFaults(burst=burst, constant=constant, vanished=vanished, nulls_then=then, nulls_now=now, held=held)


def _constant(r: Float64s, c: Float64s, held: Int64s) -> Bools:
    """All present values in one cell, which held at most half of the reference's present values."""
    at = np.arange(held.size)
    present = c.sum(axis=1)
    before = r[at, held] / np.maximum(r.sum(axis=1), 1)
    return (present >= ROWS_MIN) & (c[at, held] == present) & (before <= CONSTANT_SHARE_MAX)  # type: ignore[no-any-return]


def _vanished(then: Float64s, c: Float64s, m: Float64s, cells: Int64s) -> Bools:
    """Named cells that were expected and are empty, shape of `c`."""
    named = np.arange(c.shape[1]) < (cells - 2)[:, None]
    expected = then * m[:, None]
    return named & (c == 0) & (then >= VANISHED_SHARE_MIN) & (expected >= VANISHED_EXPECTED_MIN)  # type: ignore[no-any-return]


def describe(table: FeatureTable, row: int, faults: RowFaults, place: int) -> str:
    """One finding in words: `place` in `faults` is `row` of the table."""
    name = table.names[row]
    if faults.burst[place]:
        return f"{name}: nulls rose from {faults.nulls_then[place]:.1%} to {faults.nulls_now[place]:.1%}"
    if faults.constant[place]:
        return f"{name} went constant: all its values are {_cell(table, name, int(faults.held[place]))}"
    reference, current = table.reference[row : row + 1], table.current[row : row + 1].astype(np.float64)
    then = reference / max(reference.sum(), 1)
    gone = np.flatnonzero(_vanished(then, current, current.sum(axis=1), table.cells[row : row + 1])[0])
    lost = ", ".join(_cell(table, name, cell) for cell in gone.tolist())
    return f"{name}: {lost} vanished, {then[0, gone].sum():.1%} of the reference"


def _cell(table: FeatureTable, name: str, cell: int) -> str:
    """What a cell holds, as far as it has a name."""
    categories = table.categories.get(name, ())
    return repr(categories[cell]) if cell < len(categories) else f"in cell {cell + 1}"
