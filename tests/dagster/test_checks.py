"""Candidates that wait for asset checks of Dagster: the daemon runs them, Runway hears what they found."""

from collections.abc import Iterator

import dagster as dg
import pytest
from runway_client import messages

from assets.candidates import CandidateRef
from assets.tags import CHECK_TAG
from tests.dagster.candidate_checks import JUDGE
from tests.dagster.test_daemon import RUN_AT_ONCE, Daemon, running
from tests.dagster.test_real_plane import RealWorld, real  # noqa: F401 - a fixture


@pytest.fixture
def daemon(home: object) -> Iterator[Daemon]:
    JUDGE.passes, JUDGE.crashes = True, False
    JUDGE.asked.clear()
    with running(RUN_AT_ONCE) as found:
        found.world.plane.checks = {"air_time": ("fairness",)}
        yield found


def trained(daemon: Daemon) -> None:
    """A candidate of air_time that has been validated, and waits for its check."""
    daemon.world.plane.ask("air_time")
    daemon.sensors()
    daemon.dequeue()
    assert daemon.world.plane.retrain_of("air_time").state == "VALIDATING"


def settled(daemon: Daemon) -> str:
    """The check asked for, run, and reported."""
    daemon.sensors()
    daemon.dequeue()
    assert len(JUDGE.asked) == 1
    daemon.sensors()
    return daemon.world.plane.retrain_of("air_time").state


def test_a_candidate_waits_for_its_check_and_is_promoted_when_that_passes(daemon: Daemon) -> None:
    trained(daemon)
    assert JUDGE.asked == []
    assert settled(daemon) == "PROMOTED"
    assert JUDGE.asked == [CandidateRef(rollout_id="ro_rt_000001", model_id="air_time", version=1, check="fairness")]
    assert daemon.world.plane.retrain_of("air_time").checks == {"fairness": (True, "women are refused as often as men")}


def test_a_failed_check_refuses_the_candidate(daemon: Daemon) -> None:
    JUDGE.passes = False
    trained(daemon)
    assert settled(daemon) == "REFUSED"
    assert daemon.world.plane.retrain_of("air_time").conclusion == "women are refused as often as men"


def test_a_check_that_crashes_proves_nothing(daemon: Daemon) -> None:
    JUDGE.crashes = True
    trained(daemon)
    assert settled(daemon) == "REFUSED"
    assert "its run" in daemon.world.plane.retrain_of("air_time").conclusion


def test_a_check_is_run_once_however_often_the_sensor_looks(daemon: Daemon) -> None:
    trained(daemon)
    daemon.sensors()
    daemon.sensors()
    daemon.dequeue()
    assert [run.tags.get(CHECK_TAG) for run in daemon.runs() if CHECK_TAG in run.tags] == ["fairness"]
    assert len(JUDGE.asked) == 1


def test_a_control_plane_that_is_away_hears_of_the_check_later(daemon: Daemon) -> None:
    trained(daemon)
    daemon.sensors()
    daemon.world.plane.away = True
    daemon.dequeue()
    daemon.sensors()
    daemon.world.plane.away = False
    daemon.sensors()
    assert daemon.world.plane.retrain_of("air_time").state == "PROMOTED"
    assert len(JUDGE.asked) == 1


@pytest.mark.parametrize(
    ("passes", "state", "production"),
    [(True, messages.ROLLOUT_STATE_PROMOTED, 1), (False, messages.ROLLOUT_STATE_REFUSED, 0)],
)
def test_the_real_control_plane_waits_for_it_and_takes_it(
    real: RealWorld,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    passes: bool,
    state: int,
    production: int,
) -> None:
    monkeypatch.setattr(JUDGE, "passes", passes)
    monkeypatch.setattr(JUDGE, "crashes", False)
    real.runway.policies.set_policies(
        "model:air_time",
        messages.Policies(
            validation=messages.ValidationPolicy(checks="fairness"), rollout=messages.RolloutPolicy(approvals=0)
        ),
    )
    real.runway.retraining.request_retrain("air_time")
    assert real.run() == [("rt_000001_a1", True)]
    plane = real.connect()
    (waits,) = plane.unchecked()
    assert (waits.model_id, waits.version, waits.checks) == ("air_time", 1, ("fairness",))
    (request,) = real.tick("check_candidates").run_requests or []
    key = dg.AssetCheckKey(dg.AssetKey(["air_time"]), "fairness")
    assert (request.run_key, list(request.asset_check_keys or ())) == (f"{waits.rollout_id}:fairness", [key])
    result = (
        real.defs.resolve_implicit_global_asset_job_def()
        .get_subset(asset_selection=set(), asset_check_selection={key})
        .execute_in_process(instance=real.instance, tags=dict(request.tags))
    )
    assert result.success
    real.tick("check_candidates")
    (rollout,) = real.runway.rollouts.list_rollouts(model_id="air_time")
    assert rollout.state == state
    assert [(check.name, check.passed) for check in rollout.checks] == [("fairness", passes)]
    assert real.runway.registry.get_model("air_time").aliases.get("production", 0) == production
    if not passes:
        assert rollout.conclusion == "check fairness failed: women are refused as often as men"
