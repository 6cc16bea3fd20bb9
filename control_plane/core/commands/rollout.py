"""Candidates, canaries, approvals, freezes."""

from control_plane.core.commands.base import CommandBase
from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.rollout.types import FreezeWindow, Look, Uplift, Validation, ValidationCheck, ValidationEvidence


class ReportValidation(CommandBase, frozen=True, kw_only=True):
    """Candidate against production on a holdout: judged by whoever validated, or evidence for the gate to judge."""

    model_id: ModelId
    version: int
    validation: Validation | None = None
    evidence: ValidationEvidence | None = None


class PromoteVersion(CommandBase, frozen=True, kw_only=True):
    """Send a version that passed its validation on its way; `force` promotes any at once and needs a reason."""

    model_id: ModelId
    version: int
    force: bool = False
    by: str = ""


class RollBack(CommandBase, frozen=True, kw_only=True):
    """Point production at the version before."""

    model_id: ModelId


class ReportCheck(CommandBase, frozen=True, kw_only=True):
    """Somebody checked a candidate in a way of their own."""

    model_id: ModelId
    version: int
    check: ValidationCheck


class ExpireValidation(CommandBase, frozen=True, kw_only=True):
    """Nobody validated the candidate in time."""

    rollout_id: RolloutId


class ApproveRollout(CommandBase, frozen=True, kw_only=True):
    """Yes, by somebody other than who asked."""

    rollout_id: RolloutId
    approver: str


class DeclineRollout(CommandBase, frozen=True, kw_only=True):
    """No, where an approval or a decision was asked for."""

    rollout_id: RolloutId
    by: str
    why: str = ""


class AbortRollout(CommandBase, frozen=True, kw_only=True):
    """End a live rollout by hand; traffic goes back to production."""

    rollout_id: RolloutId
    by: str
    why: str = ""


class HoldRollout(CommandBase, frozen=True, kw_only=True):
    """Take no further step until released."""

    rollout_id: RolloutId
    by: str
    why: str = ""


class ReleaseRollout(CommandBase, frozen=True, kw_only=True):
    """Go on."""

    rollout_id: RolloutId


class AdvanceRollout(CommandBase, frozen=True, kw_only=True):
    """Take the next step now, whatever the judge says."""

    rollout_id: RolloutId
    by: str
    why: str = ""


class RecordLook(CommandBase, frozen=True, kw_only=True):
    """What candidate and control have measured since the canary began."""

    rollout_id: RolloutId
    look: Look


class ReportWeight(CommandBase, frozen=True, kw_only=True):
    """The serving system did as it was told (`weight`), or did not (`failure`)."""

    rollout_id: RolloutId
    weight: float | None = None
    failure: str = ""


class GroupRollouts(CommandBase, frozen=True, kw_only=True):
    """These move together from now on."""

    group_id: str
    rollout_ids: tuple[RolloutId, ...]


class SetFreeze(CommandBase, frozen=True, kw_only=True):
    """No step forward for a scope in a window of time."""

    freeze: FreezeWindow


class RemoveFreeze(CommandBase, frozen=True, kw_only=True):
    """Take the window back."""

    name: str


class RecordUplift(CommandBase, frozen=True, kw_only=True):
    """What a promoted version brought."""

    uplift: Uplift


class StepRollout(CommandBase, frozen=True, kw_only=True):
    """A rollout may have come far enough for its next step, or have waited for too long."""

    rollout_id: RolloutId


class ExpireApproval(CommandBase, frozen=True, kw_only=True):
    """Nobody approved in time."""

    rollout_id: RolloutId
