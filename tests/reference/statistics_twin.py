"""The statistics once more, as dumb as possible: loops over lists, formulas copied from the definitions."""

import math
from collections.abc import Sequence


def shares(counts: Sequence[int], smoothing: float) -> list[float]:
    """(n + s) / (N + B s)."""
    total = sum(counts) + smoothing * len(counts)
    return [(count + smoothing) / total for count in counts]


def psi(reference: Sequence[int], current: Sequence[int], smoothing: float = 0.5) -> float:
    """sum (q - p) ln(q / p)."""
    found = 0.0
    for p, q in zip(shares(reference, smoothing), shares(current, smoothing), strict=True):
        found += (q - p) * math.log(q / p)
    return found


def kl(reference: Sequence[int], current: Sequence[int], smoothing: float = 0.5) -> float:
    """sum q ln(q / p)."""
    found = 0.0
    for p, q in zip(shares(reference, smoothing), shares(current, smoothing), strict=True):
        found += q * math.log(q / p)
    return found


def js_distance(reference: Sequence[int], current: Sequence[int], smoothing: float = 0.5) -> float:
    """Root of the mean divergence from the middle, in bits."""
    found = 0.0
    for p, q in zip(shares(reference, smoothing), shares(current, smoothing), strict=True):
        middle = (p + q) / 2
        found += p * math.log2(p / middle) / 2 + q * math.log2(q / middle) / 2
    return math.sqrt(max(found, 0.0))


def pooled(reference: Sequence[int], current: Sequence[int], least: float) -> list[tuple[int, int]]:
    """Cells with enough expected rows, then the pool of the others."""
    n, m = sum(reference), sum(current)
    cells = [(r, c) for r, c in zip(reference, current, strict=True) if r + c > 0]
    kept, pool = [], []
    for r, c in cells:
        if (r + c) < least * (n + m) / min(n, m):
            pool.append((r, c))
        else:
            kept.append((r, c))
    if pool and sum(r + c for r, c in pool) < least * (n + m) / min(n, m) and kept:
        smallest = min(kept, key=lambda cell: cell[0] + cell[1])
        kept.remove(smallest)
        pool.append(smallest)
    if pool:
        kept.append((sum(r for r, _ in pool), sum(c for _, c in pool)))
    return kept


def chi_square(reference: Sequence[int], current: Sequence[int], least: float = 5.0) -> tuple[float, int]:
    """Pearson's statistic over the 2 x cells table, and its degrees of freedom."""
    cells = pooled(reference, current, least)
    if len(cells) < 2:
        return 0.0, 0
    n, m = sum(reference), sum(current)
    found = 0.0
    for r, c in cells:
        for observed, size in ((r, n), (c, m)):
            expected = (r + c) * size / (n + m)
            found += (observed - expected) ** 2 / expected
    return found, len(cells) - 1


def discoveries(p_values: Sequence[float], level: float) -> list[bool]:
    """Benjamini-Hochberg by trying every k."""
    made = [p for p in p_values if not math.isnan(p)]
    limit = -1.0
    for k in range(1, len(made) + 1):
        kth = sorted(made)[k - 1]
        if kth <= level * k / len(made):
            limit = kth
    return [p <= limit for p in p_values]


def numeric_counts(edges: Sequence[float], values: Sequence[float | None]) -> list[int]:
    """Every value against every edge."""
    counts = [0] * (len(edges) + 2)
    for value in values:
        if value is None or math.isnan(value):
            counts[-1] += 1
            continue
        cell = 0
        while cell < len(edges) and value > edges[cell]:
            cell += 1
        counts[cell] += 1
    return counts


def categorical_counts(categories: Sequence[str], values: Sequence[object]) -> list[int]:
    """Every value against every category; a number is a category by its value."""
    counts = [0] * (len(categories) + 2)
    for value in values:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            counts[-1] += 1
            continue
        for cell, category in enumerate(categories):
            if _same(category, value):
                counts[cell] += 1
                break
        else:
            counts[-2] += 1
    return counts


def _same(category: str, value: object) -> bool:
    if isinstance(value, str):
        return category == value or (value.endswith(".0") and category == value[:-2])
    if isinstance(value, int | float):
        return category == str(value) or (float(value).is_integer() and category == str(int(value)))
    return category == str(value)
