"""States of the past: any read can be asked as of an earlier revision.

A past state is the nearest snapshot at or below the revision with the events up to it replayed, checked as at a start:
the snapshot's hash must be that of its entry in the log, and every replayed entry must continue the chain. What is
built is shared: callers read it and never change it, as they do with the state of now.

Building goes on in a thread, since a snapshot of 5,000 models takes a tenth of a second to decode; it is made of parts,
so that the event loop gets its turn between them. One state is built at a time; who asks for one that is being built
waits for it, and the last few stay in memory.
"""

import asyncio
from collections import OrderedDict
from datetime import datetime
from typing import Generic

import structlog

from control_plane.app import limits
from control_plane.app.collector import collector_paused
from control_plane.app.ports import CommandT, CorruptLog, EventLog, S, SnapshotStore, StateMachine
from control_plane.app.replica import Replica
from control_plane.core.errors import Reason, Refused, Unavailable

log = structlog.get_logger("runway.history")


class History(Generic[S, CommandT]):
    """Past states of one log."""

    def __init__(
        self,
        *,
        machine: StateMachine[S, CommandT],
        event_log: EventLog,
        snapshots: SnapshotStore,
        states_max: int = limits.PAST_STATES_MAX,
        tail_events_max: int = limits.HISTORY_TAIL_EVENTS_MAX,
    ) -> None:
        self._machine = machine
        self._log = event_log
        self._snapshots = snapshots
        self._states_max = states_max
        self._tail_events_max = tail_events_max
        self._states: OrderedDict[int, S] = OrderedDict()
        self._building: dict[int, asyncio.Task[S]] = {}
        self._turn = asyncio.Lock()
        self.built = 0
        """Past states built so far; for tests and metrics."""

    async def state_at(self, revision: int) -> S:
        """The state right after an event that is durable. It is shared: read it, never change it.

        Args:
            revision: 1 to the newest durable one.
        Raises:
            Refused(HISTORY_NOT_KEPT): no snapshot is near enough.
            CorruptLog: the log cannot be trusted there.
            Unavailable: STORE_UNAVAILABLE; LIMIT_EXCEEDED when too many wait.
        """
        known = self._states.get(revision)
        if known is not None:
            self._states.move_to_end(revision)
            return known
        task = self._building.get(revision)
        if task is None:
            if len(self._building) >= limits.PAST_BUILDS_WAITING_MAX:
                raise Unavailable(
                    Reason.LIMIT_EXCEEDED,
                    f"{len(self._building)} past states are being put together already; ask again in a second.",
                )
            task = self._building[revision] = asyncio.create_task(self._build(revision), name=f"as of {revision}")
            task.add_done_callback(lambda done: self._ended(revision, done))
        # Whoever gives up must not take it away from the others.
        return await asyncio.shield(task)

    async def state_before(self, revision: int) -> S:
        """The state right before the request whose last event this is. Such a request has an id, and all its events
        carry it. Errors as of `state_at`."""
        (last,) = await self._log.read(revision - 1, 1)
        seq, others = revision, list[int]()
        while seq and not others:
            start = max(0, seq - limits.PAGE_RECORDS)
            records = await self._log.read(start, seq - start)
            others = [record.seq for record in records if record.request_id != last.request_id]
            seq = others[-1] if others else start
        return await self.state_at(seq) if seq else self._machine.initial()

    async def revision_at(self, at: datetime) -> int:
        """The last revision whose event is not after this instant; 0 if there is none."""
        return await self._log.seq_at(at)

    async def close(self) -> None:
        """End what is being built, forget all, and let go of connections."""
        tasks = list(self._building.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._states.clear()
        await self._log.close()
        await self._snapshots.close()

    def _ended(self, revision: int, done: "asyncio.Task[S]") -> None:
        self._building.pop(revision, None)
        if not done.cancelled() and done.exception() is None:
            self._states[revision] = done.result()
            while len(self._states) > self._states_max:
                self._states.popitem(last=False)

    async def _build(self, revision: int) -> S:
        async with self._turn:
            with collector_paused():
                return await self._put_together(revision)

    async def _put_together(self, revision: int) -> S:
        replica = await self._nearest(revision)
        start = replica.durable
        while replica.durable < revision:
            page = await self._log.read(replica.durable, min(limits.PAGE_RECORDS, revision - replica.durable))
            if not page:
                raise CorruptLog(replica.durable + 1, f"the log ends here, but revision {revision} was durable")
            await asyncio.to_thread(replica.replay, page)
        self.built += 1
        log.debug("history.built", revision=revision, snapshot=start)
        return replica.state

    async def _nearest(self, revision: int) -> Replica[S, CommandT]:
        """A replica at the nearest usable snapshot; at the beginning if that is near enough."""
        snapshot = await self._snapshots.newest(before_seq=revision + 1)
        while snapshot is not None and revision - snapshot.seq <= self._tail_events_max:
            at = await self._log.read(snapshot.seq - 1, 1)
            if not at or at[0].seq != snapshot.seq or at[0].hash != snapshot.hash:
                raise CorruptLog(snapshot.seq, "its hash is not the one that the snapshot taken there remembers")
            replica: Replica[S, CommandT] = Replica(self._machine)
            try:
                await asyncio.to_thread(replica.restore, snapshot)
            except ValueError as error:
                log.warning("snapshot.passed_over", seq=snapshot.seq, error=str(error))
                if snapshot.codec != self._machine.snapshot_codec:
                    break  # those before it are of an older Runway too
                snapshot = await self._snapshots.newest(before_seq=snapshot.seq)
                continue
            return replica
        if revision <= self._tail_events_max:
            return Replica(self._machine)
        raise Refused(
            Reason.HISTORY_NOT_KEPT,
            f"No checkpoint that this Runway can read is within {self._tail_events_max:,} events before revision "
            f"{revision:,}. `runway events` still shows every single event; ask for a later revision, or for now.",
            revision=str(revision),
        )
