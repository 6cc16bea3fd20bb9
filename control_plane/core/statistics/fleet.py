"""The statistics of `drift.py` for every feature of every model at once.

A fleet of 500 models with 200 features is 100,000 pairs of histograms. One by one that is seconds; stacked
into (rows, cells) matrices it is some twenty milliseconds. Rows with fewer cells than the matrix is wide are
padded with zeros on the right, and the formulas are arranged so that padding contributes exactly nothing.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from control_plane.core.statistics.drift import EXPECTED_MIN, SMOOTHING
from control_plane.core.statistics.sample import Bools, Float64s, Int64s, InvalidSample

Matrix = npt.NDArray[np.integer]

BLOCK_CELLS = 73_728
"""Cells computed at a time: half a megabyte per temporary, so that a handful of them stay in the L2 cache."""

FREEDOM_SUMMED_MAX = 30
"""Degrees of freedom up to which summing the tail beats the general incomplete gamma function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDrift:
    """Drift of each row, all of shape (rows,); NaN where the reference or the current sample of a row is
    empty.
    """

    psi: Float64s
    psi_debiased: Float64s
    chi_square: Float64s
    freedom: Int64s
    p_value: Float64s
    reference_size: Float64s
    current_size: Float64s


def row_drift(reference: Matrix, current: Matrix, cells: Int64s) -> RowDrift:
    """PSI, debiased PSI and the chi-square test of each row, as `drift.psi`, `psi_debiased` and `chi_square`.

    Args:
        reference: counts, shape (rows, width), integers >= 0 and at most 2^53, zero from column `cells[row]`
        on. current: likewise. cells: shape (rows,), 2 <= cells <= width.
    Raises:
        InvalidSample: shapes or types do not fit.

    >>> row_drift(np.array([[100] * 10]), np.arange(55, 146, 10)[None, :], np.array([10])).chi_square.round(9)
    array([42.82892117])
    """
    if reference.shape != current.shape or reference.ndim != 2 or cells.shape != reference.shape[:1]:
        raise InvalidSample("rows", "shape", f"{reference.shape}, {current.shape} and {cells.shape} do not fit")
    rows, width = reference.shape
    step = max(BLOCK_CELLS // max(width, 1), 1)
    blocks = [slice(start, start + step) for start in range(0, rows, step)] or [slice(0, 0)]
    found = [_block(reference[block], current[block], cells[block]) for block in blocks]
    if len(found) == 1:
        return found[0]
    names = [field.name for field in fields(RowDrift)]
    return RowDrift(**{name: np.concatenate([getattr(part, name) for part in found]) for name in names})


def _block(reference: Matrix, current: Matrix, cells: Int64s) -> RowDrift:
    """One block, computed with the cells along the first axis: every sum is then over contiguous rows.

    The sums add cell by cell, in order, so a row gets the same bits in whatever block it stands: looks are replayed
    alone. A block of one row would be summed in another order, so it is computed as two.
    """
    if len(cells) == 1:
        twice = _block(np.repeat(reference, 2, axis=0), np.repeat(current, 2, axis=0), np.repeat(cells, 2))
        return RowDrift(**{field.name: getattr(twice, field.name)[:1] for field in fields(RowDrift)})
    r = np.ascontiguousarray(reference.T, np.float64)
    c = np.ascontiguousarray(current.T, np.float64)
    n, m = r.sum(axis=0), c.sum(axis=0)
    total = r + c
    with np.errstate(divide="ignore", invalid="ignore"):
        chi_square, freedom = _chi_square(r, total, n, m)
        p_value = chi_square_tail(chi_square, freedom)
        # In a padded cell ln((c + 1/2) / (r + 1/2)) = 0; elsewhere it differs from ln(q / p) by a constant of
        # the row, which sum(q - p) = 0 cancels.
        r += SMOOTHING
        c += SMOOTHING
        half = cells * SMOOTHING
        ratio = np.divide(c, r, out=total)
        np.log(ratio, out=ratio)
        r /= n + half
        c /= m + half
        c -= r
        c *= ratio
        psi = np.maximum(c.sum(axis=0), 0.0)
        debiased = psi - (cells - 1) * (1 / n + 1 / m)
    untestable = freedom < 1
    chi_square[untestable], p_value[untestable] = 0.0, 1.0
    freedom[untestable] = 0
    empty = (n == 0) | (m == 0)
    if empty.any():
        for column in (psi, debiased, chi_square, p_value):
            column[empty] = np.nan
    return RowDrift(
        psi=psi,
        psi_debiased=debiased,
        chi_square=chi_square,
        freedom=freedom,
        p_value=p_value,
        reference_size=n,
        current_size=m,
    )


def _chi_square(r: Float64s, total: Float64s, n: Float64s, m: Float64s) -> tuple[Float64s, Int64s]:
    """Statistic and degrees of freedom of each column; fewer than 1 where there is nothing to test.

    With e = t N / T, the terms (r - e)^2 / e of the other sample are N / M times those of this one, so chi2
    is T / M times the sum here. Pools as `drift.chi_square`: small cells become one, which takes in the
    smallest other if need be. Most cells are large everywhere, so only those with a small one in some column
    are gone through.
    """
    whole = n + m
    share = n / whole
    terms = total * share
    expected = np.maximum(terms, np.finfo(np.float64).tiny)
    terms -= r
    terms *= terms
    terms /= expected
    filled = total > 0
    enough = EXPECTED_MIN * whole / np.minimum(n, m)
    small = total < enough
    small &= filled
    freedom = np.add.reduce(filled, axis=0, dtype=np.int32).astype(np.int64) - 1
    affected = np.flatnonzero(small.any(axis=1))
    pooled: Float64s | float = 0.0
    if affected.size:
        pooled = _pool(r, total, terms, small, affected=affected, share=share, enough=enough, freedom=freedom)
    return (terms.sum(axis=0) + pooled) * (whole / m), freedom


def _pool(
    r: Float64s,
    total: Float64s,
    terms: Float64s,
    small: Bools,
    *,
    affected: Int64s,
    share: Float64s,
    enough: Float64s,
    freedom: Int64s,
) -> Float64s:
    """The term of the pooled cell of each column; the terms of the cells in it are set to 0, in place."""
    pooled_r, pooled_total = np.zeros_like(share), np.zeros_like(share)
    for cell in affected.tolist():
        pooled_r += r[cell] * small[cell]
        pooled_total += total[cell] * small[cell]
        terms[cell] *= ~small[cell]
        freedom -= small[cell]
    large = total >= enough
    others = np.where(large, total, np.inf)
    least = others.min(axis=0)
    short = np.flatnonzero((pooled_total > 0) & (pooled_total < enough) & (least < np.inf))
    smallest = _first_equal(others, least)[short]
    pooled_r[short] += r[smallest, short]
    pooled_total[short] += total[smallest, short]
    terms[smallest, short] = 0.0
    freedom[short] -= 1
    expected = pooled_total * share
    freedom += pooled_total > 0
    return (pooled_r - expected) ** 2 / np.maximum(expected, np.finfo(np.float64).tiny)


def _first_equal(values: Float64s, wanted: Float64s) -> Int64s:
    """First cell of each column that holds what is wanted: `argmin(axis=0)` in passes over contiguous
    rows.
    """
    cells = len(values)
    from_the_end = np.arange(cells, 0, -1.0)[:, None]
    return cells - ((values == wanted) * from_the_end).max(axis=0).astype(np.int64)  # type: ignore[no-any-return]


def chi_square_tail(statistic: Float64s, freedom: Int64s) -> Float64s:
    """P(chi-square with `freedom` degrees > statistic), as `scipy.special.chdtrc` and four times faster.

    With y = x / 2: e^-y sum_{j < f/2} y^j / j! for even f, erfc(sqrt y) + e^-y sum_{j <= (f-1)/2} y^(j-1/2) /
    Gamma(j + 1/2) for odd f; all terms are positive, so nothing cancels. Above `FREEDOM_SUMMED_MAX` scipy
    computes it.

    Args:
        statistic: shape (rows,), >= 0.
        freedom: shape (rows,); NaN comes back where it is below 1.
    Source: Abramowitz and Stegun 26.4.4 and 26.4.5.

    >>> chi_square_tail(np.array([3.841458820694124, 42.82892117421733]), np.array([1, 9])).round(7)
    array([5.0e-02, 2.3e-06])
    """
    from scipy import special  # noqa: PLC0415 - takes 0.4 s to import, and a start should not wait for it

    found = np.full(statistic.shape, np.nan)
    present = np.flatnonzero(np.bincount(np.maximum(freedom, 0)))
    for degrees in present[present > 0].tolist():
        at = slice(None) if present.size == 1 else np.flatnonzero(freedom == degrees)
        half = statistic[at] / 2
        if degrees > FREEDOM_SUMMED_MAX:
            found[at] = special.chdtrc(degrees, statistic[at])
            continue
        odd = degrees % 2
        term = np.sqrt(half / np.pi) * 2 if odd else np.ones_like(half)
        total = np.zeros_like(half)
        for j in range(1, (degrees - odd) // 2 + 1):
            total += term
            term *= half / (j + odd / 2)
        found[at] = np.exp(-half) * total + (special.erfc(np.sqrt(half)) if odd else 0.0)
    return found


def row_divergence(reference: Matrix, current: Matrix) -> tuple[Float64s, Float64s]:
    """KL(current || reference) in nats and JS distance to base 2 of each row, as `drift.kl` and
    `drift.js_distance`.

    Args:
        reference: counts, shape (rows, B), integers >= 0; no padding.
        current: likewise.
    """
    p, q = reference + SMOOTHING, current + SMOOTHING
    p /= p.sum(axis=1, keepdims=True)
    q /= q.sum(axis=1, keepdims=True)
    middle = (p + q) / 2
    kl = (q * np.log(q / p)).sum(axis=1)
    js = (p * np.log2(p / middle) + q * np.log2(q / middle)).sum(axis=1) / 2
    return np.maximum(kl, 0.0), np.sqrt(np.maximum(js, 0.0))


def discoveries(p_values: Float64s, level: Float64s) -> Bools:
    """`drift.benjamini_hochberg` of each row of tests at its own level.

    Args:
        p_values: shape (models, m); NaN is a test that was not made (or padding).
        level: shape (models,).
    Returns:
        Shape (models, m).

    >>> discoveries(np.array([[0.01, 0.04, 0.03, 0.5]]), np.array([0.05])).tolist()
    [[True, False, False, False]]
    """
    made = np.count_nonzero(~np.isnan(p_values), axis=1)
    ranked = np.sort(p_values, axis=1)  # NaN sorts last
    line = np.arange(1, p_values.shape[1] + 1) * (level / np.maximum(made, 1))[:, None]
    limit = np.max(np.where(ranked <= line, ranked, -1.0), axis=1, initial=-1.0)
    return p_values <= limit[:, None]  # type: ignore[no-any-return]
