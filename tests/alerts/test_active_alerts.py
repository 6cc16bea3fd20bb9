"""Which alerts follow from the state, from when on, and until when."""

from collections.abc import Iterable
from datetime import timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.active_alerts import active_alerts
from control_plane.core.alerts.types import Alert, Severity
from control_plane.core.commands import (
    DeclareDependencies,
    DeclareNodes,
    HoldRetraining,
    HoldRollout,
    RecordCoverage,
    RecordEvaluation,
    ReleaseRetraining,
    ReleaseRollout,
    RenewLease,
    ReportFailure,
    RollBack,
    SetLimits,
    SetRule,
)
from control_plane.core.events import BreakerChanged, Envelope, Event, RetrainEnded, RolloutEnded
from control_plane.core.evolve import evolve
from control_plane.core.graph.facts import Dependency, DependencyType, Node
from control_plane.core.ids import ModelId, NodeId
from control_plane.core.retraining.types import (
    Breaker,
    BreakerState,
    FailureClass,
    RetrainingLimits,
    RetrainingPolicy,
    RetrainState,
)
from control_plane.core.rollout.types import RolloutState
from control_plane.core.rules.types import Rule, RuleAction
from control_plane.core.snapshots import decode_snapshot, encode_snapshot
from control_plane.core.staleness.verdict import Action, FeatureDrift, UpstreamCompatibility
from control_plane.core.state import State
from tests.core.fleets import HOUR, MINUTE, Fleet, an_evaluation

BY_HAND = RetrainingPolicy(automatic=False, attempts_max=1)


def alerts(fleet: Fleet) -> dict[str, Alert]:
    """What is wrong now, by key."""
    found = active_alerts(fleet.state, fleet.now)
    assert len({alert.key for alert in found}) == len(found)
    return {alert.key: alert for alert in found}


def dataset(fleet: Fleet, name: str, *downstream: str) -> None:
    """A dataset that these nodes stand on."""
    nodes = [Node(node_id=NodeId(one)) for one in (f"dataset:{name}", *downstream) if not one.startswith("model:")]
    fleet.do(DeclareNodes(nodes=tuple(nodes)))
    fleet.do(
        DeclareDependencies(
            dependencies=tuple(
                Dependency(
                    upstream=NodeId(f"dataset:{name}"),
                    downstream=NodeId(one),
                    edge_type=DependencyType.TRAINED_ON if one.startswith("model:") else DependencyType.DERIVED_FROM,
                )
                for one in downstream
            )
        )
    )


def reads(fleet: Fleet, feature: str, *models: str) -> None:
    """These models read a feature."""
    fleet.do(
        DeclareDependencies(
            dependencies=tuple(
                Dependency(
                    upstream=NodeId(f"feature:{feature}"),
                    downstream=NodeId(f"model:{model}"),
                    edge_type=DependencyType.READS_FEATURE,
                )
                for model in models
            )
        )
    )


def look(fleet: Fleet, model: str, *, stale: bool = True, **more: object) -> None:
    """Looks at a model until the verdict follows."""
    production = fleet.state.models[ModelId(model)].production
    assert production is not None
    evaluation = msgspec.structs.replace(an_evaluation(production.number, fleet.now, stale=stale), **more)
    for _ in range(3):
        fleet.do(RecordEvaluation(model_id=ModelId(model), evaluation=evaluation))


def break_data(fleet: Fleet, model: str, fault: str = "no rows for 6 h") -> None:
    """The verdict asks the owner of the data."""
    look(fleet, model, recommended_action=Action.ALERT_DATA_OWNER, data_quality=(fault,))


def serving(fleet: Fleet, *models: str, tier: int = 2) -> None:
    """Models in production that retrain only by hand."""
    for model in models:
        fleet.model(model, tier=tier, policy=BY_HAND, serving=True)


# One upstream, many models


