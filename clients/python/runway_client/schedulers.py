"""Who runs retrains, and the circuit breaker of each: SchedulersService."""

from collections.abc import Iterable

from runway.v1 import schedulers_pb2
from runway.v1.schedulers_pb2_grpc import SchedulersServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.moments import Moment, read_options


class Schedulers:
    """Look at schedulers, work their breakers by hand, and (schedulers) tell how their own calls went."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = SchedulersServiceStub(connection.channel)

    def list_schedulers(self, *, min_revision: int = 0, as_of: Moment = None) -> list[schedulers_pb2.Scheduler]:
        """All schedulers by name."""
        request = schedulers_pb2.ListSchedulersRequest(read=read_options(min_revision=min_revision, as_of=as_of))
        response = self._connection.read(self.stub.ListSchedulers, request, method="SchedulersService/ListSchedulers")
        return list(response.schedulers)

    def report_calls(
        self, scheduler: str, calls: Iterable[tuple[schedulers_pb2.CallOutcome.ValueType, str]]
    ) -> schedulers_pb2.Scheduler:
        """How calls went, oldest first, each with a word on it; the scheduler afterwards.

        A report whose answer was lost is sent again and counts twice: a breaker then opens a call too early.
        """
        request = schedulers_pb2.ReportSchedulerCallsRequest(
            scheduler=scheduler,
            calls=[schedulers_pb2.SchedulerCall(outcome=outcome, detail=detail[:500]) for outcome, detail in calls],
        )
        method = "SchedulersService/ReportSchedulerCalls"
        return self._connection.read(self.stub.ReportSchedulerCalls, request, method=method).scheduler

    def trip(self, scheduler: str, *, why: Why = NO_REASON) -> schedulers_pb2.Scheduler:
        """Open its breaker until it is reset: it gets no retrains."""
        request = schedulers_pb2.TripBreakerRequest(scheduler=scheduler)
        method = "SchedulersService/TripBreaker"
        return self._connection.change(self.stub.TripBreaker, request, method=method, why=why).scheduler

    def reset(self, scheduler: str, *, why: Why = NO_REASON) -> schedulers_pb2.Scheduler:
        """Close its breaker, and end a bypass.

        Raises:
            NotFound: its breaker never changed.
        """
        request = schedulers_pb2.ResetBreakerRequest(scheduler=scheduler)
        method = "SchedulersService/ResetBreaker"
        return self._connection.change(self.stub.ResetBreaker, request, method=method, why=why).scheduler

    def bypass(self, scheduler: str, *, why: Why) -> schedulers_pb2.Scheduler:
        """Give it retrains in spite of its breaker, until it is reset; `why` must have a reason."""
        request = schedulers_pb2.BypassBreakerRequest(scheduler=scheduler)
        method = "SchedulersService/BypassBreaker"
        return self._connection.change(self.stub.BypassBreaker, request, method=method, why=why).scheduler
