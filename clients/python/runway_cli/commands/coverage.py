"""`runway coverage`: how much of the truth has arrived."""

import click
from runway_client import messages

from runway_cli.commands.truth import day_word, span_of_options, span_options
from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, count, enum_word, instant_of, share, version_word


@click.command()
@click.argument("model")
@span_options
@json_option
@click.pass_obj
def show_coverage(
    session: Session, model: str, version: int | None, days: int | None, since: str | None, until: str | None
) -> None:
    """How much of the truth about a model has arrived, by day."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    start, end = span_of_options(session, days, since, until)
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
                day_word(instant_of(row, "start_time")),
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
