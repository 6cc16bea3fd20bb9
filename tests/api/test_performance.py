"""GetPerformance: intervals, provisional numbers, what was believed, delays, label types, slices."""

import asyncio
import subprocess
import sys
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from runway.v1 import common_pb2, ground_truth_pb2, policies_pb2

from tests.api.test_ground_truth import outcomes, predictions, sent
from tests.api.worlds import START, Api, instant, refused, span
from tests.ground_truth.arrows import HOUR_US, ipc, outcome_columns, prediction_columns, some_predictions, us
from tests.reference.join import Outcome, Prediction

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
DAYS = 6
PER_HOUR = 20


async def performance(api: Api, **asked: object) -> ground_truth_pb2.GetPerformanceResponse:
    """Of the model `delay`."""
    request = ground_truth_pb2.GetPerformanceRequest(model_id="delay", **asked)  # type: ignore[arg-type]
    return await api.ground_truth.GetPerformance(request)


def values(row: ground_truth_pb2.PerformanceRow) -> dict[str, float]:
    """Metrics by name."""
    return {metric.name: metric.value for metric in row.metrics}


async def at(api: Api, now: datetime) -> None:
    """Time passes, and what is due is done."""
    api.clock.at = now
    await api.plane.ground_truth.tick(now)
    while (await api.plane.ground_truth.read(lambda store: store.tick(now))).more:
        pass


def slow_world() -> tuple[list[Prediction], list[Outcome]]:
    """Six days of predictions; positives take most of a day to be known, negatives an hour."""
    rng = np.random.default_rng(5)
    rows = some_predictions(24 * DAYS * PER_HOUR, start_us=us(START), spread_us=24 * DAYS * HOUR_US)
    positive = [bool(rng.random() < 0.1 + 0.8 * row.score) for row in rows]
    delay_us = [int(rng.lognormal(0, 0.5) * HOUR_US * (18 if one else 1)) for one in positive]
    return rows, [
        Outcome(row.id, row.predicted_us + late, float(one), 0)
        for row, one, late in zip(rows, positive, delay_us, strict=True)
    ]


@pytest.fixture
async def slow(api: Api) -> Api:
    """That world at the end of its last day; outcomes count for two days."""
    label = policies_pb2.LabelSpec(window=span(2 * DAY), others="refund 5d proxy")
    await api.serving("delay", policies=policies_pb2.Policies(label=label))
    rows, found = slow_world()
    countries = pa.array(["US" if number % 3 else "FR" for number in range(len(rows))])
    api.clock.at = now = START + DAYS * DAY
    here = [row for row in found if row.observed_us <= us(now)]
    await sent(api, [predictions(ipc(prediction_columns(rows) | {"slice.country": countries}))])
    await sent(api, [outcomes(ipc(outcome_columns(here)))])
    await at(api, now)
    return api


async def test_provisional_numbers_become_final_and_what_was_believed_stays_known(slow: Api) -> None:
    now = START + DAYS * DAY
    last_day = {"start_time": instant(now - DAY), "end_time": instant(now)}
    early = await performance(slow, provisional=True, **last_day)
    assert early.total.provisional
    assert 0.3 < early.total.arrived < 0.9
    assert early.total.labelled < early.total.predicted == 24 * PER_HOUR
    assert (early.label_type, early.label_kind) == ("default", ground_truth_pb2.LABEL_KIND_EXACT)
    assert not (await performance(slow, **last_day)).total.metrics
    rest = [row for row in slow_world()[1] if row.observed_us > us(now)]
    await sent(slow, [outcomes(ipc(outcome_columns(rest)), batch_id="rest")])
    later = now + 3 * DAY
    await at(slow, later)
    final = await performance(slow, provisional=True, **last_day)
    assert (final.total.provisional, final.total.arrived, final.total.layer) == (
        False,
        1.0,
        ground_truth_pb2.LAYER_BATCH,
    )
    assert final.total.computed_at.ToDatetime().replace(tzinfo=later.tzinfo) == later
    for mine, truth in zip(early.total.metrics, final.total.metrics, strict=True):
        assert mine.name == truth.name
        assert mine.low <= truth.value <= mine.high, mine.name
        assert mine.high - mine.low > truth.high - truth.low
    believed = await performance(slow, provisional=True, known_at=instant(now), **last_day)
    assert values(believed.total) == pytest.approx(values(early.total))
    # Without a range, what was believed is asked of the week before.
    assert (await performance(slow, known_at=instant(now))).total.end_time == instant(now)


