"""A real control plane to measure: embedded Postgres and `python -m control_plane`, in a directory that vanishes."""

import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import grpc
from runway.v1 import common_pb2, graph_pb2, registry_pb2
from runway_client import connect

from bench.fleet import Fleet
from control_plane.adapters.postgres.embedded import EmbeddedPostgres

START_S_MAX = 60.0
STOP_S_MAX = 30.0
POLL_S = 0.005

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.max_send_message_length", 64 * 2**20),
    ("grpc.enable_http_proxy", 0),
)

TIERS = (common_pb2.TIER_1, common_pb2.TIER_2, common_pb2.TIER_3, common_pb2.TIER_4)

REGISTERING_AT_ONCE = 32
"""Calls in flight while a fleet is loaded, so that they share commits."""

NODES_AT_ONCE = 10_000
DEPENDENCIES_AT_ONCE = 20_000
"""So many a call: all are judged and applied in one go, and others wait meanwhile."""

T = TypeVar("T")


class Plane:
    """One database and, while started, one control plane process on it."""

    def __init__(self, home: Path, module: str = "control_plane") -> None:
        """`module` runs the control plane; another one may add stamps to it."""
        self.home = home
        self.module = module
        self.postgres = EmbeddedPostgres(home / "postgres")
        self.address = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def pid(self) -> int:
        """Process id of the running control plane."""
        if self._process is None:
            raise RuntimeError("the control plane is not running")
        return self._process.pid

    def start(self) -> float:
        """Start the control plane; returns the seconds from exec to the first line that says it listens."""
        self._starts += 1
        log_path = self.home / f"control_plane_{self._starts}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNWAY_")}
        environment |= {
            "RUNWAY_HOME": str(self.home / "state"),
            "RUNWAY_DATABASE_URL": self.postgres.url(),
            "RUNWAY_ADDRESS": "127.0.0.1:0",
            "RUNWAY_LINEAGE_ADDRESS": "",
        }
        begun = time.perf_counter()
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module], env=environment, stderr=log, stdout=log
            )
        while time.perf_counter() - begun < START_S_MAX:
            address = _listening(log_path)
            if address:
                self.address = address
                return time.perf_counter() - begun
            if self._process.poll() is not None:
                break
            time.sleep(POLL_S)
        self.stop()
        raise RuntimeError(f"the control plane did not start: {log_path.read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop the control plane cleanly; it leaves a snapshot."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def recovery_s(self) -> float:
        """Seconds from configuration read to listening of the last start, by the clock of its log."""
        lines = (self.home / f"control_plane_{self._starts}.log").read_text().splitlines()
        # What libraries print themselves is no JSON and no concern of ours.
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        at = {entry["event"]: datetime.fromisoformat(entry["timestamp"]) for entry in entries}
        return (at["server.listening"] - at["configuration"]).total_seconds()

    def channel(self) -> grpc.Channel:
        """A channel to the running control plane."""
        return grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)


@contextmanager
def running_plane(module: str = "control_plane") -> Iterator[Plane]:
    """A control plane on an empty database; both end, and their files go, with the block."""
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        plane = Plane(Path(directory), module)
        plane.postgres.start()
        try:
            plane.start()
            yield plane
        finally:
            plane.stop()
            plane.postgres.stop()
            plane.postgres.destroy()


def _listening(log_path: Path) -> str:
    """The address in the log line `server.listening`, or empty."""
    for line in log_path.read_text().splitlines():
        if "server.listening" in line:
            try:
                return str(json.loads(line)["address"])
            except ValueError:
                return ""  # half a line; it will be whole at the next look
    return ""


def load_fleet(address: str, fleet: Fleet) -> None:
    """Register and declare a whole fleet through the API, retrying as any client does."""
    others = fleet.datasets + fleet.features + fleet.consumers
    with connect(address) as runway, ThreadPoolExecutor(REGISTERING_AT_ONCE) as pool:
        for _ in pool.map(runway.registry.register_model, _models(fleet.models)):
            pass
        for some in batched(others, NODES_AT_ONCE):
            runway.graph.declare_nodes(_node(node_id) for node_id in some)
        for edges in batched(fleet.dependencies, DEPENDENCIES_AT_ONCE):
            runway.graph.declare_dependencies(
                graph_pb2.Dependency(upstream_id=upstream, downstream_id=downstream) for upstream, downstream in edges
            )


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Slices of some size; the last may be shorter."""
    return (items[first : first + size] for first in range(0, len(items), size))


def _node(node_id: str) -> graph_pb2.Node:
    team = f"team_{zlib.crc32(node_id.encode()) % 20}"
    return graph_pb2.Node(node_id=node_id, owner=f"{team}@example.com", team=team)


def _models(node_ids: Sequence[str]) -> Iterator[registry_pb2.Model]:
    for number, node_id in enumerate(node_ids):
        team = f"team_{number % 20}"
        yield registry_pb2.Model(
            model_id=node_id.removeprefix("model:"),
            owner=f"{team}@example.com",
            team=team,
            tier=TIERS[number % 4],
            task_type=common_pb2.TASK_TYPE_BINARY,
            description="A model of the benchmark fleet.",
        )
