"""A control plane that shares its speed view: others read the same numbers, and a Redis that is gone is said."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from runway.v1 import facts_pb2, ground_truth_pb2, policies_pb2

from control_plane.adapters.redis.speed_view import RedisSpeedView
from control_plane.app.speed_view import merged
from tests.api.test_ground_truth import ROWS, coverage, outcomes, predictions, sent
from tests.api.worlds import START, Api, Host, instant, span
from tests.redis.server import Server

HOUR = int(START.timestamp()) // 3600
WAIT_S = 20.0


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.remove()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not await true():
        assert time.monotonic() < until_s, "it does not become so"
        await asyncio.sleep(0.02)


async def said(api: Api) -> list[str]:
    """What coverage, performance and the status say is degraded."""
    now = instant(api.clock.at)
    asked = ground_truth_pb2.GetPerformanceRequest(model_id="delay", start_time=instant(START), end_time=now)
    answers = [
        (await coverage(api)).degraded,
        (await api.ground_truth.GetPerformance(asked)).degraded,
        (await api.facts.GetIngestStatus(facts_pb2.GetIngestStatusRequest())).degraded,
    ]
    return [text for answer in answers for text in answer if "has not been reached" in text]


async def test_others_read_what_is_served_and_a_loss_is_said_and_caught_up_with(tmp_path: Path, server: Server) -> None:
    async with Host(tmp_path / "home").life(speed_url=server.url) as api:
        label = policies_pb2.LabelSpec(window=span(timedelta(days=1)))
        await api.serving("delay", policies=policies_pb2.Policies(label=label))
        api.clock.at = START + timedelta(minutes=50)
        await sent(api, [predictions()])
        view = RedisSpeedView(server.url)

        def shared(name: str) -> int:
            versions = merged(view.read("delay", "default", HOUR, HOUR + 1)).get(HOUR, {})
            return sum(one.of(name) for one in versions.values())

        async def all_predicted() -> bool:
            return shared("predicted") == ROWS

        async def all_joined() -> bool:
            total = (await coverage(api)).total
            return shared("joined") == total.joined + total.joined_early > 0

        async def all_say_so() -> bool:
            return len(await said(api)) == 3

        async def none_says_so() -> bool:
            return not await said(api)

        await until(all_predicted)
        assert await none_says_so()
        server.stop()
        await until(all_say_so)
        await sent(api, [outcomes()])
        assert (await coverage(api)).total.predicted == ROWS
        server.start()
        await until(none_says_so)
        await until(all_joined)
        view.close()
