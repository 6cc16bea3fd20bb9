"""[gt_events_per_s, gt_freshness_p99_s] Ground truth end to end: Arrow batches through gRPC, durable before each
answer, joined as they arrive, and read as partials.

A client in one process streams predictions and outcomes, 250 to 150, to a control plane in another, both on the cores
of this machine, as fast as they are taken. Delays of outcomes are a mix as it is met with: a third within minutes, a
third within a day, a third within weeks (`DELAYS`); those within the run are of predictions that were sent, the others
of predictions made before it. Meanwhile a third process sends small batches of the same model and asks for its
coverage: freshness is the time from a batch's being sent to an answer that holds its rows, and with them the backlog of
all others. `RUNWAY_BENCH_EVENTS=400000000` sends more; the server's resident memory is read all along and must not grow
with the rows.

Peers in the same run, by the CPU of whoever stores and joins: a dict of predictions in Python, and a table per side in
SQLite with a durable commit per batch. Neither has a wire.
"""

import io
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import common_pb2, ground_truth_pb2, ground_truth_pb2_grpc, registry_pb2, registry_pb2_grpc

from bench.plane import Plane, running_plane
from bench.table import Row

IDS = ("gt_events_per_s", "gt_freshness_p99_s")

EVENTS = int(os.environ.get("RUNWAY_BENCH_EVENTS", "24000000"))
ROWS = 65_536
"""Of a batch of predictions; a batch of outcomes has three fifths of it."""
OUTCOME_ROWS = ROWS * 3 // 5
UNANSWERED = 6
MODEL = "bench_model"
PEER_BATCHES = 4
KEPT = 64
"""Batches of predictions that outcomes are drawn from."""
DELAYS = ((1 / 3, 1.0, 600.0), (1 / 3, 600.0, 86_400.0), (1 / 3, 86_400.0, 21 * 86_400.0))
"""(share, from, to) in seconds, log-uniform within."""
INSTANTS = pa.timestamp("us", tz="UTC")

Ids = npt.NDArray[np.uint64]


