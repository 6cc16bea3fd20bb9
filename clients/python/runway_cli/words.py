"""Words and numbers for people: ages, counts, short names of enum values."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from runway_client.times import from_duration, from_timestamp

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class EnumNames(Protocol):
    """A generated enum."""

    @property
    def DESCRIPTOR(self) -> Any:  # noqa: N802 (protobuf's name)
        """Its name and values."""
        ...


def enum_word(names: EnumNames, value: int) -> str:
    """The name of an enum value without the enum's prefix; `-` for unspecified.

    >>> from runway_client import messages
    >>> enum_word(messages.RetrainState, messages.RETRAIN_STATE_WAITING)
    'WAITING'
    """
    known = names.DESCRIPTOR.values_by_number.get(value)
    if known is None:
        return f"#{value}"
    first = names.DESCRIPTOR.values_by_number[0].name
    word = str(known.name.removeprefix(first.removesuffix("UNSPECIFIED")))
    return "-" if word == "UNSPECIFIED" else word


def enum_choices(names: EnumNames) -> list[str]:
    """All words of an enum but `unspecified`, in lower case, for options."""
    return [enum_word(names, number).lower() for number in names.DESCRIPTOR.values_by_number if number != 0]


def enum_value(names: EnumNames, word: str) -> int:
    """The number of a word from `enum_choices`."""
    for number in names.DESCRIPTOR.values_by_number:
        if enum_word(names, number).lower() == word.lower():
            return int(number)
    raise ValueError(word)


def tier_word(tier: int) -> str:
    """`1` to `4`, or `-`."""
    return str(tier) if tier else "-"


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> count(1, "model"), count(1300, "model")
    ('1 model', '1,300 models')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """Words as an enumeration.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "nothing"


def span(length: timedelta) -> str:
    """A span in its largest useful unit.

    >>> span(timedelta(seconds=40)), span(timedelta(minutes=90)), span(timedelta(days=3, hours=5))
    ('40 s', '90 min', '3 d')
    """
    seconds = abs(length.total_seconds())
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds // _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR:.0f} h"
    return f"{seconds // _DAY:.0f} d"


def when(instant: datetime | None, now: datetime) -> str:
    """How long ago, or in how long.

    >>> from datetime import UTC
    >>> noon = datetime(2013, 3, 1, 12, tzinfo=UTC)
    >>> when(noon - timedelta(hours=3), noon), when(noon + timedelta(minutes=5), noon), when(None, noon)
    ('3 h ago', 'in 5 min', '-')
    """
    if instant is None:
        return "-"
    distance = instant - now
    if abs(distance) < timedelta(seconds=1):
        return "now"
    return f"in {span(distance)}" if distance > timedelta(0) else f"{span(distance)} ago"


def clock(instant: datetime | None) -> str:
    """Date and time to the minute, UTC.

    >>> from datetime import UTC
    >>> clock(datetime(2013, 3, 1, 12, tzinfo=UTC))
    '2013-03-01 12:00'
    """
    return "-" if instant is None else instant.strftime("%Y-%m-%d %H:%M")


def instant_of(message: Message, field: str) -> datetime | None:
    """A timestamp field; None if it is not set."""
    if not message.HasField(field):
        return None
    value = getattr(message, field)
    assert isinstance(value, Timestamp)
    return from_timestamp(value)


def span_of(message: Message, field: str) -> str:
    """A duration field in words; `-` if it is not set."""
    if not message.HasField(field):
        return "-"
    value = getattr(message, field)
    assert isinstance(value, Duration)
    return span(from_duration(value))


def number(value: float, digits: int = 4) -> str:
    """A measured number, short but not misleading.

    >>> number(0.71234), number(12.0), number(float("nan"))
    ('0.7123', '12', 'nan')
    """
    return f"{value:.{digits}g}"


def share(value: float) -> str:
    """A share as a percentage; never 100 % unless it is.

    >>> share(0.9996), share(1.0), share(0.5)
    ('99.9 %', '100 %', '50.0 %')
    """
    if value == 1.0:
        return "100 %"
    percent = min(value * 100, 99.9) if 0.5 < value < 1 else value * 100
    return f"{percent:.1f} %"


def version_word(version: int) -> str:
    """`v3`, or `-` for none."""
    return f"v{version}" if version else "-"


def bare_model(name: str) -> str:
    """A model id from what people paste: `model:air_time` is `air_time`."""
    return name.removeprefix("model:")


def joined(words: Iterable[str]) -> str:
    """Words with commas; `-` for none."""
    return ", ".join(words) or "-"
