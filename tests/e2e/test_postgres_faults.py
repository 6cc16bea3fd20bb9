"""Real processes on a real Postgres, killed, frozen and restarted: nothing acknowledged is lost or applied twice."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from control_plane.app.chain import first_bad
from control_plane.core.errors import AppendOutcomeUnknown, Unavailable
from tests.contract.nodes import add, entries, leading, make_node, until
from tests.contract.worlds import PostgresWorld, embedded_postgres

pytestmark = pytest.mark.slow

KILLS = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server of its own: these tests break it."""
    with embedded_postgres(tmp_path) as server:
        yield server


class Writer:
    """The process of `postgres_writer.py` and what it acknowledged, by request id."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told: dict[str, int] = {}

    @classmethod
    async def begin(cls, url: str, prefix: str) -> "Writer":
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.e2e.postgres_writer", url, prefix),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=ROOT,
            )
        )

    async def hear(self, acknowledgements: int | None = None) -> None:
        """Read so many acknowledgements; all that is left without a number."""
        assert self.process.stdout is not None
        goal = None if acknowledgements is None else len(self.told) + acknowledgements
        while goal is None or len(self.told) < goal:
            line = await self.process.stdout.readline()
            if not line.endswith(b"\n"):
                assert goal is None, "the writer ended by itself"
                return
            # structlog prints here too; only two words are an acknowledgement.
            words = line.decode().split()
            if len(words) == 2 and "-" in words[0] and words[1].isdigit():
                self.told[words[0]] = int(words[1])

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.hear()
        await self.process.wait()


async def check_log(world: PostgresWorld, told: dict[str, int]) -> None:
    """The log holds together, each request stands in it once, and all that was acknowledged where it was said."""
    log = await entries(world)
    assert first_bad(log, after_seq=0, prev_hash=b"", version_max=1) is None
    assert [entry.epoch for entry in log] == sorted(entry.epoch for entry in log)
    ends = {entry.request_id: entry.seq for entry in log if entry.result}
    assert set(Counter(entry.request_id for entry in log).values()) <= {2}  # each has two events, once
    assert {request_id: ends.get(request_id) for request_id in told} == told
    async with leading(world) as node:
        assert node.revision == len(log)
        assert sum(node.state.totals.values()) == len(log)


async def test_killed_at_any_point_nothing_acknowledged_is_lost(postgres: EmbeddedPostgres) -> None:
    world = PostgresWorld(postgres.url())
    told: dict[str, int] = {}
    for round_number in range(KILLS):
        writer = await Writer.begin(world.url, f"w{round_number}")
        await writer.hear(150 + 37 * round_number)
        await writer.kill()
        told |= writer.told
    await check_log(world, told)


async def test_a_frozen_leader_writes_nothing_stale(postgres: EmbeddedPostgres) -> None:
    world = PostgresWorld(postgres.url())
    frozen = await Writer.begin(world.url, "frozen")
    try:
        await frozen.hear(100)
        frozen.process.send_signal(signal.SIGSTOP)
        second = make_node(world)
        await second.start()
        begin = second.revision
        mine = [await second.submit(add("second", 1, request_id=f"second-{turn}", parts=2)) for turn in range(20)]
        frozen.process.send_signal(signal.SIGCONT)
        more = [await second.submit(add("second", 1, request_id=f"second-{turn}", parts=2)) for turn in range(20, 60)]
        assert [answer.revision for answer in mine + more] == list(range(begin + 2, begin + 122, 2))
        await second.stop()
        await frozen.hear(50)  # it stood by, recovered, and writes on in an epoch of its own
    finally:
        await frozen.kill()
    told = frozen.told | {f"second-{turn}": a.revision for turn, a in enumerate(mine + more)}
    log = await entries(world)
    assert len({entry.epoch for entry in log}) == 3
    await check_log(world, told)


async def test_a_postgres_restarted_under_load_is_ridden_out(postgres: EmbeddedPostgres) -> None:
    world = PostgresWorld(postgres.url())
    told: dict[str, int] = {}
    over = asyncio.Event()
    refused = 0

    async with leading(world, snapshot_every=500) as node:

        async def client(number: int) -> None:
            nonlocal refused
            for turn in count():
                request_id = f"c-{number}-{turn}"
                while request_id not in told:
                    try:
                        answer = await node.submit(add("a", 1, request_id=request_id, parts=2))
                        told[request_id] = answer.revision
                    except (Unavailable, AppendOutcomeUnknown):
                        refused += 1
                        await asyncio.sleep(0.01)
                if over.is_set():
                    return

        async def more(answers: int) -> None:
            goal = len(told) + answers
            while len(told) < goal:
                await asyncio.sleep(0.005)

        clients = [asyncio.create_task(client(number)) for number in range(16)]
        await more(200)
        for _ in range(2):
            await asyncio.to_thread(postgres.stop)
            await asyncio.to_thread(postgres.start)
            await more(200)
        pid = postgres.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: postgres.pid is None)
        await asyncio.to_thread(postgres.start)
        await more(200)
        over.set()
        await asyncio.gather(*clients)
        assert node.counters.terms >= 4
    await check_log(world, told)
