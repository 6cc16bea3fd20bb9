"""The way of a candidate: approvals, shadow, steps, judge, groups, freezes; through decide, evolve and plan."""

from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.core.commands import (
    AbortRollout,
    AdvanceRollout,
    ApproveRollout,
    DeclineRollout,
    GroupRollouts,
    HoldRollout,
    PromoteVersion,
    RecordLook,
    ReleaseRollout,
    RemoveFreeze,
    ReportValidation,
    ReportWeight,
    RollBack,
    SetFreeze,
)
from control_plane.core.errors import Invalid, Reason
from control_plane.core.ids import ModelId, RetrainId, RolloutId
from control_plane.core.policies import Overrides
from control_plane.core.retraining.types import RetrainState
from control_plane.core.rollout.types import (
    Arm,
    FreezeWindow,
    JudgeVerdict,
    Look,
    Rollout,
    RolloutState,
    ValidationEvidence,
)
from tests.core.fleets import HOUR, MINUTE, Fleet, reason_of

SERVED: Overrides = {
    "rollout.serving": "demo",
    "rollout.metrics": "engagement higher 3%",
    "rollout.observations_min": 10_000,
    "rollout.bake": "3600s",
    "rollout.wait_max": "86400s",
}


def begun(overrides: Overrides = SERVED, *, tier: int = 2, name: str = "m") -> tuple[Fleet, RolloutId]:
    """A model in production, and a validated candidate on its way."""
    fleet = Fleet()
    return fleet, candidate(fleet, name, overrides, tier=tier)


def candidate(fleet: Fleet, name: str, overrides: Overrides = SERVED, *, tier: int = 2) -> RolloutId:
    """A model of a fleet with a version in production and one behind it that has passed its validation."""
    model_id = fleet.model(name, overrides=overrides, tier=tier)
    fleet.promote(model_id)
    assert fleet.state.models[model_id].production is not None
    fleet.request(name)
    [attempt] = fleet.lease()
    fleet.validate(name, fleet.train(attempt))
    return fleet.state.models[model_id].rollout_ids[-1]


def rollout(fleet: Fleet, rollout_id: RolloutId) -> Rollout:
    """As it stands."""
    return fleet.state.rollouts[rollout_id]


def confirm(fleet: Fleet, rollout_id: RolloutId) -> None:
    """The serving system does as it was told."""
    fleet.do(ReportWeight(rollout_id=rollout_id, weight=rollout(fleet, rollout_id).weight))


def look(
    fleet: Fleet,
    rollout_id: RolloutId,
    count: int,
    rate: float = 0.5,
    control: float = 0.5,
    requests: int | None = None,
) -> None:
    """Both arms have seen so much since the canary began."""

    def arm(mean: float) -> Arm:
        return Arm(count=count, mean=mean, m2=count * mean * (1 - mean))

    fleet.do(
        RecordLook(
            rollout_id=rollout_id,
            look=Look(
                at=fleet.now,
                candidate={"engagement": arm(rate)},
                control={"engagement": arm(control)},
                candidate_requests=count if requests is None else requests,
                control_requests=count,
            ),
        )
    )


def test_a_candidate_goes_step_by_step_and_is_promoted_on_a_pass() -> None:
    fleet, rollout_id = begun()
    assert (rollout(fleet, rollout_id).state, rollout(fleet, rollout_id).weight) == (RolloutState.CANARY, 0.05)
    assert fleet.state.models[ModelId("m")].aliases["production"] == 1
    for number, weight in enumerate((0.05, 0.2, 0.5), start=1):
        assert rollout(fleet, rollout_id).weight == weight
        confirm(fleet, rollout_id)
        fleet.now += HOUR
        look(fleet, rollout_id, 10_000 * number + number)
    found = rollout(fleet, rollout_id)
    assert (found.state, found.weight) == (RolloutState.PROMOTED, 1.0)
    assert fleet.state.models[ModelId("m")].aliases == {"production": 2, "previous": 1}
    assert fleet.state.retrains[found.retrain_id or RetrainId("")].state is RetrainState.PROMOTED
    assert [moment.sentence for moment in found.story][-1].startswith("promoted: engagement 0.5 against 0.5")


