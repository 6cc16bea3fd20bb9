"""`runway schedulers`: who runs retrains, and the circuit breaker of each."""

import click
from runway_client import Why, messages

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.words import clock, enum_word, instant_of, when

STYLES = {"OPEN": "bold red", "HALF_OPEN": "yellow"}


@click.command()
@as_of_option
@json_option
@click.pass_obj
def list_schedulers(session: Session, as_of: str | None) -> None:
    """Who runs retrains, whether it gets any now, and why not."""
    found = session.runway.schedulers.list_schedulers(as_of=parse_as_of(as_of))
    if session.as_json:
        session.emit(messages.ListSchedulersResponse(schedulers=found, revision=session.runway.revision))
        return
    if not found:
        session.page.line("No scheduler has asked for a retrain yet.")
        return
    session.page.table(
        [
            Column(title="SCHEDULER"),
            Column(title="BREAKER"),
            Column(title="RUNNING"),
            Column(title="WAITING"),
            Column(title="LAST LEASE", spare=2),
            Column(title="HOW", prose=True, spare=1),
        ],
        [
            (
                one.scheduler,
                _word(one) + (" (bypassed)" if one.bypassed_by else ""),
                f"{one.running:,}",
                f"{one.waiting:,}",
                when(instant_of(one, "last_lease_at"), session.now) if one.HasField("last_lease_at") else "never",
                one.how,
            )
            for one in found
        ],
    )
    for one in found:
        for line in _sentences(session, one):
            session.page.prose(line)


@click.command()
@click.argument("scheduler")
@change_options
@json_option
@click.pass_obj
def trip(session: Session, scheduler: str, reason: str, dry_run: bool) -> None:
    """Open its breaker by hand: it gets no retrains until it is reset."""
    why = Why(reason=reason, validate_only=dry_run)
    _show(session, session.runway.schedulers.trip(scheduler, why=why), "be open until it is reset" if dry_run else "")


@click.command()
@click.argument("scheduler")
@change_options
@json_option
@click.pass_obj
def reset(session: Session, scheduler: str, reason: str, dry_run: bool) -> None:
    """Close its breaker, and end a bypass; what has waited goes on at a bounded rate."""
    why = Why(reason=reason, validate_only=dry_run)
    _show(session, session.runway.schedulers.reset(scheduler, why=why), "be closed" if dry_run else "")


@click.command()
@click.argument("scheduler")
@change_options
@json_option
@click.pass_obj
def bypass(session: Session, scheduler: str, reason: str, dry_run: bool) -> None:
    """Give it retrains in spite of its breaker until it is reset; say why with --reason."""
    why = Why(reason=reason, validate_only=dry_run)
    _show(session, session.runway.schedulers.bypass(scheduler, why=why), "be bypassed" if dry_run else "")


def _show(session: Session, one: messages.Scheduler, would: str) -> None:
    if session.as_json:
        session.emit(one)
        return
    if would:
        session.page.line(f"the breaker of {one.scheduler} would {would}")
        return
    session.page.line(
        f"the breaker of {one.scheduler} is {_word(one).lower().replace('_', ' ')}", STYLES.get(_word(one), "")
    )
    for line in _sentences(session, one):
        session.page.prose(line)


def _word(one: messages.Scheduler) -> str:
    return enum_word(messages.BreakerState, one.breaker)


def _sentences(session: Session, one: messages.Scheduler) -> list[str]:
    """What a table cannot tell."""
    found = []
    if one.breaker == messages.BREAKER_STATE_OPEN:
        until = instant_of(one, "open_until") if one.HasField("open_until") else None
        then = f"it is tried out at {clock(until)} ({when(until, session.now)})" if until else "it waits for a reset"
        found.append(f"{one.scheduler}: {one.reason}; {then}. Its retrains wait, none is lost.")
    elif one.breaker == messages.BREAKER_STATE_HALF_OPEN:
        found.append(
            f"{one.scheduler} is tried out with one retrain at a time: {one.successes} of 3 tries went well "
            f"({one.reason})."
        )
    elif one.reason:
        found.append(f"{one.scheduler}: {one.reason}")
    if one.bypassed_by:
        found.append(f"{one.scheduler}: {one.bypassed_by} lets retrains go there in spite of its breaker.")
    return found
