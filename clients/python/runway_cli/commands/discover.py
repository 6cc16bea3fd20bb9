"""`runway discover`: read lineage from a source that cannot tell it by itself, and report it."""

import contextlib
import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from runway_client import Why, messages

from runway_cli.commands.models import parse_instant
from runway_cli.session import Session, json_option
from runway_cli.spans import parse_span
from runway_cli.words import clock, count, listed

if TYPE_CHECKING:
    from runway_lineage.reading import Reading, Unreadable
    from runway_lineage.reporting import Reported

SHOWN_MAX = 20
"""Of what could not be read; the rest is counted. `--json` has all."""

_since_option = click.option(
    "--since", metavar="TIME", help="Only what began after this: 2013-03-01, 2013-03-01T12:00 (UTC), or 7d (ago)."
)
_dry_option = click.option("--dry-run", is_flag=True, help="Read the source and check everything, change nothing.")


@click.command()
@_since_option
@click.option("--flow", "flows", multiple=True, help="Only this flow; may be given several times.")
@click.option("--tag", "tags", multiple=True, help="Only runs with this tag (user:anna); all, if given several times.")
@click.option("--metadata", default="", metavar="WHERE", help="local@PATH or service@URL; default as Metaflow's own.")
@click.option(
    "--cursor",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that keeps where the next look begins, for cron; --since beats it.",
)
@_dry_option
@json_option
@click.pass_obj
def discover_metaflow(
    session: Session,
    since: str | None,
    flows: tuple[str, ...],
    tags: tuple[str, ...],
    metadata: str,
    cursor: Path | None,
    dry_run: bool,
) -> None:
    """Read Metaflow's finished runs through its Client API.

    Reading twice changes nothing, so a schedule may overlap. Loading an artifact runs code of whoever wrote it; only
    runway_reads, runway_produces and what @runway_lineage recorded are loaded.
    """
    from runway_lineage.metaflow_runs import read_metaflow  # noqa: PLC0415 (only this command needs it)
    from runway_lineage.reading import SourceError  # noqa: PLC0415

    begin = _begin(since) or _kept(cursor)
    try:
        reading = read_metaflow(since=begin, flows=flows, tags=tags, metadata=metadata)
    except SourceError as error:
        raise click.ClickException(str(error)) from error
    _report(session, reading, "metaflow", dry_run)
    if cursor is not None and not dry_run and reading.next_since is not None:
        _keep(cursor, reading.next_since)


@click.command()
@click.option("--url", required=True, help="Dagster's webserver: http://127.0.0.1:3070.")
@_since_option
@click.option("--runs", default=20, show_default=True, type=click.IntRange(1, 1000), help="Newest runs of each asset.")
@_dry_option
@json_option
@click.pass_obj
def discover_dagster(session: Session, url: str, since: str | None, runs: int, dry_run: bool) -> None:
    """Read the asset graph and the materializations of a Dagster deployment.

    An asset is the node that its metadata `runway/node` names, else one of its own, dagster://LOCATION/KEY.
    """
    from runway_lineage.dagster_assets import read_dagster  # noqa: PLC0415 (only this command needs it)
    from runway_lineage.reading import SourceError  # noqa: PLC0415

    try:
        reading = read_dagster(url, since=_begin(since), materializations_max=runs)
    except SourceError as error:
        raise click.ClickException(str(error)) from error
    _report(session, reading, "dagster", dry_run)


def _report(session: Session, reading: "Reading", source: str, dry_run: bool) -> None:
    from runway_lineage.reporting import report  # noqa: PLC0415

    reported = report(
        session.runway, reading.runs, why=Why(reason=f"read from {source}: {reading.source}", validate_only=dry_run)
    )
    if session.as_json:
        click.echo(json.dumps(_as_json(reading, reported), indent=2))
        return
    page = session.page
    page.prose(_sentence(reading, reported, dry_run), style="bold")
    if reading.notes:
        page.prose(f"Left out: {listed([f'{times:,} {what}' for what, times in sorted(reading.notes.items())])}.")
    if reported.quarantined:
        page.heading("Not applied, because each would close a cycle")
        for edge in reported.quarantined:
            page.prose(_quarantined(edge), indent="  ")
    _list(session, "Could not be read", reading.unreadable)
    _list(session, "Refused", reported.refused)
    if reading.next_since is not None:
        page.line()
        page.prose(f"The next look can begin at {clock(reading.next_since)} UTC.")


def _sentence(reading: "Reading", reported: "Reported", dry_run: bool) -> str:
    if not reading.runs:
        return f"{reading.source} shows no lineage to report."
    would = "would be told of" if dry_run else "was told of"
    told = f"Runway {would} {count(reported.runs, 'run')} of {reading.source}"
    return (
        f"{told}; {count(reported.changed, 'of them was', 'of them were')} new."
        if reported.changed
        else (f"{told}; nothing new.")
    )


def _quarantined(edge: messages.QuarantinedEdge) -> str:
    return f"{edge.dependency.upstream_id} -> {edge.dependency.downstream_id}: {' -> '.join(edge.cycle)}"


def _list(session: Session, title: str, found: "list[Unreadable]") -> None:
    if not found:
        return
    session.page.heading(title)
    for one in found[:SHOWN_MAX]:
        session.page.prose(f"{one.what}: {one.why}", indent="  ")
    if len(found) > SHOWN_MAX:
        session.page.prose(f"and {len(found) - SHOWN_MAX:,} more; --json has all", indent="  ")


def _as_json(reading: "Reading", reported: "Reported") -> dict[str, object]:
    return {
        "source": reading.source,
        "runs": reported.runs,
        "changed": reported.changed,
        "left_out": reading.notes,
        "quarantined": [
            {
                "upstream_id": edge.dependency.upstream_id,
                "downstream_id": edge.dependency.downstream_id,
                "cycle": list(edge.cycle),
            }
            for edge in reported.quarantined
        ],
        "unreadable": [{"what": one.what, "why": one.why} for one in reading.unreadable],
        "refused": [{"what": one.what, "why": one.why} for one in reported.refused],
        "next_since": reading.next_since.isoformat() if reading.next_since else None,
    }


def _begin(since: str | None) -> datetime | None:
    """Sources run by the clock on the wall, whatever the control plane's clock says."""
    if since is None:
        return None
    try:
        ago: timedelta = parse_span(since)
    except ValueError:
        return parse_instant(since, "--since")
    return datetime.now(UTC) - ago


def _kept(cursor: Path | None) -> datetime | None:
    if cursor is None or not cursor.exists():
        return None
    try:
        instant = datetime.fromisoformat(json.loads(cursor.read_text(encoding="utf-8"))["next_since"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{cursor} is no cursor ({error}): remove it to read everything again") from error
    if instant.tzinfo is None:
        raise click.ClickException(f"{cursor} has a time without a zone: remove it to read everything again")
    return instant


def _keep(cursor: Path, next_since: datetime) -> None:
    """Whole or not at all, so that a crash leaves the old one."""
    try:
        number, name = tempfile.mkstemp(dir=cursor.parent, prefix=cursor.name)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as sink:
                json.dump({"next_since": next_since.isoformat()}, sink)
            Path(name).replace(cursor)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise click.ClickException(
            f"{cursor} cannot be written ({error.strerror}); the lineage was reported"
        ) from error