class Stream:
    """Predictions of the present, and outcomes of what was said before."""

    def __init__(self, seed: int = 7) -> None:
        self._rng = np.random.default_rng(seed)
        self._sent: deque[tuple[npt.NDArray[np.int64], Ids]] = deque(maxlen=KEPT)

    def predictions(self, rows: int = ROWS) -> tuple[Ids, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Ids of shape (n, 2), big endian; instants in microseconds; scores."""
        instants = time.time_ns() // 1000 - np.arange(rows, dtype=np.int64)[::-1]
        ids = self._ids(instants)
        self._sent.append((instants, ids))
        return ids, instants, self._rng.random(rows)

    def outcomes(self, rows: int = OUTCOME_ROWS) -> tuple[Ids, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Ids, instants and values of outcomes observed now, after delays as in `DELAYS`."""
        now = time.time_ns() // 1000
        delay = np.empty(rows)
        cuts = np.cumsum([0, *(round(share * rows) for share, _, _ in DELAYS[:-1]), rows])
        cuts[-1] = rows
        cuts[-2] = min(cuts[-2], rows)
        for (_, low, high), first, last in zip(DELAYS, cuts[:-2], cuts[1:-1], strict=False):
            delay[first:last] = np.exp(self._rng.uniform(np.log(low), np.log(high), last - first))
        _, low, high = DELAYS[-1]
        delay[cuts[-2] :] = np.exp(self._rng.uniform(np.log(low), np.log(high), rows - cuts[-2]))
        instants = now - (delay * 1e6).astype(np.int64)
        ids = self._ids(instants)
        begun = self._sent[0][0][0]
        within = np.flatnonzero(instants >= begun)
        which = self._rng.integers(0, len(self._sent), len(within))
        for place in np.unique(which):
            at = within[which == place]
            known = self._sent[int(place)][1]
            ids[at] = known[self._rng.integers(0, len(known), len(at))]
        return ids, np.full(rows, now), (self._rng.random(rows) < 0.1).astype(np.float64)

    def _ids(self, instants: npt.NDArray[np.int64]) -> Ids:
        random = self._rng.integers(0, 2**62, (2, len(instants)), dtype=np.uint64)
        ids = np.empty((len(instants), 2), ">u8")
        ids[:, 0] = (
            (instants // 1000).astype(np.uint64) << np.uint64(16) | np.uint64(0x7000) | random[0] & np.uint64(0xFFF)
        )
        ids[:, 1] = np.uint64(2) << np.uint64(62) | random[1]
        return ids


def arrow(ids: Ids, instants: npt.NDArray[np.int64], numbers: npt.NDArray[np.float64], names: tuple[str, str]) -> bytes:
    """One Arrow IPC stream."""
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(numbers), [None, pa.py_buffer(ids.tobytes())])
    batch = pa.record_batch(
        [column, pa.array(instants).cast(INSTANTS), pa.array(numbers)], names=["prediction_id", *names]
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def run() -> list[Row]:
    """Stream, probe, then the peers."""
    with running_plane() as plane, plane.channel() as channel:
        _register(channel)
        probe = _probe(plane)
        took_s, cpu_s, rss = _stream(plane, channel)
        probe.stdin.close()  # type: ignore[union-attr]
        lags = np.array([float(line) for line in probe.stdout or ()])
        probe.wait(60)
        served = _served(channel)
    events = _batches() * (ROWS + OUTCOME_ROWS)
    third, tenth = len(rss) // 3, max(1, len(rss) // 10)
    peers = {
        "Runway's server, per CPU-s": events / cpu_s,
        "a dict, nothing durable, per CPU-s": _dict_per_s(),
        "SQLite, a commit per batch, per CPU-s": _sqlite_per_s(),
    }
    return [
        Row(
            id="gt_events_per_s",
            value=events / took_s,
            unit="events/s",
            peers=peers,
            note=(
                f"target >= 400,000 on 2 cores with the client; {events / 1e6:.0f} M events in {took_s:.0f} s, "
                f"server RSS "
                f"{np.median(rss[third : third + tenth]):,.0f} MB at a third, {np.median(rss[-tenth:]):,.0f} MB at the "
                f"end; {served}"
            ),
        ),
        Row(
            id="gt_freshness_p99_s",
            value=float(np.quantile(lags, 0.99)),
            unit="s",
            peers={},
            note=(
                f"target < 5 s; {len(lags)} probes under that load, median {np.median(lags):.2f} s, largest "
                f"{lags.max():.2f} s"
            ),
        ),
    ]


def _batches() -> int:
    return max(8, EVENTS // (ROWS + OUTCOME_ROWS))


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


def _stream(plane: Plane, channel: grpc.Channel) -> tuple[float, float, list[float]]:
    """Wall seconds, CPU seconds of the server, and its resident memory in MB after each answer."""
    stub = ground_truth_pb2_grpc.GroundTruthServiceStub(channel)
    server = psutil.Process(plane.pid)
    stream, run_id = Stream(), uuid.uuid4()
    stream.predictions()
    room = threading.Semaphore(UNANSWERED)
    rss: list[float] = []

    def predictions() -> Iterator[ground_truth_pb2.IngestPredictionsRequest]:
        for number in range(_batches()):
            room.acquire()
            yield ground_truth_pb2.IngestPredictionsRequest(
                batch_id=f"{run_id}-{number}",
                model_id=MODEL,
                version=1,
                arrow_ipc=arrow(*stream.predictions(), ("predicted_at", "score")),
            )

    def outcomes() -> Iterator[ground_truth_pb2.IngestOutcomesRequest]:
        for number in range(_batches()):
            room.acquire()
            yield ground_truth_pb2.IngestOutcomesRequest(
                batch_id=f"{run_id}-{number}",
                model_id=MODEL,
                arrow_ipc=arrow(*stream.outcomes(), ("observed_at", "value")),
            )

    def listen(answers: Iterator[ground_truth_pb2.IngestOutcomesResponse], rows: int) -> None:
        for answer in answers:
            if answer.accepted.rows + answer.accepted.sampled_out != rows:
                raise RuntimeError(f"batch {answer.batch_id} was refused: {answer.refused.message}")
            rss.append(server.memory_info().rss / 2**20)
            room.release()

    before, begun = server.cpu_times(), time.monotonic()
    threads = [
        threading.Thread(target=listen, args=(stub.IngestPredictions(predictions()), ROWS)),
        threading.Thread(target=listen, args=(stub.IngestOutcomes(outcomes()), OUTCOME_ROWS)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.monotonic() - begun
    after = server.cpu_times()
    return took_s, after.user + after.system - before.user - before.system, rss


def _served(channel: grpc.Channel) -> str:
    """What the server says of it at the end."""
    stub = ground_truth_pb2_grpc.GroundTruthServiceStub(channel)
    now = datetime.now(UTC)
    request = ground_truth_pb2.GetCoverageRequest(model_id=MODEL)
    request.start_time.FromDatetime(now - timedelta(hours=3))
    request.end_time.FromDatetime(now + timedelta(hours=1))
    total = stub.GetCoverage(request, timeout=120).total
    return (
        f"served {total.predicted / 1e6:.1f} M predictions, {total.joined_early / 1e6:.1f} M of them joined, from a "
        f"sample of {total.sample_rate:.3f}"
    )


def _probe(plane: Plane) -> "subprocess.Popen[str]":
    """A process that measures freshness until its input is closed, and then prints each lag."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.ground_truth", plane.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def probe(address: str) -> None:
    """Send a small batch, ask for what is served, again and again."""
    stop = threading.Event()
    threading.Thread(target=_until_closed, args=(stop,), daemon=True).start()
    stream, lags = Stream(seed=8), []
    with grpc.insecure_channel(address) as channel:
        stub = ground_truth_pb2_grpc.GroundTruthServiceStub(channel)
        window = datetime.now(UTC)
        request = ground_truth_pb2.GetCoverageRequest(
            model_id=MODEL, start_time=_stamp(window - timedelta(hours=2)), end_time=_stamp(window + timedelta(hours=2))
        )
        while not stop.is_set():
            ids, instants, numbers = stream.predictions(50)
            begun = time.monotonic()
            _one(stub.IngestPredictions, ground_truth_pb2.IngestPredictionsRequest, ids, instants, numbers, version=1)
            _one(stub.IngestOutcomes, ground_truth_pb2.IngestOutcomesRequest, ids, instants, (numbers > 0.5) * 1.0)
            stub.GetCoverage(request, timeout=120)  # it joins what has arrived before it answers
            lags.append(time.monotonic() - begun)
            stop.wait(0.2)
    print("\n".join(f"{lag:.4f}" for lag in lags))


def _until_closed(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _one(call, of, ids, instants, numbers, **version) -> None:  # type: ignore[no-untyped-def]  # both kinds alike
    names = ("predicted_at", "score") if version else ("observed_at", "value")
    body = of(batch_id=str(uuid.uuid4()), model_id=MODEL, arrow_ipc=arrow(ids, instants, numbers, names), **version)
    for answer in call(iter([body]), timeout=60):
        if not answer.accepted.rows:
            raise RuntimeError(answer.refused.message)


def _stamp(instant: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp


def _peer_batches() -> list[tuple[list[bytes], list[float], list[bytes], list[float]]]:
    stream = Stream()
    made = []
    for _ in range(PEER_BATCHES):
        ids, _, scores = stream.predictions()
        known, _, values = stream.outcomes()
        made.append((_split(ids), scores.tolist(), _split(known), values.tolist()))
    return made


def _split(ids: Ids) -> list[bytes]:
    raw = ids.tobytes()
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def _dict_per_s() -> float:
    """Events per CPU-second of two dicts and running counts: first come, either side; nothing is durable."""
    made = _peer_batches()
    said: dict[bytes, float] = {}
    waiting: dict[bytes, float] = {}
    right = joined = 0
    begun = time.process_time()
    for ids, scores, known, values in made:
        for one, score in zip(ids, scores, strict=True):
            if one not in said:
                said[one] = score
                if one in waiting:
                    joined += 1
                    right += (score >= 0.5) == (waiting[one] == 1)
        for one, value in zip(known, values, strict=True):
            if one not in waiting:
                waiting[one] = value
                if one in said:
                    joined += 1
                    right += (said[one] >= 0.5) == (value == 1)
    return PEER_BATCHES * (ROWS + OUTCOME_ROWS) / (time.process_time() - begun)


def _sqlite_per_s() -> float:
    """Events per CPU-second of two tables keyed by id, joined at the end."""
    made = _peer_batches()
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        connection = sqlite3.connect(Path(directory) / "peer.sqlite")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE said (id BLOB PRIMARY KEY, score REAL) WITHOUT ROWID")
        connection.execute("CREATE TABLE known (id BLOB PRIMARY KEY, value REAL) WITHOUT ROWID")
        begun = time.process_time()
        for ids, scores, known, values in made:
            with connection:
                connection.executemany("INSERT OR IGNORE INTO said VALUES (?, ?)", zip(ids, scores, strict=True))
                connection.executemany("INSERT OR IGNORE INTO known VALUES (?, ?)", zip(known, values, strict=True))
        connection.execute(
            "SELECT count(*), sum((score >= 0.5) = (value = 1)) FROM said JOIN known USING (id)"
        ).fetchone()
        cpu_s = time.process_time() - begun
        connection.close()
    return PEER_BATCHES * (ROWS + OUTCOME_ROWS) / cpu_s


if __name__ == "__main__":
    probe(sys.argv[1])
