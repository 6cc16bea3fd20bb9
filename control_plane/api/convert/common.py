"""Times, spans, pages, mutations: what every service shares."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import common_pb2

from control_plane.api.errors import invalid

T = TypeVar("T")

PAGE_SIZE_DEFAULT = 100


def timestamp(instant: datetime | None) -> Timestamp | None:
    """A UTC instant on the wire; None stays unset."""
    if instant is None:
        return None
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def instant_from(message: Timestamp, field: str) -> datetime:
    """Read an instant; `Invalid` if it is out of range."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise invalid(field, "timestamp", f"not a time between the years 1 and 9999: {error}") from error


def duration(span: timedelta) -> Duration:
    """A span on the wire."""
    message = Duration()
    message.FromTimedelta(span)
    return message


def span_from(message: Duration, field: str) -> timedelta:
    """Read a span; `Invalid` if it is out of range."""
    try:
        return message.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise invalid(field, "duration", f"not a span of time: {error}") from error


def page(items: Sequence[T], keys: Sequence[str], request: common_pb2.PageRequest) -> tuple[Sequence[T], str]:
    """The items after the token's key, at most a page of them.

    `keys` are the sort keys of the items, ascending and unique, as text; the token is the last key of the page before,
    so that a page stays stable while items are added.
    """
    size = request.page_size or PAGE_SIZE_DEFAULT
    start = 0
    if request.page_token:
        if request.page_token[:2] != "k:":
            raise invalid(
                "page.page_token",
                "token",
                "not a token of this service: use next_page_token of the page before",
            )
        after = request.page_token[2:]
        start = _first_after(keys, after)
    end = min(start + size, len(items))
    more = end < len(items)
    return items[start:end], f"k:{keys[end - 1]}" if more else ""


def _first_after(keys: Sequence[str], after: str) -> int:
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] <= after:
            low = middle + 1
        else:
            high = middle
    return low


def newest_first_key(number: int) -> str:
    """A key that sorts newest first for things numbered upwards."""
    return f"{10**12 - number:013d}"
