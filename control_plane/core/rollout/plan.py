"""How a candidate goes to production: the policy's words read, and fixed for one rollout."""

import re
from datetime import datetime, timedelta
from itertools import pairwise

from control_plane.core.errors import Violation
from control_plane.core.rollout.types import CanaryMetric, Direction, RolloutPlan, RolloutPolicy, RolloutStep

STEPS_MAX = 20
HALF = 0.5
"""Beyond it the control would be smaller than the candidate."""
FALSE_ROLLBACK_MOST = 0.2
APPROVALS_MOST = 5
HOUR_LAST = 23
METRICS_MAX = 20
SPAN_MAX = timedelta(days=365)
"""A step that bakes for a year is forgotten, not careful."""

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%")
_METRIC = re.compile(r"([a-zA-Z_][a-zA-Z0-9_.:-]{0,99})\s+(higher|lower)\s+(\d{1,4}(?:\.\d{1,6})?)\s*%")


def steps_of(text: str) -> tuple[float, ...]:
    """Shares of the traffic, ascending, each above 0 and below 1.

    Raises:
        ValueError: with what to write instead.

    >>> steps_of("5%, 20%, 50%")
    (0.05, 0.2, 0.5)
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) > STEPS_MAX:
        raise ValueError(f"has {len(parts)} steps, at most {STEPS_MAX} are taken")
    shares = []
    for part in parts:
        found = _SHARE.fullmatch(part)
        if found is None:
            raise ValueError(f"{part[:50]!r} is no step: write shares of the traffic, as `5%, 20%, 50%`")
        shares.append(float(found.group(1)) / 100)
    if any(not 0 < share < 1 for share in shares):
        raise ValueError("steps lie above 0% and below 100%: all of the traffic follows the last step by itself")
    if any(later <= earlier for earlier, later in pairwise(shares)):
        raise ValueError("each step must take more of the traffic than the one before")
    if any(share > HALF for share in shares):
        raise ValueError("no step may exceed 50%: its control would be smaller than the candidate")
    return tuple(shares)


def metrics_of(text: str) -> tuple[CanaryMetric, ...]:
    """What the judge compares, each name once.

    Raises:
        ValueError: with what to write instead.

    >>> metrics_of("engagement higher 3%, latency_ms lower 10%")[1].direction.value
    'lower'
    """
    found = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        read = _METRIC.fullmatch(part)
        if read is None:
            raise ValueError(
                f"{part[:80]!r} is no metric: write a name, the better direction and the tolerance, "
                "as `engagement higher 3%, latency_ms lower 10%`"
            )
        name, direction, tolerance = read.groups()
        found.append(CanaryMetric(name=name, direction=Direction(direction), tolerance=float(tolerance) / 100))
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise ValueError("names a metric twice")
    if len(found) > METRICS_MAX:
        raise ValueError(f"has {len(found)} metrics, at most {METRICS_MAX} are judged")
    if any(metric.tolerance <= 0 for metric in found):
        raise ValueError("a tolerance of 0% lets no candidate pass, however much is seen: give a share above 0")
    return tuple(found)


def plan_violations(policy: RolloutPolicy) -> list[Violation]:
    """All broken rules of a rollout policy."""
    found = []
    for name, read in (("steps", steps_of), ("metrics", metrics_of)):
        try:
            read(getattr(policy, name))
        except ValueError as error:
            found.append(_violation(name, "text", str(error)))
    for name in ("bake", "shadow", "wait_max"):
        if not timedelta(0) <= getattr(policy, name) <= SPAN_MAX:
            found.append(_violation(name, "range", f"must be from 0 to {SPAN_MAX.days} days"))
    if not timedelta(0) < policy.approval_ttl <= SPAN_MAX:
        found.append(_violation("approval_ttl", "range", f"must be longer than 0 and at most {SPAN_MAX.days} days"))
    if policy.observations_min < 1:
        found.append(_violation("observations_min", "range", "must be at least 1"))
    if not 0 < policy.false_rollback_max <= FALSE_ROLLBACK_MOST:
        found.append(_violation("false_rollback_max", "range", "must be above 0 and at most 0.2"))
    if not 0 <= policy.approvals <= APPROVALS_MOST:
        found.append(_violation("approvals", "range", "must be 0 to 5"))
    found += [
        _violation(name, "range", "must be an hour from 0 to 23")
        for name in ("start_hour", "end_hour")
        if not 0 <= getattr(policy, name) <= HOUR_LAST
    ]
    return found


def _violation(name: str, rule: str, message: str) -> Violation:
    return Violation(field=f"rollout.{name}", rule=rule, message=message)


def plan_of(policy: RolloutPolicy) -> RolloutPlan:
    """The plan of a rollout that begins under a policy without violations."""
    shares = steps_of(policy.steps) if policy.serving else ()
    return RolloutPlan(
        serving=policy.serving,
        steps=tuple(
            RolloutStep(weight=share, bake=policy.bake, observations_min=policy.observations_min) for share in shares
        ),
        shadow=policy.shadow if policy.serving else timedelta(0),
        metrics=metrics_of(policy.metrics) if policy.serving else (),
        false_rollback_max=policy.false_rollback_max,
        wait_max=policy.wait_max,
        approvals=policy.approvals,
        approval_ttl=policy.approval_ttl,
        start_hour=policy.start_hour,
        end_hour=policy.end_hour,
    )


def in_hours(plan: RolloutPlan, now: datetime) -> bool:
    """May a step be taken at this hour of the day? [start, end) UTC, over midnight if end is smaller; alike: always.

    >>> in_hours(RolloutPlan(start_hour=9, end_hour=17), datetime(2026, 1, 1, 17, 0))
    False
    """
    start, end = plan.start_hour, plan.end_hour
    if start == end:
        return True
    if start < end:
        return start <= now.hour < end
    return now.hour >= start or now.hour < end
