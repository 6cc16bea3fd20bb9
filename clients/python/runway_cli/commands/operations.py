"""`runway status`, `watch`, `events`, `hold` and `release`."""

import sys
from collections import deque
from collections.abc import Iterable, Mapping

import click
from runway_client import RunwayRpcError, Why, messages

from runway_cli.page import Page, printable
from runway_cli.session import Session, change_options, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, count, instant_of, joined, when

ROUTINE = frozenset({"ClockAdvanced", "LeaseRenewed", "StreakChanged"})
"""Kinds that tell people nothing new: a driven clock that moves, a run that still runs, an evaluation that only counts
towards a verdict. People see them on request."""

LOOK_BACK = 20
"""How many times `--limit` to look back for the last events when some of them are not shown."""

EVENT_STYLES = (("Failed", "red"), ("Refused", "yellow"), ("Promoted", "green"), ("VerdictChanged", "bold"))


@click.command()
@json_option
@click.pass_obj
def show_status(session: Session) -> None:
    """Is the control plane well, and what is it doing."""
    runway, page = session.runway, session.page
    status = runway.operations.get_status()
    if session.as_json:
        session.emit(status)
        return
    role = (
        f"leader of epoch {status.epoch}" if status.leader else "follower: it answers reads, changes go to the leader"
    )
    page.prose(f"control plane at {runway.address}, version {status.server_version or '-'}, {role}", style="bold")
    driven = status.clock_mode == messages.CLOCK_MODE_DRIVEN
    now, started = instant_of(status, "now"), instant_of(status, "started_at")
    limits = status.limits
    page.line()
    page.facts(
        [
            ("clock", clock(now) + (" UTC, moved by a replay" if driven else " UTC")),
            ("started", clock(started) if driven or started is None or now is None else when(started, now)),
            ("revision", f"{status.revision:,}, snapshot at {status.snapshot_revision:,}"),
            (
                "fleet",
                f"{count(status.models, 'model')}, {count(status.nodes, 'node')}, "
                f"{count(status.dependencies, 'dependency', 'dependencies')}",
            ),
            ("verdicts", _counts(status.verdicts, ("STALE", "AT_RISK", "UNKNOWN", "FRESH"))),
            ("retrains", _counts(status.retrains, ("RUNNING", "VALIDATING", "WAITING")) or "none live"),
            ("at once", f"at most {limits.running_max:,}, {limits.running_per_team_max:,} per team"),
            ("retraining", "HELD: nothing new is leased until `runway release`" if status.retraining_held else ""),
            (
                "ingested",
                f"{count(status.predictions_ingested, 'prediction')}, {count(status.outcomes_ingested, 'outcome')}",
            ),
            ("watchers", str(status.watchers)),
        ]
    )


@click.command()
@click.option("--model", "models", multiple=True, help="Only events about this model; may be given several times.")
@click.option("--kind", "kinds", multiple=True, help="Only this kind (VerdictChanged ...); may be given several times.")
@click.option("--since", type=click.IntRange(min=0), metavar="REVISION", help="Begin after this revision; default now.")
@click.option("--all", "everything", is_flag=True, help="Also routine: clock moves, lease renewals, evaluations.")
@json_option
@click.pass_obj
def watch_events(
    session: Session, models: tuple[str, ...], kinds: tuple[str, ...], since: int | None, everything: bool
) -> None:
    """What happens, as it happens; Ctrl-C ends it. Survives restarts of the control plane.

    With --json, one WatchResponse a line.
    """
    runway = session.runway
    wanted = [bare_model(model) for model in models]
    after = runway.operations.get_status().revision if since is None else since
    for model_id in wanted:
        with model_suggestions(runway, model_id):
            runway.registry.get_model(model_id)
    items = runway.watch(after, model_ids=wanted, kinds=kinds, on_interruption=_interrupted)
    try:
        for item in items:
            if session.as_json:
                session.emit_line(item)
            elif item.WhichOneof("item") == "event" and (everything or kinds or item.event.kind not in ROUTINE):
                event_line(session.page, item.event)
                sys.stdout.flush()
    except KeyboardInterrupt:
        return


@click.command()
@click.option("--model", default="", help="Only events about this model.")
@click.option("--since", type=click.IntRange(min=0), metavar="REVISION", help="All after this revision.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Without --since: the last so many."
)
@click.option("--all", "everything", is_flag=True, help="Also routine events; --json has them anyway.")
@json_option
@click.pass_obj
def list_events(session: Session, model: str, since: int | None, limit: int, everything: bool) -> None:
    """What happened: the audit log, oldest first."""
    runway = session.runway
    model_id = bare_model(model)
    if model_id:
        with model_suggestions(runway, model_id):
            runway.registry.get_model(model_id)
    if since is not None:
        begin = since
    else:
        # Revisions are gap-free, so the last so many of all events begin so far back; a model's must be looked for.
        begin = 0 if model_id else max(0, runway.operations.get_status().revision - limit * LOOK_BACK)
    found: Iterable[messages.Event] = (
        event
        for event in runway.operations.list_events(begin, model_id=model_id)
        if everything or session.as_json or event.kind not in ROUTINE
    )
    if since is None:
        found = deque(found, maxlen=limit)
    if session.as_json:
        session.emit(messages.ListEventsResponse(events=found, revision=runway.revision))
        return
    nothing = True
    for event in found:
        nothing = False
        event_line(session.page, event)
    if nothing:
        session.page.line("no events" + (f" about {model_id}" if model_id else ""))


@click.command()
@change_options
@json_option
@click.pass_obj
def hold_retraining(session: Session, reason: str, dry_run: bool) -> None:
    """Lease no new retrains until released; what runs goes on."""
    revision = session.runway.operations.hold_retraining(why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.HoldRetrainingResponse(revision=revision))
    elif dry_run:
        session.page.prose("Retraining could be held; nothing was changed.")
    else:
        session.page.prose("Retraining is held: what runs goes on, nothing new is leased. `runway release` ends it.")


@click.command()
@change_options
@json_option
@click.pass_obj
def release_retraining(session: Session, reason: str, dry_run: bool) -> None:
    """Lease retrains again."""
    revision = session.runway.operations.release_retraining(why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.ReleaseRetrainingResponse(revision=revision))
    elif dry_run:
        session.page.prose("Retraining could be released; nothing was changed.")
    else:
        session.page.prose("Retraining is released: what waits is leased again, in order and within limits.")


def event_line(page: Page, event: messages.Event) -> None:
    """One event on one line: when, where in the log, what, by whom and why."""
    text = f"{clock(instant_of(event, 'at'))}  {event.revision:>7}  {printable(event.sentence or event.kind)}"
    if event.actor and event.actor not in ("system", "runway"):
        text += f"  [{printable(event.actor)}{': ' + printable(event.reason) if event.reason else ''}]"
    style = next((style for word, style in EVENT_STYLES if word in event.kind), "")
    page.line(text, style)


def _interrupted(error: RunwayRpcError) -> None:
    click.echo(f"runway: {error}; trying again", err=True)


def _counts(counts: Mapping[str, int], order: tuple[str, ...]) -> str:
    known = dict(counts)
    names = [name for name in order if known.get(name)] + sorted(set(known) - set(order))
    text = joined(f"{name} {known[name]:,}" for name in names if known[name])
    return "" if text == "-" else text
