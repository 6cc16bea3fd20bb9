"""StalenessService: verdicts from real batches, their explanation and history; a broken model stops nobody."""

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from runway.v1 import common_pb2, ground_truth_pb2, operations_pb2, policies_pb2, staleness_pb2

from control_plane.app.evidence import Subject
from control_plane.app.evidence import evidence_of as known
from control_plane.core.staleness.evaluation import evaluate_fleet as sound
from tests.api.worlds import START, Api, by, instant, refused
from tests.ground_truth.arrows import ipc, prediction_columns, some_predictions, us

EDGES = [float(edge) for edge in np.linspace(0.1, 0.9, 9)]
PROFILE = json.dumps(
    {
        "features": {"wind": {"kind": "numeric", "edges": EDGES, "counts": [200] * 10 + [0]}},
        "prediction": {"edges": EDGES, "counts": [200] * 10},
    }
).encode()
ROWS = 2_000
EAGER = policies_pb2.StalenessPolicy(hysteresis_k=1, hysteresis_n=1, stale_threshold=0.2, at_risk_threshold=0.1)


async def send(api: Api, model_id: str, *, shifted: bool, first: int = 0) -> None:
    """Predictions of the last hours, of the training's distribution or far from it."""
    rows = some_predictions(ROWS, start_us=us(api.clock.at - timedelta(hours=4)), first=first)
    wind = np.random.default_rng(first).random(ROWS) * (0.1 if shifted else 1.0)
    columns = prediction_columns(rows) | {"feature.wind": pa.array(wind)}
    request = ground_truth_pb2.IngestPredictionsRequest(
        batch_id=f"{model_id}-{first}", model_id=model_id, version=1, arrow_ipc=ipc(columns)
    )
    [answer] = [answer async for answer in api.ground_truth.IngestPredictions(iter([request]))]
    assert answer.accepted.rows == ROWS, answer


async def evaluate(api: Api, model_id: str, *, dry: bool = False) -> staleness_pb2.Staleness:
    request = staleness_pb2.EvaluateModelRequest(mutation=by(validate_only=dry), model_id=model_id)
    return (await api.staleness.EvaluateModel(request)).staleness


@pytest.fixture
async def drifted(api: Api) -> Api:
    """`delay` drifts, `calm` does not."""
    api.clock.at = START + timedelta(days=1)
    for model_id, shifted in (("delay", True), ("calm", False)):
        await api.serving(model_id, policies=policies_pb2.Policies(staleness=EAGER), reference_profile=PROFILE)
        await send(api, model_id, shifted=shifted)
    api.clock.at += timedelta(hours=1)
    return api


async def test_drift_makes_a_verdict_with_reasons(drifted: Api) -> None:
    found = await evaluate(drifted, "delay")
    assert found.verdict in (staleness_pb2.VERDICT_STALE, staleness_pb2.VERDICT_AT_RISK)
    assert found.evaluation.top_features[0].name == "wind"
    assert found.evaluation.top_features[0].drifted
    assert found.evaluation.reasons
    assert {signal.name for signal in found.evaluation.signals} == {
        "age",
        "input_drift",
        "prediction_drift",
        "performance",
    }
    read = await drifted.staleness.GetStaleness(staleness_pb2.GetStalenessRequest(model_id="delay"))
    assert read.staleness.next
    read.staleness.ClearField("next")  # of this answer only
    assert read.staleness == found
    explained = await drifted.staleness.ExplainStaleness(staleness_pb2.ExplainStalenessRequest(model_id="delay"))
    assert any("wind" in sentence for sentence in explained.sentences)
    changes = await drifted.staleness.ListVerdictChanges(staleness_pb2.ListVerdictChangesRequest(model_id="delay"))
    assert [change.to_verdict for change in changes.changes] == [found.verdict]
    assert changes.changes[0].from_verdict == staleness_pb2.VERDICT_UNKNOWN


