"""Bins: every value lands in one cell, the same one however it arrives, and hours add up to the day."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from control_plane.core.statistics.bins import (
    FINE_BINS,
    CategoricalBins,
    NumericBins,
    canonical_key,
    categorical_bins,
    coarsened,
    merge,
    numeric_bins,
    rebaselined,
)
from control_plane.core.statistics.sample import InvalidSample
from tests.reference import statistics_twin as twin

numbers = st.one_of(st.none(), st.floats(), st.integers(-5, 5).map(float), st.sampled_from([0.5, -0.0, 1e300]))
columns = st.lists(numbers, max_size=60)
edges = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=50, unique=True).map(
    lambda found: tuple(sorted(set(found)))
)
categories = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([1.0, 0.5, "1", "1.0", "a", "b", "01", ""]))


@given(edges, columns)
def test_counts_are_the_twins(cut: tuple[float, ...], values: list[float | None]) -> None:
    bins = NumericBins(edges=cut)
    found = bins.count(values)
    assert found.tolist() == twin.numeric_counts(cut, values)
    assert found.sum() == len(values)
    assert len(bins.labels) == bins.cells == len(found)


@given(edges, st_numpy.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_a_float32_column_is_counted_as_its_exact_values(
    cut: tuple[float, ...], others: npt.NDArray[np.float32]
) -> None:
    bins = NumericBins(edges=cut)
    with np.errstate(over="ignore"):
        column = np.concatenate([others, np.array(cut, np.float32)])
    assert bins.count(column).tolist() == bins.count(column.astype(np.float64)).tolist()


def test_a_float32_tenth_is_above_a_tenth() -> None:
    assert NumericBins(edges=(0.1,)).count(np.array([0.1], np.float32)).tolist() == [0, 1, 0]
    assert NumericBins(edges=(0.1,)).count(np.array([0.1])).tolist() == [1, 0, 0]


@given(columns, st.lists(columns, min_size=1, max_size=6))
def test_the_merge_of_the_hours_is_the_whole(reference: list[float | None], hours: list[list[float | None]]) -> None:
    bins = numeric_bins(reference)
    whole = bins.count([value for hour in hours for value in hour])
    assert merge(*(bins.count(hour) for hour in hours)).tolist() == whole.tolist()
    assert merge(*(bins.count(hour) for hour in reversed(hours))).tolist() == whole.tolist()


@given(st.lists(categories, max_size=40), st.lists(st.lists(categories, max_size=20), min_size=1, max_size=5))
def test_categories_are_counted_as_the_twin_does_and_merge(reference: list[object], hours: list[list[object]]) -> None:
    bins = categorical_bins(reference, top=3)
    whole = [value for hour in hours for value in hour]
    assert bins.count(whole).tolist() == twin.categorical_counts(bins.categories, whole)
    assert merge(*(bins.count(hour) for hour in hours)).tolist() == bins.count(whole).tolist()


def test_deciles_hold_a_tenth_each() -> None:
    sample = np.random.default_rng(0).normal(size=10_000)
    bins = numeric_bins(sample)
    assert len(bins.edges) == 9
    assert bins.count(sample)[:-1].tolist() == [1_000] * 10


def test_a_spike_keeps_its_own_bin() -> None:
    sample = np.concatenate([np.zeros(5_000), np.random.default_rng(0).exponential(size=5_000)])
    bins = numeric_bins(sample)
    assert bins.count(sample)[0] == 5_000


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.95, 0.99])
def test_both_values_of_a_flag_have_their_bin(share: float) -> None:
    ones = int(1_000 * share)
    sample = np.concatenate([np.zeros(1_000 - ones), np.ones(ones)])
    assert numeric_bins(sample).count(sample).tolist() == [1_000 - ones, ones, 0]


@pytest.mark.parametrize("sample", [[], [None, None], [math.nan], [math.inf, -math.inf]])
def test_a_sample_without_a_finite_value_gives_one_bin(sample: list[float | None]) -> None:
    bins = numeric_bins(sample)
    assert bins.edges == ()
    assert bins.count([1.0, -2.0, None]).tolist() == [2, 1]


def test_one_row_and_constant_samples() -> None:
    assert numeric_bins([3.0]).count([3.0, 4.0, None]).tolist() == [2, 1]
    assert numeric_bins([3.0] * 100).edges == ()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=80), st.integers(2, 12))
def test_edges_always_make_bins_and_distinct_values_of_a_small_sample_part(sample: list[float], count: int) -> None:
    bins = numeric_bins(sample, bins=count)
    assert len(bins.edges) < count
    counts = bins.count(sample)
    assert counts.sum() == len(sample)
    if len(set(sample)) <= count:
        assert np.count_nonzero(counts) == len(set(sample))


def test_infinities_count_in_the_end_bins() -> None:
    assert NumericBins(edges=(0.0,)).count([math.inf, -math.inf, -math.inf]).tolist() == [2, 1, 0]


@pytest.mark.parametrize("bad", [(1.0, 1.0), (2.0, 1.0), (math.nan,), (math.inf,), (-math.inf,)])
def test_edges_that_do_not_rise_are_refused(bad: tuple[float, ...]) -> None:
    with pytest.raises(InvalidSample):
        NumericBins(edges=bad)


@pytest.mark.parametrize("bad", [("a", "a"), ("1.0",)])
def test_categories_that_would_never_match_are_refused(bad: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSample):
        CategoricalBins(categories=bad)


def test_text_in_a_numeric_column_is_refused() -> None:
    with pytest.raises(InvalidSample):
        NumericBins(edges=()).count(["a"])  # type: ignore[list-item]
    with pytest.raises(InvalidSample):
        NumericBins(edges=()).count(np.zeros((2, 2)))
    with pytest.raises(InvalidSample):
        numeric_bins([1.0], bins=1)
    with pytest.raises(InvalidSample):
        categorical_bins(["a"], top=0)
    with pytest.raises(InvalidSample):
        merge()
    with pytest.raises(InvalidSample):
        merge([1, 2], [1, 2, 3])


@given(st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none()))
def test_a_canonical_key_is_its_own_canonical_key(value: object) -> None:
    key = canonical_key(value)
    assert key is None or canonical_key(key) == key


def test_one_and_one_point_nought_are_one_category() -> None:
    bins = categorical_bins([1, 1.0, "1", np.int64(1), np.float32(1), True, "2"])
    assert bins.categories == ("1", "2")
    assert bins.count(np.array([1.0, 2.0, math.nan])).tolist() == [1, 1, 0, 1]
    assert bins.count_groups({1: 3, "1.0": 4, "x": 2, None: 1}).tolist() == [7, 0, 2, 1]


def test_a_reference_is_rebaselined_from_counts_alone() -> None:
    rng = np.random.default_rng(2)
    fine = numeric_bins(rng.normal(size=20_000), bins=FINE_BINS)
    later = rng.normal(loc=0.3, size=20_000)
    coarse = rebaselined(fine, fine.count(later))
    assert coarsened(fine, coarse, fine.count(later)).tolist() == coarse.count(later).tolist()
    share = coarsened(fine, coarse, fine.count(later))[:-1] / 20_000
    assert np.all(np.abs(share - 0.1) < 0.02)
    assert rebaselined(NumericBins(edges=()), [4, 1]).edges == ()
    with pytest.raises(InvalidSample):
        coarsened(fine, NumericBins(edges=(0.123,)), fine.count(later))
    with pytest.raises(InvalidSample):
        rebaselined(fine, [1, 2])
