"""From segments to Parquet: the same rows, by day, ordered by model and prediction hour.

A file holds the rows of a few segments and one day; the catalogue knows which model's hours are in it, and rows are
ordered by model, hour and, where there are many, bucket, so that a reader of some skips the row groups of the others.
File names follow from the segments' numbers alone: a conversion cut short by a crash is done again over the same names.

Features are kept apart, by model, together with all that a profile counts: they are read only to count anew.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from control_plane.adapters.parquet.catalog import FileEntry
from control_plane.adapters.parquet.segments import Record
from control_plane.adapters.parquet.tables import Place, TableFile
from control_plane.core.ground_truth.batch import (
    ENTITY_COLUMN,
    FEATURE_PREFIX,
    OutcomeBatch,
    PredictionBatch,
    read_outcomes,
    read_predictions,
)
from control_plane.core.ground_truth.hours import late_outcomes
from control_plane.core.ground_truth.ids import (
    MICROSECONDS_PER_HOUR,
    NO_HOUR,
    Int64s,
    hash_buckets,
    id_hours,
)
from control_plane.core.ground_truth.tables import TableKind

ROW_GROUP_ROWS = 262_144
"""Rows per row group: 8 MB of bare predictions; the unit that a reader of one hour skips."""
BUCKETS = 256
"""Buckets of an hour, by a hash of the id's random bits, the same for both sides: two billion rows an hour can be
joined eight million at a time."""
RUN_ROWS_MIN, RUNS_SPARE = 256, 1024
"""Runs of rows shorter than this on average are copied together before they are written."""
DAYS_MAX = 64
"""Days that one conversion makes files for. A batch of nonsense instants must not make thousands: rows of the days with
the fewest rows go to the file of `OTHER_DAY`; readers go by hour."""
HOURS_PER_DAY = 24
SLICES_COLUMN = "slices"
"""Of predictions that came with slices: `country=US` and the like, all of a row in one text."""
SLICES_SEPARATOR = "\x1f"
"""Between the slices of a row; validation lets no such character in."""
_INSTANT = pa.timestamp("us", tz="UTC")
_TEXT = pa.dictionary(pa.int32(), pa.string())
_PLAIN_COLUMNS = ("prediction_id", "predicted_at", "observed_at", "score", "value", "arrival", "late")
"""Columns in which hardly two rows agree: a dictionary would only cost."""
_RANDOM_COLUMNS = ("prediction_id", "score")
"""Compressing these saves a fifteenth of a file and costs a third of the time of writing and a fifth of reading it."""
HOURS_AHEAD_MAX = 366 * HOURS_PER_DAY
"""An outcome of a prediction that is to be made so much later goes to the day it was observed."""
_CLIMBING_COLUMNS = ("predicted_at", "observed_at", "arrival")
"""Differences from row to row are small."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one record, ready to be written."""

    model_id: str
    table: pa.Table
    hours: Int64s
    days: Int64s
    """Since 1970."""
    buckets: npt.NDArray[np.uint8]
    in_ids: Int64s
    features: pa.Table | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a conversion wrote: files of the tables, and what the catalogue is to know of all files."""

    files: dict[TableKind, list[TableFile]]
    entries: list[FileEntry]


def seal(place: Place, records: Sequence[tuple[int, Sequence[Record]]], *, features_only: bool = False) -> Sealed:
    """Write the Parquet files of some segments durably; neither tables nor catalogue know them yet.

    Args:
        records: number and all records of each segment, in order.
        features_only: another engine writes the tables.
    """
    parts: dict[TableKind, list[_Part]] = {"predictions": [], "outcomes": []}
    for segment, found in records:
        arrival = segment << 32
        for record in found:
            if not record.head.rows:
                continue  # none of its rows is inside the sample
            if record.head.kind == "predictions":
                parts["predictions"].append(_prediction_part(read_predictions(record.ipc), record, arrival))
            else:
                parts["outcomes"].append(_outcome_part(read_outcomes(record.ipc), record, arrival))
            arrival += record.head.rows
    name = f"{records[0][0]:010d}-{records[-1][0]:010d}"
    sealed = Sealed({}, [])
    for kind, of_kind in parts.items() if not features_only else ():
        for file, entry in _write_days(place, kind, name, of_kind):
            sealed.files.setdefault(kind, []).append(file)
            sealed.entries.append(entry)
    sealed.entries.extend(_write_features(place, name, parts["predictions"]))
    return sealed


def _prediction_part(batch: PredictionBatch, record: Record, arrival: int) -> _Part:
    hours = batch.predicted_us // MICROSECONDS_PER_HOUR
    buckets = hash_buckets(batch.ids, BUCKETS).astype(np.uint8)
    columns = {
        "prediction_id": _ids(batch.table),
        "predicted_at": pa.array(batch.predicted_us).cast(_INSTANT),
        "score": pa.array(batch.score),
        "version": pa.array(np.full(batch.rows, record.head.version, np.int32)),
        **_shared(record, hours, buckets, arrival),
        SLICES_COLUMN: join_slices(batch.slices) if batch.slices else pa.nulls(batch.rows, _TEXT),
    }
    with_features = None
    if batch.features:
        features = {f"{FEATURE_PREFIX}{name}": column for name, column in sorted(batch.features.items())}
        with_features = pa.table(columns | features)
    columns[ENTITY_COLUMN] = batch.entity if batch.entity is not None else pa.nulls(batch.rows, pa.string())
    return _Part(
        record.head.model_id,
        pa.table(columns),
        hours,
        hours // HOURS_PER_DAY,
        buckets,
        id_hours(batch.ids),
        with_features,
    )


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
    seen = batch.observed_us // MICROSECONDS_PER_HOUR
    # A broken id may carry any time up to the year 10889, of which there is no partition.
    days = np.where((hours == NO_HOUR) | (hours > seen + HOURS_AHEAD_MAX), seen, hours) // HOURS_PER_DAY
    return _Part(record.head.model_id, pa.table(columns), hours, days, buckets, hours)


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


def _shared(record: Record, hours: Int64s, buckets: npt.NDArray[np.uint8], arrival: int) -> dict[str, pa.Array]:
    rows = len(hours)
    return {
        "model_id": _repeated(record.head.model_id, rows),
        "hour": pa.array(hours.astype(np.int32)),
        "bucket": pa.array(buckets.astype(np.int16)),
        "arrival": pa.array(np.arange(arrival, arrival + rows, dtype=np.int64)),
        "source": _repeated(record.head.source, rows),
    }


def _repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([text]))


def _ids(table: pa.Table) -> pa.ChunkedArray:
    """The ids as plain bytes, whatever extension type they came as."""
    return table.column("prediction_id").cast(pa.binary(16))


def _write_days(place: Place, kind: TableKind, name: str, parts: list[_Part]) -> Iterator[tuple[TableFile, FileEntry]]:
    """A file for each day, through which the rows of all models go, in order."""
    if not parts:
        return
    days = _kept_days(parts)
    for day in sorted(days):
        chosen = [(part, _rows_of(part, day, days)) for part in parts]
        some = [(part, at) for part, at in chosen if at is None or len(at)]
        if not some:
            continue
        table, entry_rows, pairs = _ordered(some)
        last_day = max(int((part.days if at is None else part.days[at]).max()) for part, at in some)
        path = f"{kind}/day={_date(day).isoformat()}/{name}.parquet"
        size = place.write(path, table, parquet_options(table))
        file = TableFile(path=path.partition("/")[2], day=_date(day), rows=table.num_rows, size=size)
        yield (
            file,
            FileEntry(
                kind=kind,
                path=path,
                rows=entry_rows,
                hours_in_ids=frozenset(pairs) if kind == "predictions" else frozenset(),
                sliced=kind == "predictions" and table.column(SLICES_COLUMN).null_count < table.num_rows,
                size=size,
                last_hour=last_day * HOURS_PER_DAY + HOURS_PER_DAY - 1,
            ),
        )


def _kept_days(parts: Sequence[_Part]) -> frozenset[int]:
    """Days that get a file of their own, and that of all others if there are more."""
    found: Counter[int] = Counter()
    for part in parts:
        low, high = int(part.days.min()), int(part.days.max())
        if low == high:
            found[low] += len(part.days)
        else:
            for day, rows in zip(*np.unique(part.days, return_counts=True), strict=True):
                found[int(day)] += int(rows)
    if len(found) <= DAYS_MAX:
        return frozenset(found)
    largest = sorted(found, key=lambda day: (-found[day], day))[: DAYS_MAX - 1]
    return frozenset({*largest, 0})


def _rows_of(part: _Part, day: int, days: frozenset[int]) -> Int64s | None:
    """Positions of a part's rows that go into a day's file; None for all of them."""
    low, high = int(part.days.min()), int(part.days.max())
    if low == high == day:
        return None
    inside = part.days == day
    if day == 0:
        inside |= ~np.isin(part.days, np.fromiter(days, np.int64))
    return np.flatnonzero(inside)


def _ordered(
    some: list[tuple[_Part, Int64s | None]],
) -> tuple[pa.Table, dict[tuple[str, int], int], set[tuple[str, int, int]]]:
    """The rows by model and hour; rows by (model, hour); and (model, hour in id, hour)."""
    rows: Counter[tuple[str, int]] = Counter()
    pairs: set[tuple[str, int, int]] = set()
    runs: list[_Run] = []
    for part, at in some:
        hours, in_ids = (part.hours, part.in_ids) if at is None else (part.hours[at], part.in_ids[at])
        for (in_id, hour), count in _pairs(in_ids, hours).items():
            rows[(part.model_id, hour)] += count
            pairs.add((part.model_id, in_id, hour))
        runs += _runs(part, at, hours)
    runs.sort(key=lambda run: run.key)  # stable: in order of arrival within an hour
    if len(runs) > RUNS_SPARE + sum(rows.values()) // RUN_ROWS_MIN:
        return _by_key(runs), dict(rows), pairs
    tables = []
    for _, group in itertools.groupby(runs, key=lambda run: run.key):
        tables += _by_bucket(list(group))
    return _joined(tables), dict(rows), pairs


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows of one record and one hour, in order of arrival."""

    key: tuple[str, int]
    """Model id and hour."""
    table: pa.Table
    buckets: npt.NDArray[np.uint8]


