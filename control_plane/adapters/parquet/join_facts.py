"""A look at ids themselves, where coverage is low: which hashes have outcomes, and what is wrong with those of orphans.

Nothing of this is kept: only who asks why truth is missing needs it, and then a few hundred thousand ids of some of the
hours say as much as all. Files are read outside of the facts' lock; one that is compacted away meanwhile is left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from control_plane.adapters.parquet.facts import Facts
from control_plane.core.ground_truth.ids import (
    ID_BYTES,
    NO_HOUR,
    IdColumns,
    Int64s,
    hash_shares,
    id_columns,
    id_hours,
)
from control_plane.core.ground_truth.missing import SHARE_CELLS, IdFacts

ROWS_MAX = 400_000
"""Predictions looked at: a quarter of a second, and a standard error of a thousandth."""
HOURS_MAX = 168
Ids = npt.NDArray[np.uint8]
"""Shape (n, 16)."""
CHANGES = {
    "their bytes are in reverse order": np.arange(16)[::-1],
    "their first three fields are little-endian, as some databases and Windows store them": np.array(
        [3, 2, 1, 0, 5, 4, 7, 6, *range(8, 16)]
    ),
    "their two halves are swapped": np.array([*range(8, 16), *range(8)]),
    "each half is little-endian": np.array([*range(8)[::-1], *range(8, 16)[::-1]]),
}
"""What happens to ids on the way, as a permutation that undoes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdQuestion:
    """Which files to look into; made under the facts' lock."""

    model_id: str
    label_type: str
    prediction_hours: tuple[int, ...]
    outcome_hours: tuple[int, ...]
    prediction_files: tuple[Path, ...]
    outcome_files: tuple[Path, ...]


