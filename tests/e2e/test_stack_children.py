"""Programs of the stack: started, awaited, started again, given up, ended with everything they started."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from stack import children
from stack.children import Child, GaveUpError, Program
from stack.family import STACK_VARIABLE, belonging_to, end_all

SLEEPER = "import time\nwhile True: time.sleep(60)"
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\n" + SLEEPER
PARENT = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {SLEEPER!r}])\n{SLEEPER}"


@pytest.fixture(autouse=True)
def _quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.01,))
    monkeypatch.setattr(children, "PROBE_EVERY_S", 0.01)


async def no_wait() -> bool:
    return True


def program(code: str, stack_id: str = "toy", **more: object) -> Program:
    environment = {**os.environ, STACK_VARIABLE: stack_id}
    facts: dict[str, object] = {"name": "toy program", "command": (sys.executable, "-c", code)} | more
    return Program(environment=environment, **facts)  # type: ignore[arg-type]  # the tests' own keywords


def exists(path: Path) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return path.exists()

    return probe


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_is_ready_when_its_probe_answers(tmp_path: Path) -> None:
    mark = tmp_path / "ready"
    child = Child(program(f"open({str(mark)!r}, 'w')\n{SLEEPER}", probe=exists(mark)), tmp_path, print)
    await child.start()
    assert mark.exists()
    assert child.pid is not None
    await child.stop()
    assert child.pid is None


async def test_end_while_starting_is_told_with_the_last_lines(tmp_path: Path) -> None:
    child = Child(program("raise SystemExit('no such database')", probe=exists(tmp_path / "never")), tmp_path, print)
    with pytest.raises(GaveUpError, match=r"(?s)toy program ended while starting .exit code 1.*no such database"):
        await child.start()


async def test_never_ready_is_told(tmp_path: Path) -> None:
    child = Child(program(SLEEPER, probe=exists(tmp_path / "never"), ready_s_max=0.2), tmp_path, print)
    with pytest.raises(GaveUpError, match="was not ready within"):
        await child.start()
    await child.stop()


async def test_missing_executable_is_told(tmp_path: Path) -> None:
    child = Child(program("", command=(str(tmp_path / "nothing"),)), tmp_path, print)
    with pytest.raises(GaveUpError, match="cannot be started"):
        await child.start()


async def test_killed_program_comes_back(tmp_path: Path) -> None:
    said: list[str] = []
    child = Child(program(SLEEPER, probe=no_wait), tmp_path, said.append)
    await child.start()
    keeping = asyncio.create_task(child.keep())
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid not in {None, first})
    await child.stop()
    await keeping
    assert said[0].startswith("toy program ended (SIGKILL); starting it again")
    assert said[1].startswith("toy program is back")


async def test_program_that_cannot_run_is_given_up(tmp_path: Path) -> None:
    said: list[str] = []
    child = Child(program("print('bad config'); raise SystemExit(3)", restarts_max=2), tmp_path, said.append)
    await child.start()
    with pytest.raises(GaveUpError, match=r"(?s)ended 3 times.*exit code 3.*bad config"):
        await child.keep()
    assert len([line for line in said if "starting it again" in line]) == 2


async def test_once_program_ends_well(tmp_path: Path) -> None:
    said: list[str] = []
    child = Child(program("pass", once=True, said_at_end="all days done"), tmp_path, said.append)
    await child.start()
    await child.keep()
    assert said == ["all days done"]


async def test_deaf_program_is_killed_with_what_it_started(tmp_path: Path) -> None:
    log = tmp_path / "toy-program.log"
    child = Child(program(STUBBORN, stop_s_max=0.2), tmp_path, print)
    await child.start()
    await until(lambda: log.exists() and "deaf" in log.read_text())
    pid = child.pid
    await child.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_orphans_of_a_killed_program_are_found_and_ended(tmp_path: Path) -> None:
    stack_id = str(tmp_path)
    child = Child(program(PARENT, stack_id), tmp_path, print)
    await child.start()
    await until(lambda: len(belonging_to(stack_id)) == 2)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    await child.stop()
    orphans = belonging_to(stack_id)
    assert len(orphans) == 1
    assert end_all(orphans, 5.0) == []
    assert belonging_to(stack_id) == []


def test_colours_do_not_reach_the_terminal(tmp_path: Path) -> None:
    child = Child(program(""), tmp_path, print)
    child.log_path.write_text("\x1b[32mgreen\x1b[0m\n")
    assert child.log_tail() == "    green"
