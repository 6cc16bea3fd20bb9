"""`runway rules`: what follows from a look at a model, said in CEL."""

import sys
from collections.abc import Iterable

import click
from rich.cells import cell_len
from runway_client import Why, messages

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, count, enum_word, instant_of, listed, when

SCOPES_HELP = "A scope is fleet, tier:1 to tier:4, team:<team> or model:<model id>."
EXIT_WRONG = 2
"""As of invalid input: the rule does not type-check."""

EFFECTS_SHOWN_MAX = 20
"""Models of one kind of change that are named; more are counted."""

UNASKED_SHOWN_MAX = 3
"""Models that a rule cannot be asked about, told with the reason; it is mostly the same for all."""

ACTIONS: dict[str, "messages.RuleAction.ValueType"] = {
    enum_word(messages.RuleAction, number).lower().replace("_", "-"): number
    for number in messages.RuleAction.values()
    if number
}
"""`retrain-off-peak` -> the number of the contract."""


def action_word(number: "messages.RuleAction.ValueType") -> str:
    """An action as it is written after --then."""
    return next(word for word, known in ACTIONS.items() if known == number)


def _action(_context: click.Context, _parameter: click.Parameter, word: str) -> "messages.RuleAction.ValueType":
    found = ACTIONS.get(word.lower().replace("_", "-"))
    if found is None:
        raise click.BadParameter(f"{word!r} is none of {', '.join(ACTIONS)}")
    return found


def _scope(_context: click.Context, _parameter: click.Parameter, scope: str) -> str:
    known = scope == "fleet" or scope.startswith(("tier:", "team:", "model:"))
    return scope if known else f"model:{bare_model(scope)}"


when_option = click.option(
    "--when", "text", required=True, metavar="CEL", help="What must hold; - reads it from stdin."
)
then_option = click.option(
    "--then", "action", required=True, callback=_action, metavar="ACTION", help=f"One of {', '.join(ACTIONS)}."
)
scope_option = click.option("--scope", default="fleet", callback=_scope, show_default=True, help="Whom it speaks to.")
priority_option = click.option(
    "--priority", default=0, type=click.IntRange(0, 1000), help="The higher wins; of equal ones the narrower scope."
)


def _text(text: str) -> str:
    return sys.stdin.read().strip() if text == "-" else text


@click.command()
@click.option("--model", "model", metavar="MODEL", help="Only rules that speak to this model, and what holds for it.")
@as_of_option
@json_option
@click.pass_obj
def list_rules(session: Session, model: str | None, as_of: str | None) -> None:
    """Rules in force, the highest first."""
    runway, moment = session.runway, parse_as_of(as_of)
    model_id = bare_model(model) if model else ""
    with model_suggestions(runway, model_id):
        rules = runway.rules.list_rules(model_id, as_of=moment)
    if session.as_json:
        session.emit(messages.ListRulesResponse(rules=rules, revision=runway.revision))
        return
    if not rules:
        whom = f"speaks to {model_id}" if model_id else "is set"
        session.page.line(f"no rule {whom}: what a verdict leads to follows from the policies alone")
        return
    session.page.table(
        [
            Column(title="RULE"),
            Column(title="SCOPE"),
            Column(title="PRIORITY", right=True, spare=2),
            Column(title="THEN"),
            Column(title="WHEN", prose=True),
            Column(title="SET", spare=1),
            Column(title="BY", spare=3),
            Column(title="REASON", prose=True, spare=4),
        ],
        [
            [
                rule.name,
                rule.scope,
                str(rule.priority),
                "(disabled)" if rule.disabled else action_word(rule.action),
                " ".join(rule.when.split()),
                when(instant_of(rule, "set_at"), session.now),
                rule.set_by,
                rule.reason,
            ]
            for rule in rules
        ],
    )
    if model_id and moment is None:
        _show_outcome(session, model_id)


def _show_outcome(session: Session, model_id: str) -> None:
    outcome = session.runway.staleness.get_staleness(model_id).rules
    session.page.line()
    if not outcome.matches and not outcome.faults:
        session.page.line(f"None holds for {model_id} now.")
    for match in outcome.matches:
        since = when(instant_of(match, "since"), session.now)
        why = f": {match.reason}" if match.reason else ""
        session.page.prose(f"{action_word(match.action)}, by {match.name} ({match.scope}), since {since}{why}")
    if outcome.explanation:
        session.page.prose(outcome.explanation)
    for fault in outcome.faults:
        session.page.prose(f"cannot be asked: {fault}", style="yellow")


@click.command(epilog=SCOPES_HELP)
@when_option
@then_option
@scope_option
@priority_option
@json_option
@click.pass_obj
def check_rule(session: Session, text: str, action: "messages.RuleAction.ValueType", scope: str, priority: int) -> None:
    """Type-check a rule and say what it would do to the fleet as it is now; changes nothing."""
    text = _text(text)
    rule = messages.Rule(name="checked", scope=scope, when=text, action=action, priority=priority)
    found = session.runway.rules.check_rule(rule)
    if session.as_json:
        session.emit(found)
    else:
        _show_check(session, text, found)
    if any(fault.line for fault in found.faults):
        sys.exit(EXIT_WRONG)


