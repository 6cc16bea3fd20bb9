"""One broker for all tests of a session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.worlds import Host
from tests.kafka.broker import JARS, Broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if JARS not in os.environ:
        pytest.skip(f"{JARS} names no folder of Kafka's jars")
    one = Broker(tmp_path_factory.mktemp("kafka"))
    yield one
    one.kill()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A log and facts that outlive a control plane."""
    return Host(home=tmp_path)