async def test_delays_and_the_curve_they_teach(slow: Api) -> None:
    found = (await performance(slow)).delays
    assert len(found.counts) == len(found.edges_s) + 1 == len(found.arrived) + 1
    assert sum(found.counts) > 3 * 24 * PER_HOUR
    assert 600 < found.median_s < 20 * 3600 < found.p95_s < 40 * 3600
    assert list(found.arrived) == sorted(found.arrived)
    assert found.arrived[-1] == 1.0


async def test_rows_by_slice_version_and_hour(slow: Api) -> None:
    slices = await performance(slow, grain=ground_truth_pb2.GRAIN_SLICE)
    assert [row.slice for row in slices.rows] == ["country=FR", "country=US"]
    versions = await performance(slow, grain=ground_truth_pb2.GRAIN_VERSION)
    assert [row.version for row in versions.rows] == [1]
    hours = await performance(slow, grain=ground_truth_pb2.GRAIN_HOUR)
    assert len(hours.rows) == 24 * (DAYS - 2)
    assert values(hours.total) == pytest.approx(values(versions.rows[0]))
    french = await performance(slow, slice="country=FR")
    assert values(french.total) == pytest.approx(values(slices.rows[0]))
    for metric in hours.total.metrics:
        assert 0 <= metric.low <= metric.value <= metric.high


async def test_other_label_types_say_what_they_are(slow: Api) -> None:
    rows = slow_world()[0][:50]
    refunds = [Outcome(row.id, row.predicted_us + 90 * HOUR_US, 1.0, 0) for row in rows]
    await sent(slow, [outcomes(ipc(outcome_columns(refunds)), batch_id="refunds", label_type="refund")])
    later = START + 8 * DAY
    await at(slow, later)
    found = await performance(slow, label_type="refund", start_time=instant(START), end_time=instant(later))
    assert (found.label_type, found.label_kind) == ("refund", ground_truth_pb2.LABEL_KIND_PROXY)
    assert found.total.labelled == 50
    assert not any(metric.HasField("baseline") for metric in found.total.metrics), "the holdout is of the other label"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"label_type": "churn"}, "label_type"),
        ({"slice": "country=DE"}, "slice"),
        ({"known_at": instant(START + 30 * DAY)}, "known_at"),
        ({"known_at": instant(START + DAY), "grain": ground_truth_pb2.GRAIN_SLICE}, "known_at"),
        ({"grain": 99}, "grain"),
        ({"read": common_pb2.ReadOptions(as_of_revision=1)}, "read.as_of_revision"),
    ],
)
async def test_what_cannot_be_answered_is_refused(slow: Api, asked: dict[str, object], field: str) -> None:
    request = ground_truth_pb2.GetPerformanceRequest(model_id="delay", **asked)  # type: ignore[arg-type]
    assert set((await refused(slow.ground_truth.GetPerformance(request))).violations) == {field}


async def test_the_command_line_reads_it(slow: Api) -> None:
    async def told(*arguments: str) -> str:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "runway_cli.main", "--address", f"127.0.0.1:{slow.plane.server.port}", "performance", "delay"),
            *arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out, _ = await child.communicate()
        assert child.returncode == 0, out.decode()
        return out.decode()

    until = ("--until", (START + DAYS * DAY).isoformat())
    text = await told("--provisional", "--delays", "--days", "4", *until)
    assert text.startswith("delay has AUC 0.")
    assert "PROVISIONAL: " in text
    assert "batch, provisional" in text
    assert "Half of the outcomes are there" in text
    assert "country=US" in await told("--by", "slice", *until)
