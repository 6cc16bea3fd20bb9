"""Faults of the data: what they take, that they suppress the futile retrain, and that quiet data have none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.staleness.evaluation import evaluate, evaluate_fleet
from control_plane.core.staleness.evidence import Evidence, FeatureTable, Volume, feature_table
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import Action, Level
from tests.core.staleness_evidence import NOW, REFERENCE, SAME, categorical, healthy, numeric

POLICY = StalenessPolicy()


def faults(evidence: Evidence, policy: StalenessPolicy = POLICY) -> tuple[str, ...]:
    """Findings of one look, which must lead to the data's owner if there are any."""
    found = evaluate(policy, evidence, NOW)
    assert (found.recommended_action is Action.ALERT_DATA_OWNER) == bool(found.data_quality)
    assert found.level is not Level.FRESH or not found.data_quality
    return found.data_quality


def beside(feature: object, outside: int | None = None) -> FeatureTable:
    """A table with twenty quiet features beside this one; so many of its values outside the training range."""
    table = feature_table([feature, *(numeric(f"f{at}") for at in range(20))])  # type: ignore[list-item]
    return table if outside is None else replace(table, outside=np.array([outside] + [0] * 20))


KNOWN = [4_000, 3_000, 3_000, 0, 0]


def test_a_new_category_is_found() -> None:
    table = beside(categorical("carrier", KNOWN, [700, 600, 500, 200, 0]))
    assert faults(healthy(table=table)) == (
        "carrier: 10.0% of its values are categories unknown in training, 0.0% were then",
    )


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        (KNOWN, [780, 600, 600, 20, 0]),  # a few typing errors
        ([4_000, 3_000, 2_500, 500, 0], [700, 600, 460, 240, 0]),  # others were there before
    ],
)
def test_a_handful_of_others_is_no_new_category(reference: list[int], current: list[int]) -> None:
    assert faults(healthy(table=beside(categorical("carrier", reference, current)))) == ()


MOVED_UP = [100, 100, 100, 100, 100, 100, 100, 100, 100, 1_100, 0]


def test_values_outside_the_training_range_are_found() -> None:
    table = beside(numeric("temp", MOVED_UP), outside=900)
    assert faults(healthy(table=table)) == ("temp: 45.0% of its values are far outside the range of the training data",)


@pytest.mark.parametrize("outside", [None, 0, 19, 300])
def test_some_values_outside_are_natural(outside: int | None) -> None:
    assert faults(healthy(table=beside(numeric("temp", MOVED_UP), outside=outside))) == ()


def test_a_season_is_no_broken_range() -> None:
    assert faults(healthy(table=beside(numeric("temp", MOVED_UP, usual=2.0), outside=900))) == ()


def test_a_small_reference_knows_no_range() -> None:
    short = numeric("temp", MOVED_UP, reference=[4] * 9 + [0, 0])
    assert faults(healthy(table=beside(short, outside=900))) == ()


def test_features_that_do_not_arrive_any_more_are_found_together() -> None:
    gone = [numeric("temp", [0] * 11), numeric("wind", [0] * 11)]
    table = feature_table([*gone, *(numeric(f"f{at}") for at in range(8))])
    assert faults(healthy(table=table)) == ("temp, wind do not arrive any more: the set of features changed",)
    never = numeric("temp", [0] * 11, reference=[0] * 11)
    assert faults(healthy(table=beside(never))) == ()
    nothing = feature_table([numeric(f"f{at}", [0] * 11) for at in range(8)])
    assert faults(healthy(table=nothing)) == ()


@pytest.mark.parametrize(
    ("volume", "found"),
    [
        (Volume(current=100, before=(1_000, 900, 1_100)), True),
        (Volume(current=0, before=(1_000, 900, 1_100)), True),
        (Volume(current=500, before=(1_000, 900, 1_100)), False),
        (Volume(current=100, before=(1_000, 900)), False),
        (Volume(current=100, before=(1_000, 900, 150)), False),
        (Volume(current=1, before=(20, 30, 20)), False),
        (Volume(current=0, before=()), False),
    ],
)
def test_a_lost_volume_is_found_against_the_quietest_window(volume: Volume, found: bool) -> None:
    assert bool(faults(replace(healthy(), volume=volume))) is found


def test_short_windows_must_cover_a_week() -> None:
    daily = StalenessPolicy(window_days=1)
    week = (1_000, 1_000, 1_000, 1_000, 1_000, 250, 240)
    assert faults(replace(healthy(), volume=Volume(current=200, before=week)), daily) == ()
    assert faults(replace(healthy(), volume=Volume(current=200, before=week[:4])), daily) == ()
    assert len(faults(replace(healthy(), volume=Volume(current=90, before=week)), daily)) == 1


def test_two_faults_are_both_told() -> None:
    table = beside(numeric("temp", MOVED_UP), outside=900)
    found = faults(replace(healthy(table=table), volume=Volume(current=1, before=(1_000,) * 4)))
    assert len(found) == 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([100, 1_000, 20_000]), st.sampled_from([100, 500, 20_000]))
def test_quiet_data_have_no_faults(seed: int, then: int, now: int) -> None:
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(10):
        shares = rng.dirichlet(np.full(7, 0.6))
        words = [
            categorical(f"c{at}", [*rng.multinomial(then, shares)], [*rng.multinomial(now, shares)]) for at in range(10)
        ]
        numbers = [
            numeric(f"n{at}", [*rng.multinomial(now, np.full(10, 0.1)), 0], reference=REFERENCE) for at in range(10)
        ]
        table = feature_table([*words, *numbers, numeric("same", SAME)])
        beyond = [0] * 10 + [int(rng.binomial(now, rng.beta(2, then - 1))) for _ in range(10)] + [0]
        items.append((StalenessPolicy(predictions_min=50), healthy(table=replace(table, outside=np.array(beyond)))))
    assert [one.data_quality for one in evaluate_fleet(items, NOW)] == [()] * 10
