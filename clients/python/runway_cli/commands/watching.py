"""`runway watch` and `runway events`: what happens, and what happened."""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import click
from runway_client import InvalidRequest, Runway, RunwayRpcError, WatchItem, messages

from runway_cli.page import Page, printable
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions, nearest
from runway_cli.words import bare_model, clock, count, instant_of

ROUTINE = frozenset({"ClockAdvanced", "LeaseRenewed", "StreakChanged"})
"""Kinds that tell people nothing new: a driven clock that moves, a run that still runs, an evaluation that only counts
towards a verdict. People see them on request."""

LOOK_BACK = 20
"""How many times `--limit` to look back for the last events when some of them are not shown."""

LOOK_FURTHER = 8
"""How many times as far to look back when that was too few: all looks together cost little more than the last."""

EVENT_STYLES = (("Failed", "red"), ("Refused", "yellow"), ("Promoted", "green"), ("VerdictChanged", "bold"))

KNOWN_SHOWN_MAX = 60
"""Kinds named when none is like the one that was asked for."""


@click.command()
@click.option("--model", "models", multiple=True, help="Only events about this model; may be given several times.")
@click.option("--team", "teams", multiple=True, help="Or about any model of this team; may be given several times.")
@click.option("--kind", "kinds", multiple=True, help="Only this kind (VerdictChanged ...); may be given several times.")
@click.option("--since", type=click.IntRange(min=0), metavar="REVISION", help="Begin after this revision; default now.")
@click.option("--snapshot", is_flag=True, help="Begin with the models as they are.")
@click.option("--all", "everything", is_flag=True, help="Also routine: clock moves, lease renewals, evaluations.")
@json_option
@click.pass_obj
def watch_events(
    session: Session,
    models: tuple[str, ...],
    teams: tuple[str, ...],
    kinds: tuple[str, ...],
    since: int | None,
    snapshot: bool,
    everything: bool,
) -> None:
    """What happens, as it happens; Ctrl-C ends it. Survives restarts of the control plane.

    With --json, one WatchResponse a line.
    """
    if snapshot and since is not None:
        raise click.UsageError("--snapshot begins with the models as they are now: leave out --since")
    runway = session.runway
    wanted = [_known_model(runway, model) for model in models]
    for team in teams:
        _check_team(runway, team)
    after = 0 if snapshot else runway.operations.get_status().revision if since is None else since
    items = runway.watch(
        after,
        include_snapshot=snapshot,
        model_ids=wanted,
        teams=teams,
        kinds=kinds,
        on_interruption=_interrupted,
    )
    shown = 0
    try:
        with _kind_suggestions():
            for item in items:
                if session.as_json:
                    session.emit_line(_response(item))
                    continue
                match item:
                    case messages.Event() if everything or kinds or item.kind not in ROUTINE:
                        event_line(session.page, item)
                    case messages.SnapshotItem():
                        shown += 1
                        _model_line(session.page, item)
                    case messages.SnapshotEnd():
                        session.page.line(f"{count(shown, 'model')} at revision {item.revision:,}; now what happens:")
                        shown = 0
                sys.stdout.flush()
    except KeyboardInterrupt:
        return


@click.command()
@click.option("--model", default="", help="Only events about this model.")
@click.option("--kind", "kinds", multiple=True, help="Only this kind (VerdictChanged ...); may be given several times.")
@click.option("--since", type=click.IntRange(min=0), metavar="REVISION", help="All after this revision.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Without --since: the last so many."
)
@click.option("--all", "everything", is_flag=True, help="Also routine events; --json has them anyway.")
@json_option
@click.pass_obj
def list_events(
    session: Session, model: str, kinds: tuple[str, ...], since: int | None, limit: int, everything: bool
) -> None:
    """What happened: the audit log, oldest first."""
    runway = session.runway
    model_id = _known_model(runway, model) if model else ""

    def shown(begin: int) -> Iterator[messages.Event]:
        for event in runway.operations.list_events(begin, model_id=model_id, kinds=kinds):
            if everything or session.as_json or kinds or event.kind not in ROUTINE:
                yield event

    with _kind_suggestions():
        found = _newest(shown, limit, runway.operations.get_status().revision) if since is None else shown(since)
        if session.as_json:
            listed = messages.ListEventsResponse(events=found)
            listed.revision = listed.scanned_revision = runway.revision
            session.emit(listed)
            return
        nothing = True
        for event in found:
            nothing = False
            event_line(session.page, event)
    if nothing:
        session.page.line("no events" + (f" about {model_id}" if model_id else ""))


