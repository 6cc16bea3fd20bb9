"""Opening a store: bring memory to where it was, from what is on disk.

1. Small things from the catalogue: labels, profiles' digests, horizons. What the tables hold and the catalogue does not
   know is entered.
2. Rows of hours that have not expired, from Parquet, oldest file first: the speed view.
3. Segments that are not Parquet yet, through the same `apply` as when they arrived. Segments that are (a crash
   between the catalogue's commit and the deletion) are deleted.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from control_plane.adapters.parquet.facts import Batch, Facts
from control_plane.adapters.parquet.reconciling import read_ids, reconcile
from control_plane.adapters.parquet.segments import Record, read_segment, recover_segment
from control_plane.core.ground_truth.batch import read_outcomes, read_predictions
from control_plane.core.ground_truth.ids import Int64s

_PREDICTIONS = ["prediction_id", "predicted_at", "score", "version", "hour"]
_OUTCOMES = ["prediction_id", "observed_at", "value", "revision", "label_type", "late", "hour"]


def recover(facts: Facts) -> None:
    """Fill memory; call once, before anything else.

    Raises:
        SegmentDamaged: acknowledged data does not read back.
    """
    facts.load()
    reconcile(facts)
    _reload_files(facts)
    sealed = facts.catalog.meta("sealed_segment")
    facts.log.start_after(sealed)
    numbers = facts.log.numbers()
    for number in numbers:
        path = facts.log.path(number)
        if number <= sealed:
            facts.log.delete(number)
            continue
        records = recover_segment(path) if number == numbers[-1] else list(read_segment(path))
        for record in records:
            facts.apply(number, record.head, parse(record))


def parse(record: Record) -> Batch | None:
    """The batch of a record; it was validated before it was stored. None if none of its rows was kept."""
    if not record.head.rows:
        return None
    return read_predictions(record.ipc) if record.head.kind == "predictions" else read_outcomes(record.ipc)


def _reload_files(facts: Facts) -> None:
    """Rows of live hours, in order of arrival."""
    for file_id, kind, path in facts.catalog.db.execute(
        "SELECT id, kind, path FROM files WHERE kind <> 'features' ORDER BY id"
    ).fetchall():
        models = _live_models(facts, file_id, kind)
        if not models:
            continue
        file = facts.tables.place.local(path)
        filters: list[tuple[str, str, object]] = [("model_id", "in", sorted(models))]
        if kind == "predictions":
            filters.append(("hour", ">=", min(models.values())))
        else:
            filters.append(("late", "=", False))
        columns = _PREDICTIONS if kind == "predictions" else _OUTCOMES
        table = pq.read_table(file, columns=[*columns, "model_id"], filters=filters, partitioning=None)
        names = pc.unique(table.column("model_id")).to_pylist()
        for model_id in names:
            rows = table if len(names) == 1 else table.filter(pc.equal(table.column("model_id"), model_id))
            if kind == "predictions":
                _reload_predictions(facts, model_id, rows)
            else:
                _reload_outcomes(facts, model_id, rows)


def _live_models(facts: Facts, file_id: int, kind: str) -> dict[str, int]:
    """Models of which a file may hold live rows, with their horizons."""
    found = {}
    for model_id, first, last in facts.catalog.db.execute(
        "SELECT model_id, min(hour), max(hour) FROM file_hours WHERE file_id = ? GROUP BY model_id", (file_id,)
    ):
        horizon = facts.speed.horizon(model_id)
        if last >= horizon or (kind == "outcomes" and first < 0):
            found[str(model_id)] = horizon
    return found


def _reload_predictions(facts: Facts, model_id: str, table: pa.Table) -> None:
    versions = table.column("version").to_numpy()
    for version in np.unique(versions):
        rows = table.filter(pa.array(versions == version))
        facts.speed.add_predictions(
            model_id,
            int(version),
            read_ids(rows),
            _instants(rows, "predicted_at"),
            rows.column("score").to_numpy(),
            tell_new=False,
        )


def _reload_outcomes(facts: Facts, model_id: str, table: pa.Table) -> None:
    for label_type in pc.unique(table.column("label_type")).to_pylist():
        rows = table.filter(pc.equal(table.column("label_type"), label_type))
        facts.speed.add_outcomes(
            model_id,
            label_type,
            read_ids(rows),
            _instants(rows, "observed_at"),
            rows.column("value").to_numpy(),
            rows.column("revision").to_numpy(),
        )


def _instants(rows: pa.Table, name: str) -> Int64s:
    instants: Int64s = rows.column(name).cast(pa.int64()).to_numpy()
    return instants
