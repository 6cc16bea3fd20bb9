"""What is kept of counts and what is made of it: days, seasons, references, recorded hours, older catalogues."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from control_plane.adapters.parquet.catalog import CatalogUnreadable
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.profile import Profile
from control_plane.adapters.parquet.profile_format import parse_profile
from control_plane.adapters.parquet.seasons import usual_psi_of
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.errors import NotFound
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.statistics.season import usual_psi
from tests.ground_truth.arrows import (
    HOUR_US,
    T0,
    T0_US,
    ipc,
    outcome_columns,
    prediction_columns,
    some_predictions,
)
from tests.ground_truth.counting import (
    FINE_EDGES,
    append,
    current,
    profile_json,
    sent,
    some_counted,
)
from tests.ground_truth.joins import FAR, finish
from tests.reference.join import Outcome

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SPEC = LabelSpec(window=timedelta(hours=6))


@pytest.fixture
def store(tmp_path: Path) -> ParquetFactStore:
    return ParquetFactStore(tmp_path)


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


def test_a_catalogue_of_an_earlier_version_is_refused_with_advice(tmp_path: Path) -> None:
    ParquetFactStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "catalog.sqlite") as db:
        db.execute("PRAGMA user_version = 4")
    db.close()
    with pytest.raises(CatalogUnreadable, match="it has version 4") as caught:
        ParquetFactStore(tmp_path)
    assert "make reset" in caught.value.message
