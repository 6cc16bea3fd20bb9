"""The batch join: the authoritative partials, from the Parquet files alone, by DuckDB.

It knows nothing of the speed view and does the same work another way, in SQL: the first arrival of each prediction
and of each (outcome, revision), joined on all 128 bits, the highest revision inside the window. Its partials
*replace* those of the speed view for the hours it was asked for. Work is given in hours; only hours that are due
are joined, and an hour too large for memory is joined bucket by bucket, a few at once.

How a share of the rows is joined, with what it costs in mind:
1. The rows of each side are read once, with a 64-bit hash of each id beside it.
2. Few ids come more than once. Which, sorting the hashes tells; only their rows are looked at one by one, and all but
   the row that counts are deleted.
3. One full outer join on hash and id gives joined predictions, those without outcome, and orphans.
4. Joined rows are summed up by `joined_rows`, a few hundred thousand at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from duckdb.func import PythonUDFType

from control_plane.adapters.parquet.joined_rows import JoinedRows, Summed
from control_plane.adapters.parquet.sealing import BUCKETS
from control_plane.app.fact_reports import Orphan
from control_plane.core.ground_truth.ids import ID_BYTES, hash_shares, id_columns
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial

ROWS_AT_ONCE_MAX = 4_000_000
"""Rows joined at once, both sides together: half a GiB in the hash tables at worst, less in practice."""
MEMORY_LIMIT = "640MiB"
"""What DuckDB may use before it spills to the store's directory."""
ORPHANS_LISTED_MAX = 1_000
"""Orphans listed per job; all are counted."""
CHUNK_ROWS = 262_144
"""Joined rows summed up at once."""

