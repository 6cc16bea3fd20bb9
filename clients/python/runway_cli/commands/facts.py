"""`runway facts`: where facts come from, what is kept of them, and what could not be used."""

import uuid

import click
from runway_client import messages

from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, count, instant_of, number, share, when

LISTED_DEFAULT = 20
REASON_CHARS_MAX = 160
"""Of a refusal in a list; the first violation is in it, --json has all."""


@click.command()
@click.option("--model", default="", metavar="MODEL", help="Of one model; default of all.")
@json_option
@click.pass_obj
def show_status(session: Session, model: str) -> None:
    """Where facts come from, what is kept of them, and what is degraded now."""
    runway, page = session.runway, session.page
    answer = runway.facts.get_ingest_status(bare_model(model))
    if session.as_json:
        session.emit(answer)
        return
    if answer.degraded:
        for said in answer.degraded:
            page.prose(f"Degraded: {said}.", style="yellow")
    else:
        page.prose("Nothing is degraded.", style="green")
    page.prose(
        f"Joined by the {answer.engine} engine; the speed view is in {answer.speed_view} and holds "
        f"{count(answer.speed_rows, 'row')}; {count(answer.due_hours, 'hour of a model', 'hours of models')} "
        f"wait for the batch join. {share(answer.pressure)} of the room for waiting batches is taken."
    )
    _say_unused(session, answer)
    _show_sources(session, answer)
    _show_sampled(session, answer)
    if answer.kafka:
        page.line()
        page.table(
            [
                Column(title="TOPIC"),
                Column(title="PARTITION", right=True),
                Column(title="TAKEN IN UP TO", right=True),
                Column(title="BEHIND", right=True),
            ],
            [
                [lag.topic, str(lag.partition), f"{lag.position:,}", "unknown" if lag.lag < 0 else f"{lag.lag:,}"]
                for lag in answer.kafka
            ],
        )


def _say_unused(session: Session, answer: messages.GetIngestStatusResponse) -> None:
    page = session.page
    if answer.dead_letters:
        page.prose(
            f"{count(answer.dead_letters, 'batch', 'batches')} could not be used: `runway facts dead-letters` says why."
        )
    if answer.orphans:
        page.prose(
            f"{count(answer.orphans, 'outcome')} found no prediction: `runway facts orphans MODEL` lists them, "
            "`runway coverage MODEL` says what may be the cause."
        )


def _show_sources(session: Session, answer: messages.GetIngestStatusResponse) -> None:
    if not answer.sources:
        return
    session.page.line()
    session.page.table(
        [
            Column(title="SOURCE"),
            Column(title="MODEL"),
            Column(title="PREDICTIONS", right=True),
            Column(title="LAST"),
            Column(title="OUTCOMES", right=True),
            Column(title="LAST"),
            Column(title=""),
        ],
        [
            [
                one.source or "(not said)",
                one.model_id,
                f"{one.predictions:,}",
                when(instant_of(one, "last_predictions_at"), session.now),
                f"{one.outcomes:,}",
                when(instant_of(one, "last_outcomes_at"), session.now),
                "silent" if one.silent else "",
            ]
            for one in answer.sources
        ],
    )


def _show_sampled(session: Session, answer: messages.GetIngestStatusResponse) -> None:
    if not answer.sampled:
        return
    session.page.line()
    session.page.table(
        [
            Column(title="SAMPLED"),
            Column(title="TIER", right=True),
            Column(title="BY POLICY", right=True),
            Column(title="NOW KEPT", right=True),
            Column(title="IN THE SPEED VIEW", right=True),
        ],
        [
            [one.model_id, str(one.tier), share(one.policy_rate), share(one.ingest_rate), share(one.speed_rate)]
            for one in answer.sampled
        ],
    )


