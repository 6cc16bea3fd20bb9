"""Faults of the data that no retrain can mend.

A model trained on broken data is a broken model, so these findings go to the owner of the data and hold
automatic retrains back. They are judged from counts alone, among features whose counts differ significantly, and
deliberately narrow: a false one would block a needed retrain.

| finding          | what it takes                                                                             |
|------------------|-------------------------------------------------------------------------------------------|
| null burst       | share of nulls 10 points up and doubled, beyond chance                                    |
| constant         | all present values in one inner cell that held at most half of the reference              |
| vanished category| one that held 5 % and of which 20 rows were expected is gone                              |
| new category     | 5 % and 20 rows in `other`, ten times what the reference had there                        |
| range break      | 20 % and 20 rows beyond the widened range of training, ten times what chance puts there   |
| does not arrive  | a feature of the reference without one row, while others have 100                         |
| volume drop      | less than half of the quietest earlier window, of three or more that cover a week         |

A number that moved into one of its outermost bins may simply have moved (winter to summer), so a number counts as
constant only within two edges, and a move that is usual for the season is no range break; what was mostly null
already may become a little more so; the quietest window of a week holds its nights and Sundays.
"""

from dataclasses import dataclass

import numpy as np

from control_plane.core.staleness.evidence import FeatureTable, IntMatrix, Volume
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
NEW_SHARE_MIN = 0.05
OUTSIDE_SHARE_MIN = 0.20
NEW_ROWS_MIN = 20.0
"""Rows of something new: a handful is a typing error, not a change of the source."""
NEW_FACTOR_MIN = 10.0
"""Times what the reference had, or what chance puts outside of its range: 2 / (N + 1)."""
CHANCE_Z_MIN = 5.0
"""A share that rose or fell must have done so by this many standard errors: chance does that once in 3e6 times, however
few rows the reference or the window has."""
ROWS_MIN = 100
"""Rows in the current window below which none of this is judged."""
VOLUME_SHARE_MIN = 0.50
VOLUME_WINDOWS_MIN = 3
VOLUME_DAYS_MIN = 7.0
"""Days that the earlier windows must cover together: less does not know the rhythm of a week."""
FAULTS_MAX = 10
"""Findings named in one evaluation; an outage of a source hits many features at once."""
NAMED_MAX = 5
"""Features named in one finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFaults:
    """Findings among rows of counts, each of shape (rows,); a row has at most one, the first that fits."""

    burst: Bools
    constant: Bools
    vanished: Bools
    novel: Bools
    broken_range: Bools
    nulls_then: Float64s
    nulls_now: Float64s
    held: Int64s
    """The cell that holds everything, where constant."""
    other_then: Float64s
    other_now: Float64s
    outside: Float64s
    """Share of present values outside the range of the training data."""

    def any(self) -> Bools:
        """Which rows have a finding."""
        return self.burst | self.constant | self.vanished | self.novel | self.broken_range


def row_faults(
    reference: IntMatrix,
    current: IntMatrix,
    cells: Int64s,
    categorical: Bools,
    outside: Int64s | None = None,
    usual: Float64s | None = None,
) -> RowFaults:
    """Findings among features whose counts differ significantly; shapes as in `statistics.fleet.row_drift`.

    Args:
        outside: current values outside the range of the training data; None if nobody counted.
        usual: the PSI that the season usually shows, 0 without history.
    """
    r, c = reference.astype(np.float64), current.astype(np.float64)
    at, missing = np.arange(len(r)), cells - 1
    n, m = np.maximum(r.sum(axis=1), 1), np.maximum(c.sum(axis=1), 1)
    then, now = r[at, missing] / n, c[at, missing] / m
    enough = m >= ROWS_MIN
    burst = enough & (now - then >= NULL_RISE_MIN) & (now >= NULL_FACTOR_MIN * then)
    burst &= _beyond_chance(then, n, now, m)
    r[at, missing] = c[at, missing] = 0.0
    held = np.argmax(c, axis=1)
    inner = categorical | ((held > 0) & (held < cells - 2))
    constant = enough & ~burst & inner & _constant(r, c, held)
    free = enough & ~burst & ~constant
    other = np.maximum(cells - 2, 0)
    other_then, other_now = r[at, other] / n, c[at, other] / m
    vanished = free & categorical
    if vanished.any():
        vanished &= _vanished(r / n[:, None], n, c, m, cells).any(axis=1)
    novel = free & categorical & ~vanished & (other_now >= NEW_SHARE_MIN) & (c[at, other] >= NEW_ROWS_MIN)
    novel &= (other_now >= NEW_FACTOR_MIN * other_then) & _beyond_chance(other_then, n, other_now, m)
    beyond = np.zeros(len(r)) if outside is None else outside.astype(np.float64)
    share = beyond / np.maximum(c.sum(axis=1), 1)
    broken = free & ~categorical & (beyond >= NEW_ROWS_MIN) & (share >= OUTSIDE_SHARE_MIN)
    broken &= share >= NEW_FACTOR_MIN * 2 / (r.sum(axis=1) + 1)
    if usual is not None:
        broken &= usual <= 0
    return RowFaults(
        burst=burst,
        constant=constant,
        vanished=vanished,
        novel=novel,
        broken_range=broken,
        nulls_then=then,
        nulls_now=now,
        held=held,
        other_then=other_then,
        other_now=other_now,
        outside=share,
    )


def _constant(r: Float64s, c: Float64s, held: Int64s) -> Bools:
    """All present values in one cell, which held at most half of the reference's present values."""
    at = np.arange(held.size)
    present = c.sum(axis=1)
    before = r[at, held] / np.maximum(r.sum(axis=1), 1)
    return (present >= ROWS_MIN) & (c[at, held] == present) & (before <= CONSTANT_SHARE_MAX)  # type: ignore[no-any-return]