def test_a_broken_dataset_and_forty_models_are_one_alert_whose_key_stays() -> None:
    fleet = Fleet()
    names = [f"m{number:02}" for number in range(40)]
    serving(fleet, *names, "other")
    dataset(fleet, "weather", *(f"model:{name}" for name in names))
    dataset(fleet, "planes", "model:other")
    keys = set()
    for name in names:
        break_data(fleet, name)
        keys |= set(alerts(fleet))
    break_data(fleet, "other")
    assert keys == {"data_fault/dataset:weather"}
    found = alerts(fleet)
    assert set(found) == {"data_fault/dataset:weather", "data_fault/dataset:planes"}
    one = found["data_fault/dataset:weather"]
    assert one.model_ids == tuple(names)
    assert one.cause == "dataset:weather"
    assert "no rows for 6 h" in one.detail
    assert "and 35 more" in one.detail
    assert "Ask the owner of the data" in one.detail
    look(fleet, "m00", stale=False)
    assert alerts(fleet)["data_fault/dataset:weather"].model_ids == tuple(names[1:])


def test_a_fault_that_names_a_feature_comes_down_to_the_dataset_behind_it() -> None:
    fleet = Fleet()
    serving(fleet, "eta", "fare")
    dataset(fleet, "weather", "feature:temp", "feature:wind")
    dataset(fleet, "planes", "feature:seats")
    reads(fleet, "temp", "eta")
    reads(fleet, "wind", "fare")
    reads(fleet, "seats", "eta", "fare")
    break_data(fleet, "eta", "feature temp is missing in 40 % of the rows")
    assert set(alerts(fleet)) == {"data_fault/dataset:weather"}
    break_data(fleet, "fare", "feature wind is missing in 30 % of the rows")
    assert alerts(fleet)["data_fault/dataset:weather"].model_ids == ("eta", "fare")
    break_data(fleet, "fare", "feature seats is missing in 30 % of the rows")
    assert {a.cause: a.model_ids for a in alerts(fleet).values()} == {
        "dataset:weather": ("eta", "fare"),
    } or set(alerts(fleet)) == {"data_fault/dataset:weather", "data_fault/dataset:planes"}


def test_a_table_that_stops_explains_what_is_made_of_it_and_two_that_break_by_themselves_are_two() -> None:
    fleet = Fleet()
    names = [f"m{number}" for number in range(10)]
    serving(fleet, *names)
    dataset(fleet, "raw", *(f"dataset:part{number}" for number in range(5)))
    for number in range(5):
        dataset(fleet, f"part{number}", *(f"model:{name}" for name in names[2 * number : 2 * number + 2]))
    for name in names[:4]:
        break_data(fleet, name)
    assert {alert.cause for alert in alerts(fleet).values()} == {"dataset:part0", "dataset:part1"}
    for name in names[4:]:
        break_data(fleet, name)
    [alert] = alerts(fleet).values()
    assert (alert.key, alert.model_ids) == ("data_fault/dataset:raw", tuple(names))
    for name in names[:4]:
        look(fleet, name, stale=False)
    assert set(alerts(fleet)) == {"data_fault/dataset:raw"}


def test_an_upstream_model_whose_embeddings_moved_explains_those_downstream() -> None:
    fleet = Fleet()
    serving(fleet, "base")
    serving(fleet, "one", "two", "three", tier=1)
    moved = UpstreamCompatibility(
        model_id="base",
        trained_with=1,
        serves=2,
        compatible=False,
        knn_jaccard=0.1,
        knn_jaccard_floor=0.7,
        procrustes_cosine=0.2,
        cka=0.2,
        anchors=100,
        explanation="another space",
    )
    for name in ("one", "two"):
        look(fleet, name, upstreams=(moved,), reasons=("the embeddings of base moved",))
    look(fleet, "three", reasons=("it drifted by itself",))
    found = alerts(fleet)
    assert found["tier1_stale/model:base"].model_ids == ("one", "two")
    assert found["tier1_stale/model:three"].model_ids == ("three",)


