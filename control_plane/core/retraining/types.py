"""Retrains and their attempts.

Theory of operation. A model has at most one *live* retrain. It waits until order, cooldown and limits allow; a
scheduler then takes a lease, which makes an attempt. The attempt ends by report, by an expired lease or by a timeout:

    state       | on                                   | becomes
    ------------+--------------------------------------+---------------------------------------------
    WAITING     | leased                               | RUNNING
    WAITING     | cancelled, or no longer needed       | CANCELLED
    RUNNING     | succeeded with a version             | VALIDATING
    RUNNING     | failed / lease expired / timed out   | WAITING (not before the backoff ends), or
                |                                      | FAILED after the last attempt
    RUNNING     | cancelled                            | CANCELLED (the worker learns by LEASE_LOST)
    VALIDATING  | candidate passed                     | PROMOTED
    VALIDATING  | candidate refused, or no report      | REFUSED
    VALIDATING  | cancelled                            | CANCELLED
"""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId, RolloutId


class RetrainState(StrEnum):
    """Where a retrain stands; see the table above."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    VALIDATING = "VALIDATING"
    PROMOTED = "PROMOTED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"


LIVE = frozenset({RetrainState.WAITING, RetrainState.RUNNING, RetrainState.VALIDATING})


class RetrainCause(StrEnum):
    """Why a retrain was asked for."""

    STALE = "STALE"
    OPERATOR = "OPERATOR"
    UPSTREAM = "UPSTREAM"
    RULE = "RULE"
    SCHEDULE = "SCHEDULE"


class FailureClass(StrEnum):
    """Why an attempt failed; see the contract's `FailureClass` for what follows."""

    UNKNOWN = "UNKNOWN"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DATA_MISSING = "DATA_MISSING"
    PREEMPTED = "PREEMPTED"
    BUG = "BUG"
    TIMEOUT = "TIMEOUT"
    SCHEDULER = "SCHEDULER"


UNCOUNTED = frozenset({FailureClass.PREEMPTED, FailureClass.SCHEDULER})
"""Nobody's fault: such an attempt is not one of `attempts_max`."""


class AttemptState(StrEnum):
    """How an attempt stands."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    CANCELLED = "CANCELLED"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One try of a retrain under one lease."""

    attempt_id: AttemptId
    number: int
    state: AttemptState
    scheduler: str
    lease_token: LeaseToken
    leased_at: datetime
    expires_at: datetime
    wave: int = 1
    ended_at: datetime | None = None
    failure: str = ""
    run: str = ""
    version: int | None = None
    failure_class: FailureClass | None = None
    gpu_hours_reserved: float = 0.0
    """Held in the team's budget while it runs."""
    gpu_hours: float = 0.0
    """Spent, once it has ended."""
    log_url: str = ""
    probe: bool = False
    """The one attempt that tries out a scheduler whose breaker is half open."""
    memory_scale: int = 1


class Retrain(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A retrain from request to end."""

    retrain_id: RetrainId
    model_id: ModelId
    state: RetrainState
    causes: tuple[RetrainCause, ...]
    score: float
    requested_at: datetime
    requested_by: str
    reason: str
    not_before: datetime
    ignore_cooldown: bool = False
    attempts: tuple[Attempt, ...] = ()
    ended_at: datetime | None = None
    conclusion: str = ""
    rollout_id: RolloutId | None = None
    held_by: str = ""
    """Who lets it wait until it is released; empty if nobody does."""
    hold_reason: str = ""
    group: str = ""
    """The cascade or applied plan that it belongs to; empty for one of its own."""
    expires_at: datetime | None = None
    superseded_by: RetrainId | None = None
    wanted_at: datetime | None = None
    """From when on it was to run when it was asked for; tries that came to nothing do not change it."""

    @property
    def live(self) -> bool:
        """Not ended yet."""
        return self.state in LIVE

    @property
    def running_attempt(self) -> Attempt | None:
        """The attempt that holds the lease, if one does."""
        if self.attempts and self.attempts[-1].state is AttemptState.RUNNING:
            return self.attempts[-1]
        return None


class RetrainingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from a verdict, and how often. See proto/runway/v1/policies.proto for each field."""

    automatic: bool = True
    cooldown: timedelta = timedelta(hours=24)
    cascade_cooldown: timedelta = timedelta(hours=4)
    lease_ttl: timedelta = timedelta(minutes=10)
    attempt_timeout: timedelta = timedelta(hours=6)
    attempts_max: int = 3
    retry_backoff: timedelta = timedelta(minutes=5)
    off_peak_start_hour: int = 22
    off_peak_end_hour: int = 6
    scheduler: str = ""
    resource_class: str = "default"
    gpus: float = 0.0
    duration_expected: timedelta = timedelta(minutes=30)
    request_ttl: timedelta = timedelta(days=14)
    impact_max: int = 25
    every: timedelta = timedelta(0)
    cascade_cooldown_max: timedelta = timedelta(hours=24)
    data_backoff: timedelta = timedelta(hours=1)
    preemptions_max: int = 10


class RetrainingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many attempts may run at once, in the fleet, per team, class and scheduler; and what a team may spend."""

    running_max: int = 50
    running_per_team_max: int = 10
    tier1_reserve: int = 0
    """Of `running_max`, kept free for tier 1."""
    by_team: dict[str, int] = {}
    by_resource_class: dict[str, int] = {}
    by_scheduler: dict[str, int] = {}
    gpu_hours_per_week: dict[str, float] = {}
    """Team -> GPU hours from Monday to Sunday, UTC; a team without an entry has no budget to keep."""


class BreakerState(StrEnum):
    """Of a scheduler's circuit breaker; see the contract's `BreakerState`."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler's circuit breaker. The calls that it counts are not kept in the log, its changes are.

    state      | on                                              | becomes
    -----------+-------------------------------------------------+----------------------------------
    CLOSED     | too many failed calls, or tripped by hand       | OPEN
    OPEN       | `open_until` has come                           | HALF_OPEN
    HALF_OPEN  | the probe succeeded, three times                | CLOSED (drains at a bounded rate)
    HALF_OPEN  | a call failed                                   | OPEN, twice as long
    any        | reset by hand                                   | CLOSED
    """

    scheduler: str
    state: BreakerState = BreakerState.CLOSED
    since: datetime
    reason: str = ""
    open_until: datetime | None = None
    """None while OPEN: somebody tripped it, only a reset closes it."""
    openings: int = 0
    """In a row, without a close between: each doubles the time."""
    successes: int = 0
    """While HALF_OPEN."""
    bypassed_by: str = ""
