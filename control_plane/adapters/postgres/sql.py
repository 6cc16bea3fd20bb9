"""Loads the statements of `queries.sql` and applies `schema.sql`."""

import re
from importlib.resources import files

import psycopg

from control_plane.core.errors import Reason, Unavailable

LAYOUT = 1
"""Layout of the tables this code reads and writes."""

SCHEMA_LOCK = 0x52554E5741590001
"""Advisory lock under which the schema is applied: two starts at once must not both create it."""


def _named_blocks(text: str) -> dict[str, bytes]:
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return {name: block.strip().encode() for name, block in zip(parts[1::2], parts[2::2], strict=True)}


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


QUERIES = _named_blocks(_text("queries.sql"))
SCHEMA = _text("schema.sql").encode()


async def ensure_schema(connection: psycopg.AsyncConnection) -> None:
    """Create what is missing, and refuse tables of another layout.

    Raises Unavailable(STORE_UNAVAILABLE) naming both layouts.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
        await connection.execute("SET LOCAL client_min_messages = warning")
        await connection.execute(SCHEMA)
    row = await (await connection.execute(QUERIES["layout"])).fetchone()
    if row is None or row[0] != LAYOUT:
        found = "none" if row is None else row[0]
        raise Unavailable(
            Reason.STORE_UNAVAILABLE,
            f"The tables in this database have layout {found}, this Runway works with {LAYOUT}. Use "
            f"the Runway "
            "version that made them, or point RUNWAY_DATABASE_URL at another database.",
        )
