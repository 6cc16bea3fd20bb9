"""`runway staleness show` and `explain`: is a model still good, how sure are we, and why."""

from datetime import timedelta

import click
from runway_client import messages

from runway_cli.commands.evidence_page import show_charts, show_evidence, verdict_sentence, verdict_words
from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, enum_choices, enum_value, enum_word, instant_of, tier_word, when

CHART_POINTS = 180
"""Looks of which the chart is drawn: about two a column."""


@click.command()
@click.argument("model", required=False)
@click.option("--team", default="", help="Only models of this team.")
@click.option(
    "--verdict",
    "verdicts",
    multiple=True,
    type=click.Choice(enum_choices(messages.Verdict)),
    help="Only these verdicts; may be given several times.",
)
@json_option
@click.pass_obj
def show_staleness(session: Session, model: str | None, team: str, verdicts: tuple[str, ...]) -> None:
    """The fleet, worst first; or one model's signals."""
    if model is None:
        _show_fleet(session, team, verdicts)
        return
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        standing = runway.staleness.get_staleness(model_id)
    if session.as_json:
        session.emit(messages.GetStalenessResponse(staleness=standing, revision=runway.revision))
        return
    session.page.prose(verdict_sentence(session, standing), style="bold")
    show_evidence(session, standing)


@click.command()
@click.argument("model")
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="How far the chart reaches.")
@json_option
@click.pass_obj
def explain_staleness(session: Session, model: str, days: int) -> None:
    """Why, how sure and what to do, in sentences; with the score over time and the most drifted features."""
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        answer = runway.staleness.explain_staleness(model_id)
    if session.as_json:
        session.emit(answer)
        return
    page = session.page
    page.prose(f"{verdict_words(session, answer.staleness)}.", style="bold")
    if answer.sentences:
        page.line()
    for sentence in answer.sentences:
        page.prose(sentence)
    start = session.now - timedelta(days=days)
    looks = list(runway.staleness.list_evaluations(model_id, start=start, points_max=CHART_POINTS))
    show_charts(page, looks, answer.staleness.evaluation if answer.staleness.HasField("evaluation") else None)
    page.line()
    page.line(f"`runway staleness show {model_id}` gives the numbers.", "dim")


def _show_fleet(session: Session, team: str, words: tuple[str, ...]) -> None:
    runway = session.runway
    verdicts = [messages.Verdict.ValueType(enum_value(messages.Verdict, word)) for word in words]
    fleet = list(runway.staleness.list_staleness(team=team, verdicts=verdicts))
    if session.as_json:
        session.emit(messages.ListStalenessResponse(staleness=fleet, revision=runway.revision))
        return
    if not fleet:
        session.page.line("no model matches" if team or words else "no models yet")
        return
    session.page.table(
        [
            Column(title="MODEL"),
            Column(title="TIER", right=True),
            Column(title="VERDICT"),
            Column(title="SINCE", spare=2),
            Column(title="SCORE", right=True),
            Column(title="CONFIDENCE", spare=1),
            Column(title="TEAM", spare=3),
            Column(title="FIRST REASON", prose=True, spare=4),
        ],
        [
            [
                standing.model_id,
                tier_word(standing.tier),
                enum_word(messages.Verdict, standing.verdict),
                when(instant_of(standing, "verdict_since"), session.now),
                f"{standing.evaluation.score:.2f}" if standing.HasField("evaluation") else "-",
                enum_word(messages.Confidence, standing.evaluation.confidence),
                standing.team,
                next(iter(standing.evaluation.reasons), "-"),
            ]
            for standing in fleet
        ],
    )