def _beyond_chance(then: Float64s, n: Float64s, now: Float64s, m: Float64s) -> Bools:
    """Do shares of n and of m rows differ by more than chance? The two-proportion z-test with pooled variance."""
    pooled = (then * n + now * m) / (n + m)
    return np.abs(now - then) >= CHANCE_Z_MIN * np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))


def _vanished(then: Float64s, n: Float64s, c: Float64s, m: Float64s, cells: Int64s) -> Bools:
    """Named cells that were expected and are empty, shape of `c`."""
    named = np.arange(c.shape[1]) < (cells - 2)[:, None]
    expected = then * m[:, None]
    missed = named & (c == 0) & (then >= VANISHED_SHARE_MIN) & (expected >= VANISHED_EXPECTED_MIN)
    return missed & _beyond_chance(then, n[:, None], c / m[:, None], m[:, None])  # type: ignore[no-any-return]


def describe(table: FeatureTable, row: int, faults: RowFaults, place: int) -> str:
    """One finding in words: `place` in `faults` is `row` of the table."""
    name = table.names[row]
    if faults.burst[place]:
        return f"{name}: nulls rose from {faults.nulls_then[place]:.1%} to {faults.nulls_now[place]:.1%}"
    if faults.constant[place]:
        return f"{name} went constant: all its values are {_cell(table, name, int(faults.held[place]))}"
    if faults.novel[place]:
        return (
            f"{name}: {faults.other_now[place]:.1%} of its values are categories unknown in training, "
            f"{faults.other_then[place]:.1%} were then"
        )
    if faults.broken_range[place]:
        return f"{name}: {faults.outside[place]:.1%} of its values are far outside the range of the training data"
    reference, current = table.reference[row : row + 1], table.current[row : row + 1].astype(np.float64)
    rows = np.maximum(reference.sum(axis=1).astype(np.float64), 1)
    then = reference / rows
    gone = np.flatnonzero(
        _vanished(then, rows, current, np.maximum(current.sum(axis=1), 1), table.cells[row : row + 1])[0]
    )
    lost = ", ".join(_cell(table, name, cell) for cell in gone.tolist())
    return f"{name}: {lost} vanished, {then[0, gone].sum():.1%} of the reference"


def never_arrived(table: FeatureTable, rows: int) -> tuple[str, ...]:
    """One finding for all features of the reference that have no current row, while others have `rows`."""
    if rows < ROWS_MIN:
        return ()
    silent = np.flatnonzero(table.reference.any(axis=1) & ~table.current.any(axis=1))
    names = [table.names[row] for row in silent.tolist()]
    if not names:
        return ()
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    do = "does" if len(names) == 1 else "do"
    return (f"{', '.join(names[:NAMED_MAX])}{more} {do} not arrive any more: the set of features changed",)


def volume_drop(volume: Volume | None, window_days: float) -> tuple[str, ...]:
    """The finding that far fewer predictions arrive than in any window before, if so."""
    if volume is None or len(volume.before) < VOLUME_WINDOWS_MIN:
        return ()
    quietest = min(volume.before)
    if len(volume.before) * window_days < VOLUME_DAYS_MIN or quietest < ROWS_MIN:
        return ()
    if volume.current >= VOLUME_SHARE_MIN * quietest:
        return ()
    return (
        f"volume dropped: {volume.current:,} predictions in the last {window_days:g} days, "
        f"never fewer than {quietest:,} in the {len(volume.before)} windows before",
    )


def shortened(faults: list[str]) -> tuple[str, ...]:
    """The first findings, and how many there are beyond."""
    if len(faults) <= FAULTS_MAX:
        return tuple(faults)
    return (*faults[:FAULTS_MAX], f"and {len(faults) - FAULTS_MAX} more features")


def _cell(table: FeatureTable, name: str, cell: int) -> str:
    """What a cell holds, as far as it has a name."""
    categories = table.categories.get(name, ())
    return repr(categories[cell]) if cell < len(categories) else f"in cell {cell + 1}"
