"""[start_5k_s] Start from a snapshot of 5,000 models and 50,000 edges.

The fleet is registered through the API and the control plane stopped cleanly, which leaves a snapshot. Then the
process is started again, several times. The value is the start proper: from the configuration being read (by the log)
to the first answered GetModel, so leadership, snapshot, check of the chain, tail, listening. Interpreter and imports
come before that and do not depend on the fleet; the whole, from exec to that answer, is shown beside it.
"""

import subprocess
import sys
import time

import numpy as np
import psutil
from runway.v1 import graph_pb2, graph_pb2_grpc, registry_pb2, registry_pb2_grpc

from bench.fleet import Fleet, make_fleet
from bench.plane import Plane, load_fleet, running_plane
from bench.table import Row

IDS = ("start_5k_s",)

STARTS = 5


def run() -> list[Row]:
    """Load once, start several times."""
    fleet = make_fleet(models=5_000, others=2_000, dependencies=50_000)
    with running_plane() as plane:
        load_fleet(plane.address, fleet)
        plane.stop()
        start, answered, cpu = np.median([_start_and_ask(plane, fleet) for _ in range(STARTS)], axis=0).tolist()
    imports = [_imports_s() for _ in range(STARTS)]
    return [
        Row(
            id="start_5k_s",
            value=start,
            unit="s",
            peers={
                "exec to first answer": answered,
                "exec to first answer, CPU": cpu,
                "interpreter and imports alone": float(np.median(imports)),
            },
            note=(
                "target < 1; configuration read to first answer, from a snapshot of 5,000 models and 50,000 edges; "
                "interpreter and imports come on top"
            ),
        )
    ]


def _start_and_ask(plane: Plane, fleet: Fleet) -> tuple[float, float, float]:
    """Seconds of the start proper, from exec to the answer, and of CPU; checks that the whole fleet is there."""
    begun = time.perf_counter()
    listening_s = plane.start()
    with plane.channel() as channel:
        model_id = fleet.models[-1].removeprefix("model:")
        registry = registry_pb2_grpc.RegistryServiceStub(channel)
        registry.GetModel(registry_pb2.GetModelRequest(model_id=model_id), timeout=30, wait_for_ready=True)
        answered_s = time.perf_counter() - begun
        cpu_s = sum(psutil.Process(plane.pid).cpu_times()[:2])
        graph = graph_pb2_grpc.GraphServiceStub(channel).GetGraph(graph_pb2.GetGraphRequest(), timeout=30)
    if len(graph.nodes) != len(fleet.node_ids) or len(graph.dependencies) != len(fleet.dependencies):
        raise AssertionError(f"{len(graph.nodes)} nodes and {len(graph.dependencies)} edges came back")
    plane.stop()
    return plane.recovery_s() + answered_s - listening_s, answered_s, cpu_s


def _imports_s() -> float:
    """Seconds to start an interpreter that imports all of the control plane and ends."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import control_plane.bootstrap"], check=True)
    return time.perf_counter() - begun
