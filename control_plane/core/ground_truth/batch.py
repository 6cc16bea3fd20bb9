"""Validation of Arrow batches: the whole batch is stored, or nothing of it.

All violations are collected before answering, up to a limit, each naming row and column. After validation the
columns are plain numpy arrays without nulls (but for feature columns, where null means missing).
"""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.ground_truth.ids import ID_BYTES, IdColumns, Int64s, id_columns
from control_plane.core.ground_truth.labels import LabelSpec

Float64s = npt.NDArray[np.float64]

ROWS_MAX = 1_048_576
"""Rows of one batch. 64 Ki rows already amortise everything; 1 Mi bounds the memory of one message (32 MB)."""
COLUMNS_MAX = 2_048
"""Columns of one batch: ten times the widest fleet we were asked for (200 features)."""
VIOLATIONS_MAX = 20
"""Violations reported per batch: enough to see the pattern, short enough for one error message."""
FEATURE_PREFIX = "feature."
SLICE_PREFIX = "slice."
SLICE_COLUMNS_MAX = 8
"""Ways to cut one model's data (country, device ...); every row is counted once more for each."""
SLICES_MAX = 64
"""Slices of one model: each is a set of histograms of its own. Values beyond it are counted together, as `other`."""
SLICE_CHARS_MAX = 100
"""Characters of a slice's name, and of its value: a label to read, not data."""
SKEW_MAX = timedelta(days=1)
"""A sender's clock may be ahead so far. Beyond it an instant is a mistake, not a clock: a date of next year, a unit."""
ENTITY_COLUMN = "entity_id"
ENTITY_CHARS_MAX = 200
ACTED_ON_COLUMN = "acted_on"
"""Somebody acted upon the score: kept as a slice, `acted_on=yes`, so that what the action made can be told apart."""
ACTED_ON = {True: "yes", False: "no"}
IMPUTED_COLUMN = "imputed"
IMPUTED_OFFSET = -(2**31)
"""Added to the revision of a guessed outcome: any observed one has a higher revision than all guesses."""
INSTANT_US_MAX = 7_258_118_400_000_000
"""2200-01-01: later instants are unit mistakes (nanoseconds sent as microseconds), and no sum may overflow."""

_UTC_NAMES = ("UTC", "+00:00", "Etc/UTC")


@dataclass(frozen=True, slots=True)
class PredictionBatch:
    """A valid batch of predictions; n rows."""

    ids: IdColumns
    predicted_us: Int64s
    score: Float64s
    features: dict[str, pa.Array]
    """By feature name without prefix: float64, or string for categories; null is missing."""
    table: pa.Table
    """The same, as it came: what is stored."""
    slices: dict[str, pa.Array] = dataclasses.field(default_factory=dict)
    """By slice name without prefix: string; a row with null belongs to no slice of that name."""
    entity: pa.Array | None = None
    """Whose prediction each is, string or null; None if the batch does not say."""

    @property
    def rows(self) -> int:
        """Number of predictions."""
        return len(self.score)


@dataclass(frozen=True, slots=True)
class OutcomeBatch:
    """A valid batch of outcomes; n rows."""

    ids: IdColumns
    observed_us: Int64s
    value: Float64s
    revision: npt.NDArray[np.int32]
    """Negative for a guessed outcome: its own less 2^31."""
    table: pa.Table

    @property
    def rows(self) -> int:
        """Number of outcomes."""
        return len(self.value)


class _Checks:
    """Collects violations of one batch."""

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def add(self, column: str, rule: str, message: str) -> None:
        """Note a violation unless there are enough already."""
        if len(self.found) < VIOLATIONS_MAX:
            self.found.append(Violation(field=column, rule=rule, message=message))

    def rows(self, column: str, bad: npt.NDArray[np.bool_], rule: str, says: str) -> None:
        """Note a violation for each row where `bad`."""
        for row in np.flatnonzero(bad)[:VIOLATIONS_MAX]:
            self.add(column, rule, f"row {row}: {says}")

    def raise_if_any(self) -> None:
        """Refuse the batch if anything was noted."""
        if self.found:
            raise Invalid(Reason.INVALID_BATCH, *self.found)


