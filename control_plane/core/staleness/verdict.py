"""What a look at a model says (`Evaluation`), and when looks become a verdict (`settle`)."""

from datetime import datetime
from enum import StrEnum

import msgspec

from control_plane.core.staleness.policy import StalenessPolicy


class Level(StrEnum):
    """Too little data is UNKNOWN, never FRESH."""

    FRESH = "FRESH"
    AT_RISK = "AT_RISK"
    STALE = "STALE"
    UNKNOWN = "UNKNOWN"


class Confidence(StrEnum):
    """How sure an evaluation is."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


class Action(StrEnum):
    """What to do about it."""

    NONE = "NONE"
    WAIT = "WAIT"
    RETRAIN = "RETRAIN"
    ALERT_DATA_OWNER = "ALERT_DATA_OWNER"


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One of the four signals: 0 good, 1 bad; `raw` in its own units."""

    name: str
    value: float
    raw: float
    weight: float
    contribution: float
    sample_size: int
    significant: bool
    missing: bool
    explanation: str


class FeatureDrift(msgspec.Struct, frozen=True, kw_only=True):
    """Drift of one feature."""

    name: str
    psi: float
    psi_debiased: float
    p_value: float
    drifted: bool


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one version."""

    version: int
    at: datetime
    level: Level
    score: float
    score_low: float
    score_high: float
    threshold: float
    confidence: Confidence
    confidence_reason: str
    signals: tuple[Signal, ...]
    top_features: tuple[FeatureDrift, ...]
    reasons: tuple[str, ...]
    recommended_action: Action
    data_quality: tuple[str, ...] = ()


class Streak(msgspec.Struct, frozen=True, kw_only=True):
    """The last levels seen, newest last, as far as hysteresis needs them."""

    levels: tuple[Level, ...] = ()


def settle(
    current: Level, streak: Streak, evaluation: Evaluation, policy: StalenessPolicy
) -> tuple[Level, Streak]:
    """The verdict after one more look: a level that k of the last n looks agree on.

    A streak that agrees with the verdict throughout is written as empty, so that it changes (and is logged) only
    while a verdict is in doubt.
    """
    seen = (*streak.levels, evaluation.level)[-policy.hysteresis_n :]
    if seen.count(evaluation.level) >= policy.hysteresis_k and evaluation.level is not current:
        return evaluation.level, Streak()
    if all(level is current for level in seen):
        return current, Streak()
    return current, Streak(levels=seen)
