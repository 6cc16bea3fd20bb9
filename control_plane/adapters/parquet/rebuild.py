"""Hourly counts made anew from the rows themselves, when a version gets another reference profile.

Usually a version is registered with its profile before its first prediction, and there is nothing to do.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from control_plane.adapters.parquet.binning import Cells, Counted, bin_batch
from control_plane.adapters.parquet.facts import Facts, slice_names
from control_plane.adapters.parquet.histograms import Series
from control_plane.adapters.parquet.profile import Profile
from control_plane.adapters.parquet.recovery import parse
from control_plane.adapters.parquet.sealing import SLICES_COLUMN, split_slices
from control_plane.adapters.parquet.segments import read_segment
from control_plane.adapters.parquet.sent import recount_sent
from control_plane.core.ground_truth.batch import FEATURE_PREFIX, PredictionBatch
from control_plane.core.ground_truth.ids import IdColumns, Int64s, id_columns
from control_plane.core.ground_truth.join import Predictions, distinct_predictions, positions

RUNS_MAX = 16
"""Sorted runs of seen ids before they are merged."""


def rebuild_histograms(facts: Facts, model_id: str, version: int, digest: str) -> None:
    """Bin all rows of a version by a profile and replace its counts. Columns that contradict it are left out."""
    profile = facts.profiles.get(digest)
    assert profile is not None
    stored: dict[str, dict[int, Cells]] = {}
    fine: dict[int, Int64s] = {}
    seen = _Seen()

    def counted(batch: PredictionBatch) -> Counted:
        admit = facts.admitted(model_id, slice_names(batch))
        return bin_batch(profile, _usable(profile, batch), seen.new(batch), admit)

    for batch in _sealed_batches(facts, model_id, version):
        found = counted(batch)
        for (slice_name, hour), cells in found.hours.items():
            hours = stored.setdefault(slice_name, {})
            hours[hour] = hours[hour].plus(cells) if hour in hours else cells
        for day, counts in found.fine_days.items():
            fine[day] = fine[day] + counts if day in fine else counts
    unsealed: list[tuple[int, Counted]] = []
    for segment in sorted(facts.unsealed_batches):
        for record in read_segment(facts.log.path(segment)):
            head = record.head
            if (head.kind, head.model_id, head.version) != ("predictions", model_id, version):
                continue
            parsed = parse(record)
            assert isinstance(parsed, PredictionBatch)
            unsealed.append((segment, counted(parsed)))
    with facts.catalog.transaction():
        facts.histograms.forget(model_id, version, digest)
        for slice_name, hours in stored.items():
            facts.histograms.store(Series(model_id, version, digest, slice_name), hours)
        facts.histograms.store_fine(Series(model_id, version, digest), fine)
        for series in facts.histograms.series_of(model_id):
            if (series.version, series.digest) == (version, digest):
                recount_sent(facts, series, facts.catalog.db)
        facts.catalog.db.execute(
            "INSERT OR REPLACE INTO reference_profiles VALUES (?, ?, ?)", (model_id, version, digest)
        )
    facts.histograms.settled()
    for segment, found in unsealed:
        facts.histograms.add(segment, model_id, version, digest, found)
    facts.references[(model_id, version)] = digest


class _Seen:
    """Ids counted so far, so that a prediction sent twice is counted once. 16 bytes a row, for the rebuild only."""

    def __init__(self) -> None:
        self._runs: list[Predictions] = []

    def new(self, batch: PredictionBatch) -> npt.NDArray[np.bool_]:
        """Rows whose id comes for the first time, shape (n,)."""
        run = Predictions(
            key=batch.ids.key,
            high=batch.ids.high,
            predicted_us=batch.predicted_us,
            score=np.arange(batch.rows, dtype=np.float64),  # carries the position through the sort
            version=np.zeros(batch.rows, np.int32),
        )
        distinct = distinct_predictions([run])
        new = np.zeros(batch.rows, np.bool_)
        new[distinct.score.astype(np.int64)] = True
        for known in self._runs:
            new &= positions(known.ids, batch.ids) < 0
        self._runs.append(distinct)
        if len(self._runs) > RUNS_MAX:
            self._runs = [distinct_predictions(self._runs)]
        return new


def _usable(profile: Profile, batch: PredictionBatch) -> PredictionBatch:
    """Without columns whose type contradicts the profile: they were accepted when nothing was known of it."""
    wrong = {
        feature.name
        for feature in profile.features
        if feature.name in batch.features and not feature.takes(batch.features[feature.name])
    }
    if not wrong:
        return batch
    kept = {name: column for name, column in batch.features.items() if name not in wrong}
    return replace(batch, features=kept)


def _sealed_batches(facts: Facts, model_id: str, version: int) -> Iterator[PredictionBatch]:
    """Rows of a version from Parquet, oldest file first; first those that came with features."""
    for kind in ("features", "predictions"):
        for path, _ in facts.catalog.db.execute(
            "SELECT DISTINCT f.path, f.id FROM files f JOIN file_hours h ON h.file_id = f.id "
            "WHERE h.model_id = ? AND h.kind = ? ORDER BY f.id",
            (model_id, kind),
        ).fetchall():
            filters = [("model_id", "=", model_id), ("version", "=", version)]
            table = pq.read_table(facts.tables.place.local(path), filters=filters, partitioning=None)
            if table.num_rows:
                yield _batch(table.combine_chunks())


def _batch(table: pa.Table) -> PredictionBatch:
    column = table.column("prediction_id").combine_chunks()
    raw = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * 16 :][: len(column) * 16]
    instants: Int64s = table.column("predicted_at").cast(pa.int64()).to_numpy()
    ids: IdColumns = id_columns(raw.reshape(-1, 16))
    features = {
        name.removeprefix(FEATURE_PREFIX): table.column(name).combine_chunks()
        for name in table.column_names
        if name.startswith(FEATURE_PREFIX)
    }
    slices = split_slices(table.column(SLICES_COLUMN)) if SLICES_COLUMN in table.column_names else {}
    return PredictionBatch(ids, instants, table.column("score").to_numpy(), features, table, slices)
