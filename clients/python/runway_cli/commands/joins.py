"""`runway join`: join a stretch of time now, instead of waiting for the hourly join."""

import click

from runway_cli.commands.models import parse_instant
from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, count, share

MODELS_SHOWN_MAX = 40
"""As many as fit on a screen; --json has all."""


@click.command()
@click.option(
    "--from", "since", required=True, metavar="TIME", help="Predictions from this time on (UTC), by the hour."
)
@click.option("--to", "until", metavar="TIME", help="Predictions before this time (UTC); default now.")
@click.option("--model", default="", metavar="MODEL", help="Of one model; default of all.")
@click.option("--all-again", is_flag=True, help="Join every hour again; default only hours whose rows have changed.")
@json_option
@click.pass_obj
def join_facts(session: Session, since: str, until: str | None, model: str, all_again: bool) -> None:
    """Join predictions with their outcomes now, and wait for it.

    Runway does this by itself: an hour when it is over, and again when rows of it arrive. The same join again gives the
    same numbers.
    """
    runway, page = session.runway, session.page
    start = parse_instant(since, "--from")
    end = parse_instant(until, "--to") or session.now
    if start is None:
        raise click.UsageError("--from says nothing: write a time, as 2013-03-01 or 2013-03-01T14:00")
    model_id = bare_model(model) if model else ""
    with model_suggestions(runway, model_id):
        answer = runway.facts.join_partition(start, end, model_id=model_id, authoritative=all_again)
    if session.as_json:
        session.emit(answer)
        return
    hours = count(answer.hours_joined, "hour of a model", "hours of models")
    page.prose(
        f"{clock(start)} to {clock(end)}: {hours} joined by {answer.engine} in {answer.cpu_s:.1f} CPU-s; "
        f"{answer.joined:,} of {count(answer.predicted, 'prediction')} have an outcome.",
        style="bold",
    )
    if not answer.predicted:
        page.prose("Nothing was predicted in this time.")
    if answer.hours_live:
        page.prose(
            f"{count(answer.hours_live, 'hour is', 'hours are')} still served by the speed layer, complete as "
            f"{'it is' if answer.hours_live == 1 else 'they are'}; a later join takes over."
        )
    if answer.late:
        page.prose(f"{count(answer.late, 'outcome')} came after the speed layer had let go of the hour.")
    if answer.orphans:
        page.prose(f"{count(answer.orphans, 'outcome')} found no prediction.")
    rows = sorted(answer.models, key=lambda one: (one.coverage if one.HasField("coverage") else 2.0, one.model_id))
    if rows:
        page.line()
    page.table(
        [
            Column(title="MODEL"),
            Column(title="PREDICTED", right=True),
            Column(title="WITH OUTCOME", right=True),
            Column(title="COVERAGE", right=True),
        ],
        [
            [
                one.model_id,
                f"{one.predicted:,}",
                f"{one.joined:,}",
                share(one.coverage) if one.HasField("coverage") else "not mature",
            ]
            for one in rows[:MODELS_SHOWN_MAX]
        ],
    )
    if len(rows) > MODELS_SHOWN_MAX:
        page.line(f"(and {len(rows) - MODELS_SHOWN_MAX} more with at least as much coverage; --json has all)", "dim")
