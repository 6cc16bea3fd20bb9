"""Policies. A field that is not set takes the default of the model's tier; replies carry the effective values."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from runway.v1 import policies_pb2

from control_plane.api.convert.common import duration, span_from
from control_plane.core.retraining.types import RetrainingPolicy
from control_plane.core.rollout.types import ValidationPolicy
from control_plane.core.staleness.policy import Fusion, StalenessPolicy, Weights, default_policy

FUSIONS = {
    Fusion.WEIGHTED_AVERAGE: policies_pb2.FUSION_WEIGHTED_AVERAGE,
    Fusion.NOISY_OR: policies_pb2.FUSION_NOISY_OR,
}
FUSIONS_FROM = {number: fusion for fusion, number in FUSIONS.items()}


def _span(message: Message, name: str, default: timedelta, policy: str) -> timedelta:
    if not message.HasField(name):
        return default
    value = getattr(message, name)
    assert isinstance(value, Duration)
    return span_from(value, f"model.{policy}.{name}")


def staleness_policy_from(message: policies_pb2.StalenessPolicy, tier: int) -> StalenessPolicy:
    """A staleness policy; unset fields from the tier's default."""
    default = default_policy(tier)

    given = {field.name for field, _ in message.ListFields()}

    def number(name: str) -> float:
        return float(getattr(message if name in given else default, name))

    def whole(name: str) -> int:
        return int(getattr(message if name in given else default, name))

    weights = message.weights
    return StalenessPolicy(
        weights=Weights(
            age=weights.age,
            input_drift=weights.input_drift,
            prediction_drift=weights.prediction_drift,
            performance=weights.performance,
        )
        if message.HasField("weights")
        else default.weights,
        fusion=FUSIONS_FROM.get(message.fusion, default.fusion),
        stale_threshold=number("stale_threshold"),
        at_risk_threshold=number("at_risk_threshold"),
        age_backstop_days=number("age_backstop_days"),
        psi_moderate=number("psi_moderate"),
        psi_significant=number("psi_significant"),
        performance_tolerance=number("performance_tolerance"),
        performance_floor=message.performance_floor
        if message.HasField("performance_floor")
        else default.performance_floor,
        coverage_min=number("coverage_min"),
        hysteresis_k=whole("hysteresis_k"),
        hysteresis_n=whole("hysteresis_n"),
        window_days=number("window_days"),
        predictions_min=whole("predictions_min"),
        labels_min=whole("labels_min"),
        drifted_share_full=number("drifted_share_full"),
        false_discovery_rate=number("false_discovery_rate"),
        seasonal_weight=number("seasonal_weight"),
        cadence=_span(message, "cadence", default.cadence, "staleness_policy"),
    )


def staleness_policy(policy: StalenessPolicy) -> policies_pb2.StalenessPolicy:
    """A staleness policy with every field set."""
    weights = policy.weights
    return policies_pb2.StalenessPolicy(
        weights=policies_pb2.StalenessPolicy.Weights(
            age=weights.age,
            input_drift=weights.input_drift,
            prediction_drift=weights.prediction_drift,
            performance=weights.performance,
        ),
        fusion=FUSIONS[policy.fusion],
        stale_threshold=policy.stale_threshold,
        at_risk_threshold=policy.at_risk_threshold,
        age_backstop_days=policy.age_backstop_days,
        psi_moderate=policy.psi_moderate,
        psi_significant=policy.psi_significant,
        performance_tolerance=policy.performance_tolerance,
        performance_floor=policy.performance_floor,
        coverage_min=policy.coverage_min,
        hysteresis_k=policy.hysteresis_k,
        hysteresis_n=policy.hysteresis_n,
        window_days=policy.window_days,
        predictions_min=policy.predictions_min,
        labels_min=policy.labels_min,
        drifted_share_full=policy.drifted_share_full,
        false_discovery_rate=policy.false_discovery_rate,
        seasonal_weight=policy.seasonal_weight,
        cadence=duration(policy.cadence),
    )


def retraining_policy_from(message: policies_pb2.RetrainingPolicy) -> RetrainingPolicy:
    """A retraining policy; unset fields from the default."""
    default = RetrainingPolicy()

    def span(name: str) -> timedelta:
        return _span(message, name, getattr(default, name), "retraining_policy")

    return RetrainingPolicy(
        automatic=message.automatic if message.HasField("automatic") else default.automatic,
        cooldown=span("cooldown"),
        cascade_cooldown=span("cascade_cooldown"),
        lease_ttl=span("lease_ttl"),
        attempt_timeout=span("attempt_timeout"),
        attempts_max=message.attempts_max if message.HasField("attempts_max") else default.attempts_max,
        retry_backoff=span("retry_backoff"),
    )


def retraining_policy(policy: RetrainingPolicy) -> policies_pb2.RetrainingPolicy:
    """A retraining policy with every field set."""
    return policies_pb2.RetrainingPolicy(
        automatic=policy.automatic,
        cooldown=duration(policy.cooldown),
        cascade_cooldown=duration(policy.cascade_cooldown),
        lease_ttl=duration(policy.lease_ttl),
        attempt_timeout=duration(policy.attempt_timeout),
        attempts_max=policy.attempts_max,
        retry_backoff=duration(policy.retry_backoff),
    )


def validation_policy_from(message: policies_pb2.ValidationPolicy) -> ValidationPolicy:
    """A validation policy; unset fields from the default."""
    default = ValidationPolicy()
    return ValidationPolicy(
        skip=message.skip if message.HasField("skip") else default.skip,
        margin=message.margin if message.HasField("margin") else default.margin,
        timeout=_span(message, "timeout", default.timeout, "validation_policy"),
    )


def validation_policy(policy: ValidationPolicy) -> policies_pb2.ValidationPolicy:
    """A validation policy with every field set."""
    return policies_pb2.ValidationPolicy(skip=policy.skip, margin=policy.margin, timeout=duration(policy.timeout))
