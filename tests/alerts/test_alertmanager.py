"""Alerts on a real Alertmanager, from Debian: fired, said again, over, and told to whoever Alertmanager tells."""

import asyncio
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import psutil
import pytest

from control_plane.core.alerts.types import Destination, DestinationKind
from control_plane.core.commands import HoldRetraining, ReleaseRetraining, SetDestination
from tests.alerts.nodes import Hand, leading, until
from tests.alerts.receivers import Receiver, receiving
from tests.contract.worlds import MemoryWorld
from tools import debian

pytestmark = pytest.mark.slow

TEMPLATES = "/usr/share/prometheus/alertmanager"

CONFIG = """
route:
  receiver: test
  group_by: [key]
  group_wait: 100ms
  group_interval: 100ms
  repeat_interval: 1h
receivers:
  - name: test
    webhook_configs:
      - url: {url}
        send_resolved: true
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alertmanager's binary, in the folder of its templates."""
    folder = tmp_path_factory.mktemp("alertmanager")
    try:
        found = debian.unpacked("prometheus-alertmanager")
        shutil.copytree(f"{found}{TEMPLATES}", folder, dirs_exist_ok=True)
        program = found / "usr/bin/prometheus-alertmanager"
        return debian.relocated(program, TEMPLATES, folder / program.name)
    except OSError as error:
        pytest.skip(str(error))


@asynccontextmanager
async def running(program: Path, home: Path) -> AsyncIterator[tuple[str, Receiver]]:
    """An Alertmanager that tells a receiver of ours; its address."""
    async with receiving() as receiver:
        (home / "alertmanager.yml").write_text(CONFIG.format(url=receiver.url))
        log = (home / "log").open("w+b")
        process = subprocess.Popen(
            [
                str(program),
                f"--config.file={home / 'alertmanager.yml'}",
                f"--storage.path={home / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--cluster.listen-address=",
            ],
            cwd=program.parent,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = ""
            while not address:
                assert process.poll() is None, (home / "log").read_text()
                address = listening(process.pid)
                await asyncio.sleep(0.02)
            url = f"http://{address}"
            while not await asyncio.to_thread(ready, url):
                await asyncio.sleep(0.02)
            yield url, receiver
        finally:
            process.terminate()
            process.wait(10)
            log.close()


def listening(pid: int) -> str:
    """Where a process listens; empty while it does not."""
    found = [one.laddr for one in psutil.Process(pid).net_connections("tcp") if one.status == "LISTEN"]
    return f"{found[0].ip}:{found[0].port}" if found else ""


def ready(url: str) -> bool:
    """Does it answer?"""
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def active(url: str) -> list[dict[str, dict[str, str]]]:
    """The alerts that it has."""
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:
        found: list[dict[str, dict[str, str]]] = msgspec.json.decode(answer.read())
    return found


async def has(url: str, count: int) -> list[dict[str, dict[str, str]]]:
    """Wait until it has that many."""
    while len(found := await asyncio.to_thread(active, url)) != count:
        await asyncio.sleep(0.02)
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Where it keeps what it has."""
    yield tmp_path


async def test_an_alert_fires_is_told_once_survives_a_change_of_leader_and_ends(program: Path, home: Path) -> None:
    world, clock = MemoryWorld(), Hand()
    async with running(program, home) as (url, receiver):
        async with leading(world, clock=clock, tell=True) as plane:
            await plane.model("eta")
            await plane.do(
                SetDestination(
                    destination=Destination(
                        name="pages", kind=DestinationKind.ALERTMANAGER, url=url, allow_private=True
                    )
                )
            )
            await plane.do(HoldRetraining())
            assert await has(url, 0) == []
            clock.at += timedelta(days=1, minutes=1)
            [alert] = await has(url, 1)
            assert alert["labels"] == {
                "alertname": "Runway_fleet_held",
                "key": "fleet_held/fleet",
                "kind": "fleet_held",
                "cause": "fleet",
                "severity": "warning",
                "service": "runway",
            }
            assert "held for the whole fleet" in alert["annotations"]["summary"]
            await until(lambda: len(receiver.taken) == 1)
        async with leading(world, clock=clock, tell=True) as plane:
            # The new leader says it again at once; Alertmanager knows that it is the same one.
            first = (await has(url, 1))[0]["updatedAt"]
            while (await has(url, 1))[0]["updatedAt"] == first:
                await asyncio.sleep(0.02)
            await plane.do(ReleaseRetraining())
            await has(url, 0)
            await until(lambda: len(receiver.taken) == 2)
    told = [received.json()["status"] for received in receiver.taken]
    assert told == ["firing", "resolved"]
