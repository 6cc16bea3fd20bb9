"""Values as people write them in a file, and the one form in which they are given back.

A span is a number with a unit (`15m`, `7d`, `0.25s`); a time is ISO 8601, in UTC unless it says otherwise. Both are
exact to the nanosecond, as they are on the wire. Reading raises ValueError with a sentence that says what to write.
"""

import math
import re
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOS = 1_000_000_000
_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SPAN = re.compile(r"(-?)(\d{1,15})(?:\.(\d{1,9}))?(ms|us|[wdhms])")
_SPANS = re.compile(r"-?(?:\d{1,15}(?:\.\d{1,9})?(?:ms|us|[wdhms]) ?)+")
_TIME = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?\s?([Zz]|[+-]\d{2}:?\d{2})?)?"
)
_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WHOLE = re.compile(r"[-+]?\d[\d_]*")
_SPAN_SECONDS_MAX = 315_576_000_000
"""Ten thousand years: the most that the wire can say."""
_EXACT_WHOLE_MAX = 2.0**53

SPAN_PATTERN = r"^-?([0-9]+(\.[0-9]+)?(ms|us|[wdhms]) ?)+$"
"""Of the JSON Schema, for editors."""


def span_of(text: str) -> Duration:
    """A span out of text.

    >>> span_of("1h30m").seconds, span_of("0.25s").nanos
    (5400, 250000000)
    """
    text = text.strip()
    if not _SPANS.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is not a span of time: write a number and a unit, as 900s, 15m, 4h or 7d")
    total = 0
    for _, whole, fraction, unit in _SPAN.findall(text.removeprefix("-")):
        unit_nanos = {"ms": 1_000_000, "us": 1_000}.get(unit) or _UNITS[unit] * _NANOS
        digits = fraction or ""
        part, rest = divmod(int(digits or "0") * unit_nanos, 10 ** len(digits))
        if rest:
            raise ValueError(f"{text!r} is finer than a nanosecond, the finest a span can say")
        total += int(whole) * unit_nanos + part
    if total > _SPAN_SECONDS_MAX * _NANOS:
        raise ValueError(f"{text!r} is longer than ten thousand years, the longest a span can say")
    sign = -1 if text.startswith("-") else 1
    seconds, nanos = divmod(total, _NANOS)
    return Duration(seconds=sign * seconds, nanos=sign * nanos)


def span_text(span: Duration) -> str:
    """A span in the largest unit that leaves no fraction.

    >>> span_text(Duration(seconds=604800)), span_text(Duration(seconds=5400)), span_text(Duration(nanos=1))
    ('7d', '90m', '0.000000001s')
    """
    total = span.seconds * _NANOS + span.nanos
    sign, total = ("-" if total < 0 else ""), abs(total)
    seconds, nanos = divmod(total, _NANOS)
    if nanos:
        return f"{sign}{seconds}.{f'{nanos:09d}'.rstrip('0')}s"
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{sign}{seconds // _UNITS[unit]}{unit}"
    return f"{sign}{seconds}s"


def time_of(text: str) -> Timestamp:
    """A time out of text.

    >>> time_of("2013-03-01").seconds, time_of("2013-03-01T12:00+01:00").seconds
    (1362096000, 1362135600)
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:60]!r} is not a time: write 2013-03-01 or 2013-03-01T12:00:00Z (UTC)")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        instant = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is not a time: {error}") from None
    seconds = round((instant - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    if zone and zone not in "Zz":
        sign = -1 if zone[0] == "-" else 1
        seconds -= sign * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    return Timestamp(seconds=seconds, nanos=int((fraction or "").ljust(9, "0")))


def time_text(instant: Timestamp) -> str:
    """A time in UTC.

    >>> time_text(Timestamp(seconds=1362096000))
    '2013-03-01T00:00:00Z'
    """
    return str(instant.ToJsonString()) if not instant.nanos else _fractional(instant)


def _fractional(instant: Timestamp) -> str:
    whole = Timestamp(seconds=instant.seconds).ToJsonString().removesuffix("Z")
    return f"{whole}.{f'{instant.nanos:09d}'.rstrip('0')}Z"


def number_of(text: str) -> float:
    """A number out of text.

    >>> number_of("1e-7"), number_of("1_000")
    (1e-07, 1000.0)
    """
    plain = text.strip().lower()
    if plain in (".nan", ".inf", "+.inf", "-.inf"):
        return float(plain.replace(".", ""))
    if not _NUMBER.fullmatch(plain):
        raise ValueError(f"{text[:60]!r} is not a number")
    return float(plain.replace("_", ""))


def number_text(value: float) -> str:
    """The shortest text that is this number again, in YAML of either version.

    >>> number_text(1e-7), number_text(45.0), number_text(0.1)
    ('1.0e-07', '45', '0.1')
    """
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    if value == int(value) and abs(value) <= _EXACT_WHOLE_MAX and math.copysign(1.0, value) > 0:
        return str(int(value))
    if value == int(value) and abs(value) <= _EXACT_WHOLE_MAX and value:
        return str(int(value))
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}.0e{exponent}" if e and "." not in mantissa else text


def whole_of(text: str) -> int:
    """A whole number out of text; `3.0` is one, `3.5` is none."""
    plain = text.strip()
    if _WHOLE.fullmatch(plain):
        return int(plain.replace("_", ""))
    if _NUMBER.fullmatch(plain) and float(plain.replace("_", "")).is_integer():
        return int(float(plain.replace("_", "")))
    raise ValueError(f"{text[:60]!r} is not a whole number")


def flag_of(text: str) -> bool:
    """Yes or no out of text; the words of both versions of YAML."""
    plain = text.strip().lower()
    if plain in ("true", "yes", "on"):
        return True
    if plain in ("false", "no", "off"):
        return False
    raise ValueError(f"{text[:60]!r} is neither true nor false")
