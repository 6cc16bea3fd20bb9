"""`runway models activate`, `deprecate`, `retire` and `load-check`."""

import click
from runway_client import Why, messages

from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, enum_word, version_word

DONE = {
    messages.LIFECYCLE_STATE_REGISTERED: "is registered again: nothing of it was ever in production",
    messages.LIFECYCLE_STATE_ACTIVE: "is active",
    messages.LIFECYCLE_STATE_DEPRECATED: "is deprecated: it still serves, new consumers should look elsewhere",
    messages.LIFECYCLE_STATE_RETIRED: "is retired: neither evaluated nor retrained; its aliases stay where they are",
}


def _change(session: Session, model: str, wanted: int, why: Why, *, force: bool = False) -> None:
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        before = runway.registry.get_model(model_id).lifecycle
        value = messages.LifecycleState.ValueType(wanted)
        found = runway.registry.set_lifecycle(model_id, value, force=force, why=why)
    if session.as_json:
        session.emit(messages.SetLifecycleResponse(model=found, revision=runway.revision))
        return
    was = enum_word(messages.LifecycleState, before).lower()
    if why.validate_only:
        session.page.prose(f"{model_id} is {was}; the change would be accepted. Nothing was changed.")
        return
    session.page.prose(f"{model_id} {DONE[found.lifecycle]} (was {was}).")


@click.command()
@click.argument("model")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit log.")
@json_option
@click.pass_obj
def activate(session: Session, model: str, reason: str) -> None:
    """Bring a deprecated or retired model back."""
    _change(session, model, messages.LIFECYCLE_STATE_ACTIVE, Why(reason=reason))


@click.command()
@click.argument("model")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit log.")
@json_option
@click.pass_obj
def deprecate(session: Session, model: str, reason: str) -> None:
    """Still serves; new consumers should look elsewhere."""
    _change(session, model, messages.LIFECYCLE_STATE_DEPRECATED, Why(reason=reason))


@click.command()
@click.argument("model")
@click.option("--force", is_flag=True, help="Although others use it; needs --reason.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit log.")
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@json_option
@click.pass_obj
def retire(session: Session, model: str, force: bool, reason: str, dry_run: bool) -> None:
    """End a model: not evaluated, not retrained, no alias moves. Refused while others use it, unless forced."""
    if force and not reason:
        raise click.UsageError("--force needs --reason: why a model that others use ends is kept in the audit log")
    why = Why(reason=reason, validate_only=dry_run)
    _change(session, model, messages.LIFECYCLE_STATE_RETIRED, why, force=force)


@click.command()
@click.argument("model")
@click.argument("version")
@click.option("--passed/--failed", default=None, help="Did it load?")
@click.option("--environment", default="", metavar="TEXT", help="Where: an image, a runtime, a host class.")
@click.option("--detail", default="", metavar="TEXT", help="The error, or how long it took.")
@json_option
@click.pass_obj
def report_load_check(
    session: Session, model: str, version: str, passed: bool | None, environment: str, detail: str
) -> None:
    """Say whether VERSION (`v3`) of MODEL could be loaded.

    With `rollout.require_load_check` in its policies, no alias may point at a version before somebody has shown that it
    loads.
    """
    if passed is None:
        raise click.UsageError("did it load? Say --passed or --failed")
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        found = runway.registry.report_load_check(
            model_id, version_number(version), passed=passed, environment=environment, detail=detail
        )
    if session.as_json:
        session.emit(messages.ReportLoadCheckResponse(version=found, revision=runway.revision))
        return
    session.page.line(f"{model_id} {version_word(found.version)} {'loads' if passed else 'does not load'}; noted.")


def version_number(text: str) -> int:
    """The number of `v3` or `3`."""
    digits = text.removeprefix("v")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise click.BadParameter(f"{text!r} is no version: write v3", param_hint="VERSION")
    return int(digits)
