"""Dead letters on local disk: one SQLite file, and each payload in a file of its own beside it.

A payload is durable before its row is written, so every row has its payload; a payload without a row is what a crash
left, and goes at the next start. There is a limit to how many and how much is kept: beyond it the oldest go, which is
counted and said. Safe to use from several threads.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from control_plane.adapters.parquet.segments import write_durably
from control_plane.app.arrivals import Arrival, DeadLetter
from control_plane.core.errors import Reason, Unavailable

LETTERS_MAX = 10_000
"""Letters kept: more than anybody reads, and an index that stays small."""
LETTERS_BYTES_MAX = 1024 * 2**20
"""Bytes of payloads kept: an hour of a wrong producer at 300 kB/s."""

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL UNIQUE, received_us INTEGER NOT NULL,
    model_id TEXT NOT NULL, arrival BLOB NOT NULL, size INTEGER NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
    replays INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS letters_by_model ON letters (model_id, id);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)
"""
_COLUMNS = "id, received_us, arrival, size, reason, message, replays"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_Row = tuple[int, int, bytes, int, str, str, int]


class SqliteDeadLetters:
    """Implements `app.arrivals.DeadLetters`."""

    def __init__(self, directory: Path, *, letters_max: int = LETTERS_MAX, bytes_max: int = LETTERS_BYTES_MAX) -> None:
        (directory / "payloads").mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._letters_max = letters_max
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._db = sqlite3.connect(directory / "letters.sqlite", isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if found not in (0, SCHEMA_VERSION):
                raise _unavailable(f"they have version {found}, this program knows {SCHEMA_VERSION}")
            self._db.executescript(f"{SCHEMA}; PRAGMA user_version = {SCHEMA_VERSION}")
            self._tidy()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise _unavailable(str(error)) from error
        except Unavailable:
            self._db.close()
            raise

    def keep(self, arrival: Arrival, reason: str, message: str, at: datetime) -> DeadLetter:
        """See `DeadLetters`."""
        content = _content(arrival)
        with self._writing():
            if self._payload(content).exists() is False:
                write_durably(self._payload(content), arrival.payload)
            self._db.execute(
                "INSERT INTO letters (content, received_us, model_id, arrival, size, reason, message) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (content) DO UPDATE SET reason = excluded.reason, message = excluded.message",
                (
                    content,
                    (at - _EPOCH) // _US,
                    arrival.model_id,
                    msgspec.json.encode(msgspec.structs.replace(arrival, payload=b"")),
                    len(arrival.payload),
                    reason,
                    message,
                ),
            )
            row = self._db.execute(
                f"SELECT {_COLUMNS} FROM letters WHERE content = ?",  # noqa: S608 - a constant is put in
                (content,),
            ).fetchone()
            self._make_room(int(row[0]))
        return _letter(row)

    def find(self, model_id: str = "", ids: Sequence[int] = (), limit: int = 0) -> list[DeadLetter]:
        """See `DeadLetters`."""
        where, values = _where(model_id, ids)
        with self._reading():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM letters {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 - marks only
                (*values, limit or -1),
            ).fetchall()
        return [_letter(row) for row in rows]

    def opened(self, letter_id: int) -> Arrival | None:
        """See `DeadLetters`."""
        with self._reading():
            row = self._db.execute("SELECT content, arrival FROM letters WHERE id = ?", (letter_id,)).fetchone()
            if row is None:
                return None
            payload = self._payload(row[0]).read_bytes()
        return msgspec.structs.replace(msgspec.json.decode(row[1], type=Arrival), payload=payload)

    def tried(self, letter_id: int, reason: str, message: str) -> None:
        """See `DeadLetters`."""
        with self._writing():
            self._db.execute(
                "UPDATE letters SET replays = replays + 1, reason = ?, message = ? WHERE id = ?",
                (reason, message, letter_id),
            )

    def discard(self, ids: Sequence[int]) -> int:
        """See `DeadLetters`."""
        gone = 0
        with self._writing():
            for letter_id in ids:
                gone += self._forget(letter_id)
        return gone

    def total(self, model_id: str = "") -> int:
        """See `DeadLetters`."""
        where, values = _where(model_id, ())
        with self._reading():
            return int(self._db.execute(f"SELECT count(*) FROM letters {where}", values).fetchone()[0])  # noqa: S608

    def dropped(self) -> int:
        """See `DeadLetters`."""
        with self._reading():
            row = self._db.execute("SELECT value FROM counters WHERE name = 'dropped'").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """See `DeadLetters`."""
        with self._lock:
            self._db.close()

    def _make_room(self, newest: int) -> None:
        """Let the oldest go until the rest fits; never the one that has just come."""
        count, size = self._db.execute("SELECT count(*), coalesce(sum(size), 0) FROM letters").fetchone()
        oldest = self._db.execute("SELECT id, size FROM letters WHERE id <> ? ORDER BY id", (newest,)).fetchall()
        for letter_id, letter_size in oldest:
            if count <= self._letters_max and size <= self._bytes_max:
                return
            self._forget(letter_id)
            self._db.execute(
                "INSERT INTO counters VALUES ('dropped', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
            )
            count, size = count - 1, size - letter_size

    def _forget(self, letter_id: int) -> int:
        row = self._db.execute("DELETE FROM letters WHERE id = ? RETURNING content", (letter_id,)).fetchone()
        if row is None:
            return 0
        self._payload(row[0]).unlink(missing_ok=True)
        return 1

    def _tidy(self) -> None:
        """Remove what a crash left: payloads without a row, drafts."""
        known = {f"{content}.bin" for (content,) in self._db.execute("SELECT content FROM letters")}
        for path in (self._directory / "payloads").iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)

    def _payload(self, content: str) -> Path:
        return self._directory / "payloads" / f"{content}.bin"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                raise _unavailable(str(error)) from error

    _reading = _writing


def _where(model_id: str, ids: Sequence[int]) -> tuple[str, tuple[object, ...]]:
    parts: list[str] = []
    values: list[object] = []
    if model_id:
        parts.append("model_id = ?")
        values.append(model_id)
    if ids:
        parts.append(f"id IN ({','.join('?' * len(ids))})")
        values.extend(ids)
    return (f"WHERE {' AND '.join(parts)}" if parts else "", tuple(values))


def _content(arrival: Arrival) -> str:
    """What makes two letters the same: all of the batch but when it came."""
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(arrival, payload=b"")))
    digest.update(arrival.payload)
    return digest.hexdigest()


def _letter(row: _Row) -> DeadLetter:
    letter_id, received_us, arrival, size, reason, message, replays = row
    return DeadLetter(
        letter_id=letter_id,
        received_at=_EPOCH + received_us * _US,
        arrival=msgspec.json.decode(arrival, type=Arrival),
        size=size,
        reason=reason,
        message=message,
        replays=replays,
    )


def _unavailable(cause: str) -> Unavailable:
    return Unavailable(Reason.STORE_UNAVAILABLE, f"the dead letters cannot be used: {cause}")
