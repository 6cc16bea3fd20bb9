"""Fixtures: a whole control plane in this process, listening for lineage."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.worlds import Host
from tests.openlineage.http import Sender
from tests.openlineage.known import Known


@pytest.fixture
async def known(tmp_path: Path) -> AsyncIterator[Known]:
    """A control plane, somebody who sends to it, and what it knows."""
    async with Host(home=tmp_path).life() as api:
        yield Known(api, Sender(api.plane.lineage.port))
