"""The rules of core as the replica runs them."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from control_plane.core.commands import Command, LeaseRetrains
from control_plane.core.decide import Decision, decide
from control_plane.core.events import SCHEMA_VERSION, Envelope, Event, decode_event, encode_event, event_kind
from control_plane.core.evolve import evolve
from control_plane.core.plan import plan
from control_plane.core.snapshots import SNAPSHOT_VERSION, capture, decode_snapshot, encode_snapshot
from control_plane.core.state import State
from control_plane.core.subjects import Subject, subject_of


class FleetMachine:
    """Binds `decide`, `evolve`, `plan` and the codecs; holds nothing."""

    schema_version = SCHEMA_VERSION
    snapshot_codec = SNAPSHOT_VERSION

    def initial(self) -> State:
        """The state before the first event."""
        return State()

    def decide(self, state: State, command: Command, now: datetime) -> Decision:
        """What follows from the command."""
        return decide(state, command, now)

    def evolve(self, state: State, envelope: Envelope) -> None:
        """Apply one event."""
        evolve(state, envelope)

    def plan(self, state: State, now: datetime) -> Sequence[Command]:
        """Commands whose time has come."""
        return plan(state, now)

    def digest(self, command: Command) -> str:
        """Tells commands apart. Lease tokens are fresh at every try and do not make another request."""
        if isinstance(command, LeaseRetrains):
            command = msgspec.structs.replace(command, lease_tokens=())
        return hashlib.sha256(msgspec.json.encode(command)).hexdigest()[:32]

    def subject(self, state: State, envelope: Envelope) -> Subject:
        """What an event is about."""
        return subject_of(state, envelope)

    def encode_event(self, event: Event) -> tuple[str, str]:
        """(kind, JSON)."""
        return event_kind(event), encode_event(event).decode()

    def decode_event(self, kind: str, version: int, payload: str) -> Event:
        """Inverse; ValueError when it is not an event we know."""
        if version < SCHEMA_VERSION:
            raise ValueError(
                f"events of version {version} were written before the first release, this Runway reads version "
                f"{SCHEMA_VERSION}: start with an empty log, in another database or home folder, and let trainers and "
                "lineage sources report again"
            )
        event = decode_event(payload)
        if event_kind(event) != kind:
            raise ValueError(f"the row says {kind}, its payload {event_kind(event)}")
        return event

    def encode_snapshot(self, state: State) -> bytes:
        """The whole state."""
        return encode_snapshot(state)

    def capture(self, state: State) -> Callable[[], bytes]:
        """The whole state, to be encoded later."""
        return capture(state)

    def decode_snapshot(self, blob: bytes) -> State:
        """Inverse; ValueError when it cannot be read."""
        return decode_snapshot(blob)
