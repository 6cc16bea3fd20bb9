"""Policies of the fleet by tier, as plain data.

Leases are counted on the control plane's clock, and here that clock runs some ten thousand times faster than the wall:
a lease of two virtual days is a few seconds of training and its heartbeats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from runway_client import messages
from runway_client.times import to_duration

from assets.flights.comparison import MARGINS
from assets.flights.fleet import FlightModel
from assets.flights.labels import WINDOW


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPace:
    """How closely a tier is watched."""

    cadence: timedelta
    age_backstop_days: float
    stale_threshold: float
    at_risk_threshold: float
    cooldown: timedelta


PACE: Mapping[int, TierPace] = {
    1: TierPace(
        cadence=timedelta(hours=4),
        age_backstop_days=45,
        stale_threshold=0.50,
        at_risk_threshold=0.35,
        cooldown=timedelta(days=5),
    ),
    2: TierPace(
        cadence=timedelta(hours=6),
        age_backstop_days=50,
        stale_threshold=0.50,
        at_risk_threshold=0.35,
        cooldown=timedelta(days=7),
    ),
    3: TierPace(
        cadence=timedelta(hours=8),
        age_backstop_days=60,
        stale_threshold=0.55,
        at_risk_threshold=0.40,
        cooldown=timedelta(days=10),
    ),
    4: TierPace(
        cadence=timedelta(hours=24),
        age_backstop_days=75,
        stale_threshold=0.60,
        at_risk_threshold=0.45,
        cooldown=timedelta(days=14),
    ),
}

TOLERANCE: Mapping[str, float] = {"binary": 0.05, "regression": 3.0, "embedding": 0.2}
"""Loss of the metric at which the performance signal is full: AUC, minutes, R squared."""


ROWS_OF_A_WEEK: Mapping[bool, int] = {True: 1_700, False: 5_500}
"""Flights of six days, of one airport and of all: a part of a week has other weekdays than the reference, and every
single day its own weather."""


def policies(model: FlightModel) -> messages.Policies:
    """All that a model says about its policies."""
    return messages.Policies(
        staleness=staleness_policy(model),
        retraining=retraining_policy(model),
        validation=validation_policy(model),
        label=label_spec(model),
    )


def staleness_policy(model: FlightModel) -> messages.StalenessPolicy:
    """When a model counts as stale."""
    pace = PACE[model.tier]
    return messages.StalenessPolicy(
        weights=messages.StalenessPolicy.Weights(age=0.20, input_drift=0.25, prediction_drift=0.20, performance=0.35),
        stale_threshold=pace.stale_threshold,
        at_risk_threshold=pace.at_risk_threshold,
        age_backstop_days=pace.age_backstop_days,
        performance_tolerance=TOLERANCE[model.task],
        coverage_min=0.80,
        window_days=7,
        predictions_min=ROWS_OF_A_WEEK[bool(model.origin)],
        labels_min=ROWS_OF_A_WEEK[bool(model.origin)] * 3 // 4,
        cadence=to_duration(pace.cadence),
    )


def retraining_policy(model: FlightModel) -> messages.RetrainingPolicy:
    """What follows from a verdict."""
    return messages.RetrainingPolicy(
        automatic=True,
        cooldown=to_duration(PACE[model.tier].cooldown),
        cascade_cooldown=to_duration(timedelta(hours=4)),
        lease_ttl=to_duration(timedelta(days=2)),
        attempt_timeout=to_duration(timedelta(days=6)),
        attempts_max=3,
        retry_backoff=to_duration(timedelta(hours=2)),
    )


def validation_policy(model: FlightModel) -> messages.ValidationPolicy:
    """What a candidate must show."""
    return messages.ValidationPolicy(margin=MARGINS[model.task], timeout=to_duration(timedelta(days=3)))


def label_spec(model: FlightModel) -> messages.LabelSpec:
    """What the outcome is and how long it may take."""
    metric = model.metric if model.task != "embedding" else ""
    return messages.LabelSpec(label_type="default", window=to_duration(WINDOW), metric=metric)
