"""The statistics of `drift.py` for every feature of every model at once.

A fleet of 500 models with 200 features is 100,000 pairs of histograms. One by one that is seconds; stacked
into (rows, cells) matrices it is some twenty milliseconds. Rows with fewer cells than the matrix is wide are
padded with zeros on the right, and the formulas are arranged so that padding contributes exactly nothing.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy import special

from control_plane.core.statistics.drift import EXPECTED_MIN, SMOOTHING
from control_plane.core.statistics.sample import Bools, Float64s, Int64s, InvalidSample

Matrix = npt.NDArray[np.integer]

BLOCK_CELLS = 65_536
"""Cells computed at a time: half a megabyte per temporary, so that a handful of them stay in the L2 cache."""


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
    """One block, computed with the cells along the first axis: every sum is then over contiguous rows."""
    r = np.ascontiguousarray(reference.T, np.float64)
    c = np.ascontiguousarray(current.T, np.float64)
    n, m = r.sum(axis=0), c.sum(axis=0)
    total = r + c
    with np.errstate(divide="ignore", invalid="ignore"):
        chi_square, freedom = _chi_square(r, total, n, m)
        p_value = special.chdtrc(freedom, chi_square)
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
    is T / M times the sum here.
    """
    whole = n + m
    share = n / whole
    terms = total * share
    expected = np.maximum(terms, np.finfo(np.float64).tiny)
    terms -= r
    terms *= terms
    terms /= expected
    chi_square = terms.sum(axis=0)
    filled = total > 0
    freedom = np.add.reduce(filled, axis=0, dtype=np.int32).astype(np.int64) - 1
    enough = EXPECTED_MIN * whole / np.minimum(n, m)
    small = total < enough
    small &= filled
    crowded = np.flatnonzero(small.any(axis=0))
    if crowded.size:
        chi_square[crowded], freedom[crowded] = _pooled(
            np.take(r, crowded, axis=1),
            np.take(total, crowded, axis=1),
            np.take(terms, crowded, axis=1),
            np.take(small, crowded, axis=1),
            share=share[crowded],
            enough=enough[crowded],
        )
    return chi_square * (whole / m), freedom


def _pooled(
    r: Float64s, total: Float64s, terms: Float64s, small: Bools, *, share: Float64s, enough: Float64s
) -> tuple[Float64s, Int64s]:
    """As `drift.chi_square` pools: small cells become one, which takes in the smallest other if need be."""
    large = ~small
    large &= total > 0
    short = np.flatnonzero(((total * small).sum(axis=0) < enough) & large.any(axis=0))
    smallest = np.argmin(np.where(large[:, short], total[:, short], np.inf), axis=0)
    small[smallest, short], large[smallest, short] = True, False
    expected = (total * small).sum(axis=0) * share
    pooled = ((r * small).sum(axis=0) - expected) ** 2 / expected
    return (terms * large).sum(axis=0) + pooled, np.add.reduce(large, axis=0, dtype=np.int32).astype(np.int64)


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
