"""Columns of a Parquet or CSV file, one at a time, as what drift is computed from: numbers, or categories.

Nothing is guessed silently: a column that is left out says why.
"""

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

Kind = Literal["numeric", "categorical"]

IDENTIFIER_ROWS_MIN = 100
"""In a shorter file, values that are all different may be chance."""
IDENTIFIER_SHARE = 0.98
"""Distinct values per row from which on text is an identifier: names of people are, cities are not."""
NUMBERS_SHARE_MIN = 0.99
"""Of text that is compared with numbers, so much must read as a number for it to be one."""
CSV_ENCODINGS = ("utf-8", "latin-1")
PARQUET_MAGIC = b"PAR1"


class TableError(Exception):
    """A file cannot be used; the message says what to do."""


class Left(NamedTuple):
    """A column that is left out, and why."""

    name: str
    why: str


class Table:
    """An open file. Columns are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: pa.Table | None = None
        self._parquet: pq.ParquetFile | None = None
        if not path.exists():
            raise TableError(f"there is no file {path}: give a Parquet or CSV file")
        if path.is_dir():
            raise TableError(f"{path} is a directory: give one Parquet or CSV file")
        if path.stat().st_size == 0:
            raise TableError(f"{path} is empty: give a file with a header and rows")
        with path.open("rb") as stream:
            parquet = stream.read(4) == PARQUET_MAGIC
        schema = self._open_parquet() if parquet else self._open_csv()
        names = schema.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TableError(f"{path} has the column {twice[0]!r} more than once: rename one of them")
        self.types: dict[str, pa.DataType] = dict(zip(names, schema.types, strict=True))
        if not self.rows:
            raise TableError(f"{path} has a header and no rows: there is nothing to compare")

    @property
    def rows(self) -> int:
        """How many there are."""
        if self._parquet is not None:
            return int(self._parquet.metadata.num_rows)
        assert self._whole is not None
        return int(self._whole.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column, decoded."""
        if self._parquet is not None:
            try:
                found = self._parquet.read(columns=[name], use_threads=False).column(0)
            except (pa.ArrowException, OSError) as error:
                raise TableError(f"{self.path} is damaged: column {name!r} cannot be read ({error})") from error
        else:
            assert self._whole is not None
            found = self._whole.column(name)
        return found.cast(found.type.value_type) if pa.types.is_dictionary(found.type) else found

    def close(self) -> None:
        """Let go of the file."""
        if self._parquet is not None:
            self._parquet.close()

    def _open_parquet(self) -> pa.Schema:
        try:
            self._parquet = pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"{self.path} begins like Parquet and is damaged: {error}") from error
        return self._parquet.schema_arrow

    def _open_csv(self) -> pa.Schema:
        failure: Exception | None = None
        for encoding in CSV_ENCODINGS:
            try:
                self._whole = self._read_csv(encoding)
                if pa.binary() not in self._whole.schema.types:
                    return self._whole.schema
                # Bytes that are no text in this encoding were read as they are.
                failure = failure or ValueError(f"it is no {encoding} text")
            except (pa.ArrowException, UnicodeDecodeError, OSError, EOFError) as error:
                failure = failure or error
        says = str(failure).splitlines()[0][:200]
        raise TableError(f"{self.path} is neither Parquet nor CSV that can be read: {says}") from failure

    def _read_csv(self, encoding: str) -> pa.Table:
        with self.path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(self.path) if packed else self.path.open("rb") as stream:
            return pyarrow.csv.read_csv(
                stream,
                read_options=pyarrow.csv.ReadOptions(encoding=encoding, use_threads=False),
                convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True),
            )


@contextmanager
def opened(path: Path) -> Iterator[Table]:
    """A table that is closed at the end."""
    table = Table(path)
    try:
        yield table
    finally:
        table.close()


