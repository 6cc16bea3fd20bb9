"""From signals to a level: the part of a look that can be asked "and if this one were otherwise?".

1. A hard trigger makes it STALE whatever the score. 2. Otherwise, with too little data, only what holds whatever the
missing signals turn out to be counts: the lower bound decides, and what would be FRESH is UNKNOWN. Too little means:
no drift signal is known, although the version has a reference to compare with, or there is no performance either.
3. Otherwise the score decides between FRESH, AT_RISK and STALE. 4. Nothing is FRESH that has a data-quality finding,
whose metric surely dropped by the tolerance or more, or that a guardrail or a slice vetoes (an average would let the
other signals hide it).
"""

from collections.abc import Sequence

import msgspec

from control_plane.core.staleness.fusion import Score, both, fuse
from control_plane.core.staleness.policy import Fusion, StalenessPolicy
from control_plane.core.staleness.verdict import Level

SIGNALS = ("age", "input_drift", "prediction_drift", "performance", "concept_drift")
"""In the order of their values here; concept drift may be left out."""
AGE, INPUT, PREDICTION, PERFORMANCE, CONCEPT = range(5)


class Situation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a level follows from, besides the values of the signals."""

    policy: StalenessPolicy
    weights: tuple[float, ...]
    comparable: bool
    """Its version has a reference to compare with."""
    faulty: bool
    """Its data have faults."""
    vetoed: bool
    triggered: bool


class Standing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A level and the scores that it follows from."""

    level: Level
    score: Score
    """By the policy's fusion."""
    other: float
    """By the other one."""
    scarce: bool
    """Too little is known to call it FRESH."""


def stand(situation: Situation, values: Sequence[float | None]) -> Standing:
    """Where a model stands with these values of its signals."""
    policy = situation.policy
    average = policy.fusion is Fusion.WEIGHTED_AVERAGE
    mean, union = both(values, situation.weights)
    score, other = (mean, union) if average else (union, mean)
    scarce = too_scarce(situation, values)
    level = level_of(situation, values, score.low if scarce else score.score, scarce=scarce)
    return Standing(level=level, score=score, other=other.score, scarce=scarce)


def too_scarce(situation: Situation, values: Sequence[float | None]) -> bool:
    """Is too little known to call it FRESH?"""
    blind = values[INPUT] is None and values[PREDICTION] is None
    return blind and (situation.comparable or values[PERFORMANCE] is None)


def level_of(situation: Situation, values: Sequence[float | None], decisive: float, *, scarce: bool) -> Level:
    """The level of a decisive score: the score itself, or its lower bound where too little is known."""
    policy = situation.policy
    if situation.triggered or decisive >= policy.stale_threshold:
        return Level.STALE
    performance = values[PERFORMANCE]
    held = situation.faulty or situation.vetoed or (performance is not None and performance >= 1)
    if held or decisive >= policy.at_risk_threshold:
        return Level.AT_RISK
    return Level.UNKNOWN if scarce else Level.FRESH


def level_with(situation: Situation, values: Sequence[float | None]) -> Level:
    """The level alone, as `stand`."""
    score = fuse(values, situation.weights, situation.policy.fusion)
    scarce = too_scarce(situation, values)
    return level_of(situation, values, score.low if scarce else score.score, scarce=scarce)
