"""Did the metric get worse: orientation, certainty, and the edges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.statistics.performance import Z_95, metric_drop, performance_signal
from control_plane.core.statistics.sample import InvalidSample

metrics = st.floats(-100, 100)
errors = st.floats(0, 10)


@given(metrics, metrics, errors, errors)
def test_lower_is_better_mirrors_higher_is_better(baseline: float, current: float, b: float, c: float) -> None:
    up = metric_drop(baseline, current, baseline_error=b, current_error=c, higher_is_better=True)
    down = metric_drop(-baseline, -current, baseline_error=b, current_error=c, higher_is_better=False)
    assert up == down


@given(metrics, metrics, metrics, errors)
def test_a_worse_metric_never_gives_a_smaller_signal(baseline: float, one: float, two: float, error: float) -> None:
    worse, better = sorted((one, two))
    signals = [
        performance_signal(metric_drop(baseline, value, current_error=error, higher_is_better=True), 0.05)
        for value in (better, worse)
    ]
    assert 0 <= signals[0] <= signals[1] <= 1


def test_the_bound_is_the_drop_less_its_doubt() -> None:
    found = metric_drop(0.80, 0.75, baseline_error=0.003, current_error=0.004, higher_is_better=True)
    assert found.standard_error == pytest.approx(0.005)
    assert found.lower_bound == pytest.approx(0.05 - Z_95 * 0.005)
    assert found.p_value == pytest.approx(7.6e-24, rel=0.01)
    assert performance_signal(found, 0.04) == 1


def test_the_same_drop_on_few_outcomes_says_nothing() -> None:
    found = metric_drop(0.80, 0.75, current_error=0.05, higher_is_better=True)
    assert found.p_value > 0.05
    assert performance_signal(found, 0.04) == 0


@pytest.mark.parametrize(("current", "p_value"), [(0.7, 0.0), (0.8, 1.0), (0.9, 1.0)])
def test_without_doubt_the_sign_decides(current: float, p_value: float) -> None:
    assert metric_drop(0.8, current, higher_is_better=True).p_value == p_value


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(InvalidSample):
        metric_drop(bad, 0.5, higher_is_better=True)
    with pytest.raises(InvalidSample):
        metric_drop(0.5, bad, higher_is_better=True)
    with pytest.raises(InvalidSample):
        metric_drop(0.5, 0.5, current_error=bad, higher_is_better=True)
    with pytest.raises(InvalidSample):
        metric_drop(0.5, 0.5, baseline_error=-1, higher_is_better=True)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_tolerance_is_positive(bad: float) -> None:
    with pytest.raises(InvalidSample):
        performance_signal(metric_drop(0.5, 0.4, higher_is_better=True), bad)
