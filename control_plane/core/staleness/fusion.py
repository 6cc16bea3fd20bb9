"""From signals to one score, honestly about the ones that are missing.

A missing signal is neither good nor bad. The score takes it to be like the weighted mean of the known ones,
which for an average is the same as leaving it out; the bounds say what the score were if it turned out best
or worst. Both ways to fuse are always computed.
"""

from collections.abc import Sequence

import msgspec

from control_plane.core.staleness.policy import Fusion

DECIMALS = 12
"""Scores are rounded to these, so that four signals of 0.6 reach a threshold of 0.6."""


class Score(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fused score with its bounds, each from 0 to 1."""

    score: float
    low: float
    high: float


def fuse(values: Sequence[float | None], weights: Sequence[float], fusion: Fusion) -> Score:
    """Fuse signals.

    Args:
        values: each from 0 to 1, or None if missing.
        weights: as many, each from 0 to 1, with a positive sum.
    Returns:
        Weighted average sum(w s) / sum(w), or noisy OR 1 - prod(1 - w s). With nothing known the score is 0,
        and the bounds say that it could be anything.

    >>> fuse([0.60, 0.80, 0.70, 0.75], [0.20, 0.25, 0.20, 0.35], Fusion.WEIGHTED_AVERAGE).score
    0.7225
    >>> found = fuse([0.5, None], [0.5, 0.5], Fusion.WEIGHTED_AVERAGE)
    >>> found.score, found.low, found.high
    (0.5, 0.25, 0.75)
    """
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    if len(known) == len(values):
        score = round(_fused(known, fusion), DECIMALS)
        return Score(score=score, low=score, high=score)
    heft = sum(weight for _, weight in known)
    mean = sum(value * weight for value, weight in known) / heft if heft > 0 else 0.0
    missing = [weight for value, weight in zip(values, weights, strict=True) if value is None]
    score, low, high = (
        round(_fused([*known, *((fill, weight) for weight in missing)], fusion), DECIMALS) for fill in (mean, 0.0, 1.0)
    )
    return Score(score=score, low=low, high=high)


def both(values: Sequence[float | None], weights: Sequence[float]) -> tuple[Score, Score]:
    """The weighted average and the noisy OR, each as `fuse`."""
    if None in values:
        return fuse(values, weights, Fusion.WEIGHTED_AVERAGE), fuse(values, weights, Fusion.NOISY_OR)
    total = above = 0.0
    spared = 1.0
    for value, weight in zip(values, weights, strict=True):
        assert value is not None
        total += weight
        above += value * weight
        spared *= 1 - weight * value
    mean, union = round(above / total, DECIMALS), round(1 - spared, DECIMALS)
    return Score(score=mean, low=mean, high=mean), Score(score=union, low=union, high=union)


def _fused(weighed: Sequence[tuple[float, float]], fusion: Fusion) -> float:
    if fusion is Fusion.NOISY_OR:
        spared = 1.0
        for value, weight in weighed:
            spared *= 1 - weight * value
        return 1 - spared
    total = above = 0.0
    for value, weight in weighed:
        total += weight
        above += value * weight
    return above / total


def needed(
    values: Sequence[float | None],
    weights: Sequence[float],
    fusion: Fusion,
    *,
    at: int,
    target: float,
    low: bool = False,
) -> float | None:
    """The value of signal `at` from which on the fused score is `target` or more, all else as it is.

    Args:
        values: as `fuse`; that of `at` may be missing, and is then taken to be known.
        low: of the lower bound, in which every missing signal is best, instead of the score.
    Returns:
        May lie outside of 0 to 1, which then is out of reach; None if the signal weighs nothing.

    >>> round(needed([0.5, 0.0], [0.5, 0.5], Fusion.WEIGHTED_AVERAGE, at=1, target=0.4), 12)
    0.3
    >>> round(needed([0.5, 0.0], [0.5, 0.5], Fusion.NOISY_OR, at=1, target=0.4), 12)
    0.4
    """
    own = weights[at]
    if own <= 0:
        return None
    if fusion is Fusion.WEIGHTED_AVERAGE:
        total, above = own, 0.0
        for place, (value, weight) in enumerate(zip(values, weights, strict=True)):
            if place != at and (low or value is not None):
                total += weight
                above += value * weight if value is not None else 0.0
        return (target * total - above) / own
    others = [
        (value, weight)
        for place, (value, weight) in enumerate(zip(values, weights, strict=True))
        if place != at and value is not None
    ]
    if low or len(others) == len(values) - 1:
        spared = 1.0
        for value, weight in others:
            spared *= 1 - weight * value
        return (1 - (1 - target) / spared) / own if spared > 0 else 0.0
    return _searched(values, weights, at, target)


def all_needed(
    values: Sequence[float | None], weights: Sequence[float], fusion: Fusion, *, target: float, low: bool = False
) -> tuple[float | None, ...]:
    """`needed` of every signal, at once; up to rounding."""
    if fusion is not Fusion.WEIGHTED_AVERAGE:
        return tuple([needed(values, weights, fusion, at=at, target=target, low=low) for at in range(len(values))])
    total = above = 0.0
    for value, weight in zip(values, weights, strict=True):
        if value is not None:
            total += weight
            above += value * weight
        elif low:
            total += weight
    short = target * total - above
    found: list[float | None] = []
    for value, weight in zip(values, weights, strict=True):
        if weight <= 0:
            found.append(None)
        elif value is not None:
            found.append(short / weight + value)
        else:
            found.append(short / weight + (0.0 if low else target))
    return tuple(found)


def _searched(values: Sequence[float | None], weights: Sequence[float], at: int, target: float) -> float:
    """`needed` of a noisy OR in which others are missing: what they are taken to be depends on this one too."""
    tried = list(values)
    below, above = 0.0, 1.0
    tried[at] = above
    if fuse(tried, weights, Fusion.NOISY_OR).score < target:
        return 2.0
    for _ in range(52):
        tried[at] = middle = (below + above) / 2
        if fuse(tried, weights, Fusion.NOISY_OR).score >= target:
            above = middle
        else:
            below = middle
    return above
