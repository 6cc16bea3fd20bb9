"""[ingest_rows_per_cpu_s] Predictions stored per second of the server's CPU: Arrow batches through gRPC, durable
before each answer.

A client in this process streams batches of 65,536 predictions (id, time, score) to a control plane in another one and
keeps a few unanswered. Counted is all CPU of the server: the wire, validation, checksums, the sync, the speed view, and
the conversion of the segments to Parquet that runs meanwhile. The resident memory of the server is read all along;
it must not grow with the rows. `RUNWAY_BENCH_INGEST_ROWS=100000000` passes 100 M rows.

Peers in the same run, by CPU too: COPY of the same columns into the same Postgres (its backend and the client that
feeds it), one protobuf message per prediction stored in SQLite with a commit per batch (no wire at all), and our own
store without the wire.
"""

import io
import os
import queue
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import psutil
import psycopg
import pyarrow as pa
from runway.v1 import common_pb2, ground_truth_pb2, ground_truth_pb2_grpc, registry_pb2, registry_pb2_grpc

from bench.plane import Plane, running_plane
from bench.table import Row
from control_plane.adapters.parquet.store import ParquetFactStore

IDS = ("ingest_rows_per_cpu_s",)

ROWS_PER_BATCH = 65_536
ROWS = int(os.environ.get("RUNWAY_BENCH_INGEST_ROWS", "20000000"))
PEER_ROWS = 5 * ROWS_PER_BATCH
BATCHES_UNANSWERED = 8
MODEL = "bench_model"
CONVERSION_S_MAX = 120.0
INSTANTS = pa.timestamp("us", tz="UTC")


class Batches:
    """Batches of predictions of the present, each with new ids."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(7)
        self._ids = np.empty((ROWS_PER_BATCH, 2), ">u8")

    def next(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Ids of shape (n, 16), instants in microseconds, scores."""
        now_us = time.time_ns() // 1000
        instants = now_us - np.arange(ROWS_PER_BATCH, dtype=np.int64)[::-1]
        random = self._rng.integers(0, 2**62, (2, ROWS_PER_BATCH), dtype=np.uint64)
        milliseconds = (instants // 1000).astype(np.uint64)
        self._ids[:, 0] = milliseconds << np.uint64(16) | np.uint64(0x7000) | random[0] & np.uint64(0xFFF)
        self._ids[:, 1] = np.uint64(2) << np.uint64(62) | random[1]
        return self._ids.view(np.uint8), instants, self._rng.random(ROWS_PER_BATCH)

    def arrow(self) -> bytes:
        """The next batch as one Arrow IPC stream."""
        ids, instants, scores = self.next()
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(scores), [None, pa.py_buffer(ids.tobytes())])
        columns = [column, pa.array(instants).cast(INSTANTS), pa.array(scores)]
        batch = pa.record_batch(columns, names=["prediction_id", "predicted_at", "score"])
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return sink.getvalue()


def run() -> list[Row]:
    """Measure the server, then the peers."""
    with running_plane() as plane:
        with plane.channel() as channel:
            _register(channel)
            cpu_s, rss = _through_grpc(plane, channel)
        copied = _copy_rows_per_cpu_s(plane)
    settled, last = _settled(rss)
    return [
        Row(
            id="ingest_rows_per_cpu_s",
            value=ROWS / cpu_s,
            unit="rows/CPU-s",
            peers={
                "COPY into Postgres": copied,
                "a protobuf message per row, SQLite": _sqlite_rows_per_cpu_s(),
                "our store without the wire": _store_rows_per_cpu_s(),
            },
            note=(
                f"target >= 1,000,000; {ROWS / 1e6:.0f} M rows; server RSS {settled:,.0f} MB at a third of the way, "
                f"{last:,.0f} MB at the end, {max(rss):,.0f} MB at most"
            ),
        )
    ]


def _register(channel: grpc.Channel) -> None:
    registry = registry_pb2_grpc.RegistryServiceStub(channel)
    mutation = common_pb2.Mutation(actor="bench", reason="bench")
    registry.RegisterModel(
        registry_pb2.RegisterModelRequest(
            mutation=mutation,
            model=registry_pb2.Model(
                model_id=MODEL,
                owner="bench@example.com",
                team="bench",
                tier=common_pb2.TIER_1,
                task_type=common_pb2.TASK_TYPE_BINARY,
            ),
        ),
        timeout=60,
    )
    version = registry_pb2.ModelVersion(model_id=MODEL, artifact_uri="file:///bench", artifact_sha256="0" * 64)
    version.trained_until.FromDatetime(datetime.now(UTC))
    registry.RegisterVersion(registry_pb2.RegisterVersionRequest(mutation=mutation, version=version), timeout=60)


def _through_grpc(plane: Plane, channel: grpc.Channel) -> tuple[float, list[float]]:
    """CPU seconds of the server for all rows, and its resident memory in MB after each answer."""
    stub = ground_truth_pb2_grpc.GroundTruthServiceStub(channel)
    server = psutil.Process(plane.pid)
    sender = _Sender()
    rss: list[float] = []
    before = server.cpu_times()
    for answer in stub.IngestPredictions(sender.requests()):
        sender.answered(answer)
        rss.append(server.memory_info().rss / 2**20)
    _await_conversion(plane)
    after = server.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    return cpu_s * ROWS / (sender.batches_wanted * ROWS_PER_BATCH), rss


