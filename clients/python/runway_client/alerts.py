"""What is wrong now, and where it is told: AlertsService."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import alerts_pb2
from runway.v1.alerts_pb2_grpc import AlertsServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.moments import Moment, read_options


class Alerts:
    """Alerts follow from what is so: there is no way to raise or close one by hand, only to silence it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = AlertsServiceStub(connection.channel)

    def list_alerts(
        self, *, team: str = "", model_id: str = "", min_revision: int = 0, as_of: Moment = None
    ) -> list[alerts_pb2.Alert]:
        """What is wrong, the worst first, then the oldest; those of a team or about a model."""
        request = alerts_pb2.ListAlertsRequest(
            team=team, model_id=model_id, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        response = self._connection.read(self.stub.ListAlerts, request, method="AlertsService/ListAlerts")
        return list(response.alerts)

    def silence_alert(self, key: str, until: datetime, *, why: Why = NO_REASON) -> alerts_pb2.SilenceAlertResponse:
        """Tell nobody about an alert until then, by the control plane's clock; a moment that has passed ends it."""
        at = Timestamp()
        at.FromDatetime(until)
        request = alerts_pb2.SilenceAlertRequest(key=key, until=at)
        return self._connection.change(self.stub.SilenceAlert, request, method="AlertsService/SilenceAlert", why=why)

    def set_destination(
        self, destination: alerts_pb2.Destination, *, why: Why = NO_REASON
    ) -> alerts_pb2.SetDestinationResponse:
        """Send alerts or events there; in place of the destination of that name, if there is one.

        Raises:
            InvalidRequest: with all that is wrong.
        """
        request = alerts_pb2.SetDestinationRequest(destination=destination)
        return self._connection.change(
            self.stub.SetDestination, request, method="AlertsService/SetDestination", why=why
        )

    def remove_destination(self, name: str, *, why: Why = NO_REASON) -> alerts_pb2.RemoveDestinationResponse:
        """Send nothing there any more."""
        request = alerts_pb2.RemoveDestinationRequest(name=name)
        return self._connection.change(
            self.stub.RemoveDestination, request, method="AlertsService/RemoveDestination", why=why
        )

    def list_destinations(self, *, min_revision: int = 0) -> list[alerts_pb2.Destination]:
        """All destinations by name, with how delivery goes."""
        request = alerts_pb2.ListDestinationsRequest(read=read_options(min_revision=min_revision))
        response = self._connection.read(self.stub.ListDestinations, request, method="AlertsService/ListDestinations")
        return list(response.destinations)

    def try_destination(self, name: str) -> alerts_pb2.TryDestinationResponse:
        """Send a test message now; whether it was taken, and what came back."""
        request = alerts_pb2.TryDestinationRequest(name=name)
        return self._connection.read(self.stub.TryDestination, request, method="AlertsService/TryDestination")
