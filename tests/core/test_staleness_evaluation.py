"""One look at a model: each signal, what is missing, what fires by itself, and what it says in words."""

import math
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.staleness.evaluation import evaluate, evaluate_fleet
from control_plane.core.staleness.evidence import Evidence, FeatureTable, PredictionCounts, feature_table
from control_plane.core.staleness.explain import explain
from control_plane.core.staleness.policy import Fusion, StalenessPolicy, Weights
from control_plane.core.staleness.verdict import SEVERITY, Action, Confidence, Evaluation, Level, Signal
from control_plane.core.statistics.sample import InvalidSample
from tests.core.staleness_evidence import (
    NOW,
    SAME,
    SHIFTED,
    auc,
    categorical,
    features,
    healthy,
    numeric,
    predictions,
)

POLICY = StalenessPolicy()
NOTHING = Evidence(model_version=1)


def look(evidence: Evidence, policy: StalenessPolicy = POLICY) -> Evaluation:
    """One evaluation, which must also survive JSON."""
    found = evaluate(policy, evidence, NOW)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Evaluation) == found
    assert found.reasons
    assert 5 <= len(explain(found)) <= 14
    assert found.score_low <= found.score <= found.score_high
    return found


def signal(found: Evaluation, name: str) -> Signal:
    """A signal by name."""
    return next(one for one in found.signals if one.name == name)


def test_a_healthy_model_is_fresh_and_surely_so() -> None:
    found = look(healthy())
    assert (found.level, found.confidence, found.recommended_action) == (Level.FRESH, Confidence.HIGH, Action.NONE)
    assert found.score == pytest.approx(0.2 * 2 / 30)
    assert found.reasons == ("healthy",)
    assert found.version == 3
    assert [one.name for one in found.signals] == ["age", "input_drift", "prediction_drift", "performance"]


def test_everything_wrong_is_stale_and_the_contributions_add_up() -> None:
    evidence = healthy(
        age_days=18, table=features(drifted=6), prediction=predictions(SHIFTED[:-1]), performance=auc(0.70)
    )
    found = look(evidence)
    assert (found.level, found.confidence, found.recommended_action) == (
        Level.STALE,
        Confidence.HIGH,
        Action.RETRAIN,
    )
    assert found.score == pytest.approx(0.2 * 0.6 + 0.25 + 0.2 + 0.35)
    assert sum(one.contribution for one in found.signals) == pytest.approx(found.score)
    assert found.reasons[0].startswith("auc went from 0.8 to 0.7")
    assert found.weighted_average == found.score
    assert 0 < found.noisy_or < found.score


def test_four_signals_at_the_threshold_are_stale() -> None:
    policy = StalenessPolicy(performance_tolerance=0.1, stale_threshold=0.6)
    evidence = healthy(performance=auc(0.7, error=0.0), table=features(drifted=10))
    found = look(replace(evidence, prediction=None, trained_until=None), policy)
    assert found.score == 1.0
    assert found.level is Level.STALE


def test_age_alone_fires_at_the_backstop_only() -> None:
    assert look(healthy(age_days=29.9)).level is Level.FRESH
    found = look(healthy(age_days=30))
    assert (found.level, found.recommended_action) == (Level.STALE, Action.RETRAIN)
    assert found.reasons[0] == "it is 30.0 days old, its backstop is 30 days"
    assert found.hard_triggers == (found.reasons[0],)


def test_a_clock_that_jumped_back_makes_no_model_old() -> None:
    found = look(healthy(age_days=-3))
    assert found.level is Level.FRESH
    assert "future" in signal(found, "age").explanation


def test_a_metric_below_its_floor_is_stale_whatever_the_score() -> None:
    found = look(healthy(performance=auc(0.78)), StalenessPolicy(performance_floor=0.79))
    assert found.level is Level.STALE
    assert "floor" in found.reasons[0]
    few = look(healthy(performance=auc(0.78, sample_size=10)), StalenessPolicy(performance_floor=0.79))
    assert few.level is Level.FRESH


