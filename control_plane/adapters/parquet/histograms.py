"""Hourly counts of features and scores, binned on arrival by the version's reference edges.

A count is made once, when its batch is appended; later questions only add vectors. Counts of sealed segments are
in the catalogue, those of the others in memory, by segment: after a crash the unsealed segments are read again and
give the same counts, and sealing moves a segment's counts over in the transaction that seals it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control_plane.adapters.parquet.catalog import Catalog
from control_plane.adapters.parquet.profiles import Profile
from control_plane.core.ground_truth.batch import PredictionBatch
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR

Int64s = npt.NDArray[np.int64]
_WIDTHS = (1, 2, 4, 8)
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class HourKey:
    """Whose counts: a version's predictions of one hour, binned by one profile."""

    model_id: str
    version: int
    digest: str
    hour: int


@dataclass(frozen=True, slots=True)
class Cells:
    """Counts over all cells of a profile, and the predictions they were made of."""

    rows: int
    counts: Int64s

    def plus(self, other: "Cells") -> "Cells":
        """The sum of both."""
        return Cells(self.rows + other.rows, self.counts + other.counts)


def bin_batch(profile: Profile, batch: PredictionBatch, new: Bools | None) -> dict[int, Cells]:
    """Counts by hour of one batch.

    A feature of the profile that a batch with features lacks counts as missing; a batch without any feature column
    says nothing about features.

    Args:
        batch: one that `Profile.check` accepts.
        new: rows to count, shape (n,); None for all. Predictions that came before are counted already.
    """
    hours = batch.predicted_us // MICROSECONDS_PER_HOUR
    rows = slice(None) if new is None or new.all() else np.flatnonzero(new)
    distinct, group = np.unique(hours[rows], return_inverse=True)
    flat: list[Int64s] = []
    base = group * profile.cells
    if batch.features:
        for feature in profile.features:
            column = batch.features.get(feature.name)
            at = feature.cells_of(column)[rows] if column is not None else len(feature.reference) - 1
            flat.append(base + (feature.start + at))
    if profile.prediction is not None:
        flat.append(base + profile.prediction.start + profile.prediction.score_cells(batch.score[rows]))
    cells = len(distinct) * profile.cells
    counts = np.bincount(np.concatenate(flat), minlength=cells) if flat else np.zeros(cells, np.int64)
    sizes = np.bincount(group, minlength=len(distinct))
    by_hour = counts.reshape(len(distinct), profile.cells)
    return {int(hour): Cells(int(sizes[at]), by_hour[at].copy()) for at, hour in enumerate(distinct)}


class Histograms:
    """All hourly counts. Not safe for concurrent use; its owner serialises."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._unsealed: dict[int, dict[HourKey, Cells]] = {}

    def add(self, segment: int, key: HourKey, cells: Cells) -> None:
        """Count rows of an unsealed segment."""
        counts = self._unsealed.setdefault(segment, {})
        known = counts.get(key)
        counts[key] = cells if known is None else known.plus(cells)

    def seal(self, segment: int) -> None:
        """Move a segment's counts to the catalogue; call inside the transaction that seals it, then `sealed`."""
        for key, cells in self._unsealed.get(segment, {}).items():
            stored = self._stored(key)
            self.put(key, cells if stored is None else stored.plus(cells))

    def sealed(self, segment: int) -> None:
        """The sealing transaction is durable: let go of the segment's counts."""
        self._unsealed.pop(segment, None)

    def put(self, key: HourKey, cells: Cells) -> None:
        """Replace the stored counts of an hour."""
        self._catalog.db.execute(
            "INSERT OR REPLACE INTO histograms VALUES (?, ?, ?, ?, ?, ?)",
            (key.model_id, key.version, key.digest, key.hour, cells.rows, _pack(cells.counts)),
        )

    def forget(self, model_id: str, version: int) -> None:
        """Drop everything counted for a version, to be rebuilt."""
        self._catalog.db.execute("DELETE FROM histograms WHERE model_id = ? AND version = ?", (model_id, version))
        for counts in self._unsealed.values():
            for key in [key for key in counts if (key.model_id, key.version) == (model_id, version)]:
                del counts[key]

    def between(self, model_id: str, version: int, profile: Profile, start: int, end: int) -> Cells:
        """Counts of hours start <= hour < end."""
        total = np.zeros(profile.cells, np.int64)
        rows = 0
        for stored_rows, packed in self._catalog.db.execute(
            "SELECT rows, cells FROM histograms "
            "WHERE model_id = ? AND version = ? AND digest = ? AND hour >= ? AND hour < ?",
            (model_id, version, profile.digest, start, end),
        ):
            rows += stored_rows
            np.add(total, _unpack(packed), out=total, casting="unsafe")
        for counts in self._unsealed.values():
            for key, cells in counts.items():
                if (key.model_id, key.version, key.digest) == (
                    model_id,
                    version,
                    profile.digest,
                ) and start <= key.hour < end:
                    rows += cells.rows
                    total += cells.counts
        return Cells(rows, total)

    def _stored(self, key: HourKey) -> Cells | None:
        row = self._catalog.db.execute(
            "SELECT rows, cells FROM histograms WHERE model_id = ? AND version = ? AND digest = ? AND hour = ?",
            (key.model_id, key.version, key.digest, key.hour),
        ).fetchone()
        return None if row is None else Cells(int(row[0]), _unpack(row[1]).astype(np.int64))


def _pack(counts: Int64s) -> bytes:
    """The narrowest unsigned integers that hold all counts, after a byte that says how narrow: most hours need one
    byte a cell, and adding them up needs no decoding."""
    largest = int(counts.max(initial=0))
    width = next(width for width in _WIDTHS if largest < 256**width)
    return bytes([width]) + counts.astype(f"<u{width}").tobytes()


def _unpack(packed: bytes) -> npt.NDArray[np.unsignedinteger]:
    """The counts, as narrow as they were stored."""
    return np.frombuffer(packed, f"<u{packed[0]}", offset=1)
