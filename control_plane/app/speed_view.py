"""The speed view as several processes share it: what it must do, who writes it and how it is read.

Theory of operation. Whoever joins rows is a *shard*: the embedded store, or a worker with a partition of Kafka. Each id
belongs to one shard, so partials of an hour add up over shards. A shard writes what an hour is now, never what was
added to it: writing twice, or again after a restart, changes nothing. A view that was emptied is noticed by its
marker being gone, and everything live is written again. A view that cannot be reached costs nobody an answer: the
control plane serves from memory, says so, and catches up later.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog

from control_plane.app.arrivals import Lag
from control_plane.app.fact_reports import LiveHour
from control_plane.app.fact_store import FactStore
from control_plane.core.errors import Unavailable
from control_plane.core.ground_truth.partials import Partial, merge_weighted, unpack

log = structlog.get_logger("runway.speed")

TTL_S = 24 * 3_600
"""How long an hour is kept after it was written last."""
RENEW_S = 6 * 3_600
"""Between two writes of a live hour that has not changed: well inside its time to live."""
EMBEDDED_SHARD = "0"
EVERY_S = 1.0
"""Between two passes of the publisher."""
HOURS_AT_ONCE = 256
"""Hours in one round trip."""
HOURS_PER_PASS = 4_096
"""Hours written in one pass; what is left is written in the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHour:
    """One hour of one model and label, as one shard sees it: all versions of it."""

    model_id: str
    label_type: str
    hour: int
    shard: str
    computed_us: int
    """Since 1970. An older one never replaces a newer one."""
    rate: float
    """The share of ids that it is of, 0 < rate <= 1."""
    packed: Mapping[int, bytes]
    """Version -> packed partial; empty takes the hour of this shard away."""