def test_a_floor_of_an_error_is_a_ceiling() -> None:
    rmse = replace(auc(), metric="rmse", higher_is_better=False, baseline=10.0, current=13.0)
    policy = StalenessPolicy(performance_floor=12.0, performance_tolerance=5.0)
    assert look(healthy(performance=rmse), policy).level is Level.STALE
    assert look(healthy(performance=replace(rmse, current=11.0)), policy).level is Level.FRESH


def test_an_average_cannot_hide_a_sure_drop() -> None:
    found = look(healthy(performance=auc(0.70)))
    assert found.score < POLICY.at_risk_threshold
    assert found.level is Level.AT_RISK
    assert found.recommended_action is Action.WAIT


def test_a_noisy_or_lets_one_fatal_signal_fire() -> None:
    weights = Weights(age=0.1, input_drift=0.3, prediction_drift=0.3, performance=0.9)
    found = look(healthy(performance=auc(0.70)), StalenessPolicy(fusion=Fusion.NOISY_OR, weights=weights))
    assert found.level is Level.STALE
    assert found.score == found.noisy_or > found.weighted_average


def test_a_large_psi_of_few_rows_is_no_drift() -> None:
    few = feature_table([numeric("x", [4, 16, 9, 11, 10, 10, 7, 13, 12, 8, 0], reference=[10] * 10 + [0])])
    found = look(healthy(table=few), StalenessPolicy(predictions_min=50))
    assert found.top_features[0].psi > 0.09
    assert not found.top_features[0].drifted
    assert signal(found, "input_drift").value == 0


def test_a_significant_but_tiny_difference_is_no_drift() -> None:
    tiny = feature_table([numeric("x", [104_000, 96_000] * 5 + [0], reference=[100_000] * 10 + [0])])
    found = look(healthy(table=tiny))
    assert found.top_features[0].p_value < 1e-9
    assert not found.top_features[0].drifted


def test_drift_is_weighed_by_importance() -> None:
    def table(importance: float) -> FeatureTable:
        return feature_table([numeric("x", SHIFTED, importance=importance), *(numeric(f"f{i}") for i in range(9))])

    light, heavy = (signal(look(healthy(table=table(w))), "input_drift") for w in (0.1, 20.0))
    assert light.raw == pytest.approx(0.1 / 9.1)
    assert light.value == pytest.approx(light.raw / 0.3)
    assert heavy.value == 1.0
    assert heavy.raw == pytest.approx(20 / 29)
    none = feature_table([numeric("x", SHIFTED, importance=0.0), numeric("y", importance=0.0)])
    assert signal(look(healthy(table=none)), "input_drift").raw == 0.5


def test_what_is_usual_for_the_season_weighs_less() -> None:
    def value(usual: float) -> float:
        table = feature_table([numeric("x", SHIFTED, usual=usual), *(numeric(f"f{i}") for i in range(9))])
        return signal(look(healthy(table=table)), "input_drift").value

    assert value(1.0) == pytest.approx(value(0.0) / 2)
    assert value(0.1) == value(0.0)


def test_the_most_drifted_features_are_named_first() -> None:
    table = feature_table([numeric("a"), numeric("b", SHIFTED), numeric("c", [150, 250] * 5 + [0]), numeric("d")])
    found = look(healthy(table=table))
    assert [one.name for one in found.top_features][:2] == ["b", "c"]
    assert len(found.top_features) == 4
    assert "b (PSI" in signal(found, "input_drift").explanation


def test_without_outcomes_it_is_healthy_with_low_confidence() -> None:
    found = look(replace(healthy(), performance=None))
    assert (found.level, found.confidence) == (Level.FRESH, Confidence.LOW)
    assert found.reasons[0].startswith("healthy, but confidence is LOW: there is no ground truth")
    assert found.score_high == pytest.approx(found.score_low + 0.35)
    assert signal(found, "performance").missing


def test_few_outcomes_are_no_outcomes() -> None:
    found = look(healthy(performance=auc(0.4, sample_size=37)))
    assert found.confidence is Confidence.LOW
    assert "37 of the 200 outcomes" in found.confidence_reason


def test_a_proxy_is_medium() -> None:
    found = look(healthy(performance=auc(proxy="click_rate")))
    assert found.confidence is Confidence.MEDIUM
    assert "click_rate" in found.confidence_reason


