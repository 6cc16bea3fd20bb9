"""Cancelled flights never get an outcome: the storm of 8 March 2013 at LaGuardia, as coverage explains it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assets.flights.data import flights
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.ground_truth.causes import findings
from control_plane.core.ground_truth.findings import Cause
from control_plane.core.ground_truth.labels import LabelSpec
from tests.ground_truth.arrows import ipc, prediction_id

STORM = datetime(2013, 3, 8, tzinfo=UTC)
NOW = datetime(2013, 3, 16, tzinfo=UTC)


def test_cancelled_flights_are_never_labelled_and_the_carrier_with_least_is_named(tmp_path: Path) -> None:
    table = flights()
    scheduled = table.column("scheduled").cast(pa.int64()).to_numpy()
    first, last = STORM - timedelta(days=12), NOW
    chosen = pc.equal(table.column("origin").cast(pa.string()), "LGA").to_numpy(zero_copy_only=False)
    chosen &= (scheduled >= first.timestamp() * 1e6) & (scheduled < last.timestamp() * 1e6)
    some = table.filter(pa.array(chosen))
    at = scheduled[chosen] - 2 * 3_600_000_000
    ids = np.array([prediction_id(int(one), number) for number, one in enumerate(at)], dtype=object)
    landed = np.flatnonzero(some.column("arrived").is_valid().to_numpy())
    instant = pa.timestamp("us", tz="UTC")
    store = ParquetFactStore(tmp_path, StoreConfig(speed_window=timedelta(hours=1)))
    try:
        store.set_label("lga", LabelSpec(window=timedelta(days=1)))
        predictions = {
            "prediction_id": pa.array(ids.tolist(), pa.binary(16)),
            "predicted_at": pa.array(at).cast(instant),
            "score": pa.array(np.full(len(at), 0.3)),
            "slice.carrier": some.column("carrier").cast(pa.string()),
        }
        outcomes = {
            "prediction_id": pa.array(ids[landed].tolist(), pa.binary(16)),
            "observed_at": some.column("arrived").take(pa.array(landed)).cast(instant),
            "value": pa.array(np.zeros(len(landed))),
        }
        store.append_predictions("p", "lga", 1, ipc(pa.table(predictions)))
        store.append_outcomes("o", "lga", "", ipc(pa.table(outcomes)))
        report = store.tick(NOW, force=True)
        while report.more:
            report = store.tick(NOW)
        facts, _ = store.missing_facts("lga", None, STORM, STORM + timedelta(days=1), NOW)
    finally:
        store.close()
    found = findings(facts, 0.8)
    assert found[0].cause is Cause.NEVER_LABELLED
    assert found[0].share == 1
    assert "Least have carrier=US" in found[0].explanation
    assert len(found) == 1
