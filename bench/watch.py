"""[watch_lag_p99_ms] How long after an event is durable do 100 watchers have it, at 2,000 events a second.

Versions are promoted back and forth through gRPC, five events a call, paced by the clock whatever comes back. The
control plane stamps each commit with the machine's monotonic clock; each watcher, on a connection of its own, notes the
clock when a message arrives. A lag is one event at one watcher; every event must have arrived at every watcher.

Side by side, on the same machine and at the same rate, what people do without a change stream: 100 clients that poll
the audit log every 100 ms, and 100 sessions that LISTEN to Postgres and SELECT what is new when it notifies.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import psycopg
import uvloop
from numpy.typing import NDArray
from runway.v1 import common_pb2, registry_pb2, rollout_pb2
from runway_client import connect

from bench.plane import Plane, running_plane
from bench.stamped_plane import STAMP, STAMPS_FILE
from bench.table import Row

IDS = ("watch_lag_p99_ms",)

CLIENTS = 100
EVENTS_PER_S = 2_000
RUN_S = 6.0
WARM_S = 1.0
"""At the beginning of a run, not counted."""

SETTLE_S = 3.0
"""After the last event, for the last to arrive."""

PACE_S = 0.01
MODELS = 40
IN_FLIGHT_MAX = 400
READY_S_MAX = 60.0

PAYLOAD_CHARS = 500
"""Of the peer's rows: about what an event of ours takes."""

Stamps = NDArray[np.int64]
"""Rows of (last revision, nanoseconds)."""


def run() -> list[Row]:
    """All three at one rate."""
    with running_plane("bench.stamped_plane") as plane:
        _register(plane.address)
        watched, rate = _ours(plane, "watch")
        polled, polled_rate = _ours(plane, "poll")
        listened, listened_rate = _listened(plane)
    return [
        Row(
            id="watch_lag_p99_ms",
            value=watched[1],
            unit="ms",
            peers={
                "runway p50": watched[0],
                "polling ListEvents each 100 ms p50": polled[0],
                "polling ListEvents each 100 ms p99": polled[1],
                "postgres LISTEN and SELECT p50": listened[0],
                "postgres LISTEN and SELECT p99": listened[1],
                "polling p99 to ours": polled[1] / watched[1],
                "LISTEN p99 to ours": listened[1] / watched[1],
            },
            note=(
                f"target < 50; {CLIENTS} clients on a connection each, {rate:,.0f} events/s written through gRPC "
                f"(polling: {polled_rate:,.0f}, LISTEN: {listened_rate:,.0f}), all on these cores; from durable to "
                "arrived, every event at every client"
            ),
        )
    ]


def _register(address: str) -> None:
    """Models with two versions each."""
    with connect(address, "bench") as runway:
        for number in range(MODELS):
            model_id = f"m_{number:03d}"
            runway.registry.register_model(
                registry_pb2.Model(
                    model_id=model_id, team="bench", tier=common_pb2.TIER_2, task_type=common_pb2.TASK_TYPE_BINARY
                )
            )
            for _ in range(2):
                version = registry_pb2.ModelVersion(
                    model_id=model_id, artifact_uri="file:///a", artifact_sha256="0" * 64
                )
                version.trained_until.FromSeconds(1_362_000_000)
                runway.registry.register_version(version)


