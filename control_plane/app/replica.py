"""The replica: the state, what was decided but not yet stored, and how one becomes the other. No I/O.

Theory of operation
    `decide` turns a submission into envelopes, applies them to the state at once and keeps their records
    pending. `take` hands all pending records out as one batch for the log; `stored` says that the log has
    them. The state therefore runs ahead of the log by at most what is pending or handed out; the driver
    (`node.py`) lets nobody see an answer before the log has it. When an append fails the replica is thrown
    away and a new one is folded from the log (`restore`, `replay`), which checks every entry.

    | from      | call                     | to                                                      |
    |-----------|--------------------------|---------------------------------------------------------|
    | any       | decide: new request      | state advanced, records pending                         |
    | any       | decide: known request id | unchanged; the first answer, or Refused                 |
    | any       | decide: Invalid, Refused | unchanged                                               |
    | pending   | take                     | batch handed out (one at a time)                        |
    | handed out| stored                   | `durable` advanced                                      |
    | any       | decide raises otherwise  | suspect: the driver must discard the replica            |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic

import msgspec
import zstandard

from control_plane.app import limits
from control_plane.app.chain import fault_of, record_hash
from control_plane.app.ports import CommandT, CorruptLog, Record, S, Snapshot, StateMachine
from control_plane.core.commands import Result
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import Envelope
from control_plane.core.ids import REQUEST_ID_CHARS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission(Generic[CommandT]):
    """A command with who sends it and why. Same `request_id`, same answer."""

    command: CommandT
    request_id: str | None = None
    actor: str = ""
    reason: str = ""
    digest: str = ""
    """What tells this request from another with the same id, where the command alone does not: a command made from
    a partial update also holds what stood before, which its own first try has changed. Empty: the command's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command came to, and the revision a reader must ask for to see it."""

    result: Result
    revision: int
    repeated: bool = False
    """This is the remembered answer to an earlier request with the same id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What goes to the log in one transaction; never empty."""

    records: tuple[Record, ...]
    envelopes: tuple[Envelope, ...]

    @property
    def last_seq(self) -> int:
        """Seq of the last record."""
        return self.records[-1].seq

    @property
    def last_hash(self) -> bytes:
        """Hash of the last record: whether the log holds it says whether the batch was stored."""
        return self.records[-1].hash


