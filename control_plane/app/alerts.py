"""Tells alerts: makes what each destination knows follow what is wrong now.

Theory of operation. At every tick the alerts are derived from the state and compared with what the destination was told
(kept in the database, so that a new leader takes back what the old one raised). What it does not know yet and may be
told is fired; what reads otherwise now is said again, as is what must be repeated to stay; what is over is taken back.
What is silenced, or falls in quiet hours, is simply not told yet: if it still stands afterwards it is told then.

The effect comes first, the note after it: after a crash in between something is said twice, under the same key.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import structlog

from control_plane.app.delivery import Channel, Cursors, Told, Undelivered
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
CHANGES_EVERY_S = 60.0
"""Numbers in the evidence may change at every tick; nobody wants to read them all."""
ACTOR = "runway"
LOOK_EVERY_S = 1.0
"""Alerts are derived at most so often; a fleet in trouble takes a tenth of a second."""


class Teller:
    """What one destination knows, in one epoch."""

    def __init__(self, channel: Channel, destination: Destination, told: dict[str, Told]) -> None:
        self.destination = destination
        self.told = told
        self.failure = ""
        self.delivered_at: datetime | None = None
        self._channel = channel
        self._said_s: dict[str, float] = {}
        """Monotonic time at which an alert was last said by this process."""
        self.tries = 0
        self.open_s = 0.0

    def due(
        self, alerts: Iterable[Alert], state: State, now: datetime, wall: datetime
    ) -> tuple[list[Told], list[Told]]:
        """What to say now: active ones, and those that are over."""
        destination = self.destination
        standing = {alert.key: alert for alert in alerts if routed(alert, destination)}
        active = []
        for key, alert in standing.items():
            known = self.told.get(key)
            if known is None:
                if tellable(alert, destination, state.silences, now):
                    active.append(Told(alert=alert, at=wall))
            elif not silenced(alert, state.silences, now):
                if self._changed(known, alert) and (alert.severity is Severity.PAGE or not quiet(destination, now)):
                    active.append(Told(alert=alert, at=known.at))
                elif self._said_before(key, self._channel.repeat_s):
                    active.append(known)
        over = [
            known
            for key, known in self.told.items()
            if key not in standing and (known.alert.severity is Severity.PAGE or not quiet(destination, now))
        ]
        # Whoever knows an alert by how loud it is must hear that the quieter one is over.
        over += [
            self.told[one.alert.key]
            for one in active
            if one.alert.key in self.told and self.told[one.alert.key].alert.severity is not one.alert.severity
        ]
        return active, over

    def _changed(self, known: Told, alert: Alert) -> bool:
        """Is it to be said anew, because it reads otherwise now?"""
        if known.alert.severity is not alert.severity:
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
        for one in active:
            self._said_s[one.alert.key] = said_s
        for one in over:
            self._said_s.pop(one.alert.key, None)


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
                self._tellers[name] = Teller(channel, destination, await self._cursors.told(name))
            elif known.destination != destination and name not in self._talking:
                if known.destination.since != destination.since:  # removed and set anew meanwhile
                    await self._cursors.forget(epoch, name)
                self._tellers[name] = Teller(channel, destination, await self._cursors.told(name))
        for name in [name for name in self._tellers if name not in state.destinations]:
            if name not in self._talking:
                del self._tellers[name]
                await self._cursors.forget(epoch, name)

    async def _disable(self, destination: Destination, why: str) -> None:
        """Tell nothing there until it is set again: the receiver is gone."""
        command = SetDestination(destination=msgspec.structs.replace(destination, disabled=why))
        with suppress(RunwayError):
            await self._node.submit(Submission(command=command, actor=ACTOR, reason=why))
        log.warning("destination.disabled", destination=destination.name, why=why)

    async def _talk(self, teller: Teller, epoch: int, active: Sequence[Told], over: Sequence[Told]) -> None:
        destination = teller.destination
        try:
            for some, ended in teller.batches(active, over):
                await teller.say(self._secret(destination.secret_variable), some, ended, datetime.now(UTC))
                for one in ended:
                    teller.told.pop(one.alert.key, None)
                teller.told.update((one.alert.key, one) for one in some)
                await self._cursors.tell(epoch, destination.name, some, [one.alert.key for one in ended])
        except Undelivered as error:
            if str(error) != teller.failure:
                log.warning("alert.untold", destination=destination.name, failure=str(error))
            teller.failure = str(error)
            if error.gone:
                await self._disable(destination, str(error))
            teller.tries += 1
            pause_s = min(self._retry_s * 2 ** min(teller.tries - 1, 20), RETRY_S_MAX) * (0.5 + self._jitter() / 2)
            teller.open_s = time.monotonic() + max(pause_s, error.retry_after_s)
        except RunwayError as error:
            log.debug("alert.unnoted", destination=destination.name, message=error.message)
        except Exception as error:
            log.error("alert.failed", destination=destination.name, error=repr(error), exc_info=error)
        else:
            teller.failure, teller.tries, teller.delivered_at = "", 0, datetime.now(UTC)
