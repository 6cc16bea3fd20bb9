"""Looks as they are taken and kept: when evidence comes, before the verdict is in the log, and made again from it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from runway.v1 import policies_pb2, staleness_pb2

from control_plane.app.evaluator import LOOKS_AT_ONCE_MAX, LOOKS_PER_CADENCE_MAX, Evaluator
from control_plane.app.looks import Look
from control_plane.core.errors import Reason, Unavailable
from control_plane.core.ids import ModelId
from tests.api.test_staleness import EAGER, PROFILE, evaluate, send
from tests.api.worlds import START, Api, instant, refused

DELAY = ModelId("delay")
CADENCE = timedelta(minutes=15)


@pytest.fixture
async def serving(api: Api) -> Api:
    """`delay` serves, and was looked at once."""
    api.clock.at = START + timedelta(days=1)
    policy = policies_pb2.StalenessPolicy()
    policy.CopyFrom(EAGER)
    policy.cadence.CopyFrom(Duration(seconds=int(CADENCE.total_seconds())))
    await api.serving("delay", policies=policies_pb2.Policies(staleness=policy), reference_profile=PROFILE)
    await api.plane.evaluator.tick()
    return api


def looks_at(api: Api, model_id: ModelId = DELAY) -> int:
    return len(api.plane.looks.between(model_id, START, START + timedelta(days=99), 10_000))


async def changes(api: Api, model_id: str = "delay") -> list[staleness_pb2.VerdictChange]:
    """Newest first."""
    request = staleness_pb2.ListVerdictChangesRequest(model_id=model_id)
    return list((await api.staleness.ListVerdictChanges(request)).changes)


async def replayed(api: Api, **which: Any) -> staleness_pb2.ReplayEvaluationResponse:
    request = staleness_pb2.ReplayEvaluationRequest(model_id=which.pop("model_id", "delay"), **which)
    found: staleness_pb2.ReplayEvaluationResponse = await api.staleness.ReplayEvaluation(request)
    return found


async def test_evidence_is_looked_at_when_it_comes(serving: Api) -> None:
    serving.clock.at += timedelta(seconds=1)
    await serving.plane.evaluator.tick()
    assert looks_at(serving) == 1, "nothing came, and its cadence is not over"
    await send(serving, "delay", shifted=True)
    await serving.plane.evaluator.tick()
    assert looks_at(serving) == 2
    assert [change.to_verdict for change in await changes(serving)] == [staleness_pb2.VERDICT_STALE]
    await serving.plane.evaluator.tick()
    assert looks_at(serving) == 2, "once"


async def test_evidence_without_a_pause_is_looked_at_so_often_and_no_more(serving: Api) -> None:
    for batch in range(LOOKS_AT_ONCE_MAX + 5):
        serving.clock.at += timedelta(seconds=1)
        await send(serving, "delay", shifted=False, first=batch * 10_000)
        await serving.plane.evaluator.tick()
    assert looks_at(serving) == 1 + LOOKS_AT_ONCE_MAX
    serving.clock.at += CADENCE / LOOKS_PER_CADENCE_MAX
    await serving.plane.evaluator.tick()
    assert looks_at(serving) == 2 + LOOKS_AT_ONCE_MAX, "what had to wait is looked at then"


async def test_whoever_wants_only_a_cadence_gets_only_a_cadence(serving: Api) -> None:
    policies = policies_pb2.Policies(staleness=policies_pb2.StalenessPolicy(evaluate_on_evidence=False))
    await serving.serving("calm", policies=policies, reference_profile=PROFILE)
    await serving.plane.evaluator.tick()
    serving.clock.at += timedelta(seconds=90)
    await send(serving, "calm", shifted=True)
    await serving.plane.evaluator.tick()
    assert looks_at(serving, ModelId("calm")) == 1
    serving.clock.at += timedelta(days=1)
    await serving.plane.evaluator.tick()
    assert looks_at(serving, ModelId("calm")) == 2


async def test_a_look_that_a_promotion_overtook_is_discarded(serving: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await serving.version("delay", reference_profile=PROFILE)
    await send(serving, "delay", shifted=True)
    read = serving.plane.ground_truth.read

    async def overtaken(look: Callable[[Any], Any]) -> Any:
        found = await read(look)
        await serving.promote("delay", 2)
        return found

    monkeypatch.setattr(serving.plane.ground_truth, "read", overtaken)
    serving.clock.at += timedelta(seconds=1)
    await serving.plane.evaluator.tick()
    monkeypatch.undo()
    assert await changes(serving) == []
    found = (await serving.staleness.GetStaleness(staleness_pb2.GetStalenessRequest(model_id="delay"))).staleness
    assert found.verdict == staleness_pb2.VERDICT_UNKNOWN
    assert not found.HasField("evaluation"), "a look at version 1 says nothing of version 2"
    serving.clock.at += timedelta(seconds=1)
    await serving.plane.evaluator.tick()
    assert (await evaluate(serving, "delay")).evaluation.version == 2


async def test_no_verdict_without_its_evidence_on_disk(serving: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await send(serving, "delay", shifted=True)
    record = serving.plane.looks.record

    def full(looks: Sequence[Look], evidence: Mapping[str, bytes]) -> None:
        raise Unavailable(Reason.STORE_UNAVAILABLE, "the disk is full")

    monkeypatch.setattr(serving.plane.looks, "record", full)
    serving.clock.at += timedelta(seconds=1)
    with pytest.raises(Unavailable):
        await serving.plane.evaluator.tick()
    assert await changes(serving) == []

    kept: list[str] = []

    def noted(looks: Sequence[Look], evidence: Mapping[str, bytes]) -> None:
        record(looks, evidence)
        kept.extend(evidence)
        standing = serving.plane.node.state.model(DELAY).standing
        assert standing.evaluation is None, "the log must not have it before the disk has"

    monkeypatch.setattr(serving.plane.looks, "record", noted)
    await serving.plane.evaluator.tick()
    [change] = await changes(serving)
    assert kept == [change.evaluation.evidence_sha256], "as due as before, and now it is kept first"
    data = serving.plane.looks.evidence(kept[0])
    assert data is not None
    assert hashlib.sha256(data).hexdigest() == kept[0]


async def test_the_newest_look_is_there_after_a_start(serving: Api) -> None:
    await evaluate(serving, "delay")
    again = Evaluator(
        node=serving.plane.node, ground_truth=serving.plane.ground_truth, looks=serving.plane.looks, tick_s=3600
    )
    await again.start()
    assert again.latest == serving.plane.evaluator.latest
    assert again.latest[DELAY].at == serving.clock.at
    await again.stop()


async def test_every_verdict_change_of_a_fleet_is_made_again_bit_for_bit(api: Api) -> None:
    api.clock.at = START + timedelta(days=1)
    models = [f"m{number}" for number in range(4)]
    for model_id in models:
        await api.serving(model_id, policies=policies_pb2.Policies(staleness=EAGER), reference_profile=PROFILE)
    for day in range(8):
        for number, model_id in enumerate(models):
            await send(api, model_id, shifted=(day // (number + 1)) % 2 == 1, first=(day * 10 + number) * 10_000)
        await api.plane.evaluator.tick()
        api.clock.at += timedelta(days=3)  # verdicts rest meanwhile, and the window of 7 days moves on
    made = 0
    for model_id in models:
        for change in await changes(api, model_id):
            found = await replayed(api, model_id=model_id, revision=change.revision)
            assert found.identical, found.differences
            assert found.recorded == found.replayed == change.evaluation
            assert found.evidence_sha256 == change.evaluation.evidence_sha256
            made += 1
    assert made >= 2 * len(models)


async def test_a_look_is_made_again_by_its_time(serving: Api) -> None:
    found = await replayed(serving, evaluated_at=instant(serving.clock.at))
    assert found.identical
    missing = await refused(replayed(serving, evaluated_at=instant(START)))
    assert missing.reason == "EVALUATION_NOT_FOUND"
    assert (await refused(replayed(serving, revision=999))).reason == "EVALUATION_NOT_FOUND"


async def test_evidence_that_was_not_kept_is_said(serving: Api) -> None:
    for _ in range(2):
        serving.clock.at += CADENCE
        await serving.plane.evaluator.tick()
    assert (await refused(replayed(serving, evaluated_at=instant(serving.clock.at)))).reason == "EVIDENCE_NOT_KEPT"


async def test_a_clock_that_jumps_back_stops_no_look(serving: Api) -> None:
    serving.clock.at -= timedelta(hours=5)
    await send(serving, "delay", shifted=True)
    await serving.plane.evaluator.tick()
    latest = serving.plane.evaluator.latest[DELAY]
    assert latest.level.value == "STALE"
    assert latest.at == serving.plane.node.now() == serving.clock.at + timedelta(hours=5), "time does not go back"
    [change] = await changes(serving)
    assert (await replayed(serving, revision=change.revision)).identical
    assert looks_at(serving) == 1, "a look at the same time takes the place of the one before"


async def test_a_version_without_a_reference_is_looked_at_and_says_so(api: Api) -> None:
    api.clock.at = START + timedelta(days=1)
    await api.serving("delay", policies=policies_pb2.Policies(staleness=EAGER))
    await send(api, "delay", shifted=True)
    await api.plane.evaluator.tick()
    found = (await api.staleness.GetStaleness(staleness_pb2.GetStalenessRequest(model_id="delay"))).staleness
    [drift] = [signal for signal in found.evaluation.signals if signal.name == "input_drift"]
    assert drift.missing
    assert "reference" in drift.explanation
