"""Policies, fusion and hysteresis."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.errors import Invalid, Reason
from control_plane.core.staleness.evaluation import evaluate
from control_plane.core.staleness.evidence import Evidence
from control_plane.core.staleness.fusion import fuse
from control_plane.core.staleness.policy import (
    Fusion,
    StalenessPolicy,
    Weights,
    check_policy,
    default_policy,
    policy_violations,
)
from control_plane.core.staleness.verdict import Evaluation, Level, Streak, settle
from tests.core.staleness_evidence import NOW
from tests.reference import staleness_twin as twin

BLANK = evaluate(StalenessPolicy(), Evidence(model_version=1), NOW)
levels = st.lists(st.sampled_from(list(Level)), max_size=40)


def saying(level: Level, *, hard: bool = False, at: datetime = NOW) -> Evaluation:
    """An evaluation of this level."""
    triggers = ("it is 31.0 days old, its backstop is 30 days",) if hard else ()
    return msgspec.structs.replace(BLANK, level=Level.STALE if hard else level, hard_triggers=triggers, at=at)


def settled(looks: Sequence[Level], policy: StalenessPolicy) -> list[Level]:
    """The verdict after each look, from UNKNOWN."""
    current, streak, found = Level.UNKNOWN, Streak(), []
    for level in looks:
        current, streak = settle(current, streak, saying(level), policy)
        assert len(streak.recent) <= policy.hysteresis_n - 1
        assert not streak.recent or streak.recent[0] is not current
        streak = msgspec.json.decode(msgspec.json.encode(streak), type=Streak)
        found.append(current)
    return found


@given(levels, st.integers(1, 4), st.integers(0, 3))
def test_a_streak_remembers_all_that_matters(looks: list[Level], k: int, more: int) -> None:
    policy = StalenessPolicy(hysteresis_k=k, hysteresis_n=k + more)
    assert settled(looks, policy) == twin.verdicts(looks, k, k + more)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(list(Level)), st.integers(0, 9)), max_size=40), st.integers(0, 6))
def test_a_cooldown_holds_all_but_hard_triggers(looks: list[tuple[Level, int]], cooldown: int) -> None:
    policy = StalenessPolicy(verdict_cooldown=timedelta(hours=cooldown))
    current, streak, since, found = Level.UNKNOWN, Streak(), NOW, []
    for hour, (level, dice) in enumerate(looks, start=1):
        at = NOW + timedelta(hours=hour)
        before = current
        look = saying(level, hard=dice == 0, at=at)
        current, streak = settle(current, streak, look, policy, since=since)
        since = since if current is before else at
        found.append(current)
    assert found == twin.verdicts(
        [Level.STALE if dice == 0 else level for level, dice in looks],
        policy.hysteresis_k,
        policy.hysteresis_n,
        hard=[dice == 0 for _, dice in looks],
        cooldown=cooldown,
    )


def test_a_hard_trigger_needs_no_second_look_and_no_cooldown() -> None:
    policy = StalenessPolicy(verdict_cooldown=timedelta(days=7))
    assert settle(Level.FRESH, Streak(), saying(Level.STALE, hard=True), policy, since=NOW) == (Level.STALE, Streak())
    level, streak = Level.FRESH, Streak()
    for _ in range(5):
        level, streak = settle(level, streak, saying(Level.STALE), policy, since=NOW)
    assert level is Level.FRESH
    late = saying(Level.STALE, at=NOW + timedelta(days=7))
    assert settle(level, streak, late, policy, since=NOW) == (Level.STALE, Streak())


def test_one_odd_look_changes_nothing_and_two_of_three_do() -> None:
    fresh, stale = Level.FRESH, Level.STALE
    looks = [fresh, fresh, stale, fresh, fresh, stale, fresh, stale, stale]
    assert settled(looks, StalenessPolicy()) == [
        Level.UNKNOWN, fresh, fresh, fresh, fresh, fresh, fresh, stale, stale
    ]  # fmt: skip


def test_a_look_that_is_worse_still_counts_for_the_lesser_level() -> None:
    looks = [Level.FRESH, Level.FRESH, Level.STALE, Level.AT_RISK, Level.STALE, Level.STALE]
    assert settled(looks, StalenessPolicy())[2:] == [Level.FRESH, Level.AT_RISK, Level.AT_RISK, Level.STALE]


def test_recovery_takes_two_looks_too() -> None:
    looks = [Level.STALE, Level.STALE, Level.FRESH, Level.AT_RISK, Level.FRESH, Level.FRESH]
    assert settled(looks, StalenessPolicy())[1:] == [
        Level.STALE, Level.STALE, Level.AT_RISK, Level.AT_RISK, Level.FRESH
    ]  # fmt: skip


def test_silence_ends_in_unknown() -> None:
    looks = [Level.FRESH, Level.FRESH, Level.UNKNOWN, Level.UNKNOWN]
    assert settled(looks, StalenessPolicy())[-2:] == [Level.FRESH, Level.UNKNOWN]


def test_a_fleet_at_rest_writes_nothing() -> None:
    streak = Streak()
    for _ in range(5):
        level, after = settle(Level.FRESH, streak, saying(Level.FRESH), StalenessPolicy())
        assert (level, after) == (Level.FRESH, Streak())


values = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=4, max_size=4)
weights = st.lists(st.floats(0.01, 1), min_size=4, max_size=4)


@given(values, weights, st.sampled_from(list(Fusion)))
def test_fusion_agrees_with_its_twin_and_its_bounds_hold(
    found: list[float | None], heft: list[float], fusion: Fusion
) -> None:
    score = fuse(found, heft, fusion)
    noisy = fusion is Fusion.NOISY_OR
    assert score.low == pytest.approx(twin.score(found, heft, 0.0, noisy), abs=1e-9)
    assert score.high == pytest.approx(twin.score(found, heft, 1.0, noisy), abs=1e-9)
    assert 0 <= score.low <= score.score <= score.high <= 1
    if None not in found:
        assert score.low == score.score == score.high


@given(values, weights, st.sampled_from(list(Fusion)), st.integers(0, 3), st.floats(0, 1))
def test_a_worse_signal_never_lowers_the_score(
    found: list[float | None], heft: list[float], fusion: Fusion, at: int, more: float
) -> None:
    own = found[at]
    if own is None:
        return
    worse = [*found[:at], own + (1 - own) * more, *found[at + 1 :]]
    before, after = fuse(found, heft, fusion), fuse(worse, heft, fusion)
    assert before.score <= after.score
    assert before.low <= after.low
    assert before.high <= after.high


def test_with_nothing_known_it_could_be_anything() -> None:
    score = fuse([None] * 4, [0.25] * 4, Fusion.WEIGHTED_AVERAGE)
    assert (score.score, score.low, score.high) == (0, 0, 1)


def test_signals_of_six_tenths_reach_six_tenths() -> None:
    assert fuse([0.6] * 4, [0.2, 0.25, 0.2, 0.35], Fusion.WEIGHTED_AVERAGE).score == 0.6


@pytest.mark.parametrize("tier", [1, 2, 3, 4])
def test_defaults_are_valid_and_pace_follows_the_tier(tier: int) -> None:
    policy = default_policy(tier)
    check_policy(policy)
    hours = {1: 0.25, 2: 1, 3: 6, 4: 24}
    assert policy.cadence == timedelta(hours=hours[tier])
    assert msgspec.json.decode(msgspec.json.encode(policy), type=StalenessPolicy) == policy


def test_all_violations_are_told_at_once() -> None:
    policy = StalenessPolicy(
        weights=Weights(age=-1, input_drift=math.nan),
        stale_threshold=0,
        age_backstop_days=math.inf,
        psi_moderate=0.5,
        performance_floor=math.nan,
        coverage_min=1.1,
        hysteresis_k=4,
        predictions_min=-1,
        cadence=timedelta(0),
    )
    with pytest.raises(Invalid) as caught:
        check_policy(policy)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert [violation.field.removeprefix("staleness.") for violation in caught.value.violations] == [
        "stale_threshold",
        "coverage_min",
        "age_backstop_days",
        "predictions_min",
        "performance_floor",
        "at_risk_threshold",
        "psi_moderate",
        "hysteresis_k",
        "cadence",
        "weights.age",
        "weights.input_drift",
        "weights",
    ]


def test_weights_sum_to_one_in_an_average_only() -> None:
    heavy = Weights(age=0.2, input_drift=0.5, prediction_drift=0.5, performance=0.9)
    assert [v.field for v in policy_violations(StalenessPolicy(weights=heavy))] == ["staleness.weights"]
    assert policy_violations(StalenessPolicy(weights=heavy, fusion=Fusion.NOISY_OR)) == []
    none = Weights(age=0, input_drift=0, prediction_drift=0, performance=0)
    assert policy_violations(StalenessPolicy(weights=none, fusion=Fusion.NOISY_OR))