def kind_of(name: str, then: pa.DataType, now: pa.DataType) -> Kind | Left:
    """What two columns of these types are compared as, else why they are not."""
    for one in (then, now):
        if pa.types.is_temporal(one):
            return Left(name, "it is a time")
        if pa.types.is_nested(one):
            return Left(name, "it holds lists or structures")
        if not (_numeric(one) or _textual(one) or pa.types.is_boolean(one) or pa.types.is_null(one)):
            return Left(name, f"nothing is known of columns of {one}")
    plain = {_class(then), _class(now)} - {"null"}
    if plain <= {"number"} and plain:
        return "numeric"
    if plain == {"number", "text"}:
        return "numeric"  # if the text reads as numbers; `numbers` finds out
    return "categorical"


def identifier(column: pa.ChunkedArray, kind: Kind) -> bool:
    """Is every value another one? Fractions always are; whole numbers and text are then a name of the row."""
    known = len(column) - column.null_count
    if known < IDENTIFIER_ROWS_MIN or (kind == "numeric" and not pa.types.is_integer(column.type)):
        return False
    if kind == "numeric":
        values = column.drop_null().to_numpy()
        first = values[:IDENTIFIER_ROWS_MIN]
        return len(np.unique(first)) == len(first) and len(np.unique(values)) == len(values)
    if not _textual(column.type):
        return False
    return bool(pc.count_distinct(column, mode="only_valid").as_py() >= IDENTIFIER_SHARE * known)


def numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64] | None:
    """The column as doubles, NaN where missing; None if it is text that does not read as numbers."""
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if _textual(column.type):
        return _parsed(column)
    if column.type != pa.float64():
        column = pc.cast(column, pa.float64(), safe=False)
    parts = [_doubles(chunk) for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0), *parts])


def _doubles(chunk: pa.Array) -> npt.NDArray[np.float64]:
    """Values of an array, NaN where missing, from its buffers: pyarrow's own conversion first imports pandas, if there
    is one, which takes longer than all that follows."""
    validity, data = chunk.buffers()
    values = np.frombuffer(data, np.float64)[chunk.offset : chunk.offset + len(chunk)] if data else np.empty(0)
    if not chunk.null_count:
        return values
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
    return np.where(bits[chunk.offset : chunk.offset + len(chunk)] != 0, values, np.nan)


def groups(column: pa.ChunkedArray) -> dict[object, int]:
    """How often each value comes; None is missing."""
    found = pc.value_counts(column)
    values, counts = found.field("values"), found.field("counts")
    return dict(zip(values.to_pylist(), counts.to_pylist(), strict=True))


def slices_of(column: pa.ChunkedArray, values_max: int) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The most frequent values, and which of them each row has; -1 for rarer ones and missing."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    at = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    counts = np.bincount(at[at >= 0], minlength=len(encoded.dictionary))
    order = np.argsort(-counts, kind="stable")[:values_max]
    place = np.full(len(counts) + 1, -1, np.int64)
    place[order] = np.arange(len(order))
    names = [encoded.dictionary[int(one)].as_py() for one in order]
    return names, place[at]


def _parsed(column: pa.ChunkedArray) -> npt.NDArray[np.float64] | None:
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    reads = pc.match_substring_regex(text, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^(?i:nan|[+-]?inf(inity)?)$")
    known = len(column) - column.null_count
    if known and int(pc.sum(reads).as_py() or 0) < NUMBERS_SHARE_MIN * known:
        return None
    kept = pc.if_else(reads, text, pa.scalar(None, pa.string()))
    return numbers(pc.cast(kept, pa.float64()))


def _class(one: pa.DataType) -> str:
    if pa.types.is_null(one):
        return "null"
    if _numeric(one):
        return "number"
    return "truth" if pa.types.is_boolean(one) else "text"


def _numeric(one: pa.DataType) -> bool:
    return bool(pa.types.is_integer(one) or pa.types.is_floating(one) or pa.types.is_decimal(one))


def _textual(one: pa.DataType) -> bool:
    plain = one.value_type if pa.types.is_dictionary(one) else one
    return bool(
        pa.types.is_string(plain) or pa.types.is_large_string(plain) or getattr(pa.types, "is_string_view", _no)(plain)
    )


def _no(_one: pa.DataType) -> bool:
    return False


def near(name: str, names: Sequence[str]) -> list[str]:
    """Names that somebody may have meant."""
    import difflib  # noqa: PLC0415 (only mistakes pay for it)

    return difflib.get_close_matches(name, names, n=3, cutoff=0.6)
