"""`runway retrains`: asked for, waiting, running, done."""

from itertools import islice

import click
from runway_client import NotFound, Why, messages

from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.suggestions import model_suggestions, not_found
from runway_cli.words import (
    bare_model,
    clock,
    count,
    enum_choices,
    enum_value,
    enum_word,
    instant_of,
    joined,
    tier_word,
    version_word,
    when,
)

LIVE = (messages.RETRAIN_STATE_WAITING, messages.RETRAIN_STATE_RUNNING, messages.RETRAIN_STATE_VALIDATING)


@click.command()
@click.option("--model", default="", help="Only retrains of this model.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(enum_choices(messages.RetrainState)),
    help="Only these states; may be given several times.",
)
@click.option("--live", is_flag=True, help="Only what has not ended: waiting, running, validating.")
@click.option("--team", default="", help="Only retrains of this team's models.")
@click.option("--group", default="", help="Only those of one cascade or applied plan.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def list_retrains(
    session: Session, model: str, states: tuple[str, ...], live: bool, team: str, group: str, limit: int
) -> None:
    """Retrains, newest first."""
    runway = session.runway
    wanted = [messages.RetrainState.ValueType(enum_value(messages.RetrainState, word)) for word in states]
    if live:
        wanted += [state for state in LIVE if state not in wanted]
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        found = runway.retraining.list_retrains(
            model_id=model_id, states=wanted, team=team, group=group, page_size=min(limit + 1, 500)
        )
        retrains = list(islice(found, limit + 1))
    more, retrains = len(retrains) > limit, retrains[:limit]
    if session.as_json:
        session.emit(messages.ListRetrainsResponse(retrains=retrains, revision=runway.revision))
        return
    if not retrains:
        session.page.line("no retrain matches" if model or wanted or team or group else "no retrains yet")
        return
    session.page.table(
        [
            Column(title="RETRAIN"),
            Column(title="MODEL"),
            Column(title="STATE"),
            Column(title="TIER", right=True, spare=3),
            Column(title="CAUSE", spare=2),
            Column(title="REQUESTED"),
            Column(title="TRIES", right=True, spare=1),
            Column(title="NOTE", prose=True),
        ],
        [
            [
                retrain.retrain_id,
                retrain.model_id,
                enum_word(messages.RetrainState, retrain.state),
                tier_word(retrain.tier),
                _causes(retrain),
                when(instant_of(retrain, "requested_at"), session.now),
                str(len(retrain.attempts)),
                _note(retrain),
            ]
            for retrain in retrains
        ],
    )
    if more:
        session.page.line(f"there are more: --limit {limit * 4} shows them", "dim")


@click.command()
@click.argument("retrain")
@json_option
@click.pass_obj
def show_retrain(session: Session, retrain: str) -> None:
    """One retrain with its attempts."""
    runway, page = session.runway, session.page
    try:
        found = runway.retraining.get_retrain(retrain)
    except NotFound as error:
        if error.reason != "RETRAIN_NOT_FOUND":
            raise
        known = (other.retrain_id for other in islice(runway.retraining.list_retrains(), 500))
        raise not_found("retrain", retrain, known, "runway retrains list") from None
    if session.as_json:
        session.emit(messages.GetRetrainResponse(retrain=found, revision=runway.revision))
        return
    page.prose(_sentence(session, found), style="bold")
    page.line()
    page.facts(
        [
            ("state", enum_word(messages.RetrainState, found.state)),
            ("held by", f"{found.held_by}{f': {found.hold_reason}' if found.hold_reason else ''}"),
            ("waiting for", "; ".join(found.waiting_for)),
            ("expected", _expected(session, found)),
            ("not before", clock(instant_of(found, "not_before"))),
            ("tier", tier_word(found.tier)),
            ("staleness score", f"{found.score:.2f}"),
            ("ended", when(instant_of(found, "ended_at"), session.now)),
            ("conclusion", found.conclusion),
            ("superseded by", found.superseded_by),
            ("rollout", found.rollout_id),
            ("group", found.group),
            ("GPU hours", _gpu_hours(found)),
        ]
    )
    if found.attempts:
        page.heading("attempts")
        page.table(
            [
                Column(title="ATTEMPT"),
                Column(title="STATE"),
                Column(title="LEASED"),
                Column(title="ENDED"),
                Column(title="VERSION", right=True),
                Column(title="SCHEDULER", spare=2),
                Column(title="RUN", spare=3),
                Column(title="CLASS", spare=1),
                Column(title="FAILURE", prose=True),
            ],
            [
                [
                    attempt.attempt_id,
                    enum_word(messages.AttemptState, attempt.state),
                    when(instant_of(attempt, "leased_at"), session.now),
                    when(instant_of(attempt, "ended_at"), session.now),
                    version_word(attempt.version),
                    attempt.scheduler,
                    attempt.run or "-",
                    enum_word(messages.FailureClass, attempt.failure_class) if attempt.failure_class else "-",
                    attempt.failure + (f" (log: {attempt.log_url})" if attempt.log_url and attempt.failure else ""),
                ]
                for attempt in found.attempts
            ],
        )


