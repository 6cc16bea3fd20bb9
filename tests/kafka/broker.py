"""A real broker for tests: one JVM, started and killed at will, at a port of its own."""

import os
import socket
import subprocess
import time
from pathlib import Path

JARS = "RUNWAY_KAFKA_JARS"


class Broker:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.jars = f"{os.environ[JARS]}/*"
        self.ports = [free_port(), free_port()]
        self.servers = f"127.0.0.1:{self.ports[0]}"
        self.running: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)
        (home / "server.properties").write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{self.ports[1]}
listeners=PLAINTEXT://127.0.0.1:{self.ports[0]},CONTROLLER://127.0.0.1:{self.ports[1]}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.ports[0]}
controller.listener.names=CONTROLLER
log.dirs={home}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""
        )
        self._java(
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            "MkU3OEVBNTcwNTJENDM2Qg",
            "-c",
            str(home / "server.properties"),
        ).wait()

    def _java(self, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                ["java", "-Xmx384m", "-XX:+UseSerialGC", "-cp", self.jars, *arguments],
                stdout=log,
                stderr=log,
                cwd=self.home,
            )

    def start(self) -> None:
        if self.running is not None:
            return
        self.running = self._java("kafka.Kafka", str(self.home / "server.properties"))
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.ports[0])) == 0:
                    return
            time.sleep(0.1)
        raise TimeoutError((self.home / "log").read_text()[-2000:])

    def kill(self) -> None:
        if self.running is not None:
            self.running.kill()
            self.running.wait()
            self.running = None


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
