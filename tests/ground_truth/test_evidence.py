"""What evidence tells beyond counts: volume, concept, estimate, proxy, ranges."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters.parquet.profile_format import parse_profile
from control_plane.adapters.parquet.scores import coarse_cells, holdout_scores
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.app.fact_reports import Receipt
from control_plane.core.errors import Invalid
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import SCORE_BINS, score_bins
from tests.ground_truth.arrows import (
    HOUR_US,
    T0,
    T0_US,
    ipc,
    outcome_columns,
    outcomes_for,
    prediction_columns,
    some_predictions,
)
from tests.ground_truth.counting import (
    SCORE_EDGES,
    profile_json,
    sent,
)
from tests.ground_truth.joins import FAR, finish
from tests.reference.join import Outcome, Prediction

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SPEC = LabelSpec(window=timedelta(hours=6))


@pytest.fixture
def store(tmp_path: Path) -> ParquetFactStore:
    return ParquetFactStore(tmp_path)


def predictions_at(day: int, rows: int) -> list[Prediction]:
    """Predictions of one day."""
    return some_predictions(rows, start_us=T0_US + day * 24 * HOUR_US, first=1000 * day, spread_us=24 * HOUR_US)


def test_volume_counts_windows_back_to_where_the_model_began(store: ParquetFactStore) -> None:
    for day, rows in enumerate([10, 20, 30, 40]):
        store.append_predictions(f"p{day}", "m", 1 + day % 2, ipc(prediction_columns(predictions_at(day, rows))))
    for _ in range(2):
        evidence = store.evidence("m", 2, T0 + 3 * DAY, T0 + 4 * DAY, FAR)
        assert evidence.volume == (40, (30, 20, 10))
        assert store.evidence("m", 2, T0 + 5 * DAY, T0 + 6 * DAY, FAR).volume == (0, (0, 40, 30, 20, 10))
        assert store.evidence("m", 1, T0 + 2 * DAY, T0 + 4 * DAY, FAR).volume == (70, (30,))
        assert store.evidence("nobody", 1, T0, T0 + DAY, FAR).volume == (0, ())
        finish(store)
    store.close()


def test_concept_counts_outcomes_by_the_profiles_score_bins(store: ParquetFactStore) -> None:
    profile = json.loads(profile_json())
    profile["prediction"] |= {"edges": SCORE_EDGES, "counts": [10, 10, 10, 10], "positives": [1, 2, 5, 9]}
    store.set_label("m", SPEC)
    store.set_reference("m", 1, store.put_profile(json.dumps(profile).encode()))
    scores = [0.1, 0.25, 0.25, 0.3, 0.5, 0.6, 0.75, 0.9]  # edges among them: they belong below
    rows = [Prediction(row.id, row.predicted_us, score) for row, score in zip(some_predictions(8), scores, strict=True)]
    outcomes = [Outcome(row.id, row.predicted_us + 1, float(row.score >= 0.5)) for row in rows]
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    assert store.evidence("m", 1, T0, T0 + DAY, FAR).concept is None
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes)))
    concept = store.evidence("m", 1, T0, T0 + DAY, FAR).concept
    assert concept is not None
    assert concept.reference_total.tolist() == [10, 10, 10, 10]
    assert concept.reference_positive.tolist() == [1, 2, 5, 9]
    assert concept.current_total.tolist() == [3, 2, 2, 1]
    assert concept.current_positive.tolist() == [0, 1, 2, 1]
    store.close()


def test_the_estimate_has_all_scores_and_calibrates_by_outcomes_and_holdout(store: ParquetFactStore) -> None:
    store.set_label("m", SPEC)
    for day in range(6):
        rows = predictions_at(day, 48)
        store.append_predictions(f"p{day}", "m", 1, ipc(prediction_columns(rows)))
        if day < 4:
            store.append_outcomes(f"o{day}", "m", "", ipc(outcome_columns(outcomes_for(rows))))
    now = T0 + 6 * DAY
    scores = np.array([row.score for day in (4, 5) for row in predictions_at(day, 48)])
    labelled = np.array([row.score for day in range(4) for row in predictions_at(day, 48)])
    positives = np.array([row.value for day in range(4) for row in outcomes_for(predictions_at(day, 48))])
    for _ in range(2):
        estimate = store.evidence("m", 1, T0 + 4 * DAY, now, now).estimate
        assert estimate is not None
        assert estimate.scores.tolist() == np.bincount(score_bins(scores), minlength=SCORE_BINS).tolist()
        total = np.bincount(score_bins(labelled), minlength=SCORE_BINS)
        assert estimate.calibration_total.tolist() == total.tolist()
        positive = np.bincount(score_bins(labelled), positives, SCORE_BINS)
        assert estimate.calibration_positive.tolist() == positive.tolist()
        finish(store)
    profile = json.loads(profile_json())
    profile["prediction"]["positives"] = [1, 2, 5, 9]
    store.set_reference("m", 1, store.put_profile(json.dumps(profile).encode()))
    again = store.evidence("m", 1, T0 + 4 * DAY, now, now).estimate
    assert again is not None
    assert again.calibration_total.sum() == total.sum() + 40
    assert again.calibration_positive.sum() == positive.sum() + 17
    store.close()


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 5000), min_size=4, max_size=4),
    shares=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_a_holdout_is_spread_without_loss_and_never_more_positive_than_there_are(
    counts: list[int], shares: list[float]
) -> None:
    positives = [int(count * share) for count, share in zip(counts, shares, strict=True)]
    prediction = {"edges": SCORE_EDGES, "counts": counts, "positives": positives}
    profile = parse_profile(json.dumps({"prediction": prediction}).encode())
    total, positive = holdout_scores(profile)
    cells = coarse_cells(profile)
    assert np.bincount(cells, total, 4).tolist() == counts
    assert np.bincount(cells, positive, 4).tolist() == positives
    assert ((positive >= 0) & (positive <= total)).all()


def test_a_proxy_is_joined_by_its_own_window_and_compared_day_by_day(store: ParquetFactStore) -> None:
    spec = LabelSpec(label_type="sale", window=3 * DAY, proxy="click", proxy_window=6 * HOUR)
    store.set_label("m", spec)
    for day in range(8):
        rows = predictions_at(day, 24)
        store.append_predictions(f"p{day}", "m", 1, ipc(prediction_columns(rows)))
        clicks = outcomes_for(rows, delay_us=HOUR_US)
        store.append_outcomes(f"c{day}", "m", "click", ipc(outcome_columns(clicks)))
        sales = [Outcome(one.id, one.observed_us + 24 * HOUR_US, one.value) for one in clicks]
        store.append_outcomes(f"s{day}", "m", "sale", ipc(outcome_columns(sales)))
    now = T0 + 8 * DAY
    for _ in range(2):
        evidence = store.evidence("m", 1, T0 + 6 * DAY, now, now)
        assert evidence.label == spec
        proxy = evidence.proxy
        assert proxy is not None
        assert (proxy.label.label_type, proxy.label.window) == ("click", 6 * HOUR)
        assert evidence.performance.end == T0 + 5 * DAY
        assert proxy.performance.end == now - 6 * HOUR
        assert proxy.performance.partial.labelled == 48
        assert len(proxy.days) == 5
        assert all(one == other for one, other in proxy.days)
        assert evidence.labels_per_day == 24.0
        store.close()
        store = ParquetFactStore(store._facts.root)
    store.close()


def test_the_label_declared_last_stands_for_the_model(store: ParquetFactStore) -> None:
    store.set_label("m", LabelSpec(label_type="a"))
    store.set_label("m", LabelSpec(label_type="z"))
    for _ in range(2):
        assert store.evidence("m", 1, T0, T0 + DAY, FAR).label.label_type == "z"
        store.close()
        store = ParquetFactStore(store._facts.root)
    store.close()


def test_values_far_outside_the_training_range_are_counted_on_arrival(store: ParquetFactStore) -> None:
    store.set_reference("m", 1, store.put_profile(profile_json(low=-0.5, high=0.5, importance=2.5)))
    temp = pa.array([-0.5, 0.5, 0.6, None, -9.0], pa.float64())
    store.append_predictions("p", "m", 1, ipc(prediction_columns(some_predictions(5)) | {"feature.temp": temp}))
    for _ in range(2):
        [carrier, found] = store.evidence("m", 1, T0, T0 + DAY, FAR).features
        assert (carrier.outside, carrier.importance) == (0, 1.0)
        assert (found.outside, found.importance) == (1, 2.5)  # 0.6 is nearer than the range is wide
        assert found.current.tolist() == [1, 1, 2, 0, 1]
        finish(store)
    store.close()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"importance": -1.0}, "features.temp.importance"),
        ({"low": 2.0, "high": 1.0}, "features.temp"),
        ({"fine": {"edges": [2.0, 1.0], "counts": [1, 1, 1, 1]}}, "features.temp.fine"),
        ({"fine": {"edges": [1.0], "counts": [1, 1]}}, "features.temp.fine"),
        ({"fine": {"edges": [1.0], "counts": [20, 19, 0]}}, "features.temp.fine"),
        ({"fine": {"edges": list(range(1024)), "counts": [40] + [0] * 1025}}, "features.temp.fine"),
        ({"positives": [1, 2, 3, 4, 0]}, "features.temp"),
    ],
)
def test_features_that_do_not_add_up_are_refused(store: ParquetFactStore, change: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        store.put_profile(profile_json(**change))
    assert [violation.field for violation in caught.value.violations] == [field]
    store.close()


def test_everything_wrong_with_a_profile_is_told_at_once(store: ParquetFactStore) -> None:
    profile = json.loads(profile_json(importance=-1.0))
    profile["features"]["carrier"] |= {"low": 0.0}
    profile["prediction"]["positives"] = [11, 0, 0, 0]
    profile["slices"] = {"US": {"features": {"temp": [1, 2]}}, "country=US": {"features": {"wind": [1]}}}
    with pytest.raises(Invalid) as caught:
        store.put_profile(json.dumps(profile).encode())
    assert [violation.field for violation in caught.value.violations] == [
        "features.carrier",
        "features.temp.importance",
        "prediction.positives",
        "slices.US",
        "slices.US.features.temp",
        "slices.country=US.features.wind",
    ]
    store.close()


def test_arrivals_grow_with_everything_that_comes(store: ParquetFactStore) -> None:
    store.set_reference("m", 1, store.put_profile(profile_json()))
    assert store.arrivals() == {}
    seen = [0]
    rows = some_predictions(3)
    steps: list[Callable[[], Receipt]] = [
        lambda: store.append_predictions("p", "m", 1, ipc(prediction_columns(rows))),
        lambda: store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows)))),
        lambda: sent(store, "s"),
    ]
    for step in steps:
        step()
        seen.append(store.arrivals()["m"])
        step()
        assert store.arrivals()["m"] == seen[-1], "a duplicate is nothing new"
    assert seen == sorted(set(seen))
    store.close()
