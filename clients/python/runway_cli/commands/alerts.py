"""`runway alerts` and `runway destinations`: what is wrong now, and where it is told."""

import sys
from datetime import timedelta

import click
from runway_client import Why, messages

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.spans import parse_span
from runway_cli.words import (
    bare_model,
    clock,
    count,
    enum_choices,
    enum_value,
    enum_word,
    instant_of,
    listed,
    when,
)

EXIT_REFUSED = 1
MODELS_SHOWN_MAX = 10
"""Of one alert, by name; it counts the others."""

STYLES = {"PAGE": "bold red", "WARNING": "yellow"}


def _span(_context: click.Context, _parameter: click.Parameter, text: str) -> timedelta:
    try:
        return parse_span(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option("--team", default="", metavar="TEAM", help="Only those of a team.")
@click.option("--model", "model", default="", metavar="MODEL", help="Only those about a model.")
@as_of_option
@json_option
@click.pass_obj
def list_alerts(session: Session, team: str, model: str, as_of: str | None) -> None:
    """What is wrong now: one alert for each cause, the worst first."""
    model_id = bare_model(model) if model else ""
    alerts = session.runway.alerts.list_alerts(team=team, model_id=model_id, as_of=parse_as_of(as_of))
    if session.as_json:
        session.emit(messages.ListAlertsResponse(alerts=alerts, revision=session.runway.revision))
        return
    if not alerts:
        session.page.line("Nothing is wrong that anybody has to know.")
        return
    for number, alert in enumerate(alerts):
        if number:
            session.page.line()
        _show(session, alert)


def _show(session: Session, alert: messages.Alert) -> None:
    page, word = session.page, enum_word(messages.AlertSeverity, alert.severity)
    page.line(f"{word}  {alert.summary}", STYLES.get(word, ""))
    page.prose(
        f"{alert.key}  since {clock(instant_of(alert, 'since'))} ({when(instant_of(alert, 'since'), session.now)})",
        indent="  ",
    )
    if alert.cause:
        page.prose(f"cause: {alert.cause}", indent="  ")
    if len(alert.model_ids) > 1:
        more = len(alert.model_ids) - MODELS_SHOWN_MAX
        names = [*alert.model_ids[:MODELS_SHOWN_MAX], *([f"{more:,} more"] if more > 0 else [])]
        page.prose(f"{count(len(alert.model_ids), 'model')}: {listed(names)}", indent="  ")
    if alert.owners:
        page.prose(f"owner: {', '.join(alert.owners)}", indent="  ")
    for line in alert.detail.splitlines():
        page.prose(line, indent="  ")
    if alert.HasField("silenced_until"):
        until = instant_of(alert, "silenced_until")
        page.prose(f"silenced until {clock(until)} by {alert.silenced_by}", indent="  ", style="cyan")


@click.command()
@click.argument("key")
@click.option("--for", "span", required=True, callback=_span, metavar="SPAN", help="As in 2h or 3d; 0 ends a silence.")
@change_options
@json_option
@click.pass_obj
def silence_alert(session: Session, key: str, span: timedelta, reason: str, dry_run: bool) -> None:
    """Tell nobody about an alert for some time; it is still listed."""
    until = session.now + span
    done = session.runway.alerts.silence_alert(key, until, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(done)
        return
    if not span:
        session.page.line(f"{key} {'would be' if dry_run else 'is'} told again.")
        return
    session.page.line(f"{key} {'would be' if dry_run else 'is'} silenced until {clock(until)}.")


@click.command()
@json_option
@click.pass_obj
def list_destinations(session: Session) -> None:
    """Where alerts and events go, and how that goes."""
    destinations = session.runway.alerts.list_destinations()
    if session.as_json:
        session.emit(messages.ListDestinationsResponse(destinations=destinations, revision=session.runway.revision))
        return
    if not destinations:
        session.page.line("Nobody is told: `runway destinations set` says where alerts and events go.")
        return
    session.page.table(
        [
            Column(title="NAME"),
            Column(title="KIND"),
            Column(title="URL", prose=True),
            Column(title="FROM", spare=2),
            Column(title="TEAMS", spare=3),
            Column(title="QUIET", spare=4),
            Column(title="BEHIND", right=True),
            Column(title="DELIVERED", spare=1),
            Column(title="LAST FAILURE", prose=True),
        ],
        [
            [
                one.name,
                enum_word(messages.DestinationKind, one.kind).lower(),
                one.url,
                enum_word(messages.AlertSeverity, one.severity_min).lower(),
                ", ".join(one.teams) or "all",
                _quiet(one),
                str(one.behind) if one.kind == messages.DESTINATION_KIND_WEBHOOK else "-",
                clock(instant_of(one, "last_delivered_at")),
                one.last_failure or "-",
            ]
            for one in destinations
        ],
    )


def _quiet(one: messages.Destination) -> str:
    if one.quiet_start_hour == one.quiet_end_hour:
        return "-"
    return f"{one.quiet_start_hour:02}-{one.quiet_end_hour:02}"


def _hours(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    start, dash, end = text.partition("-")
    if not dash or not start.strip().isdigit() or not end.strip().isdigit():
        raise click.BadParameter(f"{text!r} are no hours: write 22-6 for ten in the evening to six in the morning, UTC")
    return int(start), int(end)


@click.command()
@click.argument("name")
@click.option(
    "--kind", required=True, type=click.Choice(enum_choices(messages.DestinationKind)), help="What is spoken there."
)
@click.option("--url", required=True, metavar="URL", help="http:// or https://; redirects are not followed.")
@click.option(
    "--secret-variable",
    default="",
    metavar="NAME",
    help="Environment variable of the control plane that holds the signing secret or routing key.",
)
@click.option("--team", "teams", multiple=True, metavar="TEAM", help="Only about these teams; give it several times.")
@click.option(
    "--severity",
    default="info",
    show_default=True,
    type=click.Choice(enum_choices(messages.AlertSeverity)),
    help="Only alerts from this one on.",
)
@click.option("--event", "kinds", multiple=True, metavar="KIND", help="Webhooks: only these events, as RolloutEnded.")
@click.option("--quiet", default="", callback=_hours, metavar="22-6", help="Hours, UTC, in which only pages are told.")
@click.option("--allow-private", is_flag=True, help="The address may be in a private network or on this machine.")
@change_options
@json_option
@click.pass_obj
def set_destination(
    session: Session,
    name: str,
    kind: str,
    url: str,
    secret_variable: str,
    teams: tuple[str, ...],
    severity: str,
    kinds: tuple[str, ...],
    quiet: tuple[int, int],
    allow_private: bool,
    reason: str,
    dry_run: bool,
) -> None:
    """Send alerts or events there, in place of the destination of that name if there is one."""
    destination = messages.Destination(
        name=name,
        kind=enum_value(messages.DestinationKind, kind),  # type: ignore[arg-type]
        url=url,
        secret_variable=secret_variable,
        teams=teams,
        severity_min=enum_value(messages.AlertSeverity, severity),  # type: ignore[arg-type]
        kinds=kinds,
        quiet_start_hour=quiet[0],
        quiet_end_hour=quiet[1],
        allow_private=allow_private,
    )
    done = session.runway.alerts.set_destination(destination, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(done)
        return
    what = "every lifecycle event goes" if kind == "webhook" and not kinds else "events go" if kinds else "alerts go"
    said = f"{what} to {name}" if not dry_run else f"{what} to {name} if you say so without --dry-run"
    session.page.line(f"{said}. `runway destinations try {name}` sends a test." if not dry_run else f"{said}.")


@click.command()
@click.argument("name")
@change_options
@json_option
@click.pass_obj
def remove_destination(session: Session, name: str, reason: str, dry_run: bool) -> None:
    """Send nothing there any more."""
    done = session.runway.alerts.remove_destination(name, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(done)
        return
    session.page.line(f"{name} {'would be' if dry_run else 'is'} removed.")


@click.command()
@click.argument("name")
@json_option
@click.pass_obj
def try_destination(session: Session, name: str) -> None:
    """Send a test message now, and say what came back; exit code 1 if it was not taken."""
    done = session.runway.alerts.try_destination(name)
    if session.as_json:
        session.emit(done)
    else:
        session.page.prose(f"{name}: {done.detail}", style="" if done.delivered else "red")
    if not done.delivered:
        sys.exit(EXIT_REFUSED)
