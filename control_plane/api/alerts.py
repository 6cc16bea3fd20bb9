"""AlertsService: what is wrong now, and where it is told."""

from runway.v1 import alerts_pb2, alerts_pb2_grpc

from control_plane.api.convert.alerts import alert_message, destination_from, destination_message
from control_plane.api.convert.common import instant_from
from control_plane.api.convert.registry import model_id_from
from control_plane.api.interceptors import Context
from control_plane.api.plane import ANONYMOUS, Plane
from control_plane.app.alerts import Alerts
from control_plane.app.outbox import Outbox
from control_plane.app.trying import Trial
from control_plane.core.active_alerts import active_alerts
from control_plane.core.alerts.types import Alert, Destination, DestinationKind, Severity, Silence
from control_plane.core.commands import RemoveDestination, SetDestination, SilenceAlert
from control_plane.core.errors import NotFound, Reason
from control_plane.core.state import State
from control_plane.core.suspects import Suspects


class AlertsServicer(alerts_pb2_grpc.AlertsServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane, alerts: Alerts, outbox: Outbox, trial: Trial) -> None:
        self._plane = plane
        self._alerts = alerts
        self._outbox = outbox
        self._trial = trial
        self._suspects = Suspects()

    async def ListAlerts(  # noqa: N802
        self, request: alerts_pb2.ListAlertsRequest, context: Context
    ) -> alerts_pb2.ListAlertsResponse:
        """What is wrong, the worst first."""
        state = await self._plane.read(request.read)
        now = self._plane.moment(state, request.read)
        model_id = model_id_from(request.model_id) if request.model_id else None
        if model_id is not None:
            state.model(model_id)
        found = [
            alert
            for alert in active_alerts(state, now, self._suspects)
            if (not request.team or request.team in alert.teams) and (model_id is None or model_id in alert.model_ids)
        ]
        return alerts_pb2.ListAlertsResponse(
            alerts=[alert_message(alert, state.silences.get(alert.key), now) for alert in found],
            revision=state.revision,
        )

    async def SilenceAlert(  # noqa: N802
        self, request: alerts_pb2.SilenceAlertRequest, context: Context
    ) -> alerts_pb2.SilenceAlertResponse:
        """Tell nobody about an alert for some time."""
        silence = Silence(
            key=request.key,
            until=instant_from(request.until, "until"),
            by=request.mutation.actor or ANONYMOUS,
            reason=request.mutation.reason,
        )
        outcome = await self._plane.submit(SilenceAlert(silence=silence), request.mutation)
        now = self._plane.now()
        alerts = {alert.key: alert for alert in active_alerts(outcome.state, now, self._suspects)}
        alert = alerts.get(request.key) or Alert(
            key=request.key, kind=request.key.partition("/")[0], severity=Severity.INFO, since=now, summary="it is over"
        )
        return alerts_pb2.SilenceAlertResponse(alert=alert_message(alert, silence, now), revision=outcome.revision)

    async def SetDestination(  # noqa: N802
        self, request: alerts_pb2.SetDestinationRequest, context: Context
    ) -> alerts_pb2.SetDestinationResponse:
        """Send alerts or events there."""
        destination = destination_from(request.destination, request.mutation.actor or ANONYMOUS)
        outcome = await self._plane.submit(SetDestination(destination=destination), request.mutation)
        known = outcome.state.destinations.get(destination.name)
        shown = destination if outcome.dry or known is None else known
        message = destination_message(shown) if outcome.dry else self._shown(outcome.state, shown)
        return alerts_pb2.SetDestinationResponse(destination=message, revision=outcome.revision)

    async def RemoveDestination(  # noqa: N802
        self, request: alerts_pb2.RemoveDestinationRequest, context: Context
    ) -> alerts_pb2.RemoveDestinationResponse:
        """Send nothing there any more."""
        outcome = await self._plane.submit(RemoveDestination(name=request.name), request.mutation)
        return alerts_pb2.RemoveDestinationResponse(revision=outcome.revision)

    async def ListDestinations(  # noqa: N802
        self, request: alerts_pb2.ListDestinationsRequest, context: Context
    ) -> alerts_pb2.ListDestinationsResponse:
        """All destinations by name, with how delivery goes."""
        state = await self._plane.read(request.read)
        return alerts_pb2.ListDestinationsResponse(
            destinations=[self._shown(state, state.destinations[name]) for name in sorted(state.destinations)],
            revision=state.revision,
        )

    async def TryDestination(  # noqa: N802
        self, request: alerts_pb2.TryDestinationRequest, context: Context
    ) -> alerts_pb2.TryDestinationResponse:
        """Send a test message now."""
        destination = self._plane.state.destinations.get(request.name)
        if destination is None:
            raise NotFound(
                Reason.DESTINATION_NOT_FOUND,
                f"there is no destination {request.name!a}: `runway destinations list` shows them",
                name=request.name,
            )
        delivered, detail = await self._trial.tried(destination)
        return alerts_pb2.TryDestinationResponse(delivered=delivered, detail=detail)

    def _shown(self, state: State, destination: Destination) -> alerts_pb2.Destination:
        message = destination_message(destination)
        if destination.kind is DestinationKind.WEBHOOK:
            cursor = self._outbox.status(destination.name)
            known = cursor if cursor is not None and cursor.since == destination.since else None
            message.behind = state.revision - (known.low if known is not None else destination.since)
            failure, at = (known.last_failure, known.last_delivered_at) if known is not None else ("", None)
        else:
            teller = self._alerts.status(destination.name)
            failure, at = (teller.failure, teller.delivered_at) if teller is not None else ("", None)
        message.last_failure = f"disabled: {destination.disabled}" if destination.disabled else failure
        if at is not None:
            message.last_delivered_at.FromDatetime(at)
        return message