def ask_ids(facts: Facts, model_id: str, label_type: str, hours: Sequence[int]) -> IdQuestion:
    """Choose hours, evenly spread, and their files; hold the facts' lock.

    Args:
        hours: mature hours with predictions, ascending.
    """
    sizes = {
        int(hour): int(rows)
        for hour, rows in facts.catalog.db.execute(
            "SELECT hour, sum(rows) FROM file_hours WHERE model_id = ? AND kind = 'predictions' GROUP BY hour",
            (model_id,),
        )
    }
    some = [hour for hour in hours if hour in sizes]
    wanted = min(len(some), HOURS_MAX)
    spread = [some[at * len(some) // wanted] for at in range(wanted)]
    chosen: list[int] = []
    rows = 0
    # From both ends and the middle outwards would be no fairer: a stride keeps every time of day and the newest hour.
    step = max(1, -(-sum(sizes[hour] for hour in spread) // ROWS_MAX))
    for hour in reversed(spread[::-1][::step]):
        chosen.append(hour)
        rows += sizes[hour]
    in_ids = {in_id for hour in chosen for in_id in facts.catalog.hours_in_ids(model_id, hour)}
    near: set[int] = set()
    if chosen:
        near = {
            int(row[0])
            for row in facts.catalog.db.execute(
                "SELECT DISTINCT hour FROM orphan_hours WHERE model_id = ? AND label_type = ? AND hour NOT IN "
                "(SELECT hour FROM file_hours WHERE model_id = ? AND kind = 'predictions') LIMIT ?",
                (model_id, label_type, model_id, HOURS_MAX),
            )
        }
    outcome_hours = sorted({*chosen, *in_ids, *near, NO_HOUR})
    local = facts.tables.place.local
    return IdQuestion(
        model_id=model_id,
        label_type=label_type,
        prediction_hours=tuple(chosen),
        outcome_hours=tuple(outcome_hours),
        prediction_files=tuple(local(path) for path, _ in facts.catalog.files_of(model_id, "predictions", chosen)),
        outcome_files=tuple(local(path) for path, _ in facts.catalog.files_of(model_id, "outcomes", outcome_hours)),
    )


def look_at_ids(asked: IdQuestion) -> IdFacts | None:
    """Read the ids and compare them; None if there is nothing to read. Without the facts' lock."""
    predictions = _read(asked, asked.prediction_files, asked.prediction_hours, label_type="")
    if predictions is None or not predictions.num_rows:
        return None
    outcomes = _read(asked, asked.outcome_files, asked.outcome_hours, label_type=asked.label_type)
    made, made_at = _distinct(predictions)
    made_sources = predictions.column("source").take(pa.array(made_at))
    if outcomes is None or not outcomes.num_rows:
        return IdFacts(predicted=_cells(made), joined=_zeros(), orphaned=_zeros(), prediction_sources=())
    told, told_at = _distinct(outcomes)
    known = _inside(told, made)
    joined = _inside(made, told)
    lost = told[~known]
    changed, changed_ids = _changed(lost, made)
    return IdFacts(
        predicted=_cells(made),
        joined=_cells(made[joined]),
        orphaned=_cells(lost),
        timeless=int((id_hours(id_columns(lost)) == NO_HOUR).sum()) if len(lost) else 0,
        predictions_timeless=int((id_hours(id_columns(made)) == NO_HOUR).sum()),
        changed=changed,
        changed_ids=changed_ids,
        sources=_by_source(outcomes.column("source").take(pa.array(told_at)), ~known),
        prediction_sources=_by_source(made_sources, joined),
    )


def _read(asked: IdQuestion, files: Iterable[Path], hours: Sequence[int], *, label_type: str) -> pa.Table | None:
    filters: list[tuple[str, str, object]] = [("model_id", "=", asked.model_id), ("hour", "in", list(hours))]
    if label_type:
        filters.append(("label_type", "=", label_type))
    tables = []
    for file in files:
        try:
            found = pq.read_table(file, columns=["prediction_id", "source"], filters=filters, partitioning=None)
        except OSError:
            continue  # compacted or dropped meanwhile
        tables.append(
            pa.table(
                {
                    "prediction_id": found.column("prediction_id").cast(pa.binary(ID_BYTES)),
                    "source": found.column("source").cast(pa.string()),
                }
            )
        )
    return pa.concat_tables(tables) if tables else None


def _distinct(table: pa.Table) -> tuple[Ids, Int64s]:
    """Distinct ids in byte order, and where each came first."""
    column = table.column("prediction_id").combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    raw = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * ID_BYTES :][: len(column) * ID_BYTES]
    ids = raw.reshape(-1, ID_BYTES)
    _, at = np.unique(_texts(ids), return_index=True)
    return ids[at], at.astype(np.int64)


def _texts(ids: Ids) -> npt.NDArray[np.void]:
    """Ids as values that sort and compare by all bytes."""
    return np.ascontiguousarray(ids).view(np.dtype((np.void, ID_BYTES))).reshape(-1)


def _inside(some: Ids, others: Ids) -> npt.NDArray[np.bool_]:
    """Which of these ids are among others; shape (n,)."""
    if not len(some) or not len(others):
        return np.zeros(len(some), np.bool_)
    return np.isin(_texts(some), _texts(others))


def _cells(ids: Ids) -> Int64s:
    if not len(ids):
        return _zeros()
    cells = (hash_shares(id_columns(ids)) * SHARE_CELLS).astype(np.int64)
    return np.asarray(np.bincount(cells, minlength=SHARE_CELLS), np.int64)


def _zeros() -> Int64s:
    return np.zeros(SHARE_CELLS, np.int64)


def _changed(lost: Ids, made: Ids) -> tuple[str, int]:
    """What must have happened to most of the orphans' ids, and to how many."""
    if not len(lost):
        return "", 0
    found = [(int(_inside(lost[:, order], made).sum()), text) for text, order in CHANGES.items()]
    found.append(_other_time(lost, made))
    best, text = max(found)
    return (text, best) if best else ("", 0)


def _other_time(lost: Ids, made: Ids) -> tuple[int, str]:
    """Ids whose random bits are those of a prediction, with another time."""

    def tails(ids: Ids) -> IdColumns:
        bare = ids.copy()
        bare[:, :6] = 0
        return id_columns(bare)

    ours, theirs = tails(made), tails(lost)
    at = np.argsort(ours.key)
    place = np.minimum(np.searchsorted(ours.key[at], theirs.key), len(at) - 1)
    same = ours.key[at][place] == theirs.key
    count = int(same.sum())
    if not count:
        return 0, ""
    apart = _milliseconds(lost[same]) - _milliseconds(made[at][place[same]])
    shift = float(np.median(apart)) / 1000
    steady = float(np.median(np.abs(apart / 1000 - shift))) < 1
    by = f", {abs(shift):,.0f} s {'later' if shift > 0 else 'earlier'}" if steady and abs(shift) >= 1 else ""
    return count, f"their random bits are right, but the time in them is another{by}"


def _milliseconds(ids: Ids) -> npt.NDArray[np.float64]:
    return ids[:, :6].astype(np.float64) @ (256.0 ** np.arange(6)[::-1])


def _by_source(sources: pa.ChunkedArray, marked: npt.NDArray[np.bool_]) -> tuple[tuple[str, int, int], ...]:
    """(source, rows, of these marked), by source."""
    names = pc.fill_null(sources, "")
    table = pa.table({"source": names, "marked": pa.array(marked.astype(np.int64))})
    grouped = table.group_by("source").aggregate([("marked", "count"), ("marked", "sum")])
    return tuple(
        sorted(
            zip(
                grouped.column("source").to_pylist(),
                grouped.column("marked_count").to_pylist(),
                grouped.column("marked_sum").to_pylist(),
                strict=True,
            )
        )
    )
