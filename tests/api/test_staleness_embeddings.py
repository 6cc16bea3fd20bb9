"""Embeddings across retrains: a compatible one leaves consumers alone, another makes them stale at once."""

import io
import json
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from runway.v1 import common_pb2, lineage_pb2, policies_pb2, registry_pb2, staleness_pb2

from tests.api.test_staleness import EAGER, PROFILE, send
from tests.api.worlds import START, Api, a_version, by, refused

ANCHORS, WIDTH = 60, 8


def anchored(vectors: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", prefix: str = "a") -> bytes:
    """Embeddings of anchors as they are sent."""
    columns = {
        "anchor_id": pa.array([f"{prefix}{row}" for row in range(len(vectors))]),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    }
    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def space(seed: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    return np.random.default_rng(seed).normal(size=(ANCHORS, WIDTH)).astype(np.float32)


def rotated(seed: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """The same space seen from elsewhere, with a little noise, as a retrain gives it."""
    turn, _ = np.linalg.qr(np.random.default_rng(99).normal(size=(WIDTH, WIDTH)))
    noise = np.random.default_rng(98).normal(size=(ANCHORS, WIDTH)) * 0.01
    return np.asarray(space(seed) @ turn + noise, np.float32)


async def embedding_version(api: Api, data: bytes) -> int:
    request = registry_pb2.RegisterVersionRequest(mutation=by(), version=a_version("route"), embeddings=data)
    return int((await api.registry.RegisterVersion(request)).version.version)


async def look(api: Api, model_id: str = "delay") -> staleness_pb2.Staleness:
    return (await api.staleness.GetStaleness(staleness_pb2.GetStalenessRequest(model_id=model_id))).staleness


async def the_edge(api: Api) -> lineage_pb2.Edge:
    request = lineage_pb2.ListEdgesRequest(node_id="model:route", other_node_id="model:delay")
    [edge] = (await api.lineage.ListEdges(request)).edges
    return edge


@pytest.fixture
async def reading(api: Api) -> Api:
    """`delay` was trained with version 1 of the embedding `route`, and is well."""
    api.clock.at = START + timedelta(days=1)
    await api.model("route", task_type=common_pb2.TASK_TYPE_EMBEDDING)
    await api.promote("route", await embedding_version(api, anchored(space(1))))
    await api.model("delay", policies=policies_pb2.Policies(staleness=EAGER))
    await api.edge("model:route", "model:delay")
    await api.version("delay", reference_profile=PROFILE, upstream_versions={"route": 1})
    await api.promote("delay", 1)
    await send(api, "delay", shifted=False)
    api.clock.at += timedelta(hours=1)
    await api.plane.evaluator.tick()
    assert (await look(api)).verdict == staleness_pb2.VERDICT_FRESH
    assert not (await the_edge(api)).HasField("compatibility")
    return api


async def test_a_compatible_retrain_leaves_the_consumer_fresh(reading: Api) -> None:
    await reading.promote("route", await embedding_version(reading, anchored(rotated(1))))
    reading.clock.at += timedelta(seconds=1)
    await reading.plane.evaluator.tick()
    found = await look(reading)
    assert found.verdict == staleness_pb2.VERDICT_FRESH
    [upstream] = found.evaluation.upstreams
    assert (upstream.model_id, upstream.trained_with, upstream.serves, upstream.compatible) == ("route", 1, 2, True)
    assert upstream.anchors == ANCHORS
    assert (await the_edge(reading)).compatibility == upstream


async def test_an_incompatible_one_makes_it_stale_at_once_with_the_evidence_on_the_edge(reading: Api) -> None:
    await reading.promote("route", await embedding_version(reading, anchored(space(2))))
    reading.clock.at += timedelta(seconds=1)
    await reading.plane.evaluator.tick()
    found = await look(reading)
    assert found.verdict == staleness_pb2.VERDICT_STALE
    [trigger] = found.evaluation.hard_triggers
    assert "route" in trigger
    edge = await the_edge(reading)
    assert not edge.compatibility.compatible
    assert edge.compatibility.knn_jaccard < edge.compatibility.knn_jaccard_floor
    changes = await reading.staleness.ListVerdictChanges(staleness_pb2.ListVerdictChangesRequest(model_id="delay"))
    request = staleness_pb2.ReplayEvaluationRequest(model_id="delay", revision=changes.changes[0].revision)
    assert (await reading.staleness.ReplayEvaluation(request)).identical


async def test_rolling_back_heals_the_consumer(reading: Api) -> None:
    await reading.promote("route", await embedding_version(reading, anchored(space(2))))
    reading.clock.at += timedelta(seconds=1)
    await reading.plane.evaluator.tick()
    await reading.promote("route", 1)
    reading.clock.at += timedelta(days=3)  # past the rest of a verdict
    await reading.plane.evaluator.tick()
    found = await look(reading)
    assert not found.evaluation.hard_triggers
    assert not (await the_edge(reading)).HasField("compatibility")


@pytest.mark.parametrize("data", [b"", anchored(space(1), prefix="other")])
async def test_what_cannot_be_compared_is_said_and_is_no_verdict(reading: Api, data: bytes) -> None:
    await reading.promote("route", await embedding_version(reading, data))
    reading.clock.at += timedelta(seconds=1)
    await reading.plane.evaluator.tick()
    found = await look(reading)
    assert found.verdict == staleness_pb2.VERDICT_FRESH
    assert found.evaluation.confidence != staleness_pb2.CONFIDENCE_HIGH
    assert not found.evaluation.upstreams
    assert "route serves version 2 instead of 1" in found.evaluation.confidence_reason
    assert not (await the_edge(reading)).HasField("compatibility")


async def test_embeddings_that_make_no_sense_are_refused_with_their_place(api: Api) -> None:
    await api.model("route", task_type=common_pb2.TASK_TYPE_EMBEDDING)
    vectors = space(1)
    vectors[3, 0] = np.nan
    wrong = await refused(
        api.registry.RegisterVersion(
            registry_pb2.RegisterVersionRequest(mutation=by(), version=a_version("route"), embeddings=anchored(vectors))
        )
    )
    assert json.dumps(wrong.described).count("row 3") == 1
