"""Small files of a past day become large ones.

Outcomes of a day trickle in for weeks: every conversion leaves a small file for each day that it has rows of. Once a
day has `FILES_MIN` small files that the speed view needs no more, they are merged into one, ordered by model, hour and
bucket throughout. Rows, their order of arrival (a column) and columns that others added stay as they are.

Theory of operation. What is to be merged into what is written into the catalogue first (`merging`). Then comes the new
file, then one Delta commit that adds it and removes the old ones, then one transaction of the catalogue that does the
same; old files are deleted after a grace. After a crash `recover` looks whether the commit was done: then the
catalogue's part is done too, else the new file is deleted and nothing has happened.
"""

import json
from collections import defaultdict
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from control_plane.adapters.parquet.catalog import FileEntry
from control_plane.adapters.parquet.facts import Facts, hour_of
from control_plane.adapters.parquet.retention import GRACE, MICROSECOND
from control_plane.adapters.parquet.sealing import HOURS_PER_DAY, parquet_options
from control_plane.adapters.parquet.tables import TableFile
from control_plane.core.ground_truth.tables import KINDS, TableKind

FILES_MIN = 8
"""Small files of a day that are worth merging: a row is written again once for every eightfold growth of its file."""
FILES_MAX = 256
"""Files merged at once; each is opened."""
SMALL_ROWS = 500_000
"""Files of fewer rows are small."""
MERGED_ROWS_MAX = 2_000_000
"""Rows merged at once: a quarter of a GiB in memory."""
CHECKPOINT_COMMITS = 100
"""Commits of a table after which its log gets a checkpoint: a reader reads that and no more than so many files."""
_TEXTS = ("model_id", "source", "slices", "entity_id", "label_type")


@dataclass(frozen=True, slots=True)
class _Merge:
    """Files, as the catalogue names them, and the one that takes their place."""

    kind: TableKind
    old: tuple[str, ...]
    new: str


