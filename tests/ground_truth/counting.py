"""A profile, predictions with features and slices, and hours counted by a producer: what tests of counts share."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.app.fact_reports import FactEvidence, Receipt, SentHistogram
from tests.ground_truth.arrows import HOUR_US, MICROSECONDS, T0, T0_US, id_column, ipc, prediction_id
from tests.reference.counts import Counted

EDGES = (-1.0, 0.0, 1.0)
FINE_EDGES = tuple(np.linspace(-2, 2, 33).round(3).tolist())
CARRIERS = ("AA", "UA")
SCORE_EDGES = (0.25, 0.5, 0.75)
DAY = timedelta(days=1)
NOW = T0 + timedelta(days=30)


def profile_json(**temp: Any) -> bytes:
    """A profile of one number, one category and the score; `temp` changes the number."""
    feature = {"kind": "numeric", "edges": EDGES, "counts": [10, 10, 10, 10, 0]} | temp
    return json.dumps(
        {
            "features": {
                "temp": feature,
                "carrier": {"kind": "categorical", "categories": CARRIERS, "counts": [20, 15, 5, 0]},
            },
            "prediction": {"edges": SCORE_EDGES, "counts": [10, 10, 10, 10]},
        }
    ).encode()


def some_counted(rng: np.random.Generator, rows: int, *, hours: int = 30, ids: int = 10_000) -> list[Counted]:
    """Predictions over some hours; with few `ids` some come more than once."""
    found = []
    for _ in range(rows):
        number = int(rng.integers(ids))
        draw = np.random.default_rng(number)  # the same id is the same prediction
        at = T0_US + int(draw.integers(hours * HOUR_US))
        found.append(
            Counted(
                prediction_id(at, number),
                at,
                None if draw.random() < 0.1 else round(float(draw.normal()), 1),
                None if draw.random() < 0.1 else str(draw.choice(["AA", "UA", "B6"])),
                {"country": None if draw.random() < 0.2 else str(draw.choice(["US", "DE"]))},
            )
        )
    return found


def columns_of(rows: Sequence[Counted], *, slices: bool = True) -> dict[str, pa.Array]:
    """Columns of a batch."""
    columns = {
        "prediction_id": id_column([row.id for row in rows]),
        "predicted_at": pa.array([row.predicted_us for row in rows], pa.int64()).cast(MICROSECONDS),
        "score": pa.array([0.6] * len(rows), pa.float64()),
        "feature.temp": pa.array([row.temp for row in rows], pa.float64()),
        "feature.carrier": pa.array([row.carrier for row in rows], pa.string()),
    }
    if slices:
        columns["slice.country"] = pa.array([row.slices.get("country") for row in rows], pa.string())
    return columns


def append(store: ParquetFactStore, batch_id: str, rows: Sequence[Counted], model_id: str = "m") -> Receipt:
    """Store predictions."""
    return store.append_predictions(batch_id, model_id, 1, ipc(columns_of(rows)))


def sent(
    store: ParquetFactStore,
    batch_id: str,
    hour: datetime = T0,
    *,
    temp: Sequence[int] = (1, 2, 3, 4, 0),
    model_id: str = "m",
    version: int = 1,
    **changes: Any,
) -> Receipt:
    """Send one hour that a producer counted."""
    facts: dict[str, Any] = {
        "producer": "gateway",
        "predictions": sum(temp),
        "histograms": [temp_histogram(temp)],
        "prediction": None,
        "slice_name": "",
        "replace": False,
        "now": NOW,
    } | changes
    return store.submit_histograms(batch_id, model_id, version, hour=hour, **facts).result()


def temp_histogram(counts: Sequence[int], edges: Sequence[float] = EDGES, name: str = "temp") -> SentHistogram:
    """Counts of the number."""
    return SentHistogram(name=name, edges=tuple(edges), categories=(), counts=tuple(counts))


def current(evidence: FactEvidence, name: str) -> list[int]:
    """Current counts of a feature."""
    found: list[int] = next(feature.current for feature in evidence.features if feature.name == name).tolist()
    return found
