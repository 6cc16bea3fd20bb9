"""What telling others needs of the world: cursors that survive, one safe POST, and what is spoken where."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from control_plane.core.alerts.types import Alert, Destination

FAILURE_CHARS_MAX = 500
"""Of the last failure of a destination, as it is kept and shown."""


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """How far one destination has been sent the log: everything up to `low`, and `above` it the ranges, both ends
    included, that were acknowledged while something older was not."""

    destination: str
    since: int
    """Of the destination that it belongs to; one of the same name that was set anew begins anew."""
    low: int
    above: tuple[tuple[int, int], ...] = ()
    last_failure: str = ""
    last_delivered_at: datetime | None = None
    """By the wall clock."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as a destination knows it."""

    alert: Alert
    at: datetime
    """When it was first told there, by the wall clock."""
    place: str = ""
    """Where it was told, as `place_of`; what was told elsewhere is not known here. Empty: nobody wrote it down."""


def place_of(destination: Destination) -> str:
    """What makes a destination another one, whatever its name: whoever listens there has heard nothing yet."""
    return f"{destination.kind.value} {destination.url} {destination.secret_variable}"


class Cursors(Protocol):
    """Keeps what was sent where. Only the leader writes: whoever holds an epoch that is over changes nothing."""

    async def load(self) -> dict[str, Cursor]:
        """All cursors by destination. Raises Unavailable(STORE_UNAVAILABLE)."""
        ...

    async def save(self, epoch: int, cursor: Cursor) -> None:
        """Keep a cursor in place of the destination's other one; durable on return.

        Raises Unavailable: NOT_LEADER when the epoch is over, STORE_UNAVAILABLE.
        """
        ...

    async def told(self, destination: str) -> dict[str, Told]:
        """What a destination was told and not yet told to be over, by key. Raises Unavailable(STORE_UNAVAILABLE)."""
        ...

    async def tell(self, epoch: int, destination: str, told: Sequence[Told], over: Sequence[str]) -> None:
        """Remember what was told and forget what is over; all or nothing. Raises as `save`."""
        ...

    async def forget(self, epoch: int, destination: str) -> None:
        """Forget all about a destination. Raises as `save`."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


SECRET_CHARS_MIN = 8
"""So many first characters of a secret are hidden as the whole is: what comes back may be cut anywhere."""


def hidden(text: str, secret: str) -> str:
    """A text without a secret that it repeats: receivers echo, redirects name the whole address.

    >>> hidden("a redirect to 'https://x/T0/B0/abcdef'", "T0/B0/abcdef"), hidden("cut: T0/B0/abc", "T0/B0/abcdef")
    ("a redirect to 'https://x/***'", 'cut: ***')
    """
    if secret:
        text = text.replace(secret, "***")
    for length in range(len(secret) - 1, SECRET_CHARS_MIN - 1, -1):
        if secret[:length] in text:
            return text.replace(secret[:length], "***")
    return text


class Undelivered(Exception):
    """Nothing was taken over there; the text says why, in words for people."""

    def __init__(self, text: str, *, retry_after_s: float = 0.0, gone: bool = False, refused: bool = False) -> None:
        super().__init__(" ".join(text.split())[:FAILURE_CHARS_MAX])
        self.retry_after_s = retry_after_s
        """How long the receiver asks to be left alone; 0 if it does not."""
        self.gone = gone
        """410: nothing is wanted there any more."""
        self.refused = refused
        """The receiver is there and said no to this very message."""

    def hiding(self, secret: str) -> "Undelivered":
        """The same without a secret in its words."""
        return Undelivered(
            hidden(str(self), secret), retry_after_s=self.retry_after_s, gone=self.gone, refused=self.refused
        )


class Post(Protocol):
    """One POST to an address of somebody's choice."""

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool) -> str:
        """Send it; what came back, in words, if it was taken (2xx). Raises Undelivered."""
        ...


class Channel(Protocol):
    """How alerts are said to one kind of destination."""

    batch_max: int
    """Alerts in one call."""
    repeat_s: float
    """How often an active alert is said again, so that it is not taken for over; 0 never."""
    tells_changes: bool
    """Is an alert that reads otherwise said again?"""

    def known_by(self, alert: Alert) -> tuple[str, ...]:
        """What an alert is known by there: one that differs in it is another one, and the old one must be ended."""
        ...

    async def tell(
        self, destination: Destination, secret: str, active: Sequence[Told], over: Sequence[Told], wall: datetime
    ) -> str:
        """Say which are active and which are over; what came back, in words. Raises Undelivered."""
        ...
