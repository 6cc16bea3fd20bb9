"""`runway policies`: what each scope says, and what that comes to."""

import sys
from pathlib import Path
from typing import Any

import click
from runway_client import RunwayRpcError, Why, messages
from runway_client.fleet_files import read_texts
from runway_client.fleet_files.contract import settable
from runway_client.fleet_files.scalars import number_text, span_text

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.commands.fleet_plan import source, value
from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, count, enum_word, instant_of, listed, when

SCOPES_HELP = "SCOPE is fleet, tier:1 to tier:4, team:<team> or model:<model id>."
MODELS_NAMED_MAX = 5


def is_scope(text: str) -> bool:
    """Is this a scope, or else a model? `model:x` is both: as a scope, what the model itself says."""
    return text == "fleet" or text.startswith(("tier:", "team:"))


def said(policies: messages.Policies) -> list[tuple[str, str]]:
    """What is set, field by field.

    >>> said(messages.Policies(staleness=messages.StalenessPolicy(stale_threshold=0.5)))
    [('staleness.stale_threshold', '0.5')]
    """
    return _said(policies, "")


def _said(message: Any, prefix: str) -> list[tuple[str, str]]:
    found = []
    for name, field in settable(message.DESCRIPTOR).items():
        one = getattr(message, name)
        if not (message.HasField(name) if field.has_presence else one):
            continue
        path = f"{prefix}{name}"
        if field.message_type is None:
            found.append((path, _text(one, field)))
        elif field.message_type.name == "Duration":
            found.append((path, span_text(one)))
        else:
            found.extend(_said(one, f"{path}."))
    return found


def _text(one: Any, field: Any) -> str:
    if field.enum_type is not None:
        return enum_word(messages.Fusion, one).lower()
    if isinstance(one, bool):
        return "true" if one else "false"
    return number_text(one) if isinstance(one, float) else str(one)


@click.command()
@as_of_option
@json_option
@click.pass_obj
def list_policies(session: Session, as_of: str | None) -> None:
    """Every scope that says anything: the fleet, tiers, teams, models."""
    layers = session.runway.policies.list_policies(as_of=parse_as_of(as_of))
    if session.as_json:
        session.emit(messages.ListPoliciesResponse(layers=layers, revision=session.runway.revision))
        return
    if not layers:
        session.page.line("no scope says anything: the built-in defaults hold for all models")
        return
    session.page.table(
        [
            Column(title="SCOPE"),
            Column(title="VERSION", right=True, spare=2),
            Column(title="SET", spare=1),
            Column(title="BY", spare=3),
            Column(title="SAYS", prose=True),
        ],
        [
            [
                layer.scope,
                str(layer.version),
                when(instant_of(layer, "set_at"), session.now),
                layer.set_by,
                ", ".join(f"{path} {text}" for path, text in said(layer.policies)),
            ]
            for layer in layers
        ],
    )


@click.command(epilog=SCOPES_HELP)
@click.argument("scope", metavar="SCOPE|MODEL")
@click.option("--version", type=click.IntRange(1), help="What the scope said at this version of it.")
@as_of_option
@json_option
@click.pass_obj
def show_policies(session: Session, scope: str, version: int | None, as_of: str | None) -> None:
    """What a scope says; or of a model each value in force, and where it comes from."""
    runway = session.runway
    moment = parse_as_of(as_of)
    if is_scope(scope) or version is not None:
        name = scope if is_scope(scope) else f"model:{bare_model(scope)}"
        layer = runway.policies.get_policies(name, version=version or 0, as_of=moment)
        if session.as_json:
            session.emit(messages.GetPoliciesResponse(layer=layer, revision=runway.revision))
        else:
            _show_layer(session, layer)
        return
    model_id = bare_model(scope)
    with model_suggestions(runway, model_id):
        values = runway.policies.explain_policies(model_id, as_of=moment)
    if session.as_json:
        session.emit(messages.ExplainPoliciesResponse(values=values, revision=runway.revision))
        return
    groups: dict[str, list[list[str]]] = {}
    for one in values:
        group, _, name = one.field.partition(".")
        groups.setdefault(group, []).append([f"  {name}", value(one.value), one.explanation or source(one.source)])
    session.page.grouped_table(
        [Column(title="POLICY"), Column(title="VALUE"), Column(title="WHERE FROM", prose=True)], list(groups.items())
    )


