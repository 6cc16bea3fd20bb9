"""Confidence sequences for the difference of two means: right at every look, however often one looks.

Theory of operation. Both arms are summarised by count, mean and squared deviations. With V the information (1 over the
variance of the estimated difference), the score S = difference x V behaves like a Brownian motion with time V. Two
boundaries for S share the allowed error:

| boundary | holds | why |
|---|---|---|
| constant, b sqrt(H) | until the planned horizon H | by reflection the chance to cross is exactly 2 (1 - Phi(b)) |
| normal mixture | for ever | a canary that waits longer than planned is still judged rightly |

The first is what catches harm early: at the horizon it is as sharp as a test made once there with half the error, where
a mixture alone would need a third more observations. (Robbins 1970; Howard et al. 2021, "Time-uniform, nonparametric,
nonasymptotic confidence sequences", eq. 14; Waudby-Smith et al. 2024 for means of unknown variance.)
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from control_plane.core.rollout.types import Arm

PLANNED_SHARE = 0.9
"""Of the error, spent until the planned horizon."""
SLACK = 1.04
"""Looks come when they come: a horizon lies so much later than planned, so that a look just after it counts."""

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two means, first minus second, with its variance; and the variance of one observation of each arm together."""

    value: float
    variance: float
    unit_variance: float


def difference_of(first: Arm, second: Arm, scale: float = 0.0) -> Difference:
    """Both arms have at least two observations.

    `scale`: how far one more observation of each arm might have lain from its mean. Thirty times the same value do not
    prove that there is no other.
    """
    of_first = (first.m2 + scale * scale) / (first.count - 1)
    of_second = (second.m2 + scale * scale) / (second.count - 1)
    return Difference(
        value=first.mean - second.mean,
        variance=of_first / first.count + of_second / second.count,
        unit_variance=of_first + of_second,
    )


def radius(difference: Difference, horizon: float, error: float) -> float:
    """How far the true difference may lie below (or above) the estimate; wrong at any look with a chance of `error`.

    `horizon`: observations per arm until which the canary is planned.

    >>> one = Difference(value=0.0, variance=0.5 / 10_000, unit_variance=0.5)
    >>> round(radius(one, 10_000, 0.05), 4)
    0.0145
    """
    if difference.variance <= 0:
        return 0.0
    information = 1 / difference.variance
    planned = SLACK * horizon / difference.unit_variance
    lasting = mixture_boundary(information, planned, error * (1 - PLANNED_SHARE))
    if information > planned:
        return lasting / information
    constant = -_NORMAL.inv_cdf(error * PLANNED_SHARE / 2) * math.sqrt(planned)
    return min(constant, lasting) / information


def mixture_boundary(information: float, tuned_at: float, error: float) -> float:
    """One-sided normal mixture for the score, tightest about `tuned_at`; crossed with a chance of at most `error`."""
    log_inverse = 2 * math.log(1 / error)
    rho = tuned_at / (log_inverse + math.log(1 + log_inverse))
    ratio = (information + rho) / rho
    return math.sqrt(2 * (information + rho) * math.log(math.sqrt(ratio) / (2 * error) + 1))
