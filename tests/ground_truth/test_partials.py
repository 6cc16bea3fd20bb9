"""Partials merge to what all rows give, and metrics agree with scikit-learn."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from control_plane.core.ground_truth.ids import (
    NO_HOUR,
    hash_buckets,
    hash_shares,
    id_bytes,
    id_columns,
    id_hours,
    id_instants_ms,
    uuid7,
)
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import auc, metrics_of
from control_plane.core.ground_truth.partials import (
    CELLS,
    COUNTS,
    DELAY_CELLS,
    EMPTY,
    SCORE_BINS,
    Partial,
    Rows,
    merge,
    merge_weighted,
    pack,
    partials_of,
    score_bins,
    unpack,
)

BINARY = LabelSpec()
REGRESSION = LabelSpec(task="regression")
Floats = npt.NDArray[np.float64]


def rows_of(score: Floats, value: Floats, group: npt.NDArray[np.int64] | None = None) -> Rows:
    """Joined rows; NaN in `value` is no outcome."""
    n = len(score)
    return Rows(
        group=np.zeros(n, np.int64) if group is None else group,
        score=score,
        value=value,
        delay_us=np.arange(n) * 1_000_000,
        late=np.zeros(n, np.bool_),
        outside=np.zeros(n, np.bool_),
        mature=np.ones(n, np.bool_),
        imputed=np.zeros(n, np.bool_),
    )


def binary_sample(n: int, positive_share: float, seed: int) -> tuple[Floats, Floats]:
    """Scores that are calibrated on the logit scale, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(np.log(positive_share / (1 - positive_share)), 1.5, n)
    score = 1 / (1 + np.exp(-logit))
    return score, (rng.random(n) < score).astype(np.float64)


def by_name(partial: Partial, spec: LabelSpec) -> dict[str, float]:
    """Metric values by name."""
    return {metric.name: metric.value for metric in metrics_of(partial, spec.task)}


@pytest.mark.parametrize("positive_share", [0.5, 0.2, 0.01])
def test_binary_metrics_agree_with_scikit_learn(positive_share: float) -> None:
    score, value = binary_sample(50_000, positive_share, 1)
    found = by_name(partials_of(BINARY, rows_of(score, value), 1)[0], BINARY)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(value, score), abs=1e-4)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(value, score >= 0.5), abs=1e-12)
    assert found["log_loss"] == pytest.approx(sk.log_loss(value, score), rel=1e-9)
    assert found["brier"] == pytest.approx(sk.brier_score_loss(value, score), rel=1e-9)


def test_regression_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    value = rng.normal(150, 40, 20_000)
    score = value + rng.normal(1, 12, 20_000)
    found = by_name(partials_of(REGRESSION, rows_of(score, value), 1)[0], REGRESSION)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(value, score))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(value, score))
    assert found["r2"] == pytest.approx(sk.r2_score(value, score), rel=1e-6)
    assert found["bias"] == pytest.approx((score - value).mean())


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (BINARY, "auc"),
        (BINARY, "log_loss"),
        (BINARY, "accuracy"),
        (REGRESSION, "rmse"),
        (REGRESSION, "mae"),
        (REGRESSION, "r2"),
    ],
)
def test_standard_errors_are_the_spread_of_repeated_samples(spec: LabelSpec, name: str) -> None:
    values, errors = [], []
    for seed in range(150):
        if spec.task == "binary":
            score, value = binary_sample(400, 0.3, seed)
        else:
            rng = np.random.default_rng(seed)
            value = rng.normal(0, 2, 400)
            score = value + rng.normal(0, 1, 400)
        partial = partials_of(spec, rows_of(score, value), 1)[0]
        metric = next(metric for metric in metrics_of(partial, spec.task) if metric.name == name)
        values.append(metric.value)
        errors.append(metric.standard_error)
    assert float(np.mean(errors)) == pytest.approx(float(np.std(values)), rel=0.25)