def test_thin_coverage_is_medium() -> None:
    found = look(healthy(coverage=0.55))
    assert found.confidence is Confidence.MEDIUM
    assert "55.0%" in found.confidence_reason
    assert look(healthy(coverage=None)).confidence is Confidence.HIGH


def test_no_reference_profile_is_medium_if_outcomes_are_there() -> None:
    found = look(replace(healthy(), features=None, prediction=None))
    assert (found.level, found.confidence) == (Level.FRESH, Confidence.MEDIUM)


@pytest.mark.parametrize(
    "evidence",
    [
        NOTHING,
        replace(NOTHING, trained_until=NOW - timedelta(days=29)),
        replace(NOTHING, features=feature_table([])),
        replace(NOTHING, features=feature_table([numeric("x", [0] * 11)])),
        replace(NOTHING, features=feature_table([numeric("x", reference=[0] * 11)])),
        replace(NOTHING, features=feature_table([numeric("x", [1] + [0] * 10)])),
        replace(NOTHING, prediction=predictions([0] * 10)),
        replace(NOTHING, prediction=PredictionCounts(reference=np.zeros(10, np.int64), current=np.full(10, 100))),
        replace(NOTHING, prediction=predictions([1] + [0] * 9)),
        replace(NOTHING, performance=auc(0.2, sample_size=0)),
        replace(healthy(), features=feature_table([numeric("x", [4] * 10 + [0])]), prediction=predictions([4] * 10)),
    ],
)
def test_too_little_data_is_unknown_and_never_fresh(evidence: Evidence) -> None:
    found = look(evidence)
    assert (found.level, found.recommended_action, found.confidence) == (
        Level.UNKNOWN,
        Action.WAIT,
        Confidence.LOW,
    )
    assert found.reasons[0].startswith("too little is known")


def test_too_little_data_does_not_hide_what_holds_anyway() -> None:
    policy = StalenessPolicy(weights=Weights(age=0.1, input_drift=0.1, prediction_drift=0.1, performance=0.7))
    scarce = replace(healthy(performance=auc(0.6)), features=features(total=1, current=[1] * 11), prediction=None)
    scarce = replace(scarce, features=feature_table([numeric("x", [4] * 10 + [0])]))
    assert look(scarce, policy).level is Level.STALE
    assert look(replace(scarce, trained_until=NOW - timedelta(days=31), performance=None)).level is Level.STALE


@pytest.mark.parametrize("policy", [POLICY, StalenessPolicy(predictions_min=0, labels_min=0)])
@pytest.mark.parametrize(
    "odd",
    [
        feature_table([numeric("all missing", [0] * 10 + [2_000])]),
        feature_table([numeric("never there", [0] * 10 + [2_000], reference=[0] * 10 + [9])]),
        feature_table([numeric("one bin", [2_000, 0], reference=[500, 0])]),
        feature_table([numeric("x"), categorical("c", [5, 5, 0, 0], [500, 1_500, 0, 0])]),
        feature_table([numeric("one row", [0, 1, 0], reference=[1, 0, 0])]),
    ],
)
def test_odd_counts_give_finite_numbers(odd: FeatureTable, policy: StalenessPolicy) -> None:
    found = look(healthy(table=odd), policy)
    numbers = [found.score, found.score_low, found.score_high]
    numbers += [value for one in found.signals for value in (one.value, one.raw, one.contribution)]
    numbers += [value for one in found.top_features for value in (one.psi, one.psi_debiased, one.p_value)]
    assert all(map(math.isfinite, numbers))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_metric_that_is_no_number_is_missing_and_stops_nobody(bad: float) -> None:
    odd = healthy(performance=auc(bad))
    found = look(odd, StalenessPolicy(performance_floor=0.1))
    assert signal(found, "performance").missing
    assert found.confidence is Confidence.LOW
    assert look(healthy(performance=replace(auc(), current_error=bad))).level is Level.FRESH


def test_without_a_baseline_only_the_floor_is_watched() -> None:
    alone = replace(auc(0.7), baseline=None)
    found = look(healthy(performance=alone))
    assert (found.level, found.confidence) == (Level.FRESH, Confidence.LOW)
    assert "registered without auc" in found.confidence_reason
    assert look(healthy(performance=alone), StalenessPolicy(performance_floor=0.75)).level is Level.STALE