def test_harm_goes_back_in_the_look_that_sees_it_and_production_never_moved() -> None:
    fleet, rollout_id = begun()
    confirm(fleet, rollout_id)
    look(fleet, rollout_id, 5_000, rate=0.4)
    found = rollout(fleet, rollout_id)
    assert (found.state, found.weight) == (RolloutState.ROLLED_BACK, 0.0)
    assert "engagement 0.4 against 0.5 (-20.0%" in found.conclusion
    assert fleet.state.models[ModelId("m")].aliases == {"production": 1}
    retrain = fleet.state.retrains[found.retrain_id or RetrainId("")]
    assert (retrain.state, retrain.conclusion[:27]) == (RetrainState.REFUSED, "version 2 rolled back at 5%")
    # A late look at what has ended changes nothing.
    before = len(fleet.events)
    look(fleet, rollout_id, 9_000, rate=0.1)
    assert len(fleet.events) == before


@pytest.mark.parametrize("missing", ["time", "observations", "weight", "tolerance", "numbers"])
def test_a_step_needs_all_of_it(missing: str) -> None:
    fleet, rollout_id = begun()
    if missing != "weight":
        confirm(fleet, rollout_id)
    if missing != "time":
        fleet.now += HOUR
    rate = float("nan") if missing == "numbers" else 0.484 if missing == "tolerance" else 0.5
    look(fleet, rollout_id, 9_000 if missing == "observations" else 10_000, rate=rate)
    assert rollout(fleet, rollout_id).step == 0
    judged = rollout(fleet, rollout_id).judgement
    assert judged is not None
    assert len(judged.lacking) == 1


def test_arms_of_unequal_size_hold_it_until_somebody_releases_it() -> None:
    fleet, rollout_id = begun()
    confirm(fleet, rollout_id)
    fleet.now += HOUR
    look(fleet, rollout_id, 10_000, requests=11_500)
    assert rollout(fleet, rollout_id).held_by == "runway"
    look(fleet, rollout_id, 12_000)
    assert rollout(fleet, rollout_id).step == 0
    fleet.do(ReleaseRollout(rollout_id=rollout_id))
    look(fleet, rollout_id, 13_000)
    assert rollout(fleet, rollout_id).step == 1


def test_undecided_for_too_long_it_asks_and_a_decision_goes_on_or_back() -> None:
    for yes in (True, False):
        fleet, rollout_id = begun()
        confirm(fleet, rollout_id)
        look(fleet, rollout_id, 2_000)
        assert fleet.pass_time(25 * HOUR - MINUTE) == []
        assert fleet.pass_time(MINUTE) == ["ApprovalAsked"]
        assert rollout(fleet, rollout_id).state is RolloutState.AWAITING_DECISION
        if yes:
            fleet.do(ApproveRollout(rollout_id=rollout_id, approver="anna"))
            assert (rollout(fleet, rollout_id).state, rollout(fleet, rollout_id).step) == (RolloutState.CANARY, 1)
        else:
            fleet.do(DeclineRollout(rollout_id=rollout_id, by="anna", why="no"))
            assert rollout(fleet, rollout_id).conclusion == "declined by anna: no"


def test_tier_1_needs_other_eyes_in_time() -> None:
    fleet, rollout_id = begun({}, tier=1)
    asker = rollout(fleet, rollout_id).requested_by
    assert rollout(fleet, rollout_id).state is RolloutState.AWAITING_APPROVAL
    assert fleet.state.models[ModelId("m")].aliases["production"] == 1
    approve = ApproveRollout(rollout_id=rollout_id, approver=asker)
    assert reason_of(lambda: fleet.do(approve)) is Reason.APPROVAL_NOT_YOURS
    spelled = ApproveRollout(rollout_id=rollout_id, approver=f" {asker.upper()}")
    assert reason_of(lambda: fleet.do(spelled)) is Reason.APPROVAL_NOT_YOURS
    promote = PromoteVersion(model_id=ModelId("m"), version=2)
    assert reason_of(lambda: fleet.do(promote)) is Reason.APPROVAL_REQUIRED
    fleet.do(ApproveRollout(rollout_id=rollout_id, approver="somebody else"))
    assert rollout(fleet, rollout_id).state is RolloutState.PROMOTED
    assert reason_of(lambda: fleet.do(approve)) is Reason.ROLLOUT_FINISHED


