"""What a failed call raises: one exception whose text is a sentence that says what to do.

The server sends google.rpc.Status with one ErrorInfo (reason, facts) and, for invalid input, BadRequest with every
violation. Failures that never reached the server (nobody listens, no answer in time, a message too large to send) carry
no details; they get a reason and a sentence here, so that a caller has one kind of error to look at.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

STATUS_DETAILS_METADATA = "grpc-status-details-bin"

_CODES = {number.value[0]: number for number in grpc.StatusCode}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One broken rule of the input: which field, what to write instead, and the rule's name."""

    field: str
    message: str
    rule: str = ""


class RunwayRpcError(Exception):
    """A call failed.

    Attributes:
        code: gRPC status code.
        reason: name of an ErrorReason of the contract (`MODEL_NOT_FOUND`), or of these when the server was not heard:
            `UNREACHABLE`, `NO_ANSWER`, `MESSAGE_TOO_LARGE`, `UNIMPLEMENTED`; `UNKNOWN` when nothing is known.
        message: a sentence with the remedy; also `str(error)`.
        violations: all broken rules of an invalid request.
        metadata: facts (`model_id`, `oldest_revision` ...).
        method: the RPC, `RegistryService/GetModel`.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        method: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.code = code
        self.method = method

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross processes: schedulers run work in children."""
        return _rebuilt, (type(self), self.reason, self.message, self.violations, self.metadata, self.code, self.method)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason}: {self.message})"


def _rebuilt(
    kind: type[RunwayRpcError],
    reason: str,
    message: str,
    violations: Sequence[FieldViolation],
    metadata: Mapping[str, str],
    code: grpc.StatusCode,
    method: str,
) -> RunwayRpcError:
    return kind(reason, message, violations, metadata, code=code, method=method)


class InvalidRequest(RunwayRpcError):
    """The input is wrong; sending it again fails again. `violations` holds all that is wrong."""


class NotFound(RunwayRpcError):
    """The thing named does not exist."""


class AlreadyExists(RunwayRpcError):
    """The thing to be made exists already."""


class Refused(RunwayRpcError):
    """The input is fine but the state, or a limit, forbids it."""


class Unreachable(RunwayRpcError):
    """The control plane is away or not able to answer now; the same call may succeed later."""


class NoAnswer(RunwayRpcError):
    """The deadline passed. A change may or may not have happened: ask again with the same request id."""


_CLASSES: dict[grpc.StatusCode, type[RunwayRpcError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.ABORTED: Refused,
    grpc.StatusCode.OUT_OF_RANGE: Refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Refused,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: NoAnswer,
}


def from_status(status: status_pb2.Status, *, method: str = "") -> RunwayRpcError:
    """The error that a google.rpc.Status describes."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info = error_details_pb2.ErrorInfo()
    violations: list[FieldViolation] = []
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations += [
                FieldViolation(field=v.field, message=v.description, rule=v.reason.lower())
                for v in bad.field_violations
            ]
    kind = _CLASSES.get(code, RunwayRpcError)
    reason = info.reason or code.name
    message = status.message or f"the control plane answered {reason} and said no more"
    return kind(reason, message, violations, dict(info.metadata), code=code, method=method)


def from_rpc_error(
    error: grpc.RpcError, *, address: str, method: str = "", deadline_s: float | None = None
) -> RunwayRpcError:
    """The error that a failed gRPC call describes."""
    call: Any = error
    for key, value in call.trailing_metadata() or ():
        if key == STATUS_DETAILS_METADATA:
            status = status_pb2.Status()
            with contextlib.suppress(Exception):
                status.ParseFromString(value)
            if status.code != code_pb2.OK:
                return from_status(status, method=method)
    code: grpc.StatusCode = call.code()
    said: str = call.details() or ""
    reason, sentence = _without_details(code, said, address, method, deadline_s)
    return _CLASSES.get(code, RunwayRpcError)(reason, sentence, code=code, method=method)


def _without_details(
    code: grpc.StatusCode, said: str, address: str, method: str, deadline_s: float | None
) -> tuple[str, str]:
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return "UNREACHABLE", (
                f"cannot reach the control plane at {address}: start it with `make up` or set RUNWAY_ADDRESS"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            waited = f" within {deadline_s:g} s" if deadline_s is not None else " in time"
            return "NO_ANSWER", (
                f"the control plane at {address} did not answer {method or 'the call'}{waited}: "
                "see `runway status`, or allow more time"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return "MESSAGE_TOO_LARGE", f"{said or 'the message is too large'}: send it in smaller parts"
        case grpc.StatusCode.UNIMPLEMENTED:
            return "UNIMPLEMENTED", (
                f"what listens at {address} does not know {method or 'the call'}: "
                "is it a Runway control plane, and as new as this client?"
            )
        case _:
            return code.name, said or f"the call failed with {code.name} and no message"
