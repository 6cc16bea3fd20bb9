"""A whole life of the stack with toy programs: it ends on a signal, or is cut off, and nothing stays behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stack.__main__ import down
from stack.family import belonging_to
from stack.home import open_home

HARNESS = """
import asyncio, functools, os, sys
from pathlib import Path
import stack.__main__ as main
from stack.children import Program
from stack.family import STACK_VARIABLE
from stack.settings import Address, Replay, Settings

NOTE = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('ended', flush=True), sys.exit()));"
PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);" + NOTE

async def bring_up(settings, home, supervisor, console):
    environment = {**os.environ, STACK_VARIABLE: home.stack_id}
    for name, code in (("control plane", NOTE), ("dagster daemon", PARENT), ("replay", NOTE)):
        command = (sys.executable, "-c", code + "time.sleep(600)")
        probe = functools.partial(asyncio.sleep, 0, True)
        await supervisor.start(Program(name=name, command=command, environment=environment, probe=probe))
    print("up", *[child.pid for child in supervisor.children], flush=True)
    await asyncio.Event().wait()

main.bring_up = bring_up
here = Address("127.0.0.1", 0)
replay = Replay(first_day=None, days=None, seconds_per_day=1)
home = Path(sys.argv[1])
sys.exit(main.up(Settings(home=home, address=here, web_address=here, database_url="x", replay=replay)))
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path, list[int]]]:
    """A running stack of three toys, one of which has a child of its own."""
    path = tmp_path / "state"
    command = [sys.executable, "-c", HARNESS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as runs:
        assert runs.stdout is not None
        up = next(line for line in runs.stdout if line.startswith("up"))
        yield runs, path, [int(word) for word in up.split()[1:]]
        runs.kill()
    down(path)


def stack_id(path: Path) -> str:
    return open_home(path).stack_id


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything(stack: tuple[subprocess.Popen[str], Path, list[int]], number: signal.Signals) -> None:
    runs, path, pids = stack
    runs.send_signal(number)
    said, _ = runs.communicate(timeout=60)
    assert runs.returncode == 0
    assert "everything has ended" in said
    assert belonging_to(stack_id(path)) == []
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_killed_program_is_started_again_and_its_orphan_ends_with_the_stack(
    stack: tuple[subprocess.Popen[str], Path, list[int]],
) -> None:
    runs, path, pids = stack
    os.kill(pids[1], signal.SIGKILL)
    assert runs.stdout is not None
    assert any("dagster daemon is back" in line for line in runs.stdout)
    runs.send_signal(signal.SIGINT)
    runs.communicate(timeout=60)
    assert runs.returncode == 0
    assert belonging_to(stack_id(path)) == []


def test_what_a_killed_stack_left_is_ended_by_down(
    stack: tuple[subprocess.Popen[str], Path, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, path, pids = stack
    runs.kill()
    runs.wait()
    assert {runs.pid for runs in belonging_to(stack_id(path))} >= set(pids)
    assert down(path) == 0
    assert belonging_to(stack_id(path)) == []
    assert "Ended process" in capsys.readouterr().out


def test_down_ends_a_stack_that_runs(stack: tuple[subprocess.Popen[str], Path, list[int]]) -> None:
    runs, path, _ = stack
    assert down(path) == 0
    runs.communicate(timeout=60)
    assert runs.returncode == 0
    assert belonging_to(stack_id(path)) == []