def test_two_approvals_are_two_people_and_silence_is_a_no() -> None:
    fleet = Fleet()
    fleet.model("m", overrides={"rollout.approvals": 2})
    fleet.request("m")
    fleet.validate("m", fleet.train(fleet.lease()[0]))
    [rollout_id] = fleet.state.models[ModelId("m")].rollout_ids
    fleet.do(ApproveRollout(rollout_id=rollout_id, approver="anna"))
    for name in ("anna", "Anna "):
        again = ApproveRollout(rollout_id=rollout_id, approver=name)
        assert reason_of(partial(fleet.do, again)) is Reason.APPROVAL_NOT_YOURS
    assert fleet.pass_time(timedelta(hours=72)) == []
    assert "RolloutEnded" in fleet.pass_time(MINUTE)
    assert rollout(fleet, rollout_id).conclusion.startswith("nobody approved it until")


def test_a_freeze_stops_what_goes_forward_and_nothing_that_goes_back() -> None:
    fleet, rollout_id = begun()
    confirm(fleet, rollout_id)
    freeze = FreezeWindow(name="holidays", scope="tier:2", starts_at=fleet.now, ends_at=fleet.now + 10 * HOUR)
    fleet.do(SetFreeze(freeze=freeze))
    fleet.now += HOUR
    look(fleet, rollout_id, 10_000)
    assert rollout(fleet, rollout_id).step == 0
    advance = AdvanceRollout(rollout_id=rollout_id, by="anna")
    assert reason_of(lambda: fleet.do(advance)) is Reason.FROZEN
    fleet.do(RemoveFreeze(name="holidays"))
    look(fleet, rollout_id, 10_001)
    assert rollout(fleet, rollout_id).step == 1
    fleet.do(SetFreeze(freeze=freeze))
    look(fleet, rollout_id, 15_000, rate=0.4)
    assert rollout(fleet, rollout_id).state is RolloutState.ROLLED_BACK


def test_a_candidate_that_passed_in_a_freeze_goes_on_when_it_ends() -> None:
    fleet = Fleet()
    fleet.model("m", overrides={"rollout.approvals": 0})
    freeze = FreezeWindow(name="f", scope="fleet", starts_at=fleet.now, ends_at=fleet.now + HOUR)
    fleet.do(SetFreeze(freeze=freeze))
    fleet.request("m")
    fleet.validate("m", fleet.train(fleet.lease()[0]))
    assert fleet.pass_time(HOUR - MINUTE) == []
    assert "RolloutEnded" in fleet.pass_time(MINUTE)
    assert fleet.state.models[ModelId("m")].aliases["production"] == 1


def test_a_shadow_comes_first_and_ends_by_time() -> None:
    fleet, rollout_id = begun(SERVED | {"rollout.shadow": "7200s"})
    assert (rollout(fleet, rollout_id).state, rollout(fleet, rollout_id).weight) == (RolloutState.SHADOW, 0.0)
    assert fleet.pass_time(2 * HOUR - MINUTE) == []
    assert fleet.pass_time(MINUTE) == ["RolloutStepped"]
    assert rollout(fleet, rollout_id).state is RolloutState.CANARY


