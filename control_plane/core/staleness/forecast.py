"""When a model will be stale, if things go on as they do: by its age, which is known exactly, or by its trend."""

import math
from datetime import datetime, timedelta

from control_plane.core.staleness.levels import AGE
from control_plane.core.staleness.signals import SECONDS_PER_DAY
from control_plane.core.staleness.verdict import Level
from control_plane.core.staleness.would_change import Look
from control_plane.core.statistics.forecast import POINTS_MIN, crossing

TREND_POINTS_MAX = 24
"""Looks that a trend is read from; all pairs of them are gone through for every model of the fleet."""
HORIZON_DAYS = 365.0
"""Nobody believes a forecast beyond."""


def forecast(look: Look, now: datetime, threshold: float) -> tuple[datetime | None, str]:
    """The date at which the look is expected to say STALE and a sentence; (None, "") if it does not rise, is stale
    already, or the date is beyond a year."""
    if look.level is Level.STALE:
        return None, ""
    by_age, by_trend = _age_days(look), _trend_days(look, now, threshold)
    days = min(by_age, by_trend)
    if not 0 < days <= HORIZON_DAYS:
        return None, ""
    at = now + timedelta(days=days)
    day = (
        f"{MONTHS[at.month - 1]} {at.day}" if days < HORIZON_DAYS / 2 else f"{MONTHS[at.month - 1]} {at.day}, {at.year}"
    )
    if by_trend < by_age:
        return at, f"At this pace it is stale around {day}."
    return at, f"By its age alone it is stale on {day}."


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _age_days(look: Look) -> float:
    """Days until age alone makes it stale: by the score, or at the backstop."""
    value, age = look.values[AGE], look.readings["age"].raw
    backstop = look.situation.policy.age_backstop_days
    if value is None:
        return math.inf
    wanted = look.stale_from[AGE]
    by_score = wanted * backstop if wanted is not None and value < wanted <= 1 else math.inf
    return min(by_score, backstop) - age


def _trend_days(look: Look, now: datetime, threshold: float) -> float:
    """Days until a robust line through the earlier scores reaches the threshold."""
    history = look.evidence.history
    if len(history) < POINTS_MIN:
        return math.inf
    if len(history) > TREND_POINTS_MAX:
        step = -(-len(history) // TREND_POINTS_MAX)
        history = history[::-1][::step][::-1]  # the newest stays
    times = [(point.at - now).total_seconds() for point in history]
    found = crossing(times, [point.score for point in history], threshold, 0.0)
    return found / SECONDS_PER_DAY if found is not None else math.inf
