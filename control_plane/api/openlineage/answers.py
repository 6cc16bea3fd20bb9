"""What senders are told: statuses, violations with remedies, and the batch summary of the OpenLineage API.

| status | when                                                                       | again later?        |
|--------|----------------------------------------------------------------------------|---------------------|
| 201    | the event is stored, or said nothing that is worth storing                 | changes nothing     |
| 200    | a batch was received; its body says which events were not                  | those marked        |
| 400    | the event is wrong; `violations` has everything that is wrong with it      | no                  |
| 404, 405, 415 | wrong path, method, or encoding                                     | no                  |
| 408    | the body did not arrive in time                                            | yes                 |
| 413    | too large                                                                  | no                  |
| 503    | not now: no leader, no database, too much at once, or stopping             | after `Retry-After` |

A refusal that is none of these would be a fault of ours (500); it is logged, and sending again is safe.
"""

from collections.abc import Sequence
from http import HTTPStatus

import grpc
import msgspec
from starlette.responses import Response

from control_plane.api.errors import CODES
from control_plane.api.openlineage import limits
from control_plane.core.errors import Invalid, RunwayError, Violation

STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.SERVICE_UNAVAILABLE,
}

RETRIED = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.INTERNAL_SERVER_ERROR}


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One event that was not taken, by its place in the batch."""

    index: int
    status: HTTPStatus
    reason: str
    violations: tuple[Violation, ...] = ()


def json(body: object, status: HTTPStatus, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def refusal(
    status: HTTPStatus,
    reason: str,
    message: str,
    violations: Sequence[Violation] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """An error, with everything that is wrong."""
    shown = {**(headers or {})}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        shown["Retry-After"] = str(limits.RETRY_AFTER_S)
    body = {
        "reason": reason,
        "message": message[:1000],
        "retriable": status in RETRIED,
        "violations": told(violations),
        "violations_total": len(violations),
    }
    return json(body, status, shown)


def told(violations: Sequence[Violation]) -> list[dict[str, str]]:
    """Violations as JSON: which field, which rule, what to do."""
    return [
        {"field": violation.field[:300], "rule": violation.rule, "remedy": violation.message[:500]}
        for violation in violations[: limits.VIOLATIONS_SHOWN_MAX]
    ]


def status_of(error: RunwayError) -> HTTPStatus:
    """The HTTP status of an error of the core or the application."""
    return STATUSES.get(CODES[error.reason], HTTPStatus.INTERNAL_SERVER_ERROR)


def violations_of(error: RunwayError) -> tuple[Violation, ...]:
    """What is wrong with the input, if that is it."""
    return error.violations if isinstance(error, Invalid) else ()


def summary(received: int, failures: Sequence[Failure]) -> dict[str, object]:
    """The body that the OpenLineage API defines for a batch, with the violations beside the reasons."""
    again = sum(failure.status in RETRIED for failure in failures)
    return {
        "status": "partial_success" if failures else "success",
        "summary": {
            "received": received,
            "successful": received - len(failures),
            "failed": len(failures),
            "retriable": again,
            "non_retriable": len(failures) - again,
        },
        "failed_events": [
            {
                "index": failure.index,
                "reason": failure.reason[:1000],
                "retriable": failure.status in RETRIED,
                "violations": told(failure.violations[:10]),
                "violations_total": len(failure.violations),
            }
            for failure in failures
        ],
    }
