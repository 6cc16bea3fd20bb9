"""`runway rollouts`: from a candidate to production, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice

import click
from runway_client import NotFound, Why, messages

from runway_cli.commands.rollout_page import rollout_sentence, show
from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.spans import parse_span
from runway_cli.suggestions import model_suggestions, not_found
from runway_cli.words import bare_model, clock, enum_word, instant_of, number, share, version_word, when

LIVE = (
    messages.ROLLOUT_STATE_VALIDATING,
    messages.ROLLOUT_STATE_AWAITING_APPROVAL,
    messages.ROLLOUT_STATE_SHADOW,
    messages.ROLLOUT_STATE_CANARY,
    messages.ROLLOUT_STATE_AWAITING_DECISION,
)


@click.command()
@click.option("--model", default="", help="Only rollouts of this model.")
@click.option("--live", is_flag=True, help="Only those that have not ended.")
@click.option("--group", default="", help="Only those that move together under this name.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def list_rollouts(session: Session, model: str, live: bool, group: str, limit: int) -> None:
    """Rollouts, newest first."""
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        found = runway.rollouts.list_rollouts(
            model_id=model_id, states=LIVE if live else (), group_id=group, page_size=min(limit + 1, 500)
        )
        rollouts = list(islice(found, limit + 1))
    more, rollouts = len(rollouts) > limit, rollouts[:limit]
    if session.as_json:
        session.emit(messages.ListRolloutsResponse(rollouts=rollouts, revision=runway.revision))
        return
    if not rollouts:
        session.page.line("no rollout matches" if model or live or group else "no rollouts yet")
        return
    session.page.table(
        [
            Column(title="ROLLOUT"),
            Column(title="MODEL"),
            Column(title="VERSION", right=True),
            Column(title="STATE"),
            Column(title="STARTED"),
            Column(title="TRAFFIC", right=True),
            Column(title="METRIC", spare=3),
            Column(title="CANDIDATE", right=True, spare=2),
            Column(title="PRODUCTION", right=True, spare=1),
            Column(title="NOTE", prose=True),
        ],
        [
            [
                rollout.rollout_id,
                rollout.model_id,
                version_word(rollout.version),
                enum_word(messages.RolloutState, rollout.state),
                when(instant_of(rollout, "started_at"), session.now),
                _traffic(rollout),
                *_validation_cells(rollout),
                rollout.conclusion or "; ".join(rollout.waiting_for) or "time",
            ]
            for rollout in rollouts
        ],
    )
    if more:
        session.page.line(f"there are more: --limit {limit * 4} shows them", "dim")


@click.command()
@click.argument("rollout")
@json_option
@click.pass_obj
def show_rollout(session: Session, rollout: str) -> None:
    """One rollout: where it stands, what it waits for, what was measured, and its story."""
    runway = session.runway
    with rollout_suggestions(session, rollout):
        found = runway.rollouts.get_rollout(rollout)
    if session.as_json:
        session.emit(messages.GetRolloutResponse(rollout=found, revision=runway.revision))
        return
    show(session, found)


@click.command()
@click.argument("model")
@click.argument("version")
@click.option("--force", is_flag=True, help="Without a passed validation; needs --reason.")
@change_options
@json_option
@click.pass_obj
def promote_version(session: Session, model: str, version: str, force: bool, reason: str, dry_run: bool) -> None:
    """Send a validated version on its way to production, or with --force there at once; VERSION is 3 or v3."""
    if not version.removeprefix("v").isdecimal():
        raise click.BadParameter(f"{version!r} is not a version: write 3 or v3", param_hint="VERSION")
    if force and not reason:
        raise click.UsageError("--force needs --reason: say why it goes to production without validation")
    runway = session.runway
    model_id, number_wanted = bare_model(model), int(version.removeprefix("v"))
    with model_suggestions(runway, model_id):
        rollout = runway.rollouts.promote_version(
            model_id, number_wanted, force=force, why=Why(reason=reason, validate_only=dry_run)
        )
    if session.as_json:
        session.emit(messages.PromoteVersionResponse(rollout=rollout, revision=runway.revision))
    elif dry_run:
        session.page.prose(f"v{number_wanted} of {model_id} could be promoted; nothing was changed.")
    else:
        session.page.prose(rollout_sentence(rollout))


@click.command()
@click.argument("model")
@change_options
@json_option
@click.pass_obj
def roll_back(session: Session, model: str, reason: str, dry_run: bool) -> None:
    """Put the version before back into production."""
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        rollout = runway.rollouts.roll_back(model_id, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.RollBackResponse(rollout=rollout, revision=runway.revision))
    elif dry_run:
        session.page.prose(f"{model_id} could be rolled back; nothing was changed.")
    else:
        session.page.prose(rollout_sentence(rollout))


@click.command()
@click.argument("rollout")
@click.argument("name")
@click.option("--passed/--failed", required=True, help="What the check found.")
@click.option("--detail", default="", help="In a sentence.")
@change_options
@json_option
@click.pass_obj
def report_check(
    session: Session, rollout: str, name: str, passed: bool, detail: str, reason: str, dry_run: bool
) -> None:
    """Say that a candidate passed, or failed, the check NAME. A failed one refuses it."""
    rollouts = session.runway.rollouts
    with rollout_suggestions(session, rollout):
        of = rollouts.get_rollout(rollout)
    found = rollouts.report_check(
        of.model_id,
        of.version,
        name,
        passed=passed,
        explanation=detail,
        why=Why(reason=reason, validate_only=dry_run),
    )
    _show_changed(session, "the check", found, dry_run)


@click.command()
@click.argument("rollout")
@change_options
@json_option
@click.pass_obj
def approve_rollout(session: Session, rollout: str, reason: str, dry_run: bool) -> None:
    """Say yes to a rollout that waits for approval or for a decision."""
    _change(session, "approve", rollout, reason, dry_run)


@click.command()
@click.argument("rollout")
@change_options
@json_option
@click.pass_obj
def decline_rollout(session: Session, rollout: str, reason: str, dry_run: bool) -> None:
    """Say no: the rollout ends, production stays."""
    _change(session, "decline", rollout, reason, dry_run)


@click.command()
@click.argument("rollout")
@change_options
@json_option
@click.pass_obj
def abort_rollout(session: Session, rollout: str, reason: str, dry_run: bool) -> None:
    """End a rollout; all traffic goes back to production."""
    _change(session, "abort", rollout, reason, dry_run)


@click.command()
@click.argument("rollout")
@change_options
@json_option
@click.pass_obj
def hold_rollout(session: Session, rollout: str, reason: str, dry_run: bool) -> None:
    """Take no further step until it is released."""
    _change(session, "hold", rollout, reason, dry_run)


@click.command()
@click.argument("rollout")
@change_options
@json_option
@click.pass_obj
def release_rollout(session: Session, rollout: str, reason: str, dry_run: bool) -> None:
    """Let a held rollout go on."""
    _change(session, "release", rollout, reason, dry_run)


@click.command()
@click.argument("rollout")
@change_options
@json_option
@click.pass_obj
def advance_rollout(session: Session, rollout: str, reason: str, dry_run: bool) -> None:
    """Take the next step now, whatever the judge says; needs --reason."""
    _change(session, "advance", rollout, reason, dry_run)


def _change(session: Session, verb: str, rollout: str, reason: str, dry_run: bool) -> None:
    """Do one thing with a rollout and show where it stands then."""
    runway = session.runway
    with rollout_suggestions(session, rollout):
        found = getattr(runway.rollouts, f"{verb}_rollout")(rollout, why=Why(reason=reason, validate_only=dry_run))
    _show_changed(session, verb, found, dry_run)


def _show_changed(session: Session, what: str, found: messages.Rollout, dry_run: bool) -> None:
    if session.as_json:
        session.emit(messages.GetRolloutResponse(rollout=found, revision=session.runway.revision))
    elif dry_run:
        session.page.prose(f"{found.rollout_id}: {what} would be accepted; nothing was changed.")
    else:
        session.page.prose(rollout_sentence(found))
        for word in found.waiting_for:
            session.page.line(f"  waits for {word}", "dim")


@contextmanager
def rollout_suggestions(session: Session, rollout: str) -> Iterator[None]:
    """Turn an unknown rollout into an error that names the nearest ones."""
    try:
        yield
    except NotFound as error:
        if error.reason != "ROLLOUT_NOT_FOUND":
            raise
        known = (other.rollout_id for other in islice(session.runway.rollouts.list_rollouts(), 500))
        raise not_found("rollout", rollout, known, "runway rollouts list") from None


@click.command()
@click.argument("name")
@click.argument("rollouts", nargs=-1, required=True)
@change_options
@json_option
@click.pass_obj
def group_rollouts(session: Session, name: str, rollouts: tuple[str, ...], reason: str, dry_run: bool) -> None:
    """Let live rollouts move as one, under a NAME: one canary, and back as a whole."""
    found = session.runway.rollouts.group_rollouts(name, rollouts, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.GroupRolloutsResponse(rollouts=found, revision=session.runway.revision))
    elif dry_run:
        session.page.prose("They could move together; nothing was changed.")
    else:
        names = ", ".join(f"{version_word(one.version)} of {one.model_id}" for one in found)
        session.page.prose(f"{name}: {names} move together from now on.")


@click.command()
@click.argument("name", required=False)
@click.option("--scope", default="fleet", show_default=True, help="fleet, tier:N, team:NAME or model:ID.")
@click.option("--for", "length", default="", help="How long from now on (or from --from): 2h, 3d.")
@click.option("--from", "starts", default="", help="When it begins, as 2026-12-24T18:00; now if not given.")
@click.option("--until", "ends", default="", help="When it ends, instead of --for.")
@change_options
@json_option
@click.pass_obj
def freeze(
    session: Session,
    name: str | None,
    scope: str,
    length: str,
    starts: str,
    ends: str,
    reason: str,
    dry_run: bool,
) -> None:
    """Let nothing go forward for a while; without a NAME, list the freezes there are."""
    runway, page = session.runway, session.page
    if name is None:
        found = runway.rollouts.list_freezes()
        if session.as_json:
            session.emit(messages.ListFreezesResponse(freezes=found, revision=runway.revision))
        elif not found:
            page.line("no freeze is set")
        else:
            page.table(
                [Column(title=title) for title in ("FREEZE", "SCOPE", "FROM", "UNTIL", "SET BY")]
                + [Column(title="REASON", prose=True)],
                [
                    [
                        one.name,
                        one.scope,
                        clock(instant_of(one, "starts_at")),
                        clock(instant_of(one, "ends_at")),
                        one.set_by,
                        one.reason,
                    ]
                    for one in found
                ],
            )
        return
    if bool(length) == bool(ends):
        raise click.UsageError("say how long: --for 2h, or --until 2026-12-27T06:00")
    begin = _moment(starts, "--from") if starts else session.now
    end = begin + parse_span(length) if length else _moment(ends, "--until")
    freeze_set = runway.rollouts.set_freeze(
        name, scope=scope, starts_at=begin, ends_at=end, reason=reason, why=Why(reason=reason, validate_only=dry_run)
    )
    if session.as_json:
        session.emit(messages.SetFreezeResponse(freeze=freeze_set, revision=runway.revision))
    else:
        page.prose(
            f"{scope} {'would be' if dry_run else 'is'} frozen from {clock(begin)} to {clock(end)}: "
            "no rollout takes a step forward, rolling back works."
        )


@click.command()
@click.argument("name")
@change_options
@json_option
@click.pass_obj
def unfreeze(session: Session, name: str, reason: str, dry_run: bool) -> None:
    """Remove a freeze before its time."""
    session.runway.rollouts.remove_freeze(name, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.RemoveFreezeResponse(revision=session.runway.revision))
        return
    session.page.prose(f"freeze {name} {'would be' if dry_run else 'is'} gone.")


def _moment(text: str, option: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time: write 2026-12-24T18:00", param_hint=option) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _traffic(rollout: messages.Rollout) -> str:
    if not rollout.serving or rollout.state not in LIVE:
        return "-"
    return "shadow" if rollout.state == messages.ROLLOUT_STATE_SHADOW else share(rollout.weight)


def _validation_cells(rollout: messages.Rollout) -> list[str]:
    if not rollout.HasField("validation"):
        return ["-", "-", "-"]
    seen = rollout.validation
    return [seen.metric, number(seen.candidate), number(seen.production) if seen.HasField("production") else "-"]
