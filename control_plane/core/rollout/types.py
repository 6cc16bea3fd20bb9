"""Rollouts: a candidate on its way to production.

state             | on                                      | becomes
------------------+-----------------------------------------+------------------------------------------------------
VALIDATING        | validation failed, or no report in time | REFUSED    (production stays; candidate alias dropped)
VALIDATING        | passed, approvals are needed            | AWAITING_APPROVAL
AWAITING_APPROVAL | declined, or not approved in time       | REFUSED
VALIDATING or     | passed / approved; the model is served  | SHADOW, or CANARY at the first step
AWAITING_APPROVAL | by nothing that splits traffic          | PROMOTED   (aliases production, previous move)
SHADOW, CANARY    | baked, enough seen, not FAIL            | CANARY at the next step; after the last PROMOTED
SHADOW, CANARY    | the judge says FAIL                     | ROLLED_BACK (weight 0 first)
CANARY            | inconclusive for too long               | AWAITING_DECISION
AWAITING_DECISION | approved / declined                     | the next step, or PROMOTED / ROLLED_BACK
any live          | aborted, or one of its group fell       | ABORTED
PROMOTED          | rolled back                             | ROLLED_BACK

A held rollout keeps its state and its weight, and takes no step. `weight` is what the serving system shall do,
`weight_applied` what it has confirmed; whoever drives it makes the second follow the first.
"""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from control_plane.core.ids import ModelId, RetrainId, RolloutId


class RolloutState(StrEnum):
    """Where a rollout stands."""

    VALIDATING = "VALIDATING"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    SHADOW = "SHADOW"
    CANARY = "CANARY"
    AWAITING_DECISION = "AWAITING_DECISION"
    PROMOTED = "PROMOTED"
    REFUSED = "REFUSED"
    ROLLED_BACK = "ROLLED_BACK"
    ABORTED = "ABORTED"


LIVE = frozenset(
    {
        RolloutState.VALIDATING,
        RolloutState.AWAITING_APPROVAL,
        RolloutState.SHADOW,
        RolloutState.CANARY,
        RolloutState.AWAITING_DECISION,
    }
)
SERVING = frozenset({RolloutState.SHADOW, RolloutState.CANARY, RolloutState.AWAITING_DECISION})
"""The candidate is in the serving system."""


class ValidationCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One check of the offline gate: `primary`, `slice:<slice>`, `calibration`, `latency`, `size`, `load`, `embedding`,
    or a custom check's name."""

    name: str
    passed: bool
    value: float | None = None
    bound: float | None = None
    explanation: str = ""


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
    checks: tuple[ValidationCheck, ...] = ()


class SliceEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The primary metric on one slice of the holdout."""

    slice: str
    candidate: float
    production: float
    standard_error: float
    sample_size: int


class ValidationEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, candidate against production on the same rows; the gate decides by policy."""

    metric: str
    candidate: float
    production: float | None = None
    standard_error: float = 0.0
    """Of the difference, paired."""
    sample_size: int = 0
    slices: tuple[SliceEvidence, ...] = ()
    calibration_error: float | None = None
    latency_p99_ms: float | None = None
    size_mb: float | None = None
    loads: bool | None = None
    embedding_overlap: float | None = None
    """As a share of the noise floor."""
    holdout_from: datetime | None = None
    holdout_until: datetime | None = None
    custom: tuple[ValidationCheck, ...] = ()
    higher_is_better: bool | None = None
    """Of a metric that is not among the known ones."""


class Direction(StrEnum):
    """Which way a metric is better."""

    HIGHER = "higher"
    LOWER = "lower"


