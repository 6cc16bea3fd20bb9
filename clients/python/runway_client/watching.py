"""A watch that resumes by itself: the stream may break, the sequence of events does not.

The newest revision seen is kept; after a break the next stream begins behind it, so that no event is missed or given
twice. A snapshot is given whole or not at all: one that was cut off begins anew. When the control plane no longer has
the events that were missed (`WATCH_TOO_OLD`), a watch that began with a snapshot takes another one; whoever reads it
sees items again after their end, and knows that these are all there are.
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

WatchItem = operations_pb2.SnapshotItem | operations_pb2.SnapshotEnd | operations_pb2.Event | operations_pb2.Progress
"""What a watch gives, one at a time: tell them apart with `isinstance` or `match`."""


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
        self._snapshots = request.include_snapshot
        self._items: list[operations_pb2.SnapshotItem] = []
        """Of a snapshot whose end has not come."""
        self._connected = False
        self._down_since: float | None = None
        self._attempt = 0

    def items(self) -> Iterator[WatchItem]:
        """The items, for as long as the caller iterates; ends when the connection is closed.

        Raises:
            RunwayRpcError: cannot connect, or the answer is final: `WATCH_TOO_OLD` of a watch without snapshot (the
            audit log has what it missed), a filter that is wrong, a first revision that does not exist.
        """
        closed = self._connection.closed
        while not closed.is_set():
            stream: Any = None
            failure: RunwayRpcError | None = None
            self._items.clear()
            try:
                stream = self._call(self._request, timeout=WATCH_LIFETIME_S)
                for response in stream:
                    self._connected, self._down_since, self._attempt = True, None, 0
                    yield from self._new_in(response)
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
            if not closed.is_set() and not self._begins_again(failure):
                self._wait_after(failure)

    def _new_in(self, response: operations_pb2.WatchResponse) -> Iterator[WatchItem]:
        """What a response brings that was not given before, oldest first; the request follows what was given."""
        request = self._request
        self._items.extend(response.snapshot_items)
        if response.HasField("snapshot_end"):
            yield from self._items
            self._items.clear()
            request.include_snapshot = False
            self._reached(response.snapshot_end.revision)
            yield response.snapshot_end
        for event in response.events:
            if event.revision > request.after_revision:
                self._reached(event.revision)
                yield event
        if response.HasField("progress"):
            self._reached(response.progress.revision)
            yield response.progress

    def _reached(self, revision: int) -> None:
        self._request.after_revision = max(self._request.after_revision, revision)
        self._connection.saw(self._request.after_revision)

    def _begins_again(self, failure: RunwayRpcError | None) -> bool:
        """Whether the next stream can begin at once: we read too slowly, or must take everything anew."""
        if failure is None or failure.reason != "WATCH_TOO_OLD":
            return False
        if not self._connected:
            return False
        oldest = failure.metadata.get("oldest_revision", "")
        if oldest.isdigit() and int(oldest) <= self._request.after_revision:
            return True
        if self._snapshots:
            self._request.include_snapshot = True
        return self._snapshots

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
        if failure.reason == "REVISION_NOT_REACHED" and not self._connected:
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


def watch(
    connection: Connection,
    call: Any,
    *,
    after_revision: int,
    include_snapshot: bool,
    model_ids: Iterable[str],
    kinds: Iterable[str],
    teams: Iterable[str],
    give_up_after_s: float | None,
    on_interruption: Interrupted | None,
) -> Iterator[WatchItem]:
    """The items of a new `Watch`."""
    request = operations_pb2.WatchRequest(
        after_revision=after_revision,
        include_snapshot=include_snapshot,
        model_ids=model_ids,
        kinds=kinds,
        teams=teams,
    )
    return Watch(connection, call, request, give_up_after_s=give_up_after_s, on_interruption=on_interruption).items()
