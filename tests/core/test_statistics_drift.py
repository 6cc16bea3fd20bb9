"""Drift of one pair and of many: vectors from the definitions, the dumb twin, and what chance alone may do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from control_plane.core.errors import Invalid, Reason
from control_plane.core.statistics import drift, fleet
from control_plane.core.statistics.sample import Float64s, InvalidSample
from tests.reference import statistics_twin as twin

FLAT = [100] * 10
RISING = list(range(55, 146, 10))
FEW_REFERENCE, FEW_CURRENT = [10] * 10, [4, 16, 9, 11, 10, 10, 7, 13, 12, 8]

counts = st.one_of(st.integers(0, 8), st.integers(0, 400), st.integers(0, 10**9))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two histograms over the same 2 to 14 cells, neither empty."""
    cells = draw(st.integers(2, 14))
    both = [draw(st.lists(counts, min_size=cells, max_size=cells).filter(any)) for _ in range(2)]
    return both[0], both[1]


def test_vectors_without_smoothing() -> None:
    assert drift.psi(FLAT, RISING, smoothing=0) == pytest.approx(0.087009358837, abs=1e-12)
    assert drift.kl(FLAT, RISING, smoothing=0) == pytest.approx(0.042334318193, abs=1e-12)
    assert drift.js_distance(FLAT, RISING, smoothing=0) == pytest.approx(0.124769963870, abs=1e-12)
    assert drift.chi_square(FLAT, RISING)[0] == pytest.approx(42.828921174, abs=1e-9)


def test_a_large_psi_of_few_rows_is_not_flagged() -> None:
    assert drift.psi(FEW_REFERENCE, FEW_CURRENT, smoothing=0) == pytest.approx(0.1119, abs=1e-4)
    assert drift.psi_debiased(FEW_REFERENCE, FEW_CURRENT) < 0
    assert drift.chi_square(FEW_REFERENCE, FEW_CURRENT)[2] > 0.05


@given(pairs())
def test_one_pair_agrees_with_its_twin(pair: tuple[list[int], list[int]]) -> None:
    reference, current = pair
    assert drift.psi(reference, current) == pytest.approx(twin.psi(reference, current), rel=1e-9, abs=1e-12)
    assert drift.kl(reference, current) == pytest.approx(twin.kl(reference, current), rel=1e-9, abs=1e-12)
    # The root of a divergence next to 0 has half its digits.
    assert drift.js_distance(reference, current) == pytest.approx(twin.js_distance(reference, current), abs=1e-7)
    statistic, freedom, p_value = drift.chi_square(reference, current)
    expected, cells = twin.chi_square(reference, current)
    assert freedom == cells
    assert statistic == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert p_value == pytest.approx(stats.chi2.sf(expected, cells) if cells else 1.0, rel=1e-6, abs=1e-12)


@given(st.lists(pairs(), min_size=1, max_size=8))
def test_the_fleet_path_is_the_single_path_row_by_row(rows: list[tuple[list[int], list[int]]]) -> None:
    width = max(len(reference) for reference, _ in rows)
    padded = np.zeros((2, len(rows), width), np.int64)
    for at, pair in enumerate(rows):
        for side in (0, 1):
            padded[side, at, : len(pair[side])] = pair[side]
    found = fleet.row_drift(padded[0], padded[1], np.array([len(reference) for reference, _ in rows]))
    for at, (reference, current) in enumerate(rows):
        statistic, freedom, p_value = drift.chi_square(reference, current)
        assert found.psi[at] == pytest.approx(drift.psi(reference, current), rel=1e-9, abs=1e-12)
        assert found.psi_debiased[at] == pytest.approx(drift.psi_debiased(reference, current), rel=1e-9, abs=1e-12)
        assert found.freedom[at] == freedom
        assert found.chi_square[at] == pytest.approx(statistic, rel=1e-9, abs=1e-9)
        assert found.p_value[at] == pytest.approx(p_value, rel=1e-6, abs=1e-12)
        assert (found.reference_size[at], found.current_size[at]) == (sum(reference), sum(current))


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    reference, current = rng.integers(0, 50, (2, 23, 6))
    whole = fleet.row_drift(reference, current, np.full(23, 6))
    monkeypatch.setattr(fleet, "BLOCK_CELLS", 24)
    parts = fleet.row_drift(reference, current, np.full(23, 6))
    np.testing.assert_array_equal(whole.chi_square, parts.chi_square)
    np.testing.assert_array_equal(whole.psi, parts.psi)


def test_divergence_of_rows() -> None:
    kl, js = fleet.row_divergence(np.array([FLAT, FLAT]), np.array([RISING, FLAT]))
    assert kl[0] == pytest.approx(drift.kl(FLAT, RISING), rel=1e-12)
    assert js[0] == pytest.approx(drift.js_distance(FLAT, RISING), rel=1e-12)
    assert (kl[1], js[1]) == (0.0, 0.0)


def test_a_row_without_a_sample_is_nan_and_disturbs_no_other() -> None:
    found = fleet.row_drift(np.array([[0, 0], [5, 9]]), np.array([[3, 4], [6, 8]]), np.array([2, 2]))
    assert math.isnan(found.psi[0])
    assert math.isnan(found.p_value[0])
    assert found.psi[1] == pytest.approx(drift.psi([5, 9], [6, 8]))


