"""Fakes of log, snapshots and leadership, with the moods of a real database.

`MemoryServer` stands for the database; adapters are connections to it, so several control planes can share
one. A mood lasts until changed; `next_appends` overrides it for single appends, oldest first. What the fakes
promise is held to the same contract suite as Postgres.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Protocol

from control_plane.app.delivery import Cursor, Told
from control_plane.app.ports import BadRecord, Kept, Record, Snapshot
from control_plane.core.errors import AppendOutcomeUnknown, Reason, Unavailable


class Mood(Enum):
    """How the fake behaves."""

    NORMAL = "normal"
    SLOW = "slow"
    """Waits `delay_s` before each answer."""
    BROKEN = "broken"
    """Refuses everything; certainly nothing happened."""
    UNKNOWN_KEPT = "unknown_kept"
    """Appends, then loses the answer."""
    UNKNOWN_LOST = "unknown_lost"
    """Loses the append."""


class FirstBad(Protocol):
    """`app.chain.first_bad`; given in, because adapters know the ports and not the application."""

    def __call__(
        self, records: Sequence[Record], *, after_seq: int, prev_hash: bytes | None, version_max: int
    ) -> BadRecord | None:
        """The first record that breaks the chain."""
        ...


class MemoryServer:
    """What survives a control plane: records, snapshots, epoch, what was sent where."""

    def __init__(self, first_bad: FirstBad) -> None:
        self.first_bad = first_bad
        self.records: list[Record] = []
        self.snapshots: dict[int, Snapshot] = {}
        self.cursors: dict[str, Cursor] = {}
        self.told: dict[str, dict[str, Told]] = {}
        self.epoch = 0
        self.leader: object | None = None
        self.changed = asyncio.Event()
        self.mood = Mood.NORMAL
        self.next_appends: deque[Mood] = deque()
        self.delay_s = 0.01
        self.appends = 0

    async def meet(self, mood: Mood | None = None) -> Mood:
        """Behave as the mood says; returns it."""
        mood = mood or self.mood
        # A database always lets others run first; code that relies on an answer without a wait is wrong.
        await asyncio.sleep(self.delay_s if mood is Mood.SLOW else 0)
        if mood is Mood.BROKEN:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "The database is not available: the fake is broken")
        return mood

    def depose(self) -> None:
        """Break the leader's connection, as the server does with a frozen one."""
        self.leader = None
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryEventLog:
    """`EventLog` on a `MemoryServer`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def head(self) -> tuple[int, bytes]:
        """Seq and hash of the last event."""
        await self._server.meet()
        records = self._server.records
        return (records[-1].seq, records[-1].hash) if records else (0, b"")

    async def append(self, epoch: int, records: Sequence[Record]) -> None:
        """Append a batch if the epoch is current and the seqs follow."""
        server = self._server
        if not records:
            return
        mood = await server.meet(server.next_appends.popleft() if server.next_appends else None)
        if mood is Mood.UNKNOWN_LOST:
            raise AppendOutcomeUnknown("the fake lost an append")
        head = server.records[-1].seq if server.records else 0
        if epoch != server.epoch or records[0].seq != head + 1:
            raise Unavailable(Reason.NOT_LEADER, f"epoch {epoch} is over", epoch=str(epoch))
        server.records.extend(records)
        server.appends += 1
        if mood is Mood.UNKNOWN_KEPT:
            raise AppendOutcomeUnknown("the fake lost the answer to an append")

    async def read(self, after_seq: int, limit: int) -> list[Record]:
        """A page of records."""
        await self._server.meet()
        return [record for record in self._server.records if record.seq > after_seq][:limit]

    async def seq_at(self, at: datetime) -> int:
        """Seq of the last event not after an instant."""
        await self._server.meet()
        records = self._server.records
        place = bisect_right(records, at, key=lambda record: record.at)
        return records[place - 1].seq if place else 0

    async def verify(self, after_seq: int, to_seq: int, version_max: int) -> BadRecord | None:
        """The first record that breaks chain, order or version."""
        await self._server.meet()
        before = next((record for record in self._server.records if record.seq == after_seq), None)
        return self._server.first_bad(
            [record for record in self._server.records if after_seq < record.seq <= to_seq],
            after_seq=after_seq,
            prev_hash=before.hash if before else b"",
            version_max=version_max,
        )

    async def close(self) -> None:
        """Nothing to close."""


class MemorySnapshotStore:
    """`SnapshotStore` on a `MemoryServer`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def save(self, snapshot: Snapshot) -> None:
        """Keep this one."""
        await self._server.meet()
        self._server.snapshots[snapshot.seq] = snapshot

    async def kept(self) -> list[Kept]:
        """All that are kept, oldest first."""
        await self._server.meet()
        found = self._server.snapshots
        return [Kept(seq=seq, size_bytes=len(found[seq].blob)) for seq in sorted(found)]

    async def drop(self, seqs: Sequence[int]) -> None:
        """Forget those of these seqs."""
        await self._server.meet()
        for seq in seqs:
            self._server.snapshots.pop(seq, None)

    async def newest(self, before_seq: int | None = None) -> Snapshot | None:
        """The newest snapshot, or the newest below `before_seq`."""
        await self._server.meet()
        seqs = [seq for seq in self._server.snapshots if before_seq is None or seq < before_seq]
        return self._server.snapshots[max(seqs)] if seqs else None

    async def close(self) -> None:
        """Nothing to close."""


class MemoryLeadership:
    """`Leadership` on a `MemoryServer`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._session: object | None = None

    async def acquire(self) -> int:
        """Wait until nobody leads."""
        await self.release()
        await self._server.meet()
        while self._server.leader is not None:
            await self._server.changed.wait()
        self._session = self._server.leader = object()
        self._server.epoch += 1
        return self._server.epoch

    async def heartbeat(self) -> None:
        """Fails when somebody else leads or the database is away."""
        try:
            await self._server.meet()
        except Unavailable as error:
            await self.release()
            raise Unavailable(Reason.NOT_LEADER, f"Leadership was lost: {error}") from error
        if self._session is None or self._server.leader is not self._session:
            raise Unavailable(Reason.NOT_LEADER, "This control plane does not lead.")

    async def release(self) -> None:
        """Let the next one lead."""
        if self._session is not None and self._server.leader is self._session:
            self._server.depose()
        self._session = None
