"""The control plane itself: OperationsService."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from runway.v1 import operations_pb2
from runway.v1.operations_pb2_grpc import OperationsServiceStub

from runway_client import watching
from runway_client.connection import NO_REASON, Connection, Why
from runway_client.errors import RunwayRpcError
from runway_client.times import from_timestamp, to_timestamp

EVENTS_PER_PAGE = 1_000
"""Events carry their payload; a thousand stay far below the message limit."""


class Operations:
    """Status, events, the clock of a demo, limits and holds."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = OperationsServiceStub(connection.channel)

    def get_status(self) -> operations_pb2.GetStatusResponse:
        """Is it well, and what is it doing."""
        request = operations_pb2.GetStatusRequest()
        return self._connection.read(self.stub.GetStatus, request, method="OperationsService/GetStatus")

    def watch(
        self,
        after_revision: int = 0,
        *,
        include_snapshot: bool = False,
        model_ids: Iterable[str] = (),
        kinds: Iterable[str] = (),
        teams: Iterable[str] = (),
        give_up_after_s: float | None = None,
        on_interruption: Callable[[RunwayRpcError], None] | None = None,
    ) -> Iterator[watching.WatchItem]:
        """Changes as they become durable, resuming by itself after breaks; ends when the connection is closed.

        With `include_snapshot` it begins with a `SnapshotItem` for each model and their `SnapshotEnd`, and does so
        again should it have missed more than the control plane keeps. Then an `Event` for each change and now and then
        a `Progress`: everything up to its revision has been given. Only what is about one of the models or one of the
        teams, and of one of the kinds.

        Raises:
            RunwayRpcError: while iterating; see `watching.Watch.items`.
        """
        return watching.watch(
            self._connection,
            self.stub.Watch,
            after_revision=after_revision,
            include_snapshot=include_snapshot,
            model_ids=model_ids,
            kinds=kinds,
            teams=teams,
            give_up_after_s=give_up_after_s,
            on_interruption=on_interruption,
        )

    def list_events(
        self, after_revision: int = 0, *, model_id: str = "", kinds: Iterable[str] = ()
    ) -> Iterator[operations_pb2.Event]:
        """The audit log after a revision, oldest first, until there is no more."""
        request = operations_pb2.ListEventsRequest(
            after_revision=after_revision, events_max=EVENTS_PER_PAGE, model_id=model_id, kinds=kinds
        )
        while True:
            response = self._connection.read(self.stub.ListEvents, request, method="OperationsService/ListEvents")
            yield from response.events
            if response.scanned_revision >= response.revision or response.scanned_revision <= request.after_revision:
                return
            request.after_revision = response.scanned_revision

    def advance_clock(self, now: datetime, *, why: Why = NO_REASON) -> datetime:
        """Move a driven clock forward; where it stands."""
        request = operations_pb2.AdvanceClockRequest(now=to_timestamp(now))
        response = self._connection.change(
            self.stub.AdvanceClock, request, method="OperationsService/AdvanceClock", why=why
        )
        return from_timestamp(response.now)

    def set_limits(
        self, *, running_max: int, running_per_team_max: int, why: Why = NO_REASON
    ) -> operations_pb2.RetrainingLimits:
        """Set how many retrains may run at once, and no limit besides."""
        limits = operations_pb2.RetrainingLimits(running_max=running_max, running_per_team_max=running_per_team_max)
        return self.set_retraining_limits(limits, why=why)

    def set_retraining_limits(
        self, limits: operations_pb2.RetrainingLimits, *, why: Why = NO_REASON
    ) -> operations_pb2.RetrainingLimits:
        """Set all limits: fleet, team, resource class, scheduler, the reserve of tier 1, and budgets."""
        request = operations_pb2.SetLimitsRequest(limits=limits)
        return self._connection.change(
            self.stub.SetLimits, request, method="OperationsService/SetLimits", why=why
        ).limits

    def hold_retraining(self, *, why: Why = NO_REASON) -> int:
        """Lease nothing new until released; the revision."""
        request = operations_pb2.HoldRetrainingRequest()
        return self._connection.change(
            self.stub.HoldRetraining, request, method="OperationsService/HoldRetraining", why=why
        ).revision

    def release_retraining(self, *, why: Why = NO_REASON) -> int:
        """Lease again; the revision."""
        request = operations_pb2.ReleaseRetrainingRequest()
        return self._connection.change(
            self.stub.ReleaseRetraining, request, method="OperationsService/ReleaseRetraining", why=why
        ).revision

    def take_snapshot(self, *, why: Why = NO_REASON) -> int:
        """Write a snapshot now; its revision."""
        request = operations_pb2.TakeSnapshotRequest()
        return self._connection.change(
            self.stub.TakeSnapshot, request, method="OperationsService/TakeSnapshot", why=why
        ).revision
