"""Where alerts are told, and which are not for some time."""

from datetime import datetime
from typing import get_args

from control_plane.core.active_alerts import active_alerts
from control_plane.core.alerts.rules import DESTINATIONS_MAX, SILENCES_MAX, destination_violations, silence_violations
from control_plane.core.alerts.types import Destination
from control_plane.core.commands import RemoveDestination, Result, SetDestination, SilenceAlert
from control_plane.core.decide.decision import Decision
from control_plane.core.errors import Invalid, NotFound, Reason, Refused
from control_plane.core.events import AlertSilenced, DestinationRemoved, DestinationSet, Event
from control_plane.core.state import State

EVENT_KINDS = frozenset(kind.__name__ for kind in get_args(Event))


def set_destination(state: State, command: SetDestination) -> Decision:
    """Add a destination, or replace the one of its name: that goes on where it was.

    Raises:
        Invalid: with all that is wrong.
        Refused: LIMIT_EXCEEDED with too many.
    """
    destination = command.destination
    found = destination_violations(destination, EVENT_KINDS)
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    before = state.destinations.get(destination.name)
    if before is None and len(state.destinations) >= DESTINATIONS_MAX:
        raise Refused(Reason.LIMIT_EXCEEDED, f"there are {DESTINATIONS_MAX} destinations already: remove one")
    if destination.disabled and (before is None or before.since != destination.since):
        # The one that failed is gone: whoever set it anew knows better.
        return Decision(result=Result(scope=destination.name))
    since = before.since if before is not None else state.revision + 1
    destination = Destination(
        name=destination.name,
        kind=destination.kind,
        url=destination.url,
        secret_variable=destination.secret_variable,
        teams=tuple(dict.fromkeys(destination.teams)),
        severity_min=destination.severity_min,
        kinds=tuple(dict.fromkeys(destination.kinds)),
        quiet_start_hour=destination.quiet_start_hour,
        quiet_end_hour=destination.quiet_end_hour,
        allow_private=destination.allow_private,
        set_by=destination.set_by,
        since=since,
        disabled=destination.disabled,
    )
    changed = destination != before
    return Decision(
        events=(DestinationSet(destination=destination),) if changed else (),
        result=Result(scope=destination.name, changed=int(changed)),
    )


def remove_destination(state: State, command: RemoveDestination) -> Decision:
    """Send nothing there any more. Raises NotFound."""
    if command.name not in state.destinations:
        raise NotFound(
            Reason.DESTINATION_NOT_FOUND,
            f"there is no destination {command.name!a}: `runway destinations list` shows them",
            name=command.name,
        )
    return Decision(events=(DestinationRemoved(name=command.name),), result=Result(scope=command.name))


def silence_alert(state: State, command: SilenceAlert, now: datetime) -> Decision:
    """Tell nobody about an alert for some time; until a time that has passed ends a silence.

    Raises:
        Invalid: with all that is wrong.
        NotFound: there is no such alert now.
    """
    silence = command.silence
    found = silence_violations(silence, now)
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    known = state.silences.get(silence.key)
    if known is None and not any(alert.key == silence.key for alert in active_alerts(state, now)):
        raise NotFound(
            Reason.ALERT_NOT_FOUND,
            f"there is no alert {silence.key!a} now: `runway alerts` shows them",
            key=silence.key,
        )
    if known is None and silence.until <= now:
        return Decision(result=Result(scope=silence.key))
    if known is None and sum(now < one.until for one in state.silences.values()) >= SILENCES_MAX:
        raise Refused(Reason.LIMIT_EXCEEDED, f"{SILENCES_MAX:,} alerts are silenced already")
    changed = silence != known
    return Decision(
        events=(AlertSilenced(silence=silence),) if changed else (),
        result=Result(scope=silence.key, changed=int(changed)),
    )
