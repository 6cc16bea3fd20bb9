"""A state machine small enough to check by hand: named totals. It drives the replica and the node in
tests."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import msgspec

from control_plane.core.commands import Result
from control_plane.core.errors import Reason, Refused
from control_plane.core.events import Envelope, Event
from control_plane.core.ids import ModelId
from control_plane.core.state import RequestRecord
from control_plane.core.subjects import Subject


class Add(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Add to a total; `parts` events of `amount` each. Totals never fall below zero."""

    key: str
    amount: int = 1
    parts: int = 1


class Break(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A bug: `decide` raises, or `evolve` does."""

    where: str


ToyCommand = Add | Break


class Added(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An amount was added."""

    key: str
    amount: int


class Broken(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An event that cannot be applied."""


ToyEvent = Added | Broken


class ToyState(msgspec.Struct, kw_only=True):
    """Totals, and what every state knows."""

    revision: int = 0
    epoch: int = 0
    last_hash: bytes = b""
    at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    clock: datetime | None = None
    requests: dict[str, RequestRecord] = {}
    totals: dict[str, int] = {}
    applied: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyDecision:
    """Events and result."""

    events: tuple[Event, ...] = ()
    result: Result = field(default_factory=Result)


class ToyMachine:
    """Adds, refuses what would go below zero, and breaks on demand."""

    def __init__(self, schema_version: int = 1, snapshot_codec: int = 1) -> None:
        self.schema_version = schema_version
        self.snapshot_codec = snapshot_codec
        self.due: list[ToyCommand] = []

    def initial(self) -> ToyState:
        """Nothing."""
        return ToyState()

    def decide(self, state: ToyState, command: ToyCommand, now: datetime) -> ToyDecision:
        """The total after the command is the result."""
        if isinstance(command, Break):
            if command.where == "decide":
                raise ZeroDivisionError("a bug in a rule")
            return ToyDecision(events=(cast(Event, Broken()),))
        total = state.totals.get(command.key, 0) + command.amount * command.parts
        if total < 0:
            raise Refused(Reason.LIMIT_EXCEEDED, f"{command.key} would be {total}")
        if command.amount == 0:
            return ToyDecision(result=Result(changed=total))
        event = cast(Event, Added(key=command.key, amount=command.amount))
        return ToyDecision(events=(event,) * command.parts, result=Result(changed=total))

    def evolve(self, state: ToyState, envelope: Envelope) -> None:
        """Add it up."""
        state.revision = envelope.seq
        state.epoch = envelope.epoch
        state.last_hash = envelope.hash
        state.at = envelope.at
        event = cast(ToyEvent, envelope.event)
        if isinstance(event, Broken):
            raise ZeroDivisionError("a bug in evolve")
        state.totals[event.key] = state.totals.get(event.key, 0) + event.amount
        if envelope.request_id and envelope.result is not None:
            state.applied.append(envelope.request_id)
            state.requests[envelope.request_id] = RequestRecord(
                digest=envelope.request_digest, result=envelope.result, revision=envelope.seq
            )

    def plan(self, state: ToyState, now: datetime) -> Sequence[ToyCommand]:
        """What a test has put in `due`."""
        due, self.due = self.due, []
        return due

    def digest(self, command: ToyCommand) -> str:
        """By content."""
        return hashlib.sha256(msgspec.json.encode(command)).hexdigest()[:32]

    def subject(self, state: ToyState, envelope: Envelope) -> Subject:
        """Its key is its model."""
        event = cast(ToyEvent, envelope.event)
        models = frozenset({ModelId(event.key)}) if isinstance(event, Added) else frozenset()
        return Subject(kind=type(event).__name__, models=models)

    def encode_event(self, event: Event) -> tuple[str, str]:
        """(kind, JSON)."""
        return type(event).__name__, msgspec.json.encode(event).decode()

    def decode_event(self, kind: str, version: int, payload: str) -> Event:
        """Inverse."""
        return cast(Event, msgspec.json.decode(payload, type=ToyEvent))

    def encode_snapshot(self, state: ToyState) -> bytes:
        """Whole."""
        return msgspec.msgpack.encode(state)

    def capture(self, state: ToyState) -> Callable[[], bytes]:
        """Small enough to be encoded at once."""
        blob = self.encode_snapshot(state)
        return lambda: blob

    def decode_snapshot(self, blob: bytes) -> ToyState:
        """Inverse."""
        return msgspec.msgpack.decode(blob, type=ToyState)
