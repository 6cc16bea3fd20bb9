"""The catalogue: which Parquet files exist, and every small durable number beside them.

One SQLite file. A segment becomes Parquet in one transaction here: its files, batch ids and histograms appear
together or not at all, so that a crash anywhere counts nothing twice. SQLite syncs fully at each commit.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from control_plane.adapters.parquet.beliefs import keep_replaced
from control_plane.adapters.parquet.binning import HOURS_PER_DAY
from control_plane.adapters.parquet.schema import SCHEMA
from control_plane.app.fact_reports import Orphan
from control_plane.core.errors import Reason, Unavailable

Layer = Literal["speed", "batch"]

SCHEMA_VERSION = 5
ORPHANS_MAX = 100_000
"""Orphans listed over all models; beyond it they are counted, not listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A Parquet file to be entered."""

    kind: str
    """`predictions`, `outcomes` or `features`."""
    path: str
    rows: dict[tuple[str, int], int]
    """By (model id, partition hour)."""
    hours_in_ids: frozenset[tuple[str, int, int]]
    """Of predictions: (model id, hour in id, prediction hour)."""
    sliced: bool
    """Has rows with slices."""
    size: int
    last_hour: int = -1
    """The newest hour of its days: the file is kept until that is old, whatever the ids of its rows say."""


class CatalogUnreadable(Unavailable):
    """The catalogue cannot be used by this version of Runway, or not at all."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(
            Reason.STORE_UNAVAILABLE,
            f"the catalogue {path.name} in {path.parent} cannot be used: {cause}. Restore it from a backup, start the "
            "version of Runway that wrote it, or move the directory away to start without its facts (`make reset` "
            "forgets everything else too)",
        )