def test_hands_hold_advance_and_abort() -> None:
    fleet, rollout_id = begun()
    fleet.do(HoldRollout(rollout_id=rollout_id, by="anna", why="looking"))
    confirm(fleet, rollout_id)
    fleet.now += HOUR
    look(fleet, rollout_id, 10_000)
    assert rollout(fleet, rollout_id).step == 0
    advance = AdvanceRollout(rollout_id=rollout_id, by="anna", why="it is fine")
    assert reason_of(lambda: fleet.do(advance)) is Reason.ROLLOUT_NOT_WAITING
    fleet.do(ReleaseRollout(rollout_id=rollout_id))
    fleet.do(advance)
    assert rollout(fleet, rollout_id).step == 1
    fleet.do(AbortRollout(rollout_id=rollout_id, by="anna"))
    assert (rollout(fleet, rollout_id).state, rollout(fleet, rollout_id).weight) == (RolloutState.ABORTED, 0.0)


def grouped() -> tuple[Fleet, RolloutId, RolloutId]:
    """Two models whose candidates wait for approval, the second downstream of the first, as one group."""
    held = SERVED | {"rollout.approvals": 1}
    fleet = Fleet()
    ids = [candidate(fleet, name, held) for name in ("embedding", "consumer")]
    fleet.edge("embedding", "consumer")
    fleet.do(GroupRollouts(group_id="set", rollout_ids=tuple(reversed(ids))))
    assert fleet.state.groups["set"].rollout_ids == tuple(ids)
    fleet.do(ApproveRollout(rollout_id=ids[0], approver="anna"))
    assert rollout(fleet, ids[0]).state is RolloutState.AWAITING_APPROVAL
    fleet.do(ApproveRollout(rollout_id=ids[1], approver="anna"))
    assert {rollout(fleet, one).state for one in ids} == {RolloutState.CANARY}
    return fleet, ids[0], ids[1]


def test_a_group_steps_together_and_is_promoted_upstream_first() -> None:
    fleet, first, second = grouped()
    for number in (1, 2, 3):
        confirm(fleet, first)
        confirm(fleet, second)
        fleet.now += HOUR
        look(fleet, first, 10_000 * number + number)
        assert rollout(fleet, first).step == number - 1
        before = len(fleet.events)
        look(fleet, second, 10_000 * number + number)
    kinds = [type(event).__name__ for event in fleet.events[before:]]
    ended = [event.model_id for event in fleet.events[before:] if type(event).__name__ == "RolloutEnded"]  # type: ignore[union-attr]
    assert kinds.count("RolloutEnded") == 2
    assert ended == ["embedding", "consumer"]
    fleet.do(RollBack(model_id=ModelId("embedding")))
    assert fleet.state.models[ModelId("embedding")].aliases["production"] == 1
    assert fleet.state.models[ModelId("consumer")].aliases["production"] == 1
    moved = [event for event in fleet.events if type(event).__name__ == "AliasMoved"][-4:]
    assert [event.model_id for event in moved][::2] == ["consumer", "embedding"]  # type: ignore[union-attr]
    # Who did it and why is part of the story, also where the conclusion does not say it.
    assert rollout(fleet, first).story[-1].sentence == "rolled back: rolled back to version 1 (tester: because)"


def test_a_group_whose_member_fails_its_validation_goes_nowhere() -> None:
    """A version set of which one is refused is no set: none of it may go on alone."""
    fleet = Fleet()
    ids = []
    for name in ("embedding", "consumer"):
        model_id = fleet.model(name, overrides=SERVED)
        fleet.promote(model_id)
        fleet.request(name)
        fleet.train(fleet.lease()[0])
        ids.append(fleet.state.models[model_id].rollout_ids[-1])
    fleet.do(GroupRollouts(group_id="g", rollout_ids=tuple(ids)))
    fleet.validate("consumer", 2)
    fleet.validate("embedding", 2, passed=False)
    assert [rollout(fleet, one).state for one in ids] == [RolloutState.REFUSED, RolloutState.ABORTED]
    assert rollout(fleet, ids[1]).conclusion.startswith("moves with embedding version 2: ")
    assert all(record.aliases["production"] == 1 for record in fleet.state.models.values())


