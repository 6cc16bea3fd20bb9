"""From segments to Parquet: the same rows, by model and ordered by prediction hour.

File names follow from the segment's number alone, so that a conversion cut short by a crash is simply done again
over the same names. A file holds one model's rows of one segment; the catalogue knows which hours are in it, and
rows are ordered by hour and bucket, so that a reader of some skips the row groups of the others.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from control_plane.adapters.parquet.catalog import FileEntry
from control_plane.adapters.parquet.segments import Record, sync_directory
from control_plane.core.ground_truth.batch import OutcomeBatch, PredictionBatch, read_outcomes, read_predictions
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, Int64s, hash_buckets, id_hours
from control_plane.core.ground_truth.speed import late_outcomes

ROW_GROUP_ROWS = 262_144
"""Rows per row group: 8 MB of bare predictions; the unit that a reader of one hour skips."""
BUCKETS = 256
"""Buckets of an hour, by a hash of the id's random bits, the same for both sides: two billion rows an hour can be
joined eight million at a time."""
SLICES_COLUMN = "slices"
"""Of predictions that came with slices: `country=US` and the like, all of a row in one text."""
SLICES_SEPARATOR = "\x1f"
"""Between the slices of a row; validation lets no such character in."""
_INSTANT = pa.timestamp("us", tz="UTC")
_PLAIN_COLUMNS = ("prediction_id", "predicted_at", "observed_at", "score", "value", "arrival", "late")
"""Columns in which hardly two rows agree: a dictionary would only cost."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one record, ready to be written."""

    table: pa.Table
    hours: Int64s
    buckets: npt.NDArray[np.uint8]
    pairs: Counter[tuple[int, int]]
    """Rows by (hour in the id, hour of the partition)."""


def seal(root: Path, segment: int, records: Sequence[Record]) -> list[FileEntry]:
    """Write the Parquet files of a segment durably; the catalogue does not know them yet.

    Args:
        root: the store's directory; paths of the entries are relative to it.
        records: all records of the segment, in order.
    """
    parts: dict[tuple[str, str, pa.Schema], list[_Part]] = {}
    arrival = segment << 32
    for record in records:
        head = record.head
        if not head.rows:
            continue  # none of its rows is inside the sample
        if head.kind == "predictions":
            part = _prediction_part(read_predictions(record.ipc), record, arrival)
        else:
            part = _outcome_part(read_outcomes(record.ipc), record, arrival)
        parts.setdefault((head.kind, head.model_id, part.table.schema), []).append(part)
        arrival += head.rows
    entries = []
    for at, ((kind, model_id, _), found) in enumerate(parts.items()):
        path = Path(kind) / f"model_id={model_id}" / f"{segment:010d}-{at}.parquet"
        entries.append(_write(root, path, kind, model_id, found))
    for directory in sorted({root / entry.path for entry in entries}):
        sync_directory(directory.parent)
    return entries


def _prediction_part(batch: PredictionBatch, record: Record, arrival: int) -> _Part:
    hours = batch.predicted_us // MICROSECONDS_PER_HOUR
    buckets = hash_buckets(batch.ids, BUCKETS).astype(np.uint8)
    columns = {
        "prediction_id": _ids(batch.table),
        "predicted_at": pa.array(batch.predicted_us).cast(_INSTANT),
        "score": pa.array(batch.score),
        "version": pa.array(np.full(batch.rows, record.head.version, np.int32)),
        **_shared(record, hours, buckets, arrival),
        **({SLICES_COLUMN: join_slices(batch.slices)} if batch.slices else {}),
        **{f"feature.{name}": column for name, column in sorted(batch.features.items())},
    }
    return _Part(pa.table(columns), hours, buckets, _pairs(id_hours(batch.ids), hours))


def _outcome_part(batch: OutcomeBatch, record: Record, arrival: int) -> _Part:
    hours, late = late_outcomes(batch.ids, batch.observed_us, record.head.horizon)
    buckets = hash_buckets(batch.ids, BUCKETS).astype(np.uint8)
    columns = {
        "prediction_id": _ids(batch.table),
        "observed_at": pa.array(batch.observed_us).cast(_INSTANT),
        "value": pa.array(batch.value),
        "revision": pa.array(batch.revision),
        "label_type": _repeated(record.head.label_type, batch.rows),
        "late": pa.array(late),
        **_shared(record, hours, buckets, arrival),
    }
    return _Part(pa.table(columns), hours, buckets, _pairs(hours, hours))


