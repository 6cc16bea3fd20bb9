"""Real schedulers in processes of the test's own: Airflow with SQLite, Metaflow with a local datastore."""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from control_plane.adapters.schedulers.airflow import AirflowScheduler
from control_plane.adapters.schedulers.metaflow import MetaflowScheduler
from control_plane.app.schedulers import Job, Run, RunState, Scheduler
from tests.schedulers.worlds import a_job

HERE = Path(__file__).parent
START_S_MAX = 300.0
STOP_S_MAX = 5.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Trainings:
    """A folder in which trainings say what they were told, and are told how to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def let(self, job: Job, state: RunState) -> None:
        """End it so."""
        part = self.folder / f"{job.attempt_id}.part"
        part.write_text(state.value)
        part.rename(self.folder / f"{job.attempt_id}.end")

    async def told(self, job: Job) -> list[dict[str, str]]:
        """What each run of a job was told, as soon as one has begun."""
        file = self.folder / f"{job.attempt_id}.told"
        async with asyncio.timeout(START_S_MAX):
            while not file.exists() or not file.read_text().endswith("\n"):
                await asyncio.sleep(0.05)
        return [json.loads(line) for line in file.read_text().splitlines()]


class Airflow:
    """Airflow's API server, scheduler and DAG processor."""

    def __init__(self, python: Path, home: Path) -> None:
        self.home = home
        self.trainings = Trainings(home / "trainings")
        self.password = secrets.token_hex(8)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps({"runway": self.password}))
        config = {
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_FOLDER": str(HERE / "dags"),
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "4",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "runway:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "SCHEDULER__JOB_HEARTBEAT_SEC": "1",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "TRIGGERER__DEFAULT_CAPACITY": "1",
        }
        self._environment = {name: text for name, text in os.environ.items() if not name.startswith("RUNWAY_")} | {
            "AIRFLOW_HOME": str(home),
            "TRAINING_FOLDER": str(self.trainings.folder),
            "PYTHONWARNINGS": "ignore",
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            **{f"AIRFLOW__{name}": text for name, text in config.items()},
        }
        self._airflow = str(python.parent / "airflow")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Make the database and run everything; the DAG can be started afterwards."""
        subprocess.run(
            [self._airflow, "db", "migrate"],
            env=self._environment,
            check=True,
            capture_output=True,
            timeout=START_S_MAX,
        )
        self._spawn("api-server", "--port", str(self.port), "--host", "127.0.0.1")
        self._spawn("scheduler", "--skip-serve-logs")
        self._spawn("dag-processor")
        deadline_s = time.monotonic() + START_S_MAX
        while not self._ready():
            if time.monotonic() > deadline_s:
                raise AssertionError(f"Airflow is not up after {START_S_MAX:g} s: {self.words()}")
            time.sleep(0.25)

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self.home / f"{name}.log").open("wb") as out:
            self._processes[name] = subprocess.Popen(
                [self._airflow, name, *arguments],
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _ready(self) -> bool:
        """Does it answer, and does it know the DAG?"""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise AssertionError(f"Airflow's {name} ended: {self.words()}")
        try:
            with urlopen(f"{self.url}/api/v2/monitor/health", timeout=5) as answer:
                healthy = json.load(answer)["scheduler"]["status"] == "healthy"
        except (URLError, OSError, KeyError):
            return False
        return healthy and self._knows_the_dag()

    def _knows_the_dag(self) -> bool:
        async def paused() -> bool:
            scheduler = self.scheduler()
            try:
                return (await scheduler.status_of_dag("runway_retrain")) and (
                    await scheduler.status_of_dag("runway_paused")
                )
            finally:
                await scheduler.close()

        return asyncio.run(paused())

    def scheduler(self, dag: str = "runway_retrain", password: str = "", timeout_s: float = 30.0) -> "KnowingAirflow":
        """An adapter before it."""
        secret = password or self.password
        return KnowingAirflow(self.url, "airflow", dag=dag, username="runway", secret=secret, timeout_s=timeout_s)

    def freeze(self, frozen: bool) -> None:
        """Let the API server do nothing for a while; what it hears it does later."""
        os.killpg(self._processes["api-server"].pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def words(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in self.home.glob("*.log"))

    def stop(self) -> None:
        """End everything."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes.values():
                if process.poll() is None or number == signal.SIGKILL:
                    try:
                        os.killpg(process.pid, number)
                    except ProcessLookupError:
                        continue
            deadline_s = time.monotonic() + STOP_S_MAX
            for process in self._processes.values():
                try:
                    process.wait(max(0.1, deadline_s - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue


class KnowingAirflow(AirflowScheduler):
    """The adapter, and what tests ask of Airflow besides."""

    async def status_of_dag(self, dag: str) -> bool:
        """Does Airflow know a DAG by now?"""
        return (await self._call("GET", f"/dags/{dag}")).ok

    async def pause(self, dag: str, paused: bool) -> None:
        """Pause a DAG, or unpause it."""
        (await self._call("PATCH", f"/dags/{dag}?update_mask=is_paused", {"is_paused": paused})).checked()

    async def run_ids(self, dag: str) -> list[str]:
        """All runs of a DAG."""
        told = (await self._call("GET", f"/dags/{dag}/dagRuns?limit=100")).checked().fields()
        return [run["dag_run_id"] for run in told["dag_runs"]]


class AirflowWorld:
    """The real Airflow."""

    can_be_down = True

    def __init__(self, airflow: Airflow) -> None:
        self.airflow = airflow
        self.knowing = airflow.scheduler()
        self.scheduler: Scheduler = self.knowing

    async def let(self, job: Job, state: RunState) -> None:
        self.airflow.trainings.let(job, state)

    async def runs(self, job: Job) -> int:
        return (await self.knowing.run_ids("runway_retrain")).count(job.attempt_id)

    async def parameters(self, job: Job) -> dict[str, str]:
        (told,) = await self.airflow.trainings.told(job)
        return told

    def down(self, down: bool) -> None:
        self.airflow.freeze(down)
        self.scheduler = self.airflow.scheduler(timeout_s=2.0 if down else 30.0)

    def forget(self) -> None:
        self.scheduler = self.airflow.scheduler(dag="nobody")

    async def close(self) -> None:
        await self.scheduler.close()


class MetaflowWorld:
    """The real Metaflow, as processes on this machine."""

    can_be_down = False

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trainings = Trainings(folder / "trainings")
        self.store = folder / "store"
        self.store.mkdir()
        for name, text in {
            "TRAINING_FOLDER": str(self.trainings.folder),
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(self.store),
            "METAFLOW_HOME": str(self.store / "home"),
            "METAFLOW_DEFAULT_METADATA": "local",
            "METAFLOW_DEFAULT_DATASTORE": "local",
            "METAFLOW_USER": "anna",
        }.items():
            monkeypatch.setenv(name, text)
        self.home = folder / "runs"
        self.jobs: list[Job] = []
        self.scheduler: Scheduler = self.anew()

    def anew(self) -> MetaflowScheduler:
        """An adapter that remembers nothing."""
        return MetaflowScheduler(
            str(HERE / "flows" / "training.py"), "metaflow", python=sys.executable, home=str(self.home)
        )

    async def let(self, job: Job, state: RunState) -> None:
        self.trainings.let(job, state)

    async def runs(self, job: Job) -> int:
        return len(await self.trainings.told(job))

    async def parameters(self, job: Job) -> dict[str, str]:
        (told,) = await self.trainings.told(job)
        return told

    def down(self, down: bool) -> None:
        raise NotImplementedError

    def forget(self) -> None:
        self.scheduler = MetaflowScheduler(str(HERE / "nobody.py"), "metaflow", home=str(self.home))

    async def close(self) -> None:
        for place in self.home.glob("*"):
            job = a_job(place.name)
            await self.anew().stop(_run(job))
        await self.scheduler.close()


def _run(job: Job) -> Run:
    return Run(attempt_id=job.attempt_id, model_id=job.model_id)
