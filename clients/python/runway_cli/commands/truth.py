"""`runway coverage` and `runway performance`: what turned out."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click
from runway_client import messages

from runway_cli.commands.models import parse_instant
from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, count, enum_word, instant_of, number, share, version_word

Command = TypeVar("Command", bound=Callable[..., Any])


def _span_options(command: Command) -> Command:
    """From when to when, in prediction time."""
    for option in (
        click.option("--until", metavar="TIME", help="Predictions before this time (UTC); default now."),
        click.option("--since", metavar="TIME", help="Predictions from this time on (UTC); default 7 days back."),
        click.option("--days", type=click.IntRange(min=1), help="Instead of --since: so many days back."),
        click.option("--version", type=click.IntRange(min=1), help="Only this version; default all."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("model")
@_span_options
@json_option
@click.pass_obj
def show_coverage(
    session: Session, model: str, version: int | None, days: int | None, since: str | None, until: str | None
) -> None:
    """How much of the truth about a model has arrived, by day."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    start, end = _span(session, days, since, until)
    with model_suggestions(runway, model_id):
        answer = runway.ground_truth.get_coverage(model_id, version=version or 0, start=start, end=end)
    if session.as_json:
        session.emit(answer)
        return
    total = answer.total
    which = f"{model_id} {version_word(version)}" if version else model_id
    if not total.predicted:
        page.prose(f"{which} made no predictions in this time.", style="bold")
    elif answer.explanation:
        page.prose(f"{which}: {answer.explanation.rstrip('.')}.", style="bold")
    elif not total.HasField("coverage"):
        page.prose(
            f"{which} made {count(total.predicted, 'prediction')}; none is mature yet, so its coverage is not known.",
            style="bold",
        )
    else:
        page.prose(
            f"{which}: {share(total.coverage)} of {count(total.mature, 'mature prediction')} have their outcome"
            f" ({share(answer.coverage_min)} wanted).",
            style="bold",
        )
    if answer.alert:
        page.prose("ALERT: coverage is below the policy's minimum.", style="bold red")
    if answer.rows:
        page.line()
    page.table(
        [
            Column(title="DAY"),
            Column(title="PREDICTED", right=True),
            Column(title="MATURE", right=True),
            Column(title="JOINED", right=True),
            Column(title="COVERAGE", right=True),
            Column(title="LATE", right=True, spare=1),
            Column(title="ORPHANS", right=True, spare=2),
            Column(title="FROM", spare=3),
        ],
        [
            [
                _day(instant_of(row, "start_time")),
                f"{row.predicted:,}",
                f"{row.mature:,}",
                f"{row.joined:,}",
                share(row.coverage) if row.HasField("coverage") else "-",
                f"{row.late:,}",
                f"{row.orphans:,}",
                enum_word(messages.Layer, row.layer).lower(),
            ]
            for row in answer.rows
        ],
    )


@click.command()
@click.argument("model")
@_span_options
@json_option
@click.pass_obj
def show_performance(
    session: Session, model: str, version: int | None, days: int | None, since: str | None, until: str | None
) -> None:
    """How good a model is on the truth that has arrived, by day."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    start, end = _span(session, days, since, until)
    with model_suggestions(runway, model_id):
        answer = runway.ground_truth.get_performance(model_id, version=version or 0, start=start, end=end)
    if session.as_json:
        session.emit(answer)
        return
    which = f"{model_id} {version_word(version)}" if version else model_id
    if not answer.total.metrics:
        page.prose(f"No outcome of {which} has arrived in this time: see `runway coverage {model_id}`.", style="bold")
        return
    begin, stop = clock(instant_of(answer.total, "start_time")), clock(instant_of(answer.total, "end_time"))
    page.prose(f"{which} on predictions from {begin} to {stop}:", style="bold")
    page.line()
    page.table(
        [
            Column(title="METRIC"),
            Column(title="VALUE", right=True),
            Column(title="STD ERROR", right=True),
            Column(title="HOLDOUT", right=True),
            Column(title="ROWS", right=True),
        ],
        [
            [
                metric.name,
                number(metric.value),
                number(metric.standard_error, 2),
                number(metric.baseline) if metric.HasField("baseline") else "-",
                f"{metric.sample_size:,}",
            ]
            for metric in answer.total.metrics
        ],
    )
    if answer.rows:
        page.line()
    names = [metric.name for metric in answer.total.metrics]
    page.table(
        [
            Column(title="DAY"),
            *(Column(title=name.upper(), right=True, spare=place) for place, name in enumerate(names)),
            Column(title="ROWS", right=True),
            Column(title="FROM", spare=len(names) + 1),
        ],
        [_performance_row(row, names) for row in answer.rows],
    )


def _performance_row(row: messages.PerformanceRow, names: list[str]) -> list[str]:
    by_name = {metric.name: metric for metric in row.metrics}
    return [
        _day(instant_of(row, "start_time")),
        *(number(by_name[name].value) if name in by_name else "-" for name in names),
        f"{max((metric.sample_size for metric in row.metrics), default=0):,}",
        enum_word(messages.Layer, row.layer).lower(),
    ]


def _span(
    session: Session, days: int | None, since: str | None, until: str | None
) -> tuple[datetime | None, datetime | None]:
    if days is not None and since is not None:
        raise click.UsageError("--days and --since both say where to begin: give one of them")
    start, end = parse_instant(since, "--since"), parse_instant(until, "--until")
    if days is not None:
        start = (end or session.now) - timedelta(days=days)
    return start, end


def _day(instant: datetime | None) -> str:
    return "-" if instant is None else instant.strftime("%Y-%m-%d")
