"""Whole-state snapshots in Postgres: `SnapshotStore` of app/ports.py."""

from control_plane.adapters.postgres.session import Session, as_unavailable
from control_plane.adapters.postgres.sql import QUERIES
from control_plane.app.ports import Snapshot

KEPT = 3
"""The newest, and two to fall back on should it be unreadable."""

SEQ_MAX = 2**63 - 1


class PostgresSnapshotStore:
    """The newest few snapshots as rows; the blob is compressed by its writer, so Postgres stores it "
    "as it is."""

    def __init__(self, url: str) -> None:
        self._session = Session(url, "snapshots")

    async def save(self, snapshot: Snapshot) -> None:
        """Keep this one, drop the oldest."""
        async with as_unavailable(), self._session.connection() as connection, connection.transaction():
            await connection.execute(
                QUERIES["save_snapshot"],
                {
                    "seq": snapshot.seq,
                    "hash": snapshot.hash,
                    "codec": snapshot.codec,
                    "blob": snapshot.blob,
                },
            )
            await connection.execute(QUERIES["drop_old_snapshots"], {"keep": KEPT})

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
