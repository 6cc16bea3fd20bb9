"""How much of the truth has arrived: over mature predictions alone, with what chance says of it.

Coverage is (joined + absent) / mature. What is not mature, or waits for a join, is in neither: late is never counted as
missing. A share of exactly the minimum is enough.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

Z_LOW = 3.0
"""A part (version, slice) is called low only if chance would put a share at the minimum so low once in 700 times."""
PART_ROWS_MIN = 30
"""Mature predictions below which a version or slice says nothing by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCoverage:
    """Coverage of one version or slice, named as people call it."""

    name: str
    mature: int
    known: int
    """Joined, or absent where absence means negative."""
    version: int = 0
    slice_name: str = ""

    @property
    def share(self) -> float:
        """Of the mature; 0 of nothing."""
        return self.known / self.mature if self.mature else 0.0


def coverage_of(known: int, mature: int) -> float | None:
    """known / mature; None if nothing is mature.

    >>> coverage_of(4, 5), coverage_of(0, 0)
    (0.8, None)
    """
    return known / mature if mature else None


def is_low(coverage: float | None, minimum: float) -> bool:
    """Is it below the minimum? Exactly the minimum is not; nothing mature is not.

    The quotient of two integers is rounded as the decimal number is, so 55 of 100 is exactly 0.55.

    >>> is_low(coverage_of(80, 100), 0.8), is_low(coverage_of(799_999, 1_000_000), 0.8), is_low(None, 0.8)
    (False, True, False)
    """
    return coverage is not None and coverage < minimum


def standard_error(known: float, mature: float, rate: float) -> float:
    """Of a coverage that was estimated from a sample of ids, 0 of everything.

    sqrt(c (1 - c) / n * (1 - rate)), n = mature * rate the predictions that were kept: the coverage of all of them is
    wanted, so what was seen is not in doubt. With c drawn towards a half by one row, as 0 of 5 is not surely 0.

    Args:
        known, mature: scaled to all ids.
        rate: share of ids that was kept, in (0, 1].

    >>> standard_error(800, 1000, 1.0), round(standard_error(80_000, 100_000, 0.01), 4)
    (0.0, 0.0126)
    """
    kept = mature * rate
    if rate >= 1 or kept <= 0:
        return 0.0
    share = min(1.0, max(0.0, (known * rate + 0.5) / (kept + 1)))
    return math.sqrt(share * (1 - share) / kept * (1 - rate))


def surely_low(known: int, mature: int, minimum: float, rate: float = 1.0) -> bool:
    """Is a part below the minimum by more than chance? Few rows never are."""
    kept = mature * rate
    if kept < PART_ROWS_MIN or not 0 < minimum < 1:
        return False
    return known / mature < minimum - Z_LOW * math.sqrt(minimum * (1 - minimum) / kept)


def low_parts(parts: Iterable[PartCoverage], minimum: float, rate: float = 1.0) -> list[PartCoverage]:
    """Versions or slices that are surely below the minimum, the lowest first."""
    low = [part for part in parts if surely_low(part.known, part.mature, minimum, rate)]
    return sorted(low, key=lambda part: (part.share, -part.mature, part.name))
