"""[verdict_latency_p99_ms] From evidence being sent to its verdict on the Watch stream, in a fleet of 500 models.

Every model serves a version with a reference profile and has a quiet batch of predictions behind it. Then drifted
batches come in, one model after the other at a steady pace whatever the control plane does. The clock starts before a
batch is sent and stops when a watcher has the model's VerdictChanged to STALE: ingest, durability, evidence, the look,
its keeping, the commit and the stream are all in it. Policy: 1 of 1 looks changes a verdict; else a verdict would wait
for the next look by design.

Side by side in the same run, what people do without: asking for the verdict of each model every 5 seconds. A look every
15 minutes (tier 1, without `evaluate_on_evidence`) is not waited for: its p99 is 99 % of 15 minutes.
"""

import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from runway.v1 import (
    common_pb2,
    ground_truth_pb2,
    ground_truth_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    policies_pb2,
    registry_pb2,
    staleness_pb2,
)
from runway_client import Runway, Why, connect

from bench.plane import running_plane
from bench.table import Row

IDS = ("verdict_latency_p99_ms",)

MODELS = int(os.environ.get("RUNWAY_BENCH_VERDICT_MODELS", "500"))
POLLED = MODELS // 5
"""Models of which the verdict is asked for; the others are watched."""
BATCHES_PER_S = 20.0
POLL_S = 5.0
ROWS = 2_000
FEATURES = 20
BINS = 10
LOADING_AT_ONCE = 16
SETTLE_S_MAX = 60.0
CADENCE_S = 900
WHY = Why(reason="bench")
STALE = staleness_pb2.VERDICT_STALE


def run() -> list[Row]:
    """Load, settle, drift; then the same with a client that polls."""
    with running_plane() as plane, connect(plane.address, "bench") as runway, plane.channel() as channel:
        models = [f"m_{number:03d}" for number in range(MODELS)]
        _load(runway, models)
        sender = _Sender(channel)
        with ThreadPoolExecutor(LOADING_AT_ONCE) as pool:
            list(pool.map(lambda model_id: sender.send(model_id, drifted=False), models))
        _settled(runway)
        polled, watched = models[:POLLED], models[POLLED:]
        with _watching(channel) as stale_at:
            sent_at = _drift(sender, watched)
            _until(lambda: all(model_id in stale_at for model_id in watched))
            ours = _lags_ms(sent_at, stale_at)
        polled_sent_at, polled_stale_at = _polled(runway, sender, polled)
        theirs = _lags_ms(polled_sent_at, polled_stale_at)
    p99 = float(np.percentile(ours, 99))
    return [
        Row(
            id="verdict_latency_p99_ms",
            value=p99,
            unit="ms",
            peers={
                "runway p50": float(np.percentile(ours, 50)),
                f"asking for each verdict every {POLL_S:.0f} s p50": float(np.percentile(theirs, 50)),
                f"asking for each verdict every {POLL_S:.0f} s p99": float(np.percentile(theirs, 99)),
                "asking p99 to ours": float(np.percentile(theirs, 99)) / p99,
                "a look every 15 min p99 (by its cadence) to ours": 0.99 * CADENCE_S * 1e3 / p99,
            },
            note=(
                f"target < 1000; {MODELS} models, {len(watched)} batches of {ROWS:,} drifted predictions of {FEATURES} "
                f"features at {BATCHES_PER_S:.0f}/s; from sent to VerdictChanged at a watcher; slowest {ours.max():.0f}"
            ),
        )
    ]