def _ours(plane: Plane, way: str) -> tuple[tuple[float, float], float]:
    """(p50, p99) in ms, and events per second, of one run against the control plane."""
    stamps_file = plane.home / "state" / STAMPS_FILE
    with connect(plane.address) as runway, _clients(way, plane.address) as arrivals:
        before = runway.operations.get_status().revision
        written_s = uvloop.run(_promote(plane.address))
        last = runway.operations.get_status().revision
        time.sleep(SETTLE_S)
    stamps = np.frombuffer(stamps_file.read_bytes(), dtype=np.int64).reshape(-1, STAMP.size // 8)
    return _lags(stamps, arrivals(), before, last, whole=way == "watch"), (last - before) / written_s


async def _promote(address: str) -> float:
    """Promote back and forth for as long as a run is; the seconds it took."""
    async with grpc.aio.insecure_channel(address) as channel:
        promote = channel.unary_unary(
            "/runway.v1.RolloutService/PromoteVersion",
            request_serializer=rollout_pb2.PromoteVersionRequest.SerializeToString,
            response_deserializer=rollout_pb2.PromoteVersionResponse.FromString,
        )
        mutation = common_pb2.Mutation(actor="bench", reason="bench")

        async def one(number: int) -> int:
            turn, place = divmod(number, MODELS)
            reply = await promote(
                rollout_pb2.PromoteVersionRequest(
                    mutation=mutation, model_id=f"m_{place:03d}", version=1 + turn % 2, force=True
                ),
                timeout=60,
            )
            return int(reply.revision)

        first = [await one(number) for number in range(2 * MODELS)]
        events_each = (first[-1] - first[MODELS]) / (MODELS - 1)
        return await _paced(one, EVENTS_PER_S / events_each, 2 * MODELS)


async def _paced(one: Callable[[int], Awaitable[object]], calls_per_s: float, number: int) -> float:
    """Make calls at a rate, whatever comes back; the seconds they took."""
    under_way: set[asyncio.Task[object]] = set()
    begun, due = time.perf_counter(), 0.0
    first = number
    while (elapsed_s := time.perf_counter() - begun) < RUN_S:
        due = elapsed_s * calls_per_s
        while number - first < due and len(under_way) < IN_FLIGHT_MAX:
            task = asyncio.ensure_future(one(number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
        await asyncio.sleep(PACE_S)
    await asyncio.gather(*under_way)
    return time.perf_counter() - begun


def _listened(plane: Plane) -> tuple[tuple[float, float], float]:
    """The same of Postgres: batches of rows, each with a NOTIFY, at the same rate."""
    url = plane.postgres.url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE bench_event (seq bigint PRIMARY KEY, payload text NOT NULL)")
        with _clients("listen", url) as arrivals:
            stamps: list[tuple[int, int]] = []
            begun, seq = time.perf_counter(), 0
            while (elapsed_s := time.perf_counter() - begun) < RUN_S:
                due = int(elapsed_s * EVENTS_PER_S)
                if due > seq:
                    fresh = list(range(seq + 1, due + 1))
                    with connection.transaction():
                        connection.execute(
                            "INSERT INTO bench_event SELECT unnest(%s::bigint[]), repeat('x', %s)",
                            (fresh, PAYLOAD_CHARS),
                        )
                        connection.execute("NOTIFY bench_event")
                    stamps.append((due, time.monotonic_ns()))
                    seq = due
                time.sleep(PACE_S)
            written_s = time.perf_counter() - begun
            time.sleep(SETTLE_S)
    return _lags(np.array(stamps, dtype=np.int64), arrivals(), 0, seq, whole=False), seq / written_s


@contextmanager
def _clients(way: str, where: str) -> Iterator[Callable[[], NDArray[np.int64]]]:
    """Clients in a process of their own; what is given reads their arrivals once they have ended."""
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        file = Path(directory) / "arrivals.npy"
        found: list[NDArray[np.int64]] = []
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.watch_clients", way, where, str(CLIENTS), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            if process.stdout is None or process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"the clients that {way} did not begin")
            yield lambda: found[0]
            process.communicate(timeout=READY_S_MAX)
            if process.returncode:
                raise RuntimeError(f"the clients that {way} failed")
            found.append(np.load(file))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _lags(stamps: Stamps, arrivals: NDArray[np.int64], before: int, last: int, *, whole: bool) -> tuple[float, float]:
    """p50 and p99 over all events after `before` and all clients, in ms. Unless `whole` is asked for, what never
    arrived counts as arrived when the run ended: its lag was at least that.

    Args:
        stamps: (last revision of a batch, ns), ascending.
        arrivals: (client, revision up to which it knows all, ns), ascending in time for each client.
    """
    revisions = np.arange(before + 1, last + 1)
    durable_ns = stamps[np.searchsorted(stamps[:, 0], revisions), 1]
    counted = durable_ns >= durable_ns[0] + WARM_S * 1e9
    ended_ns = arrivals[:, 2].max()
    lags = []
    for client in range(CLIENTS):
        own = arrivals[arrivals[:, 0] == client]
        if whole and (not len(own) or own[-1, 1] < last):
            raise AssertionError(f"client {client} did not get everything")
        arrived_ns = np.append(own[:, 2], ended_ns)
        lags.append(arrived_ns[np.searchsorted(own[:, 1], revisions[counted])] - durable_ns[counted])
    p50, p99 = np.percentile(np.concatenate(lags), [50, 99]) / 1e6
    return float(p50), float(p99)
