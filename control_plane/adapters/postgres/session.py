"""One connection that is opened when first needed and again after it broke, and what its errors mean.

Postgres says no (an error with the connection intact): nothing happened. The connection breaks or a reply
does not come in time: whatever was under way may or may not have happened.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from control_plane.core.errors import Reason, Unavailable

CONNECT_S_MAX = 5
"""A Postgres on the same machine answers in milliseconds, one in the next zone within a second."""

REPLY_S_MAX = 15.0
"""No statement of ours takes a second; beyond this the server or the way to it is gone."""


class Session:
    """A lazily opened autocommit connection, used by one task at a time."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: psycopg.AsyncConnection | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """The connection, for the time of the block. A block that leaves with it broken lets go of it."""
        async with self._turn:
            if self._connection is None or self._connection.closed:
                self._connection = await connect(self._url, self._name)
            connection = self._connection
            try:
                async with asyncio.timeout(REPLY_S_MAX):
                    yield connection
            except BaseException as error:
                # A cancelled or timed-out statement may still be running over there: its reply must not be
                # taken for the next one's.
                if connection.closed or not isinstance(error, psycopg.Error):
                    self._connection = None
                    await connection.close()
                raise

    async def close(self) -> None:
        """Close the connection; the session opens a new one when used again."""
        async with self._turn:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None


async def connect(url: str, name: str) -> psycopg.AsyncConnection:
    """Open an autocommit connection. Raises Unavailable(STORE_UNAVAILABLE)."""
    try:
        return await psycopg.AsyncConnection.connect(
            url, autocommit=True, connect_timeout=CONNECT_S_MAX, application_name=f"runway {name}"
        )
    except psycopg.Error as error:
        raise unavailable(error) from error


def unavailable(error: BaseException) -> Unavailable:
    """A database error as the caller sees it; psycopg's texts hold no passwords."""
    text = " ".join(str(error).split()) or type(error).__name__
    return Unavailable(Reason.STORE_UNAVAILABLE, f"The database is not available: {text}")


@asynccontextmanager
async def as_unavailable() -> AsyncIterator[None]:
    """For statements that may simply be sent again: any failure is `Unavailable`."""
    try:
        yield
    except (psycopg.Error, TimeoutError) as error:
        raise unavailable(error) from error
