"""`runway limits`: how much may run at once, and what a team may spend."""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import click
from runway_client import Why, messages

from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option


@click.command()
@json_option
@click.pass_obj
def show_limits(session: Session) -> None:
    """Every limit, and what runs against it now."""
    runway, page = session.runway, session.page
    status = runway.operations.get_status()
    if session.as_json:
        session.emit(status.limits)
        return
    limits = status.limits
    running = [retrain.expected for retrain in runway.retraining.list_retrains(states=[messages.RETRAIN_STATE_RUNNING])]
    slots = f"{len(running)} of {limits.running_max}"
    if limits.tier1_reserve:
        slots += f", {limits.tier1_reserve} of them kept free for tier 1"
    page.facts(
        [
            ("running", slots),
            ("per team", f"at most {limits.running_per_team_max}, unless the team has a limit of its own"),
        ]
    )
    rows = [
        *_rows("team", limits.by_team, [one.team for one in running]),
        *_rows("class", limits.by_resource_class, [one.resource_class for one in running]),
        *_rows("scheduler", limits.by_scheduler, [one.scheduler for one in running]),
    ]
    if rows:
        page.table(
            [Column(title="LIMIT"), Column(title="RUNNING", right=True), Column(title="AT MOST", right=True)], rows
        )
    teams = sorted({*limits.gpu_hours_per_week, *status.gpu_hours_this_week})
    if teams:
        page.heading("GPU hours this week")
        page.table(
            [
                Column(title="TEAM"),
                Column(title="SPENT OR RESERVED", right=True),
                Column(title="BUDGET", right=True),
            ],
            [
                [
                    team,
                    f"{status.gpu_hours_this_week.get(team, 0.0):.2f}",
                    f"{limits.gpu_hours_per_week[team]:g}" if team in limits.gpu_hours_per_week else "none",
                ]
                for team in teams
            ],
        )


def _rows(what: str, most: Mapping[str, int], held: Iterable[str]) -> list[list[str]]:
    names = list(held)
    return [[f"{what} {name}", str(names.count(name)), str(most[name])] for name in sorted(most)]


@click.command()
@click.option("--running-max", type=click.IntRange(min=1), help="At once in the whole fleet.")
@click.option("--per-team", type=click.IntRange(min=1), help="At once of one team without a limit of its own.")
@click.option("--tier1-reserve", type=click.IntRange(min=0), help="Of the fleet's slots, kept free for tier 1.")
@click.option("--team", "teams", multiple=True, metavar="NAME=N", help="At once of this team; NAME=none removes it.")
@click.option("--class", "classes", multiple=True, metavar="NAME=N", help="At once of this resource class.")
@click.option("--scheduler", "schedulers", multiple=True, metavar="NAME=N", help="At once on this scheduler.")
@click.option("--gpu-hours", multiple=True, metavar="TEAM=HOURS", help="What a team may spend in a week.")
@change_options
@json_option
@click.pass_obj
def set_limits(
    session: Session,
    running_max: int | None,
    per_team: int | None,
    tier1_reserve: int | None,
    teams: tuple[str, ...],
    classes: tuple[str, ...],
    schedulers: tuple[str, ...],
    gpu_hours: tuple[str, ...],
    reason: str,
    dry_run: bool,
) -> None:
    """Change what is named; the rest stays."""
    runway = session.runway
    limits = messages.RetrainingLimits()
    limits.CopyFrom(runway.operations.get_status().limits)
    for name, value in (
        ("running_max", running_max),
        ("running_per_team_max", per_team),
        ("tier1_reserve", tier1_reserve),
    ):
        if value is not None:
            setattr(limits, name, value)
    _merge(limits.by_team, teams, "--team", int)
    _merge(limits.by_resource_class, classes, "--class", int)
    _merge(limits.by_scheduler, schedulers, "--scheduler", int)
    _merge(limits.gpu_hours_per_week, gpu_hours, "--gpu-hours", float)
    found = runway.operations.set_retraining_limits(limits, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(found)
    else:
        session.page.prose(
            f"At most {found.running_max} retrains {'would' if dry_run else 'may'} run at once; "
            "`runway limits` shows all limits."
        )


def _merge(into: MutableMapping[str, Any], pairs: Iterable[str], option: str, kind: type) -> None:
    """`NAME=N` sets, `NAME=none` removes."""
    for pair in pairs:
        name, _, text = pair.partition("=")
        if not name or not text:
            raise click.BadParameter(f"{pair!r}: write NAME=NUMBER, or NAME=none", param_hint=option)
        if text == "none":
            into.pop(name, None)
            continue
        try:
            into[name] = kind(text)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a number", param_hint=option) from None
