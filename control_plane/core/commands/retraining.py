"""Retrains, leases, limits."""

from control_plane.core.commands.base import CommandBase
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId
from control_plane.core.retraining.types import FailureClass, RetrainCause, RetrainingLimits


class RequestRetrain(CommandBase, frozen=True, kw_only=True):
    """Ask for a retrain, or add a cause to the live one."""

    model_id: ModelId
    cause: RetrainCause
    ignore_cooldown: bool = False
    supersede: bool = False
    off_peak: bool = False
    group: str = ""


class HoldRetrain(CommandBase, frozen=True, kw_only=True):
    """Let a waiting retrain wait until it is released."""

    retrain_id: RetrainId


class ReleaseRetrain(CommandBase, frozen=True, kw_only=True):
    """Let it go on."""

    retrain_id: RetrainId


class ApplyRetrainPlan(CommandBase, frozen=True, kw_only=True):
    """Request all that a plan asks for, as one group, if the plan is still the one with this etag (empty: whatever)."""

    model_ids: tuple[ModelId, ...]
    ignore_cooldown: bool = False
    off_peak: bool = False
    etag: str = ""


class ExpireRetrain(CommandBase, frozen=True, kw_only=True):
    """A request that has not run in time."""

    retrain_id: RetrainId


class SettleCascade(CommandBase, frozen=True, kw_only=True):
    """Nobody has looked at a model since its cooldown after an upstream promotion."""

    model_id: ModelId


class OpenBreaker(CommandBase, frozen=True, kw_only=True):
    """Too many calls to a scheduler failed. `jitter`, 0 to 1, spreads the time until it is tried out again."""

    scheduler: str
    reason: str
    jitter: float


class HalfOpenBreaker(CommandBase, frozen=True, kw_only=True):
    """Its time has come: try the scheduler out."""

    scheduler: str


class RecordProbe(CommandBase, frozen=True, kw_only=True):
    """How a call went while the breaker was half open."""

    scheduler: str
    succeeded: bool
    detail: str
    jitter: float


class TripBreaker(CommandBase, frozen=True, kw_only=True):
    """Open a breaker by hand, until it is reset."""

    scheduler: str
    by: str
    reason: str


class ResetBreaker(CommandBase, frozen=True, kw_only=True):
    """Close it by hand."""

    scheduler: str


class BypassBreaker(CommandBase, frozen=True, kw_only=True):
    """Lease in spite of it, until it is reset."""

    scheduler: str
    by: str


class CancelRetrain(CommandBase, frozen=True, kw_only=True):
    """End a live retrain without a result."""

    retrain_id: RetrainId


class LeaseRetrains(CommandBase, frozen=True, kw_only=True):
    """Take what may run now. `lease_tokens` are fresh random strings, one for each lease that may be given."""

    scheduler: str
    lease_tokens: tuple[LeaseToken, ...]
    known_attempt_ids: tuple[AttemptId, ...] = ()


class RenewLease(CommandBase, frozen=True, kw_only=True):
    """The attempt is still being worked on."""

    attempt_id: AttemptId
    lease_token: LeaseToken
    run: str = ""


class ReportSuccess(CommandBase, frozen=True, kw_only=True):
    """The attempt produced a version."""

    attempt_id: AttemptId
    lease_token: LeaseToken
    version: int
    run: str = ""
    gpu_hours: float | None = None
    log_url: str = ""


class ReportFailure(CommandBase, frozen=True, kw_only=True):
    """The attempt failed. `permanent`: trying again is pointless."""

    attempt_id: AttemptId
    lease_token: LeaseToken
    failure: str
    run: str = ""
    permanent: bool = False
    failure_class: FailureClass | None = None
    """None: read from the failure's text."""
    gpu_hours: float | None = None
    log_url: str = ""


class SetLimits(CommandBase, frozen=True, kw_only=True):
    """How many attempts may run at once."""

    limits: RetrainingLimits


class HoldRetraining(CommandBase, frozen=True, kw_only=True):
    """Lease nothing new."""


class ReleaseRetraining(CommandBase, frozen=True, kw_only=True):
    """Lease again."""


class ExpireAttempt(CommandBase, frozen=True, kw_only=True):
    """An attempt's lease or time ran out."""

    attempt_id: AttemptId


class CloseHealed(CommandBase, frozen=True, kw_only=True):
    """A waiting retrain whose only cause is gone: the model is fresh again."""

    retrain_id: RetrainId
