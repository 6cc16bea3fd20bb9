"""The data as the rest of the fleet relies on it."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from assets.flights import data, features
from assets.flights.fleet import BY_ID, FLEET
from assets.flights.labels import departures, outcomes


def test_every_flight_of_the_year_is_there_in_order(year: pa.Table) -> None:
    scheduled = data.column(year, "scheduled")
    assert year.num_rows == 336_776
    assert (np.diff(scheduled) >= np.timedelta64(0)).all()
    assert pc.count_distinct(year.column("flight_id")).as_py() == year.num_rows


def test_scheduled_times_are_utc_on_both_sides_of_the_change_of_clocks(year: pa.Table) -> None:
    hour, scheduled = data.column(year, "hour"), data.column(year, "scheduled")
    utc_hour = (scheduled.astype("datetime64[h]").astype(np.int64) % 24).astype(float)
    behind = (utc_hour - hour) % 24
    changed = [data.instant(datetime(2013, *day, tzinfo=UTC)) for day in ((3, 10, 12), (11, 3, 6))]
    summer = (scheduled > changed[0]) & (scheduled < changed[1])
    assert set(behind[summer]) == {4.0}
    assert set(behind[(scheduled < data.instant(datetime(2013, 3, 10, tzinfo=UTC)))]) == {5.0}


def test_flights_land_after_they_leave_and_cancelled_ones_do_neither(year: pa.Table) -> None:
    departed, arrived = data.column(year, "departed"), data.column(year, "arrived")
    landed = ~np.isnat(arrived)
    assert (arrived[landed] > departed[landed]).all()
    assert (arrived[landed] - departed[landed] < np.timedelta64(16, "h")).all()
    assert np.isnat(arrived[np.isnat(departed)]).all()
    assert 0.02 < np.isnat(arrived).mean() < 0.04


def test_an_outcome_is_known_when_it_happened_and_never_for_a_flight_that_did_not(year: pa.Table) -> None:
    rows = np.arange(20_000, dtype=np.int64)
    departed, arrived = data.column(year, "departed")[rows], data.column(year, "arrived")[rows]
    for model in FLEET:
        value, known_at = outcomes(model, rows)
        assert (np.isnan(value) == np.isnat(known_at)).all(), model.model_id
        if model.task == "binary":
            assert set(np.unique(value[~np.isnan(value)])) == {0.0, 1.0}
        if model.label.startswith("arr") or model.label in ("air_time", "elapsed"):
            assert np.isnan(value[np.isnat(arrived)]).all()
        if model.label.startswith("dep"):
            assert np.isnan(value[np.isnat(departed)]).all()
    assert np.isnan(outcomes(BY_ID["route_embedding"], rows)[0]).all()


def test_a_late_departure_stands_in_for_a_late_landing_and_outlives_a_diversion(year: pa.Table) -> None:
    rows = np.arange(0, year.num_rows, 3)
    model = BY_ID["arrival_delay_jfk"]
    landed, landed_at = outcomes(model, rows)
    found = departures(model, rows)
    assert found is not None
    left, left_at = found
    both = ~np.isnan(landed)
    assert not np.isnan(left[both]).any()
    assert (left_at[both] < landed_at[both]).all()
    diverted = np.isnan(landed) & ~np.isnan(left)
    cancelled = np.isnan(left)
    assert diverted.sum() > 100
    assert cancelled.sum() > 1000
    assert np.isnan(landed[cancelled]).all()
    assert np.isnat(left_at[cancelled]).all()
    assert (left[both] == landed[both]).mean() > 0.8
    assert departures(BY_ID["air_time"], rows) is None


def test_features_know_nothing_of_the_future(year: pa.Table, year_features: pa.Table) -> None:
    cut = data.instant(datetime(2013, 2, 1, 15, tzinfo=UTC))
    scheduled = data.column(year, "scheduled")
    until = int(np.searchsorted(scheduled, cut))
    # Everything that happens after the cut happens otherwise: nobody leaves, nobody lands, all delays are absurd.
    changed = year
    for name, delay in (("departed", "dep_delay"), ("arrived", "arr_delay")):
        when = data.column(year, name).copy()
        value = data.column(year, delay).copy()
        late = ~(when <= cut)
        when[late] = np.datetime64("NaT")
        value[late] = 9_999.0
        changed = changed.set_column(changed.schema.get_field_index(name), name, pa.array(when))
        changed = changed.set_column(changed.schema.get_field_index(delay), delay, pa.array(value))
    again = features.compute(changed)
    for name in again.schema.names:
        before = year_features.column(name).slice(0, until).combine_chunks()
        assert before.equals(again.column(name).slice(0, until).combine_chunks()), name


def test_features_are_named_once_and_cover_what_models_read() -> None:
    names = [feature.name for feature in features.FEATURES]
    assert len(set(names)) == len(names) >= 25
    assert {feature.dataset for feature in features.FEATURES} == set(features.DATASETS)
    assert {name for model in FLEET for name in model.features} <= set(names)


def test_the_fleet_is_written_in_an_order_that_can_be_trained() -> None:
    seen: set[str] = set()
    for model in FLEET:
        assert set(model.upstream) <= seen, model.model_id
        seen.add(model.model_id)
    assert len(FLEET) >= 13


def test_a_missing_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(data.FlightsError, match="make environment"):
        data.source_folder()


def test_the_cache_is_whole_or_not_there(fleet_home: Path, year: pa.Table) -> None:
    names = sorted(path.name for path in (fleet_home / "flights").iterdir())
    assert data.CACHE_NAME in names
    assert not [name for name in names if name.endswith(".part")]
