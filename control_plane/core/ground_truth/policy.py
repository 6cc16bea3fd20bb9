"""How a model's predictions and outcomes are taken in and kept."""

import math
from datetime import timedelta

import msgspec

from control_plane.core.errors import Violation

SPEED_WINDOW_MAX = timedelta(days=7)
"""Beyond this an hour in memory costs more than the batch join that replaces it."""


class GroundTruthPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a model's facts, and how long the speed layer waits."""

    speed_window: timedelta = timedelta(hours=1)
    """How long the speed layer waits for an outcome. What comes later is *late* and left to the batch layer."""
    sample_rate: float = 1.0
    """Share of prediction ids that is kept, by a hash of the id."""
    degrade_under_pressure: bool = True
    """Take less of this model while the server is short of room, lower tiers first, tier 1 never. Else it waits."""


def policy_violations(policy: GroundTruthPolicy) -> list[Violation]:
    """All broken rules of a ground-truth policy."""
    found = []
    if not timedelta(0) < policy.speed_window <= SPEED_WINDOW_MAX:
        found.append(
            Violation(
                field="ground_truth.speed_window",
                rule="range",
                message=f"must be longer than 0 and at most {SPEED_WINDOW_MAX.days} days",
            )
        )
    if not (math.isfinite(policy.sample_rate) and 0 < policy.sample_rate <= 1):
        found.append(
            Violation(
                field="ground_truth.sample_rate",
                rule="range",
                message="must be above 0 and at most 1: 0.05 keeps one id in twenty",
            )
        )
    return found
