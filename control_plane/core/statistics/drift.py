"""How far two binned samples are apart, and whether that is more than chance.

Distance and significance are two questions. PSI, KL and JS say *how far*; on small samples they are large by
chance alone (PSI > 0.1 on 85 % of no-drift pairs of 100 rows), so PSI also comes debiased. The chi-square
test says *whether at all*; on large samples it fires on differences nobody cares about. A feature counts as
drifted only if both agree.

Here is one pair at a time, for reading and for reports. `fleet.py` computes the same numbers for a whole
fleet.
"""

import numpy as np

from control_plane.core.statistics.sample import Counts, Float64s, InvalidSample, as_pair

SMOOTHING = 0.5
"""Added to every cell (Jeffreys' prior). The usual epsilon of 1e-4 or less *is* the false-alarm rate: on a
skewed categorical at 200 rows it makes a 5 % test reject 15 % to 80 % of no-drift pairs."""

EXPECTED_MIN = 5.0
"""Cells with fewer expected rows in either sample are pooled: below, the chi-square approximation is poor
(Cochran 1954)."""


def shares(counts: Float64s, smoothing: float = SMOOTHING) -> Float64s:
    """Smoothed shares (n_i + s) / (N + B s), shape (B,); they sum to 1."""
    smoothed = counts + smoothing
    return smoothed / smoothed.sum()  # type: ignore[no-any-return]


def _share_pair(reference: Counts, current: Counts, smoothing: float) -> tuple[Float64s, Float64s]:
    r, c = as_pair(reference, current)
    if not smoothing >= 0:
        raise InvalidSample("smoothing", "range", "smoothing is 0 or more")
    if smoothing == 0 and not (r.all() and c.all()):
        raise InvalidSample("smoothing", "empty_cell", "a cell is empty: without smoothing the logarithm is infinite")
    return shares(r, smoothing), shares(c, smoothing)


def psi(reference: Counts, current: Counts, *, smoothing: float = SMOOTHING) -> float:
    """Population stability index of two binned samples.

    PSI = sum_i (q_i - p_i) * ln(q_i / p_i), with p = (r + s) / (N + B s), q = (c + s) / (M + B s), s = 1/2.

    Args:
        reference: counts r, shape (B,), integers >= 0, sum N > 0.
        current: counts c, shape (B,), same bins, sum M > 0.
        smoothing: s; 0 gives the textbook index, defined only without empty cells.
    Returns:
        Dimensionless (nats), >= 0; 0 when the smoothed shares are equal.
    Raises:
        InvalidSample: shapes differ, B < 2, a negative count or an empty sample.
    Source: Yurdakul 2018, eq. 2.1; the smoothing is ours.

    >>> psi([50, 50], [50, 50])
    0.0
    >>> round(psi([100] * 10, range(55, 146, 10), smoothing=0), 12)
    0.087009358837
    """
    p, q = _share_pair(reference, current, smoothing)
    return max(float(np.sum((q - p) * np.log(q / p))), 0.0)


def psi_bias(cells: int, reference_size: float, current_size: float) -> float:
    """Expected PSI when nothing drifted: (B - 1)(1/N + 1/M), in nats. Source: Yurdakul 2018, theorem 3.1."""
    return (cells - 1) * (1 / reference_size + 1 / current_size)


def psi_debiased(reference: Counts, current: Counts) -> float:
    """PSI less what chance alone gives: PSI - (B - 1)(1/N + 1/M).

    Returns:
        Nats. About 0 when nothing drifted, and then as often below 0 as the sample happens to lie close.
    Raises:
        InvalidSample: as `psi`.

    >>> few = psi_debiased([10] * 10, [4, 16, 9, 11, 10, 10, 7, 13, 12, 8])
    >>> round(few, 4)  # raw 0.1002, but 100 rows in 10 bins are 0.18 apart by chance
    -0.0798
    """
    r, c = as_pair(reference, current)
    return psi(reference, current) - psi_bias(r.size, float(r.sum()), float(c.sum()))


