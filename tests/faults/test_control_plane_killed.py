"""kill -9 of the whole control plane, and of its Postgres, while batches come in, are sealed and are joined.

`RUNWAY_FAULT_KILLS=50` makes it fifty times instead of eight.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import grpc
import numpy as np
import pytest
from runway.v1 import facts_pb2, facts_pb2_grpc, ground_truth_pb2, operations_pb2, policies_pb2, registry_pb2

from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from tests.api.worlds import a_model, a_version, instant, span
from tests.contract.worlds import embedded_postgres, fresh_database
from tests.e2e.test_control_plane import Served, started_elsewhere
from tests.faults.history import MODELS, SPEC, Message, arrivals, history
from tests.ground_truth.arrows import T0, ipc, outcome_columns, prediction_columns
from tests.reference.join import Outcome, Prediction, join

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KILLS = int(os.environ.get("RUNWAY_FAULT_KILLS", "8"))
GROUPS = 150
IN_FLIGHT = 8
SPAN = timedelta(days=4)
"""All that the history is about."""

AWAY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with embedded_postgres(tmp_path_factory.mktemp("killed")) as server, fresh_database(server):
        yield server


@asynccontextmanager
async def driven(postgres: EmbeddedPostgres, home: Path) -> AsyncIterator[Served]:
    """A first life on a driven clock, with the history's models."""
    server = Served(postgres.url(), home)
    server._environment["RUNWAY_CLOCK"] = "driven"
    await server.start()
    try:
        await advance(server, T0)
        label = policies_pb2.Policies(label=policies_pb2.LabelSpec(window=span(SPEC.window)))
        for model_id in MODELS:
            await server.registry.RegisterModel(
                registry_pb2.RegisterModelRequest(model=a_model(model_id, policies=label))
            )
            await server.registry.RegisterVersion(registry_pb2.RegisterVersionRequest(version=a_version(model_id)))
        yield server
    finally:
        if server.process.returncode is None:
            await server.kill()


async def advance(server: Served, to: datetime) -> None:
    await server.operations.AdvanceClock(operations_pb2.AdvanceClockRequest(now=instant(to)), timeout=10)


async def joined(server: Served, *, authoritative: bool) -> facts_pb2.JoinPartitionResponse:
    stub: facts_pb2_grpc.FactsServiceAsyncStub = facts_pb2_grpc.FactsServiceStub(server.channel)
    request = facts_pb2.JoinPartitionRequest(
        start_time=instant(T0), end_time=instant(T0 + SPAN), authoritative=authoritative
    )
    return await stub.JoinPartition(request, timeout=60)