def read_predictions(ipc: bytes, spec: LabelSpec | None = None, latest_us: int = INSTANT_US_MAX) -> PredictionBatch:
    """Parse and validate a batch of predictions.

    Args:
        ipc: one Arrow IPC stream.
        spec: the model's label, if it was declared; a binary model's scores must then be probabilities.
        latest_us: the latest instant that is believed, in microseconds since 1970.
    Raises:
        Invalid: `INVALID_BATCH` with all violations found, at most `VIOLATIONS_MAX`.
    """
    table = _table(ipc)
    checks = _Checks()
    optional = (ENTITY_COLUMN, ACTED_ON_COLUMN)
    _check_columns(checks, table, ("prediction_id", "predicted_at", "score"), optional=optional, features=True)
    checks.raise_if_any()
    ids = _ids(checks, table)
    predicted_us = _instants(checks, table, "predicted_at", latest_us)
    score = _numbers(checks, table, "score")
    if spec is not None and spec.task == "binary":
        outside = np.isfinite(score) & ((score < 0) | (score > 1))
        checks.rows("score", outside, "probability", "a binary model's score must lie in [0, 1]")
    features = {
        name.removeprefix(FEATURE_PREFIX): _feature(checks, table, name)
        for name in table.column_names
        if name.startswith(FEATURE_PREFIX)
    }
    slices = {
        name.removeprefix(SLICE_PREFIX): _slice(checks, table, name)
        for name in table.column_names
        if name.startswith(SLICE_PREFIX)
    }
    if ACTED_ON_COLUMN in table.column_names:
        if ACTED_ON_COLUMN in slices:
            checks.add(ACTED_ON_COLUMN, "duplicate_column", "send acted_on or slice.acted_on, not both")
        slices[ACTED_ON_COLUMN] = _acted_on(table)
    if len(slices) > SLICE_COLUMNS_MAX:
        checks.add("slice", "slice_columns_max", f"{len(slices)} slice columns, at most {SLICE_COLUMNS_MAX}")
    entity = _entity(checks, table) if ENTITY_COLUMN in table.column_names else None
    checks.raise_if_any()
    return PredictionBatch(ids, predicted_us, score, features, table, slices, entity)


def read_outcomes(ipc: bytes, spec: LabelSpec | None = None, latest_us: int = INSTANT_US_MAX) -> OutcomeBatch:
    """Parse and validate a batch of outcomes; see `read_predictions`. A binary label's values must be 0 or 1."""
    table = _table(ipc)
    checks = _Checks()
    optional = ("revision", IMPUTED_COLUMN)
    _check_columns(checks, table, ("prediction_id", "observed_at", "value"), optional=optional, features=False)
    checks.raise_if_any()
    ids = _ids(checks, table)
    observed_us = _instants(checks, table, "observed_at", latest_us)
    value = _numbers(checks, table, "value")
    if spec is not None and spec.task == "binary":
        checks.rows("value", np.isfinite(value) & (value != 0) & (value != 1), "binary", "a binary outcome is 0 or 1")
    revision = _imputed(checks, table, _revisions(checks, table))
    checks.raise_if_any()
    return OutcomeBatch(ids, observed_us, value, revision, table)


