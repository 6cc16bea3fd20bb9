"""The event log in Postgres: `EventLog` of app/ports.py."""

from collections.abc import Sequence
from datetime import datetime

import psycopg

from control_plane.adapters.postgres.session import Session, as_unavailable, unavailable
from control_plane.adapters.postgres.sql import QUERIES
from control_plane.app.ports import BadRecord, Record
from control_plane.core.errors import AppendOutcomeUnknown, Reason, Unavailable


class PostgresEventLog:
    """Appends on one connection, reads on another: a long catch-up never holds up a write."""

    def __init__(self, url: str) -> None:
        self._writing = Session(url, "append")
        self._reading = Session(url, "read")

    async def head(self) -> tuple[int, bytes]:
        """Seq and hash of the last event."""
        async with as_unavailable(), self._reading.connection() as connection:
            row = await (await connection.execute(QUERIES["head"])).fetchone()
        return (row[0], row[1]) if row else (0, b"")

    async def append(self, epoch: int, records: Sequence[Record]) -> None:
        """Append a batch in one statement that also checks the epoch and the head."""
        if not records:
            return
        try:
            async with self._writing.connection() as connection:
                inserted = await self._insert(connection, epoch, records)
        except psycopg.errors.UniqueViolation as error:
            raise _deposed(epoch) from error
        except psycopg.Error as error:
            if _server_said_no(error):
                raise unavailable(error) from error
            raise AppendOutcomeUnknown(f"No answer to an append of {len(records)} events: {error}") from error
        except TimeoutError as error:
            raise AppendOutcomeUnknown(f"No answer to an append of {len(records)} events in time") from error
        if inserted != len(records):
            raise _deposed(epoch)

    async def _insert(self, connection: psycopg.AsyncConnection, epoch: int, records: Sequence[Record]) -> int:
        cursor = await connection.execute(
            QUERIES["append"],
            {
                "epoch": epoch,
                "after_seq": records[0].seq - 1,
                "seq": [record.seq for record in records],
                "kind": [record.kind for record in records],
                "version": [record.version for record in records],
                "at": [record.at for record in records],
                "actor": [record.actor for record in records],
                "reason": [record.reason for record in records],
                "request_id": [record.request_id for record in records],
                "request_digest": [record.request_digest for record in records],
                "result": [record.result for record in records],
                "payload": [record.payload for record in records],
                "prev_hash": [record.prev_hash for record in records],
                "hash": [record.hash for record in records],
            },
            prepare=True,
        )
        row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def read(self, after_seq: int, limit: int) -> list[Record]:
        """A page of records."""
        async with as_unavailable(), self._reading.connection() as connection:
            cursor = connection.cursor(binary=True)
            await cursor.execute(QUERIES["read"], {"after_seq": after_seq, "limit": limit}, prepare=True)
            rows = await cursor.fetchall()
        return [
            Record(
                seq=seq,
                epoch=epoch,
                kind=kind,
                version=version,
                at=at,
                actor=actor,
                reason=reason,
                request_id=request_id,
                request_digest=request_digest,
                result=result,
                payload=payload,
                prev_hash=prev_hash,
                hash=digest,
            )
            for (
                seq,
                epoch,
                kind,
                version,
                at,
                actor,
                reason,
                request_id,
                request_digest,
                result,
                payload,
                prev_hash,
                digest,
            ) in rows
        ]

    async def seq_at(self, at: datetime) -> int:
        """Seq of the last event not after an instant, by bisection of the seqs: `at` has no index to keep."""
        async with as_unavailable(), self._reading.connection() as connection:
            row = await (await connection.execute(QUERIES["seq_at"], {"at": at}, prepare=True)).fetchone()
        return int(row[0]) if row else 0

    async def verify(self, after_seq: int, to_seq: int, version_max: int) -> BadRecord | None:
        """Check chain, order and versions inside the database."""
        async with as_unavailable(), self._reading.connection() as connection:
            cursor = await connection.execute(
                QUERIES["verify"], {"after_seq": after_seq, "to_seq": to_seq, "version_max": version_max}
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        seq, before, kind, version, chain_broken, changed = row
        if seq != before + 1:
            return BadRecord(seq=before + 1, fault=f"the entry after {before} is {seq}; {seq - before - 1} are missing")
        if chain_broken:
            fault = f"its prev_hash is not the hash of entry {before}: an entry was changed or replaced"
        elif changed:
            fault = "its hash does not match its content: it was changed after it was written"
        else:
            fault = f"{kind} has version {version}, this Runway reads up to {version_max}"
        return BadRecord(seq=seq, fault=fault)

    async def close(self) -> None:
        """Close both connections."""
        await self._writing.close()
        await self._reading.close()


def _server_said_no(error: psycopg.Error) -> bool:
    """Whether the server itself refused the statement and stayed: then nothing was committed.

    A FATAL such as 57P01 (administrator shutdown) also carries a code, but ends the connection; the statement
    before it may have been committed, so the connection decides, not the code.
    """
    severity = error.diag.severity_nonlocalized
    return error.sqlstate is not None and severity == "ERROR"


def _deposed(epoch: int) -> Unavailable:
    return Unavailable(
        Reason.NOT_LEADER,
        f"This control plane no longer leads (epoch {epoch} is over). Send the request again.",
        epoch=str(epoch),
    )
