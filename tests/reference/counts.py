"""Counting by the hour, the slow way: one prediction and one dictionary at a time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Counted:
    """One prediction with what is counted of it."""

    id: bytes
    predicted_us: int
    temp: float | None
    carrier: str | None
    slices: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def hour(self) -> int:
        """Its hour."""
        return self.predicted_us // 3_600_000_000


def temp_cell(value: float | None, edges: Sequence[float]) -> int:
    """Cell of a number: values up to and including an edge lie below it; missing is last."""
    if value is None:
        return len(edges) + 1
    return sum(edge < value for edge in edges)


def carrier_cell(value: str | None, categories: Sequence[str]) -> int:
    """Cell of a category; other, then missing."""
    if value is None:
        return len(categories) + 1
    return categories.index(value) if value in categories else len(categories)


def count(
    arrivals: Sequence[Counted],
    edges: Sequence[float],
    categories: Sequence[str],
    first: int,
    last: int,
    part: str = "",
) -> tuple[int, list[int], list[int]]:
    """Predictions of hours first <= hour < last, temp counts, carrier counts; each prediction once, as it came first.

    Args:
        part: a slice, as `country=US`; empty is all.
    """
    seen: set[bytes] = set()
    predictions = 0
    temps: Counter[int] = Counter()
    carriers: Counter[int] = Counter()
    for one in arrivals:
        if one.id in seen:
            continue
        seen.add(one.id)
        if not first <= one.hour < last or (part and part not in parts(one)):
            continue
        predictions += 1
        temps[temp_cell(one.temp, edges)] += 1
        carriers[carrier_cell(one.carrier, categories)] += 1
    return (
        predictions,
        [temps[cell] for cell in range(len(edges) + 2)],
        [carriers[cell] for cell in range(len(categories) + 2)],
    )


def parts(one: Counted) -> set[str]:
    """The slices of a prediction."""
    return {f"{name}={value}" for name, value in one.slices.items() if value is not None}