def as_ipc(table: pa.Table) -> bytes:
    """A table as one Arrow IPC stream, the inverse of reading it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _table(ipc: bytes) -> pa.Table:
    """Read one IPC stream whole. Every way in which bytes can fail to be Arrow becomes one answer."""
    try:
        with pa.ipc.open_stream(pa.py_buffer(ipc)) as reader:
            batches = []
            rows = 0
            for batch in reader:
                rows += batch.num_rows
                if rows > ROWS_MAX:
                    break
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
        if rows <= ROWS_MAX:
            table.validate(full=True)
        _decode_texts(table.schema)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, EOFError) as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise _refused("arrow_ipc", "arrow", f"not one Arrow IPC stream: {text}") from error
    if rows > ROWS_MAX:
        raise _refused("arrow_ipc", "rows_max", f"more than {ROWS_MAX:,} rows: send smaller batches")
    if rows == 0:
        raise _refused("arrow_ipc", "rows_min", "the batch has no rows")
    if table.num_columns > COLUMNS_MAX:
        raise _refused("arrow_ipc", "columns_max", f"more than {COLUMNS_MAX:,} columns")
    return table.combine_chunks()


def _decode_texts(schema: pa.Schema) -> None:
    """Arrow decodes names and time zones only when they are looked at: fail now if they are not UTF-8."""
    for field in schema:
        _ = field.name, str(field.type)
        if pa.types.is_timestamp(field.type):
            _ = field.type.tz


def _refused(field: str, rule: str, message: str) -> Invalid:
    return Invalid(Reason.INVALID_BATCH, Violation(field=field, rule=rule, message=message))


def _check_columns(
    checks: _Checks, table: pa.Table, required: tuple[str, ...], *, optional: tuple[str, ...], features: bool
) -> None:
    """Which columns there are, and their types."""
    names = table.column_names
    for name in sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else ():
        checks.add(name, "duplicate_column", "the column is there more than once")
    for name in required:
        if name not in names:
            checks.add(name, "required_column", "the column is missing")
    for field in table.schema:
        if field.name in required or field.name in optional:
            wanted = _wanted_type(field.name)
            if not _is_type(field.name, field.type):
                checks.add(field.name, "type", f"the type is {field.type}, send {wanted}")
        elif features and field.name.startswith(SLICE_PREFIX) and len(field.name) > len(SLICE_PREFIX):
            if not (_is_text(field.type) or (pa.types.is_dictionary(field.type) and _is_text(field.type.value_type))):
                checks.add(field.name, "type", f"the type is {field.type}, send string")
        elif not (features and field.name.startswith(FEATURE_PREFIX) and len(field.name) > len(FEATURE_PREFIX)):
            known = (*required, *optional, *(("feature.<name>", "slice.<name>") if features else ()))
            checks.add(field.name, "unknown_column", f"unknown column, known are {', '.join(known)}")
        elif not _is_feature_type(field.type):
            checks.add(field.name, "type", f"the type is {field.type}, send float64 or string")


def _wanted_type(name: str) -> str:
    return {
        "prediction_id": "fixed_size_binary[16]",
        "predicted_at": "timestamp[us, tz=UTC]",
        "observed_at": "timestamp[us, tz=UTC]",
        "revision": "int32",
        ENTITY_COLUMN: "string",
        ACTED_ON_COLUMN: "bool",
        IMPUTED_COLUMN: "bool",
    }.get(name, "float64")


def _is_type(name: str, kind: pa.DataType) -> bool:
    match name:
        case "prediction_id":
            storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
            return bool(pa.types.is_fixed_size_binary(storage) and storage.byte_width == ID_BYTES)
        case "predicted_at" | "observed_at":
            return bool(pa.types.is_timestamp(kind) and kind.unit == "us" and kind.tz in _UTC_NAMES)
        case "revision":
            return bool(kind == pa.int32())
        case "acted_on" | "imputed":
            return bool(kind == pa.bool_())
        case "entity_id":
            return _is_text(kind)
        case _:
            return bool(kind == pa.float64())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_feature_type(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(_is_text(kind) or pa.types.is_integer(kind) or kind in (pa.float64(), pa.float32()))


def _column(table: pa.Table, name: str) -> pa.Array:
    """The one chunk of a column."""
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _check_nulls(checks: _Checks, column: pa.Array, name: str) -> bool:
    """True if there are none."""
    if column.null_count == 0:
        return True
    checks.rows(name, column.is_null().to_numpy(zero_copy_only=False), "null", "null is not allowed here")
    return False


def _ids(checks: _Checks, table: pa.Table) -> IdColumns:
    column = _column(table, "prediction_id")
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if not _check_nulls(checks, column, "prediction_id"):
        return id_columns(np.zeros((len(column), ID_BYTES), np.uint8))
    raw = np.frombuffer(column.buffers()[1], np.uint8)
    start = column.offset * ID_BYTES
    return id_columns(raw[start : start + len(column) * ID_BYTES].reshape(-1, ID_BYTES))


def _instants(checks: _Checks, table: pa.Table, name: str, latest_us: int) -> Int64s:
    column = _column(table, name)
    if not _check_nulls(checks, column, name):
        return np.zeros(len(column), np.int64)
    instants: Int64s = column.view(pa.int64()).to_numpy()
    outside = (instants < 0) | (instants > INSTANT_US_MAX)
    checks.rows(name, outside, "instant", "not between 1970 and 2200")
    if latest_us < INSTANT_US_MAX:
        latest = datetime.fromtimestamp(latest_us // 1_000_000, UTC)
        says = f"in the future: later than {latest:%Y-%m-%d %H:%M:%S} UTC, a day from now; see to the clock or the unit"
        checks.rows(name, (instants > latest_us) & ~outside, "future", says)
    return instants


def _numbers(checks: _Checks, table: pa.Table, name: str) -> Float64s:
    column = _column(table, name)
    if not _check_nulls(checks, column, name):
        return np.zeros(len(column), np.float64)
    numbers: Float64s = column.to_numpy()
    checks.rows(name, ~np.isfinite(numbers), "finite", "NaN or infinite")
    return numbers


def _revisions(checks: _Checks, table: pa.Table) -> npt.NDArray[np.int32]:
    if "revision" not in table.column_names:
        return np.zeros(table.num_rows, np.int32)
    column = _column(table, "revision")
    if not _check_nulls(checks, column, "revision"):
        return np.zeros(len(column), np.int32)
    revisions: npt.NDArray[np.int32] = column.to_numpy()
    checks.rows("revision", revisions < 0, "revision", "a revision is 0 or more")
    return revisions


def _imputed(checks: _Checks, table: pa.Table, revisions: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Revisions with those of guesses below all others."""
    if IMPUTED_COLUMN not in table.column_names:
        return revisions
    column = _column(table, IMPUTED_COLUMN)
    if not _check_nulls(checks, column, IMPUTED_COLUMN):
        return revisions
    guessed = column.to_numpy(zero_copy_only=False)
    return np.where(guessed, revisions.astype(np.int64) + IMPUTED_OFFSET, revisions).astype(np.int32)


