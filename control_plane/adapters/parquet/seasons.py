"""The usual range of each feature in these weeks of the year, from the daily counts of a year ago.

Counts of all versions serve, moved into today's bins: exactly where the bins are the same, by the old version's fine
bins where it has some, else as if values lay evenly inside a bin. Worked out once a day for each model.
"""

import zlib
from datetime import date, timedelta

import numpy as np

from control_plane.adapters.parquet.binning import HOURS_PER_DAY, Int64s
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.histograms import Series
from control_plane.adapters.parquet.profile import FeatureBins, Profile
from control_plane.core.statistics.bins import CategoricalBins, NumericBins
from control_plane.core.statistics.fleet import row_drift
from control_plane.core.statistics.season import WINDOWS_MIN, period_windows, rebinned

_EPOCH = date(1970, 1, 1)


class Seasons:
    """Usual PSI by feature; the latest answer of each model is kept."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._known: dict[str, tuple[tuple[int, str, int, int], dict[str, float]]] = {}

    def usual(self, series: Series, profile: Profile, first: int, last: int) -> dict[str, float]:
        """Feature -> upper end of its usual debiased PSI; features without history are missing.

        Args:
            first, last: the window, hours first <= hour < last; taken as whole days, give or take one.
        """
        # Each model's day begins at an hour of its own, so that a fleet is not all worked out at midnight.
        turn = zlib.crc32(series.model_id.encode()) % HOURS_PER_DAY
        start = (first + turn) // HOURS_PER_DAY
        end = start + max(1, -(-(last - first) // HOURS_PER_DAY))
        key = (series.version, series.digest, start, end)
        known = self._known.get(series.model_id)
        if known is None or known[0] != key:
            known = (key, self._work_out(series.model_id, profile, start, end))
            self._known[series.model_id] = known
        return known[1]

    def _work_out(self, model_id: str, profile: Profile, start: int, end: int) -> dict[str, float]:
        windows = [
            ((a - _EPOCH).days, (b - _EPOCH).days)
            for a, b in period_windows(_EPOCH + timedelta(days=start), _EPOCH + timedelta(days=end))
        ]
        counts = np.zeros((len(windows), profile.cells), np.int64)
        for series in self._facts.histograms.series_of(model_id):
            if not series.slice:
                self._add(series, profile, windows, counts)
        return usual_psi_of(profile, counts)

    def _add(self, series: Series, profile: Profile, windows: list[tuple[int, int]], counts: Int64s) -> None:
        """Add what one series counted in each window, moved into the profile's bins."""
        first, last = min(a for a, _ in windows), max(b for _, b in windows)
        days = self._facts.histograms.days(series, first, last)
        if not days:
            return
        old = self._facts.profiles.get(series.digest)
        if old is None:
            return
        same = old.digest == profile.digest
        fine_days = self._facts.histograms.fine_days(series, first, last) if old.fine_cells and not same else {}
        for at, (a, b) in enumerate(windows):
            inside = [cells.counts for day, cells in days.items() if a <= day < b]
            if not inside:
                continue
            total: Int64s = np.stack(inside).sum(axis=0)
            if same:
                counts[at] += total[: profile.cells]
                continue
            fine = np.zeros(old.fine_cells, np.int64)
            for day, found in fine_days.items():
                if a <= day < b:
                    fine += found
            counts[at] += moved(old, profile, total, fine)


def moved(old: Profile, new: Profile, counts: Int64s, fine: Int64s) -> Int64s:
    """Counts over the cells of one profile in those of another, shape (new.cells,); features it lacks stay 0."""
    found = np.zeros(new.cells, np.int64)
    before = {feature.name: feature for feature in old.features}
    for feature in new.features:
        known = before.get(feature.name)
        if known is None or known.kind != feature.kind:
            continue
        over = counts[known.start : known.end]
        if known.fine is not None:
            fine_over = fine[known.fine.start : known.fine.start + known.fine.bins.cells]
            if fine_over.sum() == over.sum():
                found[feature.start : feature.end] = rebinned(fine_over, known.fine.edges, feature.edges)
                continue
        found[feature.start : feature.end] = _moved_coarse(known, feature, over)
    return found


def _moved_coarse(old: FeatureBins, new: FeatureBins, counts: Int64s) -> Int64s:
    if isinstance(old.bins, NumericBins):
        return counts if old.bins == new.bins else rebinned(counts, old.edges, new.edges)
    assert isinstance(old.bins, CategoricalBins) and isinstance(new.bins, CategoricalBins)
    place = {name: at for at, name in enumerate(new.bins.categories)}
    found = np.zeros(new.bins.cells, np.int64)
    for name, count in zip(old.bins.categories, counts, strict=False):
        found[place.get(name, -2)] += count
    found[-2:] += counts[-2:]
    return found


def usual_psi_of(profile: Profile, windows: Int64s) -> dict[str, float]:
    """`statistics.season.usual_psi` of every feature in one go; those without enough windows are missing.

    Args:
        windows: counts over the profile's cells, shape (W, cells).
    """
    rows: list[tuple[FeatureBins, Int64s]] = []
    for feature in profile.features:
        over = windows[:, feature.start : feature.end]
        over = over[over.sum(axis=1) > 0]
        if len(over) >= WINDOWS_MIN and feature.reference.any():
            rows += [(feature, row) for row in over]
    if not rows:
        return {}
    width = max(len(row) for _, row in rows)
    reference, current = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for at, (feature, row) in enumerate(rows):
        reference[at, : len(row)], current[at, : len(row)] = feature.reference, row
    found = row_drift(reference, current, np.array([len(row) for _, row in rows], np.int64)).psi_debiased
    usual: dict[str, float] = {}
    for (feature, _), psi in zip(rows, found.tolist(), strict=True):
        usual[feature.name] = max(usual.get(feature.name, 0.0), psi)
    return usual