def _newest(shown: Callable[[int], Iterable[messages.Event]], limit: int, newest: int) -> Iterable[messages.Event]:
    """The last so many events. Revisions have no gaps, so a look begins so many back; it goes further back while too
    few of those are shown."""
    back = limit * LOOK_BACK
    while True:
        begin = max(0, newest - back)
        found = deque(shown(begin), maxlen=limit)
        if len(found) == limit or not begin:
            return found
        back *= LOOK_FURTHER


def event_line(page: Page, event: messages.Event) -> None:
    """One event on one line: when, where in the log, what, by whom and why."""
    text = f"{clock(instant_of(event, 'at'))}  {event.revision:>7}  {printable(event.sentence or event.kind)}"
    if event.actor and event.actor not in ("system", "runway"):
        text += f"  [{printable(event.actor)}{': ' + printable(event.reason) if event.reason else ''}]"
    style = next((style for word, style in EVENT_STYLES if word in event.kind), "")
    page.line(text, style)


def _model_line(page: Page, item: messages.SnapshotItem) -> None:
    model = item.model
    production = model.aliases.get("production", 0)
    serves = f"version {production} in production" if production else "nothing in production"
    verdict = messages.Verdict.Name(item.staleness.verdict).removeprefix("VERDICT_")
    page.line(f"{model.model_id} (tier {model.tier}, team {model.team}) is {verdict}, {serves}")


def _response(item: WatchItem) -> messages.WatchResponse:
    match item:
        case messages.SnapshotItem():
            return messages.WatchResponse(snapshot_items=[item])
        case messages.SnapshotEnd():
            return messages.WatchResponse(snapshot_end=item)
        case messages.Event():
            return messages.WatchResponse(events=[item])
        case _:
            return messages.WatchResponse(progress=item)


def _known_model(runway: Runway, name: str) -> str:
    """The id of a model that exists, else a complaint with those it may have meant."""
    model_id = bare_model(name)
    with model_suggestions(runway, model_id):
        runway.registry.get_model(model_id)
    return model_id


def _check_team(runway: Runway, team: str) -> None:
    """Complain about a team that has no model, and name those it may have meant."""
    known = {model.team for model in runway.registry.list_models()}
    if team not in known:
        near = nearest(team, known)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
        raise click.ClickException(f"no model is of a team {team!r}: {remedy}")


@contextmanager
def _kind_suggestions() -> Iterator[None]:
    """Around a call with kinds: an unknown one is answered with those it may have meant."""
    try:
        yield
    except InvalidRequest as error:
        known = [kind for kind in error.metadata.get("known_kinds", "").split(",") if kind]
        asked = [violation.message.partition("'")[2].partition("'")[0] for violation in error.violations]
        asked = [kind for kind in asked if kind not in known]
        if not known or not asked:
            raise
        lower = {kind.lower(): kind for kind in known}
        near = [lower[name] for name in nearest(asked[0].lower(), lower)]
        remedy = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known[:KNOWN_SHOWN_MAX])}"
        raise click.UsageError(f"there is no kind of event {asked[0]!r}: {remedy}") from error


def _interrupted(error: RunwayRpcError) -> None:
    click.echo(f"runway: {error}; trying again", err=True)
