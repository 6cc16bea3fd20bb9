"""The driver of the replica: leads, recovers, writes, ticks, and answers. WHEN things happen; never what.

Theory of operation
    One task leads, over and over, until stopped:

    | phase      | what happens                                        | ends with |
    |------------|-----------------------------------------------------|---------------------------------------------|
    | STANDBY    | waits for leadership                                | epoch opened -> RECOVERING | |
    RECOVERING | snapshot + tail; answers what was in doubt          | -> LEADING; CorruptLog -> FAILED | |
    LEADING    | writer, heartbeat, tick                             | lost or in doubt -> STANDBY; stop ->
    STOPPED| | FAILED     | the log cannot be trusted                           | a person |

    The writer takes commands from the queue, decides them all on the state in memory, appends their events in
    one transaction, and only then answers; a refusal waits as well, since it may rest on an event of the same
    batch. When an append fails the state in memory is ahead of the log: it is discarded and folded anew. When
    the answer to an append is lost, the new epoch (which fences the old append) is opened first, then the log
    says by the hash of the batch's last entry whether it was stored, and the callers are answered
    accordingly.

    Commands that wait in the queue while the database is away stay there up to `STORE_WAIT_S_MAX`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import datetime
from enum import Enum
from typing import Generic, TypeVar

import structlog

from control_plane.app import limits
from control_plane.app.callers import Callers
from control_plane.app.history import History
from control_plane.app.ports import (
    Clock,
    CommandT,
    CorruptLog,
    EventLog,
    Leadership,
    S,
    SnapshotStore,
    StateMachine,
)
from control_plane.app.recovery import recover, verify_history
from control_plane.app.replica import Answer, Replica, Submission, check_submission, open_record
from control_plane.app.revisions import RevisionWaiters
from control_plane.app.saving import Saving
from control_plane.app.watch import EVERYTHING, Changes, Interest, WatchBatch
from control_plane.app.writer import Counters, SuspectError, Writer
from control_plane.core.errors import AppendOutcomeUnknown, Reason, RunwayError, Unavailable
from control_plane.core.events import Envelope
from control_plane.core.subjects import Subject

__all__ = ["Answer", "Counters", "Node", "Phase", "Submission", "WatchBatch"]

log = structlog.get_logger("runway.node")

PLANNER = "runway"
"""Actor of commands that nobody sent but time."""

Seen = TypeVar("Seen")


class Phase(Enum):
    """Where the node stands; see the module's table."""

    STANDBY = "standby"
    RECOVERING = "recovering"
    LEADING = "leading"
    STOPPED = "stopped"
    FAILED = "failed"


