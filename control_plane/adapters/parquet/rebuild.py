"""Hourly counts made anew from the rows themselves, when a version gets another reference profile.

Usually a version is registered with its profile before its first prediction, and there is nothing to do.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.histograms import Cells, HourKey, bin_batch
from control_plane.adapters.parquet.profiles import Profile
from control_plane.adapters.parquet.recovery import parse
from control_plane.adapters.parquet.segments import read_segment
from control_plane.core.ground_truth.batch import FEATURE_PREFIX, PredictionBatch
from control_plane.core.ground_truth.ids import IdColumns, Int64s, id_columns
from control_plane.core.ground_truth.join import Predictions, distinct_predictions, positions

RUNS_MAX = 16
"""Sorted runs of seen ids before they are merged."""


def rebuild_histograms(facts: Facts, model_id: str, version: int, digest: str) -> None:
    """Bin all rows of a version by a profile and replace its counts. Columns that contradict it are left out."""
    profile = facts.profiles.get(digest)
    assert profile is not None
    stored: dict[int, Cells] = {}
    seen = _Seen()
    for batch in _sealed_batches(facts, model_id, version):
        for hour, cells in bin_batch(profile, _usable(profile, batch), seen.new(batch)).items():
            stored[hour] = stored[hour].plus(cells) if hour in stored else cells
    unsealed: list[tuple[int, int, Cells]] = []
    for segment in sorted(facts.unsealed_batches):
        for record in read_segment(facts.log.path(segment)):
            head = record.head
            if (head.kind, head.model_id, head.version) != ("predictions", model_id, version):
                continue
            parsed = parse(record)
            assert isinstance(parsed, PredictionBatch)
            counted = bin_batch(profile, _usable(profile, parsed), seen.new(parsed))
            unsealed += [(segment, hour, cells) for hour, cells in counted.items()]
    with facts.catalog.transaction():
        facts.histograms.forget(model_id, version)
        for hour, cells in stored.items():
            facts.histograms.put(HourKey(model_id, version, digest, hour), cells)
        facts.catalog.db.execute(
            "INSERT OR REPLACE INTO reference_profiles VALUES (?, ?, ?)", (model_id, version, digest)
        )
    for segment, hour, cells in unsealed:
        facts.histograms.add(segment, HourKey(model_id, version, digest, hour), cells)
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
    """Rows of a version from Parquet, oldest file first."""
    for (path,) in facts.catalog.db.execute(
        "SELECT path FROM files WHERE model_id = ? AND kind = 'predictions' ORDER BY id", (model_id,)
    ).fetchall():
        table = pq.read_table(facts.root / path, filters=[("version", "=", version)], partitioning=None)
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
    return PredictionBatch(ids, instants, table.column("score").to_numpy(), features, table)