class CanaryMetric(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge compares. `tolerance` is relative to the control's mean."""

    name: str
    direction: Direction
    tolerance: float


class RolloutStep(msgspec.Struct, frozen=True, kw_only=True):
    """One share of the traffic, 0 to 1; the control is a part of production of the same size."""

    weight: float
    bake: timedelta
    observations_min: int


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a candidate goes to production, fixed when its rollout begins, so that a policy changes no rollout under way.

    Without `serving` nothing splits the traffic: there are no steps."""

    serving: str = ""
    steps: tuple[RolloutStep, ...] = ()
    shadow: timedelta = timedelta(0)
    metrics: tuple[CanaryMetric, ...] = ()
    false_rollback_max: float = 0.03
    wait_max: timedelta = timedelta(hours=24)
    approvals: int = 0
    approval_ttl: timedelta = timedelta(hours=72)
    start_hour: int = 0
    end_hour: int = 0


class JudgeVerdict(StrEnum):
    """What the judge says; see the contract's `JudgeVerdict`."""

    PASS = "PASS"  # noqa: S105 - a verdict
    MARGINAL = "MARGINAL"
    FAIL = "FAIL"
    NODATA = "NODATA"


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one arm since the canary began: count, mean, sum of squared deviations from it."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What candidate and control have measured since the canary began, by metric; requests that each was given."""

    at: datetime
    candidate: dict[str, Arm] = {}
    control: dict[str, Arm] = {}
    candidate_requests: int = 0
    control_requests: int = 0
    trouble: str = ""
    """Why numbers are missing, where that is known."""


class MetricJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """One metric as the judge sees it. Differences are relative to the control's mean; better is positive."""

    name: str
    verdict: JudgeVerdict
    direction: Direction
    tolerance: float
    control_mean: float = 0.0
    candidate_mean: float = 0.0
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    control_count: int = 0
    candidate_count: int = 0


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One look, judged."""

    verdict: JudgeVerdict
    at: datetime
    step: int
    metrics: tuple[MetricJudgement, ...] = ()
    reason: str
    sample_ratio_evidence: float = 0.0
    """e-value against equal arms."""
    requests: int = 0
    """Of both arms together."""
    ready: bool = False
    """As far as the numbers go, the next step may be taken."""
    lacking: tuple[str, ...] = ()
    """What it still lacks, in words."""
    counts: dict[str, int] = {}
    """Metric -> observations of the smaller arm."""
    trouble: str = ""
    """Why numbers are missing, where that is known."""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody said yes."""

    approver: str
    at: datetime
    reason: str = ""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a rollout did, in a sentence."""

    at: datetime
    sentence: str


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
    plan: RolloutPlan = RolloutPlan()
    requested_by: str = ""
    step: int = -1
    """Index into the plan's steps; -1 before the first."""
    weight: float = 0.0
    weight_applied: float | None = None
    weight_failure: str = ""
    stepped_at: datetime | None = None
    canary_since: datetime | None = None
    """From when on its numbers count: when it went into the shadow, and anew when its canary began."""
    judgement: Judgement | None = None
    """The one in force: of the newest look that said something new."""
    step_counts: dict[str, int] = {}
    """Metric -> observations of the smaller arm when the present step began."""
    approvals: tuple[Approval, ...] = ()
    approval_until: datetime | None = None
    held_by: str = ""
    hold_reason: str = ""
    group_id: str = ""
    story: tuple[Moment, ...] = ()
    checks: tuple[ValidationCheck, ...] = ()
    """Reported by others than who validated; the newest of each name."""

    @property
    def live(self) -> bool:
        """Not ended yet."""
        return self.state in LIVE

    @property
    def unconfirmed(self) -> bool:
        """It has ended, and what splits the traffic has not confirmed yet that it follows."""
        if self.live or not self.plan.serving or self.weight_applied == self.weight:
            return False
        moved = self.state in {RolloutState.PROMOTED, RolloutState.ROLLED_BACK}
        return moved or self.stepped_at is not None


class RolloutGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Rollouts that move together, upstream first."""

    group_id: str
    rollout_ids: tuple[RolloutId, ...]


class FreezeWindow(msgspec.Struct, frozen=True, kw_only=True):
    """No step forward and no promotion from `starts_at` to `ends_at` for the models of a scope."""

    name: str
    scope: str
    starts_at: datetime
    ends_at: datetime
    reason: str = ""
    set_by: str = ""


class Uplift(msgspec.Struct, frozen=True, kw_only=True):
    """What a promoted version brought, measured in production: `uplift` is positive if it is better."""

    retrain_id: RetrainId | None
    model_id: ModelId
    rollout_id: RolloutId
    version: int
    metric: str
    before: float
    after: float
    uplift: float
    standard_error: float
    sample_size: int
    gpu_hours: float
    measured_at: datetime


class ValidationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate must show. `margin` is in the metric's units. See proto/runway/v1/policies.proto."""

    skip: bool = False
    margin: float = 0.005
    timeout: timedelta = timedelta(hours=12)
    significance: float = 0.05
    slice_margin: float = 0.0
    slice_rows_min: int = 200
    calibration_max: float = 0.0
    latency_ms_max: float = 0.0
    size_mb_max: float = 0.0
    embedding_compatible: bool = False
    checks: str = ""
    rows_min: int = 0


class RolloutPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a version goes to production. See proto/runway/v1/policies.proto."""

    require_load_check: bool = False
    serving: str = ""
    steps: str = "5%, 20%, 50%"
    bake: timedelta = timedelta(hours=1)
    observations_min: int = 1_000
    shadow: timedelta = timedelta(0)
    metrics: str = ""
    false_rollback_max: float = 0.03
    wait_max: timedelta = timedelta(hours=24)
    approvals: int = 0
    approval_ttl: timedelta = timedelta(hours=72)
    start_hour: int = 0
    end_hour: int = 0
