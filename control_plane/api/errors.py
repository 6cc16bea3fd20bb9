"""Errors on the wire: google.rpc.Status with exactly one ErrorInfo, and BadRequest with all violations.

`CODES` maps every reason to a status code; a test proves it complete.
"""

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from control_plane.core.errors import Invalid, Reason, RunwayError, Violation

DOMAIN = "runway"

CODES: dict[Reason, grpc.StatusCode] = {
    Reason.INVALID_ID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_SAMPLE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_BATCH: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.MESSAGE_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.VERSION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.NODE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.DEPENDENCY_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.RETRAIN_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.ATTEMPT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.ROLLOUT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.ALIAS_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.MODEL_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.VERSION_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.DEPENDENCY_CYCLE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ETAG_MISMATCH: grpc.StatusCode.ABORTED,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.LEASE_LOST: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.RETRAIN_FINISHED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ROLLOUT_FINISHED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.VALIDATION_REQUIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NO_PREVIOUS_VERSION: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CLOCK_NOT_DRIVEN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CLOCK_MOVED_BACK: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.WATCH_TOO_OLD: grpc.StatusCode.OUT_OF_RANGE,
    Reason.LIMIT_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.NOT_LEADER: grpc.StatusCode.UNAVAILABLE,
    Reason.APPEND_OUTCOME_UNKNOWN: grpc.StatusCode.UNAVAILABLE,
    Reason.STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.REVISION_NOT_REACHED: grpc.StatusCode.UNAVAILABLE,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.MODEL_HAS_CONSUMERS: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MODEL_RETIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.LOAD_CHECK_REQUIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.POLICY_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.OVERRIDE_EXISTS: grpc.StatusCode.ABORTED,
    Reason.OVERRIDE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.NODE_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.NODE_IN_USE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.HISTORY_NOT_KEPT: grpc.StatusCode.OUT_OF_RANGE,
    Reason.INVALID_LINEAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.RULE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.EVALUATION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.EVIDENCE_NOT_KEPT: grpc.StatusCode.OUT_OF_RANGE,
    Reason.PLAN_CHANGED: grpc.StatusCode.ABORTED,
    Reason.SCHEDULER_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.APPROVAL_REQUIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.APPROVAL_NOT_YOURS: grpc.StatusCode.PERMISSION_DENIED,
    Reason.ROLLOUT_NOT_WAITING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.FREEZE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.FROZEN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.DESTINATION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.ALERT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.RETRAIN_NOT_WAITING: grpc.StatusCode.FAILED_PRECONDITION,
}

_CODE_NUMBERS = {code: getattr(code_pb2, code.name) for code in grpc.StatusCode}

VIOLATIONS_BYTES_MAX = 3_500
"""Everything about an error travels in trailers, in which gRPC takes 8 KiB by default, and base64 makes bytes a third
longer. Beyond this many bytes of violations nobody reads on; the ErrorInfo tells how many there are."""

MESSAGE_BYTES_MAX = 1_000
"""Of the status message, which travels beside the details, percent-encoded."""

METADATA_BYTES_MAX = 1_200
"""Of one value of the ErrorInfo."""

DESCRIPTION_BYTES_MAX = 300
"""Of one violation."""


def to_status(error: RunwayError) -> status_pb2.Status:
    """The wire form of an error."""
    status = status_pb2.Status(
        code=_CODE_NUMBERS[CODES[error.reason]],
        message=_shortened(error.message, MESSAGE_BYTES_MAX, _percent_encoded) or error.reason.value,
    )
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value,
        domain=DOMAIN,
        metadata={key: _shortened(value, METADATA_BYTES_MAX) for key, value in error.details.items()},
    )
    if isinstance(error, Invalid):
        bad = _bad_request(error)
        if len(bad.field_violations) < len(error.violations):
            info.metadata["violations"] = str(len(error.violations))
        status.details.extend((_any(info), _any(bad)))
    else:
        status.details.append(_any(info))
    return status


def _bad_request(error: Invalid) -> error_details_pb2.BadRequest:
    """All violations, or as many as fit."""
    bad = error_details_pb2.BadRequest()
    for violation in error.violations:
        bad.field_violations.add(
            field=_shortened(violation.field, DESCRIPTION_BYTES_MAX),
            description=_shortened(violation.message, DESCRIPTION_BYTES_MAX),
            reason=violation.rule.upper(),
        )
        if bad.ByteSize() > VIOLATIONS_BYTES_MAX:
            del bad.field_violations[-1]
            break
    return bad


def _shortened(text: str, bytes_max: int, cost: Callable[[str], int] = lambda char: len(char.encode())) -> str:
    """Cut to what takes `bytes_max` bytes on the way."""
    if text.isascii() and len(text) <= bytes_max // 3:
        return text
    ends = list(accumulate(map(cost, text)))
    if not ends or ends[-1] <= bytes_max:
        return text
    return text[: bisect_right(ends, bytes_max - 3)] + "..."


def _percent_encoded(char: str) -> int:
    """Bytes of a character in the status message, which gRPC percent-encodes."""
    return 1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode())


def _any(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def invalid(field: str, rule: str, message: str) -> Invalid:
    """One violation found while reading a message."""
    return Invalid(Reason.INVALID_ARGUMENT, Violation(field=field, rule=rule, message=message))