async def test_the_fleet_is_listed_worst_first_in_pages(drifted: Api) -> None:
    await evaluate(drifted, "delay")
    await evaluate(drifted, "calm")
    await drifted.model("unborn")
    page = common_pb2.PageRequest(page_size=1)
    order = []
    while True:
        request = staleness_pb2.ListStalenessRequest(page=page)
        reply = await drifted.staleness.ListStaleness(request)
        order += [found.model_id for found in reply.staleness]
        page.page_token = reply.next_page_token
        if not page.page_token:
            break
    assert order[0] == "delay"
    assert sorted(order) == ["calm", "delay", "unborn"]
    unknown = staleness_pb2.ListStalenessRequest(verdicts=[staleness_pb2.VERDICT_UNKNOWN])
    assert "unborn" in [found.model_id for found in (await drifted.staleness.ListStaleness(unknown)).staleness]
    nobody = staleness_pb2.ListStalenessRequest(team="nobody")
    assert not (await drifted.staleness.ListStaleness(nobody)).staleness


async def test_a_dry_evaluation_records_nothing(drifted: Api) -> None:
    before = await drifted.revision()
    assert (await evaluate(drifted, "delay", dry=True)).verdict == staleness_pb2.VERDICT_UNKNOWN
    assert await drifted.revision() == before


async def test_a_stale_model_is_retrained_by_itself(drifted: Api) -> None:
    found = await evaluate(drifted, "delay")
    await drifted.plane.node.tick()
    status = await drifted.operations.GetStatus(operations_pb2.GetStatusRequest())
    wanted = found.evaluation.recommended_action == "RETRAIN" and found.verdict == staleness_pb2.VERDICT_STALE
    assert bool(status.retrains) == wanted


async def test_too_little_data_is_unknown_never_fresh(api: Api) -> None:
    await api.serving("delay", policies=policies_pb2.Policies(staleness=EAGER))
    found = await evaluate(api, "delay")
    assert found.verdict == staleness_pb2.VERDICT_UNKNOWN
    bare = await api.staleness.ExplainStaleness(staleness_pb2.ExplainStalenessRequest(model_id="delay"))
    assert bare.sentences
    await api.model("unborn")
    unborn = await api.staleness.ExplainStaleness(staleness_pb2.ExplainStalenessRequest(model_id="unborn"))
    assert list(unborn.sentences) == ["unborn has not been evaluated yet: it has no production version."]
    assert (await evaluate(api, "unborn")).verdict == staleness_pb2.VERDICT_UNKNOWN


async def test_unknown_models(api: Api) -> None:
    for call in (
        api.staleness.GetStaleness(staleness_pb2.GetStalenessRequest(model_id="x")),
        api.staleness.ExplainStaleness(staleness_pb2.ExplainStalenessRequest(model_id="x")),
        api.staleness.ListVerdictChanges(staleness_pb2.ListVerdictChangesRequest(model_id="x")),
        api.staleness.EvaluateModel(staleness_pb2.EvaluateModelRequest(model_id="x")),
    ):
        assert (await refused(call)).reason == "MODEL_NOT_FOUND"


async def test_one_model_that_cannot_be_evaluated_does_not_stop_the_others(
    drifted: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(looks: list[tuple[object, object]], now: object) -> object:
        if any(evidence is None for _, evidence in looks):
            raise ZeroDivisionError
        return sound(looks, now)  # type: ignore[arg-type]

    def evidence_of(subject: Subject, *known_of_it: Any) -> object:
        return None if subject.model_id == "delay" else known(subject, *known_of_it)

    monkeypatch.setattr("control_plane.app.evaluator.evaluate_fleet", breaks)
    monkeypatch.setattr("control_plane.app.evaluator.evidence_of", evidence_of)
    drifted.clock.at += timedelta(days=2)
    await drifted.plane.evaluator.tick()
    found = await drifted.staleness.GetStaleness(staleness_pb2.GetStalenessRequest(model_id="calm"))
    assert found.staleness.evaluation.evaluated_at == instant(drifted.clock.at)
