"""Candidates on their way to production."""

from datetime import datetime

import msgspec

from control_plane.core.events.base import EventBase
from control_plane.core.ids import ModelId, RetrainId, RolloutId
from control_plane.core.rollout.types import (
    FreezeWindow,
    Judgement,
    RolloutGroup,
    RolloutPlan,
    RolloutState,
    Uplift,
    Validation,
    ValidationCheck,
)


class RolloutStarted(EventBase, frozen=True, kw_only=True):
    """A candidate is on its way."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    production_before: int
    retrain_id: RetrainId | None = None
    plan: RolloutPlan = RolloutPlan()
    requested_by: str = ""


class ValidationReported(EventBase, frozen=True, kw_only=True):
    """Somebody compared the candidate with production."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    validation: Validation


class CheckReported(EventBase, frozen=True, kw_only=True):
    """Somebody checked the candidate in a way of their own."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    check: ValidationCheck


class RolloutEnded(EventBase, frozen=True, kw_only=True):
    """Promoted, refused or rolled back."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    state: RolloutState
    conclusion: str


class ApprovalAsked(EventBase, frozen=True, kw_only=True):
    """A validated candidate waits for people; with `decision`, one whose judge stayed inconclusive."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    until: datetime
    approvals: int
    decision: bool = False


class RolloutApproved(EventBase, frozen=True, kw_only=True):
    """Somebody said yes; `missing` more must."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    approver: str
    missing: int


class RolloutStepped(EventBase, frozen=True, kw_only=True):
    """The candidate goes into the shadow, or to a step of its canary."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    state: RolloutState
    step: int
    weight: float
    why: str
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    """Metric -> observations of the smaller arm so far."""


class WeightReported(EventBase, frozen=True, kw_only=True):
    """The serving system confirmed a weight, or failed to set one."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    weight: float | None = None
    failure: str = ""


class CanaryJudged(EventBase, frozen=True, kw_only=True):
    """A look said something new: another verdict, or a reason to hold."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    judgement: Judgement


class RolloutHeld(EventBase, frozen=True, kw_only=True):
    """No further step until it is released; by Runway itself where the numbers are not to be trusted."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    by: str
    why: str


class RolloutReleased(EventBase, frozen=True, kw_only=True):
    """It goes on."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int


class RolloutsGrouped(EventBase, frozen=True, kw_only=True):
    """These rollouts move together, upstream first."""

    group: RolloutGroup


class FreezeSet(EventBase, frozen=True, kw_only=True):
    """No step forward for a scope in a window of time."""

    freeze: FreezeWindow


class FreezeRemoved(EventBase, frozen=True, kw_only=True):
    """The window is gone."""

    name: str


class UpliftMeasured(EventBase, frozen=True, kw_only=True):
    """What a promoted version brought in production."""

    model_id: ModelId
    uplift: Uplift
