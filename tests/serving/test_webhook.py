"""The webhook pair: what it says, how it is signed, and answers that a receiver should not give."""

import asyncio
import json
import math
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.serving.webhook import WebhookMetrics, WebhookServing, signed
from control_plane.app.serving import ServingRefused, ServingUnavailable, arm_of, usable
from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.rollout.plan import plan_of
from control_plane.core.rollout.types import Arm, Look, Rollout, RolloutPolicy, RolloutState
from tests.serving.servers import HttpServer, Reply, Request
from tests.serving.worlds import SECRET, M, a_target

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
BEGAN = datetime(2026, 3, 2, 10, tzinfo=UTC)
ROLLOUT = Rollout(
    rollout_id=RolloutId("ro_1"),
    model_id=ModelId("m"),
    version=8,
    production_before=7,
    state=RolloutState.CANARY,
    started_at=datetime(2026, 3, 1, tzinfo=UTC),
    canary_since=BEGAN,
    plan=plan_of(RolloutPolicy(serving="hook", metrics="engagement higher 3%, latency_ms lower 10%")),
)


async def read_with(reply: Reply) -> Look:
    """What comes of an answer."""
    with HttpServer(lambda _: reply) as server:
        metrics = WebhookMetrics(f"{server.url}/metrics", "hook", secret=SECRET, timeout_s=5)
        try:
            return await metrics.read(ROLLOUT, NOW)
        finally:
            await metrics.close()


async def test_a_target_is_posted_as_documented_and_signed() -> None:
    with HttpServer(lambda _: (204, "")) as server:
        serving = WebhookServing(f"{server.url}/hooks/weights", "hook", secret=SECRET, clock=lambda: 1_700_000_000.9)
        await serving.set_weights(a_target(1, 2, 0.05, revision=42, epoch=3))
        await serving.close()
        (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/hooks/weights")
    assert json.loads(request.body) == {
        "model_id": M,
        "rollout_id": "ro_000001",
        "production": {"version": 1, "uri": "s3://models/arrival_delay/1", "sha256": "a" * 64},
        "candidate": {"version": 2, "uri": "s3://models/arrival_delay/2", "sha256": "a" * 64},
        "candidate_weight": 0.05,
        "control_weight": 0.05,
        "shadow": False,
        "group_id": "",
        "epoch": 3,
        "revision": 42,
    }
    message_id = request.headers["webhook-id"]
    assert message_id == "weights_ro_000001_3_42"
    assert request.headers["webhook-timestamp"] == "1700000000"
    assert request.headers["webhook-signature"] == signed(SECRET, message_id, 1_700_000_000, request.body)
    assert SECRET not in str(request)


async def test_metrics_are_asked_for_since_the_canary_began() -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        arm = {
            "requests": 900,
            "metrics": {
                "engagement": {"count": 900, "mean": 0.4, "m2": 216.0},
                "latency_ms": {"count": 900, "sum": 9_000.0, "sum_squares": 90_900.0},
                "unasked": {"count": 1, "mean": 1, "m2": 0},
            },
        }
        return 200, {"candidate": arm, "control": {"requests": 910, "metrics": {}}}

    with HttpServer(answer) as server:
        metrics = WebhookMetrics(f"{server.url}/metrics", "hook", timeout_s=5)
        look = await metrics.read(ROLLOUT, NOW)
        await metrics.close()
    assert look == Look(
        at=NOW,
        candidate={
            "engagement": Arm(count=900, mean=0.4, m2=216.0),
            "latency_ms": Arm(count=900, mean=10.0, m2=900.0),
        },
        control={},
        candidate_requests=900,
        control_requests=910,
    )
    assert asked[0].query == {
        "model_id": "m",
        "rollout_id": "ro_1",
        "candidate": "8",
        "control": "7",
        "since": BEGAN.isoformat(),
        "now": NOW.isoformat(),
    }


@pytest.mark.parametrize(
    "told",
    [
        [],
        {"candidate": 3, "control": {}},
        {"candidate": {"metrics": []}, "control": {}},
        {"candidate": {"metrics": {"engagement": 0.4}}, "control": {}},
        {"candidate": {"metrics": {"engagement": {"count": 4, "mean": 0.4}}}, "control": {}},
        {"candidate": {"metrics": {"engagement": {"count": 4, "mean": "x", "m2": 0}}}, "control": {}},
        {"candidate": {"metrics": {"engagement": {"count": 4, "sum": 3}}}, "control": {}},
        {"candidate": {"requests": "many"}, "control": {}},
        {"candidate": {"requests": math.inf}, "control": {}},
        "not json",
        b"\xff\xfe",
    ],
)
async def test_metrics_of_another_shape_are_no_metrics(told: object) -> None:
    with pytest.raises(ServingUnavailable, match="hook"):
        await read_with((200, told))


async def test_nan_in_an_answer_is_told_as_no_number() -> None:
    arm = {"requests": 50, "metrics": {"engagement": {"count": 50, "mean": math.nan, "m2": 1.0}}}
    look, trouble = usable(await read_with((200, {"candidate": arm, "control": arm})))
    assert look.candidate == look.control == {}
    assert trouble == "engagement of the candidate is no number"


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429])
async def test_what_may_work_later_is_unavailable(status: int) -> None:
    with pytest.raises(ServingUnavailable, match=str(status)):
        await read_with((status, "busy"))


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 410, 422])
async def test_what_will_not_work_is_refused_with_what_was_said(status: int) -> None:
    with pytest.raises(ServingRefused, match=f"{status}: say this"):
        await read_with((status, "say\nthis"))


async def test_nobody_listening_is_said_without_numbers_that_change() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = WebhookServing(f"http://127.0.0.1:{port}/", "hook")
    with pytest.raises(ServingUnavailable) as caught:
        await serving.set_weights(a_target())
    assert str(caught.value) == "hook cannot be reached: nobody listens there"
    await serving.close()


async def test_a_server_that_says_nothing_is_given_up() -> None:
    def late(_: Request) -> Reply:
        time.sleep(0.5)
        return 204, ""

    with HttpServer(late) as server:
        serving = WebhookServing(f"{server.url}/", "hook", timeout_s=0.1)
        with pytest.raises(ServingUnavailable, match="did not answer within"):
            await serving.set_weights(a_target())
        await serving.close()


async def test_a_server_that_dribbles_holds_nobody() -> None:
    closed = asyncio.Event()

    async def dribble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun = False
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" if begun else b"HTTP/1.1 200 OK\r\nX: ")
                begun = True
                await writer.drain()
                await asyncio.sleep(0.01)
        closed.set()

    server = await asyncio.start_server(dribble, "127.0.0.1", 0)
    async with server:
        serving = WebhookServing(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "hook", timeout_s=0.2)
        with pytest.raises(ServingUnavailable, match="hook"):
            await serving.set_weights(a_target())
        await closed.wait()  # the thread let go of the connection
        await serving.close()


async def test_an_answer_without_end_is_cut_off() -> None:
    with pytest.raises(ServingUnavailable, match="more than"):
        await read_with((200, b" " * (5 * 2**20)))


numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@given(numbers)
def test_sums_give_the_mean_and_spread_that_numbers_have(values: list[float]) -> None:
    arm = arm_of(len(values), math.fsum(values), math.fsum(value * value for value in values))
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    assert arm.count == len(values)
    assert math.isclose(arm.mean, mean, rel_tol=1e-9, abs_tol=1e-9)
    assert arm.m2 >= 0
    assert abs(arm.m2 - spread) <= 1e-9 * max(1.0, math.fsum(value * value for value in values))
