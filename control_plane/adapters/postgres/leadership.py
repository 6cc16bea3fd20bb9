"""Who leads, in Postgres: `Leadership` of app/ports.py.

Theory of operation
    A session-level advisory lock on a connection of its own says who leads; a waiting one stands in
    `pg_advisory_lock` and takes over within milliseconds after the leader's connection is gone.
    A leader that is frozen keeps its connection: `idle_session_timeout` ends it after `idle_s` without a
    heartbeat. Such a leader, thawed, still believes it leads: its next append carries an epoch that is over
    and inserts nothing.

    The connection, once it holds the lock, belongs to a thread of its own (`Pulse`). It beats when the event loop
    asks, and by itself while the loop is at work on one long thing: judging 50,000 dependencies takes a slow machine
    longer than `idle_s`, and whoever lost leadership over it would lose it over every try. A loop that asks for
    nothing during `stall_s` is stuck, and then the thread falls silent too.

    A waiting statement holds a snapshot, which would keep vacuum from old snapshots' space for as long as it
    waits; so it gives up every `WAIT_S` and asks again at once.

    Needs a direct connection: a pooler that shares sessions between clients cannot hold session locks.
"""

import asyncio
import queue
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import suppress

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from control_plane.adapters.postgres.session import connect, unavailable
from control_plane.adapters.postgres.sql import QUERIES, ensure_schema
from control_plane.core.errors import Reason, Unavailable

LEADER_LOCK = 0x52554E5741590002
"""The advisory lock that the leader holds."""

IDLE_S = 2.0
"""A leader silent for this long is taken for frozen. Longer means a slower takeover, shorter means that a
busy machine deposes its leader; a heartbeat every half second leaves room for three that are late."""

BEAT_S = 0.5
"""How long after a beat the thread beats by itself."""

STALL_S = 15.0
"""A loop that is silent for this long is stuck; the longest thing it does at once takes a few seconds."""

WAIT_S = 60.0
"""A stand-by may wait for weeks; vacuum can wait for a minute."""

WAIT_CHECK_MS = 500
"""How often the server looks whether a waiting client still exists."""


class Pulse:
    """The thread that keeps the leader's session from being idle; only it uses the connection from here on."""

    def __init__(self, connection: PGconn, stall_s: float) -> None:
        self._connection = connection
        self._stall_s = stall_s
        self._asked: queue.SimpleQueue[Future[str] | None] = queue.SimpleQueue()
        self._asked_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="runway leader", daemon=True)
        self._thread.start()

    def beat(self) -> Future[str]:
        """Beat now. What went wrong, if anything did."""
        self._asked_at = time.monotonic()
        answer: Future[str] = Future()
        self._asked.put(answer)
        return answer

    def end(self, wait_s: float) -> None:
        """Stop, for at most `wait_s` gently: a server that is gone would let a beat wait for ever."""
        self._asked.put(None)
        self._thread.join(wait_s)
        if self._thread.is_alive():
            with suppress(OSError, psycopg.Error), socket.socket(fileno=self._connection.socket) as way:
                try:
                    way.shutdown(socket.SHUT_RDWR)
                finally:
                    way.detach()  # libpq closes it
            self._thread.join()

    def _run(self) -> None:
        fault = ""
        while True:
            try:
                asked = self._asked.get(timeout=BEAT_S)
            except queue.Empty:
                if not fault and time.monotonic() - self._asked_at < self._stall_s:
                    fault = self._exchange()
                continue
            if asked is None:
                return
            fault = fault or self._exchange()
            asked.set_result(fault)

    def _exchange(self) -> str:
        try:
            result = self._connection.exec_(QUERIES["heartbeat"])
        except psycopg.Error as error:
            return str(error)
        return "" if result.status == ExecStatus.TUPLES_OK else self._connection.error_message.decode(errors="replace")


class PostgresLeadership:
    """Leadership of one control plane per database."""

    def __init__(self, url: str, idle_s: float = IDLE_S, wait_s: float = WAIT_S, stall_s: float = STALL_S) -> None:
        self._url = url
        self._wait_s = wait_s
        self._idle_s = idle_s
        self._stall_s = stall_s
        self._held: tuple[psycopg.AsyncConnection, Pulse] | None = None

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
        self._held = connection, Pulse(connection.pgconn, self._stall_s)
        return int(row[0])

    async def heartbeat(self) -> None:
        """An answer proves that the session still holds the lock."""
        if self._held is None:
            raise Unavailable(Reason.NOT_LEADER, "This control plane does not lead.")
        answer = self._held[1].beat()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._idle_s):
                await asyncio.shield(asyncio.wrap_future(answer))
        # The loop may have been at work all that time, with the answer long there.
        fault = answer.result() if answer.done() else "no answer"
        if fault:
            await self.release()
            raise Unavailable(Reason.NOT_LEADER, f"Leadership was lost: {' '.join(fault.split())}")

    async def release(self) -> None:
        """Close the connection; the server drops the lock with it."""
        held, self._held = self._held, None
        if held is not None:
            connection, pulse = held
            await asyncio.to_thread(pulse.end, self._idle_s)
            with suppress(psycopg.Error):
                await connection.close()


async def _locked(connection: psycopg.AsyncConnection) -> bool:
    """Wait for the lock; False when it is time to ask again."""
    try:
        await connection.execute(QUERIES["lock_leadership"], {"key": LEADER_LOCK})
    except psycopg.errors.LockNotAvailable:
        return False
    return True