def _show_check(session: Session, text: str, found: messages.CheckRuleResponse) -> None:
    page = session.page
    for line, style in pointed(text, found.faults):
        page.line(line, style)
    if not found.sentence:
        return
    page.prose(found.sentence, style="bold")
    _show_effects(session, found.effects)
    if found.model_ids and not found.effects:
        page.line("That changes nothing for any of them: the same happens now.")
    _show_unasked(session, found.faults)


def _show_unasked(session: Session, faults: Iterable[messages.RuleFault]) -> None:
    """Why a rule cannot be asked about some models; the first few tell."""
    told = [fault.message for fault in faults if not fault.line]
    for message in told[:UNASKED_SHOWN_MAX]:
        session.page.prose(message, indent="  ", style="yellow")


def pointed(text: str, faults: Iterable[messages.RuleFault]) -> list[tuple[str, str]]:
    """The lines of a text, each with a caret under every place where it is wrong.

    >>> for line, _ in pointed("tierr < 2", [messages.RuleFault(line=1, column=1, message="there is no tierr")]):
    ...     print(line)
      tierr < 2
      ^ 1:1 there is no tierr
    """
    told = [fault for fault in faults if fault.line]
    lines: list[tuple[str, str]] = []
    for number, line in enumerate(text.split("\n") if told else [], start=1):
        shown = "".join(one if one.isprintable() else " " for one in line)
        lines.append((f"  {shown}", ""))
        for fault in told:
            if fault.line == number:
                before = " " * cell_len(shown[: fault.column - 1])
                lines.append((f"  {before}^ {fault.line}:{fault.column} {fault.message}", "red"))
    return lines


def _show_effects(session: Session, effects: Iterable[messages.RuleEffect]) -> None:
    """What changes, models with the same change together."""
    together: dict[tuple[str, str], list[str]] = {}
    for effect in effects:
        together.setdefault((effect.now, effect.then), []).append(effect.model_id)
    for (now, then), models in together.items():
        more = len(models) - EFFECTS_SHOWN_MAX
        names = listed([*models[:EFFECTS_SHOWN_MAX], f"{more:,} more"] if more > 0 else models)
        session.page.prose(f"{now} -> {then} for {count(len(models), 'model')}: {names}", indent="  ")


@click.command(epilog=SCOPES_HELP)
@click.argument("name")
@when_option
@then_option
@scope_option
@priority_option
@click.option("--disabled", is_flag=True, help="Keep the rule, ask it nothing.")
@change_options
@json_option
@click.pass_obj
def set_rule(
    session: Session,
    name: str,
    text: str,
    action: "messages.RuleAction.ValueType",
    scope: str,
    priority: int,
    disabled: bool,
    reason: str,
    dry_run: bool,
) -> None:
    """Add a rule, or replace the one of this name in its scope. --reason is shown wherever it acts."""
    runway, text = session.runway, _text(text)
    rule = messages.Rule(
        name=name, scope=scope, when=text, action=action, priority=priority, reason=reason, disabled=disabled
    )
    checked = runway.rules.check_rule(rule)
    if any(fault.line for fault in checked.faults) and not session.as_json:
        for line, style in pointed(text, checked.faults):
            click.echo(click.style(line, fg=style) if style and sys.stderr.isatty() else line, err=True)
    done = runway.rules.set_rule(rule, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(done)
        return
    said = f"rule {name} ({scope}) {'would be' if dry_run else 'is'} at version {done.rule.version}"
    session.page.line(f"{said}{'' if dry_run else f' (revision {done.revision})'}.", "bold")
    if not disabled:
        session.page.prose(checked.sentence if dry_run else checked.sentence.replace("would act", "acts"))
        _show_unasked(session, checked.faults)
    _show_effects(session, done.effects)


@click.command(epilog=SCOPES_HELP)
@click.argument("name")
@scope_option
@change_options
@json_option
@click.pass_obj
def remove_rule(session: Session, name: str, scope: str, reason: str, dry_run: bool) -> None:
    """Remove a rule; models for which it held are without it at once."""
    done = session.runway.rules.remove_rule(scope, name, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(done)
        return
    verb = "would be" if dry_run else "is"
    session.page.line(f"rule {name} ({scope}) {verb} removed{'' if dry_run else f' (revision {done.revision})'}.")


@click.command()
@json_option
@click.pass_obj
def show_context(session: Session) -> None:
    """The names a rule may use: what they hold, and an example of each."""
    fields = session.runway.rules.describe_rule_context()
    if session.as_json:
        session.emit(messages.DescribeRuleContextResponse(fields=fields))
        return
    session.page.table(
        [
            Column(title="NAME"),
            Column(title="TYPE"),
            Column(title="WHAT IT HOLDS", prose=True),
            Column(title="EXAMPLE", prose=True, spare=1),
        ],
        [[field.name, field.type, field.description, field.example] for field in fields if not _is_word(field)],
    )
    words: dict[str, list[str]] = {"int": [], "string": []}
    for field in fields:
        if _is_word(field):
            words.setdefault(field.type, []).append(field.name)
    session.page.line()
    session.page.prose(f"Words with an order, which are numbers: {', '.join(words['int'])}.")
    session.page.prose(f"Words without one, which are texts: {', '.join(words['string'])}.")


def _is_word(field: messages.RuleContextField) -> bool:
    """A constant: its own example."""
    return field.name == field.example and field.name.isupper()
