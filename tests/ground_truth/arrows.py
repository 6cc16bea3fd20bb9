"""Arrow batches and ids for tests."""

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from control_plane.core.ground_truth.ids import uuid7
from tests.reference.join import Outcome, Prediction

T0 = datetime(2013, 3, 1, tzinfo=UTC)
HOUR_US = 3_600_000_000
MICROSECONDS = pa.timestamp("us", tz="UTC")


def us(instant: datetime) -> int:
    """Microseconds since 1970."""
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


T0_US = us(T0)


def prediction_id(instant_us: int, number: int) -> bytes:
    """A UUIDv7 of an instant; distinct for distinct numbers."""
    return uuid7(instant_us // 1000, number * 0x9E3779B97F4A7C15 % 2**74).bytes


def ipc(columns: Mapping[str, pa.Array] | pa.Table) -> bytes:
    """One Arrow IPC stream."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def id_column(ids: Sequence[bytes]) -> pa.Array:
    """A column of ids."""
    return pa.array(ids, pa.binary(16))


def prediction_columns(rows: Sequence[Prediction]) -> dict[str, pa.Array]:
    """Columns of a batch of predictions; all of one version."""
    return {
        "prediction_id": id_column([row.id for row in rows]),
        "predicted_at": pa.array([row.predicted_us for row in rows], pa.int64()).cast(MICROSECONDS),
        "score": pa.array([row.score for row in rows], pa.float64()),
    }


def outcome_columns(rows: Sequence[Outcome]) -> dict[str, pa.Array]:
    """Columns of a batch of outcomes; all of one label type."""
    return {
        "prediction_id": id_column([row.id for row in rows]),
        "observed_at": pa.array([row.observed_us for row in rows], pa.int64()).cast(MICROSECONDS),
        "value": pa.array([row.value for row in rows], pa.float64()),
        "revision": pa.array([row.revision for row in rows], pa.int32()),
    }


def some_predictions(
    count: int, *, start_us: int = T0_US, first: int = 0, spread_us: int = HOUR_US
) -> list[Prediction]:
    """Predictions evenly spread over a stretch of time, with scores that differ."""
    instants = start_us + np.linspace(0, spread_us - 1, count).astype(np.int64)
    return [
        Prediction(prediction_id(int(at), first + number), int(at), (first + number) * 0.618 % 1.0)
        for number, at in enumerate(instants)
    ]


def outcomes_for(predictions: Sequence[Prediction], *, delay_us: int = HOUR_US, revision: int = 0) -> list[Outcome]:
    """An outcome for each prediction: 1 where the score is above a half, with every fifth one turned round."""
    return [
        Outcome(row.id, row.predicted_us + delay_us, float((row.score > 0.5) != (number % 5 == 0)), revision)
        for number, row in enumerate(predictions)
    ]
