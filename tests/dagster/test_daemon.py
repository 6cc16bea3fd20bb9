"""Real ticks: Dagster's own sensor loop, run queue and storage around a control plane in memory."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import SensorInstigatorData
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster_shared.error import SerializableErrorInfo

from assets.coordinator import LiveLimits, RunwayRunCoordinator
from assets.fleet import keep_last_good, last_good_path
from assets.plane import Limits
from assets.tags import ATTEMPT_TAG, MODEL_TAG, PRIORITY_TAG, TEAM_TAG
from assets.trainer import TrainingOrder
from tests.dagster import location
from tests.dagster.worlds import World

LEAVE_STARTING = {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"}
RUN_AT_ONCE = {
    "module": "dagster._core.launcher.sync_in_memory_run_launcher",
    "class": "SyncInMemoryRunLauncher",
}


class Daemon:
    """The parts of dagster-daemon that matter here, one step at a time."""

    def __init__(self, world: World, process: WorkspaceProcessContext) -> None:
        self.world, self.instance, self.process = world, world.instance, process
        self.queue = QueuedRunCoordinatorDaemon(interval_seconds=1)

    def sensors(self) -> None:
        """One pass over all sensors, as if their intervals had passed."""
        for state in self.instance.all_instigator_state():
            data = state.instigator_data
            if isinstance(data, SensorInstigatorData):
                due = data._replace(last_tick_timestamp=None, last_tick_start_timestamp=None)
                self.instance.update_instigator_state(state.with_data(due))
        self.world.settle()
        told = execute_sensor_iteration(self.process, logging.getLogger("daemon"), None, None)
        assert [error for error in told if isinstance(error, SerializableErrorInfo)] == []

    def dequeue(self) -> None:
        """One pass over the queue."""
        told = self.queue.run_iteration(self.process)
        assert [error for error in told if isinstance(error, SerializableErrorInfo)] == []

    def runs(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs(filters=dg.RunsFilter(statuses=list(statuses)) if statuses else None))


@contextmanager
def running(launcher: dict[str, str]) -> Iterator[Daemon]:
    overrides = {
        "run_coordinator": {"module": "assets.coordinator", "class": "RunwayRunCoordinator"},
        "run_launcher": launcher,
    }
    target = LoadableTargetOrigin(module_name="tests.dagster.location", attribute="fleet")
    with dg.instance_for_test(overrides=overrides) as instance:
        world = World(instance)
        coordinator = instance.run_coordinator
        assert isinstance(coordinator, RunwayRunCoordinator)
        limits = LiveLimits(world.plane.read_limits, clock=iter(range(0, 10**6, 10)).__next__)
        coordinator.limits = limits
        keep_last_good(world.plane.shown, last_good_path())
        location.current.append(world)
        origin = InProcessCodeLocationOrigin(target, location_name="runway")
        try:
            with create_test_daemon_workspace_context(InProcessWorkspaceLoadTarget(origin), instance) as process:
                yield Daemon(world, process)
        finally:
            location.current.clear()
            world.close()


@pytest.fixture
def daemon(home: object) -> Iterator[Daemon]:
    with running(RUN_AT_ONCE) as found:
        yield found


def test_a_cascade_runs_in_order_to_its_end(daemon: Daemon) -> None:
    plane = daemon.world.plane
    plane.ask("arrival_delay", "departure_delay", "air_time")
    for _ in range(3):
        daemon.sensors()
        daemon.dequeue()
    assert {retrain.model_id: retrain.state for retrain in plane.retrains.values()} == dict.fromkeys(
        ("air_time", "departure_delay", "arrival_delay"), "PROMOTED"
    )
    assert [order.model_id for order in daemon.world.trainer.orders] == ["air_time", "departure_delay", "arrival_delay"]
    assert all(daemon.world.materialized(model_id) for model_id in ("air_time", "departure_delay", "arrival_delay"))
    assert all(len(run.asset_selection or ()) == 1 for run in daemon.runs())


def test_ticks_that_come_twice_make_one_run(daemon: Daemon) -> None:
    daemon.world.plane.ask("air_time")
    daemon.sensors()
    daemon.sensors()
    daemon.sensors()
    assert [run.tags[ATTEMPT_TAG] for run in daemon.runs()] == ["rt_000001_a1"]


def test_a_lost_reply_makes_one_run_a_tick_later(daemon: Daemon) -> None:
    daemon.world.plane.lose_replies = 1
    daemon.world.plane.ask("air_time")
    daemon.sensors()
    assert daemon.runs() == []
    daemon.sensors()
    assert [run.tags[ATTEMPT_TAG] for run in daemon.runs()] == ["rt_000001_a1"]


def test_a_refused_validation_releases_nobody_downstream_by_materialization(daemon: Daemon) -> None:
    daemon.world.trainer.candidate = 0.1
    daemon.world.plane.ask("air_time")
    daemon.sensors()
    daemon.dequeue()
    assert daemon.world.plane.retrain_of("air_time").state == "REFUSED"
    assert daemon.world.materialized("air_time") is None
    (run,) = daemon.runs()
    assert run.status is dg.DagsterRunStatus.FAILURE
    daemon.sensors()
    assert daemon.world.plane.retrain_of("air_time").conclusion == "auc 0.1 against 0.7"


def test_an_hour_away_loses_and_doubles_nothing(daemon: Daemon) -> None:
    plane = daemon.world.plane
    plane.ask("air_time")
    plane.away = True
    for _ in range(3):
        daemon.sensors()
        daemon.dequeue()
    assert daemon.runs() == []
    plane.away = False
    daemon.sensors()
    daemon.dequeue()
    assert plane.retrain_of("air_time").state == "PROMOTED"
    assert len(daemon.runs()) == 1


def test_a_crash_is_tried_again_in_a_run_of_its_own(daemon: Daemon) -> None:
    def crash_once(order: TrainingOrder) -> None:
        if order.attempt_id.endswith("_a1"):
            raise ValueError("flaky")

    daemon.world.trainer.before = crash_once
    daemon.world.plane.ask("air_time")
    for _ in range(2):
        daemon.sensors()
        daemon.dequeue()
    assert daemon.world.plane.retrain_of("air_time").state == "PROMOTED"
    assert sorted(run.tags[ATTEMPT_TAG] for run in daemon.runs()) == ["rt_000001_a1", "rt_000001_a2"]


class TestSecondFence:
    """Limits and priorities of the queue, whatever was submitted to it."""

    @pytest.fixture
    def daemon(self, home: object) -> Iterator[Daemon]:
        with running(LEAVE_STARTING) as found:
            yield found

    def by_hand(self, daemon: Daemon, *model_ids: str) -> dg.DagsterRun:
        """As the UI does when a person launches a run."""
        request = daemon.process.create_request_context()
        repository = request.get_code_location("runway").get_repositories()["__repository__"]
        keys = {dg.AssetKey([model_id]) for model_id in model_ids}
        job = daemon.world.defs.resolve_implicit_global_asset_job_def()
        handle = repository.get_full_job("__ASSET_JOB")
        run = daemon.instance.create_run_for_job(
            job.get_subset(asset_selection=keys),
            remote_job_origin=handle.get_remote_origin(),
            job_code_origin=handle.get_python_origin(),
            asset_selection=keys,
        )
        return daemon.instance.submit_run(run.run_id, request)

    def test_runs_launched_by_hand_get_team_and_priority(self, daemon: Daemon) -> None:
        alone = self.by_hand(daemon, "air_time")
        assert (alone.tags[TEAM_TAG], alone.tags[PRIORITY_TAG], alone.tags[MODEL_TAG]) == ("ops", "40", "air_time")
        mixed = self.by_hand(daemon, "air_time", "departure_delay", "arrival_delay")
        assert TEAM_TAG not in mixed.tags
        assert mixed.tags[PRIORITY_TAG] == "30"

    def test_limits_are_runways_and_change_live(self, daemon: Daemon) -> None:
        plane, limits = daemon.world.plane, daemon.instance.run_coordinator
        assert isinstance(limits, RunwayRunCoordinator)
        plane.limits = Limits(running_max=2, running_per_team_max=1)
        limits.get_run_queue_config()
        limits.limits.settle()
        for model_id in ("air_time", "departure_delay", "arrival_delay"):
            self.by_hand(daemon, model_id)
        daemon.dequeue()
        started = daemon.runs(dg.DagsterRunStatus.STARTING)
        assert sorted(run.tags[TEAM_TAG] for run in started) == ["network", "ops"]
        assert {run.tags[MODEL_TAG] for run in started} == {"air_time", "arrival_delay"}
        plane.limits = Limits(running_max=3, running_per_team_max=3)
        limits.get_run_queue_config()
        limits.limits.settle()
        daemon.dequeue()
        assert len(daemon.runs(dg.DagsterRunStatus.STARTING)) == 3

    def test_the_last_limits_hold_while_the_control_plane_is_away(self, daemon: Daemon) -> None:
        plane, coordinator = daemon.world.plane, daemon.instance.run_coordinator
        assert isinstance(coordinator, RunwayRunCoordinator)
        coordinator.get_run_queue_config()
        coordinator.limits.settle()
        plane.away = True
        for _ in range(3):
            assert coordinator.get_run_queue_config().max_concurrent_runs == 2
            coordinator.limits.settle()
