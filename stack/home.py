"""The state directory: proof that it is ours, one run at a time, and which run that is.

`runway-home.json` is written first and marks the directory as ours; everything else in it can be made again
by whoever it belongs to. `lock` is held by a running stack, so the kernel releases it however the stack ends;
`run.json` says which process that is, with its start time, because process ids are reused.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from stack.settings import StackError

MARKER = "runway-home.json"
LAYOUT = 1
RUN_FILE = "run.json"
LOCK_FILE = "lock"
START_TIME_TOLERANCE_S = 1.0
"""A process' start time is derived from boot time, which the kernel may adjust a little."""


@dataclass(frozen=True, slots=True)
class Home:
    """A state directory that is ours."""

    path: Path

    @property
    def stack_id(self) -> str:
        """Marks every process that works on this directory, whichever run started it."""
        return str(self.path.resolve())

    @property
    def logs(self) -> Path:
        return self.path / "log"

    @property
    def dagster(self) -> Path:
        return self.path / "dagster"

    @property
    def postgres(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self.path / "postgres")

    def running(self) -> int | None:
        """Process id of the stack that runs on this directory; None if none does."""
        try:
            record = json.loads((self.path / RUN_FILE).read_text(encoding="utf-8"))
            runs = psutil.Process(int(record["pid"]))
            same = abs(runs.create_time() - float(record["started_at_s"])) < START_TIME_TOLERANCE_S
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None
        return runs.pid if same and runs.is_running() and runs.status() != psutil.STATUS_ZOMBIE else None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the one stack on this directory for as long as the block runs.

        Raises:
            StackError: another one is.
        """
        with (self.path / LOCK_FILE).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = self.running()
                raise StackError(
                    f"Runway is already up on {self.path}{f' (process {pid})' if pid else ''}: use it, end it with "
                    "Ctrl-C there or with `make down`, or set RUNWAY_HOME to another directory."
                ) from None
            run_file = self.path / RUN_FILE
            record = {"pid": os.getpid(), "started_at_s": psutil.Process().create_time()}
            _write_whole(run_file, json.dumps(record))
            try:
                yield
            finally:
                run_file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory and all it holds, files that Postgres keeps elsewhere included."""
        self.postgres.destroy()
        marker = self.path / MARKER
        for path in self.path.iterdir():
            if path == marker:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        # The marker goes last: an interrupted removal leaves a directory that is still known to be ours.
        marker.unlink(missing_ok=True)
        self.path.rmdir()


def open_home(path: Path) -> Home:
    """The state directory at `path`, made if it is not there.

    Raises:
        StackError: it is somebody else's, half written, of another layout, or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        found = find_home(path)
        if found is None:
            strangers = sorted(entry.name for entry in path.iterdir())
            if strangers:
                raise StackError(
                    f"{path} holds {', '.join(strangers[:3])} but no {MARKER}: it is not a state directory of "
                    "Runway, or a damaged one. Move it away, or set RUNWAY_HOME to another directory."
                )
            found = Home(path)
            _write_whole(path / MARKER, json.dumps({"layout": LAYOUT}))
        found.logs.mkdir(exist_ok=True)
    except (OSError, UnicodeError) as error:
        raise StackError(
            f"The state directory {path} cannot be used: {error}. Set RUNWAY_HOME to another one."
        ) from error
    return found


def find_home(path: Path) -> Home | None:
    """The state directory at `path`; None if there is none.

    Raises:
        StackError: its marker is half written or of another layout.
    """
    marker = path / MARKER
    if not marker.is_file():
        return None
    try:
        layout = json.loads(marker.read_text(encoding="utf-8"))["layout"]
    except (ValueError, KeyError, TypeError):
        raise StackError(
            f"{marker} is half written, so nobody knows what state {path} is in: `make reset` starts over."
        ) from None
    if layout != LAYOUT:
        raise StackError(
            f"{path} was made by a Runway with another layout ({layout}, this one has {LAYOUT}): use that "
            "Runway, or start over with `make reset`."
        )
    return Home(path)


def removable(path: Path) -> Home | None:
    """The state directory at `path` to be removed, also when its marker cannot be read; None if there is none."""
    try:
        return find_home(path)
    except StackError:
        return Home(path)


def _write_whole(path: Path, text: str) -> None:
    """Write a small file so that it is there wholly or not at all."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
