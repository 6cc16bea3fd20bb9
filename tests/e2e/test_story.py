"""All of it, as a newcomer starts it: real Postgres, control plane, Dagster, models, flights; killed and resumed."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from runway_client import Runway, Unreachable, connect, from_timestamp, messages

from assets.flights.data import column, flights
from assets.flights.fleet import FIRST_DAY, FLEET
from assets.flights.training import rows_between
from control_plane.adapters.postgres.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

READY_S_MAX = 240.0
STORY_S_MAX = 300.0
"""Deadlines of conditions that are awaited, wide enough for a busy machine; nothing is asserted about speed."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """One `stack up`, and its lines as they come."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.address = f"127.0.0.1:{_free_port()}"
        self.environment = {
            **os.environ,
            "RUNWAY_HOME": str(home),
            "RUNWAY_ADDRESS": self.address,
            "RUNWAY_LINEAGE_ADDRESS": f"127.0.0.1:{_free_port()}",
            "RUNWAY_WEB_ADDRESS": f"127.0.0.1:{_free_port()}",
            "RUNWAY_SERVING_ADDRESS": f"127.0.0.1:{_free_port()}",
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
            [sys.executable, "-m", "stack", "up", "--days", "20", "--seconds-per-day", "2"],
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

    def end(self) -> int:
        """Ctrl-C, and its exit code."""
        assert self.started is not None
        if self.started.poll() is None:
            self.started.send_signal(signal.SIGINT)
        code = self.started.wait(120)
        self._reader.join()
        return code


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "home")
    try:
        yield made
    finally:
        if made.started is not None and made.started.poll() is None:
            made.end()
        for process in made.family():
            process.kill()


def _await(condition: Callable[[], bool], seconds: float, what: str) -> None:
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


def _clock(runway: Runway) -> datetime:
    return from_timestamp(runway.operations.get_status().now)


def _ended_well(runway: Runway, retrain_id: str) -> bool:
    return runway.retraining.get_retrain(retrain_id).state in (
        messages.RETRAIN_STATE_PROMOTED,
        messages.RETRAIN_STATE_REFUSED,
    )


def _predicted_twice_or_not_at_all(runway: Runway, monkeypatch: pytest.MonkeyPatch, home: Path) -> list[str]:
    """Models whose count of predictions on the first day is not the number of flights of that day."""
    monkeypatch.setenv("RUNWAY_HOME", str(home))
    assert column(flights(), "scheduled").size
    wrong = []
    for model in FLEET:
        answer = runway.ground_truth.get_coverage(model.model_id, start=FIRST_DAY, end=FIRST_DAY + timedelta(days=1))
        expected = len(rows_between(FIRST_DAY, FIRST_DAY + timedelta(days=1), model.origin))
        if answer.total.predicted != expected:
            wrong.append(f"{model.model_id}: {answer.total.predicted} predictions of {expected} flights")
    return wrong


def test_a_retrain_goes_all_the_way_and_everything_survives_being_killed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.up()
    stack.until(r"Runway is up", READY_S_MAX)
    with connect(stack.address, actor="story", retry_for_s=120) as runway:
        retrain = runway.retraining.request_retrain("air_time", ignore_cooldown=True).retrain
        stack.until(r"air_time is released to dagster", STORY_S_MAX)
        stack.until(r"air_time version 2 (was )?(promoted|refused)", STORY_S_MAX)
        assert _ended_well(runway, retrain.retrain_id)
        moves = runway.registry.list_alias_moves("air_time", alias="production")
        assert moves[-1].to_version == 1

        before = _clock(runway)
        assert stack.kill("control_plane")
        assert stack.kill("assets.flights.replay")
        _await(lambda: _clock(runway) > before, STORY_S_MAX, "the replay went on after control plane and replay died")
        before = _clock(runway)
        postgres = EmbeddedPostgres(stack.home / "postgres").pid
        assert postgres
        os.kill(postgres, signal.SIGKILL)
        _await(lambda: _clock(runway) > before, STORY_S_MAX, "the replay went on after Postgres died")
        revision = runway.operations.get_status().revision
        _await(
            lambda: _clock(runway) >= FIRST_DAY + timedelta(days=2), STORY_S_MAX, "the first day and a half are over"
        )
        assert _predicted_twice_or_not_at_all(runway, monkeypatch, stack.home) == []

    assert stack.end() == 0
    assert stack.family() == []

    stack.up()
    stack.until(r"Runway is up", READY_S_MAX)
    with connect(stack.address, actor="story", retry_for_s=120) as runway:
        assert runway.operations.get_status().revision >= revision
        again = runway.retraining.get_retrain(retrain.retrain_id)
        assert again.state in (messages.RETRAIN_STATE_PROMOTED, messages.RETRAIN_STATE_REFUSED)
        assert len(list(runway.registry.list_versions("air_time"))) == 2
        assert _predicted_twice_or_not_at_all(runway, monkeypatch, stack.home) == []
    assert stack.end() == 0
    assert stack.family() == []