def test_drift_of_features_of_one_dataset_is_one_cause_of_a_rule() -> None:
    fleet = Fleet()
    serving(fleet, "one", "two")
    dataset(fleet, "weather", "feature:temp")
    reads(fleet, "temp", "one", "two")
    fleet.do(SetRule(rule=Rule(name="page_us", scope="fleet", when="score > 0.5", action=RuleAction.PAGE)))
    drifted = (FeatureDrift(name="temp", psi=0.5, psi_debiased=0.5, p_value=0.0, drifted=True),)
    for name in ("one", "two"):
        look(fleet, name, top_features=drifted)
    found = alerts(fleet)
    assert set(found) == {"rule/fleet/page_us/dataset:weather"}
    assert found["rule/fleet/page_us/dataset:weather"].severity is Severity.PAGE
    for name in ("one", "two"):
        look(fleet, name, stale=False)
    assert alerts(fleet) == {}


# Rollouts


def test_a_rollback_is_told_until_the_next_promotion_or_for_a_day() -> None:
    fleet = Fleet()
    serving(fleet, "eta")
    fleet.promote(ModelId("eta"))
    fleet.do(RollBack(model_id=ModelId("eta")))
    [alert] = alerts(fleet).values()
    assert alert.kind == "rollout_rolled_back"
    assert alert.model_ids == ("eta",)
    fleet.now += timedelta(hours=23, minutes=59)
    assert set(alerts(fleet)) == {alert.key}
    fleet.now += MINUTE
    assert alerts(fleet) == {}
    fleet.promote(ModelId("eta"))
    assert alerts(fleet) == {}


def fall(fleet: Fleet, model: str, state: RolloutState, why: str = "worse") -> None:
    """A candidate of the model ends."""
    fleet.request(model)
    attempt = next(a for a in fleet.lease() if fleet.state.retrain_of_attempt(a).model_id == model)
    fleet.train(attempt)
    rollout_id = fleet.state.models[ModelId(model)].live_rollout
    assert rollout_id is not None
    rollout = fleet.state.rollouts[rollout_id]
    if state is RolloutState.REFUSED:
        fleet.validate(model, rollout.version, passed=False)
        return
    assert rollout.retrain_id is not None
    happened(
        fleet,
        RolloutEnded(
            rollout_id=rollout_id, model_id=ModelId(model), version=rollout.version, state=state, conclusion=why
        ),
    )
    happened(
        fleet,
        RetrainEnded(
            retrain_id=rollout.retrain_id, model_id=ModelId(model), state=RetrainState.REFUSED, conclusion=why
        ),
    )


def happened(fleet: Fleet, event: Event) -> None:
    """An event, whatever led to it."""
    evolve(
        fleet.state,
        Envelope(seq=fleet.state.revision + 1, epoch=1, at=fleet.now, actor="runway", reason="", event=event),
    )


def test_a_promotion_ends_what_was_told_of_a_rollback() -> None:
    fleet = Fleet()
    fleet.model("eta", tier=1, policy=BY_HAND, serving=True)
    fall(fleet, "eta", RolloutState.ROLLED_BACK, "engagement fell by 3.1 %")
    [alert] = alerts(fleet).values()
    assert alert.severity is Severity.PAGE
    assert "engagement fell by 3.1 %" in alert.summary
    fleet.promote(ModelId("eta"))
    assert alerts(fleet) == {}


def test_a_candidate_that_waits_for_approval_is_told_until_somebody_acts() -> None:
    fleet = Fleet()
    fleet.model("eta", tier=1, policy=BY_HAND, serving=True)
    fleet.request("eta")
    [attempt] = fleet.lease()
    fleet.validate("eta", fleet.train(attempt))
    [alert] = alerts(fleet).values()
    assert alert.kind == "rollout_approval"
    assert "auc 0.8 against 0.7" in alert.detail
    assert "runway rollouts approve" in alert.detail
    rollout_id = fleet.state.models[ModelId("eta")].live_rollout
    assert rollout_id is not None
    fleet.do(HoldRollout(rollout_id=rollout_id, by="ada", why="wait for monday"))
    assert {alert.kind for alert in alerts(fleet).values()} == {"rollout_approval", "rollout_held"}
    fleet.do(ReleaseRollout(rollout_id=rollout_id))
    assert {alert.kind for alert in alerts(fleet).values()} == {"rollout_approval"}


