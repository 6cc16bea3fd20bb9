"""`runway performance`: how good a model is on the truth that has arrived."""

import click
from runway_client import messages

from runway_cli.commands.truth import day_word, span_of_options, span_options
from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, enum_word, instant_of, number, version_word


@click.command()
@click.argument("model")
@span_options
@json_option
@click.pass_obj
def show_performance(
    session: Session, model: str, version: int | None, days: int | None, since: str | None, until: str | None
) -> None:
    """How good a model is on the truth that has arrived, by day."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    start, end = span_of_options(session, days, since, until)
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
        day_word(instant_of(row, "start_time")),
        *(number(by_name[name].value) if name in by_name else "-" for name in names),
        f"{max((metric.sample_size for metric in row.metrics), default=0):,}",
        enum_word(messages.Layer, row.layer).lower(),
    ]
