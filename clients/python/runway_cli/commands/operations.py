"""`runway status`, `hold` and `release`."""

from collections.abc import Mapping

import click
from runway_client import Why, messages

from runway_cli.session import Session, change_options, json_option
from runway_cli.words import clock, count, instant_of, joined, when


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


def _counts(counts: Mapping[str, int], order: tuple[str, ...]) -> str:
    known = dict(counts)
    names = [name for name in order if known.get(name)] + sorted(set(known) - set(order))
    text = joined(f"{name} {known[name]:,}" for name in names if known[name])
    return "" if text == "-" else text
