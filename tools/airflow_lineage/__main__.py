"""Run the pipeline in `dags/` on a real Airflow with its OpenLineage provider; keep what it sends.

    python -m tools.airflow_lineage                          install Airflow (once), run, print the events
    python -m tools.airflow_lineage --record FOLDER          also write them to FOLDER, without paths and people
    python -m tools.airflow_lineage --to http://127.0.0.1:7434   also pass each on to Runway, as it arrives

Airflow has an environment of its own in `.airflow/` (it and Dagster want different versions of the same packages). It
runs as `airflow standalone`, because `airflow dags test` runs all tasks in one process, and what one task's hooks have
collected then appears in the events of all later ones.
"""

import argparse
import gzip
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HOME = ROOT / ".airflow"
PACKAGES = ("apache-airflow>=3,<4", "apache-airflow-providers-openlineage", "apache-airflow-providers-common-sql")
DAG = "fares"
NAMESPACE = "airflow_test"

START_S_MAX = 120.0
RUN_S_MAX = 180.0

Event = dict[str, object]


class Recorder(http.server.ThreadingHTTPServer):
    """Takes events as an OpenLineage backend does, keeps them, and passes them on if there is somewhere to."""

    def __init__(self, to: str | None) -> None:
        super().__init__(("127.0.0.1", 0), Recording)
        self.to = to
        self.events: list[Event] = []
        self.answers: list[int] = []
        self.changed = threading.Condition()

    def wait_for_end(self, job: str) -> bool:
        """Wait until the run of this job has ended, as the events say; False if it takes too long."""
        with self.changed:
            return self.changed.wait_for(lambda: any(_ends(event, job) for event in self.events), RUN_S_MAX)


class Recording(http.server.BaseHTTPRequestHandler):
    """One event."""

    def do_POST(self) -> None:
        """Keep it, pass it on as it came, answer what was answered."""
        server = self.server
        assert isinstance(server, Recorder)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = 201
        if server.to is not None:
            headers = {
                name: self.headers[name] for name in ("Content-Type", "Content-Encoding") if name in self.headers
            }
            request = urllib.request.Request(server.to + self.path, data=body, headers=headers, method="POST")  # noqa: S310
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                status = answer.status
        plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        with server.changed:
            server.events.append(json.loads(plain))
            server.answers.append(status)
            server.changed.notify_all()
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _ends(event: Event, job: str) -> bool:
    named = event.get("job")
    return isinstance(named, dict) and named.get("name") == job and event.get("eventType") in {"COMPLETE", "FAIL"}


def install() -> Path:
    """Airflow in its own environment; returns its `bin`."""
    bin_ = HOME / "venv" / "bin"
    if (bin_ / "airflow").exists():
        return bin_
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    subprocess.run([uv, "venv", "--quiet", "--python", "3.11", str(HOME / "venv")], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(bin_ / "python"), *PACKAGES], check=True)
    return bin_


def environment(bin_: Path, home: Path, endpoint: str) -> dict[str, str]:
    """What Airflow reads. All of its state is in `home`."""
    transport = {"type": "http", "url": endpoint, "endpoint": "api/v1/lineage", "compression": "gzip"}
    api_port, log_port, trigger_port = _free_ports(3)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "OPENLINEAGE"))}
    return plain | {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": api_port,
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{api_port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{api_port}/execution/",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": log_port,
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": trigger_port,
        # A busy machine is slow, not broken.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__OPENLINEAGE__NAMESPACE": NAMESPACE,
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
    }


def _free_ports(count: int) -> list[str]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def run_pipeline(to: str | None = None, home: Path | None = None) -> list[Event]:
    """Run the pipeline once on a real Airflow; returns the events in the order in which they arrived.

    Raises:
        RuntimeError: it did not come to an end; the message says where its log is.
    """
    bin_ = install()
    home = home or HOME / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    recorder = Recorder(to)
    threading.Thread(target=recorder.serve_forever, daemon=True).start()
    variables = environment(bin_, home, f"http://127.0.0.1:{recorder.server_port}")
    with (home / "airflow.log").open("wb") as log:
        airflow = subprocess.Popen(
            [str(bin_ / "airflow"), "standalone"], env=variables, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _trigger(bin_, variables, airflow)
            if not recorder.wait_for_end(DAG):
                raise RuntimeError(f"the run did not end within {RUN_S_MAX:g} s; see {home / 'airflow.log'}")
        finally:
            os.killpg(airflow.pid, signal.SIGTERM)
            try:
                airflow.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(airflow.pid, signal.SIGKILL)
                airflow.wait()
            recorder.shutdown()
            recorder.server_close()
    return recorder.events


def _trigger(bin_: Path, variables: dict[str, str], airflow: "subprocess.Popen[bytes]") -> None:
    """Start a run, as soon as Airflow serves and knows the pipeline."""
    deadline = time.monotonic() + START_S_MAX
    while not _serves(variables["AIRFLOW__API__BASE_URL"]):
        if airflow.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("Airflow did not start")
        time.sleep(1)
    while True:
        command = [str(bin_ / "airflow"), "dags", "trigger", DAG]
        asked = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return
        if airflow.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Airflow did not take the run: {asked.stderr[-2000:]}")
        time.sleep(1)


def _serves(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/v2/version", timeout=10) as answer:  # noqa: S310
            return bool(answer.status == http.HTTPStatus.OK)
    except OSError:
        return False


def scrubbed(event: Event) -> Event:
    """The event without paths of this machine, ports, and names of people."""
    text = json.dumps(event)
    for path in (str(HERE), str(ROOT), str(Path.home())):
        text = text.replace(path, "/opt/airflow")
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://airflow.example.com:8080", text)
    text = text.replace(socket.gethostname(), "worker")
    user = os.environ.get("USER") or Path.home().name
    text = re.sub(rf'"(triggering_user_name|user|unixname)": "{re.escape(user)}"', r'"\1": "somebody"', text)
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def main() -> int:
    """Exit code: 0 when the pipeline ran."""
    parser = argparse.ArgumentParser(prog="tools.airflow_lineage", description="Run a pipeline on a real Airflow.")
    parser.add_argument("--record", type=Path, help="write the events here, one file each")
    parser.add_argument("--to", help="pass events on to this address of Runway, http://host:port")
    chosen = parser.parse_args()
    events = run_pipeline(chosen.to)
    for place, event in enumerate(events, start=1):
        shown = scrubbed(event)
        job, inputs, outputs = shown["job"], shown.get("inputs") or [], shown.get("outputs") or []
        assert isinstance(job, dict)
        assert isinstance(inputs, list)
        assert isinstance(outputs, list)
        print(f"{place:>2} {shown['eventType']!s:<8} {job['name']:<14} {_names(inputs)} -> {_names(outputs)}")
        if chosen.record is not None:
            chosen.record.mkdir(parents=True, exist_ok=True)
            target = chosen.record / f"{place:02}_{job['name']}_{str(shown['eventType']).lower()}.json"
            target.write_text(json.dumps(shown, indent=1, sort_keys=True) + "\n")
    return 0


def _names(datasets: list[dict[str, object]]) -> str:
    return ", ".join(f"{dataset['namespace']}/{dataset['name']}" for dataset in datasets) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
