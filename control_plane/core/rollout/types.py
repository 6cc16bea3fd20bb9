"""Rollouts: a candidate on its way to production.

state       | on                       | becomes
------------+--------------------------+---------------------------------------
VALIDATING  | validation passed        | PROMOTED   (aliases production, previous move)
VALIDATING  | validation failed, or no | REFUSED    (production stays; candidate alias is dropped)
            | report in time           |
PROMOTED    | rolled back              | ROLLED_BACK
"""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from control_plane.core.ids import ModelId, RetrainId, RolloutId


class RolloutState(StrEnum):
    """Where a rollout stands."""

    VALIDATING = "VALIDATING"
    PROMOTED = "PROMOTED"
    REFUSED = "REFUSED"
    ROLLED_BACK = "ROLLED_BACK"


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate against production on the same holdout."""

    passed: bool
    metric: str
    candidate: float
    production: float | None = None
    standard_error: float = 0.0
    sample_size: int = 0
    explanation: str = ""
    holdout_from: datetime | None = None
    holdout_until: datetime | None = None


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate's way."""

    rollout_id: RolloutId
    model_id: ModelId
    version: int
    production_before: int
    """0 when nothing was in production."""
    state: RolloutState
    started_at: datetime
    validation: Validation | None = None
    ended_at: datetime | None = None
    retrain_id: RetrainId | None = None
    conclusion: str = ""


class ValidationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate must show. `margin` is in the metric's units."""

    skip: bool = False
    margin: float = 0.005
    timeout: timedelta = timedelta(hours=12)


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a version must show before an alias may point at it."""

    require_load_check: bool = False
