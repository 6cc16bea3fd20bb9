"""What would change a look: doing what it says gives the level that it promises, and a little less does not."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from control_plane.core.staleness.evaluation import evaluate
from control_plane.core.staleness.evidence import Evidence, PerformanceEvidence, feature_table
from control_plane.core.staleness.explain import explain
from control_plane.core.staleness.fusion import all_needed, both, fuse, needed
from control_plane.core.staleness.policy import Fusion, StalenessPolicy, Weights
from control_plane.core.staleness.verdict import Evaluation, Level, WouldChange
from tests.core.staleness_evidence import NOW, SAME, SHIFTED, auc, features, healthy, numeric, predictions
from tests.reference import staleness_twin as twin

POLICY = StalenessPolicy()
SMALL = 1e-6


def change(found: Evaluation, signal: str, to: Level | None = None, words: str = "") -> WouldChange | None:
    """The first change of this signal, if one is told."""
    fitting = (
        one for one in found.would_change if one.signal == signal and to in (None, one.to) and words in one.sentence
    )
    return next(fitting, None)


def shifted(by: float) -> list[int]:
    """A histogram moved by a share."""
    return [round(2_000 * (1 - by) + by * (200 + 400 * at)) for at in range(10)]


def drawn(age: float, drifted: int, by: float, drop: float, error: float) -> Evidence:
    """A model with this much of everything."""
    table = feature_table(
        [numeric(f"f{at}", [*shifted(by), 0] if at < drifted else SAME) for at in range(5)],
    )
    return healthy(
        age_days=age, table=table, prediction=predictions(shifted(by)), performance=auc(0.8 - drop, error=error)
    )


models = st.builds(
    drawn,
    age=st.floats(0, 29),
    drifted=st.integers(0, 5),
    by=st.floats(0, 1),
    drop=st.floats(-0.02, 0.12),
    error=st.floats(0.001, 0.05),
)
unsure = st.builds(
    drawn,
    age=st.floats(0, 20),
    drifted=st.integers(0, 1),
    by=st.floats(0, 1),
    drop=st.floats(0.04, 0.12),
    error=st.floats(0.02, 0.06),
)
policies = st.builds(
    StalenessPolicy,
    fusion=st.sampled_from(list(Fusion)),
    weights=st.sampled_from([Weights(), Weights(age=0.4, input_drift=0.3, prediction_drift=0.1, performance=0.2)]),
    stale_threshold=st.sampled_from([0.4, 0.6, 0.9]),
    at_risk_threshold=st.sampled_from([0.2, 0.4]),
)


@settings(max_examples=200, deadline=None)
@example(drawn(0.0, 2, 1.0, 0.03125, 0.03125), StalenessPolicy(fusion=Fusion.NOISY_OR))
@given(models, policies)
def test_changes_are_few_finite_and_of_another_level(evidence: Evidence, policy: StalenessPolicy) -> None:
    found = evaluate(policy, evidence, NOW)
    assert len(found.would_change) <= 5
    for one in found.would_change:
        assert one.to is not found.level
        assert math.isfinite(one.now)
        assert math.isfinite(one.needed)
        assert one.sentence.endswith(f"would make it {one.to.value.replace('_', ' ')}")


@settings(max_examples=200, deadline=None)
@given(models, policies)
def test_so_much_age_gives_the_level_and_a_little_less_does_not(evidence: Evidence, policy: StalenessPolicy) -> None:
    found = evaluate(policy, evidence, NOW)
    told = change(found, "age")
    assume(told is not None)
    assert told is not None
    for days, level in ((told.needed + SMALL, told.to), (told.needed - SMALL, found.level)):
        aged = replace(evidence, trained_until=NOW - timedelta(days=days))
        if level is told.to or change(found, "age", Level.AT_RISK) in (None, told):
            assert evaluate(policy, aged, NOW).level is level


@settings(max_examples=200, deadline=None)
@given(models, policies)
def test_such_a_metric_gives_the_level_and_a_little_less_does_not(evidence: Evidence, policy: StalenessPolicy) -> None:
    found = evaluate(policy, evidence, NOW)
    told = next((one for one in found.would_change if one.signal == "performance" and "auc" in one.sentence), None)
    assume(told is not None)
    assert told is not None
    worse = told.needed < told.now
    assert ("below" in told.sentence) is worse
    sign = -1 if worse else 1
    for metric, level in ((told.needed + sign * SMALL, told.to), (told.needed - sign * SMALL, None)):
        assert evidence.performance is not None
        tried = evaluate(policy, replace(evidence, performance=replace(evidence.performance, current=metric)), NOW)
        assert (tried.level is told.to) if level else (tried.level is not told.to)


@settings(max_examples=200, deadline=None)
@given(unsure, policies)
def test_so_many_labels_give_the_level_and_one_less_does_not(evidence: Evidence, policy: StalenessPolicy) -> None:
    found = evaluate(policy, evidence, NOW)
    told = change(found, "performance", words="labels")
    assume(told is not None)
    assert told is not None

    def with_labels(count: float) -> Level:
        own = evidence.performance
        assert own is not None
        grown = replace(
            own, sample_size=int(count), current_error=own.current_error * math.sqrt(own.sample_size / count)
        )
        return evaluate(policy, replace(evidence, performance=grown), NOW).level

    assert with_labels(told.needed) is told.to
    assert with_labels(told.needed - 2) is not told.to
    assert f"{int(told.needed - told.now):,} more labels" in told.sentence


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=4, max_size=4),
    st.lists(st.floats(0.05, 1), min_size=4, max_size=4),
    st.sampled_from(list(Fusion)),
    st.integers(0, 3),
    st.floats(0.05, 0.95),
    st.booleans(),
)
def test_the_value_that_a_score_needs_is_the_edge(
    values: list[float | None], weights: list[float], fusion: Fusion, at: int, target: float, low: bool
) -> None:
    edge = needed(values, weights, fusion, at=at, target=target, low=low)
    assert edge is not None
    assert all_needed(values, weights, fusion, target=target, low=low)[at] == pytest.approx(edge, abs=1e-9)
    assert both(values, weights) == tuple(fuse(values, weights, one) for one in Fusion)
    noisy = fusion is Fusion.NOISY_OR

    def scored(value: float) -> float:
        tried: list[float | None] = [*values[:at], value, *values[at + 1 :]]
        if low:
            return twin.score(tried, weights, 0.0, noisy)
        return fuse(tried, weights, fusion).score

    if SMALL < edge < 1 - SMALL:
        assert scored(edge + SMALL) >= target
        assert scored(edge - SMALL) < target
    elif edge >= 1 + SMALL:
        assert scored(1.0) < target
    elif edge <= -SMALL:
        assert scored(0.0) >= target


def drifting(by: float, *, usual: float = 0.0, age: float = 24.0) -> Evidence:
    """A model of one feature, whose drift alone decides."""
    table = feature_table([numeric("temp", [*shifted(by), 0], reference=[10_000] * 10 + [0], usual=usual)])
    return replace(healthy(age_days=age, table=table), prediction=None)


ONE = StalenessPolicy(weights=Weights(age=0.3, input_drift=0.5, prediction_drift=0, performance=0.2))


@pytest.mark.parametrize("usual", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("fusion", list(Fusion))
def test_such_a_psi_gives_the_level_and_a_little_less_does_not(usual: float, share: float, fusion: Fusion) -> None:
    policy = StalenessPolicy(weights=ONE.weights, fusion=fusion, drifted_share_full=share)
    looks = [evaluate(policy, drifting(step / 200, usual=usual), NOW) for step in range(201)]
    psi = [one.top_features[0].psi for one in looks]
    told = 0
    for one in looks:
        for promised in one.would_change:
            if "PSI of temp" not in promised.sentence:
                continue
            told += 1
            up = promised.needed > promised.now
            assert ("above" in promised.sentence) is up
            beyond = [
                other
                for other, value in zip(looks, psi, strict=True)
                if (value > promised.needed + 1e-3 if up else value < promised.needed - 1e-3)
                and other.top_features[0].p_value < 1e-4
            ]
            nearest = min(beyond, key=lambda other: abs(other.top_features[0].psi - promised.needed), default=None)
            if nearest is not None and abs(nearest.top_features[0].psi - promised.needed) < 0.02:
                assert nearest.level is promised.to, promised
    assert told > 20


def test_sentences_an_owner_reads() -> None:
    def sentences(evidence: Evidence, policy: StalenessPolicy = POLICY) -> list[str]:
        return [one.sentence for one in evaluate(policy, evidence, NOW).would_change]

    near = healthy(age_days=28 + 21 / 24)
    assert "27 more hours of age would make it STALE" in sentences(near)
    assert "20 more days of age would make it STALE" in sentences(healthy(age_days=10))
    unsure = replace(healthy(performance=auc(0.73, sample_size=300, error=0.03)), labels_per_day=500.0)
    assert any("more labels with the same drop (about 4 days) would make it AT RISK" in s for s in sentences(unsure))
    floor = StalenessPolicy(performance_floor=0.79)
    assert "auc below 0.790 would make it STALE" in sentences(healthy(), floor)


def test_few_labels_are_told_with_what_they_would_say() -> None:
    blind = Evidence(model_version=1, trained_until=NOW - timedelta(days=3))
    none = change(evaluate(POLICY, blind, NOW), "performance")
    assert none is not None
    assert (none.to, none.sentence) == (
        Level.FRESH,
        "200 more labels as good as its baseline would make it FRESH",
    )
    some = change(
        evaluate(POLICY, replace(blind, performance=auc(0.6, sample_size=80, error=0.03)), NOW), "performance"
    )
    assert some is not None
    assert (some.to, some.now, some.needed) == (Level.STALE, 80, 200)
    assert "120 more labels like those there are" in some.sentence


def test_few_predictions_are_told_too() -> None:
    scarce = replace(healthy(table=feature_table([numeric("x", [40] * 10 + [0])])), prediction=None)
    told = change(evaluate(POLICY, scarce, NOW), "input_drift")
    assert told is not None
    assert (told.to, told.sentence) == (Level.FRESH, "100 more predictions without drift would make it FRESH")


def hard(evidence: Evidence) -> Evidence:
    """The same at the backstop."""
    return replace(evidence, trained_until=NOW - timedelta(days=31))


@pytest.mark.parametrize("worsen", [hard])
def test_a_hard_trigger_is_changed_by_nothing(worsen: Callable[[Evidence], Evidence]) -> None:
    assert evaluate(POLICY, worsen(healthy()), NOW).would_change == ()


def test_a_veto_is_not_lifted_by_other_signals() -> None:
    dropped: PerformanceEvidence = auc(0.70)
    found = evaluate(POLICY, healthy(performance=dropped, table=features(drifted=1)), NOW)
    assert found.level is Level.AT_RISK
    fresh = [one for one in found.would_change if one.to is Level.FRESH]
    assert {one.signal for one in fresh} <= {"performance"}


@pytest.mark.parametrize(
    "evidence",
    [
        healthy(),
        healthy(age_days=31),
        healthy(age_days=18, table=features(drifted=6), performance=auc(0.70)),
        Evidence(model_version=1),
        drifting(0.4, usual=1.0),
        replace(healthy(age_days=12), performance=None),
        replace(drawn(18, 5, 1.0, 0.1, 0.005), trained_until=None),
    ],
)
def test_an_owner_reads_about_ten_lines_why_how_sure_and_what_to_do(evidence: Evidence) -> None:
    found = evaluate(POLICY, evidence, NOW)
    lines = explain(found)
    assert 5 <= len(lines) <= 11
    assert lines[0].startswith(f"Version {found.version}, looked at on 2013-06-01 00:00, is ")
    assert lines[-1].startswith("What to do: ")
    assert lines[-2].startswith(f"How sure: {found.confidence.value}, ")
    assert all(line.endswith(".") and "nan" not in line.split() for line in lines)
    if found.would_change:
        assert any(found.would_change[0].sentence in line for line in lines)


def test_the_season_is_shown() -> None:
    inside = evaluate(POLICY, drifting(0.8, usual=1.0), NOW)
    assert inside.season is not None
    assert (inside.season.expected, inside.season.features_expected, inside.season.features_drifted) == (True, 1, 1)
    assert inside.top_features[0].seasonally_expected
    assert any("seasonally expected" in reason for reason in inside.reasons)
    beyond = evaluate(POLICY, drifting(1.0, usual=0.11), NOW)
    assert beyond.season is not None
    assert (beyond.season.expected, beyond.season.features_expected) == (False, 0)
    assert evaluate(POLICY, drifting(1.0), NOW).season is None
    assert evaluate(POLICY, drifting(0.0, usual=1.0), NOW).season is None
    mixed = feature_table(
        [numeric("a", SHIFTED, usual=5.0), numeric("b", SHIFTED), *(numeric(f"f{i}") for i in range(8))]
    )
    both = evaluate(POLICY, healthy(table=mixed), NOW).season
    assert both is not None
    assert (both.expected, both.features_expected, both.features_drifted) == (False, 1, 2)
