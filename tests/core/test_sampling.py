"""Which ids are kept: the same on both sides at any rate, unbiased, and lower tiers give way first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.ground_truth.ids import IdColumns, id_columns
from control_plane.core.ground_truth.sampling import (
    HALVINGS_MAX,
    RELEASE_BAND,
    felt_pressure,
    kept,
    rate_in_force,
    room_for,
)

HOUR = 380_000


def random_ids(rows: int, seed: int) -> IdColumns:
    """UUIDv7s of one hour."""
    raw = np.random.default_rng(seed).integers(0, 256, (rows, 16), np.uint8)
    raw[:, :6] = np.frombuffer((HOUR * 3_600_000).to_bytes(6, "big"), np.uint8)
    raw[:, 6] = 0x70 | raw[:, 6] & 0x0F
    raw[:, 8] = 0x80 | raw[:, 8] & 0x3F
    return id_columns(raw)


def hours(rows: int) -> np.ndarray:
    return np.full(rows, HOUR, np.int64)


@given(st.integers(0, 2**32), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_higher_rate_keeps_all_that_a_lower_one_kept(seed: int, one: float, other: float) -> None:
    ids = random_ids(500, seed)
    low = kept(ids, hours(500), {}, min(one, other))
    high = kept(ids, hours(500), {}, max(one, other))
    assert not (low & ~high).any()


@given(st.integers(0, 2**32), st.floats(0.01, 1.0))
def test_both_sides_keep_the_same_ids_in_whatever_order_they_come(seed: int, rate: float) -> None:
    rows = 300
    raw = np.random.default_rng(seed).integers(0, 256, (rows, 16), np.uint8)
    order = np.random.default_rng(seed + 1).permutation(rows)
    predictions = kept(id_columns(raw), hours(rows), {HOUR: rate}, 1.0)
    outcomes = kept(id_columns(raw[order]), hours(rows), {HOUR: rate}, 1.0)
    assert (predictions[order] == outcomes).all()


def test_each_hour_has_its_own_rate() -> None:
    ids = random_ids(1_000, 1)
    at = np.where(np.arange(1_000) % 2 == 0, HOUR, HOUR + 1)
    inside = kept(ids, at, {HOUR: 0.25}, 1.0)
    assert inside[at == HOUR + 1].all()
    assert 0 < inside[at == HOUR].sum() < 250


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 0.999])
def test_estimates_are_unbiased(rate: float) -> None:
    """200 draws of 5,000 predictions: the mean error of the estimated positives lies within five standard errors."""
    rows, draws = 5_000, 200
    estimates = []
    for seed in range(draws):
        positive = np.random.default_rng(seed + 10_000).random(rows) < 0.1
        inside = kept(random_ids(rows, seed), hours(rows), {}, rate)
        estimates.append((positive & inside).sum() / rate - positive.sum())
    error = np.std(estimates) / np.sqrt(draws)
    assert abs(np.mean(estimates)) < 5 * error


def test_a_rate_that_changed_between_prediction_and_outcome_does_not_bias() -> None:
    """Predictions taken at 0.5, then 0.125; outcomes at 0.25: among ids below the lowest rate all pairs are whole."""
    rows = 40_000
    ids = random_ids(rows, 3)
    early = np.arange(rows) < rows // 2
    predicted = np.where(early, kept(ids, hours(rows), {}, 0.5), kept(ids, hours(rows), {}, 0.125))
    labelled = kept(ids, hours(rows), {}, 0.25)
    lowest = kept(ids, hours(rows), {}, 0.125)
    assert not (lowest & ~predicted).any()
    assert not (lowest & ~labelled).any()
    # Without the lowest rate the early half, of which more was kept, would count twice as much as it should.
    assert abs((lowest & early).sum() / lowest.sum() - 0.5) < 0.03
    assert (predicted & labelled & early).sum() / (predicted & labelled).sum() > 0.6


def test_tiers_give_way_in_order_and_tier_1_never() -> None:
    for pressure in np.linspace(0, 1, 101):
        rates = [rate_in_force(0.8, tier, float(pressure), degrade=True) for tier in (1, 2, 3, 4)]
        assert rates == sorted(rates, reverse=True)
        assert rates[0] == 0.8
        assert min(rates) >= 0.8 / 2**HALVINGS_MAX
        assert rate_in_force(0.8, 4, float(pressure), degrade=False) == 0.8
        rooms = [room_for(tier, float(pressure), degrade=True) for tier in (1, 2, 3, 4)]
        assert rooms == sorted(rooms, reverse=True)
    assert rate_in_force(1.0, 4, 0.49, degrade=True) == 1.0
    assert rate_in_force(1.0, 4, 0.50, degrade=True) == 0.5
    assert room_for(1, 0.999, degrade=True)
    assert not room_for(4, 0.95, degrade=True)
    assert room_for(4, 0.95, degrade=False)
    assert not room_for(1, 1.0, degrade=True)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_felt_pressure_rises_at_once_and_does_not_flap(pressures: list[float]) -> None:
    felt = 0.0
    for now in pressures:
        before, felt = felt, felt_pressure(felt, now)
        assert felt >= now  # never less careful than the room asks for
        assert felt in (before, now)
        if felt < before:
            assert before - felt > RELEASE_BAND * 0.999
