"""SchedulersService: who runs retrains, and the circuit breaker of each."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from runway.v1 import schedulers_pb2, schedulers_pb2_grpc

from control_plane.api.convert.schedulers import OUTCOMES_FROM, scheduler_message
from control_plane.api.errors import invalid
from control_plane.api.interceptors import Context
from control_plane.api.plane import ANONYMOUS, Outcome, Plane
from control_plane.app.breaker_watch import BreakerWatch
from control_plane.core.commands import BypassBreaker, ResetBreaker, TripBreaker
from control_plane.core.decide.breakers import breaker_of
from control_plane.core.retraining.types import RetrainState
from control_plane.core.state import State

LEASES_BY_ITSELF = "leases by itself"
RETRAINS_LOOKED_BACK_MAX = 2_000
"""For the last lease of each scheduler: a day of a busy fleet."""


class Driven(Protocol):
    """The schedulers that Runway calls."""

    def addresses(self) -> Mapping[str, str]:
        """Where each is called."""
        ...

    def trouble(self, name: str) -> str:
        """What somebody should look at."""
        ...


class SchedulersServicer(schedulers_pb2_grpc.SchedulersServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane, watch: BreakerWatch, driven: Driven) -> None:
        self._plane = plane
        self._watch = watch
        self._driven = driven

    async def ListSchedulers(  # noqa: N802
        self, request: schedulers_pb2.ListSchedulersRequest, context: Context
    ) -> schedulers_pb2.ListSchedulersResponse:
        """All that are configured, named by a policy or a limit, or ever leased or had a breaker, by name."""
        state = await self._plane.read(request.read)
        return schedulers_pb2.ListSchedulersResponse(
            schedulers=self._shown(state, self._plane.moment(state, request.read)), revision=state.revision
        )

    async def ReportSchedulerCalls(  # noqa: N802
        self, request: schedulers_pb2.ReportSchedulerCallsRequest, context: Context
    ) -> schedulers_pb2.ReportSchedulerCallsResponse:
        """Count the calls of a scheduler that leases by itself."""
        for call in request.calls:
            outcome, probing = OUTCOMES_FROM[call.outcome], self._watch.probing(request.scheduler)
            await self._watch.told(request.scheduler, outcome, call.detail, probe=probing)
        return schedulers_pb2.ReportSchedulerCallsResponse(scheduler=self._one(self._plane.state, request.scheduler))

    async def TripBreaker(  # noqa: N802
        self, request: schedulers_pb2.TripBreakerRequest, context: Context
    ) -> schedulers_pb2.TripBreakerResponse:
        """Open it until it is reset."""
        by = request.mutation.actor or ANONYMOUS
        command = TripBreaker(scheduler=request.scheduler, by=by, reason=request.mutation.reason)
        outcome = await self._plane.submit(command, request.mutation)
        return schedulers_pb2.TripBreakerResponse(
            scheduler=self._after(outcome, request.scheduler), revision=outcome.revision
        )

    async def ResetBreaker(  # noqa: N802
        self, request: schedulers_pb2.ResetBreakerRequest, context: Context
    ) -> schedulers_pb2.ResetBreakerResponse:
        """Close it, and end a bypass."""
        outcome = await self._plane.submit(ResetBreaker(scheduler=request.scheduler), request.mutation)
        return schedulers_pb2.ResetBreakerResponse(
            scheduler=self._after(outcome, request.scheduler), revision=outcome.revision
        )

    async def BypassBreaker(  # noqa: N802
        self, request: schedulers_pb2.BypassBreakerRequest, context: Context
    ) -> schedulers_pb2.BypassBreakerResponse:
        """Lease in spite of it, until it is reset; whoever does that says why."""
        if not request.mutation.reason.strip():
            raise invalid("mutation.reason", "required", "say why retrains shall go to a scheduler that fails")
        command = BypassBreaker(scheduler=request.scheduler, by=request.mutation.actor or ANONYMOUS)
        outcome = await self._plane.submit(command, request.mutation)
        return schedulers_pb2.BypassBreakerResponse(
            scheduler=self._after(outcome, request.scheduler), revision=outcome.revision
        )

    def _after(self, outcome: Outcome, name: str) -> schedulers_pb2.Scheduler:
        return self._one(outcome.state, name)

    def _one(self, state: State, name: str) -> schedulers_pb2.Scheduler:
        return next(one for one in self._shown(state, self._plane.now(), name) if one.scheduler == name)

    def _shown(self, state: State, now: datetime, named: str = "") -> list[schedulers_pb2.Scheduler]:
        addresses = self._driven.addresses()
        leased = _last_leases(state)
        running: dict[str, int] = {}
        waiting: dict[str, int] = {}
        for retrain in state.living():
            attempt = retrain.running_attempt
            only = state.models[retrain.model_id].retraining_policy.scheduler
            if attempt is not None:
                running[attempt.scheduler] = running.get(attempt.scheduler, 0) + 1
            elif retrain.state is RetrainState.WAITING and only:
                waiting[only] = waiting.get(only, 0) + 1
        wanted = {record.retraining_policy.scheduler for record in state.models.values()}
        names = {*addresses, *leased, *state.breakers, *state.limits.by_scheduler, *wanted, *waiting, named} - {""}
        return [
            scheduler_message(
                breaker_of(state, name, now),
                known=name in state.breakers,
                running=running.get(name, 0),
                waiting=waiting.get(name, 0),
                last_lease_at=leased.get(name),
                how=addresses.get(name, LEASES_BY_ITSELF),
                trouble=self._driven.trouble(name) if state is self._plane.state else "",
            )
            for name in sorted(names)
        ]


def _last_leases(state: State) -> dict[str, datetime]:
    """When each scheduler last took a retrain, among the newest."""
    found: dict[str, datetime] = {}
    newest = [state.retrains[one] for one in list(state.retrains)[-RETRAINS_LOOKED_BACK_MAX:]]
    for retrain in (*state.living(), *newest):
        for attempt in retrain.attempts:
            if attempt.scheduler not in found or found[attempt.scheduler] < attempt.leased_at:
                found[attempt.scheduler] = attempt.leased_at
    return found
