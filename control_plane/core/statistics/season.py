"""What this time of the year usually brings: a range of PSI for a calendar period, from histograms of earlier years.

A winter looks drifted to a model trained in summer, each year alike. With counts of the same weeks a year ago, a PSI
inside what those weeks showed is expected, and weighs less; beyond it, it weighs in full.
"""

from datetime import date, timedelta

import numpy as np

from control_plane.core.statistics.fleet import row_drift
from control_plane.core.statistics.sample import Float64s, Int64s, InvalidSample

WEEKS_AROUND = 2
"""Weeks before and after the same week of an earlier year that belong to its calendar period."""
YEAR = timedelta(days=364)
"""52 weeks: a year back on the same day of the week."""
WINDOWS_MIN = 3
"""With fewer windows of the period there is no range, only an anecdote."""


def period_windows(start: date, end: date, years: int = 1) -> list[tuple[date, date]]:
    """Windows [start, end) of the same calendar period in earlier years: the same week and two on either side.

    All begin on the same day of the week, newest year first, in order of time within a year.

    >>> windows = period_windows(date(2024, 3, 4), date(2024, 3, 11))
    >>> len(windows), windows[2]
    (5, (datetime.date(2023, 3, 6), datetime.date(2023, 3, 13)))
    """
    shifts = [
        year * YEAR + timedelta(weeks=around)
        for year in range(1, years + 1)
        for around in range(WEEKS_AROUND, -WEEKS_AROUND - 1, -1)
    ]
    return [(start - shift, end - shift) for shift in shifts]


def usual_psi(reference: Int64s, windows: Int64s) -> float:
    """The upper end of the usual debiased PSI against the reference; 0 without enough windows.

    The largest of the windows' debiased PSI: with five windows a like year stays within it five times in six.

    Args:
        reference: counts, shape (B,).
        windows: counts over the same cells in windows of the calendar period, shape (W, B); empty ones do not count.
    Raises:
        InvalidSample: shapes do not fit.

    >>> usual_psi(np.array([100, 100]), np.array([[140, 60], [150, 50], [130, 70]])).__round__(3)
    0.262
    """
    counts = np.asarray(windows, np.int64)
    if counts.ndim != 2 or counts.shape[1] != len(reference):
        raise InvalidSample("windows", "shape", f"windows are {counts.shape} for {len(reference)} cells")
    counts = counts[counts.sum(axis=1) > 0]
    if len(counts) < WINDOWS_MIN or not np.any(reference):
        return 0.0
    same = np.tile(np.asarray(reference, np.int64), (len(counts), 1))
    found = row_drift(same, counts, np.full(len(counts), counts.shape[1]))
    return float(max(found.psi_debiased.max(), 0.0))


def rebinned(counts: Int64s, edges: Float64s, new_edges: Float64s) -> Int64s:
    """Move counts of a number into other bins, as if values lay evenly inside each bin; total and missing are kept.

    Exact where a new edge is an old one. Half-open end bins have no width: all of theirs stay beyond the last old edge
    unless a new edge lies there, which nothing is known about; then they stay in the cell next to the old edge.

    Args:
        counts: over `edges`, missing last, shape (k + 2,).
        edges: interior, ascending, shape (k,).
        new_edges: shape (j,).
    Returns:
        Integers of the same sum, shape (j + 2,), by largest remainders.

    >>> rebinned(np.array([10, 20, 10, 3]), np.array([0.0, 1.0]), np.array([0.0, 0.5, 1.0])).tolist()
    [10, 10, 10, 10, 3]
    """
    old, new = np.asarray(edges, np.float64), np.asarray(new_edges, np.float64)
    given = np.asarray(counts, np.int64)
    if (np.diff(old) <= 0).any() or (np.diff(new) <= 0).any() or (given < 0).any():
        raise InvalidSample("edges", "increasing", "edges increase strictly, and counts are 0 or more")
    if given.shape != (old.size + 2,):
        raise InvalidSample("counts", "shape", f"{given.size} counts for {old.size + 2} cells")
    present, missing = given[:-1], int(given[-1])
    total = int(present.sum())
    if not new.size or not old.size or not total:
        flat = np.zeros(new.size + 2, np.int64)
        # Nothing is known of where values lie: all in the middle.
        flat[new.size // 2], flat[-1] = total, missing
        return flat
    below = np.cumsum(present)[:-1].astype(np.float64)  # values <= each old edge
    cut = np.interp(new, old, below, left=0.0, right=float(total))
    # Beyond the old edges nothing is known: what lies there stays on its side of them.
    cut = np.where(new < old[0], 0.0, np.where(new > old[-1], float(total), cut))
    shares = np.diff(np.concatenate([[0.0], cut, [float(total)]]))
    return np.concatenate([_whole(shares, total), [missing]])


def _whole(shares: Float64s, total: int) -> Int64s:
    """Integers that sum to the total, by largest remainders; of equals the first."""
    whole = np.floor(shares + 1e-9).astype(np.int64)
    left = total - int(whole.sum())
    order = np.argsort(-(shares - whole), kind="stable")
    whole[order[:left]] += 1
    return whole
