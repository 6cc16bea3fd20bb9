"""What evidence tells beyond counts: volume, concept, estimate, proxy, ranges, seasons; and recorded hours."""

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.profile import Profile
from control_plane.adapters.parquet.profile_format import parse_profile
from control_plane.adapters.parquet.schema import pack_counts
from control_plane.adapters.parquet.scores import coarse_cells, holdout_scores
from control_plane.adapters.parquet.seasons import usual_psi_of
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.app.fact_store import Receipt
from control_plane.core.errors import Invalid, NotFound
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import SCORE_BINS, score_bins
from control_plane.core.statistics.season import usual_psi
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
    FINE_EDGES,
    SCORE_EDGES,
    append,
    current,
    profile_json,
    sent,
    some_counted,
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


def fine_profile(**temp: Any) -> bytes:
    """A profile whose number has fine bins too."""
    fine = [0] * (len(FINE_EDGES) + 2)
    fine[10], fine[20] = 20, 20
    return profile_json(fine={"edges": FINE_EDGES, "counts": fine}, **temp)


def test_a_year_ago_says_what_is_usual(store: ParquetFactStore) -> None:
    """A year ago the same five weeks looked as this one does; the version then had other edges, and fine bins."""
    year = timedelta(days=364)
    fine = {"edges": FINE_EDGES, "counts": [40] + [0] * (len(FINE_EDGES) + 1)}
    old = profile_json(edges=[-1.5, 0.0, 1.5], fine=fine)
    store.set_reference("m", 1, store.put_profile(old))
    store.set_reference("m", 2, store.put_profile(profile_json()))
    rng = np.random.default_rng(0)
    for back in range(-2, 3):
        at = T0_US + back * 7 * 24 * HOUR_US
        rows = some_predictions(400, start_us=at, first=10_000 * (back + 3), spread_us=24 * HOUR_US)
        temp = pa.array(rng.normal(1.0, 1.0, len(rows)))
        store.append_predictions(f"p{back}", "m", 1, ipc(prediction_columns(rows) | {"feature.temp": temp}))
    now = T0 + year + 7 * DAY
    for _ in range(2):
        usual = {one.name: one.psi_usual for one in store.evidence("m", 2, now - 7 * DAY, now, now).features}
        assert usual["temp"] > 0.3
        assert usual["carrier"] > 0.3  # a year ago nobody sent it: all missing
        assert {one.psi_usual for one in store.evidence("m", 2, now + 60 * DAY, now + 67 * DAY, FAR).features} == {0.0}
        finish(store)
    store.close()


def test_the_usual_psi_of_all_features_is_that_of_each() -> None:
    profile: Profile = parse_profile(profile_json())
    windows = np.random.default_rng(3).integers(0, 50, (5, profile.cells))
    windows[2:, :4] = 0  # too few windows of the category
    found = usual_psi_of(profile, windows)
    carrier, temp = profile.features
    assert found == {"temp": pytest.approx(usual_psi(temp.reference, windows[:, temp.start : temp.end]))}
    assert usual_psi(carrier.reference, windows[:, carrier.start : carrier.end]) == 0.0