NULLS = numeric("temp", [140] * 10 + [600])
STUCK = numeric("wind", [0, 0, 0, 2_000, 0, 0, 0, 0, 0, 0, 0])
GONE = categorical("carrier", [4_000, 3_000, 3_000, 0, 0], [1_200, 0, 800, 0, 0])
ONE_LEFT = categorical("origin", [4_000, 3_000, 3_000, 0, 0], [0, 2_000, 0, 0, 0])


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (NULLS, "temp: nulls rose from 0.0% to 30.0%"),
        (STUCK, "wind went constant: all its values are in cell 4"),
        (GONE, "carrier: 'b' vanished, 30.0% of the reference"),
        (ONE_LEFT, "origin went constant: all its values are 'b'"),
    ],
)
def test_broken_data_goes_to_its_owner_and_burns_no_retrain(feature: object, words: str) -> None:
    table = feature_table([numeric("x"), feature, *(numeric(f"f{i}") for i in range(20))])  # type: ignore[list-item]
    found = look(healthy(table=table))
    assert found.data_quality == (words,)
    assert (found.level, found.recommended_action) == (Level.AT_RISK, Action.ALERT_DATA_OWNER)
    stale = look(healthy(table=table, age_days=40))
    assert (stale.level, stale.recommended_action) == (Level.STALE, Action.ALERT_DATA_OWNER)


