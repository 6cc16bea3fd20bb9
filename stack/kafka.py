"""A real Kafka broker in a folder: one process that is broker and controller (KRaft)."""

import socket
import subprocess
import time
from pathlib import Path

from tools.jars import Engines

CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
START_S_MAX = 90.0
_PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={home}/data
num.partitions={partitions}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes=67108864
"""


class Broker:
    """A broker; its ports and data stay over a kill and a start."""

    def __init__(self, home: Path, engines: Engines, *, partitions: int = 4) -> None:
        self.home = home
        self._engines = engines
        self._port, self._controller = free_port(), free_port()
        self.servers = f"127.0.0.1:{self._port}"
        """host:port for clients."""
        self.running: subprocess.Popen[bytes] | None = None
        self._properties = home / "server.properties"
        home.mkdir(parents=True, exist_ok=True)
        text = _PROPERTIES.format(controller=self._controller, port=self._port, home=home, partitions=partitions)
        self._properties.write_text(text, encoding="utf-8")
        if not (home / "data" / "meta.properties").exists():
            arguments = ("format", "--standalone", "-t", CLUSTER_ID, "-c", str(self._properties))
            self._java("kafka.tools.StorageTool", *arguments).wait()

    def _java(self, *arguments: str) -> "subprocess.Popen[bytes]":
        java = str(self._engines.java / "bin" / "java")
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                [java, "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{self._engines.kafka_jars}/*", *arguments],
                stdout=log,
                stderr=log,
                cwd=self.home,
            )

    def start(self) -> None:
        """Start, and wait until it listens; nothing if it runs.

        Raises:
            TimeoutError: it did not; with the end of its log.
        """
        if self.running is not None:
            return
        self.running = self._java("kafka.Kafka", str(self._properties))
        wait_for_port(self._port, self.running, self.home / "log")

    def kill(self) -> None:
        """End it without a goodbye."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()
            self.running = None

    def stop(self) -> None:
        """End it in order."""
        if self.running is not None:
            self.running.terminate()
            try:
                self.running.wait(30)
            except subprocess.TimeoutExpired:
                self.running.kill()
                self.running.wait()
            self.running = None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a process listens.

    Raises:
        TimeoutError: it ended, or did not in time; with the end of its log.
    """
    until = time.monotonic() + START_S_MAX
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on {port}:\n" + log.read_text(encoding="utf-8", errors="replace")[-2000:])
