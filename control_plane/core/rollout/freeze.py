"""Freeze windows: times in which nothing goes forward. Going back always works."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from control_plane.core.errors import Violation
from control_plane.core.rollout.types import FreezeWindow

FREEZE_MAX = timedelta(days=366)
"""A longer one is a policy: set `retraining.automatic` or hold the fleet instead."""


def freeze_violations(freeze: FreezeWindow, now: datetime) -> list[Violation]:
    """All broken rules of a freeze window."""
    found = []
    if freeze.ends_at <= freeze.starts_at:
        found.append(Violation(field="freeze.ends_at", rule="order", message="must be after starts_at"))
    elif freeze.ends_at - freeze.starts_at > FREEZE_MAX:
        found.append(
            Violation(field="freeze.ends_at", rule="range", message=f"a freeze lasts at most {FREEZE_MAX.days} days")
        )
    if freeze.ends_at <= now:
        found.append(
            Violation(field="freeze.ends_at", rule="past", message=f"is over: it is {now:%Y-%m-%d %H:%M} already")
        )
    return found


def frozen_by(freezes: Iterable[FreezeWindow], scopes: frozenset[str], now: datetime) -> FreezeWindow | None:
    """The freeze that holds for any of these scopes at `now`, the longest; None if none."""
    holding = [freeze for freeze in freezes if freeze.scope in scopes and freeze.starts_at <= now < freeze.ends_at]
    return max(holding, key=lambda freeze: (freeze.ends_at, freeze.name), default=None)
