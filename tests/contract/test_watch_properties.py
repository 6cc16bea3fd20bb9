"""Whatever the order of appends, reads and breaks: a watcher gets the log, filtered, each event once and in order."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.app import limits
from control_plane.app.watch import Changes, Interest, WatchBatch
from control_plane.core.errors import Reason, Refused
from control_plane.core.events import Envelope, Event
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.subjects import Subject
from tests.contract.toy import Added
from tests.reference.watch_twin import filtered

RING = 8
PAGE = 3
WATCHERS = 3

KINDS = ("Added", "Moved", "Gone")
MODELS = tuple(ModelId(name) for name in ("a", "b", "c"))
TEAMS = tuple(TeamId(name) for name in ("ops", "net"))

subjects = st.builds(
    Subject,
    kind=st.sampled_from(KINDS),
    models=st.frozensets(st.sampled_from(MODELS), max_size=2),
    teams=st.frozensets(st.sampled_from(TEAMS), max_size=1),
)
interests = st.builds(
    Interest,
    kinds=st.frozensets(st.sampled_from(KINDS), max_size=2),
    models=st.frozensets(st.sampled_from(MODELS), max_size=1),
    teams=st.frozensets(st.sampled_from(TEAMS), max_size=1),
)
steps = st.lists(
    st.one_of(
        st.lists(subjects, min_size=1, max_size=2 * RING),
        st.tuples(st.sampled_from(["read", "break", "turn"]), st.integers(0, WATCHERS - 1)),
    ),
    max_size=25,
)
"""Appends; a watcher asks for more, and waits while other things happen; it goes away; the loop turns."""


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    """A ring that is fallen out of easily, and rounds without a wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "RING_EVENTS_MAX", RING)
        patch.setattr(limits, "WATCH_PAGE_EVENTS_MAX", PAGE)
        patch.setattr(limits, "WATCH_PROGRESS_EVENTS", 2 * PAGE)
        patch.setattr(limits, "WATCH_LINGER_S_MIN", 0.0)
        patch.setattr(limits, "WATCH_WAKE_S", 0.0)
        yield


class World:
    """A log, its changes, and watchers that come again after each break."""

    def __init__(self, interests: Sequence[Interest], begin: int) -> None:
        self.log: list[Subject] = []
        self.envelopes: list[Envelope] = []
        self.changes = Changes(self.page, lambda envelope: self.log[envelope.seq - 1])
        self.interests = interests
        self.since = [begin] * len(interests)
        self.got: list[list[int]] = [[] for _ in interests]
        self.streams: list[AsyncGenerator[WatchBatch, None] | None] = [None] * len(interests)
        self.asked: list[asyncio.Future[WatchBatch] | None] = [None] * len(interests)

    async def page(self, after_seq: int, limit: int) -> list[Envelope]:
        """As the log reads."""
        await asyncio.sleep(0)
        return self.envelopes[after_seq : after_seq + limit]

    def append(self, batch: Sequence[Subject]) -> None:
        """What a transaction makes durable."""
        fresh = [
            Envelope(
                seq=len(self.log) + number,
                epoch=1,
                at=datetime(2013, 1, 1, tzinfo=UTC),
                actor="",
                reason="",
                event=cast(Event, Added(key="", amount=0)),
            )
            for number in range(1, len(batch) + 1)
        ]
        self.log += batch
        self.envelopes += fresh
        self.changes.publish(fresh)

    async def read(self, number: int) -> None:
        """Take what the last request for more brought, if it has; else ask for more."""
        asked = self.asked[number]
        if asked is None:
            stream = self.streams[number]
            if stream is None:
                stream = self.changes.follow(self.since[number], self.interests[number], progress_s=0.001)
                self.streams[number] = stream
            self.asked[number] = asyncio.ensure_future(anext(stream))
            await self.turn()
        elif asked.done():
            self.asked[number] = None
            self.take(number, asked)

    def take(self, number: int, asked: "asyncio.Future[WatchBatch]") -> None:
        """One batch; a watcher that was let go comes again where it was."""
        try:
            batch = asked.result()
        except Refused as refusal:
            assert refusal.reason is Reason.WATCH_TOO_OLD
            assert int(refusal.details["oldest_revision"]) <= self.since[number]
            self.streams[number] = None
            return
        self.got[number] += [envelope.seq for envelope in batch.envelopes]
        assert batch.revision >= self.since[number]
        self.since[number] = batch.revision

    async def turn(self) -> None:
        """Let rounds happen and watchers wake."""
        for _ in range(4):
            await asyncio.sleep(0)

    async def interrupt(self, number: int) -> None:
        """The connection breaks; what was asked for and not taken is lost."""
        stream, self.streams[number] = self.streams[number], None
        asked, self.asked[number] = self.asked[number], None
        if asked is not None:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        if stream is not None:
            await stream.aclose()

    async def finish(self) -> None:
        """Read on to the end of the log."""
        for number in range(len(self.since)):
            while self.since[number] < len(self.log):
                await self.read(number)
                asked = self.asked[number]
                if asked is not None:
                    await asyncio.wait([asked])
            await self.interrupt(number)


@settings(max_examples=200, deadline=None)
@given(st.lists(subjects, max_size=2 * RING), st.lists(interests, min_size=WATCHERS, max_size=WATCHERS), steps)
def test_a_watcher_gets_the_filtered_log(before: list[Subject], chosen: list[Interest], script: list[object]) -> None:
    async def play() -> World:
        world = World(chosen, begin=0)
        if before:
            world.append(before)
        for step in script:
            match step:
                case list():
                    world.append(step)
                case ("read", int(number)):
                    await world.read(number)
                case ("turn", _):
                    await world.turn()
                case (_, int(number)):
                    await world.interrupt(number)
        await world.finish()
        return world

    world = asyncio.run(play())
    for interest, got in zip(chosen, world.got, strict=True):
        kinds, models, teams = set(interest.kinds), set[str](interest.models), set[str](interest.teams)
        assert got == filtered(world.log, kinds, models, teams)
    assert world.changes.watchers == 0


async def test_more_at_once_than_the_ring_holds_loses_nothing() -> None:
    """Who waits when a whole import becomes durable in one transaction is not slow, and gets what he wants of it."""
    only_a = Interest(models=frozenset({MODELS[0]}))
    world = World([only_a, Interest()], begin=0)
    reads = []
    for interest in world.interests:
        stream = world.changes.follow(0, interest, progress_s=60)
        reads.append((stream, asyncio.ensure_future(anext(stream))))
    await world.turn()
    about = [frozenset({MODELS[0]}), *([frozenset({MODELS[1]})] * (3 * RING))]
    world.append([Subject(kind="Added", models=models) for models in about])
    (some, first), (everything, page) = reads
    assert [envelope.seq for envelope in (await first).envelopes] == [1]
    heard = [envelope.seq for envelope in (await page).envelopes]
    while heard[-1] < len(about):
        heard += [envelope.seq for envelope in (await anext(everything)).envelopes]
    assert heard == list(range(1, len(about) + 1))
    await some.aclose()
    await everything.aclose()
