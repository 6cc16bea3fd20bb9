"""Changes for watchers: a ring of the newest durable events, and a cursor for each watcher.

A watcher holds no queue: its position in the shared ring is its bound. One that begins behind the ring first
reads pages from the log; one that has caught up and then falls out of the ring is too slow and is told to
resume (`WATCH_TOO_OLD`), so that a stuck client costs nothing but its cursor.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from control_plane.app import limits
from control_plane.core.errors import Reason, Refused, Unavailable
from control_plane.core.events import Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBatch:
    """Consecutive durable events; empty: progress only. Resume with `since=revision`."""

    envelopes: Sequence[Envelope]
    revision: int


class ReadPage(Protocol):
    """Reads envelopes from the log."""

    async def __call__(self, after_seq: int, limit: int) -> list[Envelope]:
        """Up to `limit` envelopes after `after_seq`."""
        ...


class Changes:
    """The ring of one term; a node that steps down ends it and its watchers."""

    def __init__(self, read_page: ReadPage) -> None:
        self._read_page = read_page
        self._ring: list[Envelope] = []
        self._moved = asyncio.Event()
        self._ended: Exception | None = None
        self.revision = 0
        self.watchers = 0

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Add events that have become durable."""
        if not envelopes:
            return
        self._ring.extend(envelopes)
        if len(self._ring) > 2 * limits.RING_EVENTS_MAX:  # trimmed in bulk, so it costs little per event
            del self._ring[: -limits.RING_EVENTS_MAX]
        self.revision = envelopes[-1].seq
        self._wake()

    def end(self, error: Exception) -> None:
        """Tell all watchers to come again."""
        self._ended = error
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def follow(self, since: int, progress_s: float = limits.WATCH_PROGRESS_S) -> AsyncGenerator[WatchBatch, None]:
        """Everything after revision `since`, then what comes, with an empty batch at least every
        `progress_s`.

        Raises:
            Refused(WATCH_TOO_OLD): `since` is too far back, or the watcher fell behind; `oldest_revision`
            tells. Unavailable(REVISION_NOT_REACHED): `since` lies in the future. Unavailable(LIMIT_EXCEEDED):
            too many watchers. Unavailable: this node stopped leading; resume from the last revision.
        """
        self._check_begin(since)
        self.watchers += 1
        caught_up = False
        try:
            while self._ended is None:
                moved = self._moved
                if since < self.revision:
                    first = self._ring[0].seq if self._ring else self.revision + 1
                    if since + 1 >= first:
                        caught_up = True
                        start = since + 1 - first
                        page = self._ring[start : start + limits.WATCH_PAGE_EVENTS_MAX]
                    elif caught_up:
                        raise _too_old(since, first - 1, "this watcher is too slow")
                    else:
                        page = await self._read_page(since, limits.WATCH_PAGE_EVENTS_MAX)
                        page = [envelope for envelope in page if envelope.seq <= self.revision]
                    since = page[-1].seq
                    yield WatchBatch(envelopes=page, revision=since)
                    continue
                caught_up = True
                try:
                    async with asyncio.timeout(progress_s):
                        await moved.wait()
                except TimeoutError:
                    yield WatchBatch(envelopes=(), revision=since)
            raise self._ended
        finally:
            self.watchers -= 1

    def _check_begin(self, since: int) -> None:
        if self.watchers >= limits.WATCHERS_MAX:
            raise Unavailable(Reason.LIMIT_EXCEEDED, f"{limits.WATCHERS_MAX} watchers are connected; try again later.")
        if since > self.revision:
            raise Unavailable(
                Reason.REVISION_NOT_REACHED,
                f"Revision {since} does not exist yet; the newest is {self.revision}.",
                revision=str(self.revision),
            )
        oldest = self.revision - limits.WATCH_BACKLOG_EVENTS_MAX
        if since < oldest:
            raise _too_old(since, oldest, "that is too long ago")


def _too_old(since: int, oldest: int, why: str) -> Refused:
    return Refused(
        Reason.WATCH_TOO_OLD,
        f"Cannot watch from revision {since}: {why}. Read the items anew and watch from their revision.",
        since=str(since),
        oldest_revision=str(oldest),
    )
