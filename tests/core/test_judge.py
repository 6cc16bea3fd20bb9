"""The judge of a canary: its verdicts by example, its boundaries against their definitions."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.rollout.judge import judge
from control_plane.core.rollout.sample_ratio import STRENGTH, sample_ratio_evidence
from control_plane.core.rollout.sequential import difference_of, mixture_boundary, radius
from control_plane.core.rollout.types import (
    Arm,
    CanaryMetric,
    Direction,
    Judgement,
    JudgeVerdict,
    Look,
    RolloutPlan,
    RolloutStep,
)
from tests.reference.judge_twin import arm_of, evidence_against_equal_arms, mixture_by_integral

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENGAGEMENT = CanaryMetric(name="engagement", direction=Direction.HIGHER, tolerance=0.03)
ERRORS = CanaryMetric(name="errors", direction=Direction.LOWER, tolerance=0.03)


def plan(*metrics: CanaryMetric) -> RolloutPlan:
    steps = tuple(RolloutStep(weight=w, bake=timedelta(hours=1), observations_min=10_000) for w in (0.05, 0.2, 0.5))
    return RolloutPlan(serving="test", steps=steps, metrics=metrics)


def rate(count: int, mean: float) -> Arm:
    return Arm(count=count, mean=mean, m2=count * mean * (1 - mean))


def judged(
    metric: CanaryMetric, candidate: Arm | None, control: Arm | None, requests: tuple[int, int] = (0, 0)
) -> Judgement:
    look = Look(
        at=NOW,
        candidate={} if candidate is None else {metric.name: candidate},
        control={} if control is None else {metric.name: control},
        candidate_requests=requests[0],
        control_requests=requests[1],
    )
    return judge(plan(metric), look, 0)


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [
        (rate(20_000, 0.48), JudgeVerdict.FAIL),
        (rate(30_000, 0.5), JudgeVerdict.PASS),
        (rate(30_000, 0.6), JudgeVerdict.PASS),
        (rate(500, 0.49), JudgeVerdict.MARGINAL),
        (rate(29, 0.1), JudgeVerdict.NODATA),
        (None, JudgeVerdict.NODATA),
        (Arm(count=20_000, mean=math.nan, m2=1.0), JudgeVerdict.NODATA),
        (Arm(count=20_000, mean=0.5, m2=math.inf), JudgeVerdict.NODATA),
        (Arm(count=20_000, mean=0.5, m2=-1.0), JudgeVerdict.NODATA),
        (Arm(count=20_000, mean=1e308, m2=1e308), JudgeVerdict.NODATA),
    ],
)
def test_verdicts(candidate: Arm | None, verdict: JudgeVerdict) -> None:
    found = judged(ENGAGEMENT, candidate, rate(30_000, 0.5))
    assert found.verdict is verdict
    assert all(math.isfinite(number) for one in found.metrics for number in (one.low, one.high, one.difference))


def test_fewer_errors_are_better() -> None:
    assert judged(ERRORS, rate(20_000, 0.48), rate(20_000, 0.5)).verdict is JudgeVerdict.PASS
    assert judged(ERRORS, rate(20_000, 0.52), rate(20_000, 0.5)).verdict is JudgeVerdict.FAIL


@pytest.mark.parametrize("value", [0.0, 1.0, 250.0])
def test_thirty_equal_values_prove_nothing_and_thirty_thousand_do(value: float) -> None:
    few, many = Arm(count=30, mean=value, m2=0.0), Arm(count=30_000, mean=value, m2=0.0)
    assert judged(ERRORS, few, few).verdict is JudgeVerdict.MARGINAL
    assert judged(ERRORS, many, many).verdict is JudgeVerdict.PASS


def test_the_worst_metric_is_the_verdict_and_the_reason_has_its_numbers() -> None:
    look = Look(
        at=NOW,
        candidate={"engagement": rate(30_000, 0.5), "errors": rate(30_000, 0.6)},
        control={"engagement": rate(30_000, 0.5), "errors": rate(30_000, 0.5)},
    )
    found = judge(plan(ENGAGEMENT, ERRORS), look, 0)
    assert found.verdict is JudgeVerdict.FAIL
    assert "errors 0.6 against 0.5" in found.reason and "engagement" not in found.reason


def test_arms_of_unequal_size_hold_but_do_not_hide_harm() -> None:
    uneven = (20_000, 24_000)
    held = judged(ENGAGEMENT, rate(30_000, 0.5), rate(30_000, 0.5), uneven)
    assert held.verdict is JudgeVerdict.NODATA
    assert "20,000 requests to the candidate" in held.reason and "24,000" in held.reason
    assert judged(ENGAGEMENT, rate(20_000, 0.4), rate(20_000, 0.5), uneven).verdict is JudgeVerdict.FAIL


@given(st.integers(0, 120), st.integers(0, 120))
def test_sample_ratio_evidence_is_the_mixture_request_by_request(candidate: int, control: int) -> None:
    exact = float(evidence_against_equal_arms(candidate, control, int(STRENGTH)))
    assert sample_ratio_evidence(candidate, control) == pytest.approx(exact, rel=1e-6)


def test_sample_ratio_evidence_holds_for_tens_of_millions() -> None:
    assert sample_ratio_evidence(50_000_000, 50_000_000) < 1
    assert sample_ratio_evidence(50_000_000, 50_100_000) > 1_000
    assert sample_ratio_evidence(50_000_000, 0) == pytest.approx(math.exp(690.0))


@given(st.floats(0.5, 4.0), st.sampled_from([0.05, 0.003]))
def test_the_mixture_boundary_is_where_its_martingale_says_so(ratio: float, error: float) -> None:
    """On it, the half-normal mixture lies a little above 1 / error: never below, so that the error is kept."""
    tuned_at = 100.0
    log_inverse = 2 * math.log(1 / error)
    rho = tuned_at / (log_inverse + math.log(1 + log_inverse))
    boundary = mixture_boundary(ratio * tuned_at, tuned_at, error)
    assert mixture_by_integral(boundary, ratio * tuned_at, rho) >= (1 / error) * (1 - 1e-6)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40), st.lists(st.floats(-100, 100), min_size=2, max_size=40))
def test_the_difference_is_that_of_the_observations(first: list[float], second: list[float]) -> None:
    found = difference_of(arm_of(first), arm_of(second))
    assert found.value == pytest.approx(np.mean(first) - np.mean(second), abs=1e-9)
    expected = np.var(first, ddof=1) / len(first) + np.var(second, ddof=1) / len(second)
    assert found.variance == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_sequence_covers_no_difference_at_every_look_within_and_beyond_its_plan(skewed: bool) -> None:
    """400 pairs of arms, 100 looks until twice the horizon, an error of 5 %: 20 are expected to be wrong at most."""
    rng, horizon, wrong = np.random.default_rng(3), 5_000, 0
    for _ in range(400):
        draw = rng.exponential(1.0, (2, 2 * horizon)) if skewed else rng.normal(3.0, 1.0, (2, 2 * horizon))
        counts = np.arange(100, 2 * horizon + 1, 100)
        means = np.cumsum(draw, axis=1)[:, counts - 1] / counts
        squares = np.cumsum(draw**2, axis=1)[:, counts - 1] - counts * means**2
        arms = [
            [
                Arm(count=int(n), mean=float(m), m2=float(s))
                for n, m, s in zip(counts, means[i], squares[i], strict=True)
            ]
            for i in (0, 1)
        ]
        found = [difference_of(first, second) for first, second in zip(*arms, strict=True)]
        wrong += any(one.value + radius(one, horizon, 0.05) < 0 for one in found)
    assert 1 <= wrong <= 33  # three standard deviations above 20
