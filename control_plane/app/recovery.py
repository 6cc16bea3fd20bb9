"""Builds a replica from what the database holds: newest usable snapshot, then the tail of the log, all
checked.

A snapshot is only a cache, so one that cannot be read is passed over. The log is the truth, so one that does
not hold together stops the start with the first bad seq (`CorruptLog`); nothing is repaired in silence.
"""

import asyncio
from collections.abc import Callable

import structlog

from control_plane.app import limits
from control_plane.app.collector import collector_paused
from control_plane.app.ports import CommandT, CorruptLog, EventLog, S, SnapshotStore, StateMachine
from control_plane.app.replica import Replica
from control_plane.core.events import Envelope

log = structlog.get_logger("runway.recovery")


async def recover(
    machine: StateMachine[S, CommandT],
    event_log: EventLog,
    snapshots: SnapshotStore,
    epoch: int,
    seen: Callable[[list[Envelope]], None],
) -> Replica[S, CommandT]:
    """The replica of everything in the log. `seen` gets the envelopes of the replayed tail, in order.

    Raises:
        CorruptLog: naming the first bad seq.
        Unavailable(STORE_UNAVAILABLE): try again.
    """
    head, _ = await event_log.head()
    replica = await _from_snapshot(machine, event_log, snapshots, head)
    start = replica.durable
    await _verify_behind(machine, event_log, start)
    while True:
        page = await event_log.read(replica.durable, limits.PAGE_RECORDS)
        if not page:
            break
        # A page of large events takes seconds; the heartbeat goes on meanwhile.
        seen(await asyncio.to_thread(replica.replay, page))
    if replica.durable < head:
        raise CorruptLog(replica.durable + 1, f"the log ended at {head} and now ends at {replica.durable}")
    replica.epoch = epoch
    log.info("replica.recovered", revision=replica.durable, snapshot=start, epoch=epoch)
    return replica


async def _from_snapshot(
    machine: StateMachine[S, CommandT], event_log: EventLog, snapshots: SnapshotStore, head: int
) -> Replica[S, CommandT]:
    """A replica at the newest snapshot that can be used; at the beginning if there is none."""
    snapshot = await snapshots.newest()
    while snapshot is not None:
        if snapshot.seq > head:
            raise CorruptLog(
                head + 1,
                f"a snapshot of seq {snapshot.seq} exists but the log ends at {head}: entries are lost",
            )
        at = await event_log.read(snapshot.seq - 1, 1)
        if not at or at[0].seq != snapshot.seq:
            raise CorruptLog(snapshot.seq, "the log has no such entry, but a snapshot taken there exists")
        if at[0].hash != snapshot.hash:
            raise CorruptLog(snapshot.seq, "its hash is not the one that the snapshot taken there remembers")
        replica = Replica(machine)
        try:
            # Seconds for a large state; the heartbeat goes on meanwhile.
            with collector_paused():
                await asyncio.to_thread(replica.restore, snapshot)
        except ValueError as error:
            log.warning("snapshot.passed_over", seq=snapshot.seq, error=str(error))
            snapshot = await snapshots.newest(before_seq=snapshot.seq)
            continue
        return replica
    return Replica(machine)


async def _verify_behind(machine: StateMachine[S, CommandT], event_log: EventLog, seq: int) -> None:
    """Check the chain up to the snapshot too: a log changed behind our back is found now, not in an audit."""
    if seq > 0:
        await _verify(machine, event_log, max(0, seq - limits.VERIFY_RECORDS_MAX), seq)


async def verify_history(machine: StateMachine[S, CommandT], event_log: EventLog, restored: int) -> None:
    """Check what a start from the snapshot at `restored` left out, newest first. Raises CorruptLog."""
    to_seq = restored - limits.VERIFY_RECORDS_MAX
    while to_seq > 0:
        after = max(0, to_seq - limits.VERIFY_PAGE_RECORDS)
        await _verify(machine, event_log, after, to_seq)
        to_seq = after
        await asyncio.sleep(limits.VERIFY_PAUSE_S)


async def _verify(machine: StateMachine[S, CommandT], event_log: EventLog, after: int, to_seq: int) -> None:
    bad = await event_log.verify(after, to_seq, machine.schema_version)
    if bad is not None:
        raise CorruptLog(bad.seq, bad.fault)