_FILES = "read_parquet($files, hive_partitioning = false, union_by_name = {by_name}) f"
_WHERE = """f.hour BETWEEN $first_hour AND $last_hour AND f.model_id BETWEEN $first_model AND $last_model{share}"""
_SHARE = " AND bucket BETWEEN $first_bucket AND $last_bucket"
_PREDICTIONS = f"""
CREATE OR REPLACE TEMP TABLE predictions AS
SELECT k.model, k.due, prediction_id, hash(prediction_id) AS h, epoch_us(predicted_at) AS at_us, score, version, f.hour,
       arrival{{slices}}
FROM {_FILES} JOIN prediction_hours k ON k.model_id = f.model_id AND k.hour = f.hour
WHERE {_WHERE}
"""  # noqa: S608 - constants only
_OUTCOMES = f"""
CREATE OR REPLACE TEMP TABLE outcomes AS
SELECT l.position, k.model, k.due, prediction_id, hash(hash(prediction_id), l.position) AS h,
       epoch_us(observed_at) AS at_us, value, revision, late, f.hour, arrival
FROM {_FILES} JOIN outcome_hours k ON k.model_id = f.model_id AND k.hour = f.hour
JOIN labels l ON l.model = k.model AND l.label_type = f.label_type
WHERE {_WHERE}
"""  # noqa: S608 - constants only
_NO_PREDICTIONS = """
CREATE OR REPLACE TEMP TABLE predictions (
    model INTEGER, due BOOLEAN, prediction_id BLOB, h UBIGINT, at_us BIGINT, score DOUBLE, version INTEGER,
    "hour" INTEGER, arrival BIGINT, slices VARCHAR)
"""
_NO_OUTCOMES = """
CREATE OR REPLACE TEMP TABLE outcomes (
    "position" INTEGER, model INTEGER, due BOOLEAN, prediction_id BLOB, h UBIGINT, at_us BIGINT, "value" DOUBLE,
    revision INTEGER, late BOOLEAN, "hour" INTEGER, arrival BIGINT)
"""
_OUTSIDE_SAMPLE = """
DELETE FROM {table} t USING hour_rates r
WHERE t.model = r.model AND t.hour = r.hour AND hash_share(t.prediction_id) >= r.rate
"""
_REPEATED_PREDICTIONS = """
DELETE FROM predictions WHERE rowid IN (SELECT row_at FROM (
    SELECT p.rowid AS row_at, row_number() OVER (PARTITION BY model, prediction_id ORDER BY arrival) AS place
    FROM predictions p SEMI JOIN repeated USING (h)) WHERE place > 1)
"""
"""The first arrival of a prediction counts."""
_REPEATED_OUTCOMES = """
DELETE FROM outcomes WHERE rowid IN (SELECT row_at FROM (
    SELECT o.row_at, o.again, row_number() OVER (
        PARTITION BY o.position, o.prediction_id
        ORDER BY o.again, coalesce(o.at_us - p.at_us <= l.window_us, false) DESC, o.revision DESC) AS place
    FROM (SELECT o.rowid AS row_at, o.*, row_number() OVER (
              PARTITION BY o.position, prediction_id, revision ORDER BY arrival) > 1 AS again
          FROM outcomes o SEMI JOIN repeated USING (h)) o
    JOIN labels l ON l.position = o.position
    LEFT JOIN predictions p ON p.model = o.model AND p.prediction_id = o.prediction_id) WHERE place > 1)
"""
"""Of each revision the first arrival; of these the highest inside the window, or any if none is."""
_JOINED = """
SELECT coalesce(p.position, -1) AS label, coalesce(p.hour, 0) AS hour, coalesce(p.version, 0) AS version,
       coalesce(p.score, 0) AS score, o.value AS value, coalesce(o.at_us - p.at_us, 0) AS delay_us,
       coalesce(o.late, false) AS late, coalesce(o.revision < 0, false) AS imputed,
       CASE WHEN p.position IS NULL THEN o.row_at ELSE -1 END AS orphan{columns}
FROM (SELECT p.*, l.position, hash(p.h, l.position) AS key{slice}
      FROM predictions p JOIN labels l ON l.model = p.model AND l.rank = $rank{slices}) p
{side} JOIN (
    SELECT o.*, o.rowid AS row_at FROM outcomes o JOIN labels l ON l.position = o.position AND l.rank = $rank) o
    ON p.key = o.h AND p.prediction_id = o.prediction_id
WHERE coalesce(p.due, o.due)
"""
_ALL = _JOINED.format(columns="", slice="", slices="", side="FULL OUTER")
_BY_SLICE = _JOINED.format(
    columns=", p.slice AS slice",
    slice=", s.slice",
    slices=""" JOIN (
          SELECT q.rowid AS of, unnest(string_split(q.slices, chr(31))) AS slice
          FROM predictions q WHERE q.due AND q.slices <> '') s ON s.of = p.rowid AND s.slice <> ''""",
    side="LEFT",
)
_ORPHANS = """
CREATE OR REPLACE TEMP TABLE orphans AS
SELECT l.model_id, l.label_type, o.hour, prediction_id, at_us, value, revision
FROM outcomes o JOIN labels l ON l.position = o.position WHERE o.rowid IN (SELECT row_at FROM orphan_rows)
"""
_DROP = """
DROP TABLE predictions; DROP TABLE outcomes; DROP TABLE IF EXISTS orphans
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


SlicePartials = dict[tuple[str, str, int], dict[tuple[str, int], Partial]]
"""(model id, label type, hour) -> partials by (slice, version)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a job found. Hours of `due` that are in none of these hold nothing."""

    partials: dict[tuple[str, str, int], dict[int, Partial]]
    """(model id, label type, hour) -> partials by version."""
    orphans: dict[tuple[str, str, int], int]
    """(model id, label type, hour in id) -> distinct ids."""
    listed: tuple[Orphan, ...]
    slice_partials: SlicePartials = field(default_factory=dict)


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
        models = {model_id: at for at, model_id in enumerate(sorted({model_id for model_id, _ in job.labels}))}
        due = set(job.due)
        self._db.register("prediction_hours", _hours(job.prediction_hours, models, due))
        self._db.register("outcome_hours", _hours(job.outcome_hours, models, due))
        self._db.register("labels", _labels(job.labels, models))
        self._db.register("hour_rates", _rates(job.rates, models))
        ranks = max(len(list(found)) for _, found in groupby(sorted(model_id for model_id, _ in job.labels)))
        summed = Summed(job.labels, job.mature_before, job.slices)
        orphans: dict[tuple[str, str, int], int] = {}
        listed: list[Orphan] = []
        shares = min(BUCKETS, max(1, -(-job.rows // self._rows_at_once_max)))
        for share in range(shares):
            self._load_predictions(job, shares, share)
            self._load_outcomes(job, shares, share)
            lost: list[npt.NDArray[np.int64]] = []
            for rank in range(ranks):
                reader: pa.RecordBatchReader = self._db.sql(_ALL, params={"rank": rank}).to_arrow_reader(CHUNK_ROWS)
                for chunk in reader:
                    lost.append(summed.add(JoinedRows.read(chunk)))
                if job.sliced_files:
                    reader = self._db.sql(_BY_SLICE, params={"rank": rank}).to_arrow_reader(CHUNK_ROWS)
                    for chunk in reader:
                        summed.add_slices(JoinedRows.read(chunk), chunk.column("slice"))
            self._collect_orphans(np.concatenate([np.zeros(0, np.int64), *lost]), orphans, listed)
            self._db.execute(_DROP)
        return JobResult(
            partials=summed.partials, orphans=orphans, listed=tuple(listed), slice_partials=summed.slice_partials
        )

    def _load_predictions(self, job: Job, shares: int, share: int) -> None:
        """The distinct predictions of a share of the buckets, as a table."""
        if not job.prediction_files or not job.prediction_hours:
            self._db.execute(_NO_PREDICTIONS)
            return
        statement = _PREDICTIONS.format(
            slices=", slices" if job.sliced_files else "",
            by_name=str(bool(job.sliced_files)).lower(),
            share=_SHARE if shares > 1 else "",
        )
        self._db.execute(statement, _range(job.prediction_files, job.prediction_hours, shares, share))
        if job.rates:
            self._db.execute(_OUTSIDE_SAMPLE.format(table="predictions"))
        self._drop_repeated("predictions", _REPEATED_PREDICTIONS)

    def _load_outcomes(self, job: Job, shares: int, share: int) -> None:
        """The outcomes that count, of a share of the buckets, as a table; one for each label and id."""
        if not job.outcome_files or not job.outcome_hours:
            self._db.execute(_NO_OUTCOMES)
            return
        statement = _OUTCOMES.format(by_name="false", share=_SHARE if shares > 1 else "")
        self._db.execute(statement, _range(job.outcome_files, job.outcome_hours, shares, share))
        if job.rates:
            self._db.execute(_OUTSIDE_SAMPLE.format(table="outcomes"))
        self._drop_repeated("outcomes", _REPEATED_OUTCOMES)

    def _drop_repeated(self, table: str, statement: str) -> None:
        """Rows of ids that come more than once, but for the one that counts. Sorting the hashes is ten times cheaper
        than grouping the rows by id."""
        hashes = np.sort(self._db.sql(f"SELECT h FROM {table}").fetchnumpy()["h"])  # noqa: S608 - a constant
        repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if len(repeated):
            self._db.register("repeated", pa.table({"h": repeated}))
            self._db.execute(statement)
            self._db.unregister("repeated")

    def _collect_orphans(
        self, rows: npt.NDArray[np.int64], orphans: dict[tuple[str, str, int], int], listed: list[Orphan]
    ) -> None:
        """Count outcomes without prediction, and list some."""
        if not len(rows):
            return
        self._db.register("orphan_rows", pa.table({"row_at": rows}))
        self._db.execute(_ORPHANS)
        self._db.unregister("orphan_rows")
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
) -> dict[str, list[str] | int | str]:
    """What to read: files, models and hours from lowest to highest, and a share of the buckets. Row groups outside are
    skipped by their statistics."""
    numbers = [hour for _, hour in hours]
    names = [model_id for model_id, _ in hours]
    found: dict[str, list[str] | int | str] = {
        "files": list(files),
        "first_hour": min(numbers),
        "last_hour": max(numbers),
        "first_model": min(names),
        "last_model": max(names),
    }
    if shares > 1:
        found["first_bucket"] = share * BUCKETS // shares
        found["last_bucket"] = (share + 1) * BUCKETS // shares - 1
    return found


def _hours(pairs: Sequence[tuple[str, int]], models: dict[str, int], due: set[tuple[str, int]]) -> pa.Table:
    return pa.table(
        {
            "model_id": pa.array([model_id for model_id, _ in pairs], pa.string()),
            "hour": pa.array([hour for _, hour in pairs], pa.int32()),
            "model": pa.array([models[model_id] for model_id, _ in pairs], pa.int32()),
            "due": pa.array([pair in due for pair in pairs], pa.bool_()),
        }
    )


def _rates(rates: Sequence[tuple[str, int, float]], models: dict[str, int]) -> pa.Table:
    return pa.table(
        {
            "model": pa.array([models[model_id] for model_id, _, _ in rates], pa.int32()),
            "hour": pa.array([hour for _, hour, _ in rates], pa.int32()),
            "rate": pa.array([rate for _, _, rate in rates], pa.float64()),
        }
    )


def _labels(labels: Sequence[tuple[str, LabelSpec]], models: dict[str, int]) -> pa.Table:
    """`rank` numbers the labels of a model: those of one rank are joined together, so that an id is joined once."""
    ranks: dict[str, int] = {}
    rank = []
    for model_id, _ in labels:
        ranks[model_id] = ranks.get(model_id, -1) + 1
        rank.append(ranks[model_id])
    return pa.table(
        {
            "position": pa.array(range(len(labels)), pa.int32()),
            "model": pa.array([models[model_id] for model_id, _ in labels], pa.int32()),
            "model_id": pa.array([model_id for model_id, _ in labels], pa.string()),
            "rank": pa.array(rank, pa.int32()),
            "label_type": pa.array([spec.label_type for _, spec in labels], pa.string()),
            "window_us": pa.array([spec.window_us for _, spec in labels], pa.int64()),
        }
    )


def _hash_share(ids: pa.ChunkedArray) -> pa.Array:
    """The hash by which ids are sampled, of 16-byte ids."""
    column = ids.cast(pa.binary(ID_BYTES))
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    raw = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * ID_BYTES :][: len(column) * ID_BYTES]
    return pa.array(hash_shares(id_columns(raw.reshape(-1, ID_BYTES))))
