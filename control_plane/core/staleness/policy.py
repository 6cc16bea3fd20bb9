"""When a model counts as stale: data, versioned with the model, never configuration of a server."""

import math
from collections.abc import Collection
from datetime import timedelta
from enum import StrEnum

import msgspec

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.staleness.guardrails import guardrail_violations

CADENCES = {1: timedelta(minutes=15), 2: timedelta(hours=1), 3: timedelta(hours=6), 4: timedelta(days=1)}
"""How often a model is evaluated, by tier: the more a model matters, the sooner its trouble is seen."""

WEIGHTS_SUM_ERROR_MAX = 1e-6
"""Weights written with six decimals still count as summing to 1."""


class Fusion(StrEnum):
    """How the four signals become a score."""

    WEIGHTED_AVERAGE = "WEIGHTED_AVERAGE"
    """sum of weight x signal: what most people expect."""
    NOISY_OR = "NOISY_OR"
    """1 - prod(1 - weight x signal): with a weight near 1, one fatal signal fires alone, as in an average it
    cannot."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Weight of each signal. Performance weighs most: it is the only one that sees whether answers are
    right.
    """

    age: float = 0.20
    input_drift: float = 0.25
    prediction_drift: float = 0.20
    performance: float = 0.35
    concept_drift: float = 0.0
    """Shown where outcomes exist; weighs nothing unless somebody says so, because a performance drop has it already."""


class StalenessPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Weights, thresholds and pace. Durations in days are floats because people write them so."""

    weights: Weights = Weights()
    fusion: Fusion = Fusion.WEIGHTED_AVERAGE
    stale_threshold: float = 0.60
    """Score at or above which an evaluation says STALE."""
    at_risk_threshold: float = 0.40
    """Score at or above which an evaluation says AT_RISK."""
    age_backstop_days: float = 30.0
    """Hard trigger: STALE at this age whatever else is true. The age signal rises in a straight line up to
    it."""
    psi_moderate: float = 0.10
    """Debiased PSI above which a significant difference counts as drift (the industry's rule of thumb)."""
    psi_significant: float = 0.25
    """Debiased PSI at which a feature's drift counts in full."""
    drifted_share_full: float = 0.30
    """Share of drifted features, by importance, at which the input drift signal is 1."""
    false_discovery_rate: float = 0.05
    """Benjamini-Hochberg level over a model's features; also the level of the test on its predictions."""
    seasonal_weight: float = 0.50
    """What a drift that is usual for the season counts, against one that is not."""
    performance_tolerance: float = 0.05
    """Sure drop of the metric, in its own units, at which the performance signal is 1. Set it for MAE and
    RMSE."""
    performance_floor: float | None = None
    """Hard trigger: STALE when the metric is worse than this."""
    coverage_min: float = 0.80
    """Share of matured predictions with outcomes below which labels are not trusted in full."""
    hysteresis_k: int = 2
    """The verdict changes when k ..."""
    hysteresis_n: int = 3
    """... of the last n evaluations say so."""
    window_days: float = 7.0
    """How far back the current window reaches."""
    predictions_min: int = 500
    """With fewer predictions in the window, drift is not known."""
    labels_min: int = 200
    """With fewer matured outcomes, performance is not known."""
    cadence: timedelta = CADENCES[2]
    """How often the model is evaluated."""
    guardrails: str = ""
    """Guardrail metrics with their tolerances, as `brier 0.02, accuracy 0.05`: a sure drop beyond one is a veto."""
    estimate: bool = True
    """Without enough outcomes, read the performance off labelled consumers or expect it from the scores alone."""
    embedding_floor_share: float = 0.80
    """Embeddings are compatible while their k-NN overlap is at least this share of the noise floor."""
    verdict_cooldown: timedelta = timedelta(0)
    """After the verdict changed it does not change again for so long, unless a hard trigger makes it STALE."""
    evaluate_on_evidence: bool = True
    """Evaluate when new evidence arrives, not only by the cadence."""


def default_policy(tier: int) -> StalenessPolicy:
    """The policy of a model of this tier whose owner gave none.

    >>> default_policy(1).cadence
    datetime.timedelta(seconds=900)
    """
    return StalenessPolicy(cadence=CADENCES.get(tier, CADENCES[4]))


_UNIT = ("stale_threshold", "at_risk_threshold", "drifted_share_full", "false_discovery_rate")
"""In (0, 1]."""
_SHARE = ("coverage_min", "seasonal_weight", "embedding_floor_share")
"""In [0, 1]."""
_POSITIVE = ("age_backstop_days", "psi_moderate", "psi_significant", "performance_tolerance", "window_days")


def policy_violations(
    policy: StalenessPolicy,
    field: str = "staleness",
    *,
    metrics: Collection[str] | None = None,
    primary: str = "",
) -> list[Violation]:
    """All broken rules of a policy.

    Args:
        metrics: names that a guardrail may have; None takes any.
        primary: the model's primary metric, which is no guardrail.

    >>> [v.field for v in policy_violations(StalenessPolicy(at_risk_threshold=0.7, window_days=0))]
    ['staleness.window_days', 'staleness.at_risk_threshold']
    """
    rules = [
        *((name, 0 < getattr(policy, name) <= 1, "must be above 0 and at most 1") for name in _UNIT),
        *((name, 0 <= getattr(policy, name) <= 1, "must be from 0 to 1") for name in _SHARE),
        *((name, 0 < getattr(policy, name) < math.inf, "must be a positive number") for name in _POSITIVE),
        *((name, getattr(policy, name) >= 0, "must be 0 or more") for name in ("predictions_min", "labels_min")),
        ("performance_floor", math.isfinite(policy.performance_floor or 0.0), "must be a finite number, or none"),
        (
            "at_risk_threshold",
            not policy.at_risk_threshold > policy.stale_threshold,
            f"must not be above stale_threshold, which is {policy.stale_threshold:g}",
        ),
        (
            "psi_moderate",
            not policy.psi_moderate > policy.psi_significant,
            f"must not be above psi_significant, which is {policy.psi_significant:g}",
        ),
        (
            "hysteresis_k",
            1 <= policy.hysteresis_k <= policy.hysteresis_n,
            f"must be from 1 to hysteresis_n, which is {policy.hysteresis_n}",
        ),
        ("cadence", policy.cadence > timedelta(0), "must be longer than 0"),
        ("verdict_cooldown", policy.verdict_cooldown >= timedelta(0), "must be 0 or longer"),
    ]
    found = [
        Violation(field=f"{field}.{name}", rule="range", message=f"{getattr(policy, name)} {message}")
        for name, holds, message in rules
        if not holds
    ]
    guarded = guardrail_violations(policy.guardrails, f"{field}.guardrails", metrics=metrics, primary=primary)
    return [*found, *_weight_violations(policy, f"{field}.weights"), *guarded]


def _weight_violations(policy: StalenessPolicy, field: str) -> list[Violation]:
    """Each from 0 to 1. In an average they sum to 1; in a noisy OR each stands for itself, but one must
    count.
    """
    weights = msgspec.structs.asdict(policy.weights)
    found = [
        Violation(field=f"{field}.{name}", rule="range", message=f"{weight} is not from 0 to 1")
        for name, weight in weights.items()
        if not 0 <= weight <= 1
    ]
    total = sum(weights.values())
    if policy.fusion is Fusion.WEIGHTED_AVERAGE and not abs(total - 1) <= WEIGHTS_SUM_ERROR_MAX:
        found.append(Violation(field=field, rule="sum", message=f"weights sum to {total:.6g}, not to 1"))
    if policy.fusion is Fusion.NOISY_OR and not total > 0:
        found.append(Violation(field=field, rule="sum", message="at least one weight must be above 0"))
    return found


def check_policy(policy: StalenessPolicy) -> None:
    """Raise `Invalid` with every violation of the policy."""
    found = policy_violations(policy)
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
