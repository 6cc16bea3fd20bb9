"""A shared speed view within one process: for tests and as the twin of the one in Redis."""

import threading
import time
from collections.abc import Callable, Sequence

from control_plane.app.speed_view import TTL_S, ShardHour


class MemorySpeedView:
    """`SharedSpeedView` in a dictionary."""

    def __init__(self, ttl_s: float = TTL_S, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._hours: dict[tuple[str, str, int], dict[str, ShardHour]] = {}
        self._until_s: dict[tuple[str, str, int], float] = {}
        self._markers: dict[str, str] = {}

    def marker(self, shard: str) -> str:
        """See `SharedSpeedView`."""
        with self._lock:
            return self._markers.get(shard, "")

    def set_marker(self, shard: str, text: str) -> None:
        """See `SharedSpeedView`."""
        with self._lock:
            self._markers[shard] = text

    def write(self, hours: Sequence[ShardHour]) -> None:
        """See `SharedSpeedView`."""
        with self._lock:
            self._expire()
            for one in hours:
                key = (one.model_id, one.label_type, one.hour)
                shards = self._hours.setdefault(key, {})
                known = shards.get(one.shard)
                if known is None or known.computed_us <= one.computed_us:
                    shards[one.shard] = one
                    self._until_s[key] = self._clock_s() + self._ttl_s

    def read(self, model_id: str, label_type: str, first_hour: int, end_hour: int) -> list[ShardHour]:
        """See `SharedSpeedView`."""
        with self._lock:
            self._expire()
            found = [
                one
                for key, shards in self._hours.items()
                if key[:2] == (model_id, label_type) and first_hour <= key[2] < end_hour
                for one in shards.values()
                if one.packed
            ]
        return sorted(found, key=lambda one: (one.hour, one.shard))

    def clear(self) -> None:
        """Forget everything, as a server does that is flushed."""
        with self._lock:
            self._hours.clear()
            self._until_s.clear()
            self._markers.clear()

    def close(self) -> None:
        """See `SharedSpeedView`: nothing to let go of."""

    def _expire(self) -> None:
        now_s = self._clock_s()
        for key in [key for key, until_s in self._until_s.items() if until_s <= now_s]:
            del self._hours[key], self._until_s[key]
