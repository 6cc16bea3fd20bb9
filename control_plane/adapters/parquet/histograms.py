"""Hourly and daily counts of features and scores, binned on arrival by the version's reference edges.

A count is made once, when its batch is appended; later questions only add vectors. Counts of sealed segments are
in the catalogue, those of the others in memory, by segment: after a crash the unsealed segments are read again and
give the same counts, and sealing moves a segment's counts over in the transaction that seals it.

The catalogue holds each count twice: in its hour, and in its day. A window is the sum of its whole days and of the
hours at its ends, so that seven days are some thirty rows and not 168. Hours are dropped after a while, days are kept
for more than a year; fine counts are kept by day alone.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control_plane.adapters.parquet.binning import HOURS_PER_DAY, Cells, Counted
from control_plane.adapters.parquet.catalog import Catalog
from control_plane.adapters.parquet.profile import Profile
from control_plane.adapters.parquet.schema import key_of, pack_counts, unpack_counts

Int64s = npt.NDArray[np.int64]
_KEY_MASK = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Series:
    """Whose counts: a version's predictions, all or one slice of them, binned by one profile."""

    model_id: str
    version: int
    digest: str
    slice: str = ""


class Histograms:
    """All counts. Not safe for concurrent use; its owner serialises."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._ids: dict[Series, int] = {}
        self._by_model: dict[str, list[Series]] = {}
        self._unsealed: dict[int, dict[Series, dict[int, Cells]]] = {}
        self._unsealed_fine: dict[int, dict[Series, dict[int, Int64s]]] = {}

    def load(self) -> None:
        """Read which series there are."""
        for number, *key in self._catalog.db.execute("SELECT id, model_id, version, digest, slice FROM series"):
            self._keep(Series(*key), int(number))

    def _keep(self, series: Series, number: int) -> None:
        self._ids[series] = number
        self._note(series)

    def _note(self, series: Series) -> None:
        known = self._by_model.setdefault(series.model_id, [])
        if series not in known:
            known.append(series)
            known.sort(key=lambda one: (one.version, one.digest, one.slice))

    def number(self, series: Series) -> int:
        """The number of a series, a new one if need be; inside a transaction."""
        number = self._ids.get(series)
        if number is None:
            key = (series.model_id, series.version, series.digest, series.slice)
            db = self._catalog.db
            db.execute("INSERT OR IGNORE INTO series (model_id, version, digest, slice) VALUES (?, ?, ?, ?)", key)
            row = db.execute(
                "SELECT id FROM series WHERE model_id = ? AND version = ? AND digest = ? AND slice = ?", key
            ).fetchone()
            # Not kept before the transaction is durable: it may be rolled back, and the number given to another.
            number = int(row[0])
        return number

    def settled(self) -> None:
        """A transaction that stored counts is durable: learn the numbers it gave."""
        newest = max(self._ids.values(), default=0)
        for number, *key in self._catalog.db.execute(
            "SELECT id, model_id, version, digest, slice FROM series WHERE id > ?", (newest,)
        ).fetchall():
            self._keep(Series(*key), int(number))

    def series_of(self, model_id: str) -> list[Series]:
        """All series of a model, by version, profile and slice."""
        return self._by_model.get(model_id, [])

    def add(self, segment: int, model_id: str, version: int, digest: str, counted: Counted) -> None:
        """Count rows of an unsealed segment."""
        unsealed = self._unsealed.setdefault(segment, {})
        for (slice_name, hour), cells in counted.hours.items():
            series = Series(model_id, version, digest, slice_name)
            hours = unsealed.get(series)
            if hours is None:
                hours = unsealed[series] = {}
                self._note(series)
            known = hours.get(hour)
            hours[hour] = cells if known is None else known.plus(cells)
        if counted.fine_days:
            days = self._unsealed_fine.setdefault(segment, {}).setdefault(Series(model_id, version, digest), {})
            for day, fine in counted.fine_days.items():
                # 32 bits hold what one segment can count, and halve what a fleet of fine bins takes.
                days[day] = fine.astype(np.int32) if day not in days else days[day] + fine.astype(np.int32)

    def seal(self, segment: int) -> None:
        """Move a segment's counts to the catalogue; call inside the transaction that seals it, then `sealed`."""
        for series, hours in self._unsealed.get(segment, {}).items():
            self.store(series, hours)
        for series, days in self._unsealed_fine.get(segment, {}).items():
            self.store_fine(series, days)

    def sealed(self, segment: int) -> None:
        """The sealing transaction is durable: let go of the segment's counts."""
        self.settled()
        self._unsealed.pop(segment, None)
        self._unsealed_fine.pop(segment, None)

    def store(self, series: Series, hours: dict[int, Cells], *, hours_from: int = 0) -> None:
        """Add counts to the catalogue; call inside a transaction, then `settled`.

        Args:
            hours: counts to add; they may be negative, sums with what is stored not.
            hours_from: of hours before this one only the days are kept.
        """
        number = self.number(series)
        days: dict[int, Cells] = {}
        for hour, cells in hours.items():
            if hour >= hours_from:
                self._add("hour_counts", key_of(number, hour), cells)
            day = hour // HOURS_PER_DAY
            days[day] = days[day].plus(cells) if day in days else cells
        for day, cells in days.items():
            self._add("day_counts", key_of(number, day), cells)

    def _add(self, table: str, key: int, cells: Cells) -> None:
        db = self._catalog.db
        row = db.execute(f"SELECT rows, cells FROM {table} WHERE key = ?", (key,)).fetchone()  # noqa: S608 - constant
        total = cells if row is None else cells.plus(Cells(int(row[0]), unpack_counts(row[1]).astype(np.int64)))
        db.execute(
            f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",  # noqa: S608 - a constant is put in
            (key, total.rows, pack_counts(total.counts)),
        )

    def store_fine(self, series: Series, days: dict[int, Int64s]) -> None:
        """Add fine counts to the catalogue; inside a transaction."""
        number = self.number(series)
        db = self._catalog.db
        for day, fine in days.items():
            key = key_of(number, day)
            row = db.execute("SELECT cells FROM day_fine_counts WHERE key = ?", (key,)).fetchone()
            total = fine.astype(np.int64)
            if row is not None:
                total = total + unpack_counts(zlib.decompress(row[0])).astype(np.int64)
            packed = zlib.compress(pack_counts(total), 1)
            db.execute("INSERT OR REPLACE INTO day_fine_counts VALUES (?, ?)", (key, packed))

    def forget(self, model_id: str, version: int, digest: str) -> None:
        """Drop everything counted for a version by a profile, to be rebuilt; inside a transaction."""
        for series in self.series_of(model_id):
            if (series.version, series.digest) == (version, digest) and series in self._ids:
                span = (key_of(self._ids[series], 0), key_of(self._ids[series] + 1, 0))
                for table in ("hour_counts", "day_counts", "day_fine_counts"):
                    self._catalog.db.execute(f"DELETE FROM {table} WHERE key >= ? AND key < ?", span)  # noqa: S608
        for unsealed in (self._unsealed, self._unsealed_fine):
            for counts in unsealed.values():
                for series in [one for one in counts if one.model_id == model_id and one.version == version]:
                    if series.digest == digest:
                        del counts[series]

    def drop_before(self, hour: int, day: int) -> None:
        """Let go of hours and days before these; inside a transaction."""
        for number in self._ids.values():
            for table, before in (("hour_counts", hour), ("day_counts", day), ("day_fine_counts", day)):
                self._catalog.db.execute(
                    f"DELETE FROM {table} WHERE key >= ? AND key < ?",  # noqa: S608 - constants are put in
                    _span(number, 0, before),
                )
            self._catalog.db.execute(
                "DELETE FROM sent_counts WHERE series = ? AND hour < ?", (number, day * HOURS_PER_DAY)
            )

    def between(self, series: Series, profile: Profile, start: int, end: int) -> Cells:
        """Counts of hours start <= hour < end."""
        total = np.zeros(profile.width, np.int64)
        rows = 0
        for stored_rows, packed in self._stored(series, start, end):
            rows += stored_rows
            np.add(total, unpack_counts(packed), out=total, casting="unsafe")
        for counts in self._unsealed.values():
            for hour, cells in counts.get(series, {}).items():
                if start <= hour < end:
                    rows += cells.rows
                    total += cells.counts
        return Cells(rows, total)

    def _stored(self, series: Series, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Whole days, and hours at the ends."""
        number = self._ids.get(series)
        if number is None:
            return
        first_day, last_day = -(-start // HOURS_PER_DAY), end // HOURS_PER_DAY
        if first_day >= last_day:
            yield from self._rows("hour_counts", number, start, end)
            return
        yield from self._rows("hour_counts", number, start, first_day * HOURS_PER_DAY)
        yield from self._rows("day_counts", number, first_day, last_day)
        yield from self._rows("hour_counts", number, last_day * HOURS_PER_DAY, end)

    def _rows(self, table: str, number: int, start: int, end: int) -> list[tuple[int, bytes]]:
        if start >= end:
            return []
        return self._catalog.db.execute(
            f"SELECT rows, cells FROM {table} WHERE key >= ? AND key < ?",  # noqa: S608 - a constant is put in
            _span(number, start, end),
        ).fetchall()

    def days(self, series: Series, start: int, end: int) -> dict[int, Cells]:
        """Counts of each day start <= day < end, those in memory included."""
        found: dict[int, Cells] = {}
        number = self._ids.get(series)
        if number is not None:
            for key, rows, packed in self._catalog.db.execute(
                "SELECT key, rows, cells FROM day_counts WHERE key >= ? AND key < ?",
                _span(number, start, end),
            ):
                found[key & _KEY_MASK] = Cells(int(rows), unpack_counts(packed).astype(np.int64))
        for counts in self._unsealed.values():
            for hour, cells in counts.get(series, {}).items():
                day = hour // HOURS_PER_DAY
                if start <= day < end:
                    found[day] = found[day].plus(cells) if day in found else cells
        return found

    def fine_days(self, series: Series, start: int, end: int) -> dict[int, Int64s]:
        """Fine counts of each day start <= day < end, those in memory included."""
        found: dict[int, Int64s] = {}
        number = self._ids.get(series)
        if number is not None:
            for key, packed in self._catalog.db.execute(
                "SELECT key, cells FROM day_fine_counts WHERE key >= ? AND key < ?",
                _span(number, start, end),
            ):
                found[key & _KEY_MASK] = unpack_counts(zlib.decompress(packed)).astype(np.int64)
        for counts in self._unsealed_fine.values():
            for day, fine in counts.get(series, {}).items():
                if start <= day < end:
                    found[day] = found[day] + fine if day in found else fine.astype(np.int64)
        return found

    def recorded(self, model_id: str, start: int, end: int) -> dict[tuple[int, str], dict[int, Cells]]:
        """Hours start <= hour < end of all predictions of a model: (version, digest) -> hour -> counts."""
        found: dict[tuple[int, str], dict[int, Cells]] = {}
        for series in self.series_of(model_id):
            if series.slice:
                continue
            hours = found.setdefault((series.version, series.digest), {})
            number = self._ids.get(series)
            if number is not None:
                for key, rows, packed in self._catalog.db.execute(
                    "SELECT key, rows, cells FROM hour_counts WHERE key >= ? AND key < ?",
                    _span(number, start, end),
                ):
                    # As narrow as stored: whoever reads a month of a fleet widens it once, in bulk.
                    hours[key & _KEY_MASK] = Cells(int(rows), unpack_counts(packed))  # type: ignore[arg-type]
            for counts in self._unsealed.values():
                for hour, cells in counts.get(series, {}).items():
                    if start <= hour < end:
                        known = hours.get(hour)
                        hours[hour] = (
                            cells if known is None else cells.plus(Cells(known.rows, known.counts.astype(np.int64)))
                        )
        return found


def _span(number: int, start: int, end: int) -> tuple[int, int]:
    """Keys of start <= hour or day < end; nothing was predicted before 1970."""
    return key_of(number, max(start, 0)), key_of(number, max(end, 0))
