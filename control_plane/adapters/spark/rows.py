"""Kafka records to rows, on the workers, by the same parser as everywhere.

One record is one batch (see `adapters.kafka.records`): an Arrow IPC stream, by itself or in a protobuf request. A batch
that cannot be used becomes one row with the fault, for the dead letters.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from control_plane.core.errors import Invalid, RunwayError
from control_plane.core.ground_truth.batch import OutcomeBatch, PredictionBatch, read_outcomes, read_predictions
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, NO_HOUR, Int64s, hash_buckets, id_hours

ROW_BITS = 20
OFFSET_BITS = 32
BUCKETS = 256
SLICES_SEPARATOR = "\x1f"
PROTOBUF = "application/x-protobuf"

ROWS = pa.schema(
    [
        ("kind", pa.string()),
        ("prediction_id", pa.binary()),
        ("at_us", pa.int64()),
        ("number", pa.float64()),
        ("version", pa.int32()),
        ("revision", pa.int32()),
        ("label_type", pa.string()),
        ("model_id", pa.string()),
        ("hour", pa.int32()),
        ("bucket", pa.int16()),
        ("arrival", pa.int64()),
        ("source", pa.string()),
        ("slices", pa.string()),
        ("entity_id", pa.string()),
        ("day", pa.date32()),
        ("fault", pa.string()),
        ("payload", pa.binary()),
    ]
)
"""Rows of both kinds, and faults: of those `kind`, `model_id`, `source`, `fault` and `payload` are filled."""


def parse(records: Iterable[pa.RecordBatch], predictions_topic: str) -> Iterator[pa.RecordBatch]:
    """Columns topic, partition, offset, value, headers (a list of key and value) to `ROWS`."""
    for batch in records:
        for record in batch.to_pylist():
            kind = "predictions" if record["topic"] == predictions_topic else "outcomes"
            said = {entry["key"].lower(): (entry["value"] or b"").decode() for entry in record["headers"] or ()}
            try:
                yield from _rows(kind, record, said)
            except (RunwayError, ValueError, UnicodeDecodeError) as error:
                yield _faulty(kind, record, said, _why(error))


def _why(error: Exception) -> str:
    if isinstance(error, Invalid):
        return "; ".join(f"{one.field}: {one.message}" for one in error.violations[:3])
    return str(error)[:500]


def _rows(kind: str, record: dict[str, object], said: dict[str, str]) -> Iterator[pa.RecordBatch]:
    payload, partition, offset = record["value"], record["partition"], record["offset"]
    assert isinstance(partition, int)
    assert isinstance(offset, int)
    if not isinstance(payload, bytes) or not payload:
        raise ValueError("the record has no value: one record is one batch")
    if said.get("content-type", "").startswith(PROTOBUF):
        payload, said = _unwrapped(kind, payload, said)
    # Within a partition the order of arrival; between partitions there is none, and any fixed one will do.
    arrival = partition << (ROW_BITS + OFFSET_BITS) | offset << ROW_BITS
    if not said.get("model_id"):
        raise ValueError("header model_id: missing, and Arrow cannot say it")
    if kind == "predictions":
        version = int(said.get("version") or 0)
        if version < 1:
            raise ValueError("header version: missing, and Arrow cannot say it")
        yield _prediction_rows(read_predictions(payload), version, arrival, said)
    else:
        yield _outcome_rows(read_outcomes(payload), arrival, said)


def _unwrapped(kind: str, payload: bytes, said: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """The Arrow stream in a protobuf request, and what the request says itself."""
    from runway.v1 import ground_truth_pb2  # noqa: PLC0415 - only where it is installed

    request: Any
    if kind == "predictions":
        request = ground_truth_pb2.IngestPredictionsRequest.FromString(payload)
        own = {"model_id": request.model_id, "version": str(request.version or ""), "source": request.source}
    else:
        request = ground_truth_pb2.IngestOutcomesRequest.FromString(payload)
        own = {"model_id": request.model_id, "label_type": request.label_type, "source": request.source}
    if not request.arrow_ipc:
        raise ValueError("this engine takes requests with arrow_ipc: plain messages go through gRPC")
    return request.arrow_ipc, said | {name: text for name, text in own.items() if text}


def _prediction_rows(batch: PredictionBatch, version: int, arrival: int, said: dict[str, str]) -> pa.RecordBatch:
    rows = batch.rows
    hours = batch.predicted_us // MICROSECONDS_PER_HOUR
    slices = None
    if batch.slices:
        named = [
            pc.fill_null(pc.binary_join_element_wise(name, column, "="), "")
            for name, column in sorted(batch.slices.items())
        ]
        slices = pc.binary_join_element_wise(*named, SLICES_SEPARATOR)
    return _record(
        rows,
        kind="predictions",
        prediction_id=batch.table.column("prediction_id").cast(pa.binary(16)).cast(pa.binary()).combine_chunks(),
        at_us=pa.array(batch.predicted_us),
        number=pa.array(batch.score),
        version=version,
        model_id=said["model_id"],
        hour=pa.array(hours.astype(np.int32)),
        bucket=pa.array(hash_buckets(batch.ids, BUCKETS).astype(np.int16)),
        arrival=pa.array(np.arange(arrival, arrival + rows, dtype=np.int64)),
        source=said.get("source", ""),
        slices=slices,
        entity_id=batch.entity,
        day=_days(hours),
    )


def _outcome_rows(batch: OutcomeBatch, arrival: int, said: dict[str, str]) -> pa.RecordBatch:
    rows = batch.rows
    hours = id_hours(batch.ids)
    seen = batch.observed_us // MICROSECONDS_PER_HOUR
    return _record(
        rows,
        kind="outcomes",
        prediction_id=batch.table.column("prediction_id").cast(pa.binary(16)).cast(pa.binary()).combine_chunks(),
        at_us=pa.array(batch.observed_us),
        number=pa.array(batch.value),
        revision=pa.array(batch.revision),
        label_type=said.get("label_type", ""),
        model_id=said["model_id"],
        hour=pa.array(hours.astype(np.int32)),
        bucket=pa.array(hash_buckets(batch.ids, BUCKETS).astype(np.int16)),
        arrival=pa.array(np.arange(arrival, arrival + rows, dtype=np.int64)),
        source=said.get("source", ""),
        day=_days(np.where(hours == NO_HOUR, seen, hours)),
    )


def _days(hours: Int64s) -> pa.Array:
    return pa.array((hours // 24).astype(np.int32)).cast(pa.date32())


def _record(rows: int, **columns: object) -> pa.RecordBatch:
    """A batch of `ROWS`: scalars are repeated, what is not given is null."""
    made = []
    for field in ROWS:
        value = columns.get(field.name)
        if value is None:
            made.append(pa.nulls(rows, field.type))
        elif isinstance(value, pa.Array):
            made.append(value.cast(field.type))
        else:
            made.append(
                pa.array([value] * rows, field.type) if rows < 2 else pa.repeat(pa.scalar(value, field.type), rows)
            )
    return pa.RecordBatch.from_arrays(made, schema=ROWS)


def _faulty(kind: str, record: dict[str, object], said: dict[str, str], fault: str) -> pa.RecordBatch:
    where = f"{record['topic']}/{record['partition']}/{record['offset']}"
    return _record(
        1,
        kind=kind,
        model_id=said.get("model_id", ""),
        source=said.get("source") or f"kafka/{where}",
        fault=f"{fault} (kafka/{where})",
        payload=pa.array([record["value"]], pa.binary()),
        day=pa.array([date(1970, 1, 1)], pa.date32()),
    )
