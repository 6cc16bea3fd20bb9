"""The batch join: the authoritative partials, from the Parquet files alone, by DuckDB.

It knows nothing of the speed view and does the same work another way, in SQL: the first arrival of each prediction
and of each (outcome, revision), joined on all 128 bits, the highest revision inside the window. Its partials
*replace* those of the speed view for the hours it was asked for. Work is given in hours; only hours that are due
are joined, and an hour too large for memory is joined bucket by bucket, a few at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from duckdb.func import PythonUDFType

from control_plane.adapters.parquet.sealing import BUCKETS
from control_plane.app.fact_store import Orphan
from control_plane.core.ground_truth.batch import slice_in
from control_plane.core.ground_truth.ids import ID_BYTES, Int64s, hash_shares, id_columns
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, Rows, merge, partials_of

Side = Literal["prediction", "outcome"]

ROWS_AT_ONCE_MAX = 8_000_000
"""Rows joined at once, both sides together: about 1 GiB in the hash tables at worst, less in practice."""
MEMORY_LIMIT = "1GiB"
"""What DuckDB may use before it spills to the store's directory."""
ORPHANS_LISTED_MAX = 1_000
"""Orphans listed per job; all are counted."""
CHUNK_ROWS = 1_000_000
"""Joined rows summed up at once."""

_ROWS = """(
    SELECT * FROM read_parquet($files) SEMI JOIN {side}_hours USING (model_id, hour)
    WHERE hour BETWEEN $low AND $high AND bucket BETWEEN $first_bucket AND $last_bucket)"""
