"""What surrounds every call, in this order, outermost first:

1. metrics      count and time the call by method and status code;
2. request id   the caller's `x-request-id` goes into every log line of the call and back in the trailers;
3. errors       turn `RunwayError` into google.rpc.Status; anything else is our fault, logged, and INTERNAL;
4. deadline     a call that arrives after its deadline is not begun;
5. validation   protovalidate rules of the contract, all violations at once;
6. release      memory runs ahead of the log, answers do not: what an answer shows is durable before it leaves.

grpc.aio asks its interceptors again for every call; `Chain` wraps each method once and remembers it, so that six
stages cost about as much as one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import protovalidate
import structlog
from google.protobuf.message import Message

from control_plane.api.convert.contract_words import sentence
from control_plane.api.convert.rules import also_broken
from control_plane.api.errors import to_status
from control_plane.core.errors import Invalid, Reason, Refused, RunwayError, Unavailable, Violation
from control_plane.telemetry import Metrics

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Any]]
Streaming = Callable[[Any, Context], AsyncIterator[Any]]

REQUEST_ID_METADATA = "x-request-id"
STATUS_DETAILS_METADATA = "grpc-status-details-bin"

_validator = protovalidate.Validator()


def serializer(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A response serializer that lets a reply pass that a servicer has encoded already: where message objects would
    cost more than the rule.
    """
    return lambda reply: reply if isinstance(reply, bytes) else encode(reply)


def violations_of(message: Message) -> list[Violation]:
    """All rules of the contract that a message breaks."""
    found = []
    for violation in _validator.collect_violations(message):
        proto = violation.proto
        words = sentence(message, violation)
        found.append(Violation(field=_path(proto.field), rule=proto.rule_id, message=words))
    return found


def _path(field: Any) -> str:
    if field is None:
        return ""
    text = ""
    for element in field.elements:
        text += ("." if text else "") + element.field_name
        subscript = getattr(element.subscript, "value", None)
        if subscript is not None:
            text += f"[{subscript}]"
    return text


def validate(message: Message) -> None:
    """Raise `Invalid` with every violation of the contract's rules, and of the core's that can be told already."""
    found = violations_of(message)
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found, *also_broken(message, found))


class Chain(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """The six stages around every method of Runway's services; health and reflection pass through."""

    def __init__(self, metrics: Metrics, release: Callable[[], Awaitable[None]]) -> None:
        self._metrics = metrics
        self._release = release
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The wrapped method; wrapped once."""
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith("/runway."):
            return handler
        wrapped = self._wrap(method, handler)
        self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            behaviour = self._streaming(
                method,
                handler.stream_stream if handler.request_streaming else handler.unary_stream,
                validated=not handler.request_streaming,
            )
        else:
            make = grpc.unary_unary_rpc_method_handler
            behaviour = cast("Any", self._unary(method, handler.unary_unary))
        return make(behaviour, handler.request_deserializer, _unless_encoded(handler.response_serializer))

    def _unary(self, method: str, behaviour: Unary) -> Unary:
        observe = self._metrics.calls(method)

        async def call(request: Any, context: Context) -> Any:
            started = time.perf_counter()
            code = "OK"
            try:
                _check_deadline(context)
                validate(request)
                try:
                    reply = await behaviour(request, context)
                except Refused:
                    await self._release()
                    raise
                await self._release()
                return reply
            except RunwayError as error:
                code = error.reason.value
                await _abort(method, context, error)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                code = "CANCELLED"
                raise
            except Exception as error:
                code = "INTERNAL"
                await _abort(method, context, _unexpected(method, context, error))
            finally:
                observe(code, time.perf_counter() - started)

        return call

    def _streaming(self, method: str, behaviour: Streaming, *, validated: bool) -> Streaming:
        observe = self._metrics.calls(method)

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            started = time.perf_counter()
            code = "OK"
            try:
                _check_deadline(context)
                if validated:
                    validate(request)
                async for response in behaviour(request, context):
                    yield response
            except RunwayError as error:
                code = error.reason.value
                await _abort(method, context, error)
            except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
                code = "CANCELLED"
                raise
            except Exception as error:
                code = "INTERNAL"
                await _abort(method, context, _unexpected(method, context, error))
            finally:
                observe(code, time.perf_counter() - started)

        return call


def _unless_encoded(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A method that sends the same to many may answer with bytes, encoded once."""

    def encode(response: Any) -> bytes:
        return response if isinstance(response, bytes) else serialize(response)

    return encode


def _check_deadline(context: Context) -> None:
    remaining = context.time_remaining()
    if remaining is not None and remaining <= 0:
        raise Unavailable(Reason.DEADLINE_EXCEEDED, "the deadline had passed before the call began: allow more time")


def request_id_of(context: Context) -> str:
    """The caller's `x-request-id`, or empty."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_METADATA:
            return str(value)[:128]
    return ""


def _unexpected(method: str, context: Context, error: Exception) -> RunwayError:
    request_id = request_id_of(context)
    log.error("call.failed", method=method, request_id=request_id, error=repr(error), exc_info=error)
    return Unavailable(
        Reason.INTERNAL,
        "Runway failed while answering; it is in the server's log" + (f" under {request_id}" if request_id else ""),
    )


async def _abort(method: str, context: Context, error: RunwayError) -> None:
    """End the call with the error's status. Raises, as `context.abort` does."""
    status = to_status(error)
    request_id = request_id_of(context)
    trailers: list[tuple[str, str | bytes]] = [(STATUS_DETAILS_METADATA, status.SerializeToString())]
    if request_id:
        trailers.append((REQUEST_ID_METADATA, request_id))
    log.info("call.refused", method=method, reason=error.reason.value, message=status.message, request_id=request_id)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    await context.abort(code, status.message, tuple(trailers))