def _runs(part: _Part, at: Int64s | None, hours: Int64s) -> list[_Run]:
    """A part's rows (those of `at`, if given) cut by hour. Predictions of a batch are nearly always of one: no copy."""
    low = int(hours.min())
    if low == int(hours.max()):
        table, buckets = (part.table, part.buckets) if at is None else (part.table.take(at), part.buckets[at])
        return [_Run((part.model_id, low), table, buckets)]
    offset = hours - low
    # 16-bit keys are sorted by radix, ten times faster than wider ones.
    order = np.argsort(offset.astype(np.uint16) if offset.max() < 2**16 else offset, kind="stable")
    places = order if at is None else at[order]
    table, buckets, hours = part.table.take(places), part.buckets[places], hours[order]
    cuts = [0, *(np.flatnonzero(hours[1:] != hours[:-1]) + 1).tolist(), len(hours)]
    return [
        _Run((part.model_id, int(hours[first])), table.slice(first, last - first), buckets[first:last])
        for first, last in itertools.pairwise(cuts)
    ]


def _by_bucket(runs: list[_Run]) -> list[pa.Table]:
    """An hour of a model that fills row groups is ordered by bucket, so that a reader of some buckets skips others."""
    if sum(len(run.buckets) for run in runs) < ROW_GROUP_ROWS:
        return [run.table for run in runs]
    table = _joined([run.table for run in runs])
    return [table.take(np.argsort(np.concatenate([run.buckets for run in runs]), kind="stable"))]