_REPEATED = f"""
CREATE OR REPLACE TEMP TABLE repeated AS
SELECT hash(prediction_id) AS hashed FROM {_ROWS} GROUP BY hashed HAVING count(*) > 1
"""  # noqa: S608 - constants only
"""Few ids come more than once. Finding them by hash is eight times cheaper than grouping all rows by id."""
_PREDICTIONS = f"""
CREATE OR REPLACE TEMP TABLE predictions AS
SELECT model_id, prediction_id, epoch_us(predicted_at) AS at_us, score, version, hour
FROM {_ROWS} ANTI JOIN repeated ON hashed = hash(prediction_id)
UNION ALL
SELECT model_id, prediction_id, arg_min(epoch_us(predicted_at), arrival), arg_min(score, arrival),
       arg_min(version, arrival), arg_min(hour, arrival)
FROM {_ROWS} SEMI JOIN repeated ON hashed = hash(prediction_id)
GROUP BY model_id, prediction_id
"""  # noqa: S608 - constants only
_OUTCOMES = f"""
CREATE OR REPLACE TEMP TABLE outcomes AS
SELECT model_id, label_type, hour, prediction_id, revision, epoch_us(observed_at) AS at_us, value, late
FROM {_ROWS} ANTI JOIN repeated ON hashed = hash(prediction_id)
UNION ALL
SELECT model_id, label_type, hour, prediction_id, revision, arg_min(epoch_us(observed_at), arrival),
       arg_min(value, arrival), arg_min(late, arrival)
FROM {_ROWS} SEMI JOIN repeated ON hashed = hash(prediction_id)
GROUP BY model_id, label_type, hour, prediction_id, revision
"""  # noqa: S608 - constants only
_OUTSIDE_SAMPLE = """
DELETE FROM {table} t USING hour_rates r
WHERE t.model_id = r.model_id AND t.hour = r.hour AND hash_share(t.prediction_id) >= r.rate
"""
_NO_PREDICTIONS = """
CREATE OR REPLACE TEMP TABLE predictions (
    model_id VARCHAR, prediction_id BLOB, at_us BIGINT, score DOUBLE, version INTEGER, "hour" INTEGER)
"""
_NO_OUTCOMES = """
CREATE OR REPLACE TEMP TABLE outcomes (
    model_id VARCHAR, label_type VARCHAR, "hour" INTEGER, prediction_id BLOB, revision INTEGER, at_us BIGINT,
    "value" DOUBLE, late BOOLEAN)
"""
_JOINED = """
WITH winners AS (
    SELECT o.model_id, o.label_type, o.prediction_id,
           arg_max({{'value': o.value, 'delay': o.at_us - p.at_us, 'late': o.late, 'imputed': o.revision < 0}},
                   o.revision)
               FILTER (WHERE o.at_us - p.at_us <= l.window_us) AS best
    FROM outcomes o
    JOIN predictions p ON p.model_id = o.model_id AND p.prediction_id = o.prediction_id
    JOIN labels l ON l.model_id = o.model_id AND l.label_type = o.label_type
    GROUP BY o.model_id, o.label_type, o.prediction_id)
SELECT l.position AS label, p.hour AS hour, p.version AS version, p.score AS score,
       w.best.value AS value, coalesce(w.best.delay, 0) AS delay_us, coalesce(w.best.late, false) AS late,
       coalesce(w.best.imputed, false) AS imputed,
       w.prediction_id IS NOT NULL AND w.best IS NULL AS outside{columns}
FROM predictions p
JOIN labels l ON l.model_id = p.model_id
JOIN due d ON d.model_id = p.model_id AND d.hour = p.hour{joins}
LEFT JOIN winners w
    ON w.model_id = p.model_id AND w.label_type = l.label_type AND w.prediction_id = p.prediction_id
"""
_SLICED = """
CREATE OR REPLACE TEMP TABLE sliced AS
SELECT * FROM (SELECT model_id, prediction_id, unnest(string_split(slices, chr(31))) AS slice FROM (
    SELECT model_id, prediction_id, arg_min(slices, arrival) AS slices
    FROM read_parquet($files) SEMI JOIN due USING (model_id, hour)
    WHERE hour BETWEEN $low AND $high AND bucket BETWEEN $first_bucket AND $last_bucket
    GROUP BY model_id, prediction_id))
WHERE slice <> ''
"""
_ALL = _JOINED.format(columns="", joins="")
_BY_SLICE = _JOINED.format(
    columns=", s.slice AS slice",
    joins="\nJOIN sliced s ON s.model_id = p.model_id AND s.prediction_id = p.prediction_id",
)
_ORPHANS = """
CREATE OR REPLACE TEMP TABLE orphans AS
SELECT o.model_id, o.label_type, o.hour, o.prediction_id, max(o.revision) AS revision,
       arg_max(o.at_us, o.revision) AS at_us, arg_max(o.value, o.revision) AS value
FROM outcomes o SEMI JOIN due USING (model_id, hour)
ANTI JOIN predictions p ON p.model_id = o.model_id AND p.prediction_id = o.prediction_id
GROUP BY ALL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Hours to join. All pairs are (model id, hour)."""

    due: tuple[tuple[str, int], ...]
    """Hours whose partials are wanted."""
    prediction_hours: tuple[tuple[str, int], ...]
    """Hours of predictions that could meet the outcomes, the due ones among them."""
    outcome_hours: tuple[tuple[str, int], ...]
    """Hours in ids of outcomes that could meet the predictions."""
    prediction_files: tuple[str, ...]
    outcome_files: tuple[str, ...]
    labels: tuple[tuple[str, LabelSpec], ...]
    """(model id, label); every model of `due` at least once."""
    mature_before: dict[str, int]
    """By label position as `model_id/label_type`: hours before this one are mature."""
    rows: int
    """About how many rows there are to join."""
    sliced_files: tuple[str, ...] = ()
    """Of the prediction files, those with slices."""
    slices: dict[str, frozenset[str]] = field(default_factory=dict)
    """Model id -> slices that are counted by themselves; others as `<name>=other`."""
    rates: tuple[tuple[str, int, float], ...] = ()
    """(model id, hour, rate) of hours of which only ids with a share below the rate count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a job found. Hours of `due` that are in none of these hold nothing."""

    partials: dict[tuple[str, str, int], dict[int, Partial]]
    """(model id, label type, hour) -> partials by version."""
    orphans: dict[tuple[str, str, int], int]
    """(model id, label type, hour in id) -> distinct ids."""
    listed: tuple[Orphan, ...]
    slice_partials: "SlicePartials" = field(default_factory=dict)


SlicePartials = dict[tuple[str, str, int], dict[tuple[str, int], Partial]]
"""(model id, label type, hour) -> partials by (slice, version)."""


