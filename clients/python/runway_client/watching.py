"""A watch that resumes by itself: the stream may break, the sequence of events does not.

The newest revision seen is kept; after a break the next stream begins behind it, so that no event is missed or given
twice. A snapshot that was cut off begins anew.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from runway.v1 import operations_pb2

from runway_client.connection import Connection, backoff_s
from runway_client.errors import RunwayRpcError, from_rpc_error

WATCH_LIFETIME_S = 600.0
"""Deadline of one stream; reaching it only means a new one, so a peer that vanished is noticed within ten minutes."""

METHOD = "OperationsService/Watch"

Interrupted = Callable[[RunwayRpcError], None]


class Watch:
    """One watch over any number of streams.

    The first connection is tried for as long as any call; later ones until `give_up_after_s` (None: for ever).
    `on_interruption` is called once per break.
    """

    def __init__(
        self,
        connection: Connection,
        call: Any,
        request: operations_pb2.WatchRequest,
        *,
        give_up_after_s: float | None,
        on_interruption: Interrupted | None,
    ) -> None:
        self._connection = connection
        self._call = call
        self._request = request
        self._give_up_after_s = give_up_after_s
        self._on_interruption = on_interruption
        self._connected = False
        self._down_since: float | None = None
        self._attempt = 0

    def items(self) -> Iterator[operations_pb2.WatchResponse]:
        """The items, for as long as the caller iterates; ends when the connection is closed.

        Raises:
            RunwayRpcError: cannot connect, or the answer is final (`WATCH_TOO_OLD`).
        """
        closed = self._connection.closed
        while not closed.is_set():
            stream: Any = None
            failure: RunwayRpcError | None = None
            try:
                stream = self._call(self._request, timeout=WATCH_LIFETIME_S)
                for item in stream:
                    self._connected, self._down_since, self._attempt = True, None, 0
                    if self._is_new(item):
                        self._connection.saw(self._request.after_revision)
                        yield item
            except grpc.RpcError as error:
                failure = from_rpc_error(
                    error, address=self._connection.address, method=METHOD, deadline_s=WATCH_LIFETIME_S
                )
            except ValueError as error:
                if not closed.is_set():
                    raise self._connection.closed_error(METHOD) from error
            finally:
                if stream is not None:
                    stream.cancel()
            if not closed.is_set():
                self._wait_after(failure)

    def _wait_after(self, failure: RunwayRpcError | None) -> None:
        """Wait before the next stream, or raise if there shall be none."""
        if failure is None:
            failure = RunwayRpcError(
                "STREAM_ENDED",
                f"the control plane at {self._connection.address} ended the watch: it is stopping or restarting",
                code=grpc.StatusCode.UNAVAILABLE,
                method=METHOD,
            )
        if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return
        if failure.code is not grpc.StatusCode.UNAVAILABLE:
            raise failure
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = now
            if self._connected and self._on_interruption is not None:
                self._on_interruption(failure)
        patience_s = self._give_up_after_s if self._connected else self._connection.retry_for_s
        wait_s = backoff_s(self._attempt)
        if patience_s is not None and now - self._down_since + wait_s > patience_s:
            raise failure
        self._connection.closed.wait(wait_s)
        self._attempt += 1

    def _is_new(self, item: operations_pb2.WatchResponse) -> bool:
        """Advance the request past `item`; false if the item was given before."""
        request = self._request
        match item.WhichOneof("item"):
            case "event":
                if item.event.revision <= request.after_revision:
                    return False
                request.after_revision = item.event.revision
            case "snapshot_end":
                request.include_snapshot = False
                request.after_revision = max(request.after_revision, item.snapshot_end.revision)
            case "progress":
                request.after_revision = max(request.after_revision, item.progress.revision)
        return True


def watch(
    connection: Connection,
    call: Any,
    *,
    after_revision: int,
    include_snapshot: bool,
    model_ids: Iterable[str],
    kinds: Iterable[str],
    give_up_after_s: float | None,
    on_interruption: Interrupted | None,
) -> Iterator[operations_pb2.WatchResponse]:
    """The items of a new `Watch`."""
    request = operations_pb2.WatchRequest(
        after_revision=after_revision, include_snapshot=include_snapshot, model_ids=model_ids, kinds=kinds
    )
    return Watch(connection, call, request, give_up_after_s=give_up_after_s, on_interruption=on_interruption).items()
