"""Plan and apply: what is forecast is what then happens, and the worst case is never exceeded."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.commands import (
    ApplyRetrainPlan,
    HoldRetrain,
    HoldRetraining,
    OpenBreaker,
    SetLimits,
    SetPolicies,
)
from control_plane.core.decide.cascade_plan import RetrainPlan, plan_retrains
from control_plane.core.errors import Invalid, Reason
from control_plane.core.ids import ModelId
from control_plane.core.retraining.types import RetrainingLimits, RetrainingPolicy
from tests.core.fleets import HOUR, MINUTE, Fleet, reason_of

HALF = timedelta(minutes=30)
POLICY = RetrainingPolicy(gpus=2.0, cooldown=timedelta(0), cascade_cooldown=4 * HOUR)


def diamond() -> Fleet:
    """a -> b, a -> c, both -> d; all in production."""
    fleet = Fleet()
    for name in "abcd":
        fleet.model(name, policy=POLICY, serving=True)
    for upstream, downstream in ("ab", "ac", "bd", "cd"):
        fleet.edge(upstream, downstream)
    fleet.now += timedelta(days=2)
    return fleet


def planned(fleet: Fleet, *names: str, ignore_cooldown: bool = False, off_peak: bool = False) -> RetrainPlan:
    """What retraining these would come to."""
    ids = [ModelId(name) for name in names]
    return plan_retrains(fleet.state, fleet.now, ids, ignore_cooldown=ignore_cooldown, off_peak=off_peak)


def test_a_diamond_is_planned_in_waves_and_its_sink_once() -> None:
    fleet = diamond()
    plan = planned(fleet, "a")
    assert [(one.record.model_id, one.expected.wave) for one in plan.retrains] == [
        ("a", 1),
        ("b", 2),
        ("c", 2),
        ("d", 3),
    ]
    first, second, third, sink = (one.expected for one in plan.retrains)
    assert first.starts_at == fleet.now
    assert first.ends_at is not None
    assert second.ends_at is not None
    assert second.starts_at == third.starts_at == first.ends_at + 4 * HOUR
    assert sink.starts_at == second.ends_at + 4 * HOUR
    assert (plan.waves, plan.retrains_max, plan.running_max) == (3, 4, 4)
    assert plan.gpu_hours_max == 4.0
    assert [one.requested for one in plan.retrains] == [True, False, False, False]
    assert 1.0 < plan.gpu_hours_expected < 4.0


def test_limits_make_it_longer_and_budgets_put_it_off_to_monday() -> None:
    fleet = Fleet()
    for name in "abcd":
        fleet.model(name, policy=POLICY)
    fleet.do(SetLimits(limits=RetrainingLimits(running_max=2)))
    plan = planned(fleet, *"abcd")
    assert [one.expected.starts_at for one in plan.retrains] == [fleet.now] * 2 + [fleet.now + HALF] * 2
    assert {one.expected.slot for one in plan.retrains} == {1, 2}
    fleet.do(SetLimits(limits=RetrainingLimits(gpu_hours_per_week={"flights": 3.0})))
    starts = [one.expected.starts_at for one in planned(fleet, *"abcd").retrains]
    assert starts[:3] == [fleet.now] * 3
    assert starts[3] is not None
    assert (starts[3].weekday(), starts[3].hour) == (0, 0)


def test_what_stands_in_the_way_is_told() -> None:
    fleet = diamond()
    fleet.do(HoldRetraining())
    fleet.do(OpenBreaker(scheduler="dagster", reason="503", jitter=0.5))
    told = " ".join(planned(fleet, "a").warnings)
    assert "held for the whole fleet" in told
    assert "dagster" in told
    fleet.do(SetLimits(limits=RetrainingLimits(by_team={"flights": 0})))
    assert "no time was found for a: it waits for a free slot of its team" in planned(fleet, "a").warnings


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match="nope is no model"):
        planned(diamond(), "a", "nope")


def test_apply_asks_for_what_was_planned_as_one_group_and_refuses_another_plan() -> None:
    fleet = diamond()
    etag = planned(fleet, "a", "b").etag
    assert planned(fleet, "b", "a").etag == etag
    fleet.now += MINUTE
    assert planned(fleet, "a", "b").etag == etag
    applied = fleet.do(ApplyRetrainPlan(model_ids=(ModelId("a"), ModelId("b")), etag=etag))
    retrains = [fleet.state.retrains[one] for one in applied.retrain_ids]
    assert [one.model_id for one in retrains] == ["a", "b"]
    assert {one.group for one in retrains} == {applied.group}
    again = ApplyRetrainPlan(model_ids=(ModelId("a"), ModelId("b")), etag=etag)
    assert reason_of(lambda: fleet.do(again)) is Reason.PLAN_CHANGED
    assert fleet.leased_models(fleet.lease()) == ["a"]


def test_what_touches_many_goes_off_peak_unless_an_operator_says_now() -> None:
    fleet = Fleet()
    fleet.model("hub", policy=RetrainingPolicy(impact_max=2))
    for name in "abc":
        fleet.model(name)
        fleet.edge("hub", name)
    fleet.now = fleet.now.replace(hour=12)
    fleet.request("hub", ignore_cooldown=False)
    [waiting] = fleet.state.living()
    assert (waiting.not_before.hour, waiting.not_before > fleet.now) == (
        22,
        fleet.now.hour not in (22, 23, 0, 1, 2, 3, 4, 5),
    )
    fleet.request("hub", ignore_cooldown=True)
    assert fleet.leased_models(fleet.lease()) == ["hub"]


def test_a_lowered_limit_leaves_what_runs_running_and_the_worst_case_says_so() -> None:
    fleet = Fleet()
    for name in "abcdef":
        fleet.model(name, policy=POLICY)
        if name < "e":
            fleet.request(name)
    assert len(fleet.lease()) == 4
    fleet.do(SetLimits(limits=RetrainingLimits(running_max=2)))
    assert planned(fleet, "e", "f").running_max == 4
    starts = [one.expected.starts_at for one in planned(fleet, "e", "f").retrains]
    assert starts == [fleet.now] * 4 + [fleet.now + HALF] * 2


def test_an_empty_plan_is_not_applied() -> None:
    with pytest.raises(Invalid, match="name at least one model"):
        diamond().do(ApplyRetrainPlan(model_ids=()))


@settings(max_examples=40, deadline=None)
@given(
    edges=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20),
    roots=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    running_max=st.integers(1, 4),
)
def test_plans_keep_order_limits_and_cooldowns(
    edges: list[tuple[int, int]], roots: list[int], running_max: int
) -> None:
    fleet = Fleet()
    for number in range(10):
        fleet.model(f"m{number}", policy=POLICY)
    above: dict[str, set[str]] = {f"m{number}": set() for number in range(10)}
    for first, second in edges:
        if first < second:
            fleet.edge(f"m{first}", f"m{second}")
    for first, second in sorted({(a, b) for a, b in edges if a < b}, key=lambda edge: edge[1]):
        above[f"m{second}"] |= {f"m{first}"}
    for number in range(10):
        for other in list(above[f"m{number}"]):
            above[f"m{number}"] |= above[other]
    fleet.do(SetLimits(limits=RetrainingLimits(running_max=running_max)))
    plan = planned(fleet, *(f"m{root}" for root in roots))
    times = {one.record.model_id: (one.expected.starts_at, one.expected.ends_at) for one in plan.retrains}
    for model_id, (starts_at, ends_at) in times.items():
        assert starts_at is not None
        assert ends_at is not None
        for other in above[model_id] & times.keys():
            other_ends = times[ModelId(other)][1]
            assert other_ends is not None
            assert starts_at >= other_ends + 4 * HOUR
        together = sum(
            one[0] is not None and one[1] is not None and one[0] <= starts_at < one[1] for one in times.values()
        )
        assert together <= running_max


def test_the_plan_of_what_touches_many_starts_when_the_applied_one_does() -> None:
    fleet = Fleet()
    fleet.model("root", policy=POLICY, serving=True)
    fleet.model("hub", policy=RetrainingPolicy(impact_max=2, cooldown=timedelta(0)), serving=True)
    fleet.edge("root", "hub")
    for name in "abc":
        fleet.model(name, policy=POLICY, serving=True)
        fleet.edge("hub", name)
    fleet.now = fleet.now.replace(hour=12) + timedelta(days=2)
    night = fleet.now.replace(hour=22)
    (hub, *_) = planned(fleet, "hub").retrains
    assert hub.expected.starts_at == night
    assert planned(fleet, "hub", ignore_cooldown=True).retrains[0].expected.starts_at == fleet.now
    root, follower, *_ = planned(fleet, "root").retrains
    assert (root.expected.starts_at, follower.expected.starts_at) == (fleet.now, night)
    applied = fleet.do(ApplyRetrainPlan(model_ids=(ModelId("hub"),)))
    assert [fleet.state.retrains[one].not_before for one in applied.retrain_ids] == [night]


def test_an_etag_is_of_one_plan_with_its_options_and_policies() -> None:
    fleet = diamond()
    etag = planned(fleet, "a").etag
    assert len({etag, planned(fleet, "a", off_peak=True).etag, planned(fleet, "a", ignore_cooldown=True).etag}) == 3
    mixed_up = ApplyRetrainPlan(model_ids=(ModelId("a"),), off_peak=True, etag=etag)
    assert reason_of(lambda: fleet.do(mixed_up)) is Reason.PLAN_CHANGED
    fleet.model("z")
    etag = planned(fleet, "z").etag
    fleet.do(SetPolicies(scope="fleet", overrides={"retraining.resource_class": "gpu_large"}))
    assert planned(fleet, "z").etag != etag


def test_retrains_that_have_nothing_to_do_with_a_plan_do_not_change_its_etag() -> None:
    fleet = diamond()
    for name in ("x", "y"):
        fleet.model(name, policy=POLICY, serving=True)
    fleet.edge("x", "y")
    etag = planned(fleet, "b").etag
    fleet.request("x")
    assert planned(fleet, "b").etag == etag
    fleet.lease()
    assert planned(fleet, "b").etag == etag
    fleet.request("a")
    assert planned(fleet, "b").etag != etag  # it has to wait for that one


def test_budgets_that_put_retrains_off_are_told_although_a_time_was_found() -> None:
    fleet = Fleet()
    for name in "abcd":
        fleet.model(name, policy=POLICY)
    assert planned(fleet, *"abcd").warnings == ()
    fleet.do(SetLimits(limits=RetrainingLimits(gpu_hours_per_week={"flights": 2.0})))
    (told,) = planned(fleet, *"abcd").warnings
    assert told == (
        "team flights has too few GPU hours this week: 2 retrains wait for its budget of a later one, the last until "
        "2013-03-04 00:00"
    )


def test_what_is_held_is_told_with_when_it_is_given_up_or_that_somebody_holds_it() -> None:
    fleet = Fleet()
    for name in "ab":
        fleet.model(name, policy=POLICY)
        fleet.request(name)
    held, other = fleet.state.living()
    fleet.do(HoldRetrain(retrain_id=held.retrain_id))
    assert planned(fleet).warnings == ("no time was found for a: it waits for tester, who holds it",)
    fleet.do(SetLimits(limits=RetrainingLimits(by_team={"flights": 0})))
    expires = f"{other.expires_at:%Y-%m-%d %H:%M}"
    assert f"rt_000002 of b is given up at {expires} if nothing changes" in planned(fleet).warnings