@click.command()
@click.argument("model")
@click.option("--limit", default=LISTED_DEFAULT, show_default=True, type=click.IntRange(1, 10_000))
@json_option
@click.pass_obj
def list_orphans(session: Session, model: str, limit: int) -> None:
    """Outcomes of MODEL whose prediction was never seen, as of the last joins, newest first."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        answer = runway.facts.list_orphans(model_id, limit=limit)
    if session.as_json:
        session.emit(answer)
        return
    if not answer.total:
        page.prose(f"Every outcome of {model_id} that was joined has found its prediction.")
        return
    page.prose(
        f"{count(answer.total, 'outcome')} of {model_id} found no prediction. They are tried again with every join of "
        "their hour; if they stay, the sender of outcomes makes other ids than the sender of predictions."
    )
    page.line()
    page.table(
        [
            Column(title="PREDICTION"),
            Column(title="OBSERVED"),
            Column(title="VALUE", right=True),
            Column(title="REVISION", right=True),
            Column(title="LABEL"),
        ],
        [
            [
                str(uuid.UUID(bytes=one.prediction_id)),
                clock(instant_of(one, "observed_at")),
                number(one.value),
                str(one.revision),
                one.label_type,
            ]
            for one in answer.orphans
        ],
    )
    if answer.total > len(answer.orphans):
        page.line(f"(the newest {len(answer.orphans):,}; --limit shows more)", "dim")


@click.command()
@click.option("--model", default="", metavar="MODEL", help="Of one model, registered or not; default of all.")
@click.option("--limit", default=LISTED_DEFAULT, show_default=True, type=click.IntRange(1, 10_000))
@json_option
@click.pass_obj
def list_dead_letters(session: Session, model: str, limit: int) -> None:
    """Batches out of Kafka or a folder that could not be used, newest first, and why.

    What is refused over gRPC is not here: its sender was told.
    """
    runway, page = session.runway, session.page
    answer = runway.facts.list_dead_letters(bare_model(model), limit=limit)
    if session.as_json:
        session.emit(answer)
        return
    if not answer.total:
        page.prose("There are no dead letters: all that came could be used.")
        return
    _show_letters(session, list(answer.letters))
    if answer.total > len(answer.letters):
        page.line(f"(the newest {len(answer.letters):,} of {answer.total:,}; --limit shows more)", "dim")
    page.line()
    page.prose(
        "Mend the cause (register the model, mend the sender), then `runway facts replay` takes them in; "
        "`runway facts discard` throws them away."
    )


def _show_letters(session: Session, letters: "list[messages.DeadLetter]") -> None:
    session.page.table(
        [
            Column(title="ID", right=True),
            Column(title="CAME"),
            Column(title="SOURCE", spare=2),
            Column(title="MODEL"),
            Column(title="KIND", spare=1),
            Column(title="BYTES", right=True, spare=3),
            Column(title="TRIED", right=True, spare=4),
            Column(title="WHY", prose=True),
        ],
        [
            [
                str(one.id),
                when(instant_of(one, "received_at"), session.now),
                one.source,
                one.model_id or "-",
                one.kind or "-",
                f"{one.bytes:,}",
                str(one.replays),
                _short(one.message),
            ]
            for one in letters
        ],
    )


def _short(message: str) -> str:
    return message if len(message) <= REASON_CHARS_MAX else f"{message[:REASON_CHARS_MAX].rstrip()} ..."


@click.command()
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@click.option("--model", default="", metavar="MODEL", help="All of one model.")
@click.option("--all", "everything", is_flag=True, help="All there are.")
@json_option
@click.pass_obj
def replay_dead_letters(session: Session, ids: tuple[int, ...], model: str, everything: bool) -> None:
    """Take dead letters in again. What was stored before is not stored twice; what is still no use stays."""
    _check_whom(ids, model, everything, "replay")
    answer = session.runway.facts.replay_dead_letters(ids, model_id=bare_model(model))
    if session.as_json:
        session.emit(answer)
        return
    left = len(answer.left)
    session.page.prose(
        f"{count(answer.replayed, 'dead letter')} taken in"
        + (f"; {left:,} still cannot be used:" if left else "; none is left of them.")
    )
    if left:
        session.page.line()
        _show_letters(session, list(answer.left))


@click.command()
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@click.option("--model", default="", metavar="MODEL", help="All of one model.")
@click.option("--all", "everything", is_flag=True, help="All there are.")
@json_option
@click.pass_obj
def discard_dead_letters(session: Session, ids: tuple[int, ...], model: str, everything: bool) -> None:
    """Throw dead letters away for good."""
    _check_whom(ids, model, everything, "discard")
    gone = session.runway.facts.discard_dead_letters(ids, model_id=bare_model(model))
    if session.as_json:
        session.emit(messages.ReplayDeadLettersResponse(discarded=gone))
        return
    session.page.prose(f"{count(gone, 'dead letter')} thrown away.")


def _check_whom(ids: tuple[int, ...], model: str, everything: bool, verb: str) -> None:
    """Everything only when it is asked for by name."""
    if not ids and not model and not everything:
        raise click.UsageError(f"which ones? name their ids, or --model MODEL, or --all (runway facts {verb} --all)")
    if everything and (ids or model):
        raise click.UsageError("--all means all of them: leave the ids and --model out")
