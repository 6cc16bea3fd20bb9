"""Every scheduler keeps the contract; what is each one's own follows."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from control_plane.adapters.schedulers.http import Answer
from control_plane.adapters.schedulers.maestro import MaestroScheduler
from control_plane.app.schedulers import RunState, SchedulerRefused, SchedulerUnavailable
from control_plane.core.retraining.types import FailureClass
from tests.schedulers.contract import CLAUSES
from tests.schedulers.servers import HttpServer, Maestro, Wire
from tests.schedulers.worlds import FakeWorld, MaestroWorld, World, a_job, run_of

WORLDS: dict[str, Callable[[], World]] = {"fake": FakeWorld, "maestro": MaestroWorld}


@pytest.fixture(params=sorted(WORLDS))
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    found = WORLDS[request.param]()
    yield found
    await found.close()


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
async def test_the_contract_is_kept(world: World, clause: Callable[[World, str], Awaitable[None]]) -> None:
    await clause(world, "0")


async def test_maestro_finds_a_duplicate_by_its_uuid_among_many() -> None:
    maestro = Maestro()
    scheduler = MaestroScheduler(maestro.url, "maestro", timeout_s=5)
    first = await scheduler.start(a_job("rt_1_a1"))
    for number in range(2, 460):
        await scheduler.start(a_job(f"rt_{number}_a1"))
    assert (await scheduler.start(a_job("rt_1_a1"))).run == first.run == "runway_retrain/1/1"
    assert (await scheduler.status(run_of(a_job("rt_1_a1")))).run == first.run
    assert len(maestro.of("rt_1_a1")) == 1
    await scheduler.close()
    maestro.close()


async def test_maestro_says_when_its_run_strategy_lets_nothing_more_run() -> None:
    maestro = Maestro()
    maestro.workflows["runway_retrain"] = "FIRST_ONLY"
    scheduler = MaestroScheduler(maestro.url, "maestro", timeout_s=5)
    await scheduler.start(a_job("rt_1_a1"))
    with pytest.raises(SchedulerRefused, match="run strategy of workflow runway_retrain"):
        await scheduler.start(a_job("rt_2_a1"))
    await scheduler.close()
    maestro.close()


async def test_what_is_wrong_with_the_one_workflow_of_all_is_no_fault_of_a_job() -> None:
    maestro = Maestro()
    of_all = MaestroScheduler(maestro.url, "maestro", timeout_s=5)
    of_each = MaestroScheduler(maestro.url, "maestro", workflow="train_{model}", timeout_s=5)
    maestro.workflows = {"runway_retrain": "FIRST_ONLY", "train_eta": "FIRST_ONLY"}
    await of_all.start(a_job("rt_1_a1"))
    with pytest.raises(SchedulerRefused) as stopped:
        await of_all.start(a_job("rt_2_a1"))
    maestro.workflows.clear()
    with pytest.raises(SchedulerRefused) as missing:
        await of_all.start(a_job("rt_3_a1"))
    with pytest.raises(SchedulerRefused) as missing_of_one:
        await of_each.start(a_job("rt_4_a1"))
    assert [one.value.whole for one in (stopped, missing, missing_of_one)] == [True, True, False]
    await of_all.close()
    await of_each.close()
    maestro.close()


@pytest.mark.parametrize("before", [2**31 - 2, 2**53, 2**62])
async def test_maestro_counts_instances_further_than_32_bits(before: int) -> None:
    maestro = Maestro(before=before)
    scheduler = MaestroScheduler(maestro.url, "maestro", timeout_s=5)
    for number in range(1, 4):
        started = await scheduler.start(a_job(f"rt_{number}_a1"))
        assert started.run == f"runway_retrain/{before + number}/1"
    assert (await scheduler.start(a_job("rt_2_a1"))).run == f"runway_retrain/{before + 2}/1"
    status = await scheduler.status(run_of(a_job("rt_3_a1"), started.run))
    assert (status.run, status.state) == (started.run, RunState.QUEUED)
    assert await scheduler.stop(run_of(a_job("rt_3_a1"), started.run))
    assert maestro.of("rt_3_a1")[0]["status"] == "STOPPED"
    await scheduler.close()
    maestro.close()


async def test_maestro_tells_a_run_that_its_strategy_stopped_from_one_that_a_hand_did() -> None:
    maestro = Maestro()
    scheduler = MaestroScheduler(maestro.url, "maestro", timeout_s=5)
    started = await scheduler.start(a_job())
    maestro.instances[0]["status"] = "STOPPED"
    for message, failure_class in (
        ("With LAST_ONLY run strategy, this run is stopped due to starting a new run.", FailureClass.UNKNOWN),
        ("stopped by ann", None),
    ):
        maestro.instances[0]["timeline"] = [{"message": message}]
        status = await scheduler.status(run_of(a_job(), started.run))
        assert (status.state, status.failure, status.failure_class) == (RunState.STOPPED, message, failure_class)
    await scheduler.close()
    maestro.close()


async def test_maestro_tells_a_timeout_from_a_failure() -> None:
    maestro = Maestro()
    scheduler = MaestroScheduler(maestro.url, "maestro", timeout_s=5)
    started = await scheduler.start(a_job())
    maestro.instances[0]["status"] = "TIMED_OUT"
    status = await scheduler.status(run_of(a_job(), started.run))
    assert (status.state, str(status.failure_class)) == (RunState.FAILED, "TIMEOUT")
    maestro.instances[0]["status"] = "PAUSED"
    assert "paused" in (await scheduler.status(run_of(a_job(), started.run))).note
    maestro.instances[0]["status"] = "ELSEWISE"
    with pytest.raises(SchedulerUnavailable, match="ELSEWISE") as error:
        await scheduler.status(run_of(a_job(), started.run))
    assert not error.value.counts  # it answered: that it says something new is no failure of it
    await scheduler.close()
    maestro.close()


@pytest.mark.parametrize(
    ("status", "kind", "what"),
    [
        (200, None, ()),
        (400, SchedulerRefused, {"whole": False}),
        (401, SchedulerRefused, {"whole": True}),
        (404, SchedulerRefused, {"whole": False}),
        (408, SchedulerUnavailable, {"sure": False, "counts": True}),
        (429, SchedulerUnavailable, {"sure": True, "counts": False}),
        (500, SchedulerUnavailable, {"sure": False, "counts": True}),
        (503, SchedulerUnavailable, {"sure": False, "counts": True}),
    ],
)
def test_what_an_answer_means(status: int, kind: type[Exception] | None, what: dict[str, bool]) -> None:
    answer = Answer(who="airflow", status=status, body=b'{"detail": "so it is"}')
    if kind is None:
        assert answer.checked() is answer
        return
    with pytest.raises(kind, match=f"airflow answered {status}: so it is") as found:
        answer.checked()
    assert {name: getattr(found.value, name) for name in what} == what


@pytest.mark.parametrize(("mood", "sure"), [("lost", False), ("mute", False), ("hang", False)])
async def test_what_was_sent_may_have_been_done(mood: str, sure: bool) -> None:
    server = HttpServer(lambda _: (200, {}), Wire(moods=lambda: mood))
    scheduler = MaestroScheduler(server.url, "maestro", timeout_s=0.2)
    with pytest.raises(SchedulerUnavailable) as found:
        await scheduler.start(a_job())
    assert found.value.sure is sure
    server.close()
    with pytest.raises(SchedulerUnavailable, match="nobody listens there") as found:
        await scheduler.start(a_job())
    assert found.value.sure
    await scheduler.close()
