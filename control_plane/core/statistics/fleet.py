"""The statistics of `drift.py` for every feature of every model at once.

A fleet of 500 models with 200 features is 100,000 pairs of histograms. One by one that is seconds; stacked
into (rows, cells) matrices it is some twenty milliseconds. Rows with fewer cells than the matrix is wide are
padded with zeros on the right, and the formulas are arranged so that padding contributes exactly nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control_plane.core.statistics.drift import EXPECTED_MIN, SMOOTHING
from control_plane.core.statistics.sample import Bools, Float64s, Int64s, InvalidSample

Matrix = npt.NDArray[np.integer]

BLOCK_CELLS = 49_152
"""Cells computed at a time: 400 kB per temporary, so that a few of them stay in the L2 cache."""

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
    return tables_drift([(reference, current)], cells)


def tables_drift(
    tables: Sequence[tuple[Matrix, Matrix]], cells: Int64s, workspace: "Workspace | None" = None
) -> RowDrift:
    """`row_drift` of tables that lie apart, as if they were stacked, without stacking them.

    Every row gets the same bits in whatever tables it stands: the sums add cell by cell, in order. That is what lets
    a look at one model be replayed alone.

    Args:
        tables: reference and current of each, shapes (rows, width), of one width.
        cells: shape (sum of rows,).
        workspace: for this width, if many calls follow one another; None takes a new one.
    """
    width = tables[0][0].shape[1] if tables else 2
    rows = len(cells)
    found = RowDrift(
        psi=np.empty(rows),
        psi_debiased=np.empty(rows),
        chi_square=np.empty(rows),
        freedom=np.empty(rows, np.int64),
        p_value=np.empty(rows),
        reference_size=np.empty(rows),
        current_size=np.empty(rows),
    )
    space = workspace if workspace is not None else Workspace.of(width, rows)
    start = filled = 0
    for reference, current in tables:
        done = 0
        while done < len(reference):
            take = min(len(reference) - done, space.step - filled)
            into, rows_of = slice(filled, filled + take), slice(done, done + take)
            space.r[:, into], space.c[:, into] = reference[rows_of].T, current[rows_of].T
            done, filled = done + take, filled + take
            if filled == space.step:
                _block(space, filled, cells[start : start + filled], found, start)
                start, filled = start + filled, 0
    if filled:
        _block(space, filled, cells[start : start + filled], found, start)
    return found


@dataclass(frozen=True, slots=True)
class Workspace:
    """Room for one block, taken once: fresh pages cost more than the arithmetic on them. For one thread."""

    step: int
    r: Float64s
    c: Float64s
    total: Float64s
    terms: Float64s
    spare: Float64s
    small: Bools

    @staticmethod
    def of(width: int, rows: int) -> "Workspace":
        """Room for tables of this width, with no more rows than these."""
        step = min(max(BLOCK_CELLS // max(width, 1), 2), max(rows, 2))
        r, c, total, terms, spare = (np.zeros((width, step)) for _ in range(5))
        return Workspace(step, r, c, total, terms, spare, np.zeros((width, step), np.bool_))


def _block(space: Workspace, rows: int, cells: Int64s, into: RowDrift, start: int) -> None:
    """One block, with the cells along the first axis: every sum is then over contiguous rows.

    A block of one row would be summed in another order, so it is computed with an empty one beside it.
    """
    if rows == 1:
        space.r[:, 1] = space.c[:, 1] = 0.0
        cells = np.repeat(cells, 2)
    wide = slice(0, max(rows, 2))
    r, c = space.r[:, wide], space.c[:, wide]
    n, m = r.sum(axis=0), c.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        chi_square, freedom = _chi_square(space, wide, cells, n, m)
        p_value = chi_square_tail(chi_square, freedom)
        # In a padded cell ln((c + 1/2) / (r + 1/2)) = 0; elsewhere it differs from ln(q / p) by a constant of
        # the row, which sum(q - p) = 0 cancels.
        r += SMOOTHING
        c += SMOOTHING
        half = cells * SMOOTHING
        ratio = np.divide(c, r, out=space.total[:, wide])
        np.log(ratio, out=ratio)
        r *= 1 / (n + half)
        c *= 1 / (m + half)
        c -= r
        c *= ratio
        psi = np.maximum(c.sum(axis=0), 0.0)
        debiased = psi - (cells - 1) * (1 / n + 1 / m)
    untestable = freedom < 1
    if untestable.any():
        chi_square[untestable], p_value[untestable] = 0.0, 1.0
        freedom[untestable] = 0
    empty = (n == 0) | (m == 0)
    if empty.any():
        for column in (psi, debiased, chi_square, p_value):
            column[empty] = np.nan
    at = slice(start, start + rows)
    into.psi[at], into.psi_debiased[at] = psi[:rows], debiased[:rows]
    into.chi_square[at], into.freedom[at], into.p_value[at] = chi_square[:rows], freedom[:rows], p_value[:rows]
    into.reference_size[at], into.current_size[at] = n[:rows], m[:rows]


def _chi_square(space: Workspace, wide: slice, cells: Int64s, n: Float64s, m: Float64s) -> tuple[Float64s, Int64s]:
    """Statistic and degrees of freedom of each column; fewer than 1 where there is nothing to test.

    With e = t N / T, the terms (r - e)^2 / e of the other sample are N / M times those of this one, so chi2
    is T / M times the sum here. Pools as `drift.chi_square`: small cells become one, which takes in the
    smallest other if need be. Most cells are large everywhere, so only those with a small one in some column
    are gone through.
    """
    r, small = space.r[:, wide], space.small[:, wide]
    total = np.add(r, space.c[:, wide], out=space.total[:, wide])
    whole = n + m
    share = n / whole
    terms = np.multiply(total, share, out=space.terms[:, wide])
    expected = np.add(terms, np.finfo(np.float64).tiny, out=space.spare[:, wide])
    terms -= r
    terms *= terms
    terms /= expected
    enough = EXPECTED_MIN * whole / np.minimum(n, m)
    np.less(total, enough, out=small)
    freedom = cells - 1
    affected = np.flatnonzero(small.any(axis=1))
    pooled: Float64s | float = 0.0
    if affected.size:
        filled = total[affected] > 0
        freedom = freedom - (np.arange(len(total))[affected, None] < cells).sum(axis=0) + filled.sum(axis=0)
        small[affected] &= filled
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
        inside = small[cell]
        pooled_r += r[cell] * inside
        pooled_total += total[cell] * inside
        terms[cell] *= ~inside
        freedom -= inside
    short = np.flatnonzero((pooled_total > 0) & (pooled_total < enough))
    if short.size:
        others = total[:, short]
        others[others < enough[short]] = np.inf
        smallest = others.argmin(axis=0)
        there = others[smallest, np.arange(short.size)] < np.inf
        short, smallest = short[there], smallest[there]
        pooled_r[short] += r[smallest, short]
        pooled_total[short] += total[smallest, short]
        terms[smallest, short] = 0.0
        freedom[short] -= 1
    expected = pooled_total * share
    freedom += pooled_total > 0
    return (pooled_r - expected) ** 2 / np.maximum(expected, np.finfo(np.float64).tiny)


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
