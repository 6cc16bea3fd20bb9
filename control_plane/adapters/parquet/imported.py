"""Partials that another engine joined, taken into the catalogue.

With the Spark engine this process neither joins nor seals: the jobs hand absolute partials over through the Delta
table `partials`, a row for each (model, label, hour) and layer, and the last one wins. Every file of that table is read
once; which were is remembered in the same transaction that enters what they hold.
"""

from collections.abc import Iterator

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.segments import write_durably
from control_plane.adapters.parquet.tables import LocalPlace, storage_options
from control_plane.core.ground_truth.tables import LABELS_FILE, PARTIALS

log = structlog.get_logger("runway.facts")

FILES_AT_ONCE_MAX = 64
"""Files entered in one tick."""


class Imports:
    """Looks after one table of partials."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._labels = b""
        facts.catalog.db.execute("CREATE TABLE IF NOT EXISTS imported (path TEXT PRIMARY KEY) WITHOUT ROWID")

    def tick(self) -> int:
        """Tell the jobs the labels, and enter what they handed over; the number of rows entered."""
        self._tell_labels()
        url = f"{self._facts.tables.place.url}/{PARTIALS}"
        try:
            table = DeltaTable(url, storage_options=storage_options(url) or None)
        except TableNotFoundError:
            return 0
        found = [path for _, path in sorted(_files(table))]
        known = {str(row[0]) for row in self._facts.catalog.db.execute("SELECT path FROM imported")}
        new = [path for path in found if path not in known][:FILES_AT_ONCE_MAX]
        rows = 0
        for path in new:
            rows += self._enter(path)
        return rows

    def _tell_labels(self) -> None:
        with self._facts.lock:
            known = {model_id: self._facts.labels_of(model_id) for model_id in sorted(self._facts.labels)}
        text = msgspec.json.encode(known)
        place = self._facts.tables.place
        if text == self._labels or not isinstance(place, LocalPlace):
            return
        place.root.mkdir(parents=True, exist_ok=True)
        write_durably(place.root / LABELS_FILE, text)
        self._labels = text

    def _enter(self, path: str) -> int:
        table = pq.read_table(self._facts.tables.place.local(f"{PARTIALS}/{path}"), partitioning=None)
        rows = sorted(table.to_pylist(), key=lambda row: row["computed_us"])
        catalog = self._facts.catalog
        with self._facts.lock, catalog.transaction():
            for row in rows:
                key = (row["model_id"], row["label_type"], row["hour"])
                if row["versions"] and not (row["layer"] == "speed" and self._is_joined(*key)):
                    packed = {one["version"]: one["packed"] for one in row["versions"]}
                    catalog.put_partials(*key, row["layer"], packed)
                catalog.put_orphans(*key, row["orphans"])
            catalog.db.execute("INSERT OR IGNORE INTO imported VALUES (?)", (path,))
            for model_id in {row["model_id"] for row in rows}:
                self._facts.note_arrival(model_id, 1)
        log.debug("facts.imported", path=path, rows=len(rows))
        return len(rows)

    def _is_joined(self, model_id: str, label_type: str, hour: int) -> bool:
        """Has the batch layer spoken of an hour? Then the speed layer has no more to say of it."""
        found = self._facts.catalog.db.execute(
            "SELECT 1 FROM partials WHERE model_id = ? AND label_type = ? AND hour = ? AND layer = 'batch'",
            (model_id, label_type, hour),
        ).fetchone()
        return found is not None


def _files(table: DeltaTable) -> Iterator[tuple[str, str]]:
    """(when it was written, path) of each file."""
    for row in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        yield str(row["modification_time"]), str(row["path"])