def test_three_refused_candidates_in_a_row_are_told_and_two_are_not() -> None:
    fleet = Fleet()
    serving(fleet, "eta")
    for number in range(3):
        assert alerts(fleet) == {}, number
        fall(fleet, "eta", RolloutState.REFUSED)
    assert set(alerts(fleet)) == {"candidates_refused/model:eta"}
    fleet.promote(ModelId("eta"))
    assert alerts(fleet) == {}


# Retrains, schedulers, budgets, the fleet


def fail(fleet: Fleet, model: str, failure_class: FailureClass) -> None:
    """A retrain of the model fails for good."""
    fleet.request(model)
    attempt = next(a for a in fleet.lease() if fleet.state.retrain_of_attempt(a).model_id == model)
    fleet.do(
        ReportFailure(
            attempt_id=attempt,
            lease_token=fleet.token(attempt),
            failure="it broke",
            failure_class=failure_class,
            log_url="http://logs/1",
        )
    )


def test_a_failed_retrain_is_told_until_somebody_asks_again_and_missing_data_by_its_dataset() -> None:
    fleet = Fleet()
    serving(fleet, "one", "two", "bug")
    dataset(fleet, "weather", "model:one", "model:two")
    for name in ("one", "two"):
        fail(fleet, name, FailureClass.DATA_MISSING)
    fail(fleet, "bug", FailureClass.BUG)
    found = alerts(fleet)
    assert set(found) == {"retrain_failed/data_missing/dataset:weather", "retrain_failed/model:bug"}
    assert "http://logs/1" in found["retrain_failed/model:bug"].detail
    fleet.request("bug")
    assert "retrain_failed/model:bug" not in alerts(fleet)


def breaker(fleet: Fleet, state: BreakerState) -> None:
    """Dagster's breaker changes."""
    changed = Breaker(scheduler="dagster", state=state, since=fleet.now, reason="5 timeouts")
    happened(fleet, BreakerChanged(breaker=changed))


def test_an_open_breaker_is_told_and_tier_1_that_waits_four_hours_for_it_pages_once() -> None:
    fleet = Fleet()
    serving(fleet, "one", "two", tier=1)
    breaker(fleet, BreakerState.OPEN)
    [alert] = alerts(fleet).values()
    assert (alert.key, alert.severity) == ("breaker_open/scheduler:dagster", Severity.WARNING)
    for name in ("one", "two"):
        fleet.request(name)
    assert alerts(fleet)["breaker_open/scheduler:dagster"].severity is Severity.PAGE
    fleet.now += 4 * HOUR - MINUTE
    assert set(alerts(fleet)) == {"breaker_open/scheduler:dagster"}
    fleet.now += MINUTE
    blocked = alerts(fleet)["tier1_blocked/scheduler:dagster"]
    assert blocked.severity is Severity.PAGE
    assert blocked.model_ids == ("one", "two")
    breaker(fleet, BreakerState.CLOSED)
    assert set(alerts(fleet)) == {"tier1_blocked/model:one", "tier1_blocked/model:two"}
    fleet.lease()
    assert alerts(fleet) == {}