def chi_square(reference: Counts, current: Counts, *, expected_min: float = EXPECTED_MIN) -> tuple[float, int, float]:
    """Two-sample Pearson chi-square test that both samples come from one distribution.

    chi2 = sum over cells and samples of (observed - expected)^2 / expected, expected_i = t_i N / T with t = r
    + c. Cells empty in both samples do not count. Cells where either sample expects fewer than `expected_min`
    rows are pooled into one, which takes in the smallest other cell if it is still too small. Which cells are
    pooled depends on the totals t only, so pooling does not move the test's level.

    Returns:
        (chi2, degrees of freedom, p value). With fewer than two cells left: (0.0, 0, 1.0), there is nothing
        to test.
    Raises:
        InvalidSample: as `psi`.
    Source: Pearson 1900; Cochran 1954 for the minimum.

    >>> statistic, freedom, p_value = chi_square([100] * 10, range(55, 146, 10))
    >>> round(statistic, 9), freedom, p_value < 1e-5
    (42.828921174, 9, True)
    >>> chi_square([5, 0], [7, 0])
    (0.0, 0, 1.0)
    """
    r, c = _pooled(*as_pair(reference, current), expected_min)
    if r.size < 2:
        return 0.0, 0, 1.0
    n, m = float(r.sum()), float(c.sum())
    expected = (r + c) * (n / (n + m))
    statistic = float(np.sum((r - expected) ** 2 / expected)) * (n + m) / m
    from scipy import special  # noqa: PLC0415 - takes 0.4 s to import, and a start should not wait for it

    return statistic, r.size - 1, float(special.chdtrc(r.size - 1, statistic))


def _pooled(r: Float64s, c: Float64s, expected_min: float) -> tuple[Float64s, Float64s]:
    """The cells that are large enough, then the pooled one if there is any."""
    total = r + c
    enough = expected_min * total.sum() / min(r.sum(), c.sum())
    small = (total < enough) & (total > 0)
    large = (total >= enough) & (total > 0)
    if small.any() and total[small].sum() < enough and large.any():
        smallest = int(np.argmin(np.where(large, total, np.inf)))
        small[smallest], large[smallest] = True, False
    if not small.any():
        return r[large], c[large]
    return np.append(r[large], r[small].sum()), np.append(c[large], c[small].sum())


def benjamini_hochberg(p_values: Float64s, level: float = 0.05) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of m tests are discoveries, at a false discovery rate of at most `level`.

    Rejects the k smallest p values, with k the largest rank where p_(k) <= level k / m. NaN is a test that
    was not made: it is not rejected and not counted in m.

    Args:
        p_values: shape (m,).
    Returns:
        Shape (m,), in the order given.
    Source: Benjamini and Hochberg 1995.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.5])).tolist()
    [True, False, False, False]
    """
    made = p_values[~np.isnan(p_values)]
    if not made.size:
        return np.zeros(p_values.shape, np.bool_)
    ranked = np.sort(made)
    passing = np.flatnonzero(ranked <= level * np.arange(1, made.size + 1) / made.size)
    if not passing.size:
        return np.zeros(p_values.shape, np.bool_)
    return p_values <= ranked[passing[-1]]  # type: ignore[no-any-return]


def kl(reference: Counts, current: Counts, *, smoothing: float = SMOOTHING) -> float:
    """Kullback-Leibler divergence of current from reference, KL(q || p) = sum_i q_i ln(q_i / p_i), smoothed
    as `psi`.

    Returns:
        Nats, >= 0. Hardly sees mass that disappeared; read `js_distance` beside it.
    Raises:
        InvalidSample: as `psi`.
    Source: Kullback and Leibler 1951.

    >>> round(kl([100] * 10, range(55, 146, 10), smoothing=0), 12)
    0.042334318193
    """
    p, q = _share_pair(reference, current, smoothing)
    return max(float(np.sum(q * np.log(q / p))), 0.0)


def kl_bias(cells: int, reference_size: float, current_size: float) -> float:
    """Expected KL when nothing drifted: half of `psi_bias`, in nats (2 M KL ~ chi2(B - 1) for a known
    reference).
    """
    return psi_bias(cells, reference_size, current_size) / 2


def js_distance(reference: Counts, current: Counts, *, smoothing: float = SMOOTHING) -> float:
    """Jensen-Shannon distance to base 2: sqrt((KL2(p || m) + KL2(q || m)) / 2), m = (p + q) / 2, smoothed as
    `psi`.

    Returns:
        0 (equal) to 1 (no overlap); a metric, symmetric.
    Raises:
        InvalidSample: as `psi`.
    Source: Endres and Schindelin 2003.

    >>> round(js_distance([100] * 10, range(55, 146, 10), smoothing=0), 12)
    0.12476996387
    """
    p, q = _share_pair(reference, current, smoothing)
    middle = (p + q) / 2
    divergence = (np.sum(p * np.log2(p / middle)) + np.sum(q * np.log2(q / middle))) / 2
    return float(np.sqrt(max(divergence, 0.0)))
