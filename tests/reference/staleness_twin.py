"""Hysteresis and fusion once more, as dumb as possible: the whole history, every case spelled out."""

from collections.abc import Sequence

from control_plane.core.staleness.verdict import Level

ORDER = {Level.UNKNOWN: 0, Level.FRESH: 1, Level.AT_RISK: 2, Level.STALE: 3}


def verdicts(levels: Sequence[Level], k: int, n: int, *, hard: Sequence[bool] = (), cooldown: int = 0) -> list[Level]:
    """The verdict after each evaluation, from UNKNOWN; looks before the last change of the verdict do not count.

    `hard`: which looks have a hard trigger. `cooldown`: looks after a change that change nothing but by one.
    """
    current, since, found = Level.UNKNOWN, 0, []
    for end in range(1, len(levels) + 1):
        last = levels[max(since, end - n) : end]
        if hard and hard[end - 1]:
            changed = Level.STALE
        elif current is not Level.UNKNOWN and end - since < cooldown:
            changed = current
        else:
            changed = _after(current, last, k)
        if changed is not current:
            current, since = changed, end
        found.append(current)
    return found


def _after(current: Level, last: Sequence[Level], k: int) -> Level:
    for level in (Level.STALE, Level.AT_RISK, Level.FRESH):
        votes = [one for one in last if one is not Level.UNKNOWN and ORDER[one] >= ORDER[level]]
        if ORDER[level] > ORDER[current] and len(votes) >= k:
            return level
    for level in (Level.FRESH, Level.AT_RISK):
        votes = [one for one in last if one is not Level.UNKNOWN and ORDER[one] <= ORDER[level]]
        if ORDER[level] < ORDER[current] and len(votes) >= k:
            return level
    if list(last).count(Level.UNKNOWN) >= k:
        return Level.UNKNOWN
    return current


def score(values: Sequence[float | None], weights: Sequence[float], fill: float, noisy_or: bool) -> float:
    """One score with every missing signal set to `fill`."""
    spared, above, total = 1.0, 0.0, 0.0
    for value, weight in zip(values, weights, strict=True):
        used = fill if value is None else value
        spared *= 1 - weight * used
        above += weight * used
        total += weight
    return 1 - spared if noisy_or else above / total
