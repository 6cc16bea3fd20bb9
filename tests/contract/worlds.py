"""The stores under test: the fake, and the real embedded Postgres, behind the same few verbs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import psycopg
from psycopg import sql

from control_plane.adapters.memory.server import (
    MemoryEventLog,
    MemoryLeadership,
    MemoryServer,
    MemorySnapshotStore,
)
from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from control_plane.adapters.postgres.event_log import PostgresEventLog
from control_plane.adapters.postgres.leadership import PostgresLeadership
from control_plane.adapters.postgres.snapshots import PostgresSnapshotStore
from control_plane.app.chain import first_bad
from control_plane.app.ports import EventLog, Leadership, Record, SnapshotStore


class World(Protocol):
    """One database, seen by any number of clients, and what a test may do behind their backs."""

    def log(self) -> EventLog:
        """A client of the log."""
        ...

    def snapshots(self) -> SnapshotStore:
        """A client of the snapshots."""
        ...

    def leadership(self) -> Leadership:
        """A candidate."""
        ...

    def depose(self) -> None:
        """Break the leader's connection."""
        ...

    def change(self, seq: int, **fields: object) -> None:
        """Overwrite fields of an event."""
        ...

    def remove(self, seq: int) -> None:
        """Delete an event."""
        ...


class MemoryWorld:
    """The fake."""

    def __init__(self) -> None:
        self.server = MemoryServer(first_bad)

    def log(self) -> EventLog:
        return MemoryEventLog(self.server)

    def snapshots(self) -> SnapshotStore:
        return MemorySnapshotStore(self.server)

    def leadership(self) -> Leadership:
        return MemoryLeadership(self.server)

    def depose(self) -> None:
        self.server.depose()

    def change(self, seq: int, **fields: object) -> None:
        records: list[Record] = self.server.records
        at = next(place for place, record in enumerate(records) if record.seq == seq)
        records[at] = msgspec.structs.replace(records[at], **fields)

    def remove(self, seq: int) -> None:
        self.server.records = [record for record in self.server.records if record.seq != seq]


class PostgresWorld:
    """A fresh database on a real server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def log(self) -> EventLog:
        return PostgresEventLog(self.url)

    def snapshots(self) -> SnapshotStore:
        return PostgresSnapshotStore(self.url)

    def leadership(self) -> Leadership:
        return PostgresLeadership(self.url)

    def depose(self) -> None:
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'runway leader'"
        )

    def change(self, seq: int, **fields: object) -> None:
        for name, value in fields.items():
            self.run(
                sql.SQL("UPDATE runway.events SET {} = %s WHERE seq = %s").format(sql.Identifier(name)),
                value,
                seq,
            )

    def remove(self, seq: int) -> None:
        self.run("DELETE FROM runway.events WHERE seq = %s", seq)

    def run(self, statement: str | sql.Composed, *values: object) -> None:
        """One statement, committed."""
        query = sql.SQL(statement) if isinstance(statement, str) else statement
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(query, values or None)


@contextmanager
def embedded_postgres(directory: Path) -> Iterator[EmbeddedPostgres]:
    """A running server that leaves nothing behind."""
    postgres = EmbeddedPostgres(directory / "postgres")
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.destroy()


@contextmanager
def fresh_database(postgres: EmbeddedPostgres) -> Iterator[PostgresWorld]:
    """The database without tables; whoever the last test left connected is cut off."""
    world = PostgresWorld(postgres.url())
    world.run(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    world.run("SET client_min_messages = warning; DROP SCHEMA IF EXISTS runway CASCADE")
    yield world
