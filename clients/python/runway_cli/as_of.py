"""`--as-of`: of which moment of the past a command answers."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}

as_of_option: Callable[[Command], Command] = click.option(
    "--as-of",
    metavar="WHEN",
    help="As everything stood then: a revision (412), a time (2013-03-03, 2013-03-03T12:00, UTC) or a span ago (2d).",
)


def parse_as_of(text: str | None) -> int | datetime | None:
    """A revision or a time out of `--as-of`; None is now.

    >>> parse_as_of("412"), parse_as_of("2013-03-03")
    (412, datetime.datetime(2013, 3, 3, 0, 0, tzinfo=datetime.timezone.utc))
    """
    if text is None:
        return None
    if re.fullmatch(r"@?\d{1,18}", text):
        return int(text.removeprefix("@"))
    if ago := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        return datetime.now(UTC) - int(ago[1]) * _UNITS[ago[2]]
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a revision nor a time: write 412, 2013-03-03, 2013-03-03T12:00 (UTC) or 2d",
            param_hint="--as-of",
        ) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
