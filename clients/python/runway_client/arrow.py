"""Arrow batches of predictions and outcomes, as GroundTruthService takes them, and UUIDv7 prediction ids.

The shapes are checked here, the values by the control plane, which answers with row and column.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ID_BYTES = 16
TIMESTAMP = pa.timestamp("us", tz="UTC")
_FEATURE_PREFIX = "feature."
_SLICE_PREFIX = "slice."

IdColumn: TypeAlias = npt.NDArray[np.uint8] | Sequence[bytes] | Sequence[uuid.UUID] | pa.Array
"""16-byte ids: bytes, UUIDs, a (n, 16) uint8 array, or an Arrow array of fixed_size_binary(16)."""


def prediction_ids(predicted_at: Any, keys: Any | None = None) -> npt.NDArray[np.uint8]:
    """UUIDv7 ids (RFC 9562) of predictions.

    Args:
        predicted_at: instants; a datetime64 array (UTC), an Arrow timestamp array, or UTC-aware datetimes; shape (n,).
        keys: integers that tell predictions apart, shape (n,). The same instant and key give the same id, so that a
            replay sends the same predictions again. None draws random bits.
    Returns:
        shape (n, 16), uint8; bytes in RFC order.

    >>> one = prediction_ids(np.array(["2022-02-22T19:22:22"], "datetime64[us]"), [7])
    >>> uuid.UUID(bytes=one.tobytes()).version
    7
    """
    instants_ms = np.asarray(_timestamps(predicted_at).cast(pa.int64()), dtype=np.int64) // 1000
    count = len(instants_ms)
    if keys is None:
        tail = np.frombuffer(np.random.default_rng().bytes(16 * count), dtype=np.uint64).reshape(count, 2)
        high, low = tail[:, 0], tail[:, 1]
    else:
        seed = np.asarray(keys).astype(np.int64).view(np.uint64)
        if seed.shape != (count,):
            raise ValueError(f"keys has shape {seed.shape}, predicted_at has {count} rows: give one key per prediction")
        high = _mix(seed)
        low = _mix(seed ^ np.uint64(0x9E3779B97F4A7C15))
    ids = np.empty((count, ID_BYTES), dtype=np.uint8)
    ids[:, :6] = instants_ms.astype(">u8").view(np.uint8).reshape(count, 8)[:, 2:]
    ids[:, 6:8] = (high & np.uint64(0x0FFF) | np.uint64(0x7000)).astype(">u2").view(np.uint8).reshape(count, 2)
    variant = low & np.uint64(0x3FFF_FFFF_FFFF_FFFF) | np.uint64(0x8000_0000_0000_0000)
    ids[:, 8:] = variant.astype(">u8").view(np.uint8).reshape(count, 8)
    return ids


def prediction_batch(
    ids: IdColumn,
    predicted_at: Any,
    score: Any,
    features: Mapping[str, Any] | None = None,
    slices: Mapping[str, Any] | None = None,
    *,
    entity_id: Any | None = None,
    acted_on: Any | None = None,
) -> bytes:
    """One Arrow IPC stream of predictions.

    Args:
        ids: see `IdColumn`.
        predicted_at: instants, as in `prediction_ids`.
        score: probability, or value for a regression; shape (n,).
        features: name -> column of shape (n,): numbers (NaN or None means missing), or strings for a category.
        slices: name -> column of shape (n,) of strings, as `country`: parts of the data to look at by themselves; None
            is in no part.
        entity_id: whose each prediction is, as text or as a hash of your making; None is nobody's. Kept only to find it
            again when it must be erased.
        acted_on: whether somebody acted upon the score, so that the outcome may be of the action's making; None is
            unknown.
    Raises:
        ValueError: columns differ in length, or an id is not 16 bytes.
    """
    columns: dict[str, pa.Array] = {
        "prediction_id": _ids(ids),
        "predicted_at": _timestamps(predicted_at),
        "score": _numbers(score),
    }
    for name, values in (features or {}).items():
        columns[_FEATURE_PREFIX + name] = _feature(values)
    for name, values in (slices or {}).items():
        columns[_SLICE_PREFIX + name] = pa.array(values, type=pa.string())
    if entity_id is not None:
        columns["entity_id"] = pa.array(entity_id, type=pa.string())
    if acted_on is not None:
        columns["acted_on"] = pa.array(acted_on, type=pa.bool_())
    return _stream(columns)


def outcome_batch(
    ids: IdColumn, observed_at: Any, value: Any, revision: Any | None = None, *, imputed: Any | None = None
) -> bytes:
    """One Arrow IPC stream of outcomes.

    Args:
        ids: of the predictions, see `IdColumn`.
        observed_at: when each label became known.
        value: the label; 0 or 1 for a binary task; shape (n,).
        revision: integers; a higher one replaces an earlier outcome of the same prediction. None is 0.
        imputed: whether each value was guessed rather than observed; any observed one replaces it. None is observed.
    Raises:
        ValueError: columns differ in length, or an id is not 16 bytes.
    """
    columns: dict[str, pa.Array] = {
        "prediction_id": _ids(ids),
        "observed_at": _timestamps(observed_at),
        "value": _numbers(value),
    }
    if revision is not None:
        columns["revision"] = pa.array(np.asarray(revision), type=pa.int32())
    if imputed is not None:
        columns["imputed"] = pa.array(imputed, type=pa.bool_())
    return _stream(columns)


def _mix(seed: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood 2014): spreads consecutive keys over all bits."""
    with np.errstate(over="ignore"):
        z = seed + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def _ids(ids: IdColumn) -> pa.Array:
    if isinstance(ids, pa.Array | pa.ChunkedArray):
        return ids.cast(pa.binary(ID_BYTES))
    if isinstance(ids, np.ndarray):
        if ids.ndim != 2 or ids.shape[1] != ID_BYTES or ids.dtype != np.uint8:
            raise ValueError(
                f"ids has shape {ids.shape} and type {ids.dtype}: give (n, 16) of uint8, or a list of bytes"
            )
        flat = np.ascontiguousarray(ids)
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), len(flat), [None, pa.py_buffer(flat)])
    plain = [one.bytes if isinstance(one, uuid.UUID) else one for one in ids]
    for row, one in enumerate(plain):
        if len(one) != ID_BYTES:
            raise ValueError(f"ids[{row}] has {len(one)} bytes: an id is 16 bytes, best a UUIDv7")
    return pa.array(plain, type=pa.binary(ID_BYTES))


def _timestamps(values: Any) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(TIMESTAMP)
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return pa.array(values.astype("datetime64[us]")).cast(TIMESTAMP)
    plain = list(values)
    for row, instant in enumerate(plain):
        if instant is not None and instant.tzinfo is None:
            raise ValueError(f"the time in row {row} has no time zone: write datetime(..., tzinfo=UTC)")
    return pa.array(plain, type=TIMESTAMP)


def _numbers(values: Any) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(pa.float64())
    return pa.array(np.asarray(values, dtype=np.float64))


def _feature(values: Any) -> pa.Array:
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_null(column.type) or pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        return column.cast(pa.float64())
    if pa.types.is_floating(column.type) and column.type != pa.float64():
        return column.cast(pa.float64())
    return column


def _stream(columns: Mapping[str, pa.Array]) -> bytes:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"columns differ in length: {listed}")
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
