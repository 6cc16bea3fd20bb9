"""The real process on a real Postgres: killed, stopped, its database restarted, all under load.

Clients do as ours do: they send a request again, with the same id, until it is answered. In the end every request was
applied exactly once, whatever died in between.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import grpc
import pytest
from runway.v1 import (
    common_pb2,
    ground_truth_pb2,
    ground_truth_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)

from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from tests.api.worlds import Refusal, a_model, a_version, refusal_in
from tests.contract.worlds import embedded_postgres, fresh_database
from tests.ground_truth.arrows import ipc, prediction_columns, some_predictions, us

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KILLS = 3
ACKS_BETWEEN = 60
MUTATORS = 6
INGESTERS = 2
ROWS = 20
MODEL = "delay"
AT = datetime.now(UTC) - timedelta(hours=2)


@pytest.fixture(scope="module")
def server_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of our own: one of these tests restarts it."""
    with embedded_postgres(tmp_path_factory.mktemp("control_plane")) as server:
        yield server


@pytest.fixture
def postgres(server_of_all: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """With an empty database."""
    with fresh_database(server_of_all):
        yield server_of_all


class Served:
    """A control plane's process, over all its lives; clients ask for the channel of the present one."""

    def __init__(self, url: str, home: Path) -> None:
        self._environment = {
            **os.environ,
            "RUNWAY_DATABASE_URL": url,
            "RUNWAY_HOME": str(home / "home"),
            "RUNWAY_ADDRESS": "127.0.0.1:0",
            "RUNWAY_LINEAGE_ADDRESS": "127.0.0.1:0",
            "RUNWAY_SNAPSHOT_EVERY": "100",
            "RUNWAY_DRAIN_S": "5",
        }
        self._log = home / "control_plane.log"
        self.channel: grpc.aio.Channel
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Begin a life and wait until it listens."""
        with self._log.open("w") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "control_plane"), env=self._environment, cwd=ROOT, stderr=log
            )
        while not (address := self._address()):
            assert self.process.returncode is None, self._log.read_text()
            await asyncio.sleep(0.02)
        self.channel = grpc.aio.insecure_channel(address)

    def _address(self) -> str:
        lines = self._log.read_text().splitlines()
        entries = (json.loads(line) for line in lines if line.startswith("{") and line.endswith("}"))
        return next((str(e["address"]) for e in entries if e["event"] == "server.listening"), "")

    async def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        await self.process.wait()
        await self.channel.close(None)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = await self.process.wait()
        await self.channel.close(None)
        return code

    @property
    def registry(self) -> "registry_pb2_grpc.RegistryServiceAsyncStub":
        """RegistryService of the present life."""
        return registry_pb2_grpc.RegistryServiceStub(self.channel)

    @property
    def operations(self) -> "operations_pb2_grpc.OperationsServiceAsyncStub":
        """OperationsService of the present life."""
        return operations_pb2_grpc.OperationsServiceStub(self.channel)

    @property
    def ground_truth(self) -> "ground_truth_pb2_grpc.GroundTruthServiceAsyncStub":
        """GroundTruthService of the present life."""
        return ground_truth_pb2_grpc.GroundTruthServiceStub(self.channel)


@asynccontextmanager
async def served(postgres: EmbeddedPostgres, home: Path) -> AsyncIterator[Served]:
    """A first life with one model that has a version."""
    server = Served(postgres.url(), home)
    await server.start()
    try:
        await server.registry.RegisterModel(registry_pb2.RegisterModelRequest(model=a_model(MODEL)))
        await server.registry.RegisterVersion(registry_pb2.RegisterVersionRequest(version=a_version(MODEL)))
        yield server
    finally:
        if server.process.returncode is None:
            await server.kill()


@dataclass(slots=True)
class Load:
    """Clients that never give up, and what they were told."""

    server: Served
    models: dict[str, int] = field(default_factory=dict)
    """Revision by model of acknowledged registrations."""
    versions: dict[str, int] = field(default_factory=dict)
    """Version number by request id."""
    batches: list[str] = field(default_factory=list)
    again: int = 0
    """Requests that had to be sent again."""
    stopping: bool = False

    @property
    def acknowledged(self) -> int:
        """Everything so far."""
        return len(self.models) + len(self.versions) + len(self.batches)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load while the block runs; then every request under way is brought to its answer."""
        clients = [asyncio.create_task(self._mutate(number)) for number in range(MUTATORS)]
        clients += [asyncio.create_task(self._ingest(number)) for number in range(INGESTERS)]
        try:
            yield
            self.stopping = True
            await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    async def acknowledgements(self, more: int) -> None:
        """Wait for so many more."""
        goal = self.acknowledged + more
        while self.acknowledged < goal:
            await asyncio.sleep(0.005)

    async def _mutate(self, number: int) -> None:
        for turn in count():
            if self.stopping:
                return
            request_id = f"{number}-{turn}"
            by = common_pb2.Mutation(request_id=request_id, actor="load")
            if turn % 2:
                model = a_model(f"m_{number}_{turn}")
                request = registry_pb2.RegisterModelRequest(mutation=by, model=model)
                self.models[model.model_id] = await self._until_told(request)
            else:
                version = registry_pb2.RegisterVersionRequest(mutation=by, version=a_version(MODEL, run=request_id))
                self.versions[request_id] = await self._until_told(version)

    async def _until_told(
        self, request: registry_pb2.RegisterModelRequest | registry_pb2.RegisterVersionRequest
    ) -> int:
        while True:
            try:
                if isinstance(request, registry_pb2.RegisterModelRequest):
                    return (await self.server.registry.RegisterModel(request, timeout=10)).revision
                return (await self.server.registry.RegisterVersion(request, timeout=10)).version.version
            except (grpc.aio.AioRpcError, asyncio.CancelledError, grpc.aio.UsageError) as error:
                await self._sent_again(error)

    async def _ingest(self, number: int) -> None:
        for turn in count():
            if self.stopping:
                return
            rows = some_predictions(ROWS, start_us=us(AT), first=1_000_000 * (number + 1) + turn * ROWS)
            batch = ground_truth_pb2.IngestPredictionsRequest(
                batch_id=f"{number}-{turn}", model_id=MODEL, version=1, arrow_ipc=ipc(prediction_columns(rows))
            )
            while batch.batch_id not in self.batches:
                try:
                    async for answer in self.server.ground_truth.IngestPredictions(iter([batch]), timeout=10):
                        if answer.HasField("accepted"):
                            self.batches.append(answer.batch_id)
                except (grpc.aio.AioRpcError, asyncio.CancelledError, grpc.aio.UsageError) as error:
                    await self._sent_again(error)

    async def _sent_again(self, error: BaseException) -> None:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise error  # we were cancelled ourselves; else the channel was closed under the call
        if isinstance(error, grpc.aio.AioRpcError):
            assert error.code() in {
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            }, error
        self.again += 1
        await asyncio.sleep(0.02)

    async def check(self) -> None:
        """Nothing acknowledged is lost, nothing is applied twice."""
        events = await history(self.server)
        assert [event.revision for event in events] == list(range(1, len(events) + 1))
        registered = {event.model_id: event.revision for event in events if event.kind == "ModelRegistered"}
        assert registered == {**self.models, MODEL: 1}
        asked = [event.request_id for event in events if event.request_id]
        assert len(set(asked)) == len(asked) == len(self.models) + len(self.versions)
        versions = [
            json.loads(event.payload_json) for event in events if event.kind == "VersionRegistered" and event.request_id
        ]
        assert {version["facts"]["run"]: version["version"] for version in versions} == self.versions
        coverage = await self.server.ground_truth.GetCoverage(ground_truth_pb2.GetCoverageRequest(model_id=MODEL))
        assert len(set(self.batches)) == len(self.batches)
        assert coverage.total.predicted == ROWS * len(self.batches)


async def history(server: Served) -> list[operations_pb2.Event]:
    """The whole audit log."""
    found: list[operations_pb2.Event] = []
    while True:
        after = found[-1].revision if found else 0
        request = operations_pb2.ListEventsRequest(after_revision=after, events_max=10_000)
        page = (await server.operations.ListEvents(request)).events
        if not page:
            return found
        found.extend(page)


async def test_kill_9_under_load_loses_nothing_and_applies_nothing_twice(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with served(postgres, tmp_path) as server:
        load = Load(server)
        async with load.running():
            for _ in range(KILLS):
                await load.acknowledgements(ACKS_BETWEEN)
                await server.kill()
                await server.start()
            await load.acknowledgements(ACKS_BETWEEN)
        await load.check()
        # A snapshot and its tail say the same as what lived.
        await server.kill()
        await server.start()
        await load.check()
        assert load.again > 0


async def started_elsewhere(postgres: EmbeddedPostgres) -> None:
    """Start Postgres from a fresh process: gRPC does not survive the fork that dropping root's rights needs."""
    start = (
        "import sys; from pathlib import Path; from control_plane.adapters.postgres.embedded import EmbeddedPostgres; "
        "EmbeddedPostgres(Path(sys.argv[1])).start()"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", start, str(postgres.cluster_dir.parent)), cwd=ROOT
    )
    assert await process.wait() == 0


async def test_a_restarted_postgres_is_a_pause(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with served(postgres, tmp_path) as server:
        load = Load(server)
        async with load.running():
            for _ in range(2):
                await load.acknowledgements(ACKS_BETWEEN)
                await asyncio.to_thread(postgres.stop)
                await started_elsewhere(postgres)
            await load.acknowledgements(ACKS_BETWEEN)
        assert server.process.returncode is None
        await load.check()
        assert await server.stop() == 0


async def test_sigterm_drains_tells_watchers_keeps_a_snapshot_and_exits_0(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with served(postgres, tmp_path) as server:
        watching = server.operations.Watch(operations_pb2.WatchRequest())
        await anext(aiter(watching))
        told = asyncio.create_task(_end_of(watching))
        load = Load(server)
        async with load.running():
            await load.acknowledgements(ACKS_BETWEEN)
            assert await server.stop() == 0
            await server.start()

            await load.acknowledgements(ACKS_BETWEEN)
        refusal = await told
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        await load.check()
        revision = (await server.operations.GetStatus(operations_pb2.GetStatusRequest())).revision
        assert await server.stop() == 0
        await server.start()
        status = await server.operations.GetStatus(operations_pb2.GetStatusRequest())
        assert (status.revision, status.snapshot_revision) == (revision, revision)


async def _end_of(watching: AsyncIterable[operations_pb2.WatchResponse]) -> Refusal:
    try:
        async for _ in watching:
            pass
    except grpc.aio.AioRpcError as error:
        return refusal_in(error)
    raise AssertionError("a watch ended without an error")


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ({"RUNWAY_DATABASE_URL": ""}, 2, "no database: set RUNWAY_DATABASE_URL"),
        ({"RUNWAY_CLOCK": "sundial"}, 2, "use wall or driven"),
    ],
)
async def test_a_wrong_setting_is_a_sentence_and_exit_2(settings: dict[str, str], code: int, says: str) -> None:
    environment = {**os.environ, "RUNWAY_DATABASE_URL": "postgresql://nowhere/x", **settings}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "control_plane"), env=environment, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    assert (process.returncode, len(stderr.splitlines())) == (code, 1)
    assert says in stderr.decode()
    with suppress(ProcessLookupError):
        process.kill()
