"""Instants and spans between Python and the wire. Instants are UTC-aware; a naive one is refused, never guessed."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_timestamp(instant: datetime) -> Timestamp:
    """The wire form of an instant.

    Raises:
        ValueError: the instant has no time zone.

    >>> to_timestamp(datetime(2013, 3, 1, tzinfo=UTC)).seconds
    1362096000
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no time zone: write datetime(..., tzinfo=UTC)")
    microseconds = (instant - _EPOCH) // _MICROSECOND
    seconds, rest = divmod(microseconds, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def from_timestamp(timestamp: Timestamp) -> datetime:
    """The instant of a wire timestamp, to the microsecond.

    >>> from_timestamp(Timestamp(seconds=1362096000)).isoformat()
    '2013-03-01T00:00:00+00:00'
    """
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)


def to_duration(span: timedelta) -> Duration:
    """The wire form of a span.

    >>> to_duration(timedelta(hours=2)).seconds
    7200
    """
    duration = Duration()
    duration.FromTimedelta(span)
    return duration


def from_duration(duration: Duration) -> timedelta:
    """The span of a wire duration, to the microsecond.

    >>> from_duration(Duration(seconds=90))
    datetime.timedelta(seconds=90)
    """
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
