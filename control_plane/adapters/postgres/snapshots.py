"""Whole-state snapshots in Postgres: `SnapshotStore` of app/ports.py."""

from collections.abc import Sequence

from control_plane.adapters.postgres.session import Session, as_unavailable
from control_plane.adapters.postgres.sql import QUERIES
from control_plane.app.ports import Kept, Snapshot

SEQ_MAX = 2**63 - 1


class PostgresSnapshotStore:
    """Snapshots as rows; the blob is compressed by its writer, so Postgres stores it as it is."""

    def __init__(self, url: str) -> None:
        self._session = Session(url, "snapshots")

    async def save(self, snapshot: Snapshot) -> None:
        """Keep this one."""
        async with as_unavailable(), self._session.connection() as connection:
            await connection.execute(
                QUERIES["save_snapshot"],
                {
                    "seq": snapshot.seq,
                    "hash": snapshot.hash,
                    "codec": snapshot.codec,
                    "blob": snapshot.blob,
                },
            )

    async def kept(self) -> list[Kept]:
        """All that are kept, oldest first."""
        async with as_unavailable(), self._session.connection() as connection:
            rows = await (await connection.execute(QUERIES["kept_snapshots"])).fetchall()
        return [Kept(seq=seq, size_bytes=size) for seq, size in rows]

    async def drop(self, seqs: Sequence[int]) -> None:
        """Forget those of these seqs."""
        if not seqs:
            return
        async with as_unavailable(), self._session.connection() as connection:
            await connection.execute(QUERIES["drop_snapshots"], {"seqs": list(seqs)})

    async def newest(self, before_seq: int | None = None) -> Snapshot | None:
        """The newest snapshot, or the newest with a seq below `before_seq`."""
        below = SEQ_MAX if before_seq is None else before_seq
        async with as_unavailable(), self._session.connection() as connection:
            cursor = connection.cursor(binary=True)
            await cursor.execute(QUERIES["newest_snapshot"], {"before_seq": below})
            row = await cursor.fetchone()
        return Snapshot(seq=row[0], hash=row[1], codec=row[2], blob=row[3]) if row else None

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()
