"""A control plane that is killed while verdicts change: every verdict in the log has its evidence, and replays."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from runway.v1 import (
    ground_truth_pb2,
    ground_truth_pb2_grpc,
    policies_pb2,
    policies_pb2_grpc,
    registry_pb2,
    rollout_pb2,
    rollout_pb2_grpc,
    staleness_pb2,
    staleness_pb2_grpc,
)

from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from tests.api.test_staleness import EAGER, PROFILE
from tests.api.worlds import a_model, a_version, by
from tests.contract.worlds import embedded_postgres, fresh_database
from tests.e2e.test_control_plane import Served
from tests.ground_truth.arrows import ipc, prediction_columns, some_predictions, us

pytestmark = pytest.mark.slow

MODELS = [f"m{number}" for number in range(12)]
KILLS = 3
ROWS = 2_000


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with embedded_postgres(tmp_path_factory.mktemp("verdicts")) as server, fresh_database(server):
        yield server


@pytest.fixture
async def served(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[Served]:
    one = Served(postgres.url(), tmp_path)
    await one.start()
    yield one
    assert await one.stop() == 0


def drifted(model_id: str, life: int) -> ground_truth_pb2.IngestPredictionsRequest:
    """A batch of one end of what the model was trained on."""
    begin = us(datetime.now(UTC) - timedelta(hours=3))
    columns = prediction_columns(some_predictions(ROWS, start_us=begin, first=life * ROWS))
    wind = np.random.default_rng(life).random(ROWS) * 0.1
    data = ipc(columns | {"feature.wind": pa.array(wind)})
    return ground_truth_pb2.IngestPredictionsRequest(
        batch_id=f"{model_id}-{life}", model_id=model_id, version=1 + life, arrow_ipc=data
    )


async def send(served: Served, model_id: str, life: int) -> None:
    stub = ground_truth_pb2_grpc.GroundTruthServiceStub(served.channel)
    [answer] = [one async for one in stub.IngestPredictions(iter([drifted(model_id, life)]))]
    assert answer.accepted.rows == ROWS, answer


async def changes(served: Served, model_id: str) -> list[staleness_pb2.VerdictChange]:
    stub = staleness_pb2_grpc.StalenessServiceStub(served.channel)
    request = staleness_pb2.ListVerdictChangesRequest(model_id=model_id)
    return list((await stub.ListVerdictChanges(request)).changes)


async def test_verdicts_survive_kills_with_their_evidence(served: Served) -> None:
    policies = policies_pb2_grpc.PolicyServiceStub(served.channel)
    await policies.SetPolicies(
        policies_pb2.SetPoliciesRequest(
            mutation=by(reason="test"), scope="fleet", policies=policies_pb2.Policies(staleness=EAGER)
        )
    )
    for model_id in MODELS:
        await served.registry.RegisterModel(registry_pb2.RegisterModelRequest(mutation=by(), model=a_model(model_id)))
    for life in range(KILLS):
        rollouts = rollout_pb2_grpc.RolloutServiceStub(served.channel)
        for model_id in MODELS:
            version = a_version(model_id, trained_until=datetime.now(UTC))
            await served.registry.RegisterVersion(
                registry_pb2.RegisterVersionRequest(mutation=by(), version=version, reference_profile=PROFILE)
            )
            await rollouts.PromoteVersion(
                rollout_pb2.PromoteVersionRequest(
                    mutation=by(reason="test"), model_id=model_id, version=1 + life, force=True
                )
            )
        sending = [asyncio.create_task(send(served, model_id, life)) for model_id in MODELS]
        await asyncio.wait(sending)
        while not [one for model_id in MODELS for one in await changes(served, model_id) if one.version == 1 + life]:
            await asyncio.sleep(0.01)
        await served.kill()
        await served.start()
    stub = staleness_pb2_grpc.StalenessServiceStub(served.channel)
    made = 0
    for model_id in MODELS:
        for change in await changes(served, model_id):
            request = staleness_pb2.ReplayEvaluationRequest(model_id=model_id, revision=change.revision)
            found = await stub.ReplayEvaluation(request)
            assert found.identical, found.differences
            made += 1
    assert made >= KILLS