def join_slices(slices: dict[str, pa.Array]) -> pa.Array:
    """One text a row: its slices with separators between them, nothing where it is in none of a name."""
    named = [
        pc.fill_null(pc.binary_join_element_wise(name, column, "="), "") for name, column in sorted(slices.items())
    ]
    return pc.dictionary_encode(pc.binary_join_element_wise(*named, SLICES_SEPARATOR))


def split_slices(column: pa.ChunkedArray) -> dict[str, pa.Array]:
    """The inverse of `join_slices`: values by name."""
    encoded = pc.dictionary_encode(column.cast(pa.string())).combine_chunks()
    texts = [dict(_named(text)) for text in encoded.dictionary.to_pylist()]
    names = sorted({name for text in texts for name in text})
    return {name: pa.array([text.get(name) for text in texts], pa.string()).take(encoded.indices) for name in names}


def _named(text: str) -> list[tuple[str, str]]:
    return [(one.partition("=")[0], one.partition("=")[2]) for one in text.split(SLICES_SEPARATOR) if one]


def _pairs(in_ids: Int64s, hours: Int64s) -> Counter[tuple[int, int]]:
    """Count pairs; nearly always there is one, and no need to sort."""
    if (in_ids == in_ids[0]).all() and (hours == hours[0]).all():
        return Counter({(int(in_ids[0]), int(hours[0])): len(hours)})
    packed, counts = np.unique((in_ids + 1) << 32 | (hours + 1), return_counts=True)
    mask = (1 << 32) - 1
    return Counter({((int(p) >> 32) - 1, (int(p) & mask) - 1): int(n) for p, n in zip(packed, counts, strict=True)})


def _shared(record: Record, hours: Int64s, buckets: npt.NDArray[np.uint8], arrival: int) -> dict[str, pa.Array]:
    rows = len(hours)
    return {
        "model_id": _repeated(record.head.model_id, rows),
        "hour": pa.array(hours.astype(np.int32)),
        "bucket": pa.array(buckets),
        "arrival": pa.array(np.arange(arrival, arrival + rows, dtype=np.int64)),
    }


def _repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([text]))


def _ids(table: pa.Table) -> pa.ChunkedArray:
    """The ids as plain bytes, whatever extension type they came as."""
    return table.column("prediction_id").cast(pa.binary(16))


def _order(hours: Int64s, buckets: npt.NDArray[np.uint8]) -> Int64s | None:
    """Rows by hour, and where a file has many, by bucket within the hour; None if they are in order."""
    if len(hours) <= ROW_GROUP_ROWS:
        return np.argsort(hours, kind="stable") if (hours[1:] < hours[:-1]).any() else None
    key = ((hours - hours.min()) << 8) | buckets
    # 16-bit keys are sorted by radix, ten times faster than wider ones; a file of more than 256 hours is rare.
    return np.argsort(key.astype(np.uint16) if key.max() < 2**16 else key, kind="stable")


def _write(root: Path, path: Path, kind: str, model_id: str, parts: list[_Part]) -> FileEntry:
    """Write the rows of one file, ordered by hour, through a draft."""
    table = pa.concat_tables([part.table for part in parts]).unify_dictionaries()
    hours = np.concatenate([part.hours for part in parts])
    pairs: Counter[tuple[int, int]] = Counter()
    for part in parts:
        pairs.update(part.pairs)
    order = _order(hours, np.concatenate([part.buckets for part in parts]))
    if order is not None:
        table = table.take(order)
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".draft")
    with draft.open("wb") as file:
        pq.write_table(
            table,
            file,
            row_group_size=ROW_GROUP_ROWS,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name in table.column_names if name not in _PLAIN_COLUMNS],
            write_statistics=["hour", "bucket"],
        )
        file.flush()
        os.fsync(file.fileno())
    draft.rename(target)
    rows_by_hour: Counter[int] = Counter()
    for (_, hour), rows in pairs.items():
        rows_by_hour[hour] += rows
    return FileEntry(
        kind=kind,
        model_id=model_id,
        path=str(path),
        rows_by_hour=dict(rows_by_hour),
        hours_in_ids=frozenset(pairs) if kind == "predictions" else frozenset(),
        sliced=SLICES_COLUMN in table.column_names,
    )
