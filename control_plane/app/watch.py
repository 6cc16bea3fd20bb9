"""Changes for watchers: a ring of the newest durable events, and a cursor for each watcher.

Theory of operation
    A watcher holds no queue: its position in the shared ring is its bound. One that begins behind the ring first reads
    pages from the log; one that has caught up and then falls out of the ring is too slow and is told to resume
    (`WATCH_TOO_OLD`), so that a stuck client costs nothing but its cursor.

    Watchers are not woken by each append but together, by one round:

    | when                               | what happens                                                           |
    |------------------------------------|------------------------------------------------------------------------|
    | an append after a silence          | a round at once                                                        |
    | appends within the linger          | one round when the linger is over, for all of them                     |
    | a round, watcher waits, wants some | it is woken and takes everything up to the round                       |
    | a round, watcher waits, wants none | its cursor moves; it is not woken, or after many events, to tell those |
    | a round, watcher is busy           | nothing; it takes everything up to the newest round when it comes back |

    The linger grows with how many were woken, so that telling takes a bounded share of the time whatever their number.
    Since all take up to the same round, those who want everything take the same events, which are then encoded once.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from control_plane.app import limits
from control_plane.core.errors import Reason, Refused, Unavailable
from control_plane.core.events import Envelope
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.subjects import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBatch:
    """What a watcher wants of the events up to `revision`, oldest first; empty: progress only. Resume with
    `since=revision`."""

    envelopes: Sequence[Envelope]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """What a watcher wants: one of the kinds, and about one of the models or one of the teams. Empty sets ask for
    nothing in particular."""

    kinds: frozenset[str] = frozenset()
    models: frozenset[ModelId] = frozenset()
    teams: frozenset[TeamId] = frozenset()

    @property
    def everything(self) -> bool:
        """Nothing is asked for in particular."""
        return not (self.kinds or self.models or self.teams)

    def wants(self, subject: Subject) -> bool:
        """Does this event belong to it? Of the sum of several events: may one of them?"""
        return self.wants_any({subject.kind}, subject.models, subject.teams)

    def wants_any(
        self,
        kinds: set[str] | frozenset[str],
        models: set[ModelId] | frozenset[ModelId],
        teams: set[TeamId] | frozenset[TeamId],
    ) -> bool:
        """May one of several events of these kinds, about these models and teams, belong to it?"""
        if self.kinds and self.kinds.isdisjoint(kinds):
            return False
        if not (self.models or self.teams):
            return True
        return not (self.models.isdisjoint(models) and self.teams.isdisjoint(teams))


EVERYTHING = Interest()


class ReadPage(Protocol):
    """Reads envelopes from the log."""

    async def __call__(self, after_seq: int, limit: int) -> list[Envelope]:
        """Up to `limit` envelopes after `after_seq`."""
        ...


class _Watcher:
    """A cursor, and the way to wake who waits at it."""

    __slots__ = ("given", "interest", "since", "woken")

    def __init__(self, since: int, interest: Interest) -> None:
        self.since = since
        self.given = since
        """The newest revision that its reader knows of."""
        self.interest = interest
        self.woken: asyncio.Future[bool] | None = None

    def wake(self, *, silent: bool = False) -> None:
        """Let it go on; `silent`: because nothing happened for long."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(silent)