class Compaction:
    """Merges; one call at a time."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def step(self, now_us: int) -> bool:
        """Merge some files of one day, if there are any to merge; False if not."""
        merge = self._next(now_us)
        if merge is None:
            return False
        catalog, place = self._facts.catalog, self._facts.tables.place
        with self._facts.lock, catalog.transaction():
            catalog.db.execute("INSERT INTO merging VALUES (?, ?, ?)", (merge.new, merge.kind, json.dumps(merge.old)))
        counted = {file.path: file for file in self._facts.tables.files(merge.kind)}
        removed = [counted.get(path.partition("/")[2]) for path in merge.old]
        if all(file is not None for file in removed):
            table = _merged(
                [
                    pq.read_table(place.local(path), partitioning=None, read_dictionary=list(_TEXTS))
                    for path in merge.old
                ]
            )
            size = place.write(merge.new, table, parquet_options(table))
            day = next(file.day for file in removed if file is not None)
            added = TableFile(path=merge.new.partition("/")[2], day=day, rows=table.num_rows, size=size)
            self._facts.tables.commit(merge.kind, [added], removed=[file for file in removed if file is not None])
            self._enter(merge, size, now_us)
            return True
        with self._facts.lock, catalog.transaction():  # another writer merged or removed some of them: leave it alone
            catalog.db.execute("DELETE FROM merging WHERE path = ?", (merge.new,))
        return False

    def recover(self) -> None:
        """Finish or forget what a crash interrupted; before anything else is read."""
        for path, kind, old in self._facts.catalog.db.execute("SELECT path, kind, old FROM merging").fetchall():
            merge = _Merge(kind, tuple(json.loads(old)), path)
            found = [file for file in self._facts.tables.files(kind) if file.path == path.partition("/")[2]]
            if found:
                self._enter(merge, found[0].size, self._facts.catalog.meta("passed_us"))
            else:
                self._facts.tables.place.delete(path)
                with self._facts.catalog.transaction():
                    self._facts.catalog.db.execute("DELETE FROM merging WHERE path = ?", (path,))

    def tidy(self) -> None:
        """Let the logs of the tables not grow for ever."""
        for kind in KINDS:
            version = self._facts.tables.version(kind)
            done = self._facts.catalog.meta(f"checkpoint_{kind}")
            if version >= done + CHECKPOINT_COMMITS:
                self._facts.tables.checkpoint(kind)
                with self._facts.lock, self._facts.catalog.transaction():
                    self._facts.catalog.set_meta(f"checkpoint_{kind}", version)

    def _next(self, now_us: int) -> _Merge | None:
        """The oldest day that has enough small files."""
        yesterday = hour_of(now_us) - HOURS_PER_DAY
        days: dict[tuple[str, str], list[tuple[int, int, str]]] = defaultdict(list)
        with self._facts.lock:
            for file_id, kind, path, rows in self._facts.catalog.db.execute(
                "SELECT id, kind, path, rows FROM files WHERE kind <> 'features' AND rows < ? AND hour_max < ?",
                (SMALL_ROWS, yesterday),
            ).fetchall():
                days[(path.split("/")[1], kind)].append((rows, file_id, path))
            for (day, kind), files in sorted(days.items()):
                if len(files) < FILES_MIN:
                    continue
                chosen = self._chosen(files)
                if len(chosen) >= FILES_MIN:
                    number = self._facts.catalog.meta("merges") + 1
                    self._facts.catalog.set_meta("merges", number)
                    new = f"{kind}/{day}/merged-{now_us}-{number}.parquet"
                    return _Merge("predictions" if kind == "predictions" else "outcomes", tuple(chosen), new)
        return None

    def _chosen(self, files: list[tuple[int, int, str]]) -> list[str]:
        """The smallest first, as many as fit; none that the speed view would load after a restart, which wants them in
        order of arrival."""
        chosen: list[str] = []
        total = 0
        for rows, file_id, path in sorted(files):
            if total + rows > MERGED_ROWS_MAX or len(chosen) >= FILES_MAX:
                break
            if not self._live(file_id):
                chosen.append(path)
                total += rows
        return chosen

    def _live(self, file_id: int) -> bool:
        return any(
            hour >= self._facts.speed.horizon(model_id)
            for model_id, hour in self._facts.catalog.db.execute(
                "SELECT model_id, max(hour) FROM file_hours WHERE file_id = ? GROUP BY model_id", (file_id,)
            )
        )

    def _enter(self, merge: _Merge, size: int, now_us: int) -> None:
        """The catalogue's part."""
        catalog = self._facts.catalog
        rows: dict[tuple[str, int], int] = defaultdict(int)
        last_hour, sliced = -1, False
        with self._facts.lock, catalog.transaction():
            for path in merge.old:
                found = catalog.db.execute("SELECT id, hour_max, sliced FROM files WHERE path = ?", (path,)).fetchone()
                if found is None:
                    continue
                last_hour, sliced = max(last_hour, int(found[1])), sliced or bool(found[2])
                for model_id, hour, count in catalog.db.execute(
                    "SELECT model_id, hour, rows FROM file_hours WHERE file_id = ?", (found[0],)
                ):
                    rows[(model_id, hour)] += count
            catalog.forget_files(merge.old, delete_after_us=now_us + GRACE // MICROSECOND)
            entry = FileEntry(
                kind=merge.kind,
                path=merge.new,
                rows=dict(rows),
                hours_in_ids=frozenset(),  # known since the rows were first entered
                sliced=sliced,
                size=size,
                last_hour=last_hour,
            )
            catalog.add_file(entry, due=False)
            catalog.db.execute("DELETE FROM merging WHERE path = ?", (merge.new,))


def _merged(tables: list[pa.Table]) -> pa.Table:
    """All rows by model, hour and bucket; a column that some files lack is null there."""
    table = pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()
    keys = pa.table(
        {
            "model_id": table.column("model_id").cast(pa.string()),
            "hour": table.column("hour"),
            "bucket": table.column("bucket"),
            "arrival": table.column("arrival"),
        }
    )
    order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names])
    return table.take(order)