@given(st.integers(0, 2**32), st.integers(1, 80), st.integers(1, 5), st.sampled_from([BINARY, REGRESSION]))
@settings(max_examples=80, deadline=None)
def test_the_merge_of_hours_equals_all_rows(seed: int, n: int, hours: int, spec: LabelSpec) -> None:
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    value = np.where(rng.random(n) < 0.2, np.nan, (rng.random(n) < 0.4).astype(float))
    group = rng.integers(0, hours, n)
    parts = partials_of(spec, rows_of(score, value, group), hours)
    whole = partials_of(spec, rows_of(score, value), 1)[0]
    merged = merge(unpack(pack(part)) for part in parts)
    assert merged.dense().tolist() == whole.dense().tolist()
    assert merged.sums == pytest.approx(whole.sums, rel=1e-9, abs=1e-12)
    assert sum(part.of("predicted") for part in parts) == n
    one_by_one = EMPTY
    for part in parts:
        one_by_one = merge([one_by_one, part])
    assert one_by_one.dense().tolist() == whole.dense().tolist()


@given(st.integers(0, 2**32), st.lists(st.floats(1, 50), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_samples_are_scaled_without_bending_their_histograms(seed: int, weights: list[float]) -> None:
    rng = np.random.default_rng(seed)
    parts, rows = [], []
    for weight in weights:
        score, value = binary_sample(int(rng.integers(1, 60)), 0.3, int(rng.integers(1, 10_000)))
        parts.append((partials_of(BINARY, rows_of(score, value), 1)[0], weight))
        rows.append((score, value, weight))
    scaled = merge_weighted(parts)
    bins = np.linspace(0, 1, 8)
    for label in (0, 1):
        wanted = np.zeros(SCORE_BINS)
        for score, value, weight in rows:
            wanted += weight * np.bincount(score_bins(score[value == label]), minlength=SCORE_BINS)
        for edge in bins:  # any range of bins holds what it should, but for rounding at its ends
            upto = int(edge * SCORE_BINS)
            assert abs(scaled.scores()[label][:upto].sum() - wanted[:upto].sum()) <= 0.5 + 1e-6
    total = sum(weight * len(score) for score, _, weight in rows)
    assert abs(scaled.of("predicted") - total) <= 0.5 + 1e-6
    # Kish: as many rows as say as much.
    by_row = np.concatenate([np.full(len(score), weight) for score, _, weight in rows])
    n_eff = by_row.sum() ** 2 / (by_row**2).sum()
    assert scaled.design == pytest.approx(by_row.sum() / n_eff)
    assert scaled.sum_of("brier") == pytest.approx(sum(w * ((s - v) ** 2).sum() for s, v, w in rows))


@pytest.mark.parametrize("metric", ["auc", "accuracy", "rmse"])
def test_intervals_stay_where_metrics_can_be_and_hold_the_truth(metric: str) -> None:
    spec = REGRESSION if metric == "rmse" else BINARY
    truth = by_name(partials_of(spec, rows_of(*binary_sample(200_000, 0.05, 1)), 1)[0], spec)[metric]
    held = 0
    for seed in range(2, 102):
        found = metrics_of(partials_of(spec, rows_of(*binary_sample(300, 0.05, seed)), 1)[0], spec.task)
        low, high = next(one for one in found if one.name == metric).interval
        assert 0 <= low <= high
        assert metric == "rmse" or high <= 1
        held += low <= truth <= high
    assert held >= 88


def test_partials_of_old_still_read() -> None:
    score, value = binary_sample(100, 0.3, 4)
    made = partials_of(BINARY, rows_of(score, value), 1)[0]
    old = made.cell < CELLS - DELAY_CELLS - 1
    packed = np.int32(old.sum()).tobytes() + made.cell[old].tobytes() + made.count[old].tobytes()
    read = unpack(packed + made.sums[:10].tobytes())
    assert (read.of("imputed"), read.design, int(read.positive_delays().sum())) == (0, 1.0, 0)
    assert by_name(read, BINARY) == by_name(made, BINARY)


def test_many_rows_and_few_rows_are_counted_alike() -> None:
    """Counting by table and counting by sorting are two paths to one answer."""
    score, value = binary_sample(6_000, 0.3, 4)
    whole = partials_of(BINARY, rows_of(score, value), 1)[0]
    parts = [partials_of(BINARY, rows_of(score[at : at + 10], value[at : at + 10]), 1)[0] for at in range(0, 6_000, 10)]
    counts = merge(parts).dense()
    for first in (len(COUNTS), CELLS - DELAY_CELLS):  # the delays of `rows_of` count from each slice's start
        counts[first : first + DELAY_CELLS] = whole.dense()[first : first + DELAY_CELLS]
    assert counts.tolist() == whole.dense().tolist()


def test_extremes_stay_finite() -> None:
    score, value = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    found = by_name(partials_of(BINARY, rows_of(score, value), 1)[0], BINARY)
    assert all(np.isfinite(metric) for metric in found.values())
    assert found["auc"] == 0.5


def test_metrics_without_support_are_left_out() -> None:
    nothing = partials_of(BINARY, rows_of(np.array([0.5]), np.array([np.nan])), 1)[0]
    assert metrics_of(nothing, "binary") == ()
    one_class = partials_of(BINARY, rows_of(np.array([0.5, 0.7]), np.array([1.0, 1.0])), 1)[0]
    assert "auc" not in by_name(one_class, BINARY)
    constant = partials_of(REGRESSION, rows_of(np.array([1.0, 2, 3]), np.array([5.0, 5, 5])), 1)[0]
    assert "r2" not in by_name(constant, REGRESSION)
    assert auc(np.zeros((2, 4), np.int64)) is None


def test_the_logit_scale_keeps_the_auc_of_rare_positives() -> None:
    score, value = binary_sample(400_000, 0.01, 5)
    partial = partials_of(BINARY, rows_of(score, value), 1)[0]
    found = auc(partial.scores())
    assert found is not None
    assert abs(found[0] - sk.roc_auc_score(value, score)) < 5e-5


# --- ids ---


def columns_of(*ids: bytes) -> "npt.NDArray[np.uint8]":
    """Ids as rows of bytes."""
    return np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=20))
