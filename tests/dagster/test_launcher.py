"""The run launcher with real workers: they load only their models, are found again, and end when asked or killed."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.instance import DagsterInstance
from dagster._core.launcher.base import WorkerStatus
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from assets.launcher import (
    DRILL_FILE,
    DagsterLaunchDrillError,
    LeanRunLauncher,
    find_worker,
    worker_environment,
)
from assets.tags import EXIT_TAG, WORKER_TAG
from tests.dagster import slow_location

pytestmark = pytest.mark.slow

WAIT_S = 90.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLOW_LOCATION_FOLDER", str(tmp_path))
    return tmp_path


@contextmanager
def location(instance: DagsterInstance) -> Iterator[WorkspaceProcessContext]:
    """The code location without a server of its own: only the workers are processes."""
    target = LoadableTargetOrigin(module_name="tests.dagster.slow_location", working_directory=str(Path.cwd()))
    origin = InProcessCodeLocationOrigin(target, location_name="runway")
    with create_test_daemon_workspace_context(InProcessWorkspaceLoadTarget(origin), instance) as process:
        yield process


@pytest.fixture
def launched(folder: Path) -> Iterator[Callable[[str], tuple[DagsterInstance, dg.DagsterRun]]]:
    """Launch a run of one asset, as the queue does; what still runs at the end is killed."""
    overrides = {"run_launcher": {"module": "assets.launcher", "class": "LeanRunLauncher"}}
    with dg.instance_for_test(overrides=overrides) as instance, location(instance) as process:

        def launch(name: str) -> tuple[DagsterInstance, dg.DagsterRun]:
            request = process.create_request_context()
            job = request.get_code_location("runway").get_repository("__repository__").get_full_job("__ASSET_JOB")
            run = instance.create_run_for_job(
                slow_location.defs.resolve_implicit_global_asset_job_def().get_subset(
                    asset_selection={dg.AssetKey([name])}
                ),
                remote_job_origin=job.get_remote_origin(),
                job_code_origin=job.get_python_origin(),
                asset_selection=frozenset({dg.AssetKey([name])}),
            )
            instance.launch_run(run.run_id, request)
            return instance, run

        yield launch
        for run in instance.get_runs():
            worker = find_worker(run.run_id)
            if worker is not None:
                worker.kill()
        instance.run_launcher.join()


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)


def test_how_a_worker_ended_is_kept_with_its_run(
    launched: Callable[[str], tuple[DagsterInstance, dg.DagsterRun]],
) -> None:
    instance, run = launched("hangs")
    until(lambda: find_worker(run.run_id) is not None)
    worker = find_worker(run.run_id)
    assert worker is not None
    worker.kill()

    def told() -> bool:
        instance.run_launcher.check_run_worker_health(run)
        known = instance.get_run_by_id(run.run_id)
        return known is not None and known.tags.get(EXIT_TAG) == "-9"

    until(told)


def test_a_worker_that_cannot_be_noted_is_ended(
    launched: Callable[[str], tuple[DagsterInstance, dg.DagsterRun]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runway takes a failed run without a worker's tag for one that was never started: then none may be at work."""

    def away(self: DagsterInstance, run_id: str, tags: object) -> None:
        raise ConnectionError("the database is away")

    monkeypatch.setattr(DagsterInstance, "add_run_tags", away)
    with pytest.raises(ConnectionError):
        launched("hangs")
    assert all(find_worker(run.run_id) is None for run in DagsterInstance.get().get_runs())


def test_nothing_is_started_while_the_drill_lasts(
    launched: Callable[[str], tuple[DagsterInstance, dg.DagsterRun]],
) -> None:
    """A run that could not be started has no worker's tag: that is how Runway knows that it is nobody's bug."""
    drill = Path(os.environ["DAGSTER_HOME"]) / DRILL_FILE
    drill.touch()
    with pytest.raises(DagsterLaunchDrillError, match=DRILL_FILE):
        launched("hangs")
    [run] = DagsterInstance.get().get_runs()
    assert WORKER_TAG not in run.tags
    assert find_worker(run.run_id) is None
    drill.unlink()
    instance, started = launched("hangs")
    until(lambda: find_worker(started.run_id) is not None)
    tags = instance.get_run_by_id(started.run_id)
    assert tags is not None
    assert WORKER_TAG in tags.tags


def status(instance: DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_worker_is_told_its_models_and_leaves_nothing_behind(
    folder: Path, launched: Callable[[str], tuple[DagsterInstance, dg.DagsterRun]]
) -> None:
    instance, run = launched("quick")
    instance.run_launcher.join(int(WAIT_S))
    assert status(instance, run) is dg.DagsterRunStatus.SUCCESS
    assert (folder / "quick").read_text() == "quick"
    assert find_worker(run.run_id) is None
    assert not instance.run_launcher.terminate(run.run_id)


def test_a_person_ends_a_run(folder: Path, launched: Callable[[str], tuple[DagsterInstance, dg.DagsterRun]]) -> None:
    instance, run = launched("hangs")
    until((folder / "hangs").exists)
    assert instance.run_launcher.terminate(run.run_id)
    until(lambda: status(instance, run) is dg.DagsterRunStatus.CANCELED)
    instance.run_launcher.join(int(WAIT_S))


def test_a_killed_worker_is_noticed_by_another_daemon(
    folder: Path, launched: Callable[[str], tuple[DagsterInstance, dg.DagsterRun]]
) -> None:
    instance, run = launched("hangs")
    until((folder / "hangs").exists)
    launcher = instance.run_launcher
    assert isinstance(launcher, LeanRunLauncher)
    # A launcher that never saw the run, as after a restart of the daemon, finds the worker all the same.
    stranger = LeanRunLauncher()
    started = instance.get_run_by_id(run.run_id)
    assert started is not None
    assert stranger.check_run_worker_health(started).status is WorkerStatus.RUNNING
    worker = find_worker(run.run_id)
    assert worker is not None
    assert os.getsid(worker.pid) == worker.pid
    worker.kill()
    until(lambda: not psutil.pid_exists(worker.pid) or worker.status() == psutil.STATUS_ZOMBIE)
    assert launcher.check_run_worker_health(started).status is WorkerStatus.NOT_FOUND
    with location(instance) as process:
        (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
        monitor_started_run(instance, process.create_request_context(), record, logging.getLogger("monitoring"))
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE


def test_a_run_whose_worker_is_gone_is_over_when_a_person_ends_it(
    folder: Path, launched: Callable[[str], tuple[DagsterInstance, dg.DagsterRun]]
) -> None:
    instance, run = launched("hangs")
    until((folder / "hangs").exists)
    worker = find_worker(run.run_id)
    assert worker is not None
    worker.kill()
    until(lambda: find_worker(run.run_id) is None)
    assert instance.run_launcher.terminate(run.run_id)
    assert status(instance, run) is dg.DagsterRunStatus.CANCELED


def test_a_run_of_other_things_loads_everything() -> None:
    mixed = dg.DagsterRun(job_name="j", asset_selection=frozenset({dg.AssetKey(["a"]), dg.AssetKey(["feature", "b"])}))
    assert worker_environment(mixed) == {"RUNWAY_ONLY_MODELS": ""}
    assert worker_environment(dg.DagsterRun(job_name="j")) == {"RUNWAY_ONLY_MODELS": ""}
    models = dg.DagsterRun(job_name="j", asset_selection=frozenset({dg.AssetKey(["b"]), dg.AssetKey(["a"])}))
    assert worker_environment(models) == {"RUNWAY_ONLY_MODELS": '["a", "b"]'}
