"""A gRPC server that says what a test tells it to: canned answers per method, errors on demand, calls written down.

It knows every RPC of the contract from the descriptors; one without an answer is UNIMPLEMENTED, as of an older server.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2, message_factory
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from runway.v1 import (
    facts_pb2,
    graph_pb2,
    ground_truth_pb2,
    lineage_pb2,
    operations_pb2,
    policies_pb2,
    registry_pb2,
    retraining_pb2,
    rollout_pb2,
    schedulers_pb2,
    staleness_pb2,
)

FILES = (
    registry_pb2,
    graph_pb2,
    staleness_pb2,
    ground_truth_pb2,
    retraining_pb2,
    rollout_pb2,
    operations_pb2,
    policies_pb2,
    lineage_pb2,
    facts_pb2,
    schedulers_pb2,
)
SERVICES = [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]

Answer = Callable[[Any, grpc.ServicerContext], Any]


class Call(NamedTuple):
    """One call as it arrived."""

    method: str
    request: Any
    remaining_s: float | None
    metadata: dict[str, Any]


class Failure(Exception):
    """Raised by an answer: end the call with this status."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.status = status


def failure(
    code: int,
    reason: str = "",
    message: str = "",
    violations: Iterable[tuple[str, str]] = (),
    **metadata: str,
) -> Failure:
    """A status as the control plane sends it: ErrorInfo, and BadRequest if there are violations."""
    status = status_pb2.Status(code=code, message=message)
    if reason:
        _add(status, error_details_pb2.ErrorInfo(reason=reason, domain="runway", metadata=metadata))
    bad = error_details_pb2.BadRequest()
    for field, description in violations:
        bad.field_violations.add(field=field, description=description, reason="RULE")
    if bad.field_violations:
        _add(status, bad)
    return Failure(status)


def not_found(reason: str, message: str) -> Failure:
    """A NOT_FOUND."""
    return failure(code_pb2.NOT_FOUND, reason, message)


def unavailable(reason: str = "STORE_UNAVAILABLE") -> Failure:
    """An UNAVAILABLE that a client may try again."""
    return failure(code_pb2.UNAVAILABLE, reason, "The database is not available: try again")


class ControlPlaneFake:
    """Listens on a free port until closed."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.failures: dict[str, deque[Failure]] = defaultdict(deque)
        self.calls: list[Call] = []
        self._server = grpc.server(
            futures.ThreadPoolExecutor(16), options=(("grpc.max_receive_message_length", 32 * 1024 * 1024),)
        )
        for service in SERVICES:
            handlers = {method.name: self._handler(service.name, method) for method in service.methods}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        """Stop listening, end what runs."""
        self._server.stop(None).wait()

    def requests(self, method: str) -> list[Any]:
        """What was asked of one method, oldest first."""
        return [call.request for call in self.calls if call.method == method]

    def _handler(self, service: str, method: Any) -> Any:
        name = f"{service}/{method.name}"
        request_class = message_factory.GetMessageClass(method.input_type)

        def unary(request: Message, context: grpc.ServicerContext) -> Any:
            return self._answered(name, request, context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from self._answered(name, request, context)
            except Failure as failed:
                context.abort_with_status(rpc_status.to_status(failed.status))

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]
        behaviour: Any = stream if method.server_streaming else unary
        return make(behaviour, request_class.FromString, lambda message: message.SerializeToString())

    def _answered(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        kept = request
        if isinstance(request, Message):
            kept = type(request)()
            kept.CopyFrom(request)
        self.calls.append(Call(name, kept, context.time_remaining(), metadata))
        try:
            if self.failures[name]:
                raise self.failures[name].popleft()
            if name not in self.answers:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            return self.answers[name](request, context)
        except Failure as failed:
            context.abort_with_status(rpc_status.to_status(failed.status))


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
