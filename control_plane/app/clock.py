"""A clock that is driven from outside: the demo's and a backtest's."""

from datetime import datetime


class DrivenClock:
    """Time that moves only when it is told to."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """Where it stands."""
        return self._now

    def advance(self, to: datetime) -> None:
        """Move forward; an earlier instant is ignored."""
        self._now = max(self._now, to)
