"""Erasing predictions and all that hangs on them, from every layer, down to the bytes.

Theory of operation. What is to be erased is written into the catalogue first, so that a crash anywhere is finished at
the next start. From then on tombstones keep the ids out. The open segment is closed and all segments become Parquet,
then every file is searched, those of the tables, those of features and those that nothing refers to any more; a file
that holds one of the ids is written anew without its rows, takes the old one's place in one commit of its table, and
the old one is deleted at once, not after the usual grace. Hours that lost rows are joined again. At the end everything
is searched a second time, the catalogue forgets the ids, and its file is written anew so that no deleted page is left.

What stays: sums. Histogram counts, volumes, beliefs and partials hold no ids and name nobody.
"""

import hashlib
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from control_plane.adapters.parquet.conversion import Conversion
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.maintenance import Maintenance
from control_plane.adapters.parquet.recovery import parse
from control_plane.adapters.parquet.sealing import parquet_options
from control_plane.adapters.parquet.segments import read_segment
from control_plane.adapters.parquet.tables import TableFile
from control_plane.adapters.parquet.writer import Writer
from control_plane.app.fact_reports import EraseBeside, Erased, ErasedLayer
from control_plane.core.ground_truth.ids import ID_BYTES, IdColumns, id_columns
from control_plane.core.ground_truth.tables import KINDS, TableKind

