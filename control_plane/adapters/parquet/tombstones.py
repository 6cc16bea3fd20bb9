"""Which ids were erased, so that a replay does not bring them back, without keeping them.

A tombstone is a keyed 64-bit hash of an id's 128 bits. No id follows from it, with the key or without; that another id
has the same one happens once in 10^19 pairs, and would cost one row.
"""

import secrets
import sqlite3

import numpy as np
import numpy.typing as npt

from control_plane.core.ground_truth.ids import IdColumns
from control_plane.core.ground_truth.join import Bools

_UInt64s = npt.NDArray[np.uint64]


class Tombstones:
    """Hashes in memory, and in the catalogue. Not safe for concurrent use; its owner serialises."""

    def __init__(self) -> None:
        self._hashes: _UInt64s = np.zeros(0, np.uint64)
        self._key = (np.uint64(0), np.uint64(0))

    def load(self, db: sqlite3.Connection) -> None:
        """Read the catalogue's; makes the key if there is none."""
        found = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('erasure_key_0', 'erasure_key_1')"))
        if len(found) < 2:
            found = {f"erasure_key_{n}": secrets.randbits(62) for n in (0, 1)}
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(found.items()))
        self._key = (np.uint64(found["erasure_key_0"]), np.uint64(found["erasure_key_1"]))
        hashes = [row[0] for row in db.execute("SELECT hash FROM tombstones")]
        self._hashes = np.sort(np.array(hashes, np.int64).view(np.uint64))

    def add(self, db: sqlite3.Connection, ids: IdColumns) -> None:
        """Never let these in again. Durable with the transaction around."""
        hashes = self._hash(ids)
        rows = [(int(one),) for one in hashes.view(np.int64)]
        db.executemany("INSERT OR IGNORE INTO tombstones VALUES (?)", rows)
        self._hashes = np.union1d(self._hashes, hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def holds(self, ids: IdColumns) -> Bools:
        """Which ids were erased. Shape (n,)."""
        if not len(self._hashes):
            return np.zeros(len(ids.key), np.bool_)
        hashes = self._hash(ids)
        at = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        found: Bools = self._hashes[at] == hashes
        return found

    def _hash(self, ids: IdColumns) -> _UInt64s:
        first = _mixed(np.asarray(ids.key, np.uint64) ^ self._key[0])
        return _mixed(first ^ _mixed(np.asarray(ids.high, np.uint64) ^ self._key[1]))


def _mixed(x: _UInt64s) -> _UInt64s:
    """The finaliser of splitmix64: each bit depends on all."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
