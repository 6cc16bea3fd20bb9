"""Sampling in the store: what is kept, what is counted, what is remembered, also over a restart."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.errors import Invalid
from control_plane.core.ground_truth.ids import hash_shares, id_columns
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

ROWS = 3_000
HOUR = T0_US // HOUR_US


def opened(root: Path) -> ParquetFactStore:
    return ParquetFactStore(root, StoreConfig())


def shares(ids: list[bytes]) -> np.ndarray:
    return hash_shares(id_columns(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)))


def test_both_sides_keep_the_same_ids_and_estimates_are_scaled(tmp_path: Path) -> None:
    store = opened(tmp_path)
    rows = some_predictions(ROWS)
    inside = int((shares([row.id for row in rows]) < 0.2).sum())
    stored = store.submit_predictions("p", "m", 1, ipc(prediction_columns(rows)), rate=0.2).result()
    assert (stored.rows, stored.sampled_out, stored.sample_rate) == (inside, ROWS - inside, 0.2)
    # The rate has changed since: outcomes of that hour are still kept at the hour's.
    known = store.submit_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows))), rate=1.0).result()
    assert (known.rows, known.sample_rate) == (inside, 0.2)
    report = store.coverage("m", None, T0, T0 + timedelta(hours=1), T0 + timedelta(days=30))
    assert report.total.sample_rate == pytest.approx(0.2)
    assert report.total.predicted == pytest.approx(inside / 0.2, abs=1)
    assert report.total.coverage == 1.0
    store.close()


def test_a_lower_rate_later_in_the_hour_counts_only_ids_that_both_kept(tmp_path: Path) -> None:
    store = opened(tmp_path)
    early, late = some_predictions(ROWS), some_predictions(ROWS, first=50_000)
    store.submit_predictions("p1", "m", 1, ipc(prediction_columns(early)), rate=1.0).result()
    store.submit_predictions("p2", "m", 1, ipc(prediction_columns(late)), rate=0.25).result()
    known = ipc(outcome_columns(outcomes_for([*early, *late])))
    store.submit_outcomes("o", "m", "", known, rate=0.5).result()
    below = int((shares([row.id for row in [*early, *late]]) < 0.25).sum())
    report = store.coverage("m", None, T0, T0 + timedelta(hours=1), T0 + timedelta(days=30))
    assert report.total.predicted == pytest.approx(below / 0.25, abs=1)
    assert report.total.coverage == 1.0
    store.close()


def test_all_that_was_sent_is_counted_and_a_batch_outside_the_sample_is_remembered(tmp_path: Path) -> None:
    store = opened(tmp_path)
    rows = some_predictions(ROWS)
    arrow = ipc(prediction_columns(rows))
    assert store.submit_predictions("none", "m", 1, arrow, rate=1e-9).result().rows == 0
    assert store.submit_predictions("none", "m", 1, arrow, rate=1.0).result().duplicate
    some = store.submit_predictions("some", "m", 1, arrow, rate=0.1).result()
    store.close()
    store = opened(tmp_path)
    assert store.submit_predictions("none", "m", 1, arrow, rate=1.0).result().duplicate
    again = store.submit_predictions("some", "m", 1, arrow, rate=1.0).result()
    assert (again.duplicate, again.rows) == (True, some.rows)
    assert store._facts.unsealed_volumes[1]["m"] == {HOUR: 2 * ROWS}
    assert [(one.predictions, one.outcomes) for one in store.sources("m")] == [(2 * ROWS, 0)]
    assert store._facts.rates["m"] == {HOUR: 1e-9}
    store.close()


def test_what_is_a_day_in_the_future_is_refused_with_its_row(tmp_path: Path) -> None:
    store = opened(tmp_path)
    rows = some_predictions(10)
    columns = outcome_columns(outcomes_for(rows))
    latest = T0 + timedelta(days=1)
    instants = columns["observed_at"].cast(pa.int64()).to_pylist()
    instants[3] = T0_US + 24 * HOUR_US  # just so
    instants[7] = T0_US + 24 * HOUR_US + 1
    columns["observed_at"] = pa.array(instants, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    with pytest.raises(Invalid, match="observed_at: row 7: in the future") as refused:
        store.submit_outcomes("o", "m", "", ipc(columns), latest=latest).result()
    assert [one.rule for one in refused.value.violations] == ["future"]
    assert store.submit_outcomes("o", "m", "", ipc(columns), latest=latest + timedelta(seconds=1)).result().rows == 10
    early = ipc(prediction_columns(some_predictions(10, start_us=T0_US + 2 * 24 * HOUR_US)))
    with pytest.raises(Invalid, match="predicted_at: row 0: in the future"):
        store.submit_predictions("p", "m", 1, early, latest=latest).result()
    store.close()