FOLDERS = ("predictions", "outcomes", "features")


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, kept until it is done."""

    prediction_ids: list[bytes]
    entity_ids: list[str]
    found: dict[str, int] = {}
    """Layer -> rows found in earlier tries."""
    rewritten: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class _Ids:
    """Distinct ids, in the shapes in which they are looked for."""

    raw: frozenset[bytes]

    @property
    def arrow(self) -> pa.Array:
        return pa.array(sorted(self.raw), pa.binary(ID_BYTES))

    @property
    def columns(self) -> IdColumns:
        joined = np.frombuffer(b"".join(sorted(self.raw)), np.uint8)
        return id_columns(joined.reshape(-1, ID_BYTES))


class Erasure:
    """Erases; one call at a time."""

    def __init__(self, facts: Facts, writer: Writer, maintenance: Maintenance) -> None:
        self._facts = facts
        self._writer = writer
        self._maintenance = maintenance
        self._conversion = Conversion(facts, writer)
        self._one = threading.Lock()

    def erase(
        self,
        request_id: str,
        prediction_ids: Sequence[bytes],
        entity_ids: Sequence[str],
        now: datetime,
        beside: EraseBeside,
    ) -> Erased:
        """See `FactStore`."""
        with self._one:
            done = self._done(request_id)
            if done is not None:
                return done
            begun = _Begun(prediction_ids=sorted(set(prediction_ids)), entity_ids=sorted(set(entity_ids)))
            self._keep(request_id, begun)
            return self._finish(request_id, begun, now, beside)

    def resume(self, now: datetime, beside: EraseBeside) -> tuple[str, ...]:
        """See `FactStore`."""
        with self._one:
            self._scrub_pages()
            rows = self._facts.catalog.db.execute("SELECT request_id, begun FROM erasing ORDER BY request_id")
            waiting = [(str(row[0]), msgspec.msgpack.decode(row[1], type=_Begun)) for row in rows.fetchall()]
            for request_id, begun in waiting:
                self._finish(request_id, begun, now, beside)
        return tuple(request_id for request_id, _ in waiting)

    def _done(self, request_id: str) -> Erased | None:
        with self._facts.lock:
            row = self._facts.catalog.db.execute("SELECT done FROM erased WHERE request_id = ?", (request_id,))
            found = row.fetchone()
        return msgspec.msgpack.decode(found[0], type=Erased) if found else None

    def _keep(self, request_id: str, begun: _Begun) -> None:
        """What is under way, and that its ids stay out from now on."""
        facts = self._facts
        with self._writer.exclusive, facts.lock, facts.catalog.transaction():
            facts.catalog.db.execute(
                "INSERT OR REPLACE INTO erasing VALUES (?, ?)", (request_id, msgspec.msgpack.encode(begun))
            )
            if begun.prediction_ids:
                facts.tombstones.add(facts.catalog.db, _Ids(frozenset(begun.prediction_ids)).columns)

    def _finish(self, request_id: str, begun: _Begun, now: datetime, beside: EraseBeside) -> Erased:
        found, rewritten = Counter(begun.found), Counter(begun.rewritten)
        with self._maintenance.alone():
            found["segments"] += self._in_segments(_Ids(frozenset(begun.prediction_ids)))
            self._convert()
            ids = _Ids(frozenset(begun.prediction_ids) | self._of_entities(begun.entity_ids))
            if len(ids.raw) > len(begun.prediction_ids):
                begun = msgspec.structs.replace(begun, prediction_ids=sorted(ids.raw))
                self._keep(request_id, begun)
                self._convert()
            if ids.raw:
                for folder in FOLDERS:
                    rows, files = self._rewrite(folder, ids)
                    found[folder] += rows
                    rewritten[folder] += files
                    begun = msgspec.structs.replace(begun, found=dict(found), rewritten=dict(rewritten))
                    self._keep(request_id, begun)
                found["speed view"] += self._from_memory(ids)
                found["orphans"] += self._orphans(ids, delete=True)
        if ids.raw:
            self._maintenance.finish(now)
        layers = self._layers(ids, begun.entity_ids, found, rewritten)
        layers += beside(ids.raw, tuple(begun.entity_ids))
        done = Erased(ids=len(ids.raw), ids_sha256=ids_sha256(ids.raw), layers=layers)
        self._scrub(request_id, done)
        return done

    def _convert(self) -> None:
        """All that has arrived becomes files; its segments go."""
        with self._writer.exclusive, self._facts.lock:
            self._facts.log.close_segment()
            last = self._facts.log.number
        while any(number <= last for number in self._conversion.waiting()):
            self._conversion.convert()

    def _in_segments(self, ids: _Ids) -> int:
        with self._writer.exclusive, self._facts.lock:
            self._facts.log.close_segment()
            numbers = self._facts.log.closed_numbers()
        rows = 0
        for number in numbers:
            for record in read_segment(self._facts.log.path(number)):
                batch = parse(record)
                if batch is not None and ids.raw:
                    rows += int(np.count_nonzero(_inside(batch.table.column("prediction_id"), ids)))
        return rows

    def _of_entities(self, entity_ids: Sequence[str]) -> frozenset[bytes]:
        """Predictions of these entities."""
        if not entity_ids:
            return frozenset()
        ids: set[bytes] = set()
        place, wanted = self._facts.tables.place, pa.array(entity_ids, pa.string())
        for path in place.paths("predictions"):
            file = place.local(path)
            if "entity_id" not in pq.read_schema(file).names:
                continue
            rows = pq.read_table(file, columns=["prediction_id", "entity_id"], partitioning=None)
            mine = rows.filter(pc.is_in(rows.column("entity_id").cast(pa.string()), value_set=wanted))
            ids.update(mine.column("prediction_id").to_pylist())
        return frozenset(ids)

    def _rewrite(self, folder: str, ids: _Ids) -> tuple[int, int]:
        """Write every file of a folder anew that holds one of the ids; rows that went, and files."""
        place = self._facts.tables.place
        kinds: dict[str, TableKind] = {kind: kind for kind in KINDS}
        kind = kinds.get(folder)
        counted = {f"{kind}/{file.path}": file for file in self._facts.tables.files(kind)} if kind else {}
        rows = files = 0
        for path in place.paths(folder):
            inside = _inside_file(place.local(path), ids)
            if not inside.any():
                continue
            rows += int(np.count_nonzero(inside))
            files += 1
            self._replace(path, kind, counted.get(path), inside)
        return rows, files

    def _replace(
        self,
        path: str,
        kind: TableKind | None,
        before: TableFile | None,
        inside: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    ) -> None:
        """One file."""
        facts = self._facts
        with facts.lock:
            known = facts.catalog.db.execute("SELECT id FROM files WHERE path = ?", (path,)).fetchone()
        if (kind is not None and before is None) or (kind is None and known is None):
            facts.tables.place.delete(path)  # merged or dropped before; it only waited for its readers
            return
        whole = pq.read_table(facts.tables.place.local(path), partitioning=None)
        left = whole.filter(pa.array(~inside))
        hours = _by_hour(whole.filter(pa.array(inside)))
        folder, _, name = path.rpartition("/")
        new = f"{folder}/erased-{uuid.uuid4().hex[:12]}-{name.removeprefix('erased-')[-60:]}"
        size = facts.tables.place.write(new, left, parquet_options(left)) if left.num_rows else 0
        if kind is not None and before is not None:
            added = TableFile(path=new.partition("/")[2], day=before.day, rows=left.num_rows, size=size)
            facts.tables.commit(kind, [added] if left.num_rows else [], removed=[before])
        with facts.lock, facts.catalog.transaction():
            facts.catalog.replace_file(path, new, _by_hour(left), size)
            for model_id, of_model in hours_by_model(hours).items():
                touched = {one for hour in of_model for one in (hour, *facts.catalog.prediction_hours(model_id, hour))}
                newest = facts.catalog.db.execute("SELECT coalesce(max(id), 0) FROM files").fetchone()[0]
                facts.catalog.mark_due(model_id, touched, int(newest))
        facts.tables.place.delete(path)

    def _from_memory(self, ids: _Ids) -> int:
        facts = self._facts
        with facts.lock:
            rows = 0
            for model_id, count in facts.speed.erase(ids.columns).items():
                rows += count
                facts.note_arrival(model_id, 0)  # its numbers have changed: shared views are written again
        return rows

    def _orphans(self, ids: _Ids, *, delete: bool) -> int:
        facts, found = self._facts, 0
        with facts.lock, facts.catalog.transaction():
            for one in ids.raw:
                found += int(
                    facts.catalog.db.execute("SELECT count(*) FROM orphans WHERE prediction_id = ?", (one,)).fetchone()[
                        0
                    ]
                )
                if delete:
                    facts.catalog.db.execute("DELETE FROM orphans WHERE prediction_id = ?", (one,))
        return found

    def _layers(
        self, ids: _Ids, entity_ids: Sequence[str], found: Counter[str], rewritten: Counter[str]
    ) -> tuple[ErasedLayer, ...]:
        """What was found, and what a second search of everything finds."""
        place = self._facts.tables.place
        left = {"segments": self._in_segments(ids), "orphans": self._orphans(ids, delete=False)}
        with self._facts.lock:
            left["speed view"] = sum(self._facts.speed.count(ids.columns).values()) if ids.raw else 0
        for folder in FOLDERS:
            left[folder] = sum(
                int(np.count_nonzero(_inside_file(place.local(path), ids))) for path in place.paths(folder) if ids.raw
            )
        left["predictions"] += len(self._of_entities(entity_ids))
        notes = {
            "segments": "turned into files of the tables, then deleted",
            "speed view": "joined again without them; what is shared is written again",
            "predictions": "old files are deleted, not kept for readers",
            "outcomes": "outcomes that come later for these ids are dropped",
        }
        told = [
            ErasedLayer(
                layer=name,
                found=found[name],
                left=left[name],
                files_rewritten=rewritten[name],
                note=notes.get(name, ""),
            )
            for name in ("segments", *FOLDERS, "speed view", "orphans")
        ]
        told.append(
            ErasedLayer(
                layer="aggregates",
                found=0,
                left=0,
                note="partials of the hours were joined again; counts, earlier beliefs and histograms hold no ids",
            )
        )
        return tuple(told)

    def _scrub(self, request_id: str, done: Erased) -> None:
        """Keep what was done, forget of what, and leave no deleted page in the catalogue's file."""
        facts = self._facts
        with self._writer.exclusive, facts.lock, facts.catalog.transaction():
            facts.catalog.db.execute(
                "INSERT OR REPLACE INTO erased VALUES (?, ?)", (request_id, msgspec.msgpack.encode(done))
            )
            facts.catalog.db.execute("DELETE FROM erasing WHERE request_id = ?", (request_id,))
            facts.catalog.set_meta("scrub_due", 1)
        self._scrub_pages()

    def _scrub_pages(self) -> None:
        """Deleted rows stay in pages of the file until it is written anew."""
        facts = self._facts
        with self._writer.exclusive, facts.lock:
            if not facts.catalog.meta("scrub_due"):
                return
            facts.catalog.db.execute("VACUUM")
            facts.catalog.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with facts.catalog.transaction():
                facts.catalog.set_meta("scrub_due", 0)


