"""[trigger_vs_dagster_floor] From a request to a run that works: Runway and Dagster, against Dagster by itself.

Ours: `RequestRetrain` is answered by the control plane, a tick of the lease sensor takes it, Dagster queues a run, the
launcher starts a worker, the worker begins. Dagster by itself, as a user would set it up: a file appears, a sensor of
one second's interval sees it, Dagster's own queue and launcher start a worker: as Dagster comes; with a queue that
looks each second; and with that queue and Runway's launcher. All are timed from the request to Dagster's `startTime` of
the run, one after the other at odd moments of the daemon's loop, with real daemons, on the same machine.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import numpy as np
from runway_client import Runway, connect

from bench.table import Row

IDS = ("trigger_vs_dagster_floor",)

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TRIGGERS = 12
MODEL = "plane_reliability"
"""The smallest of the flights; nothing is upstream of it."""
ODD_S = 0.37
"""Added to each wait, so that triggers fall anywhere in the daemon's five seconds."""
READY_S_MAX = 300.0
STARTED_S_MAX = 120.0
POLL_S = 0.1

QUICK_QUEUE = """
run_coordinator:
  module: dagster
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
"""
OUR_LAUNCHER = """
run_launcher:
  module: assets.launcher
  class: LeanRunLauncher
"""
RUN_OF = """
query($key: String!, $value: String!) {
  runsOrError(filter: {tags: [{key: $key, value: $value}]}) { ... on Runs { results { startTime } } }
}"""


def run() -> list[Row]:
    """Ours, then Dagster as it comes, with a quick queue, and with our launcher too."""
    ours = np.array(list(_ours()))
    plain, quick, lean = (
        np.array(list(_floor(settings))) for settings in ("", QUICK_QUEUE, QUICK_QUEUE + OUR_LAUNCHER)
    )
    return [
        Row(
            id="trigger_vs_dagster_floor",
            value=float(np.median(ours) / np.median(plain)),
            unit="x",
            peers={
                "runway median s": float(np.median(ours)),
                "runway longest s": float(ours.max()),
                "dagster median s": float(np.median(plain)),
                "dagster longest s": float(plain.max()),
                "dagster, queue each second, median s": float(np.median(quick)),
                "dagster, queue each second, longest s": float(quick.max()),
                "the same with our launcher, median s": float(np.median(lean)),
                "runway to that": float(np.median(ours) / np.median(lean)),
            },
            note=f"request to run start, {TRIGGERS} triggers each, one at a time, real daemons; below 1 is sooner than "
            "a bare sensor in Dagster as it comes",
        )
    ]


def _ours() -> Iterator[float]:
    with tempfile.TemporaryDirectory() as folder:
        ports = {name: _free_port() for name in ("ADDRESS", "WEB_ADDRESS", "LINEAGE_ADDRESS", "SERVING_ADDRESS")}
        environment = {
            **os.environ,
            "RUNWAY_HOME": f"{folder}/home",
            **{f"RUNWAY_{name}": f"127.0.0.1:{port}" for name, port in ports.items()},
        }
        environment.pop("RUNWAY_DATABASE_URL", None)
        log = Path(folder) / "log"
        # A day of flights takes an hour: the clock moves, and hardly anything else happens by itself.
        command = [sys.executable, "-m", "stack", "up", "--no-people", "--days", "2", "--seconds-per-day", "3600"]
        with log.open("w") as said:
            stack = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            _until(lambda: "Runway is up" in log.read_text(), READY_S_MAX, "the stack did not come up")
            web = f"http://127.0.0.1:{ports['WEB_ADDRESS']}/graphql"
            with connect(f"127.0.0.1:{ports['ADDRESS']}", actor="bench") as runway:
                for number in range(TRIGGERS):
                    yield _asked_of_runway(runway, web)
                    time.sleep(ODD_S * (number % 5))
        finally:
            stack.terminate()
            stack.wait(60)


def _floor(settings: str) -> Iterator[float]:
    with tempfile.TemporaryDirectory() as folder:
        home, files = Path(folder) / "home", Path(folder) / "files"
        home.mkdir()
        files.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n" + settings)
        environment = {**os.environ, "DAGSTER_HOME": str(home), "FLOOR_FOLDER": str(files)}
        command = [str(BIN / "dagster-daemon"), "run", "-m", "bench.peers.floor_location", "-d", str(ROOT)]
        with (Path(folder) / "log").open("w") as said:
            daemon = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            with dg.DagsterInstance.from_config(str(home)) as instance:
                _asked_of_dagster(instance, files / "first")  # waits for the daemon to be there
                for number in range(TRIGGERS):
                    yield _asked_of_dagster(instance, files / f"trigger{number}")
                    time.sleep(1 + ODD_S * (number % 5))
        finally:
            daemon.terminate()
            daemon.wait(60)


def _asked_of_runway(runway: Runway, web: str) -> float:
    """Seconds from a request to the start of its run; returns when the retrain has ended."""
    asked_s = time.time()
    retrain_id = runway.retraining.request_retrain(MODEL, ignore_cooldown=True).retrain.retrain_id
    taken_s = _started(lambda: _run_of(web, "runway/retrain", retrain_id)) - asked_s
    _until(
        lambda: runway.retraining.get_retrain(retrain_id).HasField("ended_at"), STARTED_S_MAX, "a retrain did not end"
    )
    return taken_s


def _asked_of_dagster(instance: dg.DagsterInstance, file: Path) -> float:
    """Seconds from a file to the start of its run."""
    asked_s = time.time()
    file.touch()
    return _started(lambda: _start_in(instance, file.name)) - asked_s


def _start_in(instance: dg.DagsterInstance, trigger: str) -> float | None:
    records = instance.get_run_records(filters=dg.RunsFilter(tags={"trigger": trigger}))
    return records[0].start_time if records else None


def _run_of(web: str, key: str, value: str) -> float | None:
    asked = json.dumps({"query": RUN_OF, "variables": {"key": key, "value": value}}).encode()
    request = urllib.request.Request(web, asked, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        runs = json.load(answer)["data"]["runsOrError"]["results"]
    return float(runs[0]["startTime"]) if runs and runs[0]["startTime"] else None


def _started(look: Callable[[], float | None]) -> float:
    """When a run started, seconds since the epoch; waited for."""
    found: list[float] = []

    def there() -> bool:
        at = look()
        if at is not None:
            found.append(at)
        return at is not None

    _until(there, STARTED_S_MAX, "a run did not start")
    return found[-1]


def _until(holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline_s = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(otherwise)
        time.sleep(POLL_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
