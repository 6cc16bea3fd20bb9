"""What `runway coverage` and `runway performance` have in common: from when to when, in prediction time."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from runway_cli.commands.models import parse_instant
from runway_cli.session import Session

Command = TypeVar("Command", bound=Callable[..., Any])


def span_options(command: Command) -> Command:
    """From when to when, and of which version."""
    for option in (
        click.option("--until", metavar="TIME", help="Predictions before this time (UTC); default now."),
        click.option("--since", metavar="TIME", help="Predictions from this time on (UTC); default 7 days back."),
        click.option("--days", type=click.IntRange(min=1), help="Instead of --since: so many days back."),
        click.option("--version", type=click.IntRange(min=1), help="Only this version; default all."),
    ):
        command = option(command)
    return command


def span_of_options(
    session: Session, days: int | None, since: str | None, until: str | None
) -> tuple[datetime | None, datetime | None]:
    """Start and end as asked for; None takes the default."""
    if days is not None and since is not None:
        raise click.UsageError("--days and --since both say where to begin: give one of them")
    start, end = parse_instant(since, "--since"), parse_instant(until, "--until")
    if days is not None:
        start = (end or session.now) - timedelta(days=days)
    return start, end


def day_word(instant: datetime | None) -> str:
    """The day of an instant."""
    return "-" if instant is None else instant.strftime("%Y-%m-%d")
