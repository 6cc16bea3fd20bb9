"""What holds when: concepts, changes and benign shifts of one model's stream, hour by hour."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.streams.concepts import REGIMES, Stream

HOURS_PER_DAY = 24

GAP_DAYS_MIN = 26
"""Between two changes; a label that is 14 days late must have a chance to tell."""
GRADUAL_DAYS = 5
STEPS = 8
"""In which a concept moves that moves bit by bit."""
BENIGN_DAYS = (4, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """By hour since the stream began (which is before the backtest's start): arrays of shape (hours,)."""

    before: npt.NDArray[np.float64]
    """The concept that holds, or that a change leaves. 2.5 is half-way from plane 2 to plane 3."""
    after: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]
    """Of rows of `after` among all."""
    regime: npt.NDArray[np.int64]


def timeline(stream: Stream, rng: np.random.Generator, warm_days: int, days: int) -> Timeline:
    """Draw one. Changes are abrupt or mix in over days at even odds; where concepts move, they move for days.

    Args:
        warm_days: before the backtest: one concept, the usual regime.
    """
    hours = (warm_days + days) * HOURS_PER_DAY
    changes = _changes(rng, days)
    concepts = stream.concepts(rng, len(changes) + 1)
    before, share = np.full(hours, float(concepts[0])), np.zeros(hours)
    after = before.copy()
    for number, day in enumerate(changes):
        begin = int((warm_days + day) * HOURS_PER_DAY + rng.integers(HOURS_PER_DAY))
        length = GRADUAL_DAYS * HOURS_PER_DAY if stream.gradual or rng.random() < 0.5 else 0
        end = min(begin + length, hours)
        after[begin:end] = concepts[number + 1]
        share[begin:end] = np.linspace(0, 1, length + 2)[1:-1][: end - begin]
        before[end:] = after[end:] = concepts[number + 1]
    if stream.gradual:
        before = after = before + np.round(share * STEPS) / STEPS
        share = np.zeros(hours)
    return Timeline(before=before, after=after, share=share, regime=_regimes(rng, warm_days, days))


def _changes(rng: np.random.Generator, days: int) -> list[int]:
    """Days, at least `GAP_DAYS_MIN` apart and as far from both ends."""
    found = []
    day = 10 + int(rng.integers(12))
    while day <= days - GAP_DAYS_MIN:
        found.append(day)
        day += GAP_DAYS_MIN + int(rng.integers(16))
    return found


def _regimes(rng: np.random.Generator, warm_days: int, days: int) -> npt.NDArray[np.int64]:
    """Benign shifts come and go, at any time, also during changes."""
    found = np.zeros((warm_days + days) * HOURS_PER_DAY, np.int64)
    day = 4 + int(rng.integers(10))
    while day < days:
        length = int(rng.integers(*BENIGN_DAYS))
        begin = (warm_days + day) * HOURS_PER_DAY
        found[begin : begin + length * HOURS_PER_DAY] = int(rng.integers(1, REGIMES))
        day += length + 12 + int(rng.integers(15))
    return found
