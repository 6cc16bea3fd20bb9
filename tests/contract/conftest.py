"""Each test of a contract runs on every world."""

from collections.abc import AsyncIterator, Iterator

import pytest

from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from tests.contract.worlds import MemoryWorld, PostgresWorld, World, embedded_postgres, fresh_database


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One server for all contract tests."""
    with embedded_postgres(tmp_path_factory.mktemp("contract")) as server:
        yield server


@pytest.fixture
def postgres_world(postgres: EmbeddedPostgres) -> Iterator[PostgresWorld]:
    """A fresh database."""
    with fresh_database(postgres) as world:
        yield world


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest) -> World:
    """A fresh store of each kind."""
    if request.param == "memory":
        return MemoryWorld()
    found: PostgresWorld = request.getfixturevalue("postgres_world")
    return found


@pytest.fixture
async def epoch(world: World) -> AsyncIterator[int]:
    """The epoch of a leader that leads for the time of the test."""
    leadership = world.leadership()
    yield await leadership.acquire()
    await leadership.release()
