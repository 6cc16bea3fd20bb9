"""A run launcher that starts each run in a process of its own, which loads only the models of that run.

Dagster's default launcher has the code server fork the run: the run loads the whole fleet (seven seconds of it at
5,000 assets), and dies or is orphaned with the code server. Here the worker is a child of whoever dequeues, in a
session of its own, so it outlives the daemon, the code server and their reloads.

A worker is found again by its command line, which carries the run id: no pid to store, none to be reused by a stranger,
and nothing lost when the daemon dies between starting a worker and writing down that it did.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
from dagster import DagsterInvariantViolationError, DagsterRun
from dagster._config.config_schema import UserConfigSchema
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, serialize_value
from dagster._serdes.config_class import ConfigurableClassData

from assets.tags import EXIT_TAG, ONLY_MODELS_VARIABLE, WORKER_TAG

EXECUTE_RUN = "execute_run"
DRILL_FILE = "no-launches"
"""In Dagster's home: while it is there nothing is started. The demo plays an outage with it, operators a drill."""


class DagsterLaunchDrillError(Exception):
    """Nothing is started while the drill lasts."""


class LeanRunLauncher(RunLauncher[Any], ConfigurableClass):
    """Starts `dagster api execute_run` for a run."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Where Dagster made it from."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """No settings."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """As Dagster makes it from dagster.yaml."""
        return cls(inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the worker of a run."""
        run, origin = context.dagster_run, context.job_code_origin
        if (Path(os.environ.get("DAGSTER_HOME", ".")) / DRILL_FILE).exists():
            raise DagsterLaunchDrillError(f"no worker can be started: {DRILL_FILE} is in Dagster's home")
        if origin is None:
            raise DagsterInvariantViolationError(f"run {run.run_id} does not say where its code is")
        arguments = ExecuteRunArgs(
            job_origin=origin, run_id=run.run_id, instance_ref=self._instance.get_ref(), set_exit_code_on_failure=None
        )
        self._reap()
        worker = subprocess.Popen(  # noqa: S603 (our own interpreter)
            # The same environment as ours, whatever PATH says: `api execute_run <arguments>`.
            [sys.executable, "-m", "dagster", "api", EXECUTE_RUN, serialize_value(arguments)],
            env={**os.environ, **worker_environment(run)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
            start_new_session=True,
        )
        self._children[run.run_id] = worker
        try:
            self._instance.add_run_tags(run.run_id, {WORKER_TAG: str(worker.pid)})
        except Exception:
            # A run that says it has no worker must have none: Runway is told that it was never started.
            worker.kill()
            worker.wait()
            raise
        self._instance.report_engine_event(
            f"Started a worker of its own (pid {worker.pid}).",
            run,
            EngineEventData.in_process(worker.pid),
            cls=type(self),
        )

    def terminate(self, run_id: str) -> bool:
        """Ask the worker to end; a run without one is over at once. False if the run has ended already."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        self._reap()
        worker = find_worker(run_id)
        if worker is None:
            self._instance.report_run_canceled(run, message="Its worker was gone already.")
            return True
        try:
            # Dagster's worker ends a run in order when it is interrupted.
            worker.send_signal(2)
        except psutil.NoSuchProcess:
            self._instance.report_run_canceled(run, message="Its worker was gone already.")
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Is there a worker of this run on this machine?"""
        self._reap()
        worker = find_worker(run.run_id)
        if worker is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its worker process is gone")
        return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(worker.pid))

    def join(self, timeout: int = 30) -> None:
        """Wait for the workers this process started."""
        for worker in list(self._children.values()):
            worker.wait(timeout)
        self._reap()

    def _reap(self) -> None:
        """Let go of workers that have ended, so that they do not stay behind as zombies."""
        ended = {run_id: code for run_id, worker in self._children.items() if (code := worker.poll()) is not None}
        for run_id, code in ended.items():
            del self._children[run_id]
            if code:
                # Kept for whoever tells Runway why: killed for want of memory is another failure than a bug.
                with suppress(Exception):
                    self._instance.add_run_tags(run_id, {EXIT_TAG: str(code)})


def worker_environment(run: DagsterRun) -> dict[str, str]:
    """What a worker is told beyond what its launcher knows; nothing for a run of no particular assets."""
    keys = {*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())}
    model_ids = sorted(key.path[0] for key in keys if len(key.path) == 1)
    return {ONLY_MODELS_VARIABLE: json.dumps(model_ids) if model_ids and len(model_ids) == len(keys) else ""}


def find_worker(run_id: str) -> psutil.Process | None:
    """The process that executes a run, by its command line."""
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        command: list[str] = process.info["cmdline"] or []
        if EXECUTE_RUN in command and run_id in command[-1]:
            return process
    return None


def _has_descriptor(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
