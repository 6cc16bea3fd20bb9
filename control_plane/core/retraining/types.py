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


LIVE = frozenset({RetrainState.WAITING, RetrainState.RUNNING, RetrainState.VALIDATING})


class RetrainCause(StrEnum):
    """Why a retrain was asked for."""

    STALE = "STALE"
    OPERATOR = "OPERATOR"
    UPSTREAM = "UPSTREAM"
    RULE = "RULE"


class AttemptState(StrEnum):
    """How an attempt stands."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    CANCELLED = "CANCELLED"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
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


class Retrain(msgspec.Struct, frozen=True, kw_only=True):
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


class RetrainingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many attempts may run at once, in the fleet and per team."""

    running_max: int = 50
    running_per_team_max: int = 10