class _Sender:
    """What a serving system does: a few batches unanswered, and those that were not taken sent again."""

    def __init__(self) -> None:
        self.batches_wanted = -(-ROWS // ROWS_PER_BATCH)
        self._room = threading.Semaphore(BATCHES_UNANSWERED)
        self._unanswered: dict[str, bytes] = {}
        self._again: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._left = self.batches_wanted

    def requests(self) -> Iterator[ground_truth_pb2.IngestPredictionsRequest]:
        """The stream of requests; ends when all batches are accepted."""
        batches, run, sent = Batches(), uuid.uuid4(), 0
        while True:
            self._room.acquire()
            if self._left == 0:
                return
            try:
                batch_id = self._again.get_nowait()
            except queue.Empty:
                if sent == self.batches_wanted:
                    continue
                batch_id, sent = f"{run}-{sent}", sent + 1
                self._unanswered[batch_id] = batches.arrow()
            yield ground_truth_pb2.IngestPredictionsRequest(
                batch_id=batch_id, model_id=MODEL, version=1, arrow_ipc=self._unanswered[batch_id]
            )

    def answered(self, answer: ground_truth_pb2.IngestPredictionsResponse) -> None:
        """Count an accepted batch, or send it again if the server was busy with itself."""
        if answer.refused.code == grpc.StatusCode.UNAVAILABLE.value[0]:
            self._again.put(answer.batch_id)
        elif answer.accepted.rows == ROWS_PER_BATCH:
            del self._unanswered[answer.batch_id]
            self._left -= 1
        else:
            raise RuntimeError(f"batch {answer.batch_id} was refused: {answer.refused.message}")
        self._room.release()
        if self._left == 0:
            self._room.release()


def _await_conversion(plane: Plane) -> None:
    """Wait until all closed segments are Parquet: that work is part of the price."""
    begun = time.monotonic()
    while len(list((plane.home / "state" / "facts" / "segments").glob("*.seg"))) > 1:
        if time.monotonic() - begun > CONVERSION_S_MAX:
            raise RuntimeError("the server does not convert its segments")
        time.sleep(0.05)


def _settled(rss: list[float]) -> tuple[float, float]:
    """Medians of the resident memory around a third of the way and over the last tenth."""
    third, tenth = len(rss) // 3, max(1, len(rss) // 10)
    return float(np.median(rss[third : third + tenth])), float(np.median(rss[-tenth:]))


def _copy_rows_per_cpu_s(plane: Plane) -> float:
    """COPY in one transaction per batch; CPU of the backend and of this process, which formats the rows."""
    batches = Batches()
    with psycopg.connect(plane.postgres.url(), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE bench_predictions (prediction_id uuid, predicted_at timestamptz, score double precision)"
        )
        backend = psutil.Process(connection.info.backend_pid)
        columns = [batches.next() for _ in range(PEER_ROWS // ROWS_PER_BATCH)]
        before, own = backend.cpu_times(), time.process_time()
        for ids, instants, scores in columns:
            raw = ids.tobytes()
            with connection.cursor().copy("COPY bench_predictions FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["uuid", "timestamptz", "float8"])
                for row, (instant, score) in enumerate(zip(instants.tolist(), scores.tolist(), strict=True)):
                    copy.write_row(
                        (
                            uuid.UUID(bytes=raw[16 * row : 16 * row + 16]),
                            datetime.fromtimestamp(instant / 1e6, UTC),
                            score,
                        )
                    )
        after, own_after = backend.cpu_times(), time.process_time()
    return PEER_ROWS / (after.user + after.system - before.user - before.system + own_after - own)


def _sqlite_rows_per_cpu_s() -> float:
    """A message per prediction, decoded and inserted; a durable commit per batch."""
    batches = Batches()
    encoded = []
    for _ in range(PEER_ROWS // ROWS_PER_BATCH):
        ids, instants, scores = batches.next()
        raw = ids.tobytes()
        encoded.append(
            [
                ground_truth_pb2.PerformanceMetric(
                    name=raw[16 * row : 16 * row + 16].hex(), value=score, sample_size=instant
                ).SerializeToString()
                for row, (instant, score) in enumerate(zip(instants.tolist(), scores.tolist(), strict=True))
            ]
        )
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        connection = sqlite3.connect(Path(directory) / "peer.sqlite")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(
            "CREATE TABLE predictions (prediction_id TEXT PRIMARY KEY, predicted_at INTEGER, score REAL)"
        )
        before = time.process_time()
        for messages in encoded:
            rows = (ground_truth_pb2.PerformanceMetric.FromString(message) for message in messages)
            with connection:
                connection.executemany(
                    "INSERT OR IGNORE INTO predictions VALUES (?, ?, ?)",
                    ((row.name, row.sample_size, row.value) for row in rows),
                )
        cpu_s = time.process_time() - before
        connection.close()
    return PEER_ROWS / cpu_s


def _store_rows_per_cpu_s() -> float:
    """The store alone, conversion to Parquet included."""
    batches = Batches()
    rounds = min(ROWS, 4_000_000) // ROWS_PER_BATCH
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        store = ParquetFactStore(Path(directory))
        cpu_s = 0.0
        for number in range(rounds):
            batch = batches.arrow()
            before = time.process_time()
            store.append_predictions(str(number), MODEL, 1, batch)
            store.tick(datetime.now(UTC))
            cpu_s += time.process_time() - before
        store.close()
    return rounds * ROWS_PER_BATCH / cpu_s
