"""Fixtures of the tests that speak gRPC to a control plane in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.shells import fake, runway, server  # noqa: F401 - fixtures of the command line
from tests.api.worlds import Api, Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A log and facts that outlive a control plane."""
    return Host(home=tmp_path)


@pytest.fixture
async def api(host: Host) -> AsyncIterator[Api]:
    """A control plane and its client."""
    async with host.life() as api:
        yield api