def test_ids_survive_their_columns(ids: list[bytes]) -> None:
    assert id_bytes(id_columns(columns_of(*ids))).tobytes() == b"".join(ids)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_the_instant_of_a_uuid7_is_read_back(instant_ms: int, random_bits: int) -> None:
    made = uuid7(instant_ms, random_bits)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    columns = id_columns(columns_of(made.bytes))
    assert int(id_instants_ms(columns)[0]) == instant_ms
    assert int(id_hours(columns)[0]) == instant_ms // 3_600_000


def test_other_ids_carry_no_hour() -> None:
    ids = columns_of(bytes(16), bytes([255]) * 16, bytes.fromhex("9f1c7f5a0e6b4d3c8a2b1c0d9e8f7a6b"))
    assert id_hours(id_columns(ids)).tolist() == [NO_HOUR] * 3


def test_samples_by_hash_are_unbiased_nested_and_the_same_on_both_sides() -> None:
    rng = np.random.default_rng(6)
    instant = 1_362_096_000_000
    columns = id_columns(
        columns_of(*(uuid7(instant + int(at), int(rng.integers(0, 2**62))).bytes for at in range(20_000)))
    )
    shares = hash_shares(columns)
    assert ((shares >= 0) & (shares < 1)).all()
    for rate in (0.01, 0.05, 0.5):
        assert np.mean(shares < rate) == pytest.approx(rate, abs=4 * np.sqrt(rate / 20_000))
    counts = np.bincount(hash_buckets(columns, 16), minlength=16)
    assert counts.min() > 1_000
    assert hash_shares(id_columns(id_bytes(columns))).tolist() == shares.tolist()
