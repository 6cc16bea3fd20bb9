"""Parts of the data: counted by the hour as all of it is, once, and judged where their outcomes are complete."""

import itertools
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.errors import Invalid
from control_plane.core.ground_truth.batch import SLICES_MAX, read_predictions
from control_plane.core.ground_truth.labels import LabelSpec
from tests.ground_truth.arrows import T0, ipc, outcome_columns, outcomes_for, prediction_columns, some_predictions
from tests.ground_truth.counting import CARRIERS, EDGES, append, columns_of, current, profile_json, some_counted
from tests.ground_truth.joins import FAR, finish
from tests.reference.counts import count

HOUR = timedelta(hours=1)
SPEC = LabelSpec(window=timedelta(hours=6))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 120), max_size=6),
    window=st.tuples(st.integers(0, 31), st.integers(0, 31)),
    late=st.booleans(),
    end=st.sampled_from(["as it is", "restart", "sealed", "sealed and restart"]),
)
def test_hours_of_rows_are_what_counting_one_by_one_gives(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    cuts: list[int],
    window: tuple[int, int],
    late: bool,
    end: str,
) -> None:
    """Twin: `reference.counts`. Batches of any size in any order, predictions that come again, a profile that comes
    after them, a restart, sealing: the counts of any stretch of hours are the same, of all and of each slice."""
    rows = some_counted(np.random.default_rng(seed), 120, ids=90)
    root = tmp_path_factory.mktemp("store")
    store = ParquetFactStore(root)
    profile = profile_json()
    if not late:
        store.set_reference("m", 1, store.put_profile(profile))
    edges = sorted({0, 120, *cuts})
    for number, (a, b) in enumerate(itertools.pairwise(edges)):
        append(store, f"b{number}", rows[a:b])
        append(store, f"b{number}", rows[a:b])
    if "sealed" in end:
        finish(store)
    if late:
        store.set_reference("m", 1, store.put_profile(profile))
    if "restart" in end:
        store.close()
        store = ParquetFactStore(root)
    first, last = min(window), max(window) + 1
    evidence = store.evidence("m", 1, T0 + first * HOUR, T0 + last * HOUR, FAR)
    hour = int(T0.timestamp()) // 3600
    predictions, temps, carriers = count(rows, EDGES, CARRIERS, hour + first, hour + last)
    assert evidence.predictions == predictions
    assert (current(evidence, "temp"), current(evidence, "carrier")) == (temps, carriers)
    found = {part.name: part for part in evidence.slices}
    for name in ("country=US", "country=DE"):
        predictions, temps, carriers = count(rows, EDGES, CARRIERS, hour + first, hour + last, name)
        if predictions:
            part = found.pop(name)
            assert part.predictions == predictions
            assert [feature.current.tolist() for feature in part.features] == [carriers, temps]
    assert not found
    store.close()


def test_slices_beyond_the_limit_are_counted_together(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path)
    store.set_label("m", SPEC)
    store.set_reference("m", 1, store.put_profile(profile_json()))
    rows = some_predictions(SLICES_MAX + 40)
    countries = pa.array([f"c{number:03}" for number in range(len(rows))])
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows) | {"slice.country": countries}))
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows))))
    for _ in range(2):
        evidence = store.evidence("m", 1, T0, T0 + HOUR, FAR)
        parts = {part.name: part.predictions for part in evidence.slices}
        assert len(parts) == SLICES_MAX + 1
        assert parts["country=other"] == 40
        assert sum(parts.values()) == len(rows)
        finish(store)
    performance = {part.name: part.performance for part in evidence.slices}
    other = performance["country=other"]
    assert other is not None
    assert (other.partial.labelled, other.layer) == (40, "batch")
    store.close()


def test_a_slice_has_its_own_performance_and_its_own_reference(tmp_path: Path) -> None:
    """Outcomes are right where the country is US and wrong where it is not."""
    text = profile_json().decode()[:-1] + ', "slices": {"country=US": {"features": {"temp": [4, 3, 2, 1, 0]}}}}'
    store = ParquetFactStore(tmp_path)
    store.set_label("m", SPEC)
    store.set_reference("m", 1, store.put_profile(text.encode()))
    rows = some_predictions(100)
    countries = pa.array(["US" if row.score > 0.4 else "DE" for row in rows])
    devices = pa.array([None if row.score > 0.9 else "phone" for row in rows])
    store.append_predictions(
        "p", "m", 1, ipc(prediction_columns(rows) | {"slice.country": countries, "slice.device": devices})
    )
    outcomes = [
        type(one)(one.id, one.observed_us, float((row.score > 0.5) == (row.score > 0.4)), 0)
        for one, row in zip(outcomes_for(rows), rows, strict=True)
    ]
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes)))
    finish(store)
    store.append_outcomes("again", "m", "", ipc(outcome_columns(outcomes[:3])))
    finish(store)
    evidence = store.evidence("m", 1, T0, T0 + HOUR, FAR)
    parts = {part.name: part for part in evidence.slices}
    assert sorted(parts) == ["country=DE", "country=US", "device=phone"]
    assert parts["country=US"].features[1].reference.tolist() == [4, 3, 2, 1, 0]
    assert parts["country=DE"].features[1].reference.tolist() == [10, 10, 10, 10, 0]
    for name, inside in (
        ("country=US", [row.score > 0.4 for row in rows]),
        ("country=DE", [row.score <= 0.4 for row in rows]),
        ("device=phone", [row.score <= 0.9 for row in rows]),
    ):
        row = parts[name].performance
        assert row is not None
        right = [
            (prediction.score >= 0.5) == bool(outcome.value)
            for prediction, outcome, wanted in zip(rows, outcomes, inside, strict=True)
            if wanted
        ]
        accuracy = row.metric("accuracy")
        assert accuracy is not None
        assert (accuracy.sample_size, accuracy.value) == (len(right), sum(right) / len(right))
    store.close()


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("slice.country", pa.array([1, 2, 3]), "type"),
        ("slice.", pa.array(["a", "b", "c"]), "unknown_column"),
        ("slice.a=b", pa.array(["a", "b", "c"]), "slice_name"),
        ("slice.country", pa.array(["", None, "b"]), "slice_value"),
        ("slice.country", pa.array(["a\x1fb", None, "b"]), "slice_value"),
        ("slice.country", pa.array(["x" * 101, None, "b"]), "slice_value"),
    ],
)
def test_slices_that_cannot_be_read_are_refused(name: str, values: pa.Array, rule: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_predictions(ipc(prediction_columns(some_predictions(3)) | {name: values}))
    assert [violation.rule for violation in caught.value.violations] == [rule]


def test_too_many_slice_columns_are_refused() -> None:
    columns = prediction_columns(some_predictions(3)) | {f"slice.s{at}": pa.array(["a"] * 3) for at in range(9)}
    with pytest.raises(Invalid, match="9 slice columns, at most 8"):
        read_predictions(ipc(columns))


def test_slices_without_a_profile_are_kept_for_their_performance(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path)
    store.set_label("m", SPEC)
    rows = some_counted(np.random.default_rng(4), 30, hours=1)
    distinct = list({row.id: row for row in rows}.values())
    store.append_predictions("p", "m", 1, ipc(columns_of(distinct)))
    finish(store)
    assert store.evidence("m", 1, T0, T0 + HOUR, FAR).slices == ()  # nothing labelled, nothing counted
    store.close()
