"""Checks of a candidate that others make: it waits for those that its policy names, and none may fail."""

from datetime import timedelta

import pytest

from control_plane.core.commands import AdvanceRollout, PromoteVersion, ReportCheck
from control_plane.core.decide.canary import waits_for
from control_plane.core.errors import Reason
from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.policies import Overrides
from control_plane.core.retraining.types import RetrainState
from control_plane.core.rollout.gate import checks_asked
from control_plane.core.rollout.types import Rollout, RolloutState, ValidationCheck
from tests.core.fleets import Fleet, reason_of

CHECKED: Overrides = {"validation.checks": "fairness, no_leak"}
M = ModelId("m")


def candidate(overrides: Overrides = CHECKED) -> tuple[Fleet, RolloutId]:
    """A model in production, and a candidate that was trained and has not been validated."""
    fleet = Fleet()
    fleet.model("m", overrides=overrides)
    fleet.promote(M)
    for name in checks_asked(fleet.state.models[M].validation_policy):
        check(fleet, name, version=1)
    assert fleet.state.models[M].aliases["production"] == 1
    fleet.request("m")
    [attempt] = fleet.lease()
    fleet.train(attempt)
    return fleet, fleet.state.models[M].rollout_ids[-1]


def rollout(fleet: Fleet, rollout_id: RolloutId) -> Rollout:
    return fleet.state.rollouts[rollout_id]


def check(fleet: Fleet, name: str, *, passed: bool = True, why: str = "", version: int = 2) -> None:
    """Somebody reports a check."""
    fleet.do(ReportCheck(model_id=M, version=version, check=ValidationCheck(name=name, passed=passed, explanation=why)))


@pytest.mark.parametrize("order", [("fairness", "no_leak", "valid"), ("valid", "no_leak", "fairness")])
def test_a_candidate_waits_for_every_check_that_its_policy_names(order: tuple[str, ...]) -> None:
    fleet, rollout_id = candidate()
    for at, name in enumerate(order):
        assert rollout(fleet, rollout_id).state is RolloutState.VALIDATING
        waits = " ".join(waits_for(fleet.state, rollout(fleet, rollout_id), fleet.now))
        assert all((one in waits) is (one in order[at:]) for one in ("fairness", "no_leak"))
        if name == "valid":
            fleet.validate("m", 2)
        else:
            check(fleet, name)
    assert rollout(fleet, rollout_id).state is RolloutState.PROMOTED
    assert fleet.state.models[M].aliases["production"] == 2


@pytest.mark.parametrize("name", ["fairness", "of nobody's asking"])
def test_a_failed_check_refuses_the_candidate_and_is_kept(name: str) -> None:
    fleet, rollout_id = candidate()
    fleet.validate("m", 2)
    check(fleet, name, passed=False, why="women are refused twice as often")
    found = rollout(fleet, rollout_id)
    assert (found.state, found.conclusion) == (
        RolloutState.REFUSED,
        f"check {name} failed: women are refused twice as often",
    )
    assert [(one.name, one.passed) for one in found.checks] == [(name, False)]
    assert fleet.state.models[M].aliases["production"] == 1
    assert fleet.state.retrains[fleet.state.models[M].retrain_ids[-1]].state is RetrainState.REFUSED
    # Nor by hand, without force.
    assert reason_of(lambda: fleet.do(PromoteVersion(model_id=M, version=2))) is Reason.VALIDATION_REQUIRED
    # Told again, nothing changes; anything else comes too late.
    revision = fleet.state.revision
    check(fleet, name, passed=False, why="women are refused twice as often")
    assert fleet.state.revision == revision
    late = ReportCheck(model_id=M, version=2, check=ValidationCheck(name=name, passed=True))
    assert reason_of(lambda: fleet.do(late)) is Reason.ROLLOUT_FINISHED


def test_a_check_that_fails_during_the_canary_takes_the_candidate_back() -> None:
    fleet, rollout_id = candidate(
        {"rollout.serving": "demo", "rollout.metrics": "engagement higher 3%", "rollout.bake": "3600s"}
    )
    fleet.validate("m", 2)
    assert rollout(fleet, rollout_id).state is RolloutState.CANARY
    check(fleet, "fairness", passed=False)
    assert rollout(fleet, rollout_id).state is RolloutState.ROLLED_BACK
    assert fleet.state.models[M].aliases["production"] == 1


def test_the_newest_report_of_a_check_counts() -> None:
    fleet, rollout_id = candidate()
    check(fleet, "fairness", why="on half the rows")
    check(fleet, "fairness", why="on all rows")
    assert [one.explanation for one in rollout(fleet, rollout_id).checks] == ["on all rows"]


def test_silence_refuses_and_says_which_check_was_missing() -> None:
    fleet, rollout_id = candidate()
    fleet.validate("m", 2)
    check(fleet, "fairness")
    fleet.pass_time(timedelta(hours=12, seconds=1))
    assert rollout(fleet, rollout_id).state is RolloutState.REFUSED
    assert "no check no_leak was reported" in rollout(fleet, rollout_id).conclusion


def test_nobody_advances_a_candidate_past_its_checks() -> None:
    fleet, rollout_id = candidate()
    fleet.validate("m", 2)
    with_reason = AdvanceRollout(rollout_id=rollout_id, by="eve", why="in a hurry")
    assert reason_of(lambda: fleet.do(with_reason)) is not None
    assert fleet.state.models[M].aliases["production"] == 1
    fleet.do(PromoteVersion(model_id=M, version=2, force=True, by="eve"))
    assert fleet.state.models[M].aliases["production"] == 2