def test_tries_of_a_scheduler_that_fail_take_no_page_back() -> None:
    """Each try leases the retrain of tier 1 and gives it back; whoever is on call hears of it once."""
    fleet = Fleet()
    fleet.model("one", tier=1, policy=RetrainingPolicy(automatic=False, attempts_max=5))
    breaker(fleet, BreakerState.OPEN)
    fleet.request("one")
    before = {"breaker_open/scheduler:dagster", "tier1_blocked/scheduler:dagster"}
    fleet.now += 4 * HOUR
    assert set(alerts(fleet)) == before
    for failure_class in (FailureClass.SCHEDULER, None, FailureClass.SCHEDULER):
        fleet.now += 2 * HOUR  # past any backoff
        breaker(fleet, BreakerState.HALF_OPEN)
        [attempt_id] = fleet.lease()
        told = alerts(fleet)
        assert set(told) == before
        assert {alert.severity for alert in told.values()} == {Severity.PAGE}
        assert (
            told["tier1_blocked/scheduler:dagster"].since
            == fleet.state.retrains[fleet.state.models[ModelId("one")].retrain_ids[-1]].requested_at + 4 * HOUR
        )
        if failure_class is None:  # nobody ever hears of it
            assert "AttemptEnded" in fleet.pass_time(timedelta(hours=2))
        else:
            token = fleet.token(attempt_id)
            fleet.do(
                ReportFailure(attempt_id=attempt_id, lease_token=token, failure="503", failure_class=failure_class)
            )
        assert set(alerts(fleet)) == before
    breaker(fleet, BreakerState.HALF_OPEN)
    [attempt_id] = fleet.lease()
    token = fleet.token(attempt_id)
    fleet.do(RenewLease(attempt_id=attempt_id, lease_token=token, run="run-1"))
    assert set(alerts(fleet)) == {"breaker_open/scheduler:dagster"}  # it trains


def test_a_planned_wait_of_tier_1_is_none_also_after_a_try_that_came_to_nothing() -> None:
    fleet = Fleet()
    serving(fleet, "one", tier=1)
    fleet.request("one")
    retrain_id = fleet.state.models[ModelId("one")].retrain_ids[-1]
    planned = fleet.now + 10 * HOUR
    retrain = fleet.state.retrains[retrain_id]
    fleet.state.retrains[retrain_id] = msgspec.structs.replace(retrain, not_before=planned, wanted_at=planned)
    fleet.now = planned
    [attempt_id] = fleet.lease()
    token = fleet.token(attempt_id)
    fleet.do(
        ReportFailure(attempt_id=attempt_id, lease_token=token, failure="503", failure_class=FailureClass.SCHEDULER)
    )
    assert alerts(fleet) == {}
    fleet.now += 4 * HOUR
    assert set(alerts(fleet)) == {"tier1_blocked/model:one"}


def test_tier_1_that_is_held_pages_too_and_other_tiers_do_not() -> None:
    fleet = Fleet()
    serving(fleet, "one", tier=1)
    serving(fleet, "two", tier=2)
    fleet.do(HoldRetraining())
    for name in ("one", "two"):
        fleet.request(name)
    fleet.now += 5 * HOUR
    assert {key: alert.model_ids for key, alert in alerts(fleet).items()} == {"tier1_blocked/fleet": ("one",)}
    fleet.now += timedelta(days=1)
    assert set(alerts(fleet)) == {"tier1_blocked/fleet", "fleet_held/fleet"}
    fleet.do(ReleaseRetraining())
    assert "fleet_held/fleet" not in alerts(fleet)


def test_a_budget_that_is_used_up_is_told() -> None:
    fleet = Fleet()
    policy = msgspec.structs.replace(BY_HAND, gpus=2.0, duration_expected=3 * HOUR)
    fleet.model("eta", policy=policy, serving=True)
    fleet.do(SetLimits(limits=RetrainingLimits(gpu_hours_per_week={"flights": 5.0})))
    before = alerts(fleet)
    fleet.request("eta")
    found = {**before, **alerts(fleet)}
    assert set(found) == {"budget_exhausted/team:flights"}
    assert found["budget_exhausted/team:flights"].teams == ("flights",)


