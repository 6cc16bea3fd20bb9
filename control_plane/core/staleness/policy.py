"""When a model counts as stale: the policy, its defaults by tier, and its own rules."""

import math
from datetime import timedelta
from enum import StrEnum

import msgspec

from control_plane.core.errors import Violation


class Fusion(StrEnum):
    """How the signals become a score."""

    WEIGHTED_AVERAGE = "WEIGHTED_AVERAGE"
    NOISY_OR = "NOISY_OR"


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Weight of each signal; together 1."""

    age: float = 0.20
    input_drift: float = 0.25
    prediction_drift: float = 0.20
    performance: float = 0.35


class StalenessPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds of one model. See proto/runway/v1/policies.proto for each field; defaults are the field's usual ones."""

    weights: Weights = Weights()
    fusion: Fusion = Fusion.WEIGHTED_AVERAGE
    stale_threshold: float = 0.60
    at_risk_threshold: float = 0.40
    age_backstop_days: float = 30.0
    psi_moderate: float = 0.10
    psi_significant: float = 0.25
    performance_tolerance: float = 0.05
    performance_floor: float | None = None
    coverage_min: float = 0.80
    hysteresis_k: int = 2
    hysteresis_n: int = 3
    window_days: float = 7.0
    predictions_min: int = 100
    labels_min: int = 100
    cadence: timedelta = timedelta(hours=1)


CADENCE_BY_TIER = {
    1: timedelta(minutes=15),
    2: timedelta(hours=1),
    3: timedelta(hours=6),
    4: timedelta(days=1),
}


def default_policy(tier: int) -> StalenessPolicy:
    """The policy of a model that brings none."""
    return StalenessPolicy(cadence=CADENCE_BY_TIER.get(tier, timedelta(hours=1)))


def policy_violations(policy: StalenessPolicy) -> list[Violation]:
    """All broken rules of a policy."""
    found = []

    def violate(name: str, rule: str, message: str) -> None:
        found.append(Violation(field=f"staleness_policy.{name}", rule=rule, message=message))

    weights = policy.weights
    total = weights.age + weights.input_drift + weights.prediction_drift + weights.performance
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        violate("weights", "sum", f"the weights sum to {total:g}, not to 1")
    for name in ("age", "input_drift", "prediction_drift", "performance"):
        if not 0 <= getattr(weights, name) <= 1:
            violate(f"weights.{name}", "range", "must be 0 to 1")
    for name in ("stale_threshold", "at_risk_threshold"):
        if not 0 < getattr(policy, name) <= 1:
            violate(name, "range", "must be above 0 and at most 1")
    if policy.at_risk_threshold > policy.stale_threshold:
        violate("at_risk_threshold", "order", "must not be above stale_threshold")
    if policy.psi_moderate > policy.psi_significant:
        violate("psi_moderate", "order", "must not be above psi_significant")
    if not 1 <= policy.hysteresis_k <= policy.hysteresis_n:
        violate("hysteresis_k", "order", "must be 1 to hysteresis_n")
    for name in ("age_backstop_days", "psi_moderate", "performance_tolerance", "window_days"):
        value = getattr(policy, name)
        if not (math.isfinite(value) and value > 0):
            violate(name, "range", "must be a finite number above 0")
    if policy.cadence <= timedelta(0):
        violate("cadence", "range", "must be longer than 0")
    return found
