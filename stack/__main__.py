"""`python -m stack up|down|reset|status`: what `make up`, `make down` and `make reset` run."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Coroutine
from datetime import date
from pathlib import Path

import psutil

from stack.dagster_home import DATABASE_VARIABLE, DRILL_FILE, storage_stamp
from stack.engine import spark_engine
from stack.family import become_reaper
from stack.home import Home, find_home, open_home, removable
from stack.narrator import Narrator
from stack.people import MIX_UP_FILE, People
from stack.probes import grpc_serving, http_ok, require_database, require_free
from stack.programs import BOOTSTRAP_S_MAX, Programs, programs
from stack.settings import SECONDS_PER_DAY_DEFAULT, Settings, StackError, home_of, settings_of
from stack.supervisor import Supervisor, stop_leftovers

DOWN_S_MAX = 60.0
"""A stack that was asked to end drains the control plane (10 s) and checkpoints Postgres; then it is killed."""

STORAGE_S_MAX = 120.0

ADDRESSES = """
Runway is up after {elapsed_s:.0f} s.

  Dagster        {web}/asset-groups    the fleet and what it is made from; runs under {web}/runs
  Control plane  {address} (gRPC)
  Command line   .venv/bin/runway status | models list | staleness show | retrains list | watch
  Logs           {logs}

What happens now, day by day in the year 2013. Ctrl-C ends it; `make up` again goes on from there.
"""


class Console:
    """Lines for the person who watches. A terminal that has gone away is no reason to end uncleanly."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._open = True

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def say(self, text: str) -> None:
        """A line about the stack itself, with the seconds since its start."""
        self.line(f"{self.elapsed_s:6.1f} s  {text}")

    def line(self, text: str) -> None:
        if not self._open:
            return
        try:
            # One write: the narrator's lines come from a thread of its own.
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except OSError:
            self._open = False
            # The interpreter flushes once more at exit; it must not stumble over the same pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def bring_up(settings: Settings, home: Home, supervisor: Supervisor, console: Console) -> None:
    """Start everything in order, tell where it is, then what happens."""
    postgres = home.postgres
    if settings.database_url is None:
        console.say("starting Postgres")
        await supervisor.start_postgres(postgres)
        parts = programs(settings, home, postgres.url(), postgres.sqlalchemy_url())
    else:
        console.say("using the Postgres of RUNWAY_DATABASE_URL")
        await asyncio.to_thread(require_database, settings.database_url)
        parts = programs(settings, home, settings.database_url)
    console.say("starting the control plane")
    await supervisor.start(parts.control_plane)

    async def dagster() -> None:
        console.say("starting Dagster")
        await _together(supervisor.start(parts.code_server), _storage(parts, supervisor, home))
        await _together(supervisor.start(parts.webserver), supervisor.start(parts.daemon))

    console.say("registering the flights fleet")
    await _together(
        supervisor.run_once(parts.bootstrap, BOOTSTRAP_S_MAX),
        # The first versions are promoted in there: whoever serves them is told at once.
        supervisor.start(parts.serving),
        dagster(),
    )
    narrator = Narrator(str(settings.address), console.line)
    # Before anybody is told that it is up: what they do at once is part of the story.
    began = await asyncio.to_thread(narrator.revision)
    web, logs = f"http://{settings.web_address}", _short(home.logs)
    console.line(ADDRESSES.format(elapsed_s=console.elapsed_s, web=web, address=settings.address, logs=logs))
    following = asyncio.ensure_future(narrator.follow(began))
    people = asyncio.ensure_future(_people(settings, home, console))
    try:
        await supervisor.start(parts.replay)
        await following
    finally:
        following.cancel()
        people.cancel()


async def _people(settings: Settings, home: Home, console: Console) -> None:
    """Somebody who approves, hurts and breaks things in place of a viewer who only watches."""
    if settings.people:
        drill = home.dagster / DRILL_FILE
        mix_up = home.path / MIX_UP_FILE
        await People(str(settings.address), str(settings.serving_address), drill, mix_up, console.line).act()


async def _together(*work: Coroutine[None, None, object]) -> None:
    """Do several things at once; the first failure cancels the others and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _storage(parts: Programs, supervisor: Supervisor, home: Home) -> None:
    """Make Dagster's tables, the first time."""
    stamp, file = storage_stamp(parts.storage.environment[DATABASE_VARIABLE]), home.dagster / "storage-made"
    if not file.exists() or file.read_text(encoding="utf-8") != stamp:
        await supervisor.run_once(parts.storage, STORAGE_S_MAX)
        file.write_text(stamp, encoding="utf-8")


