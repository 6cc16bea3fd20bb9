"""GroundTruthService: ingest streams that survive bad batches, coverage and performance of what arrived."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pyarrow as pa
import pytest
from runway.v1 import common_pb2, ground_truth_pb2, operations_pb2, policies_pb2, registry_pb2

from tests.api.worlds import START, Api, Host, Refusal, instant, refusal_of, refused, span
from tests.ground_truth.arrows import ipc, outcome_columns, outcomes_for, prediction_columns, some_predictions, us
from tests.reference.join import Prediction

Response = ground_truth_pb2.IngestPredictionsResponse | ground_truth_pb2.IngestOutcomesResponse
ROWS = 40
DAY = timedelta(days=1)


def made() -> list[Prediction]:
    """Predictions of the hour in which the tests begin."""
    return some_predictions(ROWS, start_us=us(START))


def predictions(
    arrow: bytes | None = None, *, batch_id: str = "b1", model_id: str = "delay", version: int = 1
) -> ground_truth_pb2.IngestPredictionsRequest:
    """A batch of predictions."""
    arrow = ipc(prediction_columns(made())) if arrow is None else arrow
    return ground_truth_pb2.IngestPredictionsRequest(
        batch_id=batch_id, model_id=model_id, version=version, arrow_ipc=arrow
    )


def outcomes(
    arrow: bytes | None = None, *, batch_id: str = "o1", **changes: str
) -> ground_truth_pb2.IngestOutcomesRequest:
    """A batch of outcomes of these predictions."""
    arrow = ipc(outcome_columns(outcomes_for(made()))) if arrow is None else arrow
    model_id, label_type = changes.get("model_id", "delay"), changes.get("label_type", "")
    return ground_truth_pb2.IngestOutcomesRequest(
        batch_id=batch_id, arrow_ipc=arrow, model_id=model_id, label_type=label_type
    )


async def sent(
    api: Api,
    requests: Sequence[ground_truth_pb2.IngestPredictionsRequest] | Sequence[ground_truth_pb2.IngestOutcomesRequest],
) -> list[Response]:
    """Send batches through one stream."""
    if isinstance(requests[0], ground_truth_pb2.IngestPredictionsRequest):
        return [answer async for answer in api.ground_truth.IngestPredictions(iter(requests))]  # type: ignore[arg-type]
    return [answer async for answer in api.ground_truth.IngestOutcomes(iter(requests))]  # type: ignore[arg-type]


async def refused_batch(
    api: Api, request: ground_truth_pb2.IngestPredictionsRequest | ground_truth_pb2.IngestOutcomesRequest
) -> Refusal:
    """Send one batch that must be refused."""
    [answer] = await sent(api, [request])  # type: ignore[arg-type]
    assert answer.WhichOneof("outcome") == "refused", answer
    return refusal_of(answer.refused)


async def coverage(api: Api, **asked: object) -> ground_truth_pb2.GetCoverageResponse:
    request = ground_truth_pb2.GetCoverageRequest(model_id="delay", **asked)  # type: ignore[arg-type]
    return await api.ground_truth.GetCoverage(request)


@pytest.fixture
async def serving(api: Api) -> Api:
    """A binary model in production whose outcomes count for a day."""
    await api.serving("delay", policies=policies_pb2.Policies(label=policies_pb2.LabelSpec(window=span(DAY))))
    api.clock.at = START + timedelta(hours=2)
    return api


async def test_predictions_and_outcomes_become_coverage_and_performance(serving: Api) -> None:
    [stored] = await sent(serving, [predictions()])
    assert (stored.batch_id, stored.accepted.rows, stored.accepted.duplicate) == ("b1", ROWS, False)
    early = await coverage(serving)
    assert (early.total.predicted, early.total.mature) == (ROWS, 0)
    assert not early.total.HasField("coverage")
    assert "outcomes count for 1 day after a prediction" in early.explanation
    await sent(serving, [outcomes()])
    # Nothing but time passes, and the predictions are mature.
    serving.clock.at = START + 2 * DAY
    later = await coverage(serving)
    assert (later.total.mature, later.total.joined, later.total.coverage) == (ROWS, ROWS, 1.0)
    assert later.coverage_min > 0
    found = await serving.ground_truth.GetPerformance(ground_truth_pb2.GetPerformanceRequest(model_id="delay"))
    metrics = {metric.name: metric for metric in found.total.metrics}
    assert metrics["auc"].value > 0.5
    assert metrics["auc"].sample_size == ROWS
    status = await serving.operations.GetStatus(operations_pb2.GetStatusRequest())
    assert (status.predictions_ingested, status.outcomes_ingested) == (ROWS, ROWS)


async def test_a_batch_sent_again_is_stored_once_even_after_a_restart(host: Host) -> None:
    async with host.life() as api:
        await api.serving("delay")
        api.clock.at = START + timedelta(hours=2)
        assert not (await sent(api, [predictions()]))[0].accepted.duplicate
        assert (await sent(api, [predictions()]))[0].accepted.duplicate
    async with host.life() as api:
        assert (await sent(api, [predictions()]))[0].accepted.duplicate
        assert (await coverage(api)).total.predicted == ROWS


async def test_a_refused_batch_does_not_end_the_stream_and_answers_keep_their_order(serving: Api) -> None:
    good = [ipc(prediction_columns(some_predictions(5, start_us=us(START), first=100 * n))) for n in range(3)]
    answers = await sent(
        serving,
        [
            predictions(good[0], batch_id="1"),
            predictions(b"this is not Arrow", batch_id="2"),
            predictions(good[1], batch_id="3"),
            predictions(good[1], batch_id="4", model_id="nope"),
            predictions(good[1], batch_id="5", version=7),
            ground_truth_pb2.IngestPredictionsRequest(batch_id="6"),
            predictions(good[2], batch_id="7"),
        ],
    )
    assert [answer.batch_id for answer in answers] == list("1234567")
    found = [
        refusal_of(answer.refused).reason if answer.HasField("refused") else answer.accepted.rows for answer in answers
    ]
    assert found == [5, "INVALID_BATCH", 5, "MODEL_NOT_FOUND", "VERSION_NOT_FOUND", "INVALID_ARGUMENT", 5]
    assert set(refusal_of(answers[5].refused).violations) == {"model_id", "version"}


async def test_nan_and_infinite_features_are_refused_with_row_and_column(serving: Api) -> None:
    columns = prediction_columns(made())
    wind = [1.0] * ROWS
    wind[3], wind[17] = float("nan"), float("inf")
    rain: list[float | None] = [None] * ROWS
    rain[5] = float("-inf")
    columns |= {"feature.wind": pa.array(wind), "feature.rain": pa.array(rain, pa.float64())}
    refusal = await refused_batch(serving, predictions(ipc(columns)))
    assert refusal.reason == "INVALID_BATCH"
    told = " | ".join(refusal.described)
    for place in ("feature.wind: row 3", "feature.wind: row 17", "feature.rain: row 5"):
        assert place in told
    assert (await coverage(serving)).total.predicted == 0
    # A missing value is a value like any other.
    columns |= {
        "feature.wind": pa.array([None, *wind[:2], *[2.0] * (ROWS - 3)]),
        "feature.rain": pa.nulls(ROWS, pa.float64()),
    }
    assert (await sent(serving, [predictions(ipc(columns))]))[0].accepted.rows == ROWS


async def test_a_refused_batch_may_be_mended_and_sent_under_its_id(serving: Api) -> None:
    columns = prediction_columns(made())
    broken = columns | {"score": pa.array([2.0, *[0.5] * (ROWS - 1)])}
    assert (await refused_batch(serving, predictions(ipc(broken)))).violations == {"score": "PROBABILITY"}
    assert (await sent(serving, [predictions(ipc(columns))]))[0].accepted.duplicate is False


async def test_wrong_columns_are_all_told(serving: Api) -> None:
    columns = {
        "prediction_id": pa.array(["text"] * 3),
        "score": pa.array(["high"] * 3),
        "feature.ok": pa.array([1.0] * 3),
        "surprise": pa.array([1] * 3),
    }
    refusal = await refused_batch(serving, predictions(ipc(columns)))
    assert refusal.reason == "INVALID_BATCH"
    assert {"prediction_id", "predicted_at", "score", "surprise"} <= set(refusal.violations)


@pytest.mark.parametrize(
    "arrow", [b"\x00" * 64, b"ARROW1", ipc(prediction_columns(made()))[:200], ipc(prediction_columns([]))]
)
async def test_malformed_and_empty_batches(serving: Api, arrow: bytes) -> None:
    refusal = await refused_batch(serving, predictions(arrow))
    assert (refusal.reason, set(refusal.violations)) == ("INVALID_BATCH", {"arrow_ipc"})


async def test_outcomes_are_checked_as_predictions_are(serving: Api) -> None:
    columns = outcome_columns(outcomes_for(made()))
    half = ipc(columns | {"value": pa.array([0.5] * ROWS)})
    assert set((await refused_batch(serving, outcomes(half))).violations) == {"value"}
    nan = ipc(columns | {"value": pa.array([float("nan")] * ROWS)})
    assert set((await refused_batch(serving, outcomes(nan))).violations) == {"value"}
    assert (await refused_batch(serving, outcomes(model_id="nope"))).reason == "MODEL_NOT_FOUND"
    bare = await refused_batch(serving, ground_truth_pb2.IngestOutcomesRequest())
    assert set(bare.violations) == {"batch_id", "model_id"}


async def test_outcomes_of_another_label_are_kept_but_say_nothing_about_this_one(serving: Api) -> None:
    await sent(serving, [predictions()])
    assert (await sent(serving, [outcomes(label_type="another")]))[0].accepted.rows == ROWS
    serving.clock.at = START + 2 * DAY
    assert (await coverage(serving)).total.joined == 0


async def test_outcomes_may_come_before_their_predictions(serving: Api) -> None:
    assert (await sent(serving, [outcomes()]))[0].accepted.rows == ROWS
    await sent(serving, [predictions()])
    serving.clock.at = START + 2 * DAY
    assert (await coverage(serving)).total.joined == ROWS


async def test_many_streams_at_once(serving: Api) -> None:
    async def stream(number: int) -> list[Response]:
        rows = some_predictions(20, start_us=us(START), first=1000 * number)
        return await sent(
            serving,
            [
                predictions(ipc(prediction_columns(rows[at : at + 5])), batch_id=f"{number}-{at}")
                for at in range(0, 20, 5)
            ],
        )

    answers = await asyncio.gather(*(stream(number) for number in range(10)))
    assert all(answer.accepted.rows == 5 for stream_answers in answers for answer in stream_answers)
    assert (await coverage(serving)).total.predicted == 200


async def test_a_client_that_goes_away_in_the_middle_leaves_a_server_that_serves(serving: Api) -> None:
    async def endless() -> AsyncIterator[ground_truth_pb2.IngestPredictionsRequest]:
        for number in range(1_000_000):
            rows = some_predictions(5, start_us=us(START), first=10 * number)
            yield predictions(ipc(prediction_columns(rows)), batch_id=f"e{number}")

    call = serving.ground_truth.IngestPredictions(endless())
    answer = await anext(aiter(call))
    assert answer.accepted.rows == 5
    call.cancel()
    while any("_in_order" in repr(task.get_coro()) for task in asyncio.all_tasks()):
        await asyncio.sleep(0.01)  # no task is left behind
    assert (await sent(serving, [predictions()]))[0].accepted.rows == ROWS


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"start_time": instant(START + DAY), "end_time": instant(START)}, "start_time"),
        ({"start_time": instant(START - 500 * DAY)}, "start_time"),
        ({"version": -1}, "version"),
    ],
)
async def test_a_range_that_cannot_be(serving: Api, asked: dict[str, object], field: str) -> None:
    assert set((await refused(coverage(serving, **asked))).violations) == {field}
    request = ground_truth_pb2.GetPerformanceRequest(model_id="delay", **asked)  # type: ignore[arg-type]
    assert set((await refused(serving.ground_truth.GetPerformance(request))).violations) == {field}


async def test_unknown_models_and_versions(serving: Api) -> None:
    request = ground_truth_pb2.GetCoverageRequest(model_id="nope")
    assert (await refused(serving.ground_truth.GetCoverage(request))).reason == "MODEL_NOT_FOUND"
    performance = ground_truth_pb2.GetPerformanceRequest(model_id="delay", version=9)
    assert (await refused(serving.ground_truth.GetPerformance(performance))).reason == "VERSION_NOT_FOUND"
    assert (await refused(coverage(serving, version=9))).reason == "VERSION_NOT_FOUND"


async def test_performance_stands_beside_the_holdout_of_its_version(api: Api) -> None:
    await api.model("delay", policies=policies_pb2.Policies(label=policies_pb2.LabelSpec(window=span(DAY))))
    await api.version("delay", metrics=[registry_pb2.Metric(name="auc", value=0.9)])
    await api.promote("delay", 1)
    api.clock.at = START + 2 * DAY
    await sent(api, [predictions()])
    await sent(api, [outcomes()])
    reply = await api.ground_truth.GetPerformance(
        ground_truth_pb2.GetPerformanceRequest(model_id="delay", read=common_pb2.ReadOptions(min_revision=1))
    )
    auc = next(metric for metric in reply.total.metrics if metric.name == "auc")
    assert auc.baseline == 0.9


async def test_a_batch_comes_as_arrow_or_as_messages_and_not_as_both(serving: Api) -> None:
    one = ground_truth_pb2.Prediction(prediction_id=bytes(16), score=0.5, predicted_at=instant(START))
    both = predictions(batch_id="both")
    both.predictions.append(one)
    for request in (both, predictions(b"", batch_id="neither")):
        assert set((await refused_batch(serving, request)).violations) == {"arrow_ipc"}


async def test_plain_messages_are_checked_and_stored_as_arrow_is(serving: Api) -> None:
    made_rows = made()
    rows = [
        ground_truth_pb2.Prediction(
            prediction_id=row.id,
            predicted_at=instant(START + timedelta(microseconds=row.predicted_us - us(START))),
            score=row.score,
            slices={"country": "US"},
            entity_id=f"customer-{at % 3}",
            acted_on=at % 2 == 0,
        )
        for at, row in enumerate(made_rows)
    ]
    request = ground_truth_pb2.IngestPredictionsRequest(batch_id="b", model_id="delay", version=1, predictions=rows)
    [answer] = await sent(serving, [request])
    assert (answer.accepted.rows, answer.accepted.duplicate, answer.accepted.sample_rate) == (ROWS, False, 1.0)
    known = [
        ground_truth_pb2.Outcome(prediction_id=row.id, observed_at=instant(START + timedelta(minutes=30)), value=1.0)
        for row in made_rows
    ]
    told = ground_truth_pb2.IngestOutcomesRequest(batch_id="o", model_id="delay", outcomes=known)
    [answer] = await sent(serving, [told])
    assert answer.accepted.rows == ROWS
    total = (await coverage(serving)).total
    assert total.predicted == ROWS
    wrong = ground_truth_pb2.Prediction(prediction_id=bytes(16), score=2.0, predicted_at=instant(START))
    bad = ground_truth_pb2.IngestPredictionsRequest(batch_id="c", model_id="delay", version=1, predictions=[wrong])
    assert set((await refused_batch(serving, bad)).violations) == {"score"}


async def test_plain_rows_are_the_same_batch_as_arrow(serving: Api) -> None:
    rows = made()
    plain = ground_truth_pb2.IngestPredictionsRequest(
        batch_id="plain",
        model_id="delay",
        version=1,
        source="scorer",
        predictions=[
            ground_truth_pb2.Prediction(
                prediction_id=row.id,
                predicted_at=instant(START + timedelta(microseconds=row.predicted_us - us(START))),
                score=row.score,
                numbers={"wind": 3.0} if number % 2 else {},
                categories={"carrier": "UA"},
                slices={"country": "US"},
                entity_id=f"p{number}",
                acted_on=number % 2 == 0,
            )
            for number, row in enumerate(rows)
        ],
    )
    [stored] = await sent(serving, [plain])
    assert (stored.accepted.rows, stored.accepted.sample_rate) == (ROWS, 1.0)
    known = ground_truth_pb2.IngestOutcomesRequest(
        batch_id="known",
        model_id="delay",
        outcomes=[
            ground_truth_pb2.Outcome(prediction_id=row.id, observed_at=instant(START + DAY), value=1, revision=2)
            for row in rows
        ],
    )
    assert (await sent(serving, [known]))[0].accepted.rows == ROWS
    serving.clock.at = START + 3 * DAY
    report = await coverage(serving)
    assert (report.total.predicted, report.total.joined) == (ROWS, ROWS)


async def test_plain_rows_are_checked_with_row_and_field(serving: Api) -> None:
    def plain(*rows: ground_truth_pb2.Prediction) -> ground_truth_pb2.IngestPredictionsRequest:
        return ground_truth_pb2.IngestPredictionsRequest(batch_id="x", model_id="delay", version=1, predictions=rows)

    good = ground_truth_pb2.Prediction(prediction_id=made()[0].id, predicted_at=instant(START), score=0.5)
    high = ground_truth_pb2.Prediction(prediction_id=made()[1].id, predicted_at=instant(START), score=1.5)
    refusal = await refused_batch(serving, plain(good, high))
    assert refusal.reason == "INVALID_BATCH"
    assert any("score: row 1" in told for told in refusal.described)
    short = ground_truth_pb2.Prediction(prediction_id=b"short", predicted_at=instant(START), score=0.5)
    assert set((await refused_batch(serving, plain(good, short))).violations) == {"predictions[1].prediction_id"}
    number = ground_truth_pb2.Prediction(prediction_id=made()[0].id, predicted_at=instant(START), numbers={"wind": 1.0})
    text = ground_truth_pb2.Prediction(
        prediction_id=made()[1].id, predicted_at=instant(START), categories={"wind": "strong"}
    )
    assert set((await refused_batch(serving, plain(number, text))).violations) == {"feature.wind"}
    both = plain(good)
    both.arrow_ipc = predictions().arrow_ipc
    neither = plain()
    for request in (both, neither):
        assert (await refused_batch(serving, request)).violations == {"arrow_ipc": "ONE_OF"}
    assert (await coverage(serving)).total.predicted == 0


async def test_predictions_that_come_after_their_hour_was_let_go_are_pending_not_unseen(serving: Api) -> None:
    serving.clock.at = START + timedelta(hours=5)
    await coverage(serving)  # the store hears of the model
    await serving.plane.ground_truth.tick(serving.clock.at)
    await sent(serving, [predictions()])
    found = (await coverage(serving)).total
    assert (found.predicted, found.pending, found.mature) == (ROWS, ROWS, 0)
    assert found.layer == ground_truth_pb2.LAYER_PENDING
