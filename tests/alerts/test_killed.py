"""kill -9 of the whole control plane while it sends events to a receiver that fails at random: none is lost."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from runway.v1 import alerts_pb2, alerts_pb2_grpc, operations_pb2, registry_pb2

from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from tests.alerts.nodes import SECRET, check_signed
from tests.alerts.receivers import Received, Reply, receiving
from tests.api.worlds import a_model, a_version
from tests.contract.worlds import embedded_postgres, fresh_database
from tests.e2e.test_control_plane import Served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = int(os.environ.get("RUNWAY_FAULT_KILLS", "3"))
MODELS = 8
VERSIONS = 4


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with embedded_postgres(tmp_path_factory.mktemp("killed")) as server, fresh_database(server):
        yield server


def hook(url: str) -> alerts_pb2.SetDestinationRequest:
    """Everything goes to a receiver of ours."""
    return alerts_pb2.SetDestinationRequest(
        destination=alerts_pb2.Destination(
            name="hook",
            kind=alerts_pb2.DESTINATION_KIND_WEBHOOK,
            url=url,
            secret_variable="HOOK_SECRET",
            allow_private=True,
        )
    )


async def behind(server: Served) -> int:
    """How far the hook is behind."""
    stub: alerts_pb2_grpc.AlertsServiceAsyncStub = alerts_pb2_grpc.AlertsServiceStub(server.channel)
    found = await stub.ListDestinations(alerts_pb2.ListDestinationsRequest(), timeout=10)
    return int(found.destinations[0].behind)


async def test_no_event_is_lost_and_each_models_events_keep_their_order(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)

    async def moody(_: Received) -> Reply:
        await asyncio.sleep(float(rng.random()) * 0.02)
        return Reply(status=int(rng.choice([204, 204, 204, 204, 204, 500, 0])))

    server = Served(postgres.url(), tmp_path)
    server._environment["HOOK_SECRET"] = SECRET
    async with receiving(moody) as receiver:
        await server.start()
        try:
            stub: alerts_pb2_grpc.AlertsServiceAsyncStub = alerts_pb2_grpc.AlertsServiceStub(server.channel)
            since = (await stub.SetDestination(hook(receiver.url), timeout=10)).revision
            for life in range(KILLS + 1):
                for model in range(MODELS):
                    name = f"m{life}_{model}"
                    await server.registry.RegisterModel(
                        registry_pb2.RegisterModelRequest(model=a_model(name)), timeout=10
                    )
                    for _ in range(VERSIONS):
                        await server.registry.RegisterVersion(
                            registry_pb2.RegisterVersionRequest(version=a_version(name)), timeout=10
                        )
                if life < KILLS:
                    taken = len(receiver.taken)
                    while len(receiver.taken) < taken + 5:
                        await asyncio.sleep(0.01)
                    await server.kill()
                    await server.start()
            while await behind(server):
                await asyncio.sleep(0.05)
            request = operations_pb2.ListEventsRequest(events_max=10_000, after_revision=since)
            log = (await server.operations.ListEvents(request, timeout=30)).events
        finally:
            if server.process.returncode is None:
                await server.kill()
    for received in receiver.taken:
        check_signed(received)
    first: dict[str, list[int]] = defaultdict(list)
    seen: set[int] = set()
    for received in receiver.taken:
        event = received.json()
        seq = int(str(event["id"]))
        if seq not in seen:
            seen.add(seq)
            first[str(event.get("subject", ""))].append(seq)
    assert {event.revision for event in log} <= seen
    assert all(seqs == sorted(seqs) for seqs in first.values())
    assert len(first) > KILLS * MODELS
