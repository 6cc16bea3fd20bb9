"""Batches between the wire and Arrow: plain messages become the batch that Arrow senders make themselves."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import ground_truth_pb2

from control_plane.app.fact_reports import Receipt
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.ground_truth.batch import FEATURE_PREFIX, SLICE_PREFIX, as_ipc

_INSTANTS = pa.timestamp("us", tz="UTC")


def predictions_ipc(request: ground_truth_pb2.IngestPredictionsRequest) -> bytes:
    """The batch as one Arrow IPC stream, whichever way it came.

    Raises:
        Invalid(INVALID_BATCH): it came in neither way, or in both.
    """
    _check_one(bool(request.arrow_ipc), len(request.predictions), "predictions")
    return request.arrow_ipc or as_ipc(_predictions(request.predictions))


def outcomes_ipc(request: ground_truth_pb2.IngestOutcomesRequest) -> bytes:
    """Likewise."""
    _check_one(bool(request.arrow_ipc), len(request.outcomes), "outcomes")
    return request.arrow_ipc or as_ipc(_outcomes(request.outcomes))


def batch_accepted(receipt: Receipt) -> ground_truth_pb2.BatchAccepted:
    """A stored batch."""
    return ground_truth_pb2.BatchAccepted(
        rows=receipt.rows,
        duplicate=receipt.duplicate,
        sampled_out=receipt.sampled_out,
        sample_rate=receipt.sample_rate,
    )


def _check_one(arrow: bool, messages: int, field: str) -> None:
    if arrow != bool(messages):
        return
    says = "give one of them, not both" if arrow else "the batch is empty: give one of them"
    violation = Violation(field="arrow_ipc", rule="one_of", message=f"arrow_ipc or {field}: {says}")
    raise Invalid(Reason.INVALID_BATCH, violation)


def _predictions(rows: Sequence[ground_truth_pb2.Prediction]) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "prediction_id": pa.array([row.prediction_id for row in rows], pa.binary(16)),
        "predicted_at": _instants([row.predicted_at for row in rows]),
        "score": pa.array([row.score for row in rows], pa.float64()),
    }
    for prefix, maps, kind in (
        (FEATURE_PREFIX, [row.numbers for row in rows], pa.float64()),
        (FEATURE_PREFIX, [row.categories for row in rows], pa.string()),
        (SLICE_PREFIX, [row.slices for row in rows], pa.string()),
    ):
        for name in sorted({name for found in maps for name in found}):
            if f"{prefix}{name}" in columns:
                message = f"{name} is a number in some rows and a category in others: it is one or the other"
                raise Invalid(Reason.INVALID_BATCH, Violation(field=f"{prefix}{name}", rule="type", message=message))
            columns[f"{prefix}{name}"] = pa.array([_found(found, name) for found in maps], kind)
    if any(row.entity_id for row in rows):
        columns["entity_id"] = pa.array([row.entity_id or None for row in rows], pa.string())
    if any(row.HasField("acted_on") for row in rows):
        columns["acted_on"] = pa.array([row.acted_on if row.HasField("acted_on") else None for row in rows], pa.bool_())
    return pa.table(columns)


def _outcomes(rows: Sequence[ground_truth_pb2.Outcome]) -> pa.Table:
    return pa.table(
        {
            "prediction_id": pa.array([row.prediction_id for row in rows], pa.binary(16)),
            "observed_at": _instants([row.observed_at for row in rows]),
            "value": pa.array([row.value for row in rows], pa.float64()),
            "revision": pa.array([row.revision for row in rows], pa.int32()),
            "imputed": pa.array([row.imputed for row in rows], pa.bool_()),
        }
    )


def _instants(stamps: Sequence[Timestamp]) -> pa.Array:
    return pa.array([stamp.seconds * 1_000_000 + stamp.nanos // 1_000 for stamp in stamps], pa.int64()).cast(_INSTANTS)


def _found(values: Any, name: str) -> Any:
    return values.get(name)
