"""A model's life and what a version must show before an alias points at it."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from control_plane.core.commands import (
    DeclareDependencies,
    DeclareNodes,
    MoveAlias,
    PromoteVersion,
    RegisterVersion,
    RemoveAlias,
    ReportLoadCheck,
    RollBack,
    SetLifecycle,
    SetPolicies,
)
from control_plane.core.errors import Invalid, Reason, Refused
from control_plane.core.graph.facts import Dependency, DependencyType, Node
from control_plane.core.ids import ModelId, NodeId
from control_plane.core.plan import plan
from control_plane.core.policies import Overrides
from control_plane.core.registry.rules import facts_violations, signature_violations, version_violations
from control_plane.core.registry.types import (
    Field,
    Lifecycle,
    Metric,
    Signature,
    TaintedWindow,
    TrainingData,
    ValueType,
)
from control_plane.core.relations import consumers_of
from control_plane.core.rollout.types import RolloutState
from tests.core.fleets import HOUR, START, Fleet, a_version, reason_of

M = ModelId("m")
REQUIRED: Overrides = {"rollout.require_load_check": True}


def life(fleet: Fleet, state: Lifecycle, *, force: bool = False) -> list[str]:
    return fleet.new_events(SetLifecycle(model_id=M, lifecycle=state, force=force))


def where(fleet: Fleet) -> Lifecycle:
    return fleet.state.models[M].lifecycle


def check(fleet: Fleet, version: int, *, passed: bool, detail: str = "") -> list[str]:
    return fleet.new_events(ReportLoadCheck(model_id=M, version=version, passed=passed, detail=detail))


# Life


def test_a_model_becomes_active_when_a_version_goes_into_production() -> None:
    fleet = Fleet()
    fleet.model("m")
    assert where(fleet) is Lifecycle.REGISTERED
    fleet.promote(M)
    assert where(fleet) is Lifecycle.ACTIVE
    assert life(fleet, Lifecycle.DEPRECATED) == ["LifecycleChanged"]
    assert life(fleet, Lifecycle.DEPRECATED) == []
    fleet.promote(M)
    assert where(fleet) is Lifecycle.DEPRECATED


def test_nobody_makes_a_model_active_that_never_served() -> None:
    fleet = Fleet()
    fleet.model("m")
    with pytest.raises(Invalid, match="never in production"):
        life(fleet, Lifecycle.ACTIVE)
    life(fleet, Lifecycle.RETIRED)
    life(fleet, Lifecycle.ACTIVE)
    assert where(fleet) is Lifecycle.REGISTERED


def test_a_model_that_is_used_is_retired_by_force_only_and_the_list_is_told() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.model("direct")
    fleet.model("through")
    fleet.model("far")
    fleet.edge("m", "direct")
    fleet.edge("direct", "far")
    fleet.do(DeclareNodes(nodes=(Node(node_id=NodeId("feature:f")), Node(node_id=NodeId("consumer:desk")))))
    fleet.do(
        DeclareDependencies(
            dependencies=tuple(
                Dependency(upstream=NodeId(up), downstream=NodeId(down), edge_type=kind)
                for up, down, kind in (
                    ("model:m", "feature:f", DependencyType.EMBEDS),
                    ("feature:f", "model:through", DependencyType.READS_FEATURE),
                    ("model:m", "consumer:desk", DependencyType.CONSUMES_OUTPUT),
                )
            )
        )
    )
    used = ["consumer:desk", "model:direct", "model:through"]
    assert consumers_of(fleet.state, M) == used
    with pytest.raises(Refused) as caught:
        life(fleet, Lifecycle.RETIRED)
    assert caught.value.reason is Reason.MODEL_HAS_CONSUMERS
    assert caught.value.details["consumers"].split(",") == used
    assert all(name in caught.value.message for name in used)
    fleet.do(SetLifecycle(model_id=ModelId("through"), lifecycle=Lifecycle.RETIRED))
    assert consumers_of(fleet.state, M) == ["consumer:desk", "model:direct"]
    assert life(fleet, Lifecycle.RETIRED, force=True) == ["LifecycleChanged"]
    assert fleet.events[-1].consumers == ("consumer:desk", "model:direct")  # type: ignore[union-attr]


def test_retiring_ends_what_goes_on_and_nothing_goes_on_after_it() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.look("m", stale=True)
    fleet.request("m")
    [attempt] = fleet.lease()
    token = fleet.token(attempt)
    assert life(fleet, Lifecycle.RETIRED) == ["AttemptEnded", "RetrainEnded", "LifecycleChanged"]
    record = fleet.state.models[M]
    assert record.live_retrain is None
    assert not fleet.state.live_retrains
    fleet.now += 100 * HOUR
    assert plan(fleet.state, fleet.now) == []
    assert reason_of(lambda: fleet.request("m")) is Reason.MODEL_RETIRED
    late = RegisterVersion(model_id=M, facts=a_version(START), attempt_id=attempt, lease_token=token)
    assert reason_of(lambda: fleet.do(late)) is Reason.LEASE_LOST
    fleet.do(RegisterVersion(model_id=M, facts=a_version(START)))
    for command in (
        MoveAlias(model_id=M, alias="shadow", version=1),
        RemoveAlias(model_id=M, alias="shadow"),
        PromoteVersion(model_id=M, version=2, force=True),
        RollBack(model_id=M),
    ):
        assert reason_of(lambda command=command: fleet.do(command)) is Reason.MODEL_RETIRED  # type: ignore[misc]
    before = len(fleet.events)
    fleet.look("m", stale=False)
    assert len(fleet.events) == before
    assert life(fleet, Lifecycle.ACTIVE) == ["LifecycleChanged"]
    assert where(fleet) is Lifecycle.ACTIVE
    fleet.request("m")


def test_retiring_refuses_a_candidate_under_validation() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.request("m")
    [attempt] = fleet.lease()
    version = fleet.train(attempt)
    assert "AliasMoved" in life(fleet, Lifecycle.RETIRED)
    record = fleet.state.models[M]
    assert (record.live_rollout, record.aliases) == (None, {"production": 1})
    assert reason_of(lambda: fleet.validate("m", version)) is Reason.ROLLOUT_FINISHED


# Aliases


def test_an_alias_of_ones_own_is_removed_and_its_history_kept() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.do(MoveAlias(model_id=M, alias="shadow", version=1))
    assert fleet.new_events(RemoveAlias(model_id=M, alias="shadow")) == ["AliasMoved"]
    record = fleet.state.models[M]
    assert "shadow" not in record.aliases
    assert [(m.from_version, m.to_version) for m in record.alias_moves if m.alias == "shadow"] == [(0, 1), (1, 0)]
    assert reason_of(lambda: fleet.do(RemoveAlias(model_id=M, alias="shadow"))) is Reason.ALIAS_NOT_FOUND
    assert reason_of(lambda: fleet.do(RemoveAlias(model_id=M, alias="production"))) is Reason.VALIDATION_REQUIRED


# Load checks


def test_an_alias_points_only_at_what_has_shown_to_load() -> None:
    fleet = Fleet()
    fleet.model("m", overrides=REQUIRED)
    fleet.do(RegisterVersion(model_id=M, facts=a_version(START)))
    move = MoveAlias(model_id=M, alias="shadow", version=1)
    promote = PromoteVersion(model_id=M, version=1, force=True)
    for command in (move, promote):
        assert reason_of(lambda command=command: fleet.do(command)) is Reason.LOAD_CHECK_REQUIRED  # type: ignore[misc]
    check(fleet, 1, passed=True)
    check(fleet, 1, passed=False, detail="no module named torch")
    for command in (move, promote):
        assert reason_of(lambda command=command: fleet.do(command)) is Reason.LOAD_CHECK_REQUIRED  # type: ignore[misc]
    check(fleet, 1, passed=True)
    fleet.do(move)
    fleet.do(promote)
    checks = fleet.state.models[M].versions[0].load_checks
    assert [one.passed for one in checks] == [True, False, True]
    assert checks[1].detail == "no module named torch"
    assert checks[1].reporter == "tester"


def under_validation(fleet: Fleet) -> int:
    fleet.model("m", overrides={**REQUIRED, "validation.timeout": "7200s"})
    fleet.request("m")
    [attempt] = fleet.lease()
    return fleet.train(attempt)


def test_a_candidate_that_passed_waits_for_its_load_check_and_then_goes_on_by_itself() -> None:
    fleet = Fleet()
    version = under_validation(fleet)
    record = fleet.state.models[M]
    assert "candidate" not in record.aliases
    fleet.validate("m", version)
    assert record.aliases == {}
    assert record.live_rollout is not None
    events = check(fleet, version, passed=True)
    assert events[0] == "LoadChecked"
    assert record.aliases == {"production": version}
    assert not fleet.state.live_retrains


def test_the_candidate_alias_follows_the_load_check() -> None:
    fleet = Fleet()
    version = under_validation(fleet)
    assert check(fleet, version, passed=True) == ["LoadChecked", "AliasMoved"]
    assert fleet.state.models[M].aliases == {"candidate": version}
    fleet.validate("m", version)
    assert fleet.state.models[M].aliases == {"production": version}


def test_a_candidate_that_does_not_load_is_refused() -> None:
    fleet = Fleet()
    version = under_validation(fleet)
    fleet.validate("m", version)
    check(fleet, version, passed=False, detail="out of memory")
    [rollout] = fleet.state.rollouts.values()
    assert rollout.state is RolloutState.REFUSED
    assert rollout.conclusion == "it does not load: out of memory"
    assert not fleet.state.live_retrains


def test_a_load_check_that_never_comes_refuses_in_time() -> None:
    fleet = Fleet()
    version = under_validation(fleet)
    fleet.validate("m", version)
    assert "RolloutEnded" in fleet.pass_time(timedelta(hours=3))
    [rollout] = fleet.state.rollouts.values()
    assert rollout.conclusion == "no load check was reported within 2 hours"


def test_a_policy_that_asks_for_no_validation_waits_for_the_load_check_alone() -> None:
    fleet = Fleet()
    fleet.model("m", overrides={**REQUIRED, "validation.skip": True})
    fleet.request("m")
    [attempt] = fleet.lease()
    version = fleet.train(attempt)
    assert fleet.state.models[M].aliases == {}
    check(fleet, version, passed=True)
    assert fleet.state.models[M].aliases == {"production": version}


def test_rolling_back_needs_no_check_but_not_a_failed_one() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.promote(M)
    fleet.do(SetPolicies(scope="fleet", overrides=REQUIRED))
    fleet.do(RollBack(model_id=M))
    assert fleet.state.models[M].aliases["production"] == 1
    check(fleet, 2, passed=False)
    assert reason_of(lambda: fleet.do(RollBack(model_id=M))) is Reason.LOAD_CHECK_REQUIRED


# Facts


def test_what_is_said_about_training_is_checked_whole() -> None:
    fleet = Fleet()
    fleet.model("m")
    window = TaintedWindow(start=START, until=START, reason="x")
    facts = replace(
        fleet.state.models[M].facts,
        owner="",
        tags={"a b": "x", "c=d": "y", "fine": "z" * 1001},
        training_window=timedelta(0),
        tainted_windows=(changed_window(window, hours=1), window),
        expected_inputs=(Field(name="x"), Field(name="x")),
        retrain_gpu_hours=float("nan"),
    )
    assert [violation.field for violation in facts_violations(facts)] == [
        "model.tags",
        "model.tags",
        "model.tags",
        "model.training_window",
        "model.tainted_windows[1].until",
        "model.expected_inputs",
        "model.retrain_gpu_hours",
    ]


def changed_window(window: TaintedWindow, *, hours: int) -> TaintedWindow:
    return replace(window, until=window.start + timedelta(hours=hours))


def test_metrics_of_one_name_are_told_apart_by_slice() -> None:
    whole = Metric(name="auc", value=0.8)
    sliced = [replace(whole, slice=f"origin={name}") for name in ("JFK", "LGA")]
    assert version_violations(replace(a_version(START), metrics=(whole, *sliced))) == []
    [violation] = version_violations(replace(a_version(START), metrics=(whole, *sliced, sliced[1])))
    assert "auc of origin=LGA" in violation.message


def test_what_a_version_takes_is_compared_with_what_goes_in() -> None:
    number, text = ValueType.NUMBER, ValueType.TEXT
    expected = (
        Field(name="temp", value_type=number),
        Field(name="wind", value_type=number),
        Field(name="note", value_type=text, optional=True),
        Field(name="any"),
    )
    assert signature_violations(Signature(), expected) == []
    takes = Signature(
        inputs=(Field(name="temp", value_type=text), Field(name="any", value_type=text), Field(name="new"))
    )
    found = [(violation.rule, violation.message.split()[0]) for violation in signature_violations(takes, expected)]
    assert found == [("expected_type", "temp"), ("expected_input", "lacks")]
    whole = Signature(inputs=tuple(changed_type(one) for one in expected))
    assert signature_violations(whole, expected) == []


def changed_type(one: Field) -> Field:
    return replace(one, optional=not one.optional)


def test_training_data_of_the_graph_is_a_dataset() -> None:
    data = (TrainingData(node_id="dataset:flights"), TrainingData(uri="s3://x"), TrainingData(node_id="feature:temp"))
    [violation] = version_violations(replace(a_version(START), training_data=data))
    assert violation.field == "version.training_data[2].node_id"
