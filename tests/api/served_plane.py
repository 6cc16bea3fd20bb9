"""The real control plane in a thread of this process, its log in memory: restarts keep what was durable."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from control_plane import bootstrap
from control_plane.adapters.memory.cursors import MemoryCursors
from control_plane.adapters.memory.server import MemoryEventLog, MemoryLeadership, MemoryServer, MemorySnapshotStore
from control_plane.app.chain import first_bad
from control_plane.app.replica import Submission
from control_plane.config import Config
from control_plane.core.commands import Command

T = TypeVar("T")


class ServedPlane:
    """One control plane at one address over any number of lives."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        database = MemoryServer(first_bad)
        for name, make in (
            ("PostgresCursors", MemoryCursors),
            ("PostgresEventLog", MemoryEventLog),
            ("PostgresSnapshotStore", MemorySnapshotStore),
            ("PostgresLeadership", MemoryLeadership),
        ):
            monkeypatch.setattr(bootstrap, name, _ignoring_url(make, database))
        self._home = home
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="served-plane")
        self._thread.start()
        self.port = 0
        self.plane: bootstrap.ControlPlane

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin a life; the port stays the same over all of them."""
        self.plane = self._run(self._started())
        self.port = self.plane.server.port

    def stop(self) -> None:
        """End a life cleanly."""
        self._run(self.plane.stop())

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, submission: Submission[Command]) -> None:
        """Have the control plane decide something by itself, as its evaluator does."""
        self._run(self.plane.node.submit(submission))

    def look_no_more(self) -> None:
        """Have it take no looks by itself: what it knows of models is what a test submits."""
        self._run(self.plane.evaluator.stop())

    async def _started(self) -> bootstrap.ControlPlane:
        config = Config(
            database_url="memory://",
            home=self._home,
            address=self.address,
            lineage_address="",
            clock="driven",
            drain_s=0.2,
            log_level="error",
        )
        plane = bootstrap.ControlPlane(config)
        await plane.start()
        return plane

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


def _ignoring_url(make: Callable[[MemoryServer], T], database: MemoryServer) -> Callable[[str], T]:
    return lambda _url: make(database)