class SharedSpeedView(Protocol):
    """Hours by shard, kept for `TTL_S`. Safe for concurrent use. Every method may raise Unavailable."""

    def marker(self, shard: str) -> str:
        """What was set for a shard last; empty if the view has been emptied since."""
        ...

    def set_marker(self, shard: str, text: str) -> None:
        """Leave a mark that is lost when the view is."""
        ...

    def write(self, hours: Sequence[ShardHour]) -> None:
        """Replace hours of their shards, each whole; older than what is there changes nothing."""
        ...

    def read(self, model_id: str, label_type: str, first_hour: int, end_hour: int) -> list[ShardHour]:
        """All shards of hours first_hour <= hour < end_hour, by hour and shard."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def merged(hours: Iterable[ShardHour]) -> dict[int, dict[int, Partial]]:
    """Hour -> version -> the partial of all shards, each scaled to all of its ids."""
    parts: dict[int, dict[int, list[tuple[Partial, float]]]] = {}
    for one in hours:
        for version, packed in one.packed.items():
            parts.setdefault(one.hour, {}).setdefault(version, []).append((unpack(packed), 1 / one.rate))
    return {
        hour: {version: merge_weighted(found) for version, found in sorted(versions.items())}
        for hour, versions in sorted(parts.items())
    }


@dataclass(slots=True)
class _Sent:
    """What was written of an hour, and when."""

    rate: float
    packed: Mapping[int, bytes]
    at_s: float


@dataclass(slots=True)
class _Progress:
    arrivals: dict[str, int] = field(default_factory=dict)
    """Model id -> how much had arrived of it when it was looked at."""
    sent: dict[tuple[str, str, int], _Sent] = field(default_factory=dict)
    looked_s: float = float("-inf")
    """When all models were looked at last, whether something came or not."""


class SpeedPublisher:
    """Writes the live hours of a store into a shared view. Implements `app.arrivals.FactSource`."""

    def __init__(
        self,
        store: FactStore,
        view: SharedSpeedView,
        now: Callable[[], datetime],
        *,
        shard: str = EMBEDDED_SHARD,
        every_s: float = EVERY_S,
        renew_s: float = RENEW_S,
        name: str = "the shared speed view",
    ) -> None:
        self._store = store
        self._view = view
        self._now = now
        self._shard = shard
        self._every_s = every_s
        self._renew_s = renew_s
        self._name = name
        self._marker = uuid.uuid4().hex
        self._progress = _Progress()
        self._gone_since: datetime | None = None
        self._gone_why = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="speed-publisher", daemon=True)

    def start(self) -> None:
        """See `FactSource`."""
        self._thread.start()

    def stop(self) -> None:
        """See `FactSource`. What is not written is written after a restart."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._view.close()

    def degraded(self) -> tuple[str, ...]:
        """See `FactSource`."""
        if self._gone_since is None:
            return ()
        return (
            f"{self._name} has not been reached since {self._gone_since:%Y-%m-%d %H:%M:%S} UTC ({self._gone_why}): "
            "answers here are complete, from memory; other readers of the view see what was written before",
        )

    def lags(self) -> tuple[Lag, ...]:
        """See `FactSource`: none."""
        return ()

    def publish(self) -> int:
        """Write what has changed, up to `HOURS_PER_PASS` hours; how many were written.

        Raises:
            Unavailable: the view cannot be reached. Nothing that was not written counts as written.
        """
        if self._view.marker(self._shard) != self._marker:
            self._progress = _Progress()
        progress, now = self._progress, self._now()
        computed_us = int(now.timestamp() * 1_000_000)
        found = self._changed()
        written = 0
        for start in range(0, min(len(found), HOURS_PER_PASS), HOURS_AT_ONCE):
            part = found[start : start + HOURS_AT_ONCE]
            self._view.write([_shard_hour(one, self._shard, computed_us) for one in part])
            at_s = time.monotonic()
            for one in part:
                progress.sent[(one.model_id, one.label_type, one.hour)] = _Sent(one.rate, one.packed, at_s)
            written += len(part)
        if len(found) > HOURS_PER_PASS:
            progress.arrivals.clear()  # look at all of them again
            progress.looked_s = float("-inf")
        self._view.set_marker(self._shard, self._marker)
        return written

    def _changed(self) -> list[LiveHour]:
        """Live hours that are not in the view as they are now, or not for long enough any more."""
        progress, now_s = self._progress, time.monotonic()
        arrivals = self._store.arrivals()
        everything = now_s - progress.looked_s >= self._renew_s / 4
        models = [one for one, count in arrivals.items() if everything or progress.arrivals.get(one) != count]
        if everything:
            models = sorted({*models, *self._store.live_models()})
            progress.looked_s = now_s
        found: list[LiveHour] = []
        for model_id in models:
            live = self._store.live_hours(model_id, self._now())
            found += [one for one in live if not self._is_sent(one, now_s)]
            progress.arrivals[model_id] = arrivals.get(model_id, 0)
        return found

    def _is_sent(self, one: LiveHour, now_s: float) -> bool:
        sent = self._progress.sent.get((one.model_id, one.label_type, one.hour))
        same = sent is not None and sent.rate == one.rate and sent.packed == one.packed
        return same and sent is not None and now_s - sent.at_s < self._renew_s

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self.publish()
            except Unavailable as error:
                self._progress.looked_s = float("-inf")
                if self._gone_since is None:
                    self._gone_since = self._now()
                    log.warning("speed_view.lost", message=error.message)
                self._gone_why = error.message
            except Exception:
                # The view is a copy: an error here must cost nobody an answer, but must be seen.
                log.exception("speed_view.publish_failed")
            else:
                if self._gone_since is not None:
                    log.info("speed_view.reached")
                self._gone_since = None


def _shard_hour(one: LiveHour, shard: str, computed_us: int) -> ShardHour:
    return ShardHour(
        model_id=one.model_id,
        label_type=one.label_type,
        hour=one.hour,
        shard=shard,
        computed_us=computed_us,
        rate=one.rate,
        packed=one.packed,
    )
