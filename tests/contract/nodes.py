"""Nodes on a toy machine, started and stopped around a test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from control_plane.app.node import Node, Submission
from control_plane.app.ports import Record
from tests.contract.toy import Add, ToyCommand, ToyMachine, ToyState
from tests.contract.worlds import World

ToyNode = Node[ToyState, ToyCommand]


class SteppingClock:
    """A second later at every look; may be set back."""

    def __init__(self) -> None:
        self.at = datetime(2013, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """The next second."""
        self.at += timedelta(seconds=1)
        return self.at


def make_node(world: World, machine: ToyMachine | None = None, *, snapshot_every: int = 1_000_000) -> ToyNode:
    """A node that ticks only when told."""
    return Node(
        machine=machine or ToyMachine(),
        event_log=world.log(),
        snapshots=world.snapshots(),
        leadership=world.leadership(),
        clock=SteppingClock(),
        snapshot_every=snapshot_every,
        tick_s=3600.0,
    )


@asynccontextmanager
async def leading(
    world: World, machine: ToyMachine | None = None, *, snapshot_every: int = 1_000_000
) -> AsyncIterator[ToyNode]:
    """A node that leads."""
    node = make_node(world, machine, snapshot_every=snapshot_every)
    try:
        await node.start()
        yield node
    finally:
        await node.stop()


def add(key: str = "a", amount: int = 1, *, request_id: str | None = None, parts: int = 1) -> Submission[ToyCommand]:
    """A submission."""
    return Submission(
        command=Add(key=key, amount=amount, parts=parts), request_id=request_id, actor="test", reason="why not"
    )


async def entries(world: World) -> list[Record]:
    """The whole log."""
    log = world.log()
    try:
        return await log.read(0, 1_000_000)
    finally:
        await log.close()


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until something holds; the test's own timeout bounds it."""
    while not holds():
        await asyncio.sleep(0.005)


async def at_once(holds: Callable[[], bool]) -> None:
    """The same for what may hold for a few turns of the loop only."""
    while not holds():
        await asyncio.sleep(0)
