"""The speed view under any order of arrivals, folds and reads, and when memory runs short."""

from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.ground_truth.ids import IdColumns, hash_shares, id_columns
from control_plane.core.ground_truth.incremental import IncrementalJoin
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, merge
from control_plane.core.ground_truth.speed import STRATA, SpeedView, stratum_of
from tests.ground_truth.arrows import HOUR_US, T0_US, prediction_id
from tests.ground_truth.joins import hour_answer, twin_answer
from tests.ground_truth.test_join_properties import histories
from tests.reference.join import Arrival, Prediction

SPEC = LabelSpec(window=timedelta(hours=3))
HOUR = T0_US // HOUR_US


def ids_of(count: int, *, first: int = 0) -> IdColumns:
    """Ids of one hour."""
    raw = b"".join(prediction_id(T0_US + number, first + number) for number in range(count))
    return id_columns(np.frombuffer(raw, np.uint8).reshape(count, 16))


def predict(view: SpeedView, model_id: str, ids: IdColumns) -> None:
    """Predictions of one version, all of the first hour; the score is the id's share."""
    n = len(ids.key)
    view.add_predictions(model_id, 1, ids, np.full(n, T0_US), hash_shares(ids), tell_new=False)


def turn_out(view: SpeedView, model_id: str, ids: IdColumns) -> None:
    """Every second prediction turned out positive."""
    n = len(ids.key)
    value = (np.arange(n) % 2).astype(np.float64)
    view.add_outcomes(model_id, "default", ids, np.full(n, T0_US + 60_000_000), value, np.zeros(n, np.int32))


def partial_of(view: SpeedView, model_id: str) -> Partial:
    """What is known of the first hour."""
    return (view.partials(model_id, SPEC, HOUR, 0) or {})[1]