def test_no_rows_at_all() -> None:
    none = np.zeros((0, 5), np.int64)
    assert fleet.row_drift(none, none, np.zeros(0, np.int64)).psi.shape == (0,)


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 10, 29, 30, 31, 64])
def test_the_tail_is_scipys(freedom: int) -> None:
    statistic = np.concatenate([[0.0], np.geomspace(1e-6, 1400, 300)])
    tail = fleet.chi_square_tail(statistic, np.full(statistic.size, freedom))
    np.testing.assert_allclose(tail, stats.chi2.sf(statistic, freedom), rtol=1e-10, atol=1e-300)


def test_the_tail_of_mixed_freedoms() -> None:
    tail = fleet.chi_square_tail(np.array([3.0, 3.0, 3.0, 3.0]), np.array([1, 2, 40, 0]))
    np.testing.assert_allclose(tail[:3], stats.chi2.sf(3.0, [1, 2, 40]))
    assert math.isnan(tail[3])


@given(
    st.lists(st.one_of(st.floats(0, 1), st.just(math.nan), st.sampled_from([0.01, 0.05, 0.001])), max_size=12),
    st.sampled_from([0.01, 0.05, 0.2]),
)
def test_discoveries_agree_with_trying_every_k(p_values: list[float], level: float) -> None:
    expected = twin.discoveries(p_values, level)
    column = np.array(p_values, np.float64)
    assert drift.benjamini_hochberg(column, level).tolist() == expected
    if p_values:
        padded = np.full((2, len(p_values) + 3), np.nan)
        padded[1, : len(p_values)] = column
        found = fleet.discoveries(padded, np.array([level, level]))
        assert found[1, : len(p_values)].tolist() == expected
        assert not found[0].any()


@given(pairs())
def test_equal_samples_have_no_drift(pair: tuple[list[int], list[int]]) -> None:
    reference, _ = pair
    assert drift.psi(reference, reference) == 0
    assert drift.kl(reference, reference) == 0
    assert drift.js_distance(reference, reference) == 0
    assert drift.chi_square(reference, reference)[2] == pytest.approx(1.0)


@given(pairs())
def test_psi_and_js_are_symmetric_and_js_is_at_most_one(pair: tuple[list[int], list[int]]) -> None:
    reference, current = pair
    assert drift.psi(reference, current) == pytest.approx(drift.psi(current, reference), rel=1e-9, abs=1e-12)
    assert drift.js_distance(reference, current) == pytest.approx(drift.js_distance(current, reference), abs=1e-7)
    assert 0 <= drift.js_distance(reference, current) <= 1


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        ([1, 2], [1, 2, 3]),
        ([1], [1]),
        ([0, 0], [1, 2]),
        ([1, 2], [0, 0]),
        ([-1, 2], [1, 2]),
        ([1.5, 2], [1, 2]),
        ([math.nan, 2], [1, 2]),
        ([math.inf, 2], [1, 2]),
        ([[1, 2]], [[1, 2]]),
        (["a", "b"], [1, 2]),
    ],
)
def test_what_is_no_sample_is_refused_by_all(reference: list[int], current: list[int]) -> None:
    for function in (drift.psi, drift.psi_debiased, drift.kl, drift.js_distance, drift.chi_square):
        with pytest.raises(InvalidSample) as caught:
            function(reference, current)
        assert isinstance(caught.value, Invalid)
        assert caught.value.reason is Reason.INVALID_SAMPLE


def test_an_empty_cell_without_smoothing_is_refused() -> None:
    with pytest.raises(InvalidSample, match="logarithm"):
        drift.psi([1, 0], [1, 1], smoothing=0)


def _no_drift(shares: list[float], rows: int, repeats: int, seed: int) -> fleet.RowDrift:
    rng = np.random.default_rng(seed)
    weights: Float64s = np.array(shares) / sum(shares)
    reference, current = rng.multinomial(rows, weights, repeats), rng.multinomial(rows, weights, repeats)
    return fleet.row_drift(reference, current, np.full(repeats, len(shares)))


@pytest.mark.parametrize(
    ("shares", "rows"),
    [([1.0] * 10, 100), ([1.0] * 10, 1_000), ([0.6, 0.2, 0.1, 0.05, 0.03, 0.01, 0.005, 0.005], 200)],
)
def test_the_test_keeps_its_level_when_nothing_drifts(shares: list[float], rows: int) -> None:
    rate = float(np.mean(_no_drift(shares, rows, 20_000, seed=3).p_value <= 0.05))
    assert 0.035 <= rate <= 0.06


def test_raw_psi_alarms_on_small_samples_and_debiased_psi_is_centred() -> None:
    small, large = _no_drift([1.0] * 10, 100, 5_000, seed=4), _no_drift([1.0] * 10, 1_000, 5_000, seed=4)
    assert float(np.mean(small.psi > 0.1)) > 0.75
    assert float(np.mean(large.psi > 0.1)) == 0
    assert abs(float(np.mean(large.psi_debiased))) < 1e-3


def test_drifted_needs_both_and_hardly_ever_happens_by_chance() -> None:
    for rows in (100, 200, 1_000, 10_000):
        found = _no_drift([1.0] * 10, rows, 20_000, seed=5)
        rejected = fleet.discoveries(found.p_value.reshape(100, 200), np.full(100, 0.05))
        alarms = rejected & (found.psi_debiased.reshape(100, 200) > 0.1)
        assert alarms.mean() < 0.001