class _Sender:
    """Sends batches of predictions, each with ids of its own."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = ground_truth_pb2_grpc.GroundTruthServiceStub(channel)
        self._rng = np.random.default_rng(11)
        self._lock = threading.Lock()
        self._sent = 0

    def send(self, model_id: str, *, drifted: bool) -> float:
        """One batch; the monotonic time just before it was sent."""
        with self._lock:
            data, number = self._batch(drifted), self._sent
        request = ground_truth_pb2.IngestPredictionsRequest(
            batch_id=f"b_{number}", model_id=model_id, version=1, arrow_ipc=data
        )
        begun = time.monotonic()
        for answer in self._stub.IngestPredictions(iter([request]), timeout=60):
            if answer.WhichOneof("outcome") == "refused":
                raise RuntimeError(f"a batch was refused: {answer.refused}")
        return begun

    def _batch(self, drifted: bool) -> bytes:
        """Features uniform on 0 to 1 as in training; if drifted, all in the lower third."""
        self._sent += 1
        now_us = time.time_ns() // 1000
        instants = now_us - np.arange(ROWS, dtype=np.int64)[::-1]
        random = self._rng.integers(0, 2**62, (2, ROWS), dtype=np.uint64)
        ids = np.empty((ROWS, 2), ">u8")
        milliseconds = (instants // 1000).astype(np.uint64)
        ids[:, 0] = milliseconds << np.uint64(16) | np.uint64(0x7000) | random[0] & np.uint64(0xFFF)
        ids[:, 1] = np.uint64(2) << np.uint64(62) | random[1]
        key = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), ROWS, [None, pa.py_buffer(ids.tobytes())])
        shrunk = 1 / 3 if drifted else 1.0
        columns = {
            "prediction_id": key,
            "predicted_at": pa.array(instants).cast(pa.timestamp("us", tz="UTC")),
            "score": pa.array(self._rng.random(ROWS) * shrunk),
        } | {f"feature.f_{at:02d}": pa.array(self._rng.random(ROWS) * shrunk) for at in range(FEATURES)}
        table = pa.table(columns)
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()


def _load(runway: Runway, models: Sequence[str]) -> None:
    """Every model with a version in production, all of tier 1."""
    edges = [float(edge) for edge in np.linspace(0, 1, BINS + 1)[1:-1]]
    histogram = {"edges": edges, "counts": [ROWS] * BINS + [0]}
    profile = {
        "features": {f"f_{at:02d}": {"kind": "numeric", **histogram} for at in range(FEATURES)},
        "prediction": histogram,
    }
    runway.policies.set_policies(
        "fleet",
        policies_pb2.Policies(
            staleness=policies_pb2.StalenessPolicy(
                hysteresis_k=1, hysteresis_n=1, at_risk_threshold=0.1, stale_threshold=0.2
            )
        ),
        why=WHY,
    )

    def one(model_id: str) -> None:
        runway.registry.register_model(
            registry_pb2.Model(
                model_id=model_id, team="bench", tier=common_pb2.TIER_1, task_type=common_pb2.TASK_TYPE_BINARY
            )
        )
        version = registry_pb2.ModelVersion(model_id=model_id, artifact_uri="file:///a", artifact_sha256="0" * 64)
        version.trained_until.GetCurrentTime()
        runway.registry.register_version(version, reference_profile=encoded)
        runway.rollouts.promote_version(model_id, 1, force=True, why=WHY)

    encoded = json.dumps(profile).encode()
    with ThreadPoolExecutor(LOADING_AT_ONCE) as pool:
        list(pool.map(one, models))


def _settled(runway: Runway) -> None:
    """Wait until every model has been looked at with its quiet batch."""

    def quiet() -> bool:
        found = list(runway.staleness.list_staleness())
        return len(found) == MODELS and all(
            one.HasField("evaluation")
            and any(s.name == "input_drift" and not s.missing for s in one.evaluation.signals)
            for one in found
        )

    _until(quiet, pause_s=0.5)
    time.sleep(2.0)  # what was queued meanwhile


def _drift(sender: _Sender, models: Sequence[str]) -> dict[str, float]:
    """A drifted batch for each at a steady pace; when each was sent."""
    sent: dict[str, float] = {}
    begun = time.monotonic()
    with ThreadPoolExecutor(LOADING_AT_ONCE) as pool:

        def one(model_id: str) -> None:
            sent[model_id] = sender.send(model_id, drifted=True)

        under_way = []
        for number, model_id in enumerate(models):
            time.sleep(max(0.0, begun + number / BATCHES_PER_S - time.monotonic()))
            under_way.append(pool.submit(one, model_id))
        for each in under_way:
            each.result()
    return sent


@contextmanager
def _watching(channel: grpc.Channel) -> Iterator[dict[str, float]]:
    """When each model's verdict became STALE, as a watcher learns of it."""
    stub = operations_pb2_grpc.OperationsServiceStub(channel)
    revision = stub.GetStatus(operations_pb2.GetStatusRequest()).revision
    call = stub.Watch(operations_pb2.WatchRequest(after_revision=revision, kinds=["VerdictChanged"]))
    found: dict[str, float] = {}

    def listen() -> None:
        try:
            for response in call:
                arrived = time.monotonic()
                for event in response.events:
                    if json.loads(event.payload_json)["to_level"] == "STALE":
                        found.setdefault(event.model_id, arrived)
        except grpc.RpcError:
            return  # cancelled

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield found
    finally:
        call.cancel()  # type: ignore[no-untyped-call]
        thread.join()


def _polled(runway: Runway, sender: _Sender, models: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """The same for a client that asks for each verdict every few seconds, the questions spread over the time."""
    found: dict[str, float] = {}
    done = threading.Event()

    def ask() -> None:
        turn = time.monotonic()
        while not done.is_set():
            for number, model_id in enumerate(models):
                done.wait(max(0.0, turn + number / len(models) * POLL_S - time.monotonic()))
                if model_id not in found and runway.staleness.get_staleness(model_id).verdict == STALE:
                    found[model_id] = time.monotonic()
            turn += POLL_S

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        # In another order than they are asked for, or every batch would come just after its question.
        sent = _drift(sender, [models[place] for place in np.random.default_rng(5).permutation(len(models))])
        _until(lambda: all(model_id in found for model_id in models))
    finally:
        done.set()
        thread.join()
    return sent, found


def _until(reached: Callable[[], bool], *, pause_s: float = 0.05) -> None:
    """Wait for a condition; RuntimeError if it does not come."""
    begun = time.monotonic()
    while not reached():
        if time.monotonic() - begun > SETTLE_S_MAX:
            raise RuntimeError(f"not reached within {SETTLE_S_MAX:.0f} s")
        time.sleep(pause_s)


def _lags_ms(sent: dict[str, float], arrived: dict[str, float]) -> npt.NDArray[np.float64]:
    return np.array([(arrived[model_id] - at) * 1e3 for model_id, at in sent.items()])
