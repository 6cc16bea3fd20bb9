"""Control planes of the real rules on a world of the contract tests, with an outbox and a teller."""

import asyncio
import base64
import hashlib
import hmac
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from control_plane.adapters.alerts.channels import channels
from control_plane.adapters.alerts.http import SafePost
from control_plane.adapters.alerts.webhook import Webhook
from control_plane.adapters.memory.cursors import MemoryCursors
from control_plane.adapters.postgres.cursors import PostgresCursors
from control_plane.app.alerts import Alerts
from control_plane.app.delivery import Cursors
from control_plane.app.machine import FleetMachine
from control_plane.app.node import Node
from control_plane.app.outbox import Outbox
from control_plane.app.replica import Answer, Submission
from control_plane.core.alerts.types import Destination, DestinationKind
from control_plane.core.commands import Command, RegisterModel, SetDestination
from control_plane.core.events import Envelope
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.state import State
from control_plane.core.subjects import event_model
from tests.alerts.receivers import Received
from tests.contract.worlds import MemoryWorld, PostgresWorld, World

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


class Hand:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = datetime(2013, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        """As it was set."""
        return self.at


def cursors_of(world: World) -> Cursors:
    """A client of the world's cursors."""
    if isinstance(world, MemoryWorld):
        return MemoryCursors(world.server)
    assert isinstance(world, PostgresWorld)
    return PostgresCursors(world.url)


@dataclass(slots=True)
class Plane:
    """A node with what tells of it."""

    node: Node[State, Command]
    outbox: Outbox
    alerts: Alerts
    clock: Hand

    async def do(self, command: Command) -> Answer:
        """Submit a command."""
        return await self.node.submit(Submission(command=command, actor="ada", reason="because"))

    async def model(self, name: str, *, tier: int = 2, team: str = "flights") -> Answer:
        """Register a model."""
        facts = ModelFacts(
            model_id=ModelId(name), owner=f"team:{team}", team=TeamId(team), tier=tier, task_type=TaskType.BINARY
        )
        return await self.do(RegisterModel(facts=facts, policies={}))

    async def hook(self, url: str, name: str = "hook", **more: object) -> Answer:
        """Set a webhook on this machine."""
        destination = Destination(
            name=name,
            kind=DestinationKind.WEBHOOK,
            url=url,
            secret_variable="HOOK_SECRET",
            allow_private=True,
            **more,  # type: ignore[arg-type]
        )
        return await self.do(SetDestination(destination=destination))


@asynccontextmanager
async def leading(
    world: World, *, clock: Hand | None = None, secret: Callable[[str], str] = lambda _: SECRET, tell: bool = False
) -> AsyncIterator[Plane]:
    """A control plane that leads, with retries that take milliseconds."""
    clock = clock or Hand()
    node: Node[State, Command] = Node(
        machine=FleetMachine(),
        event_log=world.log(),
        snapshots=world.snapshots(),
        leadership=world.leadership(),
        clock=clock,
        tick_s=3600.0,
    )
    rng = np.random.default_rng(7)
    post = SafePost(timeout_s=2.0)
    cursors = cursors_of(world)
    outbox = Outbox(
        node=node,
        cursors=cursors,
        sender=Webhook(post, "/runway"),
        secret=secret,
        jitter=rng.random,
        tick_s=0.01,
        retry_s=0.005,
    )
    alerts = Alerts(
        node=node,
        cursors=cursors,
        channels=channels(post),
        secret=secret,
        jitter=rng.random,
        linked=lambda alert, _: alert,
        tick_s=0.01,
        retry_s=0.005,
    )
    await node.start()
    await outbox.start()
    if tell:
        await alerts.start()
    try:
        yield Plane(node, outbox, alerts, clock)
    finally:
        await alerts.stop()
        await outbox.stop()
        await node.stop()
        await cursors.close()


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until something holds; the test's own timeout bounds it."""
    while not holds():
        await asyncio.sleep(0.005)


def seqs(received: Iterable[Received]) -> list[int]:
    """Places in the log of the events received, in order."""
    return [int(str(one.json()["id"])) for one in received]


def check_signed(received: Received, secret: str = SECRET) -> None:
    """What a receiver does, written from the specification alone."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    expected = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    assert received.headers["webhook-signature"] == f"v1,{expected}"


def check_delivery(log: Iterable[Envelope], taken: Iterable[Received], since: int) -> None:
    """At least once, nothing else, and in order for each model, whatever is repeated."""
    expected = [envelope for envelope in log if envelope.seq > since]
    got = seqs(taken)
    assert set(got) == {envelope.seq for envelope in expected}
    lane = {envelope.seq: event_model(envelope.event) or "" for envelope in expected}
    seen: set[int] = set()
    newest: dict[str, int] = defaultdict(int)
    for seq in got:
        if seq not in seen:
            assert seq > newest[lane[seq]], f"{seq} of {lane[seq]!r} came after {newest[lane[seq]]}"
            newest[lane[seq]] = seq
            seen.add(seq)