def _acted_on(table: pa.Table) -> pa.Array:
    """The flag as a slice; a row with null belongs to neither."""
    return pc.if_else(_column(table, ACTED_ON_COLUMN), ACTED_ON[True], ACTED_ON[False])


def _entity(checks: _Checks, table: pa.Table) -> pa.Array:
    column = _column(table, ENTITY_COLUMN).cast(pa.string())
    too_long = pc.greater(pc.utf8_length(column), ENTITY_CHARS_MAX).fill_null(False).to_numpy(zero_copy_only=False)
    checks.rows(ENTITY_COLUMN, too_long, "max_len", f"more than {ENTITY_CHARS_MAX} characters: send a hash of it")
    return column


def _feature(checks: _Checks, table: pa.Table, name: str) -> pa.Array:
    """A feature as float64 or string. Null is missing; NaN is a mistake of the sender, not a missing value."""
    column = _column(table, name)
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if pa.types.is_string(kind):
        return column
    numbers = column if kind == pa.float64() else column.cast(pa.float64(), safe=False)
    values = numbers.to_numpy(zero_copy_only=False)  # null becomes NaN
    bad = ~np.isfinite(values)
    if np.count_nonzero(bad) > numbers.null_count:
        if numbers.null_count:
            bad &= numbers.is_valid().to_numpy(zero_copy_only=False)
        checks.rows(name, bad, "finite", "NaN or infinite; a missing value is null")
    return numbers


def _slice(checks: _Checks, table: pa.Table, name: str) -> pa.Array:
    """Slice values as string. Name and values are shown as `name=value`, so both are kept short and plain."""
    column = _column(table, name).cast(pa.string())
    if fault := slice_fault(name.removeprefix(SLICE_PREFIX)) or ("=" in name and "holds `=`"):
        checks.add(name, "slice_name", f"the name {fault}")
    values = pc.unique(column).to_pylist()
    for value in [value for value in values if value is not None and slice_fault(value)][:VIOLATIONS_MAX]:
        checks.add(name, "slice_value", f"{value[:SLICE_CHARS_MAX]!r}: the value {slice_fault(value)}")
    return column


def slice_fault(text: str) -> str:
    """What is wrong with the name or the value of a slice; empty if nothing is."""
    if not text:
        return "is empty: send null for rows that belong to no slice"
    if len(text) > SLICE_CHARS_MAX:
        return f"has {len(text)} characters, at most {SLICE_CHARS_MAX}"
    if not text.isprintable():
        return "holds characters that cannot be printed"
    return ""


def slice_in(known: "set[str] | frozenset[str]", name: str) -> str:
    """The slice that one is counted in: itself if it is known, else the rest of its kind.

    >>> slice_in({"country=US"}, "country=NZ")
    'country=other'
    """
    return name if name in known else f"{name.partition('=')[0]}=other"