@given(histories(), st.data())
@settings(max_examples=80, deadline=None)
def test_folds_and_reads_in_between_change_nothing(history: list[Arrival], data: st.DataObject) -> None:
    view = SpeedView()
    hours = sorted({row.predicted_us // HOUR_US for row in history if isinstance(row, Prediction)})
    for row in history:
        one = id_columns(np.frombuffer(row.id, np.uint8).reshape(1, 16))
        if isinstance(row, Prediction):
            at, score = np.array([row.predicted_us]), np.array([row.score])
            view.add_predictions("m", row.version, one, at, score, tell_new=data.draw(st.booleans()))
        else:
            at, value = np.array([row.observed_us]), np.array([row.value])
            view.add_outcomes("m", row.label_type, one, at, value, np.array([row.revision], np.int32))
        action = data.draw(st.sampled_from(["nothing", "fold", "read", "orphans"]))
        if action == "fold":
            view.fold(lambda _: [SPEC], 10)
        elif action == "read":
            for hour in hours:
                view.partials("m", SPEC, hour, 0)
        elif action == "orphans":
            view.orphans("m", SPEC.label_type, -1, 10**6)
    found = {
        (hour, version): hour_answer(partial)
        for hour in hours
        for version, partial in (view.partials("m", SPEC, hour, 0) or {}).items()
        if partial.of("predicted")
    }
    assert (found, sum(view.orphans("m", SPEC.label_type, -1, 10**6).values())) == twin_answer(history, SPEC)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_sums_of_any_batches_are_those_of_all_rows_at_once(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = ids_of(sum(sizes))
    whole, bit_by_bit = SpeedView(), SpeedView()
    predict(whole, "m", ids)
    turn_out(whole, "m", ids)
    value = (np.arange(len(ids.key)) % 2).astype(np.float64)
    for at in np.split(rng.permutation(len(ids.key)), np.cumsum(sizes)[:-1]):
        some = IdColumns(ids.key[at], ids.high[at])
        told = rng.permutation(at)
        known, zero = IdColumns(ids.key[told], ids.high[told]), np.zeros(len(told), np.int32)
        first = rng.random() < 0.5
        if first:
            predict(bit_by_bit, "m", some)
        bit_by_bit.add_outcomes("m", "default", known, np.full(len(told), T0_US + 60_000_000), value[told], zero)
        if not first:
            predict(bit_by_bit, "m", some)
        bit_by_bit.fold(lambda _: [SPEC], 100)
    one, other = partial_of(whole, "m"), partial_of(bit_by_bit, "m")
    assert one.dense().tolist() == other.dense().tolist()
    assert other.sums == pytest.approx(one.sums, rel=1e-9)


def test_memory_is_bounded_by_keeping_fewer_ids_on_both_sides() -> None:
    view = SpeedView(rows_max=4_000)
    ids = ids_of(10_000)
    for start in range(0, 10_000, 500):
        some = IdColumns(ids.key[start : start + 500], ids.high[start : start + 500])
        predict(view, "m", some)
        turn_out(view, "m", some)
        assert view.rows <= 4_000
    rate = view.rate("m", HOUR)
    assert rate in {2.0**-k for k in range(1, STRATA)}
    partial = partial_of(view, "m")
    kept = int((hash_shares(ids) < rate).sum())
    assert (partial.of("predicted"), partial.of("joined")) == (kept, kept)
    assert kept / rate == pytest.approx(10_000, rel=5 * (kept**-0.5))
    assert view.orphans("m", "default", 0, 10**6) == {}


def test_the_lowest_tier_gives_up_memory_first() -> None:
    view = SpeedView(rows_max=3_000)
    for tier in (1, 4):
        view.set_tier(f"tier_{tier}", tier)
    for number, model_id in enumerate(("tier_1", "tier_4")):
        predict(view, model_id, ids_of(2_000, first=10_000 * number))
    assert view.rate("tier_1", HOUR) == 1.0
    assert view.rate("tier_4", HOUR) < 1.0
    assert partial_of(view, "tier_1").of("predicted") == 2_000


@pytest.mark.parametrize("rate", [0.9, 0.5, 0.03])
def test_an_hour_that_was_stored_as_a_sample_is_joined_as_one(rate: float) -> None:
    view = SpeedView()
    ids = ids_of(2_000)
    predict(view, "m", ids)
    view.restrict("m", HOUR, rate)
    turn_out(view, "m", ids)
    kept = int((hash_shares(ids) < rate).sum())
    partial = partial_of(view, "m")
    assert (partial.of("predicted"), partial.of("joined"), view.rate("m", HOUR)) == (kept, kept, rate)
    assert view.orphans("m", "default", 0, 10**6) == {}


def test_a_large_model_is_split_without_a_change() -> None:
    view = SpeedView()
    ids = ids_of(300_000)
    raw = np.arange(300_000)
    for at in np.array_split(raw, 5):
        predict(view, "m", IdColumns(ids.key[at], ids.high[at]))
        predict(view, "m", IdColumns(ids.key[at[:100]], ids.high[at[:100]]))
    turn_out(view, "m", ids)
    partial = partial_of(view, "m")
    assert (partial.of("predicted"), partial.of("joined"), view.rate("m", HOUR)) == (300_000, 300_000, 1.0)


def test_strata_halve() -> None:
    share: npt.NDArray[np.float64] = np.random.default_rng(3).random(100_000)
    counts = np.bincount(stratum_of(share), minlength=STRATA)
    assert counts[:4] / len(share) == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16], rel=0.05)


def test_expired_hours_are_let_go_of_and_their_late_outcomes_counted() -> None:
    view = SpeedView()
    ids = ids_of(100)
    predict(view, "m", ids)
    view.expire("m", HOUR + 1)
    assert (view.hours("m"), view.rows) == ([], 0)
    late = view.add_outcomes("m", "default", ids, np.full(100, T0_US), np.zeros(100), np.zeros(100, np.int32))
    assert late == {HOUR: 100}


def test_nothing_to_join_is_nothing() -> None:
    empty = IncrementalJoin()
    assert (empty.rows, empty.orphans("default"), empty.partials(SPEC, HOUR, mature=False)) == (0, {}, None)
    assert merge([]).of("predicted") == 0


def test_what_was_joined_is_no_orphan_once_its_prediction_has_expired() -> None:
    view = SpeedView()
    timeless = id_columns(np.arange(320, dtype=np.uint8).reshape(20, 16))
    predict(view, "m", timeless)
    turn_out(view, "m", timeless)
    assert view.orphans("m", "default", -1, 10**6) == {}
    view.expire("m", HOUR + 2)
    assert view.orphans("m", "default", -1, 10**6) == {}


def test_a_rate_of_another_hour_leaves_an_hour_alone() -> None:
    view = SpeedView()
    predict(view, "m", ids_of(100))
    before = partial_of(view, "m")
    view.restrict("m", HOUR + 5, 0.01)
    assert partial_of(view, "m") is before
