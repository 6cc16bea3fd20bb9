"""IngestHistograms: hours that a producer counted itself, over the wire and through the Python client."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
from runway.v1 import ground_truth_pb2, policies_pb2

from tests.api.worlds import START, Api, Host, instant, refusal_of, span

HOUR = timedelta(hours=1)
EDGES = [-1.0, 0.0, 1.0]
PROFILE = json.dumps(
    {
        "features": {
            "temp": {"kind": "numeric", "edges": EDGES, "counts": [10, 10, 10, 10, 0]},
            "carrier": {"kind": "categorical", "categories": ["AA", "UA"], "counts": [20, 15, 5, 0]},
        },
        "prediction": {"edges": [0.5], "counts": [20, 20]},
    }
).encode()


def an_hour(batch_id: str = "b1", *, temp: Sequence[int] = (1, 2, 3, 4, 0), **changes: Any) -> Any:
    """One counted hour."""
    facts: dict[str, Any] = {
        "model_id": "delay",
        "version": 1,
        "producer": "gateway",
        "hour": instant(START),
        "predictions": sum(temp),
        "features": [ground_truth_pb2.HourHistogram(name="temp", edges=EDGES, counts=temp)],
    } | changes
    return ground_truth_pb2.IngestHistogramsRequest(batch_id=batch_id, **facts)


async def answers(api: Api, *requests: Any) -> list[ground_truth_pb2.IngestHistogramsResponse]:
    """Send hours through one stream."""
    return [answer async for answer in api.ground_truth.IngestHistograms(iter(requests))]


async def serving(api: Api, **changes: Any) -> None:
    """A model in production with a profile."""
    label = policies_pb2.LabelSpec(window=span(timedelta(days=1)))
    changes = {"reference_profile": PROFILE} | changes
    await api.serving("delay", policies=policies_pb2.Policies(label=label), **changes)


async def test_an_hour_is_stored_once_even_after_a_restart(host: Host) -> None:
    async with host.life() as api:
        await serving(api)
        first, again = await answers(api, an_hour(), an_hour("another id"))
        assert (first.accepted.rows, first.accepted.duplicate) == (10, False)
        assert again.accepted.duplicate
    async with host.life() as api:
        [after] = await answers(api, an_hour())
        assert after.accepted.duplicate
        [other] = await answers(api, an_hour("more", temp=(2, 2, 3, 4, 0)))
        assert "counted before with 10 predictions, now 11" in other.refused.message
        [replaced] = await answers(api, an_hour("more", temp=(2, 2, 3, 4, 0), replace=True))
        assert (replaced.accepted.rows, replaced.accepted.duplicate) == (11, False)


async def test_refusals_name_everything_and_the_stream_goes_on(api: Api) -> None:
    await serving(api)
    bad = an_hour(
        "bad",
        hour=instant(START + 3 * HOUR),
        features=[
            ground_truth_pb2.HourHistogram(name="temp", edges=[-1.0, 0.5, 1.0], counts=[1, 2, 3, 4, 0]),
            ground_truth_pb2.HourHistogram(name="wind", edges=[1.0], counts=[1, 2, 0]),
            ground_truth_pb2.HourHistogram(name="carrier", categories=["AA", "UA"], counts=[1, -2, 3, 0]),
        ],
    )
    refused, good = await answers(api, bad, an_hour("good"))
    assert good.accepted.rows == 10
    refusal = refusal_of(refused.refused)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_BATCH")
    assert refusal.violations == {
        "hour": "FUTURE",
        "features.temp.edges": "SAME_EDGES",
        "features.wind": "UNKNOWN_FEATURE",
        "features.carrier.counts": "COUNT",
    }
    assert "sent [-1.0, 0.5, 1.0], the reference has [-1.0, 0.0, 1.0]" in refusal.described[1]


async def test_a_version_without_a_profile_has_no_cells_to_count_by(api: Api) -> None:
    await serving(api, reference_profile=b"")
    [refused] = await answers(api, an_hour())
    assert "register the version with `reference_profile`" in refused.refused.message


async def test_a_version_promoted_without_a_profile_is_measured_by_what_the_one_before_it_saw(api: Api) -> None:
    await serving(api)
    api.clock.at = START + 2 * HOUR
    hours = [an_hour(f"b{number}", temp=(100, 0, 0, 0, 0), producer=f"p{number}") for number in range(3)]
    assert all(answer.accepted.rows == 100 for answer in await answers(api, *hours))
    assert await api.version("delay") == 2
    [early] = await answers(api, an_hour("early", version=2))
    assert "has no reference profile" in early.refused.message
    await api.promote("delay", 2)
    [counted] = await answers(api, an_hour("late", version=2))
    assert counted.accepted.rows == 10
    unknown = ground_truth_pb2.HourHistogram(name="carrier", categories=["AA", "UA"], counts=[1, 0, 0, 0])
    [refused] = await answers(api, an_hour("x", version=2, features=[unknown]))
    assert "the reference profile has no such feature; it has [temp]" in refused.refused.message