def cancelled() -> bool:
    """Is it this task that was cancelled? A call whose channel was closed under it says so too."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class Senders:
    """Clients that send the history in order, a few messages at once, each again until it is acknowledged."""

    def __init__(self, server: Served, messages: list[Message]) -> None:
        self.server, self.messages = server, messages
        self.acknowledged = 0
        self.again = 0
        self.joins = 0
        self._next = iter(range(len(messages)))

    async def send(self) -> None:
        """One of several that share the history."""
        for number in self._next:
            while not await self._told(self.messages[number]):
                self.again += 1
                await asyncio.sleep(0.02)
            self.acknowledged += 1

    async def keep_joining(self) -> None:
        """Move the clock with what was sent, and ask for joins of all kinds, until cancelled."""
        for turn in count():
            try:
                await advance(self.server, T0 + SPAN * (self.acknowledged / len(self.messages)) / 2)
                await joined(self.server, authoritative=turn % 5 == 0)
                self.joins += 1
            except (grpc.aio.AioRpcError, grpc.aio.UsageError) as error:
                assert isinstance(error, grpc.aio.UsageError) or error.code() in AWAY, error
            except asyncio.CancelledError:
                if cancelled():
                    raise
            await asyncio.sleep(0.02)

    async def _told(self, message: Message) -> bool:
        try:
            if message.kind == "predictions":
                columns = prediction_columns([row for row in message.rows if isinstance(row, Prediction)])
                made = ground_truth_pb2.IngestPredictionsRequest(
                    batch_id=message.batch_id, model_id=message.model_id, version=1, arrow_ipc=ipc(columns)
                )
                return await _accepted(self.server.ground_truth.IngestPredictions(iter([made]), timeout=10))
            columns = outcome_columns([row for row in message.rows if isinstance(row, Outcome)])
            turned_out = ground_truth_pb2.IngestOutcomesRequest(
                batch_id=message.batch_id, model_id=message.model_id, arrow_ipc=ipc(columns)
            )
            return await _accepted(self.server.ground_truth.IngestOutcomes(iter([turned_out]), timeout=10))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError) as error:
            assert isinstance(error, grpc.aio.UsageError) or error.code() in AWAY, error
            return False
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return False  # the channel was closed under the call


async def _accepted(
    answers: AsyncIterable[ground_truth_pb2.IngestPredictionsResponse]
    | AsyncIterable[ground_truth_pb2.IngestOutcomesResponse],
) -> bool:
    async for answer in answers:
        if answer.HasField("refused"):
            assert answer.refused.code in {code.value[0] for code in AWAY}, answer.refused
            return False
        return True
    return False


async def kill_postgres(postgres: EmbeddedPostgres) -> None:
    """kill -9 of the postmaster, then a start that recovers."""
    pid = postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while postgres.pid is not None:
        await asyncio.sleep(0.01)
    await started_elsewhere(postgres)


async def test_killed_in_ingest_sealing_and_joins_it_counts_everything_once(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    messages, rng = history(GROUPS), np.random.default_rng(3)
    async with driven(postgres, tmp_path) as server:
        senders = Senders(server, messages)
        sending = [asyncio.create_task(senders.send()) for _ in range(IN_FLIGHT)]
        joining = asyncio.create_task(senders.keep_joining())
        for kill in range(KILLS):
            goal = (kill + 1) * len(messages) // (KILLS + 2) + int(rng.integers(0, 20))
            while senders.acknowledged < goal:
                assert not joining.done(), joining.exception()
                await asyncio.sleep(0.005)
            await server.kill()
            if kill % 4 == 3:
                await kill_postgres(postgres)
            await server.start()
        await asyncio.gather(*sending)
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        assert senders.again > 0
        assert senders.joins > 0
        await check(server, messages)
        await server.kill()
        await server.start()
        await check(server, messages)


async def check(server: Served, messages: list[Message]) -> None:
    """Both layers against the twin: what is counted, what has an outcome, what does not count, and how good it was."""
    await advance(server, T0 + timedelta(days=30))
    report = await joined(server, authoritative=True)
    assert report.hours_live == 0
    for model_id in MODELS:
        twin = join(arrivals(messages, model_id), SPEC.window_us)
        pairs = [(score, value) for hour in twin.hours.values() for score, value, _ in hour.joined]
        asked = ground_truth_pb2.GetCoverageRequest(
            model_id=model_id, start_time=instant(T0), end_time=instant(T0 + SPAN)
        )
        total = (await server.ground_truth.GetCoverage(asked)).total
        assert (total.predicted, total.joined, total.orphans) == (
            sum(hour.predicted for hour in twin.hours.values()),
            len(pairs),
            len(twin.orphans),
        ), model_id
        request = ground_truth_pb2.GetPerformanceRequest(
            model_id=model_id, start_time=instant(T0), end_time=instant(T0 + SPAN)
        )
        performance = await server.ground_truth.GetPerformance(request)
        (brier,) = (metric for metric in performance.total.metrics if metric.name == "brier")
        assert brier.sample_size == len(pairs)
        assert brier.value == pytest.approx(sum((score - value) ** 2 for score, value in pairs) / len(pairs))