@pytest.mark.parametrize(
    "feature",
    [
        numeric("moved into the last bin, as summer does", [0] * 9 + [2_000, 0]),
        numeric("a flag that was hardly ever set", [2_000, 0, 0], reference=[9_900, 100, 0]),
        numeric("mostly null anyway", [50] * 10 + [1_500], reference=[300] * 10 + [7_000]),
        categorical("a rare one is gone", [9_700, 300, 0, 0], [2_000, 0, 0, 0]),
        numeric("too few rows", [0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_what_may_be_natural_is_no_fault_of_the_data(feature: object) -> None:
    found = look(healthy(table=feature_table([feature, numeric("x")])))  # type: ignore[list-item]
    assert found.data_quality == ()


def test_an_outage_is_summed_up() -> None:
    broken = feature_table([replace(NULLS, name=f"n{i}") for i in range(30)])
    found = look(healthy(table=broken))
    assert len(found.data_quality) == 11
    assert found.data_quality[-1] == "and 20 more features"


def _fleet() -> list[tuple[StalenessPolicy, Evidence]]:
    wide = feature_table([categorical("wide", [50] * 10, [10] * 3 + [90] * 7), numeric("narrow", SHIFTED)])
    return [
        (POLICY, healthy()),
        (POLICY, NOTHING),
        (StalenessPolicy(psi_moderate=0.3, psi_significant=0.5), healthy(table=features(drifted=3))),
        (POLICY, healthy(table=wide, prediction=predictions(SHIFTED[:-1]))),
        (StalenessPolicy(fusion=Fusion.NOISY_OR), healthy(age_days=12, table=features(drifted=2, total=40))),
        (POLICY, healthy(table=feature_table([]))),
        (
            POLICY,
            replace(
                healthy(), prediction=PredictionCounts(reference=np.ones(4, np.int64), current=np.ones(4, np.int64))
            ),
        ),
        (POLICY, healthy(table=feature_table([GONE, NULLS, STUCK]))),
    ]


def test_a_fleet_is_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [evaluate(policy, evidence, NOW) for policy, evidence in _fleet()]
    assert evaluate_fleet(_fleet(), NOW) == alone
    assert evaluate_fleet(_fleet()[::-1], NOW) == alone[::-1]
    monkeypatch.setattr("control_plane.core.staleness.input_drift.ROWS_AT_ONCE", 11)
    assert evaluate_fleet(_fleet() * 3, NOW) == alone * 3
    assert evaluate_fleet([], NOW) == []


trouble = st.tuples(
    st.floats(0, 40), st.integers(0, 10), st.floats(0, 1), st.floats(0, 1), st.booleans(), st.booleans()
)


def _troubled(days: float, drifted: int, shift: float, drop: float, outcomes: bool, scored: bool) -> Evidence:
    moved = [round(200 * (1 - shift) + shift * (80 + 24 * at)) for at in range(10)]
    return Evidence(
        model_version=1,
        trained_until=NOW - timedelta(days=days),
        features=features(drifted=drifted),
        prediction=predictions(moved) if scored else None,
        performance=auc(0.8 - 0.2 * drop) if outcomes else None,
    )


@settings(max_examples=150)
@given(trouble, trouble, st.sampled_from(list(Fusion)))
def test_more_trouble_never_gives_a_better_level(
    one: tuple[float, int, float, float, bool, bool],
    two: tuple[float, int, float, float, bool, bool],
    fusion: Fusion,
) -> None:
    less = (*(min(a, b) for a, b in zip(one[:4], two[:4], strict=True)), *one[4:])
    more = (*(max(a, b) for a, b in zip(one[:4], two[:4], strict=True)), *one[4:])
    policy = StalenessPolicy(fusion=fusion)
    before, after = (evaluate(policy, _troubled(*case), NOW) for case in (less, more))  # type: ignore[arg-type]
    assert before.score <= after.score
    assert SEVERITY[before.level] <= SEVERITY[after.level]
    assert (before.confidence is Confidence.LOW) == (not one[4])


def test_growing_drift_of_a_feature_never_lowers_the_signal() -> None:
    values = []
    for shift in np.linspace(0, 1, 30):
        moved = [round(200 * (1 - shift) + shift * (20 + 40 * at)) for at in range(10)]
        found = look(healthy(table=feature_table([numeric("x", [*moved, 0]), *(numeric(f"f{i}") for i in range(9))])))
        values.append(signal(found, "input_drift").value)
    assert values == sorted(values)
    assert values[0] == 0
    assert values[-1] > 0.3


def test_a_quiet_fleet_raises_no_alarm() -> None:
    rng = np.random.default_rng(11)
    shares = np.full(10, 0.1)
    items = []
    for _ in range(60):
        drawn = [
            numeric(f"f{at}", [*rng.multinomial(2_000, shares), 0], reference=[*rng.multinomial(9_000, shares), 0])
            for at in range(40)
        ]
        score = PredictionCounts(reference=rng.multinomial(9_000, shares), current=rng.multinomial(2_000, shares))
        quality = auc(float(rng.normal(0.80, 0.005)))
        items.append((POLICY, healthy(table=feature_table(drawn), prediction=score, performance=quality)))
    found = evaluate_fleet(items, NOW)
    assert {one.level for one in found} == {Level.FRESH}
    assert max(one.score for one in found) < 0.15


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"reference": np.zeros((2, 11), np.int64)}, "shape"),
        ({"current": np.full((1, 11), -1)}, "count"),
        ({"current": np.zeros((1, 11))}, "type"),
        ({"cells": np.array([12])}, "cells"),
        ({"importance": np.array([-1.0])}, "importance"),
        ({"importance": np.array([np.nan])}, "importance"),
        ({"psi_usual": np.array([np.inf])}, "psi_usual"),
        ({"names": ("a", "b")}, "shape"),
    ],
)
def test_evidence_that_does_not_fit_is_refused(change: dict[str, object], field: str) -> None:
    table = feature_table([numeric("x", SAME)])
    with pytest.raises(InvalidSample) as caught:
        replace(table, **change)  # type: ignore[arg-type]
    assert caught.value.violations[0].rule == field


def test_counts_that_do_not_match_are_refused() -> None:
    with pytest.raises(InvalidSample):
        feature_table([numeric("x", [1, 2])])
    with pytest.raises(InvalidSample):
        feature_table([numeric("x"), numeric("x")])
    with pytest.raises(InvalidSample):
        feature_table([numeric("x", [0.5] * 11)])  # type: ignore[list-item]
    with pytest.raises(InvalidSample):
        PredictionCounts(reference=np.ones(3, np.int64), current=np.ones(4, np.int64))
    with pytest.raises(InvalidSample):
        PredictionCounts(reference=np.ones(3, np.int64), current=-np.ones(3, np.int64))
