"""`runway aliases`: what runs as what, now or at any time."""

import click
from runway_client import Why, messages

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.commands.lifecycle import version_number
from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, instant_of, version_word, when


@click.command()
@click.option("--alias", default="", help="Only this alias: production, candidate, previous, or one of your own.")
@click.option("--team", default="", help="Only models of this team.")
@as_of_option
@json_option
@click.pass_obj
def list_aliases(session: Session, alias: str, team: str, as_of: str | None) -> None:
    """Where aliases point, for the whole fleet, now or then.

    `runway aliases list --alias production --as-of 2013-03-03` is what was in production on 3 March.
    """
    runway = session.runway
    moves = runway.registry.list_aliases(alias, team=team, as_of=parse_as_of(as_of))
    if session.as_json:
        session.emit(messages.ListAliasesResponse(moves=moves, revision=runway.revision))
        return
    if not moves:
        session.page.line(f"no model has an alias{f' {alias}' if alias else ''}{' then' if as_of else ' yet'}")
        return
    session.page.table(
        [
            Column(title="MODEL"),
            Column(title="ALIAS"),
            Column(title="VERSION", right=True),
            Column(title="SINCE"),
            Column(title="AGO", right=True, spare=3),
            Column(title="BY", spare=1),
            Column(title="REVISION", right=True, spare=2),
            Column(title="WHY", prose=True, spare=4),
        ],
        [
            [
                move.model_id,
                move.alias,
                version_word(move.to_version),
                clock(instant_of(move, "moved_at")),
                when(instant_of(move, "moved_at"), session.now).removesuffix(" ago"),
                move.actor,
                str(move.revision),
                move.reason,
            ]
            for move in moves
        ],
    )


@click.command()
@click.argument("model")
@click.argument("alias")
@click.argument("version")
@click.option("--expect", metavar="VERSION", help="Refuse unless it points there now; v0: it must not exist yet.")
@change_options
@json_option
@click.pass_obj
def move_alias(
    session: Session, model: str, alias: str, version: str, expect: str | None, reason: str, dry_run: bool
) -> None:
    """Point ALIAS of MODEL at VERSION (`v3`). `production`, `candidate` and `previous` are moved by rollouts."""
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        move = runway.registry.move_alias(
            model_id,
            alias,
            version_number(version),
            expected_version=None if expect is None else version_number(expect),
            why=Why(reason=reason, validate_only=dry_run),
        )
    if session.as_json:
        session.emit(messages.MoveAliasResponse(move=move, revision=runway.revision))
    elif dry_run:
        session.page.line("That would be accepted; nothing was changed.")
    else:
        was = f" (was {version_word(move.from_version)})" if move.from_version else ""
        session.page.line(f"{alias} of {model_id} points at {version_word(move.to_version)}{was}.")


@click.command()
@click.argument("model")
@click.argument("alias")
@change_options
@json_option
@click.pass_obj
def remove_alias(session: Session, model: str, alias: str, reason: str, dry_run: bool) -> None:
    """Remove ALIAS of MODEL; its history is kept."""
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        move = runway.registry.remove_alias(model_id, alias, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.RemoveAliasResponse(move=move, revision=runway.revision))
    elif dry_run:
        session.page.line("That would be accepted; nothing was changed.")
    else:
        session.page.line(f"{alias} of {model_id} is gone (was {version_word(move.from_version)}).")
