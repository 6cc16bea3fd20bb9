"""FactsService.JoinPartition: a stretch of time joined when asked, the same numbers each time, or refused."""

from datetime import datetime, timedelta

import pytest
from runway.v1 import facts_pb2, policies_pb2

from tests.api.test_ground_truth import outcomes, predictions, sent
from tests.api.worlds import START, Api, instant, refused, span
from tests.ground_truth.arrows import ipc, outcome_columns, outcomes_for, prediction_columns, some_predictions, us

DAY = timedelta(days=1)
ROWS = 30


@pytest.fixture
async def serving(api: Api) -> Api:
    """A model whose outcomes count for six hours, with two days of predictions and half of the outcomes of each."""
    await api.serving(
        "delay", policies=policies_pb2.Policies(label=policies_pb2.LabelSpec(window=span(timedelta(hours=6))))
    )
    for number in range(2):
        made = some_predictions(ROWS, start_us=us(START + number * DAY), first=ROWS * number)
        [stored] = await sent(api, [predictions(ipc(prediction_columns(made)), batch_id=f"p{number}")])
        assert stored.accepted.rows == ROWS
        known = ipc(outcome_columns(outcomes_for(made)[: ROWS // 2]))
        [stored] = await sent(api, [outcomes(known, batch_id=f"o{number}")])
        assert stored.accepted.rows == ROWS // 2
    return api


async def join(api: Api, start: datetime, end: datetime, **asked: object) -> facts_pb2.JoinPartitionResponse:
    request = facts_pb2.JoinPartitionRequest(
        start_time=instant(start),
        end_time=instant(end),
        **asked,  # type: ignore[arg-type]
    )
    return await api.facts.JoinPartition(request)


async def test_a_day_is_joined_and_says_so(serving: Api) -> None:
    serving.clock.at = START + 5 * DAY
    answer = await join(serving, START, START + DAY)
    assert (answer.predicted, answer.joined, answer.orphans, answer.hours_live) == (ROWS, ROWS // 2, 0, 0)
    assert answer.hours_joined >= 1
    assert answer.engine == "duckdb"
    (model,) = answer.models
    assert (model.model_id, model.predicted, model.joined, model.coverage) == ("delay", ROWS, ROWS // 2, 0.5)


async def test_again_and_from_the_ground_up_give_the_same_numbers(serving: Api) -> None:
    serving.clock.at = START + 5 * DAY
    first = await join(serving, START, START + 2 * DAY)
    again = await join(serving, START, START + 2 * DAY)
    anew = await join(serving, START, START + 2 * DAY, authoritative=True)
    assert first.models == again.models == anew.models
    assert again.hours_joined == 0  # nothing has changed since
    assert anew.hours_joined == 2  # one hour of each day holds rows, and each was counted again
    assert (anew.predicted, anew.joined) == (2 * ROWS, ROWS)


async def test_an_hour_that_is_live_is_left_to_the_speed_layer(serving: Api) -> None:
    serving.clock.at = START + timedelta(hours=1)
    answer = await join(serving, START, START + timedelta(hours=1))
    assert (answer.hours_live, answer.predicted, answer.joined) == (1, ROWS, ROWS // 2)
    assert not answer.models[0].HasField("coverage")  # nothing is mature


async def test_one_model_of_several(serving: Api) -> None:
    await serving.serving("other")
    made = some_predictions(ROWS, start_us=us(START), first=500)
    await sent(serving, [predictions(ipc(prediction_columns(made)), model_id="other", batch_id="x")])
    serving.clock.at = START + 30 * DAY
    everything = await join(serving, START, START + DAY)
    assert [one.model_id for one in everything.models] == ["delay", "other"]
    assert everything.predicted == 2 * ROWS
    one = await join(serving, START, START + DAY, model_id="other", authoritative=True)
    assert [(model.model_id, model.coverage) for model in one.models] == [("other", 0.0)]


async def test_what_cannot_be_joined_is_refused_with_advice(serving: Api) -> None:
    serving.clock.at = START + 5 * DAY
    turned = await refused(join(serving, START + DAY, START))
    assert (turned.reason, turned.violations) == ("INVALID_ARGUMENT", {"start_time": "ORDER"})
    long = await refused(join(serving, START, START + timedelta(days=93)))
    assert "93 days are too many for one join: ask for at most 92 at once" in long.message
    future = await refused(join(serving, START + 6 * DAY, START + 7 * DAY))
    assert "has not come yet: the control plane's clock says" in future.message
    nobody = await refused(join(serving, START, START + DAY, model_id="nobody"))
    assert nobody.reason == "MODEL_NOT_FOUND"
    without = await refused(serving.facts.JoinPartition(facts_pb2.JoinPartitionRequest()))
    assert without.reason == "INVALID_ARGUMENT"
    assert set(without.violations) == {"start_time", "end_time"}