def _show_layer(session: Session, layer: messages.PolicyLayer) -> None:
    page = session.page
    if not layer.version:
        page.line(f"{layer.scope} has never said anything: what is wider holds.")
        return
    set_at = instant_of(layer, "set_at")
    why = f": {layer.reason}" if layer.reason else ""
    page.prose(
        f"{layer.scope}, version {layer.version}, set by {layer.set_by} at {clock(set_at)} "
        f"({when(set_at, session.now)}){why}",
        style="bold",
    )
    rows = said(layer.policies)
    if not rows:
        page.line("It says nothing any more.")
        return
    page.line()
    page.facts(rows)


@click.command(epilog=SCOPES_HELP)
@click.argument("scope")
@click.argument("values", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--file", "file", metavar="FILE", help="All that the scope says, as YAML (`staleness: {cadence: 1h}`).")
@click.option("--plan", "plan_only", is_flag=True, help="Only show what would change for whom.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit log.")
@json_option
@click.pass_obj
def set_policies(
    session: Session, scope: str, values: tuple[str, ...], file: str | None, plan_only: bool, yes: bool, reason: str
) -> None:
    """Say something else in a scope.

    FIELD=VALUE changes one field and leaves the rest of the scope (`staleness.cadence=30m`); without a value the field
    is inherited again (`staleness.cadence=`). --file replaces all that the scope says.
    """
    runway = session.runway
    scope = scope if is_scope(scope) else f"model:{bare_model(scope)}"
    if bool(values) == bool(file):
        raise click.UsageError("say FIELD=VALUE, or --file, one of them")
    layer = runway.policies.get_policies(scope)
    wanted = _from_file(file, scope) if file else _changed(layer.policies, values)
    plan = runway.policies.set_policies(scope, wanted, etag=layer.etag, why=Why(validate_only=True))
    if plan_only or said(wanted) == said(layer.policies):
        if session.as_json:
            session.emit(plan)
        else:
            _show_change(session, layer, wanted, plan)
        return
    if not session.as_json:
        _show_change(session, layer, wanted, plan)
        if not yes and sys.stdin.isatty():
            click.confirm("Set this?", abort=True, err=True)
    try:
        done = runway.policies.set_policies(scope, wanted, etag=layer.etag, why=Why(reason=reason))
    except RunwayRpcError as error:
        if error.reason == "ETAG_MISMATCH":
            raise click.ClickException(f"somebody changed {scope} meanwhile; nothing was set: try again") from None
        raise
    if session.as_json:
        session.emit(done)
        return
    session.page.line(f"{scope} is at version {done.layer.version} (revision {done.revision}).", "bold")


def _from_file(file: str, scope: str) -> messages.Policies:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read {file}: {error}") from None
    return _read({file: _layer_text(scope, text)}, file, lines_before=3)


def _layer_text(scope: str, text: str) -> str:
    indented = "".join(f"      {line}\n" for line in text.splitlines())
    return f"policies:\n  - scope: {scope}\n    policies:\n{indented}"


def _read(texts: dict[str, str], name: str, *, lines_before: int = 0) -> messages.Policies:
    found = read_texts(texts)
    if found.problems:
        told = []
        for problem in found.problems:
            field = problem.field.removeprefix("policies[0].").removeprefix("policies.")
            at = f"{name}:{problem.place.line - lines_before}: " if lines_before else ""
            told.append(f"{at}{f'{field}: ' if field else ''}{problem.message}")
        raise click.UsageError("; ".join(told))
    return found.manifest.policies[0].policies


def _changed(before: messages.Policies, values: tuple[str, ...]) -> messages.Policies:
    """What the scope said, with single fields said anew or no more."""
    now = dict(said(before))
    for one in values:
        path, equals, text = one.partition("=")
        if not equals:
            raise click.UsageError(
                f"{one!r} has no `=`: write staleness.cadence=30m, or staleness.cadence= to inherit it"
            )
        if text:
            now[path.strip()] = text.strip()
        elif path.strip() in now:
            del now[path.strip()]
        else:
            raise click.UsageError(f"{path.strip()} is inherited already; what the scope says: {listed(list(now))}")
    tree: dict[str, Any] = {}
    for path, text in now.items():
        *groups, name = path.split(".")
        at = tree
        for group in groups:
            at = at.setdefault(group, {})
            if not isinstance(at, dict):
                raise click.UsageError(f"{path} cannot be set beside {'.'.join(groups)}")
        at[name] = text
    return _read({"FIELD=VALUE": _layer_text("fleet", _yaml(tree))}, "FIELD=VALUE")


def _yaml(tree: dict[str, Any]) -> str:
    from runway_client.fleet_files.yaml_text import dump  # noqa: PLC0415

    return dump(tree) if tree else "{}"


def _show_change(
    session: Session, layer: messages.PolicyLayer, wanted: messages.Policies, plan: messages.SetPoliciesResponse
) -> None:
    page = session.page
    before, after = dict(said(layer.policies)), dict(said(wanted))
    changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    if not changed:
        page.line(f"No change: {layer.scope} says that already.")
        return
    page.line(f"{layer.scope} would say:", "bold")
    for path in changed:
        page.line(f"  {_step(path, before, after)}")
    moved = [change for change in plan.changes if change.before != change.after]
    together: dict[tuple[str, str, str], list[str]] = {}
    for change in moved:
        together.setdefault((change.field, change.before, change.after), []).append(change.model_id)
    page.line()
    if not together:
        page.line("That changes nothing for any model now.")
    for (field, old, new), models in together.items():
        more = len(models) - MODELS_NAMED_MAX
        names = listed([*models[:MODELS_NAMED_MAX], f"{more:,} more"] if more > 0 else models)
        page.prose(f"{field} {value(old)} -> {value(new)} for {count(len(models), 'model')}: {names}")


def _step(path: str, before: dict[str, str], after: dict[str, str]) -> str:
    return f"{path} {before.get(path, 'inherited')} -> {after.get(path, 'inherited')}"


@click.command(epilog=SCOPES_HELP)
@click.argument("scope")
@json_option
@click.pass_obj
def show_history(session: Session, scope: str) -> None:
    """Every version of a scope, newest first: what it said, who set it and why."""
    runway = session.runway
    scope = scope if is_scope(scope) else f"model:{bare_model(scope)}"
    layers = runway.policies.list_policy_versions(scope)
    if session.as_json:
        session.emit(messages.ListPolicyVersionsResponse(layers=layers, revision=runway.revision))
        return
    if not layers:
        session.page.line(f"{scope} has never said anything: what is wider holds.")
        return
    rows = []
    for layer, older in zip(layers, [*layers[1:], None], strict=True):
        before = dict(said(older.policies)) if older is not None else {}
        after = dict(said(layer.policies))
        changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
        told = ", ".join(
            f"{path} {before.get(path, 'inherited')} -> {after.get(path, 'inherited')}" for path in changed
        )
        rows.append(
            [
                str(layer.version),
                clock(instant_of(layer, "set_at")),
                layer.set_by,
                str(layer.revision),
                told,
                layer.reason,
            ]
        )
    session.page.table(
        [
            Column(title="VERSION", right=True),
            Column(title="SET"),
            Column(title="BY", spare=1),
            Column(title="REVISION", right=True, spare=2),
            Column(title="WHAT CHANGED", prose=True),
            Column(title="WHY", prose=True, spare=3),
        ],
        rows,
    )
