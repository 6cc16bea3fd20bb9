"""Schedulers and their breakers on the wire."""

from datetime import datetime

from runway.v1 import schedulers_pb2

from control_plane.api.convert.common import timestamp
from control_plane.core.retraining.breaker import CallOutcome
from control_plane.core.retraining.types import Breaker, BreakerState

BREAKERS = {state: schedulers_pb2.BreakerState.Value(f"BREAKER_STATE_{state.value}") for state in BreakerState}
OUTCOMES_FROM = {schedulers_pb2.CallOutcome.Value(f"CALL_OUTCOME_{outcome.value}"): outcome for outcome in CallOutcome}


def scheduler_message(
    breaker: Breaker, *, known: bool, running: int, waiting: int, last_lease_at: datetime | None, how: str, trouble: str
) -> schedulers_pb2.Scheduler:
    """A scheduler. `known`: its breaker changed once, so `since` is a time that means something."""
    return schedulers_pb2.Scheduler(
        scheduler=breaker.scheduler,
        breaker=BREAKERS[breaker.state],
        since=timestamp(breaker.since if known else None),
        reason="; ".join(filter(None, (breaker.reason, trouble))),
        open_until=timestamp(breaker.open_until),
        successes=breaker.successes,
        bypassed_by=breaker.bypassed_by,
        running=running,
        waiting=waiting,
        last_lease_at=timestamp(last_lease_at),
        how=how,
    )