def test_a_reference_is_made_of_counts_alone(store: ParquetFactStore) -> None:
    store.set_reference("m", 1, store.put_profile(fine_profile(importance=0.3)))
    rows = list({row.id: row for row in some_counted(np.random.default_rng(5), 600)}.values())
    append(store, "rows", rows)
    temps = sorted(row.temp for row in rows if row.temp is not None)
    for _ in range(2):
        digest = store.rebaseline("m", 1, 2, T0, T0 + 2 * DAY)
        profile = parse_profile(store.profile(digest) or b"")
        carrier, temp = profile.features
        assert profile.prediction is None
        assert (temp.importance, int(temp.reference.sum())) == (0.3, len(rows))
        assert carrier.reference.tolist() == current(store.evidence("m", 1, T0, T0 + 2 * DAY, FAR), "carrier")
        assert set(temp.edges) <= set(FINE_EDGES)
        assert temp.bins.count([row.temp for row in rows]).tolist() == temp.reference.tolist()
        middle = temps[len(temps) // 2]
        assert np.abs(temp.edges - middle).min() < 0.2
        finish(store)
    store.append_predictions("new", "m", 2, ipc(prediction_columns(some_predictions(5, first=77_000))))
    assert store.evidence("m", 2, T0, T0 + DAY, FAR).profile_sha256 == digest
    store.close()


def test_a_reference_needs_something_to_be_made_of(store: ParquetFactStore) -> None:
    with pytest.raises(NotFound, match="no reference profile"):
        store.rebaseline("m", 1, 2, T0, T0 + DAY)
    store.set_reference("m", 1, store.put_profile(profile_json()))
    sent(store, "a")
    with pytest.raises(NotFound, match=r"10 predictions of version 1 of m were counted .* 200 are needed"):
        store.rebaseline("m", 1, 2, T0, T0 + DAY)
    store.close()


def test_recorded_hours_are_those_of_evidence(store: ParquetFactStore) -> None:
    store.set_label("m", SPEC)
    store.set_reference("m", 1, store.put_profile(profile_json()))
    rows = list({row.id: row for row in some_counted(np.random.default_rng(6), 300)}.values())
    append(store, "rows", rows)
    sent(store, "s", T0 + 3 * HOUR)
    outcomes = [Outcome(row.id, row.predicted_us + 1, 1.0) for row in rows]
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes)))
    for _ in range(2):
        recorded = store.recorded_hours("m", T0, T0 + 30 * HOUR)
        [counts] = recorded.counts
        [partials] = recorded.partials
        evidence = store.evidence("m", 1, T0, T0 + 30 * HOUR, FAR)
        assert int(counts.predictions.sum()) == evidence.predictions == len(rows) + 10
        for cells, feature in zip(counts.features, evidence.features, strict=True):
            assert counts.counts[:, cells.start : cells.end].sum(axis=0).tolist() == feature.current.tolist()
            assert cells.cells == feature.cells
        assert (np.diff(counts.hours) > 0).all()
        assert sum(partial.of("joined") for partial in partials.partials) == len(rows)
        assert recorded.label == SPEC
        one = store.recorded_hours("m", T0 + 3 * HOUR, T0 + 4 * HOUR)
        assert one.counts[0].hours.tolist() == [int(T0.timestamp()) // 3600 + 3]
        finish(store)
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


def test_hours_are_dropped_and_days_stay(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path, StoreConfig(hours_keep=20 * DAY, counts_keep=60 * DAY))
    store.set_reference("m", 1, store.put_profile(profile_json()))
    rows = list({row.id: row for row in some_counted(np.random.default_rng(7), 100)}.values())
    append(store, "rows", rows)
    sent(store, "s", T0 + 30 * HOUR)
    finish(store)  # FAR is 40 days on
    assert store.evidence("m", 1, T0, T0 + 2 * DAY, FAR).predictions == len(rows) + 10
    assert store.evidence("m", 1, T0, T0 + HOUR, FAR).predictions == 0
    assert store.recorded_hours("m", T0, T0 + 2 * DAY).counts == ()
    report = store.tick(FAR + 40 * DAY, force=True)
    while report.more:
        report = store.tick(FAR + 40 * DAY)
    assert store.evidence("m", 1, T0, T0 + 2 * DAY, FAR).predictions == 0
    store.close()


def test_a_window_before_1970_holds_nothing_of_others(store: ParquetFactStore) -> None:
    for model_id in ("a", "b"):
        store.set_reference(model_id, 1, store.put_profile(profile_json()))
        sent(store, "s", model_id=model_id)
    early = datetime(1970, 1, 2, tzinfo=UTC)
    assert store.evidence("b", 1, early - 7 * DAY, early, early).predictions == 0
    assert store.recorded_hours("b", early - 7 * DAY, early).counts == ()
    store.close()


def test_a_catalogue_of_version_3_is_brought_up_to_date(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path)
    store.set_reference("m", 1, store.put_profile(profile_json()))
    append(store, "rows", list({row.id: row for row in some_counted(np.random.default_rng(8), 200)}.values()))
    finish(store)
    before = store.evidence("m", 1, T0, T0 + 2 * DAY, FAR)
    hours = store.recorded_hours("m", T0, T0 + 2 * DAY).counts[0]
    store.close()
    with sqlite3.connect(tmp_path / "catalog.sqlite") as db:
        for table in (
            "series",
            "hour_counts",
            "day_counts",
            "day_fine_counts",
            "sent_counts",
            "sent_batches",
            "volumes",
        ):
            db.execute(f"DROP TABLE {table}")
        for table in ("slices", "slice_partials", "first_labels"):
            db.execute(f"DROP TABLE {table}")
        db.execute("ALTER TABLE files DROP COLUMN sliced")
        db.execute(
            "CREATE TABLE histograms (model_id TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, "
            "hour INTEGER NOT NULL, rows INTEGER NOT NULL, cells BLOB NOT NULL, "
            "PRIMARY KEY (model_id, version, digest, hour)) WITHOUT ROWID"
        )
        for hour, rows, cells in zip(hours.hours.tolist(), hours.predictions.tolist(), hours.counts, strict=True):
            packed = pack_counts(cells.astype(np.int64))
            db.execute("INSERT INTO histograms VALUES ('m', 1, ?, ?, ?, ?)", (hours.profile_sha256, hour, rows, packed))
        db.execute("PRAGMA user_version = 3")
    db.close()
    for _ in range(2):
        store = ParquetFactStore(tmp_path)
        after = store.evidence("m", 1, T0, T0 + 2 * DAY, FAR)
        assert after.volume == before.volume
        assert (current(after, "temp"), after.predictions) == (current(before, "temp"), before.predictions)
        assert store.evidence("m", 1, T0, T0 + HOUR, FAR).predictions > 0
        store.close()
