"""The rules of the canary's judge once more, from single observations and by the definition of each number."""

import math
from collections.abc import Sequence
from fractions import Fraction

from control_plane.core.rollout.types import Arm


def arm_of(values: Sequence[float]) -> Arm:
    """Count, mean and squared deviations, summed exactly."""
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    return Arm(count=len(exact), mean=float(mean), m2=float(sum((value - mean) ** 2 for value in exact)))


def evidence_against_equal_arms(candidate: int, control: int, strength: int) -> Fraction:
    """Chance of one order of requests under the mixture over that under a fair coin, request by request."""
    evidence, seen = Fraction(1), [strength, strength]
    for arm in [0] * candidate + [1] * control:
        evidence *= 2 * Fraction(seen[arm], sum(seen))
        seen[arm] += 1
    return evidence


def mixture_by_integral(score: float, information: float, rho: float) -> float:
    """Mean of exp(x S - x^2 V / 2) over half a normal x of variance 1 / rho, by the trapezoid rule."""
    most, parts = 10 / math.sqrt(rho), 20_000
    width = most / parts
    density = 2 * math.sqrt(rho / (2 * math.pi))
    total = 0.0
    for part in range(parts + 1):
        x = part * width
        weight = 0.5 if part in {0, parts} else 1.0
        total += weight * math.exp(x * score - x * x * information / 2 - x * x * rho / 2)
    return density * width * total
