"""Bulk facts over a two-way stream: many batches on their way, one answer each, nothing lost when the stream breaks.

A batch stays pending until its answer is here. When the stream breaks, a new one begins with everything pending, in
order; a batch that had been stored before the break is answered as a duplicate, which changes nothing. The caller's
iterable is read in the caller's thread, and never further ahead than the window.
"""

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import grpc
from runway.v1 import ground_truth_pb2

from runway_client.connection import Connection, backoff_s
from runway_client.errors import RunwayRpcError, Unreachable, from_rpc_error, from_status

BATCHES_IN_FLIGHT_MAX = 8
"""Enough to hide a commit's latency; more only makes the re-send after a break longer."""

BYTES_IN_FLIGHT_MAX = 64 * 1024 * 1024
"""Two messages of the largest size; bounds the memory of a sender with large batches."""

STREAM_LIFETIME_S = 120.0
"""Deadline of one stream. A stream that ends by it is opened again unless it gave no answer at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionBatch:
    """Predictions of one version; `arrow_ipc` from `prediction_batch`. The same id is the same batch."""

    batch_id: str
    model_id: str
    version: int
    arrow_ipc: bytes
    source: str = ""
    """Who sends: a serving system, a topic. Coverage tells when one falls silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeBatch:
    """Outcomes of one model; `arrow_ipc` from `outcome_batch`. The same id is the same batch."""

    batch_id: str
    model_id: str
    arrow_ipc: bytes
    label_type: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of one feature, or of the score, over the cells of the version's reference profile: bins, for categories
    `other`, then missing. `edges` (of a number) or `categories` are the reference's own; others are refused."""

    name: str
    counts: Sequence[int]
    edges: Sequence[float] = ()
    categories: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramBatch:
    """One hour of predictions of a version, counted by its producer. The same id is the same batch.

    An hour is counted once by each producer: the same counts again change nothing, others are refused unless `replace`.
    """

    batch_id: str
    model_id: str
    version: int
    producer: str
    hour: datetime
    """Its start: a whole hour, UTC."""
    predictions: int
    features: Sequence[Histogram] = ()
    prediction: Histogram | None = None
    slice: str = ""
    """The part of the data, as `country=US`; empty is all of it."""
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """What became of a batch: stored (`rows`, perhaps as a duplicate) or refused whole (`refused` says why)."""

    batch_id: str
    rows: int = 0
    duplicate: bool = False
    refused: RunwayRpcError | None = None


class _Answer(Protocol):
    @property
    def batch_id(self) -> str: ...
    @property
    def accepted(self) -> ground_truth_pb2.BatchAccepted: ...
    @property
    def refused(self) -> Any: ...
    @property
    def WhichOneof(self) -> Callable[..., Any]: ...  # noqa: N802 (protobuf's name)


class _Request(Protocol):
    batch_id: str


RequestT = TypeVar("RequestT", bound=_Request)


class Pipeline(Generic[RequestT]):
    """Sends requests of one method and yields their answers in order."""

    def __init__(self, connection: Connection, call: Any, method: str, size: Callable[[RequestT], int]) -> None:
        self._connection = connection
        self._size = size
        self._call = call
        self._method = method
        self._pending: deque[RequestT] = deque()
        self._bytes_pending = 0
        self._outgoing: queue.SimpleQueue[RequestT | None] = queue.SimpleQueue()
        self._stream: Any = None
        self._answers_of_stream = 0
        self._failures = 0
        self._failing_since: float | None = None

    def run(self, requests: Iterable[RequestT]) -> Iterator[BatchAnswer]:
        """Send all; one answer per request, in order.

        Raises:
            RunwayRpcError: the stream broke and could not be opened again.
        """
        source = iter(requests)
        exhausted = False
        try:
            while True:
                while not exhausted and self._room():
                    request = next(source, None)
                    if request is None:
                        exhausted = True
                    else:
                        self._send(request)
                if not self._pending:
                    return
                yield self._next_answer()
        finally:
            self._end_stream()

    def _room(self) -> bool:
        return len(self._pending) < BATCHES_IN_FLIGHT_MAX and self._bytes_pending < BYTES_IN_FLIGHT_MAX

    def _send(self, request: RequestT) -> None:
        self._pending.append(request)
        self._bytes_pending += self._size(request)
        if self._stream is not None:
            self._outgoing.put(request)

    def _next_answer(self) -> BatchAnswer:
        while True:
            try:
                if self._stream is None:
                    self._open_stream()
                answer = self._matched(next(self._stream))
            except StopIteration:
                self._broken(self._stream_ended())
            except grpc.RpcError as error:
                self._broken(self._decoded(error))
            except Unreachable as failure:
                self._broken(failure)
            except ValueError as error:
                raise self._connection.closed_error(self._method) from error
            else:
                return answer

    def _open_stream(self) -> None:
        self._outgoing = queue.SimpleQueue()
        for request in self._pending:
            self._outgoing.put(request)
        self._answers_of_stream = 0
        self._stream = self._call(iter(self._outgoing.get, None), timeout=STREAM_LIFETIME_S)

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._outgoing.put(None)
            self._stream.cancel()
            self._stream = None

    def _broken(self, failure: RunwayRpcError) -> None:
        """Decide whether to go on after a break; waits before the next stream."""
        answered = self._answers_of_stream > 0
        self._end_stream()
        if answered:
            self._failures, self._failing_since = 0, None
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._failures += 1
        if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and (answered or self._failures == 1):
            # The stream's lifetime ended, or the caller's iterable paused for longer than it.
            return
        wait_s = backoff_s(self._failures - 1)
        late = now - self._failing_since + wait_s > self._connection.retry_for_s
        if failure.code is not grpc.StatusCode.UNAVAILABLE or late or self._connection.closed.wait(wait_s):
            raise failure from None

    def _decoded(self, error: grpc.RpcError) -> RunwayRpcError:
        return from_rpc_error(
            error, address=self._connection.address, method=self._method, deadline_s=STREAM_LIFETIME_S
        )

    def _stream_ended(self) -> RunwayRpcError:
        return Unreachable(
            "STREAM_ENDED",
            f"the control plane at {self._connection.address} ended {self._method} before it answered every batch: "
            "send them again with the same batch ids",
            code=grpc.StatusCode.UNAVAILABLE,
            method=self._method,
        )

    def _matched(self, response: _Answer) -> BatchAnswer:
        """The answer of the oldest pending batch; a batch that cannot be stored *now* stays pending.

        Raises:
            Unreachable: try again.
        """
        request = self._pending[0]
        if response.batch_id != request.batch_id:
            raise RunwayRpcError(
                "INTERNAL",
                f"the control plane answered batch {response.batch_id!r} where {request.batch_id!r} was due: "
                "report this; send the batches again with the same ids",
                method=self._method,
            )
        refused = None
        if response.WhichOneof("outcome") == "refused":
            refused = from_status(response.refused, method=self._method)
            if isinstance(refused, Unreachable):
                raise refused
        self._pending.popleft()
        self._bytes_pending -= self._size(request)
        self._answers_of_stream += 1
        if refused is not None:
            return BatchAnswer(batch_id=request.batch_id, refused=refused)
        accepted = response.accepted
        return BatchAnswer(batch_id=request.batch_id, rows=accepted.rows, duplicate=accepted.duplicate)
