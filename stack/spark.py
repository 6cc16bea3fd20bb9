"""A real Spark cluster in a folder: a standalone master and workers, each a process of its own."""

import os
import signal
import subprocess
from pathlib import Path

from stack.kafka import free_port, wait_for_port
from tools.jars import ROOT, Engines
from tools.java import java_options

WORKERS = 2
WORKER_MEMORY = "1g"
DRIVER_MEMORY = "1g"
JOB_END_S_MAX = 20.0
SHUFFLE_PARTITIONS = 4
"""For a machine with two cores; Spark's own 200 are for a cluster."""


class Cluster:
    """Master and workers. `submit` runs one of our jobs on them."""

    def __init__(self, home: Path, engines: Engines, *, workers: int = WORKERS) -> None:
        self.home = home
        self._engines = engines
        self._workers = workers
        self._processes: list[subprocess.Popen[bytes]] = []
        self._jobs: list[subprocess.Popen[bytes]] = []
        self.master = ""
        """spark://host:port once started."""
        home.mkdir(parents=True, exist_ok=True)
        asked = [str(engines.python), "-c", "import pyspark, os; print(os.path.dirname(pyspark.__file__))"]
        self._spark_home = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    def start(self) -> None:
        """Start master and workers, and wait until they listen."""
        port = free_port()
        self.master = f"spark://127.0.0.1:{port}"
        deploy = "org.apache.spark.deploy"
        web = ("--webui-port", "0")
        master = self._java("master", f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", str(port), *web)
        wait_for_port(port, master, self.home / "master.log")
        for number in range(self._workers):
            own = free_port()
            room = ("--cores", "1", "--memory", WORKER_MEMORY, "--work-dir", str(self.home / "work"))
            where = ("--host", "127.0.0.1", "--port", str(own))
            name = f"worker-{number}"
            worker = self._java(name, f"{deploy}.worker.Worker", *where, *room, *web, self.master)
            wait_for_port(own, worker, self.home / f"{name}.log")

    def _java(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        java = str(self._engines.java / "bin" / "java")
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    java,
                    "-Xmx256m",
                    "-XX:+UseSerialGC",
                    *java_options(),
                    "-cp",
                    f"{self._spark_home}/jars/*",
                    *arguments,
                ],
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=self._environment(),
            )
        self._processes.append(process)
        return process

    def submit(self, *arguments: str, log: str = "job") -> "subprocess.Popen[bytes]":
        """Run `control_plane.offline.spark_job` with these arguments; its output goes to a file of `home`."""
        with (self.home / f"{log}.log").open("ab") as sink:
            job = subprocess.Popen(
                [str(self._engines.python), "-m", "control_plane.offline.spark_job", *arguments],
                stdout=sink,
                stderr=sink,
                cwd=self.home,
                env=self._job_environment(),
                start_new_session=True,  # the driver is a Java beside a Python: both go with one signal to the group
            )
        self._jobs.append(job)
        return job

    def job_command(self) -> list[str]:
        """A command line that runs a job from anywhere, but for the job's own arguments."""
        said = {name: value for name, value in self._job_environment().items() if os.environ.get(name) != value}
        settings = [f"{name}={value}" for name, value in sorted(said.items())]
        return ["env", *settings, str(self._engines.python), "-m", "control_plane.offline.spark_job"]

    def _job_environment(self) -> dict[str, str]:
        return self._environment() | {"PYSPARK_SUBMIT_ARGS": self._submit_arguments()}

    def _environment(self) -> dict[str, str]:
        python = str(self._engines.python)
        paths = os.pathsep.join((str(ROOT), str(ROOT / "clients" / "python")))
        return self._engines.environment | {
            "PYTHONPATH": paths,
            "PYSPARK_PYTHON": python,
            "PYSPARK_DRIVER_PYTHON": python,
            "SPARK_HOME": self._spark_home,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_SCALA_VERSION": "2.13",  # else a worker looks for the folders of a source checkout
        }

    def _submit_arguments(self) -> str:
        jars = ",".join(str(jar) for jar in sorted(self._engines.spark_jars.glob("*.jar")))
        settings = {
            "spark.sql.shuffle.partitions": str(SHUFFLE_PARTITIONS),
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.executor.memory": "700m",
            "spark.cores.max": str(self._workers),
            "spark.databricks.delta.snapshotPartitions": "2",
        }
        said = " ".join(f"--conf {name}={value}" for name, value in settings.items())
        return (
            f"--master {self.master or 'local[2]'} --driver-memory {DRIVER_MEMORY} --jars {jars} {said} pyspark-shell"
        )

    def stop(self) -> None:
        """End all of it, jobs first."""
        for job in self._jobs:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGTERM)
                try:
                    job.wait(JOB_END_S_MAX)
                except subprocess.TimeoutExpired:
                    os.killpg(job.pid, signal.SIGKILL)
                    job.wait()
        self._jobs.clear()
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes.clear()
