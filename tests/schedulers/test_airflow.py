"""The contract against a real Airflow 3, and what is Airflow's own: paused DAGs, signing in, links to logs."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from control_plane.adapters.schedulers.airflow import AirflowScheduler
from control_plane.app.schedulers import RunState, SchedulerRefused, SchedulerUnavailable
from tests.schedulers.contract import CLAUSES, LIVE, ended
from tests.schedulers.real import Airflow, AirflowWorld
from tests.schedulers.servers import HttpServer, Reply, Request
from tests.schedulers.worlds import World, a_job, run_of
from tools import environment


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    python = environment.airflow()
    if python is None:
        pytest.skip("the environment with Airflow cannot be made here: is the package index reachable?")
    one = Airflow(python, tmp_path_factory.mktemp("airflow"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
async def world(airflow: Airflow) -> AsyncIterator[AirflowWorld]:
    found = AirflowWorld(airflow)
    yield found
    await found.close()


@pytest.mark.slow
@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
async def test_the_contract_is_kept(world: AirflowWorld, clause: Callable[[World, str], Awaitable[None]]) -> None:
    await clause(world, "af")


@pytest.mark.slow
async def test_a_paused_dag_is_said_and_starts_nothing(airflow: Airflow) -> None:
    scheduler = airflow.scheduler(dag="runway_paused")
    await scheduler.pause("runway_paused", True)
    with pytest.raises(SchedulerUnavailable, match="DAG runway_paused is paused: unpause it") as found:
        await scheduler.start(a_job("rt_p1_a1"))
    assert found.value.sure
    assert await scheduler.run_ids("runway_paused") == []
    of_a_model = airflow.scheduler(dag="runway_{model}")
    with pytest.raises(SchedulerRefused, match="DAG runway_paused is paused"):
        await of_a_model.start(a_job("rt_p1_a1", model_id="paused"))
    await scheduler.pause("runway_paused", False)
    job = a_job("rt_p2_a1")
    started = await scheduler.start(job)
    await airflow.trainings.told(job)
    await scheduler.pause("runway_paused", True)
    assert (await scheduler.status(run_of(job, started.run))).state in LIVE
    await scheduler.stop(run_of(job, started.run))
    await scheduler.pause("runway_paused", False)
    await of_a_model.close()
    await scheduler.close()


@pytest.mark.slow
async def test_a_failed_run_links_to_the_log_of_its_task(airflow: Airflow) -> None:
    scheduler, job = airflow.scheduler(), a_job("rt_f1_a1")
    started = await scheduler.start(job)
    airflow.trainings.let(job, RunState.FAILED)
    status = await ended(scheduler, job, started.run)
    assert status.failure == "task train of DAG runway_retrain failed"
    assert status.log_url == f"{airflow.url}/dags/runway_retrain/runs/rt_f1_a1/tasks/train"
    await scheduler.close()


@pytest.mark.slow
async def test_a_wrong_password_refuses_everything(airflow: Airflow) -> None:
    scheduler = airflow.scheduler(password="wrong")
    with pytest.raises(SchedulerRefused, match="signing in as runway: airflow answered 401") as found:
        await scheduler.start(a_job("rt_w1_a1"))
    assert found.value.whole
    await scheduler.close()


class SmallAirflow:
    """As much of Airflow as one run needs; forgets its tokens when told."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.paused_after_start = False
        self.paused = False
        self.conflicts = False
        self.more: dict[str, Any] = {}
        self.server = HttpServer(self._answer)

    def _answer(self, request: Request) -> Reply:
        if request.path == "/auth/token":
            self.tokens.append(f"token {len(self.tokens) + 1}")
            return 201, {"access_token": self.tokens[-1]}
        if not self.tokens or request.headers.get("authorization") != f"Bearer {self.tokens[-1]}":
            return 401, {"detail": "Invalid JWT token"}
        match request.method, request.path.removeprefix("/api/v2/dags/runway_retrain"):
            case "GET", "":
                return 200, {"is_paused": self.paused} | self.more
            case "POST", "/dagRuns":
                if self.conflicts or request.body["dag_run_id"] in self.runs:
                    return 409, {"detail": "Unique constraint violation"}
                self.runs[request.body["dag_run_id"]] = request.body | {"state": "queued"}
                self.paused = self.paused or self.paused_after_start
                return 200, self.runs[request.body["dag_run_id"]]
            case "GET", path if (found := self.runs.get(path.rpartition("/")[2])) is not None:
                return 200, found
            case _:
                return 404, {"detail": json.dumps(request.path)}


@pytest.fixture
async def small() -> AsyncIterator[tuple[SmallAirflow, AirflowScheduler]]:
    one = SmallAirflow()
    scheduler = AirflowScheduler(one.server.url, "airflow", username="runway", secret="pw", timeout_s=5)
    yield one, scheduler
    await scheduler.close()
    one.server.close()


async def test_a_token_that_is_taken_no_more_is_renewed(small: tuple[SmallAirflow, AirflowScheduler]) -> None:
    one, scheduler = small
    await scheduler.start(a_job("rt_1_a1"))
    assert len(one.tokens) == 1
    one.tokens.append("of somebody else")
    await scheduler.start(a_job("rt_2_a1"))
    assert (len(one.tokens), list(one.runs)) == (3, ["rt_1_a1", "rt_2_a1"])


async def test_a_dag_paused_just_then_takes_the_run_and_somebody_is_told(
    small: tuple[SmallAirflow, AirflowScheduler],
) -> None:
    one, scheduler = small
    one.paused_after_start = True
    started = await scheduler.start(a_job("rt_1_a1"))
    assert started.note == "DAG runway_retrain is paused: unpause it in Airflow"
    status = await scheduler.status(run_of(a_job("rt_1_a1"), started.run))
    assert (status.state, status.note) == (
        RunState.QUEUED,
        "DAG runway_retrain is paused: unpause it in Airflow",
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"has_import_errors": True}, "DAG runway_retrain has import errors"),
        ({"is_stale": True}, "there is no DAG runway_retrain"),
    ],
)
async def test_what_is_wrong_with_the_one_dag_of_all_is_no_fault_of_a_job(
    small: tuple[SmallAirflow, AirflowScheduler], more: dict[str, Any], said: str
) -> None:
    one, scheduler = small
    one.more = more
    with pytest.raises(SchedulerRefused, match=said) as error:
        await scheduler.start(a_job("rt_1_a1"))
    assert (error.value.whole, one.runs) == (True, {})


async def test_a_state_that_nobody_knows_is_no_failure_of_airflow(
    small: tuple[SmallAirflow, AirflowScheduler],
) -> None:
    one, scheduler = small
    started = await scheduler.start(a_job("rt_1_a1"))
    one.runs["rt_1_a1"]["state"] = "dreaming"
    with pytest.raises(SchedulerUnavailable, match="'dreaming'") as error:
        await scheduler.status(run_of(a_job("rt_1_a1"), started.run))
    assert not error.value.counts


async def test_a_conflict_that_is_no_duplicate_is_refused(small: tuple[SmallAirflow, AirflowScheduler]) -> None:
    one, scheduler = small
    one.conflicts = True
    with pytest.raises(SchedulerRefused, match="409: Unique constraint"):
        await scheduler.start(a_job("rt_1_a1"))
