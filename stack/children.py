"""Programs the stack runs, and what keeps them running.

Theory of operation. A `Child` is started, becomes ready (its probe says so), and is kept:

    state     | on                        | becomes
    ----------+---------------------------+---------------------------------------------------
    starting  | probe answers             | ready
    starting  | exits, or `ready_s_max`   | GaveUpError, with the log's last lines
    ready     | exits                     | waiting: `RESTART_DELAYS_S`, then starting again
    ready     | `once` and exits with 0   | finished
    ready     | too many exits in a row   | GaveUpError
    any       | stop                      | SIGTERM to it, SIGKILL to its group after `stop_s_max`

Each child leads a session of its own: Ctrl-C in the terminal reaches only the stack, which then ends its
children in order. What a child writes goes to `log/<name>.log`.
"""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.settings import StackError

RESTART_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits before the restarts in a row; the last one is repeated."""
RESTARTS_MAX = 6
RESTARTS_WINDOW_S = 120.0
"""More ends than that within the window is a program that cannot run, not one that was unlucky."""
PROBE_EVERY_S = 0.1
LOG_LINES_SHOWN = 12
LOG_BYTES_SHOWN_MAX = 16_384
LOG_BYTES_MAX = 16 * 2**20
"""A log beyond this is put aside (one generation) when its program is started."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Say = Callable[[str], None]


class GaveUpError(StackError):
    """A program does not run and more tries would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to start and how to know that it works."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    probe: Callable[[], Awaitable[bool]] | None = None
    """Answers whether the program does its work; None means that being started is enough."""
    ready_s_max: float = 60.0
    stop_s_max: float = 8.0
    once: bool = False
    """Ends by itself: exit code 0 is success."""
    said_at_end: str = ""
    """What to tell the viewer when it has ended well."""
    restarts_max: int = RESTARTS_MAX
    cwd: Path | None = None


class Child:
    """One program of the stack while it runs."""

    def __init__(self, program: Program, logs: Path, say: Say) -> None:
        self.program = program
        self.log_path = logs / f"{program.name.replace(' ', '-')}.log"
        self._say = say
        self._runs: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._ends_s: deque[float] = deque(maxlen=program.restarts_max + 1)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._runs.pid if self._runs is not None and self._runs.returncode is None else None

    @property
    def finished(self) -> bool:
        """Whether a program that ends by itself has done so, well."""
        return self.program.once and self._runs is not None and self._runs.returncode == 0

    async def start(self) -> None:
        """Start the program and return when it is ready.

        Raises:
            GaveUpError: it cannot be started, ended at once, or was not ready in time.
        """
        deadline_s = time.monotonic() + self.program.ready_s_max
        await self._spawn()
        while not await self._ready():
            if self.pid is None:
                raise GaveUpError(self._verdict(f"ended while starting ({self._how_it_ended()})"))
            if time.monotonic() > deadline_s:
                raise GaveUpError(self._verdict(f"was not ready within {self.program.ready_s_max:.0f} s"))
            await asyncio.sleep(PROBE_EVERY_S)

    async def keep(self) -> None:
        """Wait for the program; start it again when it ends. Returns when it finished or was stopped.

        Raises:
            GaveUpError: it ends again and again, or does not come back.
        """
        while True:
            runs = self._runs
            if runs is None:
                return
            code = await runs.wait()
            if self._stopping:
                return
            if self.program.once and code == 0:
                if self.program.said_at_end:
                    self._say(self.program.said_at_end)
                return
            delay_s = self._delay_before_restart_s()
            self._say(f"{self.program.name} ended ({self._how_it_ended()}); starting it again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            if self._stopping:
                return
            started_s = time.monotonic()
            await self.start()
            if self.program.probe is not None:
                self._say(f"{self.program.name} is back ({time.monotonic() - started_s:.1f} s)")

    async def stop(self) -> None:
        """Ask the program to end; kill it and everything in its session when it does not."""
        self._stopping = True
        runs = self._runs
        if runs is None:
            return
        if runs.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                runs.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(runs.wait(), self.program.stop_s_max)
        if runs.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(runs.pid, signal.SIGKILL)
            await runs.wait()

    def log_tail(self) -> str:
        """The last lines the program wrote."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES_SHOWN_MAX))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        lines = [COLOUR.sub("", line) for line in lines]
        return "\n".join(f"    {line}" for line in lines[-LOG_LINES_SHOWN:]) or "    (it wrote nothing)"

    async def _spawn(self) -> None:
        with contextlib.suppress(OSError):
            if self.log_path.stat().st_size > LOG_BYTES_MAX:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            try:
                self._runs = await asyncio.create_subprocess_exec(
                    *self.program.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(self.program.environment),
                    cwd=self.program.cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise GaveUpError(f"{self.program.name} cannot be started: {error}.") from error

    async def _ready(self) -> bool:
        return self.program.probe is None or await self.program.probe()

    def _delay_before_restart_s(self) -> float:
        now_s = time.monotonic()
        self._ends_s.append(now_s)
        recent = [end_s for end_s in self._ends_s if now_s - end_s <= RESTARTS_WINDOW_S]
        if len(recent) > self.program.restarts_max:
            raise GaveUpError(self._verdict(f"ended {len(recent)} times in a row, now ({self._how_it_ended()})"))
        return RESTART_DELAYS_S[min(len(recent), len(RESTART_DELAYS_S)) - 1]

    def _how_it_ended(self) -> str:
        code = self._runs.returncode if self._runs is not None else None
        if code is None:
            return "still running"
        if code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"

    def _verdict(self, what: str) -> str:
        return f"{self.program.name} {what}. Its log {self.log_path} ends with:\n{self.log_tail()}"
