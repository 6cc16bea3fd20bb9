"""Metaflow: each attempt is a run of one flow, in a process group of its own, found again by its tag.

Metaflow has no server to ask for a run; it has a command line and a metadata service. So a run is tagged with its
attempt, and whether there is one is read from the metadata. Between the launch and the first line of metadata lies a
second in which only the launcher's own mark says that somebody is at it: a file that is created exclusively before the
process is. Both lie on this machine, as the process does; across machines let a Dagster op run the flow
(`runway_lineage.metaflow_runs` and docs/schedulers.md), whose run key does what the mark does here.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from control_plane.app.schedulers import Job, Run, RunState, RunStatus, SchedulerRefused, SchedulerUnavailable, Started

A = TypeVar("A")
T = TypeVar("T")

TAG = "runway_attempt:"
ENVIRONMENT = "RUNWAY_"
ADDRESS_VARIABLE = "RUNWAY_ADDRESS"
FAILURE_CHARS_MAX = 300
THREADS_MAX = 8
LAUNCHER = """
import json, os, subprocess, sys
place, command = sys.argv[1], sys.argv[3:]
os.chdir(sys.argv[2])
born = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
def say(name, text):
    with open(place + "/" + name + ".part", "w") as file:
        file.write(text)
    os.replace(place + "/" + name + ".part", place + "/" + name)
say("pid", f"{os.getpid()} {born}")
with open(place + "/log", "ab") as out:
    code = subprocess.call(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
say("ended.json", json.dumps({"code": code}))
"""
"""Writes down how the flow ended, so that whoever is started later knows it as well as who started it."""


class MetaflowScheduler:
    """One flow file. `home` is where marks and logs lie; `python` the interpreter that has Metaflow."""

    def __init__(self, flow: str, name: str, *, python: str = "", home: str = "", timeout_s: float = 10.0) -> None:
        self._flow = Path(flow).resolve()
        self._name = name
        self._python = python or sys.executable
        self._home = Path(home or ".runway/metaflow").resolve()
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=f"metaflow {name}")
        self._children: dict[str, int] = {}

    @property
    def address(self) -> str:
        """The flow file."""
        return str(self._flow)

    async def start(self, job: Job) -> Started:
        """Run the flow under the attempt's tag, unless that was done before."""
        return await self._in_thread(self._start, job)

    async def status(self, run: Run) -> RunStatus:
        """How the process stands, or how it ended."""
        return await self._in_thread(self._status, run)

    async def stop(self, run: Run) -> bool:
        """End the process and all that it started."""
        return await self._in_thread(self._stop, run)

    async def close(self) -> None:
        """Flows that run go on running: they report by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[A], T], argument: A) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, argument)

    def _start(self, job: Job) -> Started:
        if not self._flow.is_file():
            raise SchedulerRefused(f"there is no flow {self._flow}", whole=True)
        place = self._home / job.attempt_id
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            place.mkdir()
        except FileExistsError:
            return Started(run=job.attempt_id)  # somebody is at it, or was
        except OSError as error:
            raise SchedulerUnavailable(f"{self._name} cannot write to {self._home}: {error}", sure=True) from error
        flow = [self._python, str(self._flow), "--quiet", "run", "--tag", f"{TAG}{job.attempt_id}"]
        flow += ["--run-id-file", str(place / "run_id")]
        told = {ENVIRONMENT + name.upper(): value for name, value in job.parameters().items()}
        launcher = [sys.executable, "-c", LAUNCHER, str(place), str(self._flow.parent), *flow]
        try:
            # Not a `Popen`: nobody waits for it, it shall outlive this process.
            self._children[job.attempt_id] = os.posix_spawn(sys.executable, launcher, _passed_on() | told, setsid=True)
        except OSError as error:
            place.rmdir()
            raise SchedulerUnavailable(f"{self._name} cannot start a process: {error}", sure=True) from error
        return Started(run=job.attempt_id)

    def _status(self, run: Run) -> RunStatus:
        place = self._home / run.attempt_id
        if not place.is_dir():
            return RunStatus(state=RunState.MISSING)
        log_url = (place / "log").as_uri()
        if not (place / "ended.json").exists() and self._alive(run.attempt_id):
            return RunStatus(state=RunState.RUNNING, run=run.attempt_id, log_url=log_url)
        if (place / "stopped").exists():
            return RunStatus(state=RunState.STOPPED, run=run.attempt_id, log_url=log_url)
        try:
            code = int(json.loads((place / "ended.json").read_text(encoding="utf-8"))["code"])
        except FileNotFoundError:
            failure = "the flow was killed"
        else:
            if code == 0:
                return RunStatus(state=RunState.SUCCEEDED, run=run.attempt_id, log_url=log_url)
            failure = _last_words(place / "log") or f"the flow ended with exit code {code}"
        return RunStatus(state=RunState.FAILED, run=run.attempt_id, log_url=log_url, failure=failure)

    def _stop(self, run: Run) -> bool:
        place = self._home / run.attempt_id
        if not place.is_dir():
            return False
        if not (place / "ended.json").exists() and self._alive(run.attempt_id):
            (place / "stopped").touch()
            pid = self._children.get(run.attempt_id) or int((place / "pid").read_text(encoding="utf-8").split()[0])
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.killpg(pid, signal.SIGKILL)
        return True

    def _alive(self, attempt_id: str) -> bool:
        """Is the launcher's process still the one that was started, and running?"""
        child = self._children.get(attempt_id)
        if child is not None:
            with suppress(ChildProcessError):  # another thread has just asked
                if os.waitpid(child, os.WNOHANG) == (0, 0):
                    return True
            self._children.pop(attempt_id, None)
            return False
        try:
            pid, born = (self._home / attempt_id / "pid").read_text(encoding="utf-8").split()
        except (FileNotFoundError, ValueError):
            return False  # killed between its mark and its process: nothing ever ran
        return _born(int(pid)) == born


def _passed_on() -> dict[str, str]:
    """The environment without the control plane's own settings, which hold secrets, but for its address."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENVIRONMENT) or name == ADDRESS_VARIABLE
    }


def _born(pid: int) -> str:
    """When a process began, in ticks since boot: tells it from a later one with its number; empty if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "-"
    return "-" if fields[0] == "Z" else fields[19]


def _last_words(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:FAILURE_CHARS_MAX] for line in reversed(lines) if line.strip()), "")
