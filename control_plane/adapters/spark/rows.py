"""Kafka records to rows, on the workers, by the same parser as everywhere.

One record is one batch (see `adapters.kafka.records`). A batch that cannot be used becomes one row with the fault, for
the dead letters.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from control_plane.app.arrivals import ARROW, Arrival
from control_plane.core.errors import Invalid, RunwayError
from control_plane.core.ground_truth.batch import OutcomeBatch, PredictionBatch, read_outcomes, read_predictions
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, NO_HOUR, Int64s, hash_buckets, id_hours

ROW_BITS = 20
OFFSET_BITS = 32
BUCKETS = 256
SLICES_SEPARATOR = "\x1f"
Decode = Callable[[Arrival], Arrival]

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


def parse(records: Iterable[pa.RecordBatch], predictions_topic: str, decode: Decode) -> Iterator[pa.RecordBatch]:
    """Columns topic, partition, offset, value, headers (a list of key and value) to `ROWS`.

    Args:
        decode: makes an arrival of another content type one of Arrow; raises `RunwayError`.
    """
    for batch in records:
        for record in batch.to_pylist():
            kind = "predictions" if record["topic"] == predictions_topic else "outcomes"
            said: dict[str, str] = {}
            try:
                said = {entry["key"].lower(): (entry["value"] or b"").decode() for entry in record["headers"] or ()}
                yield from _rows(kind, record, said, decode)
            except (RunwayError, ValueError) as error:
                yield _faulty(kind, record, said, _why(error))


def _why(error: Exception) -> str:
    if isinstance(error, Invalid):
        return "; ".join(f"{one.field}: {one.message}" for one in error.violations[:3])
    return str(error)[:500]


def _rows(kind: str, record: dict[str, object], said: dict[str, str], decode: Decode) -> Iterator[pa.RecordBatch]:
    payload, partition, offset = record["value"], record["partition"], record["offset"]
    assert isinstance(partition, int)
    assert isinstance(offset, int)
    if not isinstance(payload, bytes) or not payload:
        raise ValueError("the record has no value: one record is one batch")
    arrival = Arrival(
        kind=kind,
        batch_id=said.get("batch_id") or f"kafka/{record['topic']}/{partition}/{offset}",
        source=said.get("source") or f"kafka/{record['topic']}",
        model_id=said.get("model_id", ""),
        version=int(said.get("version") or 0),
        label_type=said.get("label_type", ""),
        content_type=said.get("content-type", ARROW).partition(";")[0].strip(),
        payload=payload,
    )
    if arrival.content_type != ARROW:
        arrival = decode(arrival)
    if not arrival.model_id:
        raise ValueError("header model_id: missing, and Arrow cannot say it")
    if kind == "predictions" and arrival.version < 1:
        raise ValueError("header version: missing, and Arrow cannot say it")
    # Within a partition the order of arrival; between partitions there is none, and any fixed one will do.
    first = partition << (ROW_BITS + OFFSET_BITS) | offset << ROW_BITS
    if kind == "predictions":
        yield _prediction_rows(read_predictions(arrival.payload), first, arrival)
    else:
        yield _outcome_rows(read_outcomes(arrival.payload), first, arrival)


def _prediction_rows(batch: PredictionBatch, first: int, arrival: Arrival) -> pa.RecordBatch:
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
        version=arrival.version,
        model_id=arrival.model_id,
        hour=pa.array(hours.astype(np.int32)),
        bucket=pa.array(hash_buckets(batch.ids, BUCKETS).astype(np.int16)),
        arrival=pa.array(np.arange(first, first + rows, dtype=np.int64)),
        source=arrival.source,
        slices=slices,
        entity_id=batch.entity,
        day=_days(hours),
    )


def _outcome_rows(batch: OutcomeBatch, first: int, arrival: Arrival) -> pa.RecordBatch:
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
        label_type=arrival.label_type,
        model_id=arrival.model_id,
        hour=pa.array(hours.astype(np.int32)),
        bucket=pa.array(hash_buckets(batch.ids, BUCKETS).astype(np.int16)),
        arrival=pa.array(np.arange(first, first + rows, dtype=np.int64)),
        source=arrival.source,
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