@click.command()
@click.argument("model")
@click.option("--ignore-cooldown", is_flag=True, help="Do not wait for a cooldown; limits and order still hold.")
@click.option("--supersede", is_flag=True, help="Take the place of a live retrain, running or not.")
@click.option("--off-peak", is_flag=True, help="Begin in the model's off-peak hours.")
@change_options
@json_option
@click.pass_obj
def request_retrain(
    session: Session,
    model: str,
    ignore_cooldown: bool,
    supersede: bool,
    off_peak: bool,
    reason: str,
    dry_run: bool,
) -> None:
    """Ask for a retrain of a model; asking again joins the one that is already live."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        answer = runway.retraining.request_retrain(
            model_id,
            ignore_cooldown=ignore_cooldown,
            supersede=supersede,
            off_peak=off_peak,
            why=Why(reason=reason, validate_only=dry_run),
        )
    if session.as_json:
        session.emit(answer)
        return
    if dry_run:
        page.prose(f"A retrain of {model_id} would be accepted; nothing was changed.")
        return
    retrain = answer.retrain
    if answer.created:
        page.prose(f"{retrain.retrain_id} of {model_id} was requested.")
    else:
        page.prose(f"{model_id} has {retrain.retrain_id} already; your request was added to it.")
    if retrain.waiting_for:
        page.prose(f"It waits for: {'; '.join(retrain.waiting_for)}.")
    page.line(f"`runway retrains show {retrain.retrain_id}` follows it.", "dim")


@click.command()
@click.argument("retrain")
@change_options
@json_option
@click.pass_obj
def cancel_retrain(session: Session, retrain: str, reason: str, dry_run: bool) -> None:
    """End a retrain that has not ended; a running attempt loses its lease."""
    runway = session.runway
    cancelled = runway.retraining.cancel_retrain(retrain, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.CancelRetrainResponse(retrain=cancelled, revision=runway.revision))
    elif dry_run:
        session.page.prose(f"{retrain} could be cancelled; nothing was changed.")
    else:
        session.page.prose(f"{cancelled.retrain_id} of {cancelled.model_id} was cancelled.")


@click.command()
@click.argument("retrain")
@change_options
@json_option
@click.pass_obj
def hold_retrain(session: Session, retrain: str, reason: str, dry_run: bool) -> None:
    """Let a waiting retrain wait until it is released; the rest of the fleet goes on."""
    runway = session.runway
    held = runway.retraining.hold_retrain(retrain, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.HoldRetrainResponse(retrain=held, revision=runway.revision))
    elif dry_run:
        session.page.prose(f"{retrain} could be held; nothing was changed.")
    else:
        session.page.prose(f"{held.retrain_id} of {held.model_id} is held until it is released.")


@click.command()
@click.argument("retrain")
@change_options
@json_option
@click.pass_obj
def release_retrain(session: Session, retrain: str, reason: str, dry_run: bool) -> None:
    """Let a held retrain go on."""
    runway = session.runway
    released = runway.retraining.release_retrain(retrain, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.ReleaseRetrainResponse(retrain=released, revision=runway.revision))
    elif dry_run:
        session.page.prose(f"{retrain} could be released; nothing was changed.")
    else:
        session.page.prose(f"{released.retrain_id} of {released.model_id} goes on.")


def _expected(session: Session, retrain: messages.Retrain) -> str:
    """When the plan thinks it runs, while that is to come."""
    if not retrain.HasField("expected") or retrain.state == messages.RETRAIN_STATE_VALIDATING:
        return ""
    seen = retrain.expected
    if not seen.HasField("starts_at"):
        return f"no time was found{f': it waits for {joined(seen.waits_for)}' if seen.waits_for else ''}"
    starts, ends = clock(instant_of(seen, "starts_at")), clock(instant_of(seen, "ends_at"))
    runs = retrain.state == messages.RETRAIN_STATE_RUNNING
    when_ = f"ends about {ends}" if runs else f"runs about {starts} to {ends}, in wave {seen.wave}, slot {seen.slot}"
    below = f"; {count(seen.downstream, 'model')} downstream may follow" if seen.downstream else ""
    return when_ + below


def _gpu_hours(retrain: messages.Retrain) -> str:
    spent = sum(attempt.gpu_hours for attempt in retrain.attempts)
    reserved = sum(
        attempt.gpu_hours_reserved for attempt in retrain.attempts if attempt.state == messages.ATTEMPT_STATE_RUNNING
    )
    words = [f"{spent:.2f} spent"] if spent else []
    return ", ".join(words + ([f"{reserved:.2f} reserved"] if reserved else []))


def _sentence(session: Session, retrain: messages.Retrain) -> str:
    asked = when(instant_of(retrain, "requested_at"), session.now)
    sentence = f"{retrain.retrain_id} of {retrain.model_id}: requested {asked}"
    if retrain.requested_by:
        sentence += f" by {retrain.requested_by}"
    sentence += f" ({_causes(retrain)})"
    if retrain.reason:
        sentence += f": {retrain.reason.rstrip('.')}"
    return f"{sentence}; {count(len(retrain.attempts), 'attempt')}."


def _causes(retrain: messages.Retrain) -> str:
    return joined(enum_word(messages.RetrainCause, cause).lower() for cause in retrain.causes)


def _note(retrain: messages.Retrain) -> str:
    if retrain.conclusion:
        return retrain.conclusion
    if retrain.waiting_for:
        return "; ".join(retrain.waiting_for)
    failures = [attempt.failure for attempt in retrain.attempts if attempt.failure]
    return f"last try: {failures[-1]}" if failures else ""