class Replica(Generic[S, CommandT]):
    """One fold of the log in memory, and the decisions on top of it."""

    def __init__(self, machine: StateMachine[S, CommandT]) -> None:
        self._machine = machine
        self.state: S = machine.initial()
        self.epoch = 0
        self.durable = 0
        self.restored = 0
        """Seq of the snapshot this replica began from."""
        self._pending: list[tuple[Record, Envelope]] = []

    # --- deciding ---

    @property
    def pending(self) -> int:
        """Events decided and not yet handed out."""
        return len(self._pending)

    def decide(self, submission: Submission[CommandT], now: datetime) -> Answer:
        """Decide and apply. The answer may be given once `answer.revision` is durable.

        Raises:
            Invalid, Refused: nothing changed. REQUEST_ID_REUSED: the id stood for another command.
        """
        check_submission(submission)
        state = self.state
        digest = ""
        if submission.request_id:
            digest = submission.digest or self._machine.digest(submission.command)
            known = state.requests.get(submission.request_id)
            if known is not None:
                if known.digest != digest:
                    raise Refused(
                        Reason.REQUEST_ID_REUSED,
                        f"The request id {submission.request_id!r} was used for another request (revision "
                        f"{known.revision}). Send a fresh id with a new request.",
                        request_id=submission.request_id,
                        revision=str(known.revision),
                    )
                return Answer(result=known.result, revision=known.revision, repeated=True)
        # Time in the log never runs backwards, whatever the clock does.
        now = max(now, state.at)
        decision = self._machine.decide(state, submission.command, now)
        events = decision.events
        for place, event in enumerate(events, start=1):
            last = place == len(events)
            self._append(
                submission,
                event=self._machine.encode_event(event),
                envelope=Envelope(
                    seq=state.revision + 1,
                    epoch=self.epoch,
                    at=now,
                    actor=submission.actor,
                    reason=submission.reason,
                    event=event,
                    request_id=submission.request_id or "",
                    request_digest=digest if last else "",
                    result=decision.result if last and digest else None,
                    prev_hash=state.last_hash,
                ),
            )
        return Answer(result=decision.result, revision=state.revision)

    def _append(self, submission: Submission[CommandT], *, event: tuple[str, str], envelope: Envelope) -> None:
        kind, payload = event
        result = "" if envelope.result is None else msgspec.json.encode(envelope.result).decode()
        digest = record_hash(
            seq=envelope.seq,
            epoch=envelope.epoch,
            kind=kind,
            version=self._machine.schema_version,
            at=envelope.at,
            actor=envelope.actor,
            reason=envelope.reason,
            request_id=envelope.request_id,
            request_digest=envelope.request_digest,
            result=result,
            payload=payload,
            prev_hash=envelope.prev_hash,
        )
        record = Record(
            seq=envelope.seq,
            epoch=envelope.epoch,
            kind=kind,
            version=self._machine.schema_version,
            at=envelope.at,
            actor=envelope.actor,
            reason=envelope.reason,
            request_id=envelope.request_id,
            request_digest=envelope.request_digest,
            result=result,
            payload=payload,
            prev_hash=envelope.prev_hash,
            hash=digest,
        )
        envelope = msgspec.structs.replace(envelope, hash=digest)
        self._machine.evolve(self.state, envelope)
        self._pending.append((record, envelope))

    # --- storing ---

    def take(self) -> Batch | None:
        """Everything pending as one batch; None if nothing is."""
        if not self._pending:
            return None
        taken, self._pending = self._pending, []
        return Batch(records=tuple(record for record, _ in taken), envelopes=tuple(envelope for _, envelope in taken))

    def stored(self, batch: Batch) -> None:
        """The log holds the batch."""
        self.durable = batch.last_seq

    # --- folding ---

    def restore(self, snapshot: Snapshot) -> None:
        """Start from a snapshot. Raises ValueError if it cannot be used; the log is the way then."""
        if snapshot.codec != self._machine.snapshot_codec:
            raise ValueError(f"snapshot codec {snapshot.codec}, ours is {self._machine.snapshot_codec}")
        try:
            blob = zstandard.ZstdDecompressor().decompress(snapshot.blob, max_output_size=limits.SNAPSHOT_BYTES_MAX)
        except zstandard.ZstdError as error:
            raise ValueError(f"snapshot at seq {snapshot.seq}: {error}") from error
        state = self._machine.decode_snapshot(blob)
        if state.revision != snapshot.seq or state.last_hash != snapshot.hash:
            raise ValueError(f"snapshot at seq {snapshot.seq} holds revision {state.revision}")
        self.state = state
        self.durable = self.restored = state.revision

    def snapshot(self) -> tuple[int, bytes, bytes]:
        """(seq, hash, uncompressed bytes) of the state. Only when everything decided is stored."""
        if self.state.revision != self.durable:
            raise ValueError("a snapshot would hold what the log does not")
        return self.state.revision, self.state.last_hash, self._machine.encode_snapshot(self.state)

    def capture(self) -> tuple[int, bytes, Callable[[], bytes]]:
        """The same, but only what later events would change is taken now; the function encodes it, on any thread."""
        if self.state.revision != self.durable:
            raise ValueError("a snapshot would hold what the log does not")
        return self.state.revision, self.state.last_hash, self._machine.capture(self.state)

    def replay(self, records: Sequence[Record]) -> list[Envelope]:
        """Apply records that follow the state. Raises CorruptLog naming the first that does not fit."""
        envelopes = []
        for record in records:
            envelope = self._open(record)
            self._machine.evolve(self.state, envelope)
            envelopes.append(envelope)
        self.durable = self.state.revision
        return envelopes

    def _open(self, record: Record) -> Envelope:
        state = self.state
        fault = fault_of(
            record,
            seq=state.revision,
            prev_hash=state.last_hash,
            version_max=self._machine.schema_version,
        )
        if fault:
            raise CorruptLog(state.revision + 1, fault)
        return open_record(self._machine, record)


def open_record(machine: StateMachine[S, CommandT], record: Record) -> Envelope:
    """The envelope of a record whose place in the chain is known to be right. Raises CorruptLog."""
    try:
        event = machine.decode_event(record.kind, record.version, record.payload)
        result = msgspec.json.decode(record.result, type=Result) if record.result else None
    except ValueError as error:
        raise CorruptLog(record.seq, f"{record.kind} of version {record.version} cannot be read: {error}") from error
    return Envelope(
        seq=record.seq,
        epoch=record.epoch,
        at=record.at,
        actor=record.actor,
        reason=record.reason,
        event=event,
        request_id=record.request_id,
        request_digest=record.request_digest,
        result=result,
        prev_hash=record.prev_hash,
        hash=record.hash,
    )


def check_submission(submission: Submission[CommandT]) -> None:
    """Raise `Invalid` with every field that is too long, or holds what the log cannot keep."""
    violations = [
        Violation(field=field, rule="text", message=f"use at most {chars_max} printable characters")
        for field, text, chars_max in (
            ("request_id", submission.request_id or "", REQUEST_ID_CHARS_MAX),
            ("digest", submission.digest, limits.DIGEST_CHARS_MAX),
            ("actor", submission.actor, limits.ACTOR_CHARS_MAX),
            ("reason", submission.reason, limits.REASON_CHARS_MAX),
        )
        if len(text) > chars_max or (text and not _plain(text))
    ]
    if violations:
        raise Invalid(Reason.INVALID_ARGUMENT, *violations)


def _plain(text: str) -> bool:
    """No control characters (the chain's separator is one) and no lone surrogates; line breaks are fine."""
    if text.isascii() and text.isprintable():
        return True
    return not any(
        (char < " " and char not in "\n\t") or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in text
    )
