"""What the application asks of the world. Adapters implement these; one contract suite holds each of them to
it.

`Record` is an event as the log keeps it: text and bytes, so that an adapter never needs to know an event's
type and a log can be read (and its chain verified) by a version of Runway that does not know all of its
events.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

import msgspec

from control_plane.core.commands import Result
from control_plane.core.errors import Reason, RunwayError
from control_plane.core.events import Envelope, Event
from control_plane.core.state import RequestRecord
from control_plane.core.subjects import Subject


class Fold(Protocol):
    """What every state knows about its place in the log; `evolve` keeps it. `core.state.State` is one."""

    revision: int
    epoch: int
    last_hash: bytes
    at: datetime
    clock: datetime | None
    requests: dict[str, RequestRecord]


S = TypeVar("S", bound=Fold)
CommandT = TypeVar("CommandT")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the event log. `seq` starts at 1 and has no gaps; `at` is UTC with microseconds."""

    seq: int
    epoch: int
    kind: str
    version: int
    at: datetime
    actor: str
    reason: str
    request_id: str
    request_digest: str
    result: str
    """JSON of the command's result, on its last event, if it carried a request id; else empty."""
    payload: str
    """JSON of the event, kept byte for byte."""
    prev_hash: bytes
    hash: bytes


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state after event `seq`, whose hash is `hash`. A cache: the log alone is the truth."""

    seq: int
    hash: bytes
    codec: int
    blob: bytes


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that is kept, without its content."""

    seq: int
    size_bytes: int


class BadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The first entry of a log that breaks a rule, and which."""

    seq: int
    fault: str


class CorruptLog(RunwayError):
    """The event log cannot be trusted from `seq` on; the control plane must not start on it."""

    def __init__(self, seq: int, fault: str) -> None:
        super().__init__(
            Reason.INTERNAL,
            f"The event log cannot be read at seq {seq}: {fault}. Nothing was changed. Restore the "
            f"database from "
            f"a copy that holds seq {seq} intact, or, if a newer Runway wrote it, start that version.",
            {"seq": str(seq), "fault": fault},
        )
        self.seq = seq
        self.fault = fault


class EventLog(Protocol):
    """The gap-free log. One writer (the leader of an epoch), any number of readers."""

    async def head(self) -> tuple[int, bytes]:
        """Seq and hash of the last event; (0, b"") when empty. Raises Unavailable(STORE_UNAVAILABLE)."""
        ...

    async def append(self, epoch: int, records: Sequence[Record]) -> None:
        """Append a batch, all or nothing, durable on return. Seqs follow the head without a gap.

        Raises:
            Unavailable(NOT_LEADER): `epoch` is not the current one or the seqs do not follow the head.
            Nothing
                was appended.
            Unavailable(STORE_UNAVAILABLE): certainly not appended.
            AppendOutcomeUnknown: appended or not; only a later reader knows.
        """
        ...

    async def read(self, after_seq: int, limit: int) -> list[Record]:
        """Up to `limit` records with seq > `after_seq`, in order. Raises Unavailable(STORE_UNAVAILABLE)."""
        ...

    async def seq_at(self, at: datetime) -> int:
        """Seq of the last event with `at` not after this instant; 0 if there is none. `at` never decreases with seq.

        Raises Unavailable(STORE_UNAVAILABLE).
        """
        ...

    async def verify(self, after_seq: int, to_seq: int, version_max: int) -> BadRecord | None:
        """The first record in (after_seq, to_seq] that breaks chain, order or version; None if all "
        "are well."""
        ...

    async def close(self) -> None:
        """Let go of connections; the log can be used again afterwards."""
        ...


class SnapshotStore(Protocol):
    """Keeps snapshots until told to drop them; which, `checkpoints.py` says."""

    async def save(self, snapshot: Snapshot) -> None:
        """Keep this one, in place of another one of its seq. Raises Unavailable(STORE_UNAVAILABLE)."""
        ...

    async def kept(self) -> list[Kept]:
        """All that are kept, oldest first. Raises Unavailable(STORE_UNAVAILABLE)."""
        ...

    async def drop(self, seqs: Sequence[int]) -> None:
        """Forget those of these seqs that are there. Raises Unavailable(STORE_UNAVAILABLE)."""
        ...

    async def newest(self, before_seq: int | None = None) -> Snapshot | None:
        """The newest snapshot, or the newest with a seq below `before_seq`."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Leadership(Protocol):
    """At most one leader, and a number (the epoch) that fences all earlier ones."""

    async def acquire(self) -> int:
        """Wait until nobody else leads, then open a new epoch and return it. Safe to cancel.

        Raises Unavailable(STORE_UNAVAILABLE).
        """
        ...

    async def heartbeat(self) -> None:
        """Show that the leader lives. Raises Unavailable(NOT_LEADER) when leadership is lost."""
        ...

    async def release(self) -> None:
        """Let the next one lead. Never raises."""
        ...


class Clock(Protocol):
    """Where `now` comes from."""

    def now(self) -> datetime:
        """The current instant, UTC-aware."""
        ...


class Decision(Protocol):
    """What `decide` returns: events to append (none: nothing changes) and what to answer."""

    @property
    def events(self) -> tuple[Event, ...]:
        """In the order in which they happened."""
        ...

    @property
    def result(self) -> Result:
        """The answer."""
        ...


class StateMachine(Protocol[S, CommandT]):
    """The rules, as the replica needs them; the real one is `core`, tests use a toy."""

    schema_version: int
    """Version of the events written; a higher one in the log stops the start."""
    snapshot_codec: int
    """Version of the snapshot encoding; a snapshot of another one is passed over."""

    def initial(self) -> S:
        """The state before the first event."""
        ...

    def decide(self, state: S, command: CommandT, now: datetime) -> Decision:
        """What follows from the command. Never changes `state`; may raise Invalid or Refused."""
        ...

    def evolve(self, state: S, envelope: Envelope) -> None:
        """Apply one event to `state`, in place. Never refuses."""
        ...

    def plan(self, state: S, now: datetime) -> Sequence[CommandT]:
        """Commands whose time has come."""
        ...

    def digest(self, command: CommandT) -> str:
        """A short digest by which two commands can be told apart."""
        ...

    def subject(self, state: S, envelope: Envelope) -> Subject:
        """What an event is about; `state` is at least as new."""
        ...

    def encode_event(self, event: Event) -> tuple[str, str]:
        """(kind, JSON)."""
        ...

    def decode_event(self, kind: str, version: int, payload: str) -> Event:
        """Inverse. Raises ValueError (msgspec's errors are) when it is not an event we know."""
        ...

    def encode_snapshot(self, state: S) -> bytes:
        """The whole state as bytes, uncompressed."""
        ...

    def capture(self, state: S) -> Callable[[], bytes]:
        """Take of the state what later events would change, at once; what is returned encodes it as
        `encode_snapshot` does, later and on any thread.
        """
        ...

    def decode_snapshot(self, blob: bytes) -> S:
        """Inverse. Raises ValueError."""
        ...