def _by_key(runs: list[_Run]) -> pa.Table:
    """Many short runs are cheaper to copy row by row than to hold as chunks; they come ordered."""
    return _joined([run.table for run in runs]).combine_chunks()


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="default").unify_dictionaries()


def _pairs(in_ids: Int64s, hours: Int64s) -> Counter[tuple[int, int]]:
    """Count pairs; nearly always there is one, and no need to sort."""
    if (in_ids == in_ids[0]).all() and (hours == hours[0]).all():
        return Counter({(int(in_ids[0]), int(hours[0])): len(hours)})
    packed, counts = np.unique((in_ids + 1) << 32 | (hours + 1), return_counts=True)
    mask = (1 << 32) - 1
    return Counter({((int(p) >> 32) - 1, (int(p) & mask) - 1): int(n) for p, n in zip(packed, counts, strict=True)})


def parquet_options(table: pa.Table) -> dict[str, object]:
    """How a table of rows is written: random bits as they are, the rest compressed, statistics for whoever skips."""
    columns: list[str] = table.column_names
    return {
        "row_group_size": ROW_GROUP_ROWS,
        "compression": {name: "none" if name in _RANDOM_COLUMNS else "zstd" for name in columns},
        "compression_level": {name: 1 for name in columns if name not in _RANDOM_COLUMNS},
        "use_dictionary": [name for name in columns if name not in _PLAIN_COLUMNS],
        "column_encoding": {name: "DELTA_BINARY_PACKED" for name in columns if name in _CLIMBING_COLUMNS},
        "write_statistics": ["hour", "bucket", "model_id"],
    }


def _write_features(place: Place, name: str, parts: Sequence[_Part]) -> Iterator[FileEntry]:
    """A file for each model and set of features."""
    groups: dict[tuple[str, pa.Schema], list[_Part]] = {}
    for part in parts:
        if part.features is not None:
            groups.setdefault((part.model_id, part.features.schema), []).append(part)
    for at, ((model_id, _), found) in enumerate(groups.items()):
        table = pa.concat_tables([part.features for part in found]).unify_dictionaries()
        path = f"features/model_id={model_id}/{name}-{at}.parquet"
        size = place.write(path, table, parquet_options(table))
        rows: Counter[tuple[str, int]] = Counter()
        for part in found:
            for (_, hour), count in _pairs(part.in_ids, part.hours).items():
                rows[(model_id, hour)] += count
        yield FileEntry(
            kind="features",
            path=path,
            rows=dict(rows),
            hours_in_ids=frozenset(),
            sliced=False,
            size=size,
        )


def _date(day: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date()
