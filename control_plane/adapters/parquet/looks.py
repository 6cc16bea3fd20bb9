"""Looks in a SQLite file beside the facts: one row each, evidence by its sha256, both compressed."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import zstandard

from control_plane.app.looks import Look
from control_plane.core.errors import Reason, Unavailable
from control_plane.core.ids import ModelId
from control_plane.core.staleness.evidence import ScoreAt
from control_plane.core.staleness.verdict import Evaluation

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS looks (
    model_id TEXT NOT NULL, at_us INTEGER NOT NULL, version INTEGER NOT NULL, score REAL NOT NULL, look BLOB NOT NULL,
    PRIMARY KEY (model_id, at_us)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evidence (
    sha256 TEXT PRIMARY KEY, recorded_us INTEGER NOT NULL, data BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS evidence_by_age ON evidence (recorded_us)
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Evaluation] = msgspec.msgpack.Decoder(Evaluation)


class SqliteLooks:
    """Implements `app.looks.Looks`. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._codec = threading.Lock()
        """Neither of the two may be used by two threads at once."""
        self._pack = zstandard.ZstdCompressor(level=3)
        self._unpack = zstandard.ZstdDecompressor()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if found not in (0, SCHEMA_VERSION):
                raise self._unusable(f"it has version {found}, this program knows {SCHEMA_VERSION}")
            self._db.executescript(f"{SCHEMA}; PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise self._unusable(str(error)) from error
        except Unavailable:
            self._db.close()
            raise

    def record(self, looks: Sequence[Look], evidence: Mapping[str, bytes]) -> None:
        """See `Looks`."""
        rows = [
            (one.model_id, _us(one.evaluation.at), one.evaluation.version, one.evaluation.score, self._packed(one))
            for one in looks
        ]
        recorded = max((row[1] for row in rows), default=0)
        blobs = [(digest, recorded, self._compressed(data)) for digest, data in sorted(evidence.items())]
        with self._using() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany("INSERT OR IGNORE INTO evidence VALUES (?, ?, ?)", blobs)
                db.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?)", rows)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def between(self, model_id: ModelId, start: datetime, end: datetime, limit: int) -> list[Look]:
        """See `Looks`."""
        return self._looks(
            "SELECT model_id, look FROM looks WHERE model_id = ? AND at_us >= ? AND at_us < ? "
            "ORDER BY at_us DESC LIMIT ?",
            (model_id, _us(start), _us(end), limit),
        )

    def thinned(self, model_id: ModelId, start: datetime, end: datetime, points: int) -> list[Look]:
        """See `Looks`."""
        first, span = _us(start), max(_us(end) - _us(start), 1)
        return self._looks(
            "SELECT model_id, look FROM looks WHERE model_id = ?1 AND at_us IN (SELECT max(at_us) FROM looks "
            # Whole microseconds times points stay below 2^63 for three centuries of 10,000 points.
            "WHERE model_id = ?1 AND at_us >= ?2 AND at_us < ?3 GROUP BY (at_us - ?2) * ?4 / ?5) ORDER BY at_us DESC",
            (model_id, first, _us(end), points, span),
        )

    def first_at(self, model_id: ModelId, start: datetime, end: datetime) -> datetime | None:
        """See `Looks`."""
        with self._using() as db:
            row = db.execute(
                "SELECT min(at_us) FROM looks WHERE model_id = ? AND at_us >= ? AND at_us < ?",
                (model_id, _us(start), _us(end)),
            ).fetchone()
        return None if row[0] is None else _EPOCH + row[0] * _US

    def made_at(self, model_id: ModelId, at: datetime) -> Look | None:
        """See `Looks`."""
        found = self._looks("SELECT model_id, look FROM looks WHERE model_id = ? AND at_us = ?", (model_id, _us(at)))
        return found[0] if found else None

    def latest(self) -> dict[ModelId, Evaluation]:
        """See `Looks`."""
        found = self._looks(
            "SELECT model_id, look FROM looks JOIN (SELECT model_id, max(at_us) AS at_us FROM looks GROUP BY model_id) "
            "USING (model_id, at_us)",
            (),
        )
        return {one.model_id: one.evaluation for one in found}

    def scores(self, model_id: ModelId, version: int, before: datetime, points: int) -> tuple[ScoreAt, ...]:
        """See `Looks`."""
        with self._using() as db:
            rows: list[tuple[int, float]] = db.execute(
                "SELECT at_us, score FROM looks WHERE model_id = ? AND version = ? AND at_us < ? ORDER BY at_us",
                (model_id, version, _us(before)),
            ).fetchall()
        if not rows:
            return ()
        first, span = rows[0][0], max(rows[-1][0] - rows[0][0] + 1, 1)
        newest = {(at - first) * points // span: (at, score) for at, score in rows}
        return tuple(ScoreAt(at=_EPOCH + at * _US, score=score) for _, (at, score) in sorted(newest.items()))

    def evidence(self, digest: str) -> bytes | None:
        """See `Looks`."""
        with self._using() as db:
            row = db.execute("SELECT data FROM evidence WHERE sha256 = ?", (digest,)).fetchone()
        if row is None:
            return None
        try:
            return self._decompressed(row[0])
        except zstandard.ZstdError:
            return bytes(row[0])  # damaged: whoever asked compares the sha256

    def expire(self, before: datetime) -> int:
        """See `Looks`."""
        with self._using() as db:
            gone = db.execute("DELETE FROM looks WHERE at_us < ?", (_us(before),)).rowcount
            db.execute("DELETE FROM evidence WHERE recorded_us < ?", (_us(before),))
        return gone

    def close(self) -> None:
        """See `Looks`."""
        with self._lock:
            self._db.close()

    def _looks(self, sql: str, parameters: tuple[object, ...]) -> list[Look]:
        with self._using() as db:
            rows = db.execute(sql, parameters).fetchall()
        return [
            Look(model_id=ModelId(model_id), evaluation=_decoder.decode(self._decompressed(look)))
            for model_id, look in rows
        ]

    def _packed(self, look: Look) -> bytes:
        return self._compressed(_encoder.encode(look.evaluation))

    def _compressed(self, data: bytes) -> bytes:
        with self._codec:
            return self._pack.compress(data)

    def _decompressed(self, data: bytes) -> bytes:
        with self._codec:
            return self._unpack.decompress(data)

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise self._unusable(str(error)) from error

    def _unusable(self, cause: str) -> Unavailable:
        return Unavailable(
            Reason.STORE_UNAVAILABLE,
            f"the looks in {self._path.name} cannot be used: {cause}. Free disk space if it is full; else move the "
            "file away to go on without earlier looks",
        )


def _us(at: datetime) -> int:
    return (at - _EPOCH) // _US