class Changes:
    """The ring of one term; a node that steps down ends it and its watchers."""

    def __init__(self, read_page: ReadPage, describe: Callable[[Envelope], Subject]) -> None:
        self._read_page = read_page
        self._describe = describe
        self._ring: list[Envelope] = []
        self._subjects: list[Subject | None] = []
        """Beside each event what it is about, once somebody has asked."""
        self._waiting: dict[_Watcher, None] = {}
        self._round: asyncio.Handle | None = None
        self._told = 0
        """The newest round: watchers take events up to here."""
        self._told_at_s = float("-inf")
        self._linger_s = limits.WATCH_LINGER_S_MIN
        self._ended: Exception | None = None
        self.revision = 0
        self.watchers = 0

    def begin(self, revision: int) -> None:
        """Where the log stands when the term begins."""
        self.revision = self._told = revision

    def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Add events that have become durable."""
        if not envelopes:
            return
        self._ring.extend(envelopes)
        self._subjects.extend([None] * len(envelopes))
        if len(self._ring) > 2 * limits.RING_EVENTS_MAX:  # trimmed in bulk, so it costs little per event
            del self._ring[: -limits.RING_EVENTS_MAX]
            del self._subjects[: -limits.RING_EVENTS_MAX]
        self.revision = envelopes[-1].seq
        if not self.watchers:
            self._told = self.revision
        elif self._round is None:
            loop = asyncio.get_running_loop()
            self._round = loop.call_at(max(loop.time(), self._told_at_s + self._linger_s), self._tell)

    def end(self, error: Exception) -> None:
        """Tell all watchers to come again."""
        self._ended = error
        if self._round is not None:
            self._round.cancel()
        for watcher in tuple(self._waiting):
            watcher.wake()

    def follow(
        self,
        since: int,
        interest: Interest = EVERYTHING,
        progress_s: float | None = None,
        *,
        greet: bool = False,
    ) -> AsyncGenerator[WatchBatch, None]:
        """What `interest` lets through after revision `since`, then of what comes, with an empty batch at least every
        `progress_s` (`WATCH_PROGRESS_S`); `greet` begins with one.

        Raises:
            At once: Refused(WATCH_TOO_OLD): `since` is too far back; `oldest_revision` tells where a watch may begin.
            Unavailable(REVISION_NOT_REACHED): `since` lies in the future. Unavailable(LIMIT_EXCEEDED): too many
            watchers.
            Later: Refused(WATCH_TOO_OLD): the watcher fell behind. Unavailable: this node stopped leading; resume from
            the last revision.
        """
        self._check_begin(since)
        return self._follow(since, interest, progress_s or limits.WATCH_PROGRESS_S, greet=greet)

    async def _follow(
        self, since: int, interest: Interest, progress_s: float, *, greet: bool
    ) -> AsyncGenerator[WatchBatch, None]:
        watcher = _Watcher(since, interest)
        caught_up = False
        self.watchers += 1
        try:
            if greet:
                yield WatchBatch(envelopes=(), revision=since)
            while self._ended is None:
                silent = False
                if watcher.since >= self._told:
                    silent = await self._wait(watcher, progress_s)
                    # More than the ring holds may come at once; who waited for it is not slow.
                    caught_up = watcher.since + 1 >= self._first
                    if not silent:
                        continue
                    batch = WatchBatch(envelopes=(), revision=watcher.since)
                elif watcher.since + 1 >= self._first:
                    caught_up = True
                    batch = self._from_ring(watcher)
                elif caught_up:
                    raise self._too_slow(watcher.since)
                else:
                    batch = await self._from_log(watcher)
                watcher.since = batch.revision
                if batch.envelopes or silent or batch.revision - watcher.given >= limits.WATCH_PROGRESS_EVENTS:
                    watcher.given = batch.revision
                    yield batch
            raise self._ended
        finally:
            self.watchers -= 1

    @property
    def _first(self) -> int:
        """The oldest revision in the ring."""
        return self._ring[0].seq if self._ring else self.revision + 1

    async def _wait(self, watcher: _Watcher, progress_s: float) -> bool:
        """Wait for a round that brings something; True if there was none for `progress_s`."""
        loop = asyncio.get_running_loop()
        watcher.woken = loop.create_future()
        self._waiting[watcher] = None
        silence = loop.call_later(progress_s, lambda: watcher.wake(silent=True))
        try:
            return await watcher.woken
        finally:
            silence.cancel()
            self._waiting.pop(watcher, None)

    def _tell(self) -> None:
        """One round."""
        loop = asyncio.get_running_loop()
        self._round = None
        before, self._told = self._told, self.revision
        kinds, models, teams = self._sum(before)
        due = []
        for watcher in self._waiting:
            interest = watcher.interest
            if (
                interest.everything
                or self._told - watcher.given >= limits.WATCH_PROGRESS_EVENTS
                or interest.wants_any(kinds, models, teams)
            ):
                due.append(watcher)
            else:
                watcher.since = self._told
        for watcher in due:
            del self._waiting[watcher]
        self._told_at_s = loop.time()
        self._linger_s = min(max(limits.WATCH_LINGER_S_MIN, len(due) * limits.WATCH_WAKE_S), limits.WATCH_LINGER_S_MAX)
        self._wake_some(iter(due))

    def _wake_some(self, due: Iterator[_Watcher]) -> None:
        """Wake some, then let others have a turn, so that writing goes on meanwhile."""
        for _ in range(limits.WATCH_WAKES_AT_ONCE):
            watcher = next(due, None)
            if watcher is None:
                return
            watcher.wake()
        asyncio.get_running_loop().call_soon(self._wake_some, due)

    def _sum(self, after: int) -> tuple[set[str], set[ModelId], set[TeamId]]:
        """All kinds, models and teams of the events after `after`; nothing if nobody who waits chooses.

        Of more events than the ring holds it is not whole; but those are more than `WATCH_PROGRESS_EVENTS`, and all are
        woken.
        """
        kinds: set[str] = set()
        models: set[ModelId] = set()
        teams: set[TeamId] = set()
        if all(watcher.interest.everything for watcher in self._waiting):
            return kinds, models, teams
        for place in range(max(0, after + 1 - self._first), len(self._ring)):
            subject = self._subject(place)
            kinds.add(subject.kind)
            models |= subject.models
            teams |= subject.teams
        return kinds, models, teams

    def _subject(self, place: int) -> Subject:
        known = self._subjects[place]
        if known is None:
            known = self._subjects[place] = self._describe(self._ring[place])
        return known

    def _from_ring(self, watcher: _Watcher) -> WatchBatch:
        start = watcher.since + 1 - self._first
        stop = min(start + limits.WATCH_PAGE_EVENTS_MAX, self._told + 1 - self._first)
        page: Sequence[Envelope] = self._ring[start:stop]
        if not watcher.interest.everything:
            wants = watcher.interest.wants
            page = [self._ring[place] for place in range(start, stop) if wants(self._subject(place))]
        return WatchBatch(envelopes=page, revision=self._ring[stop - 1].seq)

    async def _from_log(self, watcher: _Watcher) -> WatchBatch:
        told = self._told
        page = await self._read_page(watcher.since, limits.WATCH_PAGE_EVENTS_MAX)
        page = [envelope for envelope in page if envelope.seq <= told]
        revision = page[-1].seq
        if not watcher.interest.everything:
            page = [envelope for envelope in page if watcher.interest.wants(self._describe(envelope))]
        return WatchBatch(envelopes=page, revision=revision)

    def _check_begin(self, since: int) -> None:
        if self.watchers >= limits.WATCHERS_MAX:
            raise Unavailable(Reason.LIMIT_EXCEEDED, f"{limits.WATCHERS_MAX} watchers are connected; try again later.")
        if since > self.revision:
            raise Unavailable(
                Reason.REVISION_NOT_REACHED,
                f"Revision {since} does not exist yet; the newest is {self.revision}.",
                revision=str(self.revision),
            )
        if since < self._oldest:
            raise Refused(
                Reason.WATCH_TOO_OLD,
                f"Cannot watch from revision {since}: that is too long ago. Watch from {self._oldest} or later, or "
                "take the items anew with include_snapshot; the audit log has what lies between.",
                since=str(since),
                oldest_revision=str(self._oldest),
            )

    @property
    def _oldest(self) -> int:
        """The oldest revision from which a watch may begin."""
        return max(0, self.revision - limits.WATCH_BACKLOG_EVENTS_MAX)

    def _too_slow(self, since: int) -> Refused:
        return Refused(
            Reason.WATCH_TOO_OLD,
            f"This watcher reads too slowly: it is {self.revision - since} events behind and is let go. Watch again "
            f"from revision {since}; everything since {self._oldest} is there.",
            since=str(since),
            oldest_revision=str(self._oldest),
        )
