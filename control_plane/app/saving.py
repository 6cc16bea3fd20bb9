"""Stores snapshots beside the writer: what later events would change is copied at once, some milliseconds; the rest,
encoding, compressing, storing and dropping those no longer needed, goes on beside it, one at a time.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Generic

import structlog
import zstandard

from control_plane.app import limits
from control_plane.app.checkpoints import to_drop
from control_plane.app.collector import collector_paused
from control_plane.app.ports import CommandT, S, Snapshot, SnapshotStore
from control_plane.app.replica import Replica
from control_plane.core.errors import Unavailable

log = structlog.get_logger("runway.snapshots")

ZSTD_LEVEL = 3
"""The default: five times smaller at hundreds of megabytes a second; higher levels cost time for little."""


class Saving(Generic[S, CommandT]):
    """The snapshots of one node."""

    def __init__(self, snapshots: SnapshotStore, codec: int, every: int) -> None:
        self._snapshots = snapshots
        self._codec = codec
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._saved_at = float("-inf")
        self.seq = 0
        """Seq of the newest snapshot begun or restored from."""
        self.saved = 0

    def due(self, replica: Replica[S, CommandT]) -> bool:
        """Enough events have passed, and enough time, and none is being stored."""
        return (
            replica.durable - self.seq >= self._every
            and time.monotonic() - self._saved_at >= limits.SNAPSHOT_PAUSE_S_MIN
            and (self._task is None or self._task.done())
        )

    async def begin(self, replica: Replica[S, CommandT]) -> None:
        """Capture the state now, while nothing in it is undurable, and begin to store it."""
        await self.finish()
        with collector_paused():
            seq, digest, encode = replica.capture()
        self.seq, self._saved_at = seq, time.monotonic()
        self._task = asyncio.create_task(self._save(seq, digest, encode))

    async def finish(self) -> None:
        """Wait until the one under way is stored, or failed."""
        task, self._task = self._task, None
        if task is not None:
            await task

    async def _save(self, seq: int, digest: bytes, encode: Callable[[], bytes]) -> None:
        try:
            packed = await asyncio.to_thread(_packed, encode)
            await self._snapshots.save(Snapshot(seq=seq, hash=digest, codec=self._codec, blob=packed))
            await self._snapshots.drop(to_drop(await self._snapshots.kept(), every=self._every))
        except Unavailable as error:
            log.warning("snapshot.not_saved", seq=seq, error=str(error))
        except Exception:  # the driver's edge: a snapshot is a cache, its failure must not end the service
            log.exception("snapshot.fault", seq=seq)
        else:
            self.saved += 1
            log.info("snapshot.saved", seq=seq, bytes=len(packed))


def _packed(encode: Callable[[], bytes]) -> bytes:
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(encode())
