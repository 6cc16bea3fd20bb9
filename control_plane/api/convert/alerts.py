"""Alerts and destinations on the wire."""

from datetime import datetime

from runway.v1 import alerts_pb2

from control_plane.api.convert.common import timestamp
from control_plane.core.alerts.types import Alert, Destination, DestinationKind, Severity, Silence

SEVERITIES = {
    Severity.INFO: alerts_pb2.ALERT_SEVERITY_INFO,
    Severity.WARNING: alerts_pb2.ALERT_SEVERITY_WARNING,
    Severity.PAGE: alerts_pb2.ALERT_SEVERITY_PAGE,
}
SEVERITIES_FROM = {number: severity for severity, number in SEVERITIES.items()}
KINDS = {
    DestinationKind.WEBHOOK: alerts_pb2.DESTINATION_KIND_WEBHOOK,
    DestinationKind.ALERTMANAGER: alerts_pb2.DESTINATION_KIND_ALERTMANAGER,
    DestinationKind.PAGERDUTY: alerts_pb2.DESTINATION_KIND_PAGERDUTY,
    DestinationKind.SLACK: alerts_pb2.DESTINATION_KIND_SLACK,
}
KINDS_FROM = {number: kind for kind, number in KINDS.items()}


def alert_message(alert: Alert, silence: Silence | None, now: datetime) -> alerts_pb2.Alert:
    """An alert, with its silence if that still holds."""
    message = alerts_pb2.Alert(
        key=alert.key,
        kind=alert.kind,
        severity=SEVERITIES[alert.severity],
        since=timestamp(alert.since),
        summary=alert.summary,
        detail=alert.detail,
        cause=alert.cause,
        model_ids=alert.model_ids,
        teams=alert.teams,
        owners=alert.owners,
    )
    if silence is not None and now < silence.until:
        message.silenced_until.FromDatetime(silence.until)
        message.silenced_by = silence.by
    return message


def destination_message(destination: Destination) -> alerts_pb2.Destination:
    """A destination without how delivery goes."""
    return alerts_pb2.Destination(
        name=destination.name,
        kind=KINDS[destination.kind],
        url=destination.url,
        secret_variable=destination.secret_variable,
        teams=destination.teams,
        severity_min=SEVERITIES[destination.severity_min],
        kinds=destination.kinds,
        quiet_start_hour=destination.quiet_start_hour,
        quiet_end_hour=destination.quiet_end_hour,
        allow_private=destination.allow_private,
        set_by=destination.set_by,
    )


def destination_from(message: alerts_pb2.Destination, set_by: str) -> Destination:
    """A destination as somebody wants it; severity unsaid is all."""
    return Destination(
        name=message.name,
        kind=KINDS_FROM[message.kind],
        url=message.url,
        secret_variable=message.secret_variable,
        teams=tuple(message.teams),
        severity_min=SEVERITIES_FROM.get(message.severity_min, Severity.INFO),
        kinds=tuple(message.kinds),
        quiet_start_hour=message.quiet_start_hour,
        quiet_end_hour=message.quiet_end_hour,
        allow_private=message.allow_private,
        set_by=set_by,
    )