class Node(Generic[S, CommandT]):
    """One control plane. Make it, `start` it, `submit` and read, `stop` it."""

    def __init__(
        self,
        *,
        machine: StateMachine[S, CommandT],
        event_log: EventLog,
        snapshots: SnapshotStore,
        leadership: Leadership,
        clock: Clock,
        snapshot_every: int = limits.SNAPSHOT_EVERY_EVENTS,
        tick_s: float = limits.TICK_S,
        on_phase: Callable[[Phase], None] | None = None,
    ) -> None:
        self._machine = machine
        self._log = event_log
        self._snapshots = snapshots
        self._leadership = leadership
        self._clock = clock
        self._tick_s = tick_s
        self._on_phase = on_phase
        self.phase = Phase.STANDBY
        self.counters = Counters()
        self.failure: RunwayError | None = None
        self._replica: Replica[S, CommandT] | None = None
        self._changes = Changes(self._read_page, self._subject)
        self._callers = Callers[CommandT]()
        self._saving = Saving[S, CommandT](snapshots, machine.snapshot_codec, snapshot_every)
        self._revisions = RevisionWaiters()
        self.history = History[S, CommandT](machine=machine, event_log=event_log, snapshots=snapshots)
        self._patience: asyncio.TimerHandle | None = None
        self._impatient = False
        self._writer = Writer[S, CommandT](
            callers=self._callers,
            event_log=event_log,
            revisions=self._revisions,
            saving=self._saving,
            counters=self.counters,
            now=self._time_at,
        )
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tick_turn = asyncio.Lock()
        self._history_checked = False

    async def start(self) -> None:
        """Begin, and return when this node leads.

        With another leader alive this waits for its end.

        Raises:
            CorruptLog: the log cannot be trusted.
            Unavailable(STORE_UNAVAILABLE): no database within `START_WAIT_S_MAX`; the message says why.
        """
        self._task = asyncio.create_task(self._run(), name="runway node")
        await self._settled.wait()
        if self.failure is not None:
            raise self.failure

    async def ended(self) -> None:
        """Return when the node was stopped; raises when it ended by itself, because nobody else would
        notice.
        """
        if self._task is not None:
            await asyncio.shield(self._task)
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        """Answer what is queued, take a snapshot, let the next one lead. Safe to call twice."""
        self._stopping.set()
        self._callers.wake()
        if self._task is not None:
            await self._task

    # --- what callers use ---

    @property
    def state(self) -> S:
        """The state, for reading at once; release what was read only after `durable(state.revision)`.

        Raises Unavailable(NOT_LEADER) while this node does not lead.
        """
        return self._leading().state

    @property
    def revision(self) -> int:
        """The newest durable revision."""
        return self._leading().durable

    @property
    def epoch(self) -> int:
        """The epoch this node leads in."""
        return self._leading().epoch

    @property
    def snapshot_revision(self) -> int:
        """The revision of the newest snapshot known to be stored; 0 if there is none."""
        return self._saving.seq

    def now(self) -> datetime:
        """The time decisions are made at: the clock's, the driven clock's, never before the log's last."""
        return self._time_at(self._leading().state)

    def _time_at(self, state: S) -> datetime:
        return max(self._clock.now(), state.at, state.clock or state.at)

    async def submit(self, submission: Submission[CommandT]) -> Answer:
        """Decide a command and answer once its events are durable.

        A caller that is cancelled before its command was looked at leaves no trace; after that it may be
        stored.

        Raises:
            Invalid, Refused: what the rules say.
            Unavailable: NOT_LEADER, STORE_UNAVAILABLE, SHUTTING_DOWN, LIMIT_EXCEEDED; nothing was changed.
            AppendOutcomeUnknown: not even later did the log say; send it again with the same request id.
        """
        check_submission(submission)
        if self._stopping.is_set():
            raise Unavailable(Reason.SHUTTING_DOWN, "This control plane is stopping; send the request again.")
        if self.phase is not Phase.LEADING and (self._impatient or self._patience is None):
            raise self._not_leading()
        return await self._callers.enqueue(submission)

    async def durable(self, revision: int) -> None:
        """Return once everything up to `revision` is in the log. Call it without giving up control after reading
        `state`: a node that steps down in between may reuse the number. `read` does both.
        """
        if revision <= self._leading().durable:
            return
        await self._revisions.wait(revision)

    async def at_least(self, revision: int, timeout_s: float) -> None:
        """Wait, bounded, until `revision` is durable. Raises Unavailable(REVISION_NOT_REACHED)."""
        if revision <= self._leading().durable:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._revisions.wait(revision)
        except TimeoutError:
            newest = self._leading().durable
            raise Unavailable(
                Reason.REVISION_NOT_REACHED,
                f"Revision {revision} was not reached within {timeout_s:g} s; the newest is {newest}.",
                revision=str(newest),
            ) from None

    async def read(
        self, look: Callable[[S], Seen], min_revision: int = 0, timeout_s: float = limits.STORE_WAIT_S_MAX
    ) -> tuple[Seen, int]:
        """Look at the state at least as fresh as `min_revision`; what was seen is durable when this returns."""
        if min_revision:
            await self.at_least(min_revision, timeout_s)
        state = self._leading().state
        revision = state.revision
        seen = look(state)
        await self.durable(revision)
        return seen, revision

    def watch(
        self, since: int, interest: Interest = EVERYTHING, progress_s: float | None = None, *, greet: bool = False
    ) -> AsyncGenerator[WatchBatch, None]:
        """Durable events after `since`, then those to come; see `Changes.follow`."""
        self._leading()
        return self._changes.follow(since, interest, progress_s, greet=greet)

    def end_watches(self) -> None:
        """Tell all watchers to come again elsewhere, at once; the first step of a clean stop."""
        self._changes.end(
            Unavailable(
                Reason.SHUTTING_DOWN, "This control plane is stopping; watch from your last revision at the next one."
            )
        )

    async def events(self, after: int, limit: int) -> list[Envelope]:
        """Up to `limit` durable events after revision `after`, from the log itself, however long ago."""
        newest = self._leading().durable
        return [envelope for envelope in await self._read_page(after, limit) if envelope.seq <= newest]

    async def tick(self) -> int:
        """Submit what is due now; the number of commands that were accepted."""
        async with self._tick_turn:
            due = self._machine.plan(self.state, self.now())[: limits.TICK_COMMANDS_MAX]
            outcomes = await asyncio.gather(
                *(self.submit(Submission(command=command, actor=PLANNER, reason="due")) for command in due),
                return_exceptions=True,
            )
        accepted = 0
        for command, outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, Answer):
                accepted += 1
            elif isinstance(outcome, RunwayError):
                log.debug("tick.refused", command=type(command).__name__, error=str(outcome))
            else:
                raise outcome
        return accepted

    async def snapshot(self) -> None:
        """Store a snapshot of everything durable now."""
        await self._saving.finish()
        replica = self._leading()
        while replica.state.revision != replica.durable:
            await self._revisions.wait(replica.state.revision)
        await self._saving.begin(replica)
        await self._saving.finish()

    def _leading(self) -> Replica[S, CommandT]:
        if self._replica is None or self.phase is not Phase.LEADING:
            raise self._not_leading()
        return self._replica

    def _not_leading(self) -> Unavailable:
        if self._stopping.is_set():
            return Unavailable(Reason.SHUTTING_DOWN, "This control plane is stopping; send the request again.")
        if self.failure is not None:
            return Unavailable(Reason.STORE_UNAVAILABLE, str(self.failure))
        return Unavailable(
            Reason.NOT_LEADER,
            "This control plane does not lead now (it recovers, or another leads); send the request again.",
        )

    # --- leading, over and over ---

    async def _run(self) -> None:
        pause_s = limits.RETRY_S_MIN
        begun = time.monotonic()
        try:
            while not self._stopping.is_set():
                terms = self.counters.terms
                reason = await self._lead_until_lost()
                if self.failure is not None:
                    return
                if self.counters.terms > terms:
                    pause_s = limits.RETRY_S_MIN
                elif not self.counters.terms and isinstance(reason, Unavailable):
                    late = time.monotonic() - begun > limits.START_WAIT_S_MAX
                    self.failure = reason if late else None
                    if late:
                        return
                if reason is not None:
                    log.warning("node.stepped_down", reason=str(reason), retry_s=pause_s)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), pause_s)
                    pause_s = min(2 * pause_s, limits.RETRY_S_MAX)
        finally:
            self._give_up()
            await self.history.close()
            await self._leadership.release()
            self._enter(Phase.FAILED if self.failure is not None else Phase.STOPPED)
            self._settled.set()

    async def _lead_until_lost(self) -> Exception | None:
        """One term, from waiting for leadership to its end. What ended it; None after a clean stop."""
        self._enter(Phase.STANDBY)
        try:
            epoch = await self._first(self._leadership.acquire(), self._stopping.wait())
            if not isinstance(epoch, int):
                return None
            await self._first(self._serve(epoch), self._beat(), self._check_history())
        except CorruptLog as error:
            log.error("log.corrupt", seq=error.seq, fault=error.fault)
            self.failure = error
            return error
        except (Unavailable, AppendOutcomeUnknown, SuspectError) as error:
            return error
        except Exception as error:  # the edge of the driver: whatever went wrong, the log is the truth
            self.counters.faults += 1
            log.exception("node.fault")
            return error
        finally:
            await self._step_down()
        return None

    async def _first(self, *parts: object) -> object:
        """The result of the part that ends first; the others are cancelled and awaited."""
        tasks = [asyncio.ensure_future(part) for part in parts]  # type: ignore[call-overload]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        ended = next(task for task in tasks if task in done)
        return ended.result()

    async def _serve(self, epoch: int) -> None:
        """Recover, answer what was in doubt, then write until stopped."""
        self._enter(Phase.RECOVERING)
        changes = Changes(self._read_page, self._subject)
        replica = await recover(self._machine, self._log, self._snapshots, epoch, changes.publish)
        changes.begin(replica.durable)
        self._saving.seq = replica.restored
        await self._settle_doubts(replica)
        self._replica, self._changes = replica, changes
        self._calm()
        self.counters.terms += 1
        self._enter(Phase.LEADING)
        log.info("node.leads", epoch=epoch, revision=replica.durable)
        self._settled.set()
        ticking = asyncio.create_task(self._tick_on())
        try:
            await self._writer.run(replica, epoch, changes, self._stopping)
        except BaseException:
            self._forget()  # before anybody else runs: an append failed, or may have
            raise
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
        if replica.durable > self._saving.seq:
            await self._saving.begin(replica)
        await self._saving.finish()

    async def _beat(self) -> None:
        """Show that we live, as long as the writer moves."""
        while True:
            await asyncio.sleep(limits.HEARTBEAT_S)
            busy_since = self._writer.busy_since
            if busy_since is not None and time.monotonic() - busy_since > limits.WRITER_STALL_S_MAX:
                raise Unavailable(Reason.STORE_UNAVAILABLE, "The writer is stuck; letting another one lead.")
            await self._leadership.heartbeat()

    async def _check_history(self) -> None:
        """Once, beside the service: the entries that were too old to be checked before it began."""
        while self._replica is None:
            await asyncio.sleep(limits.VERIFY_PAUSE_S)
        if not self._history_checked:
            await verify_history(self._machine, self._log, self._replica.restored)
            self._history_checked = True
        await asyncio.Event().wait()

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self.tick()
            except RunwayError as error:
                log.debug("tick.skipped", error=str(error))
            except Exception:  # the edge of the driver: one bad plan must not end the service
                self.counters.faults += 1
                log.exception("tick.fault")

    def _forget(self) -> None:
        """The state may be ahead of the log: from this moment nobody reads it; those who did are told."""
        self._replica = None
        self._writer.busy_since = None
        lost = self._not_leading()
        if self._callers.lost():
            self.counters.in_doubt += 1
        self._revisions.fail(lost)
        self._changes.end(lost)
        self._enter(Phase.STANDBY)
        if self._patience is None and not self._stopping.is_set() and self.counters.terms:
            self._patience = asyncio.get_running_loop().call_later(limits.STORE_WAIT_S_MAX, self._give_up)

    async def _step_down(self) -> None:
        """End a term, however it went; let the next one lead."""
        self._forget()
        await self._leadership.release()
        await self._saving.finish()
        await self._log.close()  # after a restart of the database every old connection is a dead one
        await self._snapshots.close()

    async def _settle_doubts(self, replica: Replica[S, CommandT]) -> None:
        """Our epoch fences the appends in doubt, so what the log says now is final."""
        for batch in self._callers.doubts():
            found = await self._log.read(batch.last_seq - 1, 1)
            stored = bool(found) and found[0].hash == batch.last_hash
            told = self._callers.settle(batch, stored=stored)
            log.info("append.settled", last_seq=batch.last_seq, stored=stored, callers=told)

    def _give_up(self) -> None:
        """The database is away for too long (or we stop): tell everybody who waits."""
        self._impatient = True
        self._callers.give_up(self._not_leading())

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience, self._impatient = None, False

    def _enter(self, phase: Phase) -> None:
        if self.phase is not phase:
            self.phase = phase
            if self._on_phase is not None:
                self._on_phase(phase)

    def _subject(self, envelope: Envelope) -> Subject:
        return self._machine.subject(self._leading().state, envelope)

    async def _read_page(self, after_seq: int, limit: int) -> list[Envelope]:
        return [open_record(self._machine, record) for record in await self._log.read(after_seq, limit)]
