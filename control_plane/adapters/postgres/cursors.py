"""What was sent where, in Postgres: `Cursors` of app/delivery.py."""

from collections.abc import Sequence

import msgspec
import psycopg

from control_plane.adapters.postgres.session import Session, as_unavailable
from control_plane.adapters.postgres.sql import QUERIES
from control_plane.app.delivery import Cursor, Told
from control_plane.core.errors import Reason, Unavailable

_RANGES = msgspec.json.Decoder(tuple[tuple[int, int], ...])
_TOLD = msgspec.json.Decoder(Told)


class PostgresCursors:
    """Each write checks the epoch in its own transaction, under the same lock as an append."""

    def __init__(self, url: str) -> None:
        self._session = Session(url, "cursors")

    async def load(self) -> dict[str, Cursor]:
        """All cursors by destination."""
        async with as_unavailable(), self._session.connection() as connection:
            rows = await (await connection.execute(QUERIES["load_cursors"])).fetchall()
        return {
            destination: Cursor(
                destination=destination,
                since=since,
                low=low,
                above=_RANGES.decode(above),
                last_failure=last_failure,
                last_delivered_at=last_delivered_at,
            )
            for destination, since, low, above, last_failure, last_delivered_at in rows
        }

    async def save(self, epoch: int, cursor: Cursor) -> None:
        """Keep a cursor."""
        async with as_unavailable(), self._session.connection() as connection, connection.transaction():
            await self._check(connection, epoch)
            await connection.execute(
                QUERIES["save_cursor"],
                {
                    "destination": cursor.destination,
                    "since": cursor.since,
                    "low": cursor.low,
                    "above": msgspec.json.encode(cursor.above).decode(),
                    "last_failure": cursor.last_failure,
                    "last_delivered_at": cursor.last_delivered_at,
                },
            )

    async def told(self, destination: str) -> dict[str, Told]:
        """What a destination was told."""
        async with as_unavailable(), self._session.connection() as connection:
            cursor = await connection.execute(QUERIES["load_told"], {"destination": destination})
            rows = await cursor.fetchall()
        return {key: _TOLD.decode(told) for key, told in rows}

    async def tell(self, epoch: int, destination: str, told: Sequence[Told], over: Sequence[str]) -> None:
        """Remember what was told and forget what is over."""
        async with as_unavailable(), self._session.connection() as connection, connection.transaction():
            await self._check(connection, epoch)
            await connection.execute(QUERIES["drop_told"], {"destination": destination, "keys": list(over)})
            for one in told:
                await connection.execute(
                    QUERIES["save_told"],
                    {
                        "destination": destination,
                        "key": one.alert.key,
                        "told": msgspec.json.encode(one).decode(),
                    },
                )

    async def forget(self, epoch: int, destination: str) -> None:
        """Forget all about a destination."""
        async with as_unavailable(), self._session.connection() as connection, connection.transaction():
            await self._check(connection, epoch)
            await connection.execute(QUERIES["forget_told"], {"destination": destination})
            await connection.execute(QUERIES["forget_cursor"], {"destination": destination})

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def _check(self, connection: psycopg.AsyncConnection, epoch: int) -> None:
        if await (await connection.execute(QUERIES["lead_in"], {"epoch": epoch})).fetchone() is None:
            raise Unavailable(
                Reason.NOT_LEADER, f"This control plane no longer leads (epoch {epoch} is over).", epoch=str(epoch)
            )
