"""One channel to the control plane: deadlines always, retries only where they are harmless.

A read is retried while the control plane is UNAVAILABLE. A change is retried too, because it always carries a
`request_id` that stays the same over all tries: the control plane answers a repeated id from its log and changes
nothing again. Nothing else is retried. All tries together stay within the deadline of the call.
"""

import os
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc
from runway.v1 import common_pb2

from runway_client.errors import RunwayRpcError, from_rpc_error

if TYPE_CHECKING:
    from google.protobuf.message import Message

ADDRESS_DEFAULT = "127.0.0.1:7433"

MESSAGE_BYTES_MAX = 32 * 1024 * 1024
"""Largest message either way; the same as the server's limit, so that a message too large fails before it is sent."""

READ_DEADLINE_S = 10.0
"""Reads come from memory in milliseconds; ten seconds outlast a change of leader."""

CHANGE_DEADLINE_S = 30.0
"""A change waits for a commit; half a minute outlasts a restart of the database."""

RETRY_FOR_S = 20.0
"""How long UNAVAILABLE is retried: longer than a restart of the control plane, shorter than a person's patience."""

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 2.0
"""Waits double from the first to this, each drawn between half and the whole, so that clients do not return in step."""

REQUEST_ID_METADATA = "x-request-id"

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # gRPC's own waits between connects grow to two minutes; a control plane that restarts is back in seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A watcher whose peer vanished without a word notices within a minute and a half.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.enable_http_proxy", 0),
)

_uniform = secrets.SystemRandom().uniform

Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)
Response = TypeVar("Response", bound="Message")


class Changing(Protocol):
    """A request that carries a Mutation."""

    @property
    def mutation(self) -> common_pb2.Mutation:
        """Who, why, and the id of the request."""
        ...


class UnaryCall(Protocol[Request_contra, Response_co]):
    """A unary method of a stub."""

    def __call__(
        self,
        request: Request_contra,
        timeout: float | None = None,
        metadata: tuple[tuple[str, str | bytes], ...] | None = None,
    ) -> Response_co:
        """Call it."""
        ...


AnyRequest = TypeVar("AnyRequest", bound="Message")
ChangingRequest = TypeVar("ChangingRequest", bound=Changing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What a caller says about a change: the reason for the audit log, and ids of its own choosing."""

    reason: str = ""
    request_id: str | None = None
    validate_only: bool = False


NO_REASON = Why()


def backoff_s(attempt: int) -> float:
    """Wait before try `attempt` + 1, seconds; attempts count from 0."""
    longest = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(attempt, 30))
    return _uniform(longest / 2, longest)


class Connection:
    """A channel with an address, an actor, and the newest revision seen."""

    def __init__(
        self, address: str | None = None, actor: str | None = None, *, retry_for_s: float = RETRY_FOR_S
    ) -> None:
        self.address = address or os.environ.get("RUNWAY_ADDRESS") or ADDRESS_DEFAULT
        self.actor = actor if actor is not None else os.environ.get("RUNWAY_ACTOR", "")
        self.retry_for_s = retry_for_s
        self.revision = 0
        self.channel = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        self.closed = threading.Event()

    def close(self) -> None:
        """End all calls; streams in other threads end quietly."""
        self.closed.set()
        self.channel.close()

    def read(
        self,
        call: UnaryCall[AnyRequest, Response],
        request: AnyRequest,
        *,
        method: str,
        deadline_s: float = READ_DEADLINE_S,
    ) -> Response:
        """Ask; try again while the control plane is unavailable.

        Raises:
            RunwayRpcError: the call failed.
        """
        return self._retried(
            lambda remaining_s: call(request, timeout=remaining_s), method=method, deadline_s=deadline_s
        )

    def change(
        self,
        call: UnaryCall[ChangingRequest, Response],
        request: ChangingRequest,
        *,
        method: str,
        why: Why = NO_REASON,
        deadline_s: float = CHANGE_DEADLINE_S,
    ) -> Response:
        """Change something; the request id is made once and kept over all tries.

        Raises:
            RunwayRpcError: the call failed.
        """
        mutation = request.mutation
        mutation.request_id = why.request_id or mutation.request_id or str(uuid.uuid4())
        mutation.actor = mutation.actor or self.actor
        mutation.reason = why.reason or mutation.reason
        mutation.validate_only = why.validate_only or mutation.validate_only
        metadata: tuple[tuple[str, str | bytes], ...] = ()
        if mutation.request_id.isascii() and mutation.request_id.isprintable():
            metadata = ((REQUEST_ID_METADATA, mutation.request_id),)
        return self._retried(
            lambda remaining_s: call(request, timeout=remaining_s, metadata=metadata),
            method=method,
            deadline_s=deadline_s,
        )

    def _retried(self, once: Callable[[float], Response], *, method: str, deadline_s: float) -> Response:
        started = time.monotonic()
        attempt = 0
        while True:
            try:
                response = once(max(0.001, deadline_s - (time.monotonic() - started)))
            except grpc.RpcError as error:
                failure = from_rpc_error(error, address=self.address, method=method, deadline_s=deadline_s)
                wait_s = backoff_s(attempt)
                left_s = min(self.retry_for_s, deadline_s) - (time.monotonic() - started)
                if failure.code is not grpc.StatusCode.UNAVAILABLE or wait_s >= left_s or self.closed.wait(wait_s):
                    raise failure from None
                attempt += 1
            except ValueError as error:
                raise self.closed_error(method) from error
            else:
                self.saw(getattr(response, "revision", 0))
                return response

    def saw(self, revision: int) -> None:
        """Remember the newest revision any reply carried."""
        if isinstance(revision, int) and revision > self.revision:
            self.revision = revision

    def closed_error(self, method: str) -> RunwayRpcError:
        """What a call on a closed connection raises."""
        return RunwayRpcError(
            "CLOSED",
            f"the connection to {self.address} was closed: connect again",
            code=grpc.StatusCode.CANCELLED,
            method=method,
        )
