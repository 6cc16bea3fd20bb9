"""`runway staleness history`, `replay` and `evaluate`: looks as they were made, made again, and made now."""

from datetime import datetime, timedelta
from itertools import islice

import click
from runway_client import Why, messages

from runway_cli.commands.evidence_page import verdict_sentence
from runway_cli.commands.models import parse_instant
from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, enum_word, instant_of, number, version_word

LOOKS_SHOWN = 20
TICK = timedelta(microseconds=1)


@click.command()
@click.argument("model")
@click.option("--from", "start", metavar="TIME", help="Looks from this time on (UTC).")
@click.option("--to", "end", metavar="TIME", help="Looks before this time (UTC); default now.")
@click.option(
    "--limit", type=click.IntRange(1), default=LOOKS_SHOWN, show_default=True, help="At most so many, the newest."
)
@click.option("--points", type=click.IntRange(1, 10_000), help="Instead of --limit: so many, spread over the time.")
@click.option("--changes", is_flag=True, help="Only looks that changed the verdict, with the revision of each.")
@json_option
@click.pass_obj
def show_looks(
    session: Session,
    model: str,
    start: str | None,
    end: str | None,
    limit: int,
    points: int | None,
    changes: bool,
) -> None:
    """Every look at a model, newest first; they are kept for 13 months."""
    model_id = bare_model(model)
    begin, until = parse_instant(start, "--from"), parse_instant(end, "--to")
    if begin is not None and until is not None and until <= begin:
        raise click.UsageError(f"--to {clock(until)} is not after --from {clock(begin)}: swap the two")
    if changes:
        _show_changes(session, model_id, begin, until, limit)
        return
    with model_suggestions(session.runway, model_id):
        found = session.runway.staleness.list_evaluations(model_id, start=begin, end=until, points_max=points or 0)
        looks = list(found if points else islice(found, limit + 1))
    more = not points and len(looks) > limit
    looks = looks if points else looks[:limit]
    if session.as_json:
        session.emit(messages.ListEvaluationsResponse(evaluations=looks))
        return
    if not looks:
        session.page.line(f"there was no look at {model_id}{_span_words(begin, until)}")
        return
    session.page.table(
        [
            Column(title="LOOKED AT"),
            Column(title="VERSION", right=True),
            Column(title="SAYS"),
            Column(title="SCORE", right=True),
            Column(title="BOUNDS", right=True, spare=3),
            Column(title="CONFIDENCE", spare=2),
            Column(title="EVIDENCE", spare=1),
            Column(title="FIRST REASON", prose=True, spare=4),
        ],
        [
            [
                _second(instant_of(look, "evaluated_at")),
                version_word(look.version),
                enum_word(messages.Verdict, look.level),
                f"{look.score:.3f}",
                f"{look.score_low:.2f} to {look.score_high:.2f}",
                enum_word(messages.Confidence, look.confidence),
                look.evidence_sha256[:12] or "-",
                next(iter(look.reasons), "-"),
            ]
            for look in looks
        ],
    )
    if more:
        session.page.line(f"there are more: --limit {limit * 4} shows them, --points 50 spreads 50 over all", "dim")


def _show_changes(session: Session, model_id: str, begin: datetime | None, until: datetime | None, limit: int) -> None:
    with model_suggestions(session.runway, model_id):
        found = [
            change
            for change in session.runway.staleness.list_verdict_changes(model_id)
            if _within(instant_of(change, "changed_at"), begin, until)
        ][:limit]
    if session.as_json:
        session.emit(messages.ListVerdictChangesResponse(changes=found, revision=session.runway.revision))
        return
    if not found:
        session.page.line(f"the verdict of {model_id} did not change{_span_words(begin, until)}")
        return
    session.page.table(
        [
            Column(title="CHANGED"),
            Column(title="REVISION", right=True),
            Column(title="VERSION", right=True),
            Column(title="FROM"),
            Column(title="TO"),
            Column(title="SCORE", right=True),
            Column(title="CONFIDENCE", spare=1),
            Column(title="FIRST REASON", prose=True, spare=2),
        ],
        [
            [
                _second(instant_of(change, "changed_at")),
                str(change.revision),
                version_word(change.version),
                enum_word(messages.Verdict, change.from_verdict),
                enum_word(messages.Verdict, change.to_verdict),
                f"{change.evaluation.score:.3f}",
                enum_word(messages.Confidence, change.evaluation.confidence),
                next(iter(change.evaluation.reasons), "-"),
            ]
            for change in found
        ],
    )


