"""Parquet files of facts as the Arrow batches that senders make: columns as others write them, in bounded parts.

What other programs write differs in small ways that lose nothing: timestamps in nanoseconds, ids as plain binary or as
text, whole numbers for scores. These are taken; what could be read in two ways (a timestamp without a zone) is not.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.ground_truth.batch import ROWS_MAX, as_ipc

PART_BYTES_MAX = 64 * 2**20
"""Bytes of a part in memory, as the file itself estimates them."""
ID_BYTES = 16
_INSTANT = pa.timestamp("us", tz="UTC")


def parquet_batches(file: Any, kind: str) -> Iterator[bytes]:
    """The rows of a file as Arrow IPC streams; the same file always makes the same parts. Closes the file.

    Raises:
        Invalid(INVALID_BATCH): it is not a Parquet file, or a column cannot be taken for what it is named.
    """
    with file:
        try:
            parquet = pq.ParquetFile(file)
            rows = parquet.metadata.num_rows
            size = sum(parquet.metadata.row_group(n).total_byte_size for n in range(parquet.num_row_groups))
            part_rows = max(1_024, min(ROWS_MAX, PART_BYTES_MAX * rows // max(size, 1)))
            start = 0
            for batch in parquet.iter_batches(batch_size=part_rows):
                if batch.num_rows:
                    yield as_ipc(_taken(pa.table(batch), kind, start))
                start += batch.num_rows
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise _refused("file", "parquet", f"not a Parquet file that can be read: {text}") from error


def _taken(table: pa.Table, kind: str, start: int) -> pa.Table:
    """Columns under their names, in the types that a batch has; others as they are, to be refused by the batch."""
    for name in table.column_names:
        found = table.column(name)
        wanted = _wanted(name, found, kind, start)
        if wanted is not found:
            table = table.set_column(table.column_names.index(name), name, wanted)
    return table.replace_schema_metadata(None)


def _wanted(name: str, column: pa.ChunkedArray, kind: str, start: int) -> pa.ChunkedArray:
    found = column.type
    if name == "prediction_id":
        return _ids(column, start)
    if name in ("predicted_at", "observed_at") and pa.types.is_timestamp(found) and found.tz and found != _INSTANT:
        return column.cast(_INSTANT, safe=False)
    if name in ("score", "value") and (pa.types.is_integer(found) or pa.types.is_floating(found)):
        return column.cast(pa.float64(), safe=False)
    if name in ("value", "score") and pa.types.is_boolean(found):
        return column.cast(pa.int8()).cast(pa.float64())
    if name == "revision" and pa.types.is_integer(found) and found != pa.int32():
        return column.cast(pa.int32())
    return column


def _ids(column: pa.ChunkedArray, start: int) -> pa.ChunkedArray:
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        short = pc.not_equal(pc.binary_length(column), ID_BYTES).fill_null(False)
        if pc.any(short).as_py():
            row = start + int(pc.index(short, True).as_py())
            raise _refused("prediction_id", "type", f"row {row}: an id has 16 bytes")
        return column.cast(pa.binary()).cast(pa.binary(ID_BYTES))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pa.chunked_array([pa.array(_of_text(column.to_pylist(), start), pa.binary(ID_BYTES))])
    return column


def _of_text(texts: list[str | None], start: int) -> list[bytes | None]:
    ids: list[bytes | None] = []
    for row, text in enumerate(texts):
        try:
            ids.append(None if text is None else uuid.UUID(text).bytes)
        except ValueError as error:
            raise _refused("prediction_id", "type", f"row {start + row}: {str(text)[:40]!r} is not a UUID") from error
    return ids


def _refused(field: str, rule: str, message: str) -> Invalid:
    return Invalid(Reason.INVALID_BATCH, Violation(field=field, rule=rule, message=message))