def test_a_group_falls_together_downstream_first() -> None:
    fleet, first, second = grouped()
    confirm(fleet, first)
    look(fleet, first, 5_000, rate=0.4)
    assert rollout(fleet, first).state is rollout(fleet, second).state is RolloutState.ROLLED_BACK
    ended = [event.model_id for event in fleet.events if type(event).__name__ == "RolloutEnded"]  # type: ignore[union-attr]
    assert ended[-2:] == ["consumer", "embedding"]
    assert rollout(fleet, second).conclusion.startswith("moves with embedding version 2: engagement")


def test_what_cannot_move_together_is_refused_with_every_reason() -> None:
    fleet, rollout_id = begun()
    with pytest.raises(Invalid) as refused:
        fleet.do(GroupRollouts(group_id="g", rollout_ids=(rollout_id,)))
    assert {violation.field for violation in refused.value.violations} == {"rollout_ids", "rollout_ids[0]"}


def test_evidence_is_judged_by_the_gate() -> None:
    for better, state in ((0.71, RolloutState.PROMOTED), (0.66, RolloutState.REFUSED)):
        fleet = Fleet()
        fleet.model("m", overrides={"rollout.approvals": 0})
        fleet.promote(ModelId("m"))
        fleet.request("m")
        version = fleet.train(fleet.lease()[0])
        evidence = ValidationEvidence(
            metric="auc", candidate=better, production=0.7, standard_error=0.001, sample_size=9_000
        )
        fleet.do(ReportValidation(model_id=ModelId("m"), version=version, evidence=evidence))
        found = rollout(fleet, fleet.state.models[ModelId("m")].rollout_ids[-1])
        assert found.state is state
        assert found.validation is not None
        assert [check.name for check in found.validation.checks] == ["rows", "primary"]


@pytest.mark.parametrize("served", [False, True])
def test_evidence_told_again_after_the_end_changes_nothing(served: bool) -> None:
    """The first answer may have been lost: the gate must not judge it by what has happened since."""
    fleet = Fleet()
    fleet.model("m", overrides=SERVED if served else {})
    # A first version; and one that proves so little that the verdict is another where no canary follows.
    evidence = ValidationEvidence(metric="auc", candidate=0.6, standard_error=0.2, sample_size=300)
    if served:
        fleet.promote(ModelId("m"))
        evidence = replace(evidence, production=0.7)
    fleet.request("m")
    version = fleet.train(fleet.lease()[0])
    report = ReportValidation(model_id=ModelId("m"), version=version, evidence=evidence)
    rollout_id = fleet.do(report).rollout_id
    assert rollout_id is not None
    if served:
        assert rollout(fleet, rollout_id).state is RolloutState.CANARY
        fleet.do(AbortRollout(rollout_id=rollout_id, by="ada"))
    else:
        assert rollout(fleet, rollout_id).state is RolloutState.PROMOTED
    revision = fleet.state.revision
    assert fleet.do(report).rollout_id == rollout_id
    assert fleet.state.revision == revision


@given(st.lists(st.tuples(st.integers(1, 4_000), st.floats(0.3, 0.7), st.integers(0, 40)), max_size=12))
def test_whatever_is_seen_weights_only_rise_step_by_step_or_fall_to_nothing(
    looks: list[tuple[int, float, int]],
) -> None:
    fleet, rollout_id = begun(SERVED | {"rollout.observations_min": 1_000})
    weights = [0.05]
    count = 0
    for more, rate, minutes in looks:
        confirm(fleet, rollout_id)
        count += more
        fleet.pass_time(minutes * MINUTE)
        look(fleet, rollout_id, count, rate=rate)
        found = rollout(fleet, rollout_id)
        weights.append(found.weight)
        if found.judgement is not None and found.judgement.verdict is JudgeVerdict.FAIL:
            assert found.state is RolloutState.ROLLED_BACK
    allowed = {0.05: {0.05, 0.2, 0.0}, 0.2: {0.2, 0.5, 0.0}, 0.5: {0.5, 1.0, 0.0}, 0.0: {0.0}, 1.0: {1.0}}
    assert all(after in allowed[before] for before, after in pairwise(weights))