@click.command()
@click.argument("model")
@click.option("--revision", type=click.IntRange(1), help="The verdict change of this revision.")
@click.option("--at", "at", metavar="TIME", help="The newest look made until this time (UTC).")
@json_option
@click.pass_obj
def replay_look(session: Session, model: str, revision: int | None, at: str | None) -> None:
    """Make a look again from its evidence and compare bit for bit; ends with 1 if the two differ.

    Without --revision and --at: the look that brought the verdict about.
    """
    if revision is not None and at is not None:
        raise click.UsageError("name the look by --revision or by --at, not by both")
    runway, model_id = session.runway, bare_model(model)
    with model_suggestions(runway, model_id):
        if at is not None:
            look = _look_until(session, model_id, at)
            answer = runway.staleness.replay_evaluation(model_id, evaluated_at=look.evaluated_at)
        else:
            answer = runway.staleness.replay_evaluation(
                model_id, revision=revision or _newest_change(session, model_id)
            )
    if session.as_json:
        session.emit(answer)
    else:
        _show_replay(session, model_id, answer)
    if not answer.identical:
        raise click.exceptions.Exit(1)


def _show_replay(session: Session, model_id: str, answer: messages.ReplayEvaluationResponse) -> None:
    page, recorded = session.page, answer.recorded
    page.prose(
        f"{model_id} {version_word(recorded.version)}, looked at on {_second(instant_of(recorded, 'evaluated_at'))}: "
        f"{enum_word(messages.Verdict, recorded.level)}, score {number(recorded.score, 6)}."
    )
    if answer.identical:
        page.prose("Made again from its evidence: identical, bit for bit.", style="bold")
    else:
        page.prose("Made again from its evidence it DIFFERS:", style="bold red")
        for difference in answer.differences:
            page.prose(f"- {difference}")
    page.line(f"evidence sha256 {answer.evidence_sha256}", "dim")


def _newest_change(session: Session, model_id: str) -> int:
    changes = session.runway.staleness.list_verdict_changes(model_id)
    if not changes:
        raise click.ClickException(
            f"the verdict of {model_id} has not changed yet: name a look by --at; `runway staleness history "
            f"{model_id}` lists them"
        )
    return int(changes[0].revision)


def _look_until(session: Session, model_id: str, text: str) -> messages.Evaluation:
    """The newest look until a time; a time to the second or minute means the end of that second or minute."""
    until = parse_instant(text, "--at")
    assert until is not None
    if not until.microsecond:
        until += timedelta(seconds=1) if until.second else timedelta(minutes=1)
        until -= TICK
    looks = list(islice(session.runway.staleness.list_evaluations(model_id, end=until + TICK), 1))
    if not looks:
        raise click.ClickException(
            f"there was no look at {model_id} until {clock(until)}: `runway staleness history {model_id}` lists them"
        )
    return looks[0]


@click.command()
@click.argument("model")
@change_options
@json_option
@click.pass_obj
def evaluate_model(session: Session, model: str, reason: str, dry_run: bool) -> None:
    """Look at a model now; its verdict follows after as many looks as its policy asks for."""
    runway, model_id = session.runway, bare_model(model)
    with model_suggestions(runway, model_id):
        standing = runway.staleness.evaluate_model(model_id, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.EvaluateModelResponse(staleness=standing, revision=runway.revision))
        return
    page = session.page
    if not standing.HasField("evaluation"):
        page.prose(f"{model_id} has no version in production: there is nothing to look at.")
        return
    if dry_run:
        page.prose(f"{model_id} would be looked at now; this is the last look:")
    page.prose(verdict_sentence(session, standing), style="bold")
    seen = standing.evaluation
    if seen.level != standing.verdict:
        page.prose(
            f"This look alone says {enum_word(messages.Verdict, seen.level)}: a verdict changes when enough agree."
        )
    for why in seen.reasons:
        page.prose(f"- {why}")


def _within(instant: datetime | None, begin: datetime | None, until: datetime | None) -> bool:
    return instant is not None and (begin is None or instant >= begin) and (until is None or instant < until)


def _span_words(begin: datetime | None, until: datetime | None) -> str:
    return (f" from {clock(begin)}" if begin is not None else "") + (f" until {clock(until)}" if until else "")


def _second(instant: datetime | None) -> str:
    return "-" if instant is None else instant.strftime("%Y-%m-%d %H:%M:%S")