class Catalog:
    """Rows of the catalogue. Not safe for concurrent use; its owner serialises."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._changes: dict[tuple[str, int], int] = {}
        try:
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            self.db.close()
            raise CatalogUnreadable(path, str(error)) from error
        except CatalogUnreadable:
            self.db.close()
            raise

    def _prepare(self, path: Path) -> None:
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        found = int(self.db.execute("PRAGMA user_version").fetchone()[0])
        if found not in (0, SCHEMA_VERSION):
            raise CatalogUnreadable(path, f"it has version {found}, this program knows {SCHEMA_VERSION}")
        with self.transaction():
            for statement in SCHEMA.split(";"):
                self.db.execute(statement)
            self.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable on leaving."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def meta(self, name: str) -> int:
        """A number by name; 0 if it was never set."""
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def set_meta(self, name: str, value: int) -> None:
        """Set a number."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def add_file(self, entry: FileEntry, *, due: bool = True) -> int:
        """Enter a file and mark the hours it touches as due for a join, unless its rows were in other files before."""
        row = self.db.execute(
            "INSERT INTO files (kind, path, rows, hour_max, sliced, size) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
            (
                entry.kind,
                entry.path,
                sum(entry.rows.values()),
                max(entry.last_hour, *(hour for _, hour in entry.rows)),
                entry.sliced,
                entry.size,
            ),
        ).fetchone()
        file_id = int(row[0])
        self.db.executemany(
            "INSERT INTO file_hours VALUES (?, ?, ?, ?, ?)",
            [(model_id, entry.kind, hour, file_id, rows) for (model_id, hour), rows in entry.rows.items()],
        )
        self.db.executemany("INSERT OR IGNORE INTO hours_in_ids VALUES (?, ?, ?)", sorted(entry.hours_in_ids))
        if due and entry.kind != "features":
            self._mark_touched(entry, file_id)
        return file_id

    def _mark_touched(self, entry: FileEntry, file_id: int) -> None:
        touched: dict[str, set[int]] = {}
        for model_id, hour in entry.rows:
            hours = touched.setdefault(model_id, set())
            hours.add(hour)
            if entry.kind == "outcomes":
                hours.update(self.prediction_hours(model_id, hour))
        for model_id in touched:
            self._changed(model_id, {hour for one, hour in entry.rows if one == model_id})
        for model_id, in_id, _ in entry.hours_in_ids:
            touched[model_id].add(in_id)
        for model_id, hours in touched.items():
            self.mark_due(model_id, hours, file_id)

    def changes_of(self, model_id: str, day: int) -> int:
        """How often files or partials of a day's predictions have changed since the start."""
        return self._changes.get((model_id, day), 0)

    def _changed(self, model_id: str, hours: Iterable[int]) -> None:
        for day in {hour // 24 for hour in hours}:
            self._changes[(model_id, day)] = self._changes.get((model_id, day), 0) + 1

    def add_volume(self, model_id: str, hour: int, predictions: int) -> None:
        """Count predictions of an hour; negative when counts are replaced."""
        self.db.execute(
            "INSERT INTO volumes VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
            "SET predictions = predictions + excluded.predictions",
            (model_id, hour, predictions),
        )

    def mark_due(self, model_id: str, hours: Iterable[int], file_id: int) -> None:
        """These hours need a join that sees at least this file."""
        self.db.executemany(
            "INSERT INTO due VALUES (?, ?, ?, 0) ON CONFLICT DO UPDATE "
            "SET file_id = max(file_id, excluded.file_id), after_hour = 0",
            [(model_id, hour, file_id) for hour in sorted(hours)],
        )

    def prediction_hours(self, model_id: str, hour_in_id: int) -> list[int]:
        """Hours of predictions whose ids carry an hour."""
        return [
            int(row[0])
            for row in self.db.execute(
                "SELECT hour FROM hours_in_ids WHERE model_id = ? AND hour_in_id = ?", (model_id, hour_in_id)
            )
        ]

    def hours_in_ids(self, model_id: str, hour: int) -> list[int]:
        """Hours that the ids of an hour's predictions carry."""
        return [
            int(row[0])
            for row in self.db.execute(
                "SELECT hour_in_id FROM hours_in_ids WHERE model_id = ? AND hour = ?", (model_id, hour)
            )
        ]

    def settle_due(self, model_id: str, hour: int, seen_file: int, again_at_hour: int, now_us: int) -> None:
        """An hour was joined with all files up to one; `again_at_hour` > 0 asks for another join then."""
        self.db.execute("INSERT OR REPLACE INTO joined_hours VALUES (?, ?, ?)", (model_id, hour, now_us))
        where = "WHERE model_id = ? AND hour = ? AND file_id <= ?"
        if again_at_hour:
            self.db.execute(
                f"UPDATE due SET after_hour = ? {where}",  # noqa: S608 - a constant is put in
                (again_at_hour, model_id, hour, seen_file),
            )
        else:
            self.db.execute(f"DELETE FROM due {where}", (model_id, hour, seen_file))  # noqa: S608 - likewise

    def put_orphans(self, model_id: str, label_type: str, hour: int, count: int) -> None:
        """Replace the number of orphans of an hour; those listed before are listed anew."""
        for table in ("orphan_hours", "orphans"):
            self.db.execute(
                f"DELETE FROM {table} WHERE model_id = ? AND label_type = ? AND hour = ?",  # noqa: S608 - constants
                (model_id, label_type, hour),
            )
        if count:
            self.db.execute("INSERT INTO orphan_hours VALUES (?, ?, ?, ?)", (model_id, label_type, hour, count))

    def orphans(self, model_id: str, limit: int) -> tuple[Orphan, ...]:
        """Listed orphans of a model, newest first."""
        rows = self.db.execute(
            "SELECT model_id, label_type, hour, prediction_id, observed_us, value, revision FROM orphans "
            "WHERE model_id = ? ORDER BY observed_us DESC LIMIT ?",
            (model_id, limit),
        )
        return tuple(
            Orphan(
                model_id=row[0],
                label_type=row[1],
                hour=row[2],
                prediction_id=row[3],
                observed_us=row[4],
                value=row[5],
                revision=row[6],
            )
            for row in rows
        )

    def orphans_total(self, model_id: str) -> int:
        """Orphans of a model, listed or not."""
        row = self.db.execute("SELECT coalesce(sum(orphans), 0) FROM orphan_hours WHERE model_id = ?", (model_id,))
        return int(row.fetchone()[0])

    def files_before(self, hour: int) -> list[tuple[str, str]]:
        """(kind, path) of files whose days all end before an hour."""
        found = self.db.execute("SELECT kind, path FROM files WHERE hour_max < ? ORDER BY id", (hour,)).fetchall()
        return [(str(kind), str(path)) for kind, path in found]

    def forget_files(self, paths: Iterable[str], *, delete_after_us: int) -> None:
        """Forget files; their rows are gone, or in others. They may be deleted after an instant."""
        for path in paths:
            row = self.db.execute("SELECT id FROM files WHERE path = ?", (path,)).fetchone()
            if row is None:
                continue
            hours: dict[str, list[int]] = {}
            for model_id, hour in self.db.execute("SELECT model_id, hour FROM file_hours WHERE file_id = ?", row):
                hours.setdefault(model_id, []).append(int(hour))
            for model_id, of_model in hours.items():
                self._changed(model_id, of_model)
            self.db.execute("DELETE FROM file_hours WHERE file_id = ?", row)
            self.db.execute("DELETE FROM files WHERE id = ?", row)
            self.db.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", (path, delete_after_us))

    def replace_file(self, path: str, new: str, rows: dict[tuple[str, int], int], size: int) -> None:
        """A file lost rows and has another name; it keeps its place among the others. Without rows it is gone."""
        row = self.db.execute("SELECT id, kind FROM files WHERE path = ?", (path,)).fetchone()
        if row is None:
            return
        file_id, kind = int(row[0]), str(row[1])
        before = self.db.execute("SELECT model_id, hour FROM file_hours WHERE file_id = ?", (file_id,)).fetchall()
        for model_id, hour in before:
            self._changed(str(model_id), [int(hour)])
        self.db.execute("DELETE FROM file_hours WHERE file_id = ?", (file_id,))
        if rows:
            self.db.execute(
                "UPDATE files SET path = ?, rows = ?, size = ? WHERE id = ?", (new, sum(rows.values()), size, file_id)
            )
            self.db.executemany(
                "INSERT INTO file_hours VALUES (?, ?, ?, ?, ?)",
                [(model_id, kind, hour, file_id, count) for (model_id, hour), count in rows.items()],
            )
        else:
            self.db.execute("DELETE FROM files WHERE id = ?", (file_id,))

    def forgotten(self, now_us: int) -> list[str]:
        """Files that were forgotten and may be deleted now."""
        found = self.db.execute("SELECT path FROM forgotten WHERE after_us <= ? ORDER BY path", (now_us,))
        return [str(row[0]) for row in found]

    def deleted(self, paths: Iterable[str]) -> None:
        """These are gone."""
        self.db.executemany("DELETE FROM forgotten WHERE path = ?", [(path,) for path in paths])

    def files_of(self, model_id: str, kind: str, hours: Iterable[int]) -> list[tuple[str, bool]]:
        """(path, has slices) of files with rows of these hours, oldest first."""
        wanted = sorted(set(hours))
        if not wanted:
            return []
        marks = ",".join("?" * len(wanted))
        rows = self.db.execute(
            "SELECT DISTINCT f.id, f.path, f.sliced FROM file_hours h JOIN files f ON f.id = h.file_id "  # noqa: S608 - marks only
            f"WHERE h.model_id = ? AND h.kind = ? AND h.hour IN ({marks}) ORDER BY f.id",
            (model_id, kind, *wanted),
        )
        return [(str(path), bool(sliced)) for _, path, sliced in rows]

    def rows_of(self, model_id: str, kind: str, hour: int) -> int:
        """Rows of one hour over all files."""
        row = self.db.execute(
            "SELECT coalesce(sum(rows), 0) FROM file_hours WHERE model_id = ? AND kind = ? AND hour = ?",
            (model_id, kind, hour),
        ).fetchone()
        return int(row[0])

    def put_partials(
        self,
        model_id: str,
        label_type: str,
        hour: int,
        layer: Layer,
        packed_by_version: dict[int, bytes],
        *,
        computed_us: int = 0,
    ) -> None:
        """Replace one layer's partials of an hour; the batch layer's replace the speed layer's too.

        What answered until now is kept as a belief, and the merge of the day is made anew.
        """
        self._changed(model_id, [hour])
        keep_replaced(self.db, model_id, label_type, hour, layer, packed_by_version, computed_us)
        day = (model_id, label_type, hour // HOURS_PER_DAY)
        self.db.execute("DELETE FROM day_partials WHERE model_id = ? AND label_type = ? AND day = ?", day)
        self.db.execute("INSERT OR IGNORE INTO stale_days VALUES (?, ?, ?)", day)
        self.db.execute(
            "DELETE FROM partials WHERE model_id = ? AND label_type = ? AND hour = ? AND (layer = ? OR ? = 'batch')",
            (model_id, label_type, hour, layer, layer),
        )
        self.db.executemany(
            "INSERT INTO partials VALUES (?, ?, ?, ?, ?, ?)",
            [(model_id, label_type, hour, version, layer, packed) for version, packed in packed_by_version.items()],
        )

    def put_slice_partials(
        self, model_id: str, label_type: str, hour: int, packed_by_slice: dict[tuple[str, int], bytes]
    ) -> None:
        """Replace the partials of an hour's slices, by (slice, version)."""
        self.db.execute(
            "DELETE FROM slice_partials WHERE model_id = ? AND label_type = ? AND hour = ?",
            (model_id, label_type, hour),
        )
        self.db.executemany(
            "INSERT INTO slice_partials VALUES (?, ?, ?, ?, ?, ?)",
            [(model_id, label_type, hour, *key, packed) for key, packed in sorted(packed_by_slice.items())],
        )
