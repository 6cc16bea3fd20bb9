"""Spans as people type them: `14d`, `36h`, `90m`."""

import re
from datetime import timedelta

UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([smhdw])")


def parse_span(text: str) -> timedelta:
    """A number and a unit; `0` is none.

    Raises:
        ValueError: it is no span; the message says how to write one.

    >>> parse_span("14d"), parse_span("1.5h"), parse_span("0")
    (datetime.timedelta(days=14), datetime.timedelta(seconds=5400), datetime.timedelta(0))
    """
    text = text.strip()
    if text == "0":
        return timedelta(0)
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no span: write a number and one of s, m, h, d, w, as in 14d")
    try:
        return float(found[1]) * UNITS[found[2]]
    except OverflowError as error:
        raise ValueError(f"{text!r} is too long") from error
