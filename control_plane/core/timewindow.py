"""Spans of time as people say them."""

from datetime import timedelta

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def spelled(span: timedelta) -> str:
    """A span in its largest unit that gives a whole number, so that nothing is rounded away.

    >>> spelled(timedelta(hours=36)), spelled(timedelta(days=7)), spelled(timedelta(seconds=90))
    ('36 hours', '7 days', '90 seconds')
    >>> spelled(timedelta(hours=1)), spelled(timedelta(seconds=0.25))
    ('1 hour', '0.25 seconds')
    """
    seconds = span.total_seconds()
    for unit, length in _UNITS:
        count, rest = divmod(seconds, length)
        if count and not rest:
            return f"{count:.0f} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"
