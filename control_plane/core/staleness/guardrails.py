"""Guardrail metrics of a policy, as text: `brier 0.02, accuracy 0.05`. One metric and its tolerance each."""

import math
import re
from collections.abc import Collection
from functools import lru_cache

from control_plane.core.errors import Violation

FORM = "write metrics with their tolerances, as `brier 0.02, accuracy 0.05`"
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
TEXT_MAX = 1_000
"""Characters; some thirty guardrails."""


@lru_cache(maxsize=4096)
def parsed(text: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """Tolerances by metric, in their order, and what is wrong with the text; parts that are wrong are left out.

    >>> parsed("brier 0.02, accuracy 0.05")
    ({'brier': 0.02, 'accuracy': 0.05}, ())
    >>> parsed("brier, auc -1")[1][1]
    "the tolerance of auc is '-1': give a positive number"
    """
    found: dict[str, float] = {}
    faults: list[str] = []
    if len(text) > TEXT_MAX:
        return {}, (f"guardrails are {len(text):,} characters long, at most {TEXT_MAX:,} are read",)
    for part in text.split(",") if text.strip() else []:
        words = part.split()
        if len(words) != 2 or not NAME.fullmatch(words[0]):
            faults.append(f"{part.strip()[:100]!r} is not a guardrail: {FORM}")
            continue
        name, number = words
        tolerance = _number(number)
        if tolerance is None:
            faults.append(f"the tolerance of {name} is {number[:40]!r}: give a positive number")
        elif name in found:
            faults.append(f"{name} is named twice: give it one tolerance")
        else:
            found[name] = tolerance
    return found, tuple(faults)


def tolerances(text: str) -> dict[str, float]:
    """Tolerances by metric; of a text that was checked when it was saved. Not to be changed."""
    return parsed(text)[0]


def guardrail_violations(
    text: str, field: str, *, metrics: Collection[str] | None = None, primary: str = ""
) -> list[Violation]:
    """All that is wrong with guardrails.

    Args:
        metrics: names that outcomes are measured by; None takes any.
        primary: the metric whose drop is the performance signal already.

    >>> [v.message for v in guardrail_violations("auc 0.05", "f", metrics=["auc"], primary="auc")]
    ['auc is the primary metric, whose tolerance is performance_tolerance: name another as a guardrail']
    """
    found, faults = parsed(text)
    unknown = [name for name in found if metrics is not None and name not in metrics]
    told = [*faults]
    told.extend(f"there is no metric {name}: it is one of {', '.join(metrics or ())}" for name in unknown)
    if primary and primary in found:
        told.append(
            f"{primary} is the primary metric, whose tolerance is performance_tolerance: name another as a guardrail"
        )
    return [Violation(field=field, rule="guardrails", message=message) for message in told]


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 < found < math.inf else None
