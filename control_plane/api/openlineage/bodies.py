"""Request bodies: read within limits, unpacked within limits, decoded; hostile ones end here.

JSON is what RFC 8259 says: no NaN, no trailing commas, UTF-8 only. Of a name given twice in one object the last counts,
as with most readers of JSON.
"""

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import msgspec

from control_plane.api.openlineage import limits
from control_plane.core.errors import Violation

Shape = TypeVar("Shape")

GZIP = 16 + zlib.MAX_WBITS
"""Tells zlib to take gzip, with its header and checksum."""

UTF8_MARK = b"\xef\xbb\xbf"
"""Some writers put it in front of UTF-8."""


@dataclass(eq=False)
class Unreadable(Exception):
    """A request that cannot be read, with the HTTP status that says so."""

    status: HTTPStatus
    violation: Violation

    def __str__(self) -> str:
        return f"{self.violation.field}: {self.violation.message}"


def unreadable(status: HTTPStatus, rule: str, message: str, field: str = "body") -> Unreadable:
    """Make one."""
    return Unreadable(status, Violation(field=field, rule=rule, message=message))


async def read_body(chunks: AsyncIterator[bytes], content_length: str | None) -> bytes:
    """The body as it arrives, at most `BODY_BYTES_MAX`."""
    if content_length is not None and content_length.isdecimal() and len(content_length) > len("1000000000"):
        raise _too_large()
    if content_length is not None and content_length.isdecimal() and int(content_length) > limits.BODY_BYTES_MAX:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limits.BODY_BYTES_MAX:
            raise _too_large()
        parts.append(chunk)
    return b"".join(parts)


def unpacked(body: bytes, encoding: str) -> bytes:
    """The body without its content encoding, at most `DECODED_BYTES_MAX`."""
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip"}:
        raise unreadable(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "encoding",
            f"{encoding[:60]!r} cannot be read; send gzip, or the body as it is",
            "Content-Encoding",
        )
    parts: list[bytes] = []
    left = limits.DECODED_BYTES_MAX
    while body:
        member = zlib.decompressobj(GZIP)
        try:
            part = member.decompress(body, left + 1)
        except zlib.error as error:
            raise unreadable(HTTPStatus.BAD_REQUEST, "gzip", f"is not gzip: {error}") from error
        left -= len(part)
        if left < 0:
            raise unreadable(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "size",
                f"unpacks to more than {limits.DECODED_BYTES_MAX} bytes; send fewer events at once",
            )
        if not member.eof:
            raise unreadable(HTTPStatus.BAD_REQUEST, "gzip", "ends in the middle of its gzip stream; send it whole")
        parts.append(part)
        body = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def decoded(event: bytes | msgspec.Raw, field: str = "body") -> object:
    """One event as plain data."""
    if len(memoryview(event)) > limits.EVENT_BYTES_MAX:
        raise unreadable(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "size",
            f"has {len(memoryview(event))} bytes; an event has at most {limits.EVENT_BYTES_MAX}: "
            "leave out facets that nobody reads, or report the steps of the job as jobs",
            field,
        )
    return _decode(event, object, field)


def split(body: bytes) -> list[msgspec.Raw]:
    """A batch as its events, each still encoded."""
    events = _decode(body, list[msgspec.Raw], "body")
    if len(events) > limits.EVENTS_PER_BATCH_MAX:
        raise unreadable(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "size",
            f"{len(events)} events; at most {limits.EVENTS_PER_BATCH_MAX} in a batch: send several",
        )
    return events


def _decode(text: bytes | msgspec.Raw, shape: type[Shape], field: str) -> Shape:
    plain = bytes(memoryview(text)).removeprefix(UTF8_MARK)
    if not plain.strip():
        raise unreadable(HTTPStatus.BAD_REQUEST, "json", "is empty; send JSON", field)
    try:
        return msgspec.json.decode(plain, type=shape)
    except RecursionError as error:
        raise unreadable(HTTPStatus.BAD_REQUEST, "depth", "is nested too deeply; no event needs it", field) from error
    except UnicodeDecodeError as error:
        raise unreadable(HTTPStatus.BAD_REQUEST, "utf8", f"is not UTF-8: {error.reason}", field) from error
    except msgspec.ValidationError as error:
        raise unreadable(HTTPStatus.BAD_REQUEST, "type", f"{error}", field) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise unreadable(HTTPStatus.BAD_REQUEST, "json", f"is not JSON: {error}", field) from error


def _too_large() -> Unreadable:
    return unreadable(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "size",
        f"has more than {limits.BODY_BYTES_MAX} bytes; send fewer events at once, or gzip",
    )