async def run(settings: Settings, home: Home, console: Console) -> int:
    """The whole life of a stack: up, watched over, and down again. Returns the exit code."""
    loop = asyncio.get_running_loop()
    supervisor = Supervisor(home, console.say)
    life = asyncio.ensure_future(_live(settings, home, supervisor, console))
    asked = 0
    kills: list[asyncio.Task[None]] = []

    def ask_to_end() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            console.line("")
            console.say("ending; state is kept (Ctrl-C once more kills)")
            life.cancel()
        else:
            kills.append(loop.create_task(supervisor.kill()))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ask_to_end)
    code = 0
    try:
        await life
    except asyncio.CancelledError:
        pass
    except StackError as error:
        code = 1
        console.line(f"\n{error}\n")
        console.say("ending")
    finally:
        await supervisor.stop()
        await asyncio.gather(*kills)
    console.say("everything has ended")
    return code


async def _live(settings: Settings, home: Home, supervisor: Supervisor, console: Console) -> None:
    starting = asyncio.ensure_future(bring_up(settings, home, supervisor, console))
    keeping = asyncio.ensure_future(supervisor.keep())
    try:
        await asyncio.wait({starting, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        await keeping
    finally:
        for task in (starting, keeping):
            task.cancel()
        await asyncio.gather(starting, keeping, return_exceptions=True)


def up(settings: Settings) -> int:
    """Run the stack until it is asked to end."""
    console = Console()
    home = open_home(settings.home)
    with home.alone():
        left = stop_leftovers(home)
        if left:
            console.say(f"ended what an earlier run left: {', '.join(left)}")
        require_free(settings.address, "the control plane", "RUNWAY_ADDRESS")
        require_free(settings.web_address, "Dagster's web interface", "RUNWAY_WEB_ADDRESS")
        require_free(settings.serving_address, "the fleet's server", "RUNWAY_SERVING_ADDRESS")
        with spark_engine(home.path, console.say) if settings.engine == "spark" else contextlib.nullcontext():
            become_reaper()
            return asyncio.run(run(settings, home, console))


def down(path: Path, *, damaged: bool = False) -> int:
    """End the stack on a state directory, running or crashed."""
    home = removable(path) if damaged else find_home(path)
    if home is None:
        print(f"Nothing to stop: there is no state directory of Runway at {_short(path)}.")
        return 0
    pid = home.running()
    if pid is not None:
        print(f"Ending the stack that runs (process {pid}) ...", flush=True)
        with contextlib.suppress(psutil.Error):
            running = psutil.Process(pid)
            running.terminate()
            _, alive = psutil.wait_procs([running], timeout=DOWN_S_MAX)
            for one in alive:
                one.kill()
                one.wait(DOWN_S_MAX)
    left = stop_leftovers(home)
    for line in left:
        print(f"Ended {line}.")
    if pid is None and not left:
        print("Nothing was running.")
    return 0


def reset(path: Path) -> int:
    """End the stack and forget its state, if the directory is ours."""
    home = removable(path)
    if home is None:
        if path.exists() and any(path.iterdir()):
            raise StackError(f"{path} is not a state directory of Runway (no marker in it): nothing is removed.")
        print(f"Nothing to reset: there is no state at {_short(path)}.")
        return 0
    down(path, damaged=True)
    home.remove()
    print(f"Removed {_short(path)}; the next `make up` starts over.")
    if os.environ.get("RUNWAY_DATABASE_URL"):
        print("The Postgres of RUNWAY_DATABASE_URL is yours and was not touched: give Runway an empty database there.")
    return 0


def status(settings: Settings) -> int:
    """Say what runs; exit code 0 when all of it does."""
    home = find_home(settings.home)
    pid = home.running() if home is not None else None

    async def ask() -> tuple[bool, bool]:
        plane = grpc_serving(str(settings.address))
        web = http_ok(f"http://{settings.web_address}/server_info")
        first, second = await asyncio.gather(plane(), web())
        return first, second

    plane, web = asyncio.run(ask())
    print(f"stack           {f'running, process {pid}' if pid else 'not running'}")
    print(f"control plane   {settings.address} {'serving' if plane else 'does not answer'}")
    print(f"Dagster         http://{settings.web_address} {'serving' if web else 'does not answer'}")
    return 0 if pid and plane and web else 1


def _short(path: Path) -> str:
    """A path as a person would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("down", help="end what runs, or what a crashed run left")
    commands.add_parser("reset", help="end it and forget all state")
    for name, text in (("up", "start everything and follow it"), ("status", "say what runs")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--from", dest="first_day", type=date.fromisoformat, metavar="2013-03-01")
        command.add_argument("--days", type=int)
        command.add_argument("--engine", choices=("embedded", "spark"), default="embedded", help="who joins")
        command.add_argument(
            "--no-people", dest="people", action="store_false", help="nobody approves, hurts or breaks anything for you"
        )
        command.add_argument("--seconds-per-day", type=float, default=SECONDS_PER_DAY_DEFAULT)
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    try:
        match arguments.command:
            case "up":
                return up(settings_of(arguments))
            case "status":
                return status(settings_of(arguments))
            case "down":
                return down(home_of())
            case _:
                return reset(home_of())
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
