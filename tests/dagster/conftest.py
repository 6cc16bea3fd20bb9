"""Fixtures of the Dagster suite."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.dagster.worlds import World


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of the test's own, and a control plane that cannot be reached by accident."""
    monkeypatch.setenv("RUNWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNWAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RUNWAY_PARTITIONS_FROM", "2013-03-01")
    monkeypatch.setenv("RUNWAY_PARTITIONS_UNTIL", "2013-04-01")
    return tmp_path / "home"


@pytest.fixture
def world() -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        found = World(instance)
        yield found
        found.close()
