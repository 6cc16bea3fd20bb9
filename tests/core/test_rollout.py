"""Rules of rollout, by example and by property."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.core.commands import ExpireValidation, PromoteVersion, RegisterVersion, ReportValidation, RollBack
from control_plane.core.errors import Invalid, Reason
from control_plane.core.ids import ModelId, RetrainId, RolloutId
from control_plane.core.retraining.types import RetrainState
from control_plane.core.rollout.rules import TIMEOUT_MAX, check_validation, policy_violations
from control_plane.core.rollout.types import RolloutState, Validation, ValidationPolicy
from control_plane.core.staleness.verdict import Level
from tests.core.fleets import HOUR, MINUTE, Fleet, a_version, reason_of

M = ModelId("m")
SOUND = Validation(passed=True, metric="auc", candidate=0.8, production=0.7, sample_size=1000)


def candidate(fleet: Fleet) -> int:
    """Train a candidate."""
    fleet.request("m")
    return fleet.train(fleet.lease()[0])


def aliases(fleet: Fleet) -> dict[str, int]:
    return dict(fleet.state.models[M].aliases)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["candidate", "production", "standard_error"])
def test_a_number_that_is_none_promotes_nothing(name: str, number: float) -> None:
    with pytest.raises(Invalid) as caught:
        check_validation(replace(SOUND, **{name: number}))
    assert [violation.field for violation in caught.value.violations] == [f"validation.{name}"]


def test_a_comparison_needs_rows_unless_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(Invalid):
        check_validation(replace(SOUND, sample_size=0))
    check_validation(replace(SOUND, sample_size=0, production=None))
    check_validation(replace(SOUND, sample_size=0, passed=False))


def test_promotion_moves_both_aliases_and_forgets_the_verdict() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.look("m", stale=True)
    assert fleet.state.models[M].standing.level is Level.STALE
    version = candidate(fleet)
    fleet.validate("m", version)
    assert aliases(fleet) == {"production": 2, "previous": 1}
    assert fleet.state.models[M].standing.level is Level.UNKNOWN


def test_refusal_keeps_production_and_drops_the_candidate() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    version = candidate(fleet)
    assert aliases(fleet) == {"production": 1, "candidate": 2}
    fleet.validate("m", version, passed=False)
    assert aliases(fleet) == {"production": 1}
    retrain = fleet.state.retrains[RetrainId("rt_000002")]
    assert (retrain.state, retrain.conclusion) == (RetrainState.REFUSED, "version 2 refused: worse than production")


def test_silence_refuses_but_not_before_its_time() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True, validation=ValidationPolicy(timeout=HOUR))
    candidate(fleet)
    expire = ExpireValidation(rollout_id=RolloutId("ro_000002"))
    fleet.now += HOUR
    assert fleet.new_events(expire) == []
    assert fleet.pass_time(timedelta(microseconds=1)) == ["AliasMoved", "RolloutEnded", "RetrainEnded"]
    assert fleet.new_events(expire) == []


def test_a_report_counts_once() -> None:
    fleet = Fleet()
    fleet.model("m")
    version = candidate(fleet)
    report = ReportValidation(model_id=M, version=version, validation=SOUND)
    fleet.do(report)
    assert fleet.new_events(report) == []
    other = ReportValidation(model_id=M, version=version, validation=replace(SOUND, candidate=0.1))
    assert reason_of(lambda: fleet.do(other)) is Reason.ROLLOUT_FINISHED


def test_promoting_by_hand_needs_a_validation_or_force() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.do(RegisterVersion(model_id=M, facts=a_version(fleet.now)))
    promote = PromoteVersion(model_id=M, version=2)
    assert reason_of(lambda: fleet.do(promote)) is Reason.VALIDATION_REQUIRED
    fleet.do(replace(promote, force=True))
    assert aliases(fleet) == {"production": 2, "previous": 1}
    # Version 1 passed once: it may come back without force.
    fleet.do(PromoteVersion(model_id=M, version=1))
    assert aliases(fleet) == {"production": 1, "previous": 2}


def test_rolling_back_says_so_and_cools_down_what_is_downstream() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.model("n")
    fleet.edge("m", "n")
    fleet.promote(M)
    events = fleet.new_events(RollBack(model_id=M))
    assert events == ["AliasMoved", "AliasMoved", "RolloutEnded", "CascadeCooldownStarted"]
    assert aliases(fleet) == {"production": 1, "previous": 2}
    assert fleet.state.rollouts[RolloutId("ro_000002")].state is RolloutState.ROLLED_BACK
    fleet.model("fresh")
    assert reason_of(lambda: fleet.do(RollBack(model_id=ModelId("fresh")))) is Reason.NO_PREVIOUS_VERSION


@given(st.lists(st.sampled_from(["pass", "fail", "silence", "force", "back"]), max_size=12))
def test_production_is_always_a_version_and_never_its_own_previous(history: list[str]) -> None:
    fleet = Fleet()
    fleet.model("m", validation=ValidationPolicy(timeout=HOUR))
    for step in history:
        fleet.now += MINUTE
        if step in ("pass", "fail", "silence"):
            version = candidate(fleet)
            if step == "silence":
                fleet.pass_time(2 * HOUR)
            else:
                fleet.validate("m", version, passed=step == "pass")
        elif step == "force":
            version = fleet.do(RegisterVersion(model_id=M, facts=a_version(fleet.now))).version or 0
            fleet.do(PromoteVersion(model_id=M, version=version, force=True))
        elif "previous" in aliases(fleet):
            fleet.do(RollBack(model_id=M))
        found = aliases(fleet)
        assert "candidate" not in found
        assert set(found.values()) <= set(range(1, len(fleet.state.models[M].versions) + 1))
        assert "production" not in found or found.get("previous") != found["production"]
        assert not fleet.state.live_retrains


def test_the_policy_is_bounded() -> None:
    assert policy_violations(ValidationPolicy()) == []
    wrong = ValidationPolicy(margin=float("inf"), timeout=TIMEOUT_MAX + MINUTE)
    assert [violation.field for violation in policy_violations(wrong)] == [
        "validation.margin",
        "validation.timeout",
    ]
