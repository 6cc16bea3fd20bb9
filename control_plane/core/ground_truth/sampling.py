"""Which ids are kept, and of which models fewer when the server is short of room.

An id is kept if its hash, a uniform number in [0, 1), is below a rate. So both sides of the join keep the same ids, a
higher rate keeps all that a lower one kept, and whoever knows the lowest rate under which the rows of an hour were
taken can use just the ids below it: the estimate is unbiased, however often the rate changed.

Under pressure (the share of the room for waiting batches that is taken) rates are halved, the lowest tier first. Tier 1
is never touched: its senders wait instead.
"""

import numpy as np

from control_plane.core.ground_truth.ids import IdColumns, Int64s, hash_shares
from control_plane.core.ground_truth.join import Bools

PRESSURE_MIN = {4: 0.50, 3: 0.65, 2: 0.80}
"""By tier: the pressure from which on less is kept."""
PRESSURE_STEP = 0.05
"""The rate is halved once for every such step."""
RELEASE_BAND = 0.10
"""Rates rise again only when the pressure has fallen by so much: two steps, so that they do not flap around one."""
HALVINGS_MAX = 6
"""At least 1 in 64 is kept: enough to see that the model lives."""


def rate_in_force(policy_rate: float, tier: int, pressure: float, *, degrade: bool) -> float:
    """The share of ids to keep now.

    Args:
        policy_rate: what the model's policy says, in (0, 1].
        tier: 1 to 4.
        pressure: 0 (idle) to 1 (full).
        degrade: whether the policy lets pressure lower it at all.

    >>> [rate_in_force(1.0, tier, 0.7, degrade=True) for tier in (1, 2, 3, 4)]
    [1.0, 1.0, 0.25, 0.03125]
    """
    start = PRESSURE_MIN.get(tier)
    if start is None or not degrade or pressure < start:
        return policy_rate
    # Rounded first: 0.7 - 0.65 is a little more than a step in binary.
    halvings = min(HALVINGS_MAX, 1 + int(round((pressure - start) / PRESSURE_STEP, 9)))
    return policy_rate * 2.0**-halvings


def felt_pressure(before: float, now: float) -> float:
    """The pressure that rates go by: it rises at once, and falls only by more than a band.

    >>> felt_pressure(0.70, 0.75), felt_pressure(0.70, 0.65), felt_pressure(0.70, 0.55)
    (0.75, 0.7, 0.55)
    """
    return now if now > before or now < before - RELEASE_BAND else before


def room_for(tier: int, pressure: float, *, degrade: bool) -> bool:
    """May a batch still wait, or is its sender told to slow down? Low tiers leave the last room to higher ones."""
    last = {1: 1.0, 2: 0.98, 3: 0.96, 4: 0.94}
    return pressure < (last.get(tier, 0.94) if degrade else 1.0)


def kept(ids: IdColumns, hours: Int64s, rates: dict[int, float], otherwise: float) -> Bools:
    """Which rows are inside the sample; shape (n,).

    Args:
        hours: the hour by which the rate of each row is looked up; shape (n,).
        rates: the rate of an hour; `otherwise` of the others.
    """
    low, high = int(hours.min()), int(hours.max())
    if low == high:
        rate = rates.get(low, otherwise)
        return np.ones(len(hours), np.bool_) if rate >= 1 else hash_shares(ids) < rate
    distinct, at = np.unique(hours, return_inverse=True)
    rate_of = np.array([rates.get(int(hour), otherwise) for hour in distinct])
    if (rate_of >= 1).all():
        return np.ones(len(hours), np.bool_)
    inside: Bools = hash_shares(ids) < rate_of[at]
    return inside
