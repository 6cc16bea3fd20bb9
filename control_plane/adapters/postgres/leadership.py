"""Who leads, in Postgres: `Leadership` of app/ports.py.

Theory of operation
    A session-level advisory lock on a connection of its own says who leads; a waiting one stands in
    `pg_advisory_lock` and takes over within milliseconds after the leader's connection is gone.
    A leader that is frozen keeps its connection: `idle_session_timeout` ends it after `idle_s` without a
    heartbeat. Such a leader, thawed, still believes it leads: its next append carries an epoch that is over
    and inserts nothing.

    A waiting statement holds a snapshot, which would keep vacuum from old snapshots' space for as long as it
    waits; so it gives up every `WAIT_S` and asks again at once.

    Needs a direct connection: a pooler that shares sessions between clients cannot hold session locks.
"""

import asyncio
from contextlib import suppress

import psycopg

from control_plane.adapters.postgres.session import connect, unavailable
from control_plane.adapters.postgres.sql import QUERIES, ensure_schema
from control_plane.core.errors import Reason, Unavailable

LEADER_LOCK = 0x52554E5741590002
"""The advisory lock that the leader holds."""

IDLE_S = 2.0
"""A leader silent for this long is taken for frozen. Longer means a slower takeover, shorter means that a
busy machine deposes its leader; a heartbeat every half second leaves room for three that are late."""

WAIT_S = 60.0
"""A stand-by may wait for weeks; vacuum can wait for a minute."""

WAIT_CHECK_MS = 500
"""How often the server looks whether a waiting client still exists."""


class PostgresLeadership:
    """Leadership of one control plane per database."""

    def __init__(self, url: str, idle_s: float = IDLE_S, wait_s: float = WAIT_S) -> None:
        self._url = url
        self._wait_s = wait_s
        self._idle_s = idle_s
        self._connection: psycopg.AsyncConnection | None = None

    async def acquire(self) -> int:
        """Wait for the lock, then open an epoch; the update waits for an append of the leader before us."""
        await self.release()
        connection = await connect(self._url, "leader")
        try:
            await ensure_schema(connection)
            await connection.execute(f"SET client_connection_check_interval = {WAIT_CHECK_MS}".encode())
            await connection.execute(f"SET idle_session_timeout = {int(self._idle_s * 1000)}".encode())
            await connection.execute(f"SET lock_timeout = {int(self._wait_s * 1000)}".encode())
            while not await _locked(connection):
                pass
            row = await (await connection.execute(QUERIES["open_epoch"])).fetchone()
        except psycopg.Error as error:
            await connection.close()
            raise unavailable(error) from error
        except BaseException:
            await connection.close()
            raise
        if row is None:
            await connection.close()
            raise Unavailable(Reason.STORE_UNAVAILABLE, "The table runway.leadership is empty; restore the database.")
        self._connection = connection
        return int(row[0])

    async def heartbeat(self) -> None:
        """Keep the session from being idle; an answer proves that it still holds the lock."""
        connection = self._connection
        if connection is None:
            raise Unavailable(Reason.NOT_LEADER, "This control plane does not lead.")
        try:
            async with asyncio.timeout(self._idle_s):
                await connection.execute(QUERIES["heartbeat"])
        except (psycopg.Error, TimeoutError) as error:
            await self.release()
            raise Unavailable(
                Reason.NOT_LEADER, f"Leadership was lost: {' '.join(str(error).split()) or 'no answer'}"
            ) from error

    async def release(self) -> None:
        """Close the connection; the server drops the lock with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()


async def _locked(connection: psycopg.AsyncConnection) -> bool:
    """Wait for the lock; False when it is time to ask again."""
    try:
        await connection.execute(QUERIES["lock_leadership"], {"key": LEADER_LOCK})
    except psycopg.errors.LockNotAvailable:
        return False
    return True
