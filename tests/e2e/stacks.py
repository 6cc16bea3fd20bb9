"""A whole stack as a newcomer starts it, its lines as they come, and the ways to hurt it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from runway_client import Runway, Unreachable, from_timestamp

READY_S_MAX = 240.0
STORY_S_MAX = 300.0
"""Deadlines of conditions that are awaited, wide enough for a busy machine; nothing is asserted about speed."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """One `stack up`, and its lines as they come."""

    def __init__(self, home: Path, *, days: int, seconds_per_day: float) -> None:
        self.home = home
        self.replay = ("--days", str(days), "--seconds-per-day", str(seconds_per_day))
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            **os.environ,
            "RUNWAY_HOME": str(home),
            "RUNWAY_ADDRESS": self.address,
            "RUNWAY_LINEAGE_ADDRESS": f"127.0.0.1:{free_port()}",
            "RUNWAY_WEB_ADDRESS": f"127.0.0.1:{free_port()}",
            "RUNWAY_SERVING_ADDRESS": f"127.0.0.1:{free_port()}",
        }
        self.environment.pop("RUNWAY_DATABASE_URL", None)
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.started: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()

    def up(self) -> None:
        """Start, and read what it says."""
        self.lines = []
        self.started = subprocess.Popen(
            [sys.executable, "-m", "stack", "up", *self.replay],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.started,), daemon=True)
        self._reader.start()

    def _read(self, started: "subprocess.Popen[str]") -> None:
        assert started.stdout is not None
        with started.stdout:
            for line in started.stdout:
                with self._changed:
                    self.lines.append(line.rstrip())
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def until(self, pattern: str, seconds: float) -> str:
        """The first line that matches; fails with everything that was said instead."""

        def found() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        with self._changed:
            if not self._changed.wait_for(lambda: found() or self._ended(), seconds) or not found():
                pytest.fail(f"nothing like {pattern!r} was said:\n" + "\n".join(self.lines))
            return found() or ""

    def _ended(self) -> bool:
        return self.started is None or self.started.poll() is not None

    def family(self) -> list[psutil.Process]:
        """Every process that belongs to this home."""
        members = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RUNWAY_STACK") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    members.append(process)
            except psutil.Error:
                continue
        return members

    def kill(self, *words: str) -> int:
        """SIGKILL the children whose command line holds all words; how many."""
        killed = 0
        for process in self.family():
            try:
                line = " ".join(process.cmdline())
                if all(word in line for word in words):
                    process.send_signal(signal.SIGKILL)
                    killed += 1
            except psutil.Error:
                continue
        return killed

    def runway(self, *words: str, actor: str = "viewer") -> str:
        """What a command of `runway` says; fails with its error if it fails."""
        done = self._ran(words, actor)
        if done.returncode:
            pytest.fail(f"runway {' '.join(words)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def refused(self, *words: str, actor: str = "viewer") -> str:
        """The error of a command of `runway`; fails if there is none."""
        done = self._ran(words, actor)
        if not done.returncode:
            pytest.fail(f"runway {' '.join(words)} was not refused: {done.stdout}")
        return done.stderr

    def _ran(self, words: tuple[str, ...], actor: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(Path(sys.executable).parent / "runway"), "--actor", actor, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def clean_up(self) -> None:
        """End it, and whatever it left."""
        if self.started is not None and self.started.poll() is None:
            self.end()
        for process in self.family():
            process.kill()

    def end(self) -> int:
        """Ctrl-C, and its exit code."""
        assert self.started is not None
        if self.started.poll() is None:
            self.started.send_signal(signal.SIGINT)
        code = self.started.wait(120)
        self._reader.join()
        return code


def await_that(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll a condition of other processes, which nothing here can be told of."""
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    gate = threading.Event()

    def holds() -> bool:
        try:
            return condition()
        except Unreachable:
            return False

    while not holds():
        if datetime.now(UTC) > deadline:
            pytest.fail(f"never happened: {what}")
        gate.wait(0.2)


def clock_of(runway: Runway) -> datetime:
    """Where the control plane's clock stands."""
    return from_timestamp(runway.operations.get_status().now)