class BatchJoin:
    """Runs jobs on a DuckDB connection of its own; one job at a time."""

    def __init__(self, spill_directory: Path, *, threads: int = 1, rows_at_once_max: int = ROWS_AT_ONCE_MAX) -> None:
        self._rows_at_once_max = rows_at_once_max
        self._db = duckdb.connect(
            ":memory:",
            config={
                "threads": threads,
                "memory_limit": MEMORY_LIMIT,
                "temp_directory": str(spill_directory),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._db.create_function("hash_share", _hash_share, ["BLOB"], "DOUBLE", type=PythonUDFType.ARROW)

    def close(self) -> None:
        """Let go of the connection."""
        self._db.close()

    def interrupt(self) -> None:
        """Make the job that runs in another thread fail soon."""
        self._db.interrupt()

    def run(self, job: Job) -> JobResult:
        """Join the hours of a job. Reads files, writes nothing."""
        try:
            return self._run(job)
        except BaseException:
            self._db.abort()  # a result half read would block the connection
            raise

    def _run(self, job: Job) -> JobResult:
        for name, pairs in (
            ("due", job.due),
            ("prediction_hours", job.prediction_hours),
            ("outcome_hours", job.outcome_hours),
        ):
            self._db.register(name, _pairs(pairs))
        self._db.register("labels", _labels(job.labels))
        self._db.register("hour_rates", _rates(job.rates))
        partials: dict[tuple[str, str, int], dict[int, Partial]] = {}
        slice_partials: SlicePartials = {}
        orphans: dict[tuple[str, str, int], int] = {}
        listed: list[Orphan] = []
        shares = min(BUCKETS, max(1, -(-job.rows // self._rows_at_once_max)))
        for share in range(shares):
            self._load("prediction", job, shares, share)
            self._load("outcome", job, shares, share)
            reader: pa.RecordBatchReader = self._db.sql(_ALL).to_arrow_reader(CHUNK_ROWS)
            for chunk in reader:
                _sum_up(job, chunk, partials)
            if job.sliced_files:
                self._db.execute(_SLICED, _range(job.sliced_files, job.due, shares, share))
                reader = self._db.sql(_BY_SLICE).to_arrow_reader(CHUNK_ROWS)
                for chunk in reader:
                    _sum_up_slices(job, chunk, slice_partials)
            self._collect_orphans(orphans, listed)
        self._db.execute(
            "DROP TABLE predictions; DROP TABLE outcomes; DROP TABLE orphans; DROP TABLE IF EXISTS repeated; "
            "DROP TABLE IF EXISTS sliced"
        )
        return JobResult(partials=partials, orphans=orphans, listed=tuple(listed), slice_partials=slice_partials)

    def _load(self, side: Side, job: Job, shares: int, share: int) -> None:
        """One side's distinct rows of a share of the buckets, as a table."""
        files, hours = (
            (job.prediction_files, job.prediction_hours)
            if side == "prediction"
            else (job.outcome_files, job.outcome_hours)
        )
        if not files or not hours:
            self._db.execute(_NO_PREDICTIONS if side == "prediction" else _NO_OUTCOMES)
            return
        rows = _range(files, hours, shares, share)
        for statement in (_REPEATED, _PREDICTIONS if side == "prediction" else _OUTCOMES):
            self._db.execute(statement.format(side=side), rows)
        if job.rates:
            self._db.execute(_OUTSIDE_SAMPLE.format(table=f"{side}s"))

    def _collect_orphans(self, orphans: dict[tuple[str, str, int], int], listed: list[Orphan]) -> None:
        self._db.execute(_ORPHANS)
        for model_id, label_type, hour, count in self._db.execute(
            "SELECT model_id, label_type, hour, count(*) FROM orphans GROUP BY ALL"
        ).fetchall():
            key = (str(model_id), str(label_type), int(hour))
            orphans[key] = orphans.get(key, 0) + int(count)
        for row in self._db.execute(
            "SELECT model_id, label_type, hour, prediction_id, at_us, value, revision FROM orphans LIMIT ?",
            [max(0, ORPHANS_LISTED_MAX - len(listed))],
        ).fetchall():
            listed.append(
                Orphan(
                    model_id=row[0],
                    label_type=row[1],
                    hour=row[2],
                    prediction_id=bytes(row[3]),
                    observed_us=row[4],
                    value=row[5],
                    revision=row[6],
                )
            )


def _range(
    files: Sequence[str], hours: Sequence[tuple[str, int]], shares: int, share: int
) -> dict[str, list[str] | int]:
    """What to read: files, hours from lowest to highest, and a share of the buckets."""
    numbers = [hour for _, hour in hours]
    return {
        "files": list(files),
        "low": min(numbers),
        "high": max(numbers),
        "first_bucket": share * BUCKETS // shares,
        "last_bucket": (share + 1) * BUCKETS // shares - 1,
    }


def _pairs(pairs: Sequence[tuple[str, int]]) -> pa.Table:
    return pa.table(
        {
            "model_id": pa.array([model_id for model_id, _ in pairs], pa.string()),
            "hour": pa.array([hour for _, hour in pairs], pa.int32()),
        }
    )


def _rates(rates: Sequence[tuple[str, int, float]]) -> pa.Table:
    return pa.table(
        {
            "model_id": pa.array([model_id for model_id, _, _ in rates], pa.string()),
            "hour": pa.array([hour for _, hour, _ in rates], pa.int32()),
            "rate": pa.array([rate for _, _, rate in rates], pa.float64()),
        }
    )


def _hash_share(ids: pa.ChunkedArray) -> pa.Array:
    """The hash by which ids are sampled, of 16-byte ids."""
    column = ids.cast(pa.binary(ID_BYTES))
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    raw = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * ID_BYTES :][: len(column) * ID_BYTES]
    return pa.array(hash_shares(id_columns(raw.reshape(-1, ID_BYTES))))


def _labels(labels: Sequence[tuple[str, LabelSpec]]) -> pa.Table:
    return pa.table(
        {
            "position": pa.array(range(len(labels)), pa.int32()),
            "model_id": pa.array([model_id for model_id, _ in labels], pa.string()),
            "label_type": pa.array([spec.label_type for _, spec in labels], pa.string()),
            "window_us": pa.array([spec.window_us for _, spec in labels], pa.int64()),
        }
    )


def _sum_up(job: Job, chunk: pa.RecordBatch, into: dict[tuple[str, str, int], dict[int, Partial]]) -> None:
    """Add the partials of a chunk of joined rows."""
    label: Int64s = _column(chunk, "label").astype(np.int64)
    for position in np.unique(label):
        model_id, spec = job.labels[position]
        rows = chunk.filter(pa.array(label == position))
        hour, version = _column(rows, "hour").astype(np.int64), _column(rows, "version").astype(np.int64)
        packed, group = np.unique(hour << 32 | version, return_inverse=True)
        summed = partials_of(spec, _rows(job, model_id, spec, rows, hour, group.astype(np.int64)), len(packed))
        for key, partial in zip(packed.tolist(), summed, strict=True):
            version_of = key & 0xFFFFFFFF
            versions = into.setdefault((model_id, spec.label_type, key >> 32), {})
            versions[version_of] = merge([versions[version_of], partial]) if version_of in versions else partial


def _sum_up_slices(job: Job, chunk: pa.RecordBatch, into: SlicePartials) -> None:
    """Likewise by slice; a prediction is in one row for each of its slices."""
    label: Int64s = _column(chunk, "label").astype(np.int64)
    for position in np.unique(label):
        model_id, spec = job.labels[position]
        rows = chunk.filter(pa.array(label == position))
        hour, version = _column(rows, "hour").astype(np.int64), _column(rows, "version").astype(np.int64)
        encoded = rows.column("slice").dictionary_encode()
        known = job.slices.get(model_id, frozenset())
        names = [slice_in(known, name) for name in encoded.dictionary.to_pylist()]
        distinct = sorted(set(names))
        place = np.array([distinct.index(name) for name in names], np.int64)
        which = place[encoded.indices.to_numpy(zero_copy_only=False)]
        keys, group = np.unique(np.stack([hour, version, which]), axis=1, return_inverse=True)
        found = _rows(job, model_id, spec, rows, hour, group.reshape(-1).astype(np.int64))
        for (hour_of, version_of, at), partial in zip(
            keys.T.tolist(), partials_of(spec, found, keys.shape[1]), strict=True
        ):
            slices = into.setdefault((model_id, spec.label_type, hour_of), {})
            key = (distinct[at], version_of)
            slices[key] = merge([slices[key], partial]) if key in slices else partial


def _rows(job: Job, model_id: str, spec: LabelSpec, rows: pa.RecordBatch, hour: Int64s, group: Int64s) -> Rows:
    return Rows(
        group=group,
        score=_column(rows, "score"),
        value=rows.column("value").to_numpy(zero_copy_only=False),  # null becomes NaN: no outcome
        delay_us=_column(rows, "delay_us").astype(np.int64),
        late=_column(rows, "late"),
        outside=_column(rows, "outside"),
        mature=hour < job.mature_before[f"{model_id}/{spec.label_type}"],
        imputed=_column(rows, "imputed"),
    )


def _column(rows: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    column: npt.NDArray[Any] = rows.column(name).to_numpy(zero_copy_only=False)
    return column
