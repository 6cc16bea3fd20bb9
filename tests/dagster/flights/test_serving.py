"""The fleet's own server: who sees what, what is counted, and that the control plane's adapters understand it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from assets.flights import harm
from assets.flights.artifacts import store
from assets.flights.fleet import BY_ID, FIRST_DAY
from assets.flights.fleet_server import Ask, FleetServer, HarmAsk, NotTaken, Served, Wish
from assets.flights.serving import application
from assets.flights.splitting import CANDIDATE, CONTROL, TRAVELLERS, Split, arms, places
from assets.flights.training import rows_between, train
from control_plane.adapters.serving.systems import systems_of
from control_plane.adapters.serving.webhook import WebhookMetrics, WebhookServing
from control_plane.app.serving import ServedVersion, ServingRefused, Target
from control_plane.config import load
from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.rollout.judge import judge
from control_plane.core.rollout.plan import plan_of
from control_plane.core.rollout.types import JudgeVerdict, Rollout, RolloutPolicy, RolloutState
from stack.programs import demo_serving
from tests.serving.planes import SERVED, Plane

MODEL = "weather_disruption"
SECRET = "not so secret"


@pytest.fixture(scope="module")
def versions(year: object) -> dict[int, Served]:
    """Version 1 of a model, and 2, which was trained a month later."""
    found = {}
    for number, at in ((1, FIRST_DAY), (2, FIRST_DAY + timedelta(days=31))):
        stored = store(train(BY_ID[MODEL], at, {}).artifact)
        found[number] = Served(version=number, uri=stored.uri, sha256=stored.sha256)
    return found


@pytest.fixture
def server(versions: dict[int, Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FleetServer:
    monkeypatch.setattr("assets.flights.fleet_server.home", lambda: tmp_path)
    return FleetServer(lambda: {MODEL: versions[1]})


def a_wish(versions: dict[int, Served], weight: float, revision: int = 1, **changed: object) -> Wish:
    told: dict[str, object] = {
        "model_id": MODEL,
        "rollout_id": "ro_1",
        "production": versions[1],
        "candidate": versions[2],
        "candidate_weight": weight,
        "control_weight": weight,
        "revision": revision,
    }
    return Wish(**(told | changed))  # type: ignore[arg-type]  # checked by the fields themselves


def a_day(number: int = 0) -> list[int]:
    rows: list[int] = rows_between(FIRST_DAY + timedelta(days=number), FIRST_DAY + timedelta(days=number + 1)).tolist()
    return rows


weights = st.floats(0.001, 0.5)


@given(weights, weights, st.text("abc_0", min_size=1, max_size=8), st.integers(0, 2**40))
def test_who_sees_the_candidate_goes_on_seeing_it(one: float, other: float, salt: str, first: int) -> None:
    small, large = sorted((one, other))
    units = np.arange(first, first + 500)
    before = arms(units, Split(salt=salt, candidate_weight=small, control_weight=small))
    after = arms(units, Split(salt=salt, candidate_weight=large, control_weight=large))
    for was, now in zip(before, after, strict=True):
        assert (now | ~was).all()
    assert not (after[0] & after[1]).any()


@given(st.text(min_size=1, max_size=20))
def test_units_are_spread_evenly_and_anew_for_each_rollout(salt: str) -> None:
    at = places(np.arange(20_000), salt)
    assert at.min() >= 0
    assert at.max() < 1
    assert abs(at.mean() - 0.5) < 0.015
    assert abs(np.corrcoef(at, places(np.arange(20_000), salt + "x"))[0, 1]) < 0.05


def test_without_a_wish_production_answers(server: FleetServer) -> None:
    answer = server.predict(Ask(model_id=MODEL, rows=a_day(), batch="b/1"))
    assert set(answer["versions"]) == {1}
    assert server.metrics(MODEL)[CANDIDATE].requests == 0


def test_the_traffic_is_really_split(server: FleetServer, versions: dict[int, Served]) -> None:
    server.set_weights(a_wish(versions, 0.2))
    rows = a_day()
    answer = server.predict(Ask(model_id=MODEL, rows=rows, batch="b/1"))
    share = answer["versions"].count(2) / len(rows)
    assert 0.12 < share < 0.28
    asked = len(rows) * TRAVELLERS
    told = server.metrics(MODEL)
    for arm in (CANDIDATE, CONTROL):
        assert 0.18 * asked < told[arm].requests < 0.22 * asked
        assert told[arm].metrics["engagement"].count <= told[arm].requests
        assert told[arm].metrics["latency_ms"].count == told[arm].requests
    # Version 2 says other things than version 1.
    server.set_weights(a_wish(versions, 0.0, revision=2, candidate=None))
    plain = server.predict(Ask(model_id=MODEL, rows=rows, batch="b/2"))
    differs = [one != other for one, other in zip(answer["scores"], plain["scores"], strict=True)]
    assert [version == 2 for version in answer["versions"]] == differs


def test_a_batch_that_is_sent_again_counts_once(server: FleetServer, versions: dict[int, Served]) -> None:
    server.set_weights(a_wish(versions, 0.2))
    first = server.predict(Ask(model_id=MODEL, rows=a_day(), batch="b/1"))
    told = server.metrics(MODEL)[CANDIDATE].requests
    assert server.predict(Ask(model_id=MODEL, rows=a_day(), batch="b/1")) == first
    assert server.metrics(MODEL)[CANDIDATE].requests == told


def test_a_restart_forgets_nothing(server: FleetServer, versions: dict[int, Served]) -> None:
    server.set_weights(a_wish(versions, 0.2))
    server.predict(Ask(model_id=MODEL, rows=a_day(), batch="b/1"))
    again = FleetServer(lambda: {MODEL: versions[1]})
    assert again.everything() == server.everything()


def test_counts_go_on_over_the_steps_of_a_canary_and_begin_anew_with_the_next(
    server: FleetServer, versions: dict[int, Served]
) -> None:
    server.set_weights(a_wish(versions, 0.05))
    server.predict(Ask(model_id=MODEL, rows=a_day(), batch="b/1"))
    first = server.metrics(MODEL)[CANDIDATE].requests
    server.set_weights(a_wish(versions, 0.2, revision=2))
    server.predict(Ask(model_id=MODEL, rows=a_day(1), batch="b/2"))
    assert server.metrics(MODEL, "ro_1")[CANDIDATE].requests > 2 * first > 0
    assert server.metrics(MODEL, "ro_2")[CANDIDATE].requests == 0
    server.set_weights(a_wish(versions, 0.05, revision=3, rollout_id="ro_2"))
    assert server.metrics(MODEL)[CANDIDATE].requests == 0


def test_in_the_shadow_nobody_engages_with_the_candidate(server: FleetServer, versions: dict[int, Served]) -> None:
    server.set_weights(a_wish(versions, 0.0, shadow=True, control_weight=0.1))
    answer = server.predict(Ask(model_id=MODEL, rows=a_day(), batch="b/1"))
    assert set(answer["versions"]) == {1}
    told = server.metrics(MODEL)
    assert told[CANDIDATE].requests == told[CONTROL].requests > 0
    assert all("engagement" not in arm.metrics for arm in told.values())


def test_old_news_and_nonsense_are_refused(server: FleetServer, versions: dict[int, Served]) -> None:
    server.set_weights(a_wish(versions, 0.2, revision=5))
    for wish in (
        a_wish(versions, 0.05, revision=4),
        a_wish(versions, 0.7, revision=6),
        a_wish(versions, 0.1, revision=6, model_id="nobody"),
        a_wish(versions, 0.1, revision=6, candidate=Served(version=9, uri="file:///nowhere", sha256="a" * 64)),
    ):
        with pytest.raises(NotTaken):
            server.set_weights(wish)
    found = server.weights(MODEL)
    assert found is not None
    assert found.candidate_weight == 0.2
    with pytest.raises(NotTaken):
        server.predict(Ask(model_id=MODEL, rows=[3, 2]))


@contextmanager
def listening(server: FleetServer) -> Iterator[str]:
    """The server behind HTTP, on a port of its own."""
    config = uvicorn.Config(application(server, SECRET), port=0, log_level="error", lifespan="off")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        thread.join(0.01)
    try:
        port = running.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = True
        thread.join()


def a_target(versions: dict[int, Served], weight: float, revision: int) -> Target:
    one, two = (ServedVersion(version=of.version, uri=of.uri, sha256=of.sha256) for of in versions.values())
    return Target(
        model_id=ModelId(MODEL),
        rollout_id=RolloutId("ro_1"),
        production=one,
        candidate=two,
        candidate_weight=weight,
        control_weight=weight,
        revision=revision,
    )


async def test_the_control_plane_splits_it_reads_it_and_sees_injected_harm(
    server: FleetServer, versions: dict[int, Served]
) -> None:
    policy = RolloutPolicy(serving="demo", metrics="engagement higher 3%", observations_min=1_000)
    rollout = Rollout(
        rollout_id=RolloutId("ro_1"),
        model_id=ModelId(MODEL),
        version=2,
        production_before=1,
        state=RolloutState.CANARY,
        started_at=datetime(2013, 3, 1, tzinfo=UTC),
        plan=plan_of(policy),
    )
    with listening(server) as url:
        serving = WebhookServing(f"{url}/weights", "demo", secret=SECRET)
        metrics = WebhookMetrics(f"{url}/metrics", "demo", secret=SECRET)
        assert await serving.weights(ModelId(MODEL)) is None
        await serving.set_weights(a_target(versions, 0.2, 1))
        found = await serving.weights(ModelId(MODEL))
        assert found is not None
        assert (found.candidate, found.candidate_weight, found.control_weight) == (2, 0.2, 0.2)

        async def a_day_later(number: int) -> JudgeVerdict:
            ask = Ask(model_id=MODEL, rows=a_day(number), batch=f"b/{number}")
            await asyncio.to_thread(server.predict, ask)
            look = await metrics.read(rollout, rollout.started_at)
            return judge(rollout.plan, look, 0).verdict

        fair = [await a_day_later(number) for number in range(3)]
        assert JudgeVerdict.FAIL not in fair
        server.harm(HarmAsk(model_id=MODEL, engagement=0.3))
        hurt = [await a_day_later(number) for number in range(3, 9)]
        assert hurt[-1] is JudgeVerdict.FAIL
        unsigned = WebhookServing(f"{url}/weights", "demo", secret="another")
        with pytest.raises(ServingRefused, match="signature"):
            await unsigned.set_weights(a_target(versions, 0.5, 2))
        for one in (serving, metrics, unsigned):
            await one.close()


@pytest.mark.parametrize(("hurt", "end"), [(0.0, RolloutState.PROMOTED), (0.2, RolloutState.ROLLED_BACK)])
async def test_a_canary_of_real_traffic_ends_as_its_numbers_say(
    server: FleetServer, versions: dict[int, Served], hurt: float, end: RolloutState
) -> None:
    """Rules, log, driver, adapters and the fleet's server together; only time is ours."""
    with listening(server) as url:
        variables = {"RUNWAY_DATABASE_URL": "postgresql://u@h/d", "RUNWAY_SERVING_SECRET": SECRET}
        config = load({**variables, "RUNWAY_SERVING": demo_serving(url)})
        plane = Plane(artifacts={number: (one.uri, one.sha256) for number, one in versions.items()})
        await plane.begin(systems_of(config.serving, config.metrics))
        model_id = await plane.model(MODEL, {**SERVED, "rollout.serving": "demo"})
        await plane.candidate(model_id)
        await plane.pass_time(timedelta(seconds=1))
        shares = []
        for number in range(30):
            rollout = plane.rollout(model_id)
            if not rollout.live:
                break
            if rollout.weight == 0.2 and hurt:
                server.harm(HarmAsk(model_id=MODEL, engagement=hurt))
            answer = await asyncio.to_thread(
                server.predict, Ask(model_id=MODEL, rows=a_day(number), batch=f"b/{number}")
            )
            shares.append(answer["versions"].count(2) / len(answer["versions"]))
            await plane.pass_time(timedelta(hours=6))
        rollout, wish = plane.rollout(model_id), server.weights(MODEL)
        await plane.end()
    assert (rollout.state, rollout.weight_applied) == (end, rollout.weight)
    assert wish is not None
    assert wish.production is not None
    assert (wish.production.version, wish.candidate) == (2 if end is RolloutState.PROMOTED else 1, None)
    assert shares == sorted(shares, key=lambda share: round(share, 1)), "the share only grows"
    assert max(shares) < 0.3 if hurt else max(shares) > 0.4


def test_harm_can_be_done_and_ended_from_the_command_line(
    server: FleetServer,
    versions: dict[int, Served],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with listening(server) as url:

        def run(*arguments: str) -> int:
            address = url.removeprefix("http://")
            monkeypatch.setattr("sys.argv", ["harm", MODEL, "--address", address, *arguments])
            return harm.main()

        assert run("--engagement", "0.1") == 1
        assert "no candidate now" in capsys.readouterr().err
        server.set_weights(a_wish(versions, 0.05))
        assert run("--engagement", "0.1") == 0
        assert "version 2 loses 10% of its engagement" in capsys.readouterr().out
        assert server.everything().harms[MODEL].engagement == 0.1
        assert run("--end") == 0
        assert server.everything().harms == {}