def ids_sha256(ids: Iterable[bytes]) -> str:
    """Over the sorted ids, one after the other."""
    return hashlib.sha256(b"".join(sorted(ids))).hexdigest()


def nothing_beside(ids: frozenset[bytes], entity_ids: tuple[str, ...]) -> tuple[ErasedLayer, ...]:
    """For a store that stands alone."""
    return ()


def hours_by_model(rows: dict[tuple[str, int], int]) -> dict[str, list[int]]:
    """Hours that have rows."""
    found: dict[str, list[int]] = {}
    for model_id, hour in rows:
        found.setdefault(model_id, []).append(hour)
    return found


def _by_hour(rows: pa.Table) -> dict[tuple[str, int], int]:
    if not rows.num_rows:
        return {}
    keys = pa.table({"model_id": rows.column("model_id").cast(pa.string()), "hour": rows.column("hour")})
    counted = keys.group_by(["model_id", "hour"]).aggregate([([], "count_all")]).to_pylist()
    return {(row["model_id"], row["hour"]): row["count_all"] for row in counted}


def _inside_file(file: object, ids: _Ids) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    return _inside(pq.read_table(file, columns=["prediction_id"], partitioning=None).column(0), ids)


def _inside(column: pa.ChunkedArray, ids: _Ids) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which rows have one of the ids. Shape (n,)."""
    plain = column.cast(pa.binary(ID_BYTES))
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.is_in(plain, value_set=ids.arrow).to_numpy()
    return found
