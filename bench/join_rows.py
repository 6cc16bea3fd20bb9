"""Rows for the batch join, sealed as the server seals them, and their join: `python -m bench.join_rows FOLDER ROWS`.

Ten models predict at the rate of 100 million rows a day; 60 % of the predictions get an outcome, most within minutes,
some after hours, a day, or six days, in the order in which that happens. One row in 256 is sent twice, and one outcome
in 64 is corrected. Ids, scores and outcomes are a function of the row's number, so that nothing is kept meanwhile.

What is written is what a control plane would leave behind: Delta tables in FOLDER/tables, which any engine can read,
and the catalogue. Counted is the CPU of sealing (rows to days, hours and buckets; Parquet; the commit) and of joining
(partials included, stored), and the process's largest resident memory; making the rows is not, nor what libraries do
once when they are first used.
"""

import argparse
import io
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from control_plane.adapters.parquet.maintenance import Maintenance, StoreConfig
from control_plane.adapters.parquet.segments import BatchHead, Record
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import unpack

ROWS_PER_DAY = 100_000_000
ROWS_PER_BATCH = 65_536
MODELS = 10
REPEATED_SHARE, CORRECTED_SHARE = 256, 64
START_US = 1_772_000_000_000_000 // 3_600_000_000 * 3_600_000_000
"""February 2026, on the hour."""
DELAYS_S = ((0.0, 0.25, 300), (0.25, 0.40, 6 * 3600), (0.40, 0.50, 24 * 3600), (0.50, 0.60, 6 * 86400))
"""Of the predictions: from this share to that one, outcomes come after about so many seconds."""
SEGMENT_ROWS = 2_000_000
LABEL = LabelSpec(label_type="converted", window=timedelta(days=7))
INSTANTS = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What it took, and what came of it."""

    predictions: int
    outcomes: int
    seal_cpu_s: float
    join_cpu_s: float
    merge_cpu_s: float
    """Of merging small files of past days, which a pass does beside joining."""
    rss_mib: float
    answer: dict[str, list[int]]
    """`model/hour` -> predicted, joined, true positives + false negatives (positives), late excluded."""


def write_and_join(folder: Path, rows: int) -> Joined:
    """Write so many predictions and 0.6 times as many outcomes, and join them."""
    batches = max(1, rows // ROWS_PER_BATCH)
    ended = datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(days=9 + rows / ROWS_PER_DAY)
    store = ParquetFactStore(folder, StoreConfig(join_every=timedelta(days=3650)))
    facts, maintenance = store._facts, store._maintenance  # rows come past the wire and the speed view
    for model in range(MODELS):
        facts.put_label(model_name(model), LABEL)
        facts.speed.set_horizon(model_name(model), 10**6)
    maintenance.tick(ended, force=True)  # the first pass, with nothing to do; the next one is ten years away
    seal_s = 0.0
    outcomes = 0
    pending: list[Record] = []
    for record in _records(batches):
        outcomes += record.head.rows if record.head.kind == "outcomes" else 0
        pending.append(record)
        if sum(one.head.rows for one in pending) >= SEGMENT_ROWS:
            facts.log.append(pending)
            facts.log.close_segment()
            pending = []
            seal_s += _cpu_of(lambda: maintenance.tick(ended))
    facts.log.append(pending)
    facts.log.close_segment()
    seal_s += _cpu_of(lambda: _settle(store, ended))
    merging = _Merging(maintenance)
    join_s = _cpu_of(lambda: maintenance.finish(ended)) - merging.cpu_s
    answer = _answer(store)
    store.close()
    return Joined(
        predictions=batches * ROWS_PER_BATCH,
        outcomes=outcomes,
        seal_cpu_s=seal_s,
        join_cpu_s=join_s,
        merge_cpu_s=merging.cpu_s,
        rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        answer=answer,
    )


class _Merging:
    """The CPU of merging files, told apart."""

    def __init__(self, maintenance: Maintenance) -> None:
        self.cpu_s = 0.0
        step = maintenance._compaction.step

        def timed(now_us: int) -> bool:
            before = time.process_time()
            merged = step(now_us)
            self.cpu_s += time.process_time() - before
            return merged

        maintenance._compaction.step = timed  # type: ignore[method-assign]


def _settle(store: ParquetFactStore, now: datetime) -> None:
    while store.tick(now).more:
        pass


def _cpu_of(work: "object") -> float:
    assert callable(work)
    before = time.process_time()
    work()
    return time.process_time() - before


def _answer(store: ParquetFactStore) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for model_id, hour, packed in store._facts.catalog.db.execute(
        "SELECT model_id, hour, packed FROM partials WHERE label_type = ? ORDER BY 1, 2", (LABEL.label_type,)
    ):
        partial = unpack(packed)
        positives = partial.of("true_positive") + partial.of("false_negative")
        found[f"{model_id}/{hour}"] = [partial.of("predicted"), partial.of("joined"), positives]
    return found


def _records(batches: int) -> Iterator[Record]:
    """Predictions and outcomes in the order in which they arrive. An outcome batch holds what is new of its model: of
    some predictions made just now, six hours ago, a day ago, six days ago."""
    batch_us = ROWS_PER_BATCH * 86_400_000_000 // ROWS_PER_DAY
    every = [-(-delay_s * 1_000_000 // (batch_us * MODELS)) * MODELS for _, _, delay_s in DELAYS_S]
    for now in range(batches + every[-1] + MODELS):
        if now < batches:
            yield _predictions(now, batch_us)
        parts = [(now - lag, at) for at, lag in enumerate(every) if 0 <= now - lag < batches]
        if parts:
            yield _outcomes(now, parts, batch_us)


def _mixed(number: npt.NDArray[np.uint64], salt: int) -> npt.NDArray[np.uint64]:
    """64 random bits of a number (splitmix64)."""
    mixed = (number + np.uint64(salt)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _share(number: npt.NDArray[np.uint64], salt: int) -> npt.NDArray[np.float64]:
    return (_mixed(number, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _numbers(batch: int) -> npt.NDArray[np.uint64]:
    return np.arange(batch * ROWS_PER_BATCH, (batch + 1) * ROWS_PER_BATCH, dtype=np.uint64)


def _instants(batch: int, batch_us: int) -> npt.NDArray[np.int64]:
    return START_US + batch * batch_us + np.arange(ROWS_PER_BATCH, dtype=np.int64) * batch_us // ROWS_PER_BATCH


def _ids(number: npt.NDArray[np.uint64], instants: npt.NDArray[np.int64]) -> pa.Array:
    ids = np.empty((len(number), 2), ">u8")
    milliseconds = (instants // 1000).astype(np.uint64)
    ids[:, 0] = milliseconds << np.uint64(16) | np.uint64(0x7000) | _mixed(number, 1) & np.uint64(0xFFF)
    ids[:, 1] = np.uint64(2) << np.uint64(62) | _mixed(number, 2) >> np.uint64(2)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(number), [None, pa.py_buffer(ids.tobytes())])


def model_name(at: int) -> str:
    return f"join_model_{at}"


def _record(head: BatchHead, columns: dict[str, pa.Array]) -> Record:
    batch = pa.record_batch(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return Record(head=head, ipc=sink.getvalue())


def _predictions(batch: int, batch_us: int) -> Record:
    number, instants = _numbers(batch), _instants(batch, batch_us)
    again = ROWS_PER_BATCH // REPEATED_SHARE
    number[-again:], instants[-again:] = number[:again], instants[:again]
    head = BatchHead(
        kind="predictions",
        batch_id=f"p{batch}",
        model_id=model_name(batch % MODELS),
        version=1 + batch % 2,
        rows=ROWS_PER_BATCH,
        horizon=0,
    )
    columns = {
        "prediction_id": _ids(number, instants),
        "predicted_at": pa.array(instants).cast(INSTANTS),
        "score": pa.array(_share(number, 3)),
    }
    return _record(head, columns)


def _outcomes(now: int, parts: list[tuple[int, int]], batch_us: int) -> Record:
    """Outcomes that arrive together, of (batch of predictions, kind of delay)."""
    found = [_outcome_columns(batch, batch_us, delay) for batch, delay in parts]
    number, instants, observed, value, revision = (np.concatenate(columns) for columns in zip(*found, strict=True))
    head = BatchHead(
        kind="outcomes",
        batch_id=f"o{now}",
        model_id=model_name(now % MODELS),
        label_type=LABEL.label_type,
        rows=len(number),
        horizon=0,
    )
    columns = {
        "prediction_id": _ids(number, instants),
        "observed_at": pa.array(observed).cast(INSTANTS),
        "value": pa.array(value),
        "revision": pa.array(revision),
    }
    return _record(head, columns)


def _outcome_columns(batch: int, batch_us: int, delay: int) -> tuple[npt.NDArray[Any], ...]:
    low, high, delay_s = DELAYS_S[delay]
    number, instants = _numbers(batch), _instants(batch, batch_us)
    share = _share(number, 4)
    chosen = (share >= low) & (share < high)
    number, instants = number[chosen], instants[chosen]
    value = (_share(number, 5) < 0.1).astype(np.float64)
    observed = instants + (delay_s * (0.5 + 0.5 * _share(number, 6)) * 1e6).astype(np.int64)
    some = slice(0, len(number) // CORRECTED_SHARE)
    return (
        np.append(number, number[some]),
        np.append(instants, instants[some]),
        np.append(observed, observed[some]),
        np.append(value, 1 - value[some]),
        np.append(np.zeros(len(number), np.int32), np.ones(len(number[some]), np.int32)),
    )


def main() -> int:
    """Prints what was found as one line of JSON."""
    parser = argparse.ArgumentParser(prog="bench.join_rows")
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int)
    arguments = parser.parse_args()
    write_and_join(arguments.folder / "warm", ROWS_PER_BATCH)  # libraries load what they need, once
    print(json.dumps(asdict(write_and_join(arguments.folder, arguments.rows))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
