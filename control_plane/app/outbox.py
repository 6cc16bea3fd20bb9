"""Sends lifecycle events to webhooks: at least once, in order for each model, whatever happens to us or to them.

Theory of operation
    The event log is the outbox: nothing is written twice that could come to differ. For each destination a cursor says
    what was acknowledged: everything up to a low-water mark, and some of what is above it. Only the leader sends, what
    is durable only; a new leader goes on from the cursor, so what was sent and not yet noted is sent once more.

    Events of a destination stand in lanes, one per model (and one for what is about no one model). A lane sends its
    oldest event until it is taken; the others wait behind it, so each model's events arrive in order. Lanes know
    nothing of one another, so one event that a receiver cannot take holds up its own model only, until it is
    `WINDOW_MAX` events behind the log.

    | came back           | what follows                                                              |
    |---------------------|---------------------------------------------------------------------------|
    | 2xx                 | acknowledged; the next of its lane                                        |
    | 410                 | the destination is disabled (SetDestination); nothing is lost: set it anew |
    | anything else, none | again later: twice as long each time, with jitter; or as Retry-After says |
    | the same for 3 days | the destination is disabled, as above                                     |

    Where nobody answers at all, whatever the model, all lanes of the destination wait together.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import structlog

from control_plane.app.delivery import Cursor, Cursors, Undelivered
from control_plane.app.lanes import Acknowledged
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.core.alerts.types import Destination, DestinationKind
from control_plane.core.commands import Command, SetDestination
from control_plane.core.errors import RunwayError, Unavailable
from control_plane.core.events import Envelope, event_kind
from control_plane.core.state import State
from control_plane.core.subjects import event_model, subject_of

log = structlog.get_logger("runway.outbox")

WINDOW_MAX = 10_000
"""Events past the oldest one that was not taken; a week of a fleet of 5,000 models."""
PAGE_EVENTS = 500
SENDING_MAX = 8
"""Requests under way to one destination."""
RETRY_S_MIN = 1.0
RETRY_S_MAX = 300.0
GIVE_UP_S = 3 * 24 * 3600.0
"""An event that is not taken for three days will not be taken on the fourth; somebody has to look."""
UNANSWERED_MIN = 3
"""Requests without an answer and no answer between, after which nobody is taken to be there; one may be chance. Of as
many lanes: what one event does to a receiver, again and again, says nothing of the events of other models."""
SAVE_EVERY_S = 0.2
"""What is noted later is sent again after a crash; noting costs one small transaction."""
ACTOR = "runway"


class Sender(Protocol):
    """How one event is sent; see adapters/alerts/webhook.py."""

    async def send(self, destination: Destination, secret: str, envelope: Envelope, wall: datetime) -> str:
        """What came back, in words. Raises Undelivered."""
        ...


class Outbox:
    """Owns one delivery per webhook while this node leads."""

    def __init__(
        self,
        *,
        node: Node[State, Command],
        cursors: Cursors,
        sender: Sender,
        secret: Callable[[str], str],
        jitter: Callable[[], float],
        tick_s: float,
        retry_s: float = RETRY_S_MIN,
    ) -> None:
        """`secret` reads an environment variable, `jitter` gives a number from 0 to 1."""
        self._node = node
        self._cursors = cursors
        self._sender = sender
        self._secret = secret
        self._jitter = jitter
        self._tick_s = tick_s
        self._retry_s = retry_s
        self._deliveries: dict[str, Delivery] = {}
        self._known: dict[str, Cursor] = {}
        self._epoch = 0
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def status(self, name: str) -> Cursor | None:
        """How far a destination is; None while nobody has begun."""
        delivery = self._deliveries.get(name)
        return delivery.cursor() if delivery is not None else self._known.get(name)

    async def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name="outbox")

    async def stop(self) -> None:
        """Note what was taken; requests under way are given up and sent again by the next one."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    await self._adjust()
                except RunwayError as error:
                    # Not leading, or the store is away: both end by themselves.
                    await self._end(list(self._deliveries))
                    log.debug("outbox.postponed", reason=error.reason.value, message=error.message)
                except Exception as error:
                    log.error("outbox.failed", error=repr(error), exc_info=error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._tick_s):
                        await self._stopping.wait()
        finally:
            await self._end(list(self._deliveries))

    async def _adjust(self) -> None:
        """One running delivery for each webhook that there is; none for what is not there any more."""
        state, epoch = self._node.state, self._node.epoch
        if epoch != self._epoch:
            await self._end(list(self._deliveries))
            if not state.destinations:
                return  # nothing to send, nothing to look up
            self._known = await self._cursors.load()
            self._epoch = epoch
        wanted = {
            name: destination
            for name, destination in state.destinations.items()
            if destination.kind is DestinationKind.WEBHOOK and not destination.disabled
        }
        await self._end(
            [
                name
                for name, delivery in self._deliveries.items()
                if delivery.ended or wanted.get(name) != delivery.destination
            ]
        )
        for name in [name for name in self._known if name not in state.destinations]:
            await self._cursors.forget(epoch, name)
            del self._known[name]
        for name, destination in wanted.items():
            if name not in self._deliveries:
                cursor = self._known.get(name)
                if cursor is None or cursor.since != destination.since:
                    cursor = Cursor(destination=name, since=destination.since, low=destination.since)
                self._deliveries[name] = Delivery(self._tools(), destination, cursor, epoch)

    def _tools(self) -> "Tools":
        return Tools(
            node=self._node,
            cursors=self._cursors,
            sender=self._sender,
            secret=self._secret,
            jitter=self._jitter,
            tick_s=self._tick_s,
            retry_s=self._retry_s,
        )

    async def _end(self, names: list[str]) -> None:
        for name in names:
            delivery = self._deliveries.pop(name)
            await delivery.end()
            self._known[name] = delivery.cursor()


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a delivery works with."""

    node: Node[State, Command]
    cursors: Cursors
    sender: Sender
    secret: Callable[[str], str]
    jitter: Callable[[], float]
    tick_s: float
    retry_s: float


class Delivery:
    """One destination in one epoch."""

    def __init__(self, tools: Tools, destination: Destination, cursor: Cursor, epoch: int) -> None:
        self.destination = destination
        self._tools = tools
        self._epoch = epoch
        self._acknowledged = Acknowledged(cursor.low, cursor.above)
        self._scanned = cursor.low
        self._failure = cursor.last_failure
        self._delivered_at = cursor.last_delivered_at
        self._saved = cursor
        self._saved_s = 0.0
        self._lanes: dict[str, deque[Envelope]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(SENDING_MAX)
        self._woken = asyncio.Event()
        self._disabled = False
        self._unanswered: dict[str, int] = {}
        """Requests of each lane since the last answer to any."""
        self._open_s = 0.0
        """Monotonic time before which nothing is tried, because nobody answers there."""
        self._task = asyncio.create_task(self._run(), name=f"delivery to {destination.name}")

    @property
    def ended(self) -> bool:
        """Has it come to an end by itself?"""
        return self._disabled or self._task.done()

    def cursor(self) -> Cursor:
        """How far it is now."""
        return Cursor(
            destination=self.destination.name,
            since=self.destination.since,
            low=self._acknowledged.low,
            above=self._acknowledged.ranges(),
            last_failure=self._failure,
            last_delivered_at=self._delivered_at,
        )

    async def end(self) -> None:
        """Stop sending, note what was taken."""
        under_way = [self._task, *self._workers.values()]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        with suppress(RunwayError):
            await self._save()

    async def _run(self) -> None:
        while True:
            more = False
            try:
                more = await self._fill()
                if time.monotonic() - self._saved_s >= SAVE_EVERY_S:
                    await self._save()
            except Unavailable as error:
                log.debug("delivery.postponed", destination=self.destination.name, message=error.message)
            self._woken.clear()
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._tools.tick_s):
                        await self._woken.wait()

    async def _fill(self) -> bool:
        """Put a page of the log in lanes; whether there may be more."""
        node = self._tools.node
        if self._scanned >= node.revision or self._scanned - self._acknowledged.low >= WINDOW_MAX:
            return False
        page = await node.events(self._scanned, PAGE_EVENTS)
        state = node.state
        for envelope in page:
            self._scanned = envelope.seq
            if envelope.seq in self._acknowledged:
                continue
            if not wants(self.destination, envelope, state):
                self._acknowledged.add(envelope.seq)
                continue
            lane = event_model(envelope.event) or ""
            self._lanes.setdefault(lane, deque()).append(envelope)
            if lane not in self._workers:
                self._workers[lane] = asyncio.create_task(self._work(lane), name=f"lane {lane}")
        return len(page) == PAGE_EVENTS

    async def _work(self, lane: str) -> None:
        """Send the events of one lane, one after the other."""
        waiting = self._lanes[lane]
        try:
            while waiting:
                await self._sent(waiting[0])
                self._acknowledged.add(waiting.popleft().seq)
                self._woken.set()
        finally:
            if not waiting:
                self._lanes.pop(lane, None)
                self._workers.pop(lane, None)

    async def _sent(self, envelope: Envelope) -> None:
        """Return once the receiver has taken it."""
        tools, begun_s, tries = self._tools, time.monotonic(), 0
        while True:
            async with self._room:
                await self._closed()
                failure = await self._tried(envelope)
            if failure is None:
                return
            tries += 1
            if failure.gone or time.monotonic() - begun_s > GIVE_UP_S:
                await self._disable(str(failure))
            pause_s = min(tools.retry_s * 2 ** min(tries - 1, 20), RETRY_S_MAX) * (0.5 + tools.jitter() / 2)
            await asyncio.sleep(max(pause_s, failure.retry_after_s))

    async def _tried(self, envelope: Envelope) -> Undelivered | None:
        """One try; what went wrong, if anything did."""
        tools, destination = self._tools, self.destination
        try:
            secret = tools.secret(destination.secret_variable)
            try:
                await tools.sender.send(destination, secret, envelope, datetime.now(UTC))
            except Undelivered:
                raise
            except Exception as error:  # a fault of ours must not end the lane
                log.error("delivery.fault", seq=envelope.seq, error=repr(error), exc_info=error)
                raise Undelivered(f"a fault of Runway itself: {error!r}", refused=True) from error
        except Undelivered as error:
            if str(error) != self._failure:
                log.warning("delivery.failed", destination=destination.name, seq=envelope.seq, failure=str(error))
            self._failure = str(error)
            if error.refused or error.gone:
                self._unanswered.clear()
            else:
                lane = event_model(envelope.event) or ""
                self._unanswered[lane] = self._unanswered.get(lane, 0) + 1
            if len(self._unanswered) >= UNANSWERED_MIN:
                silent = sum(self._unanswered.values()) - UNANSWERED_MIN
                pause_s = min(tools.retry_s * 2 ** min(silent, 20), RETRY_S_MAX)
                self._open_s = time.monotonic() + pause_s * (0.5 + tools.jitter() / 2)
            return error
        self._unanswered.clear()
        self._failure, self._delivered_at = "", datetime.now(UTC)
        return None

    async def _closed(self) -> None:
        """Wait while nobody answers there."""
        while (wait_s := self._open_s - time.monotonic()) > 0 and self._unanswered:
            await asyncio.sleep(min(wait_s, self._tools.retry_s))

    async def _disable(self, why: str) -> None:
        """Send nothing there until it is set again; then it goes on where it was."""
        command = SetDestination(destination=msgspec.structs.replace(self.destination, disabled=why))
        try:
            await self._tools.node.submit(Submission(command=command, actor=ACTOR, reason=why))
        except RunwayError:
            return  # tried again with the next failure
        self._disabled = True
        log.warning("destination.disabled", destination=self.destination.name, why=why)
        # Whoever adjusts deliveries ends this one.
        await asyncio.Event().wait()

    async def _save(self) -> None:
        cursor = self.cursor()
        self._saved_s = time.monotonic()
        if cursor != self._saved:
            await self._tools.cursors.save(self._epoch, cursor)
            self._saved = cursor


def wants(destination: Destination, envelope: Envelope, state: State) -> bool:
    """Is an event sent to a destination? One about no team goes to everybody."""
    if destination.kinds and event_kind(envelope.event) not in destination.kinds:
        return False
    if not destination.teams:
        return True
    teams = subject_of(state, envelope).teams
    return not teams or any(team in destination.teams for team in teams)
