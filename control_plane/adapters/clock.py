"""The wall clock, without its jumps.

A wall clock that jumps (a VM resumed, an operator's mistake) must not expire every lease at once, so `WallClock` runs
on the monotonic clock and is drawn towards the wall at a bounded rate. It never runs backwards.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

SLEW = 0.05
"""Seconds of correction for each second that passes: a jump of an hour is absorbed in 20 hours."""

TRUST = timedelta(seconds=2)
"""Differences up to this are ordinary discipline (NTP) and are followed at once, forwards only."""


class WallClock:
    """UTC now, without jumps."""

    def __init__(
        self,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._now = wall()
        self._read_at = monotonic()

    def now(self) -> datetime:
        """The current instant."""
        read_at = self._monotonic()
        elapsed = max(0.0, read_at - self._read_at)
        expected = self._now + timedelta(seconds=elapsed)
        off = self._wall() - expected
        if timedelta(0) <= off <= TRUST:
            step = off
        else:
            bound = timedelta(seconds=elapsed * SLEW)
            step = max(-bound, min(bound, off))
        self._now = max(self._now, expected + step)
        self._read_at = read_at
        return self._now