def test_low_coverage_is_told_by_its_cause() -> None:
    fleet = Fleet()
    serving(fleet, "eta")
    fleet.do(RecordCoverage(model_id=ModelId("eta"), coverage=0.1, cause="late", explanation="outcomes are late"))
    [alert] = alerts(fleet).values()
    assert alert.key == "coverage/late/model:eta"
    assert "outcomes are late" in alert.detail
    since = alert.since
    fleet.now += HOUR
    assert next(iter(alerts(fleet).values())).since == since
    fleet.do(RecordCoverage(model_id=ModelId("eta"), coverage=1.0))
    assert alerts(fleet) == {}


def test_a_restart_changes_nothing() -> None:
    fleet = Fleet()
    serving(fleet, "eta", tier=1)
    break_data(fleet, "eta")
    fleet.do(HoldRetraining())
    fleet.now += timedelta(days=2)
    again: State = decode_snapshot(encode_snapshot(fleet.state))
    assert active_alerts(again, fleet.now) == active_alerts(fleet.state, fleet.now)


# Properties

WHATS = ("data", "stale", "hold", "release", "coverage", "well", "fail", "time")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WHATS), st.integers(0, 5)), max_size=25))
def test_no_alert_without_a_cause_and_none_lost(steps: Iterable[tuple[str, int]]) -> None:
    fleet = Fleet()
    names = [f"m{number}" for number in range(6)]
    for number, name in enumerate(names):
        fleet.model(name, tier=1 + number % 2, policy=BY_HAND, serving=True)
    dataset(fleet, "weather", *(f"model:{name}" for name in names[:4]))
    for what, number in steps:
        apply(fleet, what, names[number])
    found = active_alerts(fleet.state, fleet.now)
    assert found == active_alerts(fleet.state, fleet.now)
    assert len({alert.key for alert in found}) == len(found)
    assert all(alert.cause and alert.summary and alert.detail and alert.since <= fleet.now for alert in found)
    told = {(alert.kind, model) for alert in found for model in alert.model_ids}
    expected = set(by_hand(fleet))
    assert {pair for pair in told if pair[0] in {kind for kind, _ in CHECKED}} == expected
    loud = [alert.severity for alert in found]
    assert loud == sorted(loud, key=(Severity.PAGE, Severity.WARNING, Severity.INFO).index)
    later = active_alerts(fleet.state, fleet.now + MINUTE)
    assert {a.key for a in found if a.kind in ("data_fault", "coverage")} == {
        a.key for a in later if a.kind in ("data_fault", "coverage")
    }


def apply(fleet: Fleet, what: str, name: str) -> None:
    """One thing that may happen."""
    match what:
        case "data":
            break_data(fleet, name)
        case "stale":
            look(fleet, name)
        case "well":
            look(fleet, name, stale=False)
        case "coverage":
            fleet.do(RecordCoverage(model_id=ModelId(name), coverage=0.1, cause="late", explanation="late"))
        case "hold":
            fleet.do(HoldRetraining())
        case "release":
            fleet.do(ReleaseRetraining())
        case "fail":
            if not fleet.state.held and fleet.state.models[ModelId(name)].live_retrain is None:
                fail(fleet, name, FailureClass.BUG)
        case _:
            fleet.now += 3 * HOUR


CHECKED = (("data_fault", ""), ("coverage", ""), ("tier1_stale", ""))


def by_hand(fleet: Fleet) -> list[tuple[str, str]]:
    """The same for some kinds, from the records alone."""
    found = []
    for name, record in fleet.state.models.items():
        evaluation = record.standing.evaluation
        action = evaluation.recommended_action if evaluation is not None else Action.NONE
        if action is Action.ALERT_DATA_OWNER:
            found.append(("data_fault", str(name)))
        elif record.standing.level.value == "STALE" and record.facts.tier == 1:
            found.append(("tier1_stale", str(name)))
        if record.coverage_alert:
            found.append(("coverage", str(name)))
    return found
