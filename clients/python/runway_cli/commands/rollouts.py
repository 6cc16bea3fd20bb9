"""`runway rollouts`: from a candidate to production, and back."""

from itertools import islice

import click
from runway_client import NotFound, Why, messages

from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.suggestions import model_suggestions, not_found
from runway_cli.words import bare_model, clock, enum_word, instant_of, number, version_word, when


@click.command()
@click.option("--model", default="", help="Only rollouts of this model.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def list_rollouts(session: Session, model: str, limit: int) -> None:
    """Rollouts, newest first."""
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        found = runway.rollouts.list_rollouts(model_id=model_id, page_size=min(limit + 1, 500))
        rollouts = list(islice(found, limit + 1))
    more, rollouts = len(rollouts) > limit, rollouts[:limit]
    if session.as_json:
        session.emit(messages.ListRolloutsResponse(rollouts=rollouts, revision=runway.revision))
        return
    if not rollouts:
        session.page.line("no rollout matches" if model else "no rollouts yet")
        return
    session.page.table(
        [
            Column(title="ROLLOUT"),
            Column(title="MODEL"),
            Column(title="VERSION", right=True),
            Column(title="STATE"),
            Column(title="STARTED"),
            Column(title="METRIC", spare=2),
            Column(title="CANDIDATE", right=True, spare=1),
            Column(title="PRODUCTION", right=True, spare=1),
            Column(title="CONCLUSION", prose=True),
        ],
        [
            [
                rollout.rollout_id,
                rollout.model_id,
                version_word(rollout.version),
                enum_word(messages.RolloutState, rollout.state),
                when(instant_of(rollout, "started_at"), session.now),
                *_validation_cells(rollout),
                rollout.conclusion,
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
    """One rollout with its validation."""
    runway, page = session.runway, session.page
    try:
        found = runway.rollouts.get_rollout(rollout)
    except NotFound as error:
        if error.reason != "ROLLOUT_NOT_FOUND":
            raise
        known = (other.rollout_id for other in islice(runway.rollouts.list_rollouts(), 500))
        raise not_found("rollout", rollout, known, "runway rollouts list") from None
    if session.as_json:
        session.emit(messages.GetRolloutResponse(rollout=found, revision=runway.revision))
        return
    page.prose(rollout_sentence(found), style="bold")
    page.line()
    facts = [
        ("state", enum_word(messages.RolloutState, found.state)),
        ("started", when(instant_of(found, "started_at"), session.now)),
        ("ended", when(instant_of(found, "ended_at"), session.now)),
        ("conclusion", found.conclusion),
        ("retrain", found.retrain_id),
    ]
    if found.HasField("validation"):
        seen = found.validation
        production = number(seen.production) if seen.HasField("production") else "nothing was there"
        holdout = f"{clock(instant_of(seen, 'holdout_from'))} to {clock(instant_of(seen, 'holdout_until'))}"
        facts += [
            ("validation", "passed" if seen.passed else "not passed"),
            (seen.metric, f"candidate {number(seen.candidate)}, production {production}"),
            ("standard error", f"{number(seen.standard_error, 2)} of the difference"),
            ("holdout", f"{seen.sample_size:,} rows, {holdout}"),
            ("in words", seen.explanation),
        ]
    page.facts(facts)


@click.command()
@click.argument("model")
@click.argument("version")
@click.option("--force", is_flag=True, help="Without a passed validation; needs --reason.")
@change_options
@json_option
@click.pass_obj
def promote_version(session: Session, model: str, version: str, force: bool, reason: str, dry_run: bool) -> None:
    """Put a version into production; VERSION is a number (3 or v3)."""
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


def rollout_sentence(rollout: messages.Rollout) -> str:
    """What a rollout did, in one sentence."""
    what = f"{rollout.rollout_id}: {version_word(rollout.version)} of {rollout.model_id}"
    before = version_word(rollout.production_before) if rollout.production_before else "nothing"
    match rollout.state:
        case messages.ROLLOUT_STATE_PROMOTED:
            return f"{what} is in production, in place of {before}."
        case messages.ROLLOUT_STATE_REFUSED:
            return f"{what} was refused; {before} stays in production."
        case messages.ROLLOUT_STATE_ROLLED_BACK:
            return f"{what} was rolled back; {before} is in production again."
        case messages.ROLLOUT_STATE_VALIDATING:
            return f"{what} is being validated; {before} is in production."
        case _:
            return f"{what}."


def _validation_cells(rollout: messages.Rollout) -> list[str]:
    if not rollout.HasField("validation"):
        return ["-", "-", "-"]
    seen = rollout.validation
    return [seen.metric, number(seen.candidate), number(seen.production) if seen.HasField("production") else "-"]
