"""What facts that nobody waits for look like: batches out of Kafka or a folder, and those of them that were no use.

Who sends over gRPC is told when a batch is refused, and can mend it. Here nobody listens: so a batch that cannot be
used becomes a *dead letter*, kept with the reason until somebody replays or discards it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec

from control_plane.app.fact_reports import Receipt

ARROW = "application/vnd.apache.arrow.stream"
PROTOBUF = "application/x-protobuf"
PARQUET = "application/vnd.apache.parquet"

OpenFile = Callable[[], Any]
"""Opens a Parquet file for reading from its start: a `pyarrow.NativeFile`, closed by whoever opened it."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One batch as it came."""

    kind: str
    """`predictions` or `outcomes`; empty if not even that is known."""
    batch_id: str
    source: str
    model_id: str = ""
    version: int = 0
    """Of predictions."""
    label_type: str = ""
    """Of outcomes; empty is the model's own."""
    content_type: str = ARROW
    payload: bytes = b""
    fault: str = ""
    """What is wrong with its envelope (a header that says nothing, a path); such a batch is a dead letter."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that could not be used, without its payload."""

    letter_id: int
    received_at: datetime
    arrival: Arrival
    size: int
    """Bytes of the payload."""
    reason: str
    message: str
    replays: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a batch: stored, or kept as a dead letter."""

    receipt: Receipt | None = None
    letter: DeadLetter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far a partition has been taken in. `lag` is -1 while that is not known."""

    topic: str
    partition: int
    position: int
    lag: int


Door = Callable[[Arrival], "Future[Taken]"]
"""Where batches go in, from any thread. Resolves once the batch, or its dead letter, is durable; fails with
`Unavailable` if it must be offered again."""

FileDoor = Callable[[Arrival, OpenFile], "Future[Taken]"]
"""The same for a Parquet file of any size: all of it is stored, or nothing."""


class DeadLetters(Protocol):
    """Where dead letters are kept. Errors: `Unavailable` (STORE_UNAVAILABLE)."""

    def keep(self, arrival: Arrival, reason: str, message: str, at: datetime) -> DeadLetter:
        """Keep a batch durably; the same batch again is the same letter. Oldest letters go when there is no room."""
        ...

    def find(self, model_id: str = "", ids: Sequence[int] = (), limit: int = 0) -> list[DeadLetter]:
        """Newest first; of a model, or of these ids, or all. 0 means no limit."""
        ...

    def opened(self, letter_id: int) -> Arrival | None:
        """A letter with its payload; None if there is none."""
        ...

    def tried(self, letter_id: int, reason: str, message: str) -> None:
        """A replay was no use either."""
        ...

    def discard(self, ids: Sequence[int]) -> int:
        """Forget letters and their payloads; how many there were."""
        ...

    def total(self, model_id: str = "") -> int:
        """How many there are."""
        ...

    def dropped(self) -> int:
        """How many had to go because there was no room."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class FactSource(Protocol):
    """Something that takes facts in by itself."""

    def start(self) -> None:
        """Begin; from a thread of its own."""
        ...

    def stop(self) -> None:
        """Finish what is under way."""
        ...

    def degraded(self) -> tuple[str, ...]:
        """What is not as it should be, in words; empty if nothing is."""
        ...

    def lags(self) -> tuple[Lag, ...]:
        """By topic and partition; empty if there is no such thing."""
        ...
