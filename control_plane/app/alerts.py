"""Tells alerts: makes what each destination knows follow what is wrong now.

Theory of operation. At every tick the alerts are derived from the state and compared with what the destination was told
(kept in the database, so that a new leader takes back what the old one raised). What it does not know yet and may be
told is fired; what reads otherwise now is said again, as is what must be repeated to stay; what is over is taken back.
What is silenced, or falls in quiet hours, is simply not told yet: if it still stands afterwards it is told then.

A destination that does not answer is left alone for a while, longer each time. One that answers and refuses an alert
hears of the others all the same: what it refuses waits by itself.

The effect comes first, the note after it: after a crash in between something is said twice, under the same key.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import structlog

from control_plane.app.delivery import Channel, Cursors, Told, Undelivered, place_of
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.core.active_alerts import active_alerts
from control_plane.core.alerts.rules import quiet, routed, silenced, tellable
from control_plane.core.alerts.types import Alert, Destination, DestinationKind, Severity
from control_plane.core.commands import Command, SetDestination
from control_plane.core.errors import RunwayError
from control_plane.core.state import State
from control_plane.core.suspects import Suspects

log = structlog.get_logger("runway.alerts")

RETRY_S_MIN = 1.0
RETRY_S_MAX = 300.0
REFUSED_IN_A_ROW_MAX = 3
"""Alerts that a destination refuses one after the other: it seems to refuse all, and is left alone for a while."""
CHANGES_EVERY_S = 60.0
"""Numbers in the evidence may change at every tick; nobody wants to read them all."""
ACTOR = "runway"
LOOK_EVERY_S = 1.0
"""Alerts are derived at most so often; a fleet in trouble takes a tenth of a second."""


class Teller:
    """What one destination knows, in one epoch."""

    def __init__(self, channel: Channel, destination: Destination, told: dict[str, Told]) -> None:
        self.destination = destination
        self.place = place_of(destination)
        self.told = {key: one for key, one in told.items() if one.place in ("", self.place)}
        self.failure = ""
        self.delivered_at: datetime | None = None
        self._channel = channel
        self._said_s: dict[str, float] = {}
        """Monotonic time at which an alert was last said by this process."""
        self._apart: dict[str, tuple[int, float]] = {}
        """Alerts that are not taken there: how often they were refused, and until when they wait, monotonic."""
        self.tries = 0
        self.open_s = 0.0

    @property
    def refuses(self) -> bool:
        """Are there alerts that it was told and did not take?"""
        return bool(self._apart)

    def refused(self, one: Told, pause: Callable[[int], float]) -> None:
        """It is not taken: it waits by itself, and holds up no other."""
        tries = self._apart.get(one.alert.key, (0, 0.0))[0] + 1
        self._apart[one.alert.key] = (tries, time.monotonic() + pause(tries))

    def due(
        self, alerts: Iterable[Alert], state: State, now: datetime, wall: datetime
    ) -> tuple[list[Told], list[Told]]:
        """What to say now: active ones, and those that are over."""
        destination = self.destination
        standing = {alert.key: alert for alert in alerts if routed(alert, destination)}
        self._apart = {key: one for key, one in self._apart.items() if key in standing or key in self.told}
        apart = {key for key, (_, until_s) in self._apart.items() if time.monotonic() < until_s}
        active = []
        for key, alert in standing.items():
            if key in apart:
                continue
            known = self.told.get(key)
            if known is None:
                if tellable(alert, destination, state.silences, now):
                    active.append(Told(alert=alert, at=wall, place=self.place))
            elif not silenced(alert, state.silences, now):
                if self._changed(known, alert) and (alert.severity is Severity.PAGE or not quiet(destination, now)):
                    active.append(Told(alert=alert, at=known.at, place=self.place))
                elif self._said_before(key, self._channel.repeat_s):
                    active.append(known)
        over = [
            known
            for key, known in self.told.items()
            if key not in standing
            and key not in apart
            and (known.alert.severity is Severity.PAGE or not quiet(destination, now))
        ]
        # Whoever knows an alert by how loud it is, or by whose it is, must hear that the one before is over.
        over += [
            self.told[one.alert.key]
            for one in active
            if one.alert.key in self.told and self._another(self.told[one.alert.key].alert, one.alert)
        ]
        return active, over

    def _another(self, before: Alert, after: Alert) -> bool:
        """Is it another alert for whoever listens there?"""
        return self._channel.known_by(before) != self._channel.known_by(after)

    def _changed(self, known: Told, alert: Alert) -> bool:
        """Is it to be said anew, because it reads otherwise now?"""
        if self._another(known.alert, alert):
            return True
        return self._channel.tells_changes and known.alert != alert and self._said_before(alert.key, CHANGES_EVERY_S)

    def _said_before(self, key: str, span_s: float) -> bool:
        """Was it last said that long ago, or not by this process? Never if the span is 0."""
        said_s = self._said_s.get(key)
        return span_s > 0 and (said_s is None or time.monotonic() - said_s >= span_s)

    def batches(self, active: Sequence[Told], over: Sequence[Told]) -> list[tuple[list[Told], list[Told]]]:
        """In pieces that one call takes; what is over first."""
        size = self._channel.batch_max
        ended: list[tuple[list[Told], list[Told]]] = [
            ([], list(over[start : start + size])) for start in range(0, len(over), size)
        ]
        return ended + [(list(active[start : start + size]), []) for start in range(0, len(active), size)]

    async def say(self, secret: str, active: Sequence[Told], over: Sequence[Told], wall: datetime) -> None:
        """One call. Raises Undelivered."""
        await self._channel.tell(self.destination, secret, active, over, wall)
        said_s = time.monotonic()
        for one in over:
            self._said_s.pop(one.alert.key, None)
            self._apart.pop(one.alert.key, None)
        for one in active:
            self._said_s[one.alert.key] = said_s
            self._apart.pop(one.alert.key, None)


class Alerts:
    """Owns the telling while this node leads. `linked` adds to an alert what only the application knows."""

    def __init__(
        self,
        *,
        node: Node[State, Command],
        cursors: Cursors,
        channels: Mapping[DestinationKind, Channel],
        secret: Callable[[str], str],
        jitter: Callable[[], float],
        linked: Callable[[Alert, State], Alert],
        tick_s: float,
        retry_s: float = RETRY_S_MIN,
    ) -> None:
        self._node = node
        self._cursors = cursors
        self._channels = channels
        self._secret = secret
        self._jitter = jitter
        self._linked = linked
        self._tick_s = min(tick_s, LOOK_EVERY_S)
        self._retry_s = retry_s
        self._suspects = Suspects()
        self._tellers: dict[str, Teller] = {}
        self._talking: dict[str, asyncio.Task[None]] = {}
        self._epoch = 0
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def status(self, name: str) -> Teller | None:
        """How telling a destination goes; None while nobody has begun."""
        return self._tellers.get(name)

    def active(self) -> list[Alert]:
        """What is wrong now. Raises Unavailable while this node does not lead."""
        return active_alerts(self._node.state, self._node.now(), self._suspects)

    async def start(self) -> None:
        """Begin to tell."""
        self._task = asyncio.create_task(self._run(), name="alerts")

    async def stop(self) -> None:
        """Let what is being said be said."""
        self._stopping.set()
        if self._task is not None:
            await self._task
        await asyncio.gather(*self._talking.values(), return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.tick()
            except RunwayError as error:
                self._tellers.clear()  # another may lead now: what was told is read anew
                self._epoch = 0
                log.debug("alerts.postponed", reason=error.reason.value, message=error.message)
            except Exception as error:
                log.error("alerts.failed", error=repr(error), exc_info=error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tick_s):
                    await self._stopping.wait()

    async def tick(self) -> None:
        """Tell every destination what it is to know now; those that are still busy later."""
        state, now, epoch = self._node.state, self._node.now(), self._node.epoch
        if epoch != self._epoch:
            self._tellers.clear()
            self._epoch = epoch
        await self._meet(state, epoch)
        if not self._tellers:
            return
        revision = state.revision
        alerts = [self._linked(alert, state) for alert in active_alerts(state, now, self._suspects)]
        await self._node.durable(revision)  # nobody hears of what might still be lost
        for name, teller in self._tellers.items():
            if name not in self._talking and time.monotonic() >= teller.open_s:
                active, over = teller.due(alerts, state, now, datetime.now(UTC))
                if active or over:
                    talk = asyncio.create_task(self._talk(teller, epoch, active, over), name=f"telling {name}")
                    self._talking[name] = talk
                    talk.add_done_callback(lambda _, name=name: self._talking.pop(name, None))  # type: ignore[misc]

    async def _meet(self, state: State, epoch: int) -> None:
        """A teller for each destination that is told alerts."""
        for name, destination in state.destinations.items():
            channel = self._channels.get(destination.kind)
            known = self._tellers.get(name)
            if channel is None or destination.disabled:
                self._tellers.pop(name, None)
            elif known is None:
                self._tellers[name] = await self._teller(epoch, channel, destination)
            elif known.destination != destination and name not in self._talking:
                if known.destination.since != destination.since:  # removed and set anew meanwhile
                    await self._cursors.forget(epoch, name)
                self._tellers[name] = await self._teller(epoch, channel, destination)
        for name in [name for name in self._tellers if name not in state.destinations]:
            if name not in self._talking:
                del self._tellers[name]
                await self._cursors.forget(epoch, name)

    async def _teller(self, epoch: int, channel: Channel, destination: Destination) -> Teller:
        """With what was told there; what was told elsewhere under its name is forgotten."""
        told = await self._cursors.told(destination.name)
        teller = Teller(channel, destination, told)
        elsewhere = sorted(told.keys() - teller.told.keys())
        if elsewhere:
            await self._cursors.tell(epoch, destination.name, [], elsewhere)
        return teller

    def _pause_s(self, tries: int) -> float:
        """Twice as long each time, with jitter."""
        longest: float = min(self._retry_s * 2.0 ** min(tries - 1, 20), RETRY_S_MAX)
        return longest * (0.5 + self._jitter() / 2)

    async def _disable(self, destination: Destination, why: str) -> None:
        """Tell nothing there until it is set again: the receiver is gone."""
        command = SetDestination(destination=msgspec.structs.replace(destination, disabled=why))
        with suppress(RunwayError):
            await self._node.submit(Submission(command=command, actor=ACTOR, reason=why))
        log.warning("destination.disabled", destination=destination.name, why=why)

    async def _talk(self, teller: Teller, epoch: int, active: Sequence[Told], over: Sequence[Told]) -> None:
        destination = teller.destination
        try:
            failure = await self._told_all(teller, epoch, active, over)
        except Undelivered as error:
            self._failed(teller, str(error))
            if error.gone:
                await self._disable(destination, str(error))
            teller.tries += 1
            teller.open_s = time.monotonic() + max(self._pause_s(teller.tries), error.retry_after_s)
        except RunwayError as error:
            log.debug("alert.unnoted", destination=destination.name, message=error.message)
        except Exception as error:
            # A fault of ours is no reason to knock at their door at every tick.
            log.error("alert.failed", destination=destination.name, error=repr(error), exc_info=error)
            teller.failure = f"a fault of Runway itself: {type(error).__name__}"
            teller.tries += 1
            teller.open_s = time.monotonic() + self._pause_s(teller.tries)
        else:
            teller.tries = 0
            if failure or not teller.refuses:
                self._failed(teller, failure)

    async def _told_all(self, teller: Teller, epoch: int, active: Sequence[Told], over: Sequence[Told]) -> str:
        """Say all of it; why some was refused, if some was. Raises Undelivered where it seems that nothing is taken."""
        waiting, refused, failure = deque(teller.batches(active, over)), 0, ""
        while waiting:
            some, ended = waiting.popleft()
            try:
                await teller.say(self._secret(teller.destination.secret_variable), some, ended, datetime.now(UTC))
            except Undelivered as error:
                if error.gone or not error.refused:
                    raise
                failure = str(error)
                if len(some) + len(ended) > 1:  # whichever of them it is, the others are told
                    waiting.extendleft(
                        [([one], []) for one in reversed(some)] + [([], [one]) for one in reversed(ended)]
                    )
                    continue
                teller.refused([*some, *ended][0], self._pause_s)
                refused += 1
                if refused >= REFUSED_IN_A_ROW_MAX:
                    raise
                continue
            refused = 0
            teller.delivered_at = datetime.now(UTC)
            for one in ended:
                teller.told.pop(one.alert.key, None)
            teller.told.update((one.alert.key, one) for one in some)
            await self._cursors.tell(epoch, teller.destination.name, some, [one.alert.key for one in ended])
        return failure

    def _failed(self, teller: Teller, failure: str) -> None:
        """Remember why something was not told there, and say so once."""
        if failure and failure != teller.failure:
            log.warning("alert.untold", destination=teller.destination.name, failure=failure)
        teller.failure = failure
