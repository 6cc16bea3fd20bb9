"""Hours that producers counted themselves: refused with everything that is wrong, counted once, added to rows."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.app.fact_reports import SentHistogram
from control_plane.core.errors import Invalid, Reason
from tests.ground_truth.arrows import HOUR_US, T0, T0_US
from tests.ground_truth.counting import (
    CARRIERS,
    DAY,
    EDGES,
    NOW,
    SCORE_EDGES,
    append,
    current,
    profile_json,
    sent,
    some_counted,
    temp_histogram,
)
from tests.ground_truth.joins import FAR, finish
from tests.reference.counts import count

HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> ParquetFactStore:
    opened = ParquetFactStore(tmp_path)
    opened.set_reference("m", 1, opened.put_profile(profile_json()))
    return opened


def rules_of(error: Invalid) -> list[tuple[str, str]]:
    """(field, rule) of each violation."""
    assert error.reason is Reason.INVALID_BATCH
    return [(violation.field, violation.rule) for violation in error.violations]


def test_an_hour_is_counted_once_by_each_producer(store: ParquetFactStore) -> None:
    assert sent(store, "a") == sent(store, "a", predictions=10).__class__(rows=10, duplicate=False)
    assert sent(store, "a").duplicate
    assert sent(store, "another id").duplicate
    assert not sent(store, "b", producer="edge").duplicate
    evidence = store.evidence("m", 1, T0, NOW, NOW)
    assert (evidence.predictions, current(evidence, "temp")) == (20, [2, 4, 6, 8, 0])
    assert current(evidence, "carrier") == [0, 0, 0, 0]
    assert evidence.volume[0] == 20
    store.close()


def test_other_counts_of_the_same_hour_are_refused_unless_they_replace(store: ParquetFactStore) -> None:
    sent(store, "a")
    with pytest.raises(Invalid, match=r"counted before with 10 predictions, now 11; 1 cells differ") as caught:
        sent(store, "b", temp=(2, 2, 3, 4, 0))
    assert rules_of(caught.value) == [("counts", "same_hour")]
    assert not sent(store, "b", temp=(2, 2, 3, 4, 0), replace=True).duplicate
    assert sent(store, "b", temp=(2, 2, 3, 4, 0)).duplicate
    assert sent(store, "a").duplicate, "a batch that was stored once stays stored, and is not brought back"
    evidence = store.evidence("m", 1, T0, NOW, NOW)
    assert (evidence.predictions, current(evidence, "temp"), evidence.volume[0]) == (11, [2, 2, 3, 4, 0], 11)
    store.close()


def test_a_batch_id_stands_for_one_content(store: ParquetFactStore) -> None:
    sent(store, "a")
    with pytest.raises(Invalid) as caught:
        sent(store, "a", T0 + HOUR)
    assert rules_of(caught.value) == [("batch_id", "unique")]
    store.close()


def test_other_bins_are_refused_with_both_shown(store: ParquetFactStore) -> None:
    with pytest.raises(Invalid) as caught:
        sent(
            store,
            "a",
            histograms=[
                temp_histogram((1, 2, 3, 4, 0), (-1.0, 0.5, 1.0)),
                SentHistogram(name="carrier", edges=(), categories=("UA", "AA"), counts=(1, 2, 3, 0)),
            ],
        )
    assert rules_of(caught.value) == [
        ("features.temp.edges", "same_edges"),
        ("features.carrier.categories", "same_categories"),
    ]
    assert "sent [-1.0, 0.5, 1.0], the reference has [-1.0, 0.0, 1.0]" in caught.value.violations[0].message
    assert "sent [UA, AA], the reference has [AA, UA]" in caught.value.violations[1].message
    assert store.evidence("m", 1, T0, NOW, NOW).predictions == 0
    store.close()


def test_everything_wrong_is_told_at_once(store: ParquetFactStore) -> None:
    with pytest.raises(Invalid) as caught:
        sent(
            store,
            "a",
            T0 + timedelta(minutes=5),
            predictions=10,
            histograms=[
                temp_histogram((1, 2, 3)),
                temp_histogram((1, 2, 3, 4, 0)),
                temp_histogram((1,), name="wind"),
                SentHistogram(name="carrier", edges=(1.0,), categories=CARRIERS, counts=(-1, 2, 3, 0)),
            ],
            prediction=SentHistogram(name="score", edges=SCORE_EDGES, categories=(), counts=(9, 9, 9, 9)),
            slice_name="US",
        )
    assert rules_of(caught.value) == [
        ("hour", "whole"),
        ("slice", "slice"),
        ("features.temp.counts", "length"),
        ("features.temp", "unique"),
        ("features.wind", "unknown_feature"),
        ("features.carrier", "kind"),
        ("features.carrier.counts", "count"),
        ("prediction.counts", "sum"),
    ]
    store.close()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"hour": NOW + 2 * HOUR}, "future"),
        ({"hour": NOW - 401 * DAY}, "too_old"),
        ({"version": 2}, "reference_profile"),
    ],
)
def test_hours_and_versions_that_cannot_be(store: ParquetFactStore, change: dict[str, Any], rule: str) -> None:
    with pytest.raises(Invalid) as caught:
        sent(store, "a", **change)
    assert [found for _, found in rules_of(caught.value)] == [rule]
    assert not sent(store, "b", NOW + HOUR).duplicate, "an hour of skew is borne"
    store.close()


def test_a_refused_hour_does_not_hold_up_its_neighbours(store: ParquetFactStore) -> None:
    answers = [
        store.submit_histograms(
            f"b{number}", "m", 1, "p", T0 + number * HOUR, 10, [temp_histogram(counts)], None, "", False, NOW
        )
        for number, counts in enumerate([(1, 2, 3, 4, 0), (1,), (4, 3, 2, 1, 0)])
    ]
    assert answers[0].result().rows == 10
    assert isinstance(answers[1].exception(), Invalid)
    assert answers[2].result().rows == 10
    assert store.evidence("m", 1, T0, NOW, NOW).predictions == 20
    store.close()


def test_counts_of_rows_and_of_producers_add_up(store: ParquetFactStore, tmp_path: Path) -> None:
    rows = some_counted(np.random.default_rng(1), 200)
    append(store, "rows", rows)
    for number in range(30):
        sent(store, f"b{number}", T0 + number * HOUR)
    predictions, temps, _ = count(rows, EDGES, CARRIERS, 0, 10**9)
    for _ in range(2):
        evidence = store.evidence("m", 1, T0, T0 + 40 * HOUR, FAR)
        assert evidence.predictions == predictions + 300
        assert current(evidence, "temp") == (np.array(temps) + 30 * np.array([1, 2, 3, 4, 0])).tolist()
        assert store.last_predictions()["m"] == T0 + 30 * HOUR
        finish(store)
    store.close()
    again = ParquetFactStore(tmp_path)
    assert again.evidence("m", 1, T0, T0 + 40 * HOUR, FAR).predictions == predictions + 300
    assert sent(again, "b3", T0 + 3 * HOUR).duplicate
    again.close()


def test_another_reference_and_back_counts_what_was_sent_for_it(store: ParquetFactStore) -> None:
    first, second = store.put_profile(profile_json()), store.put_profile(profile_json(importance=0.5))
    sent(store, "a")
    append(store, "rows", some_counted(np.random.default_rng(2), 20))
    store.set_reference("m", 1, second)
    assert store.evidence("m", 1, T0, NOW, NOW).predictions == 20
    store.set_reference("m", 1, first)
    assert store.evidence("m", 1, T0, NOW, NOW).predictions == 30
    store.close()


def test_an_hour_that_is_left_in_its_day_alone_may_still_be_replaced(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path, StoreConfig(hours_keep=20 * DAY))
    store.set_reference("m", 1, store.put_profile(profile_json()))
    sent(store, "a", now=FAR - 39 * DAY)
    sent(store, "b", T0 + HOUR, now=FAR - 39 * DAY)
    finish(store)  # FAR is 40 days on
    sent(store, "c", temp=(0, 0, 1, 0, 0), replace=True, now=FAR)
    evidence = store.evidence("m", 1, T0, T0 + DAY, FAR)
    assert (evidence.predictions, current(evidence, "temp"), evidence.volume[0]) == (11, [1, 2, 4, 4, 0], 11)
    assert store.recorded_hours("m", T0, T0 + DAY).counts == ()
    store.close()


def test_a_slice_is_counted_beside_all_of_it(store: ParquetFactStore) -> None:
    sent(store, "all")
    sent(store, "us", temp=(1, 0, 0, 0, 0), slice_name="country=US")
    evidence = store.evidence("m", 1, T0, NOW, NOW)
    assert evidence.predictions == 10
    [part] = evidence.slices
    assert (part.name, part.predictions, part.features[1].current.tolist()) == ("country=US", 1, [1, 0, 0, 0, 0])
    assert evidence.volume[0] == 10
    store.close()


@settings(max_examples=25, deadline=None)
@given(
    sends=st.lists(
        st.tuples(
            st.integers(0, 60),  # hour
            st.sampled_from(["p", "q"]),
            st.lists(st.integers(0, 300), min_size=5, max_size=5),
            st.booleans(),  # replace
        ),
        max_size=25,
    ),
    window=st.tuples(st.integers(0, 61), st.integers(0, 61)),
    restart=st.booleans(),
)
def test_any_order_gives_what_a_dictionary_gives(
    tmp_path_factory: pytest.TempPathFactory,
    sends: list[tuple[int, str, list[int], bool]],
    window: tuple[int, int],
    restart: bool,
) -> None:
    """Twin: a dictionary of the last accepted counts by (hour, producer)."""
    root = tmp_path_factory.mktemp("store")
    store = ParquetFactStore(root)
    store.set_reference("m", 1, store.put_profile(profile_json()))
    twin: dict[tuple[int, str], list[int]] = {}
    for number, (hour, producer, counts, replace) in enumerate(sends):
        known = twin.get((hour, producer))
        may = known is None or known == counts or replace
        try:
            receipt = sent(store, f"b{number}", T0 + hour * HOUR, producer=producer, temp=counts, replace=replace)
        except Invalid:
            assert not may
        else:
            assert may
            assert receipt.duplicate == (known == counts)
            twin[(hour, producer)] = counts
    if restart:
        store.close()
        store = ParquetFactStore(root)
    first, last = min(window), max(window) + 1
    inside = [counts for (hour, _), counts in twin.items() if first <= hour < last]
    evidence = store.evidence("m", 1, T0 + first * HOUR, T0 + last * HOUR, FAR)
    assert evidence.predictions == sum(map(sum, inside))
    assert current(evidence, "temp") == np.sum([[0] * 5, *inside], axis=0).tolist()
    assert T0_US % HOUR_US == 0
    store.close()
