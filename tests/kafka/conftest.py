"""One real broker for all tests of a session; each test has topics of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.kafka import Broker
from tests.api.worlds import Host
from tools.jars import engines


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Killed and started by tests, at one address; or the reason why there is none."""
    try:
        found = engines()
    except OSError as error:
        pytest.skip(f"no Kafka here: {error}")
    one = Broker(tmp_path_factory.mktemp("kafka"), found)
    yield one
    one.kill()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A log and facts that outlive a control plane."""
    return Host(home=tmp_path)
