"""`runway staleness`: is a model still good, how sure are we, and why."""

import click
from runway_client import messages

from runway_cli.page import Column, Page
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import (
    bare_model,
    clock,
    enum_choices,
    enum_value,
    enum_word,
    instant_of,
    number,
    tier_word,
    version_word,
    when,
)

ACTIONS = {
    "RETRAIN": "Retrain it.",
    "ALERT_DATA_OWNER": "Ask the owner of the data; a retrain on broken data mends nothing.",
    "WAIT": "Wait for the next looks.",
    "NONE": "Nothing.",
}
"""Recommended actions in words; an unknown one is shown as it is."""


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
    show_evidence(session.page, standing)


@click.command()
@click.argument("model")
@json_option
@click.pass_obj
def explain_staleness(session: Session, model: str) -> None:
    """Why, how sure and what to do, in sentences."""
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
    page.line()
    page.line(f"`runway staleness show {model_id}` gives the numbers.", "dim")


def verdict_words(session: Session, standing: messages.Staleness) -> str:
    """Verdict, and since when."""
    words = f"{standing.model_id} is {enum_word(messages.Verdict, standing.verdict)}"
    since = instant_of(standing, "verdict_since")
    return words if since is None else f"{words} since {clock(since)} ({when(since, session.now)})"


def verdict_sentence(session: Session, standing: messages.Staleness) -> str:
    """Verdict, since when, score and confidence in one sentence."""
    sentence = verdict_words(session, standing)
    if not standing.HasField("evaluation"):
        return sentence + "; it has not been evaluated since the control plane started."
    seen = standing.evaluation
    sentence += f": score {number(seen.score, 3)}, stale from {number(seen.threshold, 3)}"
    if seen.score_low != seen.score_high:
        sentence += (
            f", between {number(seen.score_low, 3)} and {number(seen.score_high, 3)} if missing signals were known"
        )
    sentence += f"; confidence {enum_word(messages.Confidence, seen.confidence)}"
    if seen.confidence_reason:
        sentence += f" ({seen.confidence_reason.rstrip('.')})"
    sentence += (
        f". Version {version_word(seen.version)}, evaluated {when(instant_of(seen, 'evaluated_at'), session.now)}."
    )
    return sentence


def show_evidence(page: Page, standing: messages.Staleness) -> None:
    """Signals, drifted features, reasons and what to do."""
    if not standing.HasField("evaluation"):
        return
    seen = standing.evaluation
    if seen.signals:
        page.heading("signals")
        page.table(
            [
                Column(title="SIGNAL"),
                Column(title="VALUE", right=True),
                Column(title="WEIGHT", right=True, spare=2),
                Column(title="ADDS", right=True),
                Column(title="ROWS", right=True, spare=3),
                Column(title="SIGNIFICANT", spare=1),
                Column(title="WHAT IT SAYS", prose=True),
            ],
            [_signal_row(signal) for signal in sorted(seen.signals, key=lambda s: (s.missing, -s.contribution))],
        )
    if seen.top_features:
        page.heading("most drifted features")
        page.table(
            [
                Column(title="FEATURE"),
                Column(title="PSI", right=True),
                Column(title="DEBIASED", right=True),
                Column(title="P VALUE", right=True, spare=1),
                Column(title="DRIFTED"),
            ],
            [
                [
                    f.name,
                    number(f.psi, 3),
                    number(f.psi_debiased, 3),
                    number(f.p_value, 2),
                    "yes" if f.drifted else "no",
                ]
                for f in seen.top_features
            ],
        )
    for title, sentences in (("reasons", seen.reasons), ("data quality", seen.data_quality)):
        if sentences:
            page.heading(title)
            for sentence in sentences:
                page.prose(f"- {sentence}")
    if seen.recommended_action:
        page.heading("what to do")
        page.prose(ACTIONS.get(seen.recommended_action, seen.recommended_action))


def _signal_row(signal: messages.Signal) -> list[str]:
    if signal.missing:
        return [
            signal.name,
            "missing",
            number(signal.weight, 2),
            "-",
            f"{signal.sample_size:,}",
            "-",
            signal.explanation,
        ]
    return [
        signal.name,
        number(signal.value, 2),
        number(signal.weight, 2),
        number(signal.contribution, 2),
        f"{signal.sample_size:,}",
        "yes" if signal.significant else "no",
        signal.explanation,
    ]


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
