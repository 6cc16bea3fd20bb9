"""Retrains, their attempts, and what holds them."""

from datetime import datetime

from control_plane.core.events.base import EventBase
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId
from control_plane.core.retraining.types import (
    AttemptState,
    Breaker,
    FailureClass,
    RetrainCause,
    RetrainingLimits,
    RetrainState,
)


class RetrainRequested(EventBase, frozen=True, kw_only=True):
    """A retrain waits."""

    retrain_id: RetrainId
    model_id: ModelId
    cause: RetrainCause
    score: float
    not_before: datetime
    ignore_cooldown: bool = False
    group: str = ""
    expires_at: datetime | None = None
    rule: str = ""
    """Which rule asked, where one did."""


class RetrainJoined(EventBase, frozen=True, kw_only=True):
    """A live retrain was asked for once more."""

    retrain_id: RetrainId
    model_id: ModelId
    cause: RetrainCause
    not_before: datetime
    ignore_cooldown: bool = False


class RetrainLeased(EventBase, frozen=True, kw_only=True):
    """A scheduler took a retrain: an attempt runs."""

    retrain_id: RetrainId
    model_id: ModelId
    attempt_id: AttemptId
    number: int
    scheduler: str
    lease_token: LeaseToken
    expires_at: datetime
    wave: int
    gpu_hours_reserved: float = 0.0
    probe: bool = False
    memory_scale: int = 1


class LeaseRenewed(EventBase, frozen=True, kw_only=True):
    """The attempt lives."""

    retrain_id: RetrainId
    model_id: ModelId
    attempt_id: AttemptId
    expires_at: datetime
    run: str = ""


class AttemptEnded(EventBase, frozen=True, kw_only=True):
    """An attempt ended. `retry_at` set: it will be tried again; else see RetrainEnded or RolloutStarted."""

    retrain_id: RetrainId
    model_id: ModelId
    attempt_id: AttemptId
    state: AttemptState
    failure: str = ""
    run: str = ""
    version: int | None = None
    retry_at: datetime | None = None
    failure_class: FailureClass | None = None
    gpu_hours: float = 0.0
    log_url: str = ""


class RetrainHeld(EventBase, frozen=True, kw_only=True):
    """Somebody lets a waiting retrain wait."""

    retrain_id: RetrainId
    model_id: ModelId


class RetrainReleased(EventBase, frozen=True, kw_only=True):
    """It goes on."""

    retrain_id: RetrainId
    model_id: ModelId


class RetrainEnded(EventBase, frozen=True, kw_only=True):
    """A retrain came to its end."""

    retrain_id: RetrainId
    model_id: ModelId
    state: RetrainState
    conclusion: str
    superseded_by: RetrainId | None = None


class CascadeSettled(EventBase, frozen=True, kw_only=True):
    """A model that cooled down after an upstream promotion was looked at afresh: is it harmed?"""

    model_id: ModelId
    upstream: ModelId
    harmed: bool
    why: str


class BreakerChanged(EventBase, frozen=True, kw_only=True):
    """A scheduler's circuit breaker is another one now."""

    breaker: Breaker


class CascadeCooldownStarted(EventBase, frozen=True, kw_only=True):
    """An upstream promotion: these models wait, are then evaluated, and retrain only if the evidence says so."""

    upstream: ModelId
    version: int
    until: dict[ModelId, datetime]


class LimitsSet(EventBase, frozen=True, kw_only=True):
    """Limits on what runs at once changed."""

    limits: RetrainingLimits


class RetrainingHeld(EventBase, frozen=True, kw_only=True):
    """Nothing new is leased."""


class RetrainingReleased(EventBase, frozen=True, kw_only=True):
    """Leasing goes on."""
