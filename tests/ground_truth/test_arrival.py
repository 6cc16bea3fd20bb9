"""Provisional numbers: what has arrived, weighted by how fast labels arrive, says what all labels will say."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.ground_truth.arrival import (
    ArrivalCurves,
    Arrived,
    arrived_of,
    delay_quantile,
    expected,
    learned,
)
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import MetricValue, added, labelled_of, metrics_from, metrics_of
from control_plane.core.ground_truth.partials import (
    DELAY_CELLS,
    DELAY_EDGES_S,
    LOGIT_MAX,
    SCORE_BINS,
    Partial,
    Rows,
    merge,
    partials_of,
)
from tests.reference.arrival_twin import Row, weighted_metrics

Floats = npt.NDArray[np.float64]
HOUR_S = 3_600
SPEC = LabelSpec()
ABSENT = LabelSpec(absence_means_negative=True)
HISTORY_H, YOUNG_H = 10 * 24, 7 * 24
PER_HOUR = 60


@dataclass(frozen=True)
class World:
    """Predictions of every hour up to now, hours numbered from 0; `now_s` is the end of the last."""

    at_s: Floats
    score: Floats
    value: Floats
    delay_s: Floats

    @property
    def now_s(self) -> float:
        return float(HISTORY_H + YOUNG_H) * HOUR_S

    def partials(self, spec: LabelSpec, *, final: bool = False) -> list[Partial]:
        """By hour, of what has arrived by now; `final`: of all that will arrive."""
        hour = (self.at_s // HOUR_S).astype(np.int64)
        mature = (hour + 1) * HOUR_S + spec.window.total_seconds() <= self.now_s
        here = self.delay_s <= (spec.window.total_seconds() if final else self.now_s - self.at_s)
        here &= self.delay_s <= spec.window.total_seconds()
        rows = Rows(
            group=hour,
            score=self.score,
            value=np.where(here, self.value, np.nan),
            delay_us=(self.delay_s * 1e6).astype(np.int64),
            late=np.zeros(len(hour), np.bool_),
            outside=np.zeros(len(hour), np.bool_),
            mature=mature | final,
            imputed=np.zeros(len(hour), np.bool_),
        )
        return partials_of(spec, rows, HISTORY_H + YOUNG_H)


def world(seed: int, *, negatives_h: float = 2.0, positives_h: float = 40.0, quiet_negatives: bool = False) -> World:
    """Calibrated scores; positives that take longer than negatives, or negatives of which nothing is ever heard."""
    rng = np.random.default_rng(seed)
    n = (HISTORY_H + YOUNG_H) * PER_HOUR
    at_s = np.sort(rng.uniform(0, (HISTORY_H + YOUNG_H) * HOUR_S, n))
    score = 1 / (1 + np.exp(-rng.normal(-1, 1.5, n)))
    value = (rng.random(n) < score).astype(np.float64)
    median_s = np.where(value == 1, positives_h, negatives_h) * HOUR_S
    delay_s = median_s * np.exp(rng.normal(0, 0.8, n))
    if quiet_negatives:
        delay_s = np.where(value == 1, delay_s, np.inf)
        delay_s = np.minimum(delay_s, 1e9)
    return World(at_s, score, value, delay_s)


def curves_of(made: World, spec: LabelSpec) -> ArrivalCurves:
    """Learned from the history."""
    parts = made.partials(spec)[:HISTORY_H]
    found = learned([merge(parts[at : at + 24]) for at in range(0, HISTORY_H, 24)], spec)
    assert found is not None
    return found


def provisional(made: World, spec: LabelSpec, *, naive: bool = False) -> dict[str, MetricValue]:
    """Metrics over the young hours."""
    curves = curves_of(made, spec)
    labelled = []
    for hour, partial in enumerate(made.partials(spec)[HISTORY_H:], HISTORY_H):
        here = arrived_of(curves, spec, hour * HOUR_S, made.now_s)
        if naive:
            labelled.append(labelled_of([(partial, 1.0)], spec.task))
        elif here.enough:
            labelled.append(expected(partial, 1.0, spec, here))
    return {metric.name: metric for metric in metrics_from(added(labelled), spec.task)}


def truth(made: World, spec: LabelSpec) -> dict[str, float]:
    """Metrics over the young hours once all is here."""
    whole = merge(made.partials(spec, final=True)[HISTORY_H:])
    return {metric.name: metric.value for metric in metrics_of(whole, spec.task)}


def inside(metric: MetricValue, value: float) -> bool:
    """Within its interval."""
    low, high = metric.interval
    return low <= value <= high


@pytest.mark.parametrize("spec", [SPEC, ABSENT], ids=["both classes are heard of", "absence means negative"])
def test_slow_positives_mislead_the_naive_metric_and_not_the_corrected_one(spec: LabelSpec) -> None:
    hits = dict.fromkeys(("auc", "accuracy", "log_loss", "brier"), 0)
    misled = dict(hits)
    worlds = 12
    for seed in range(worlds):
        made = world(seed, quiet_negatives=spec.absence_means_negative)
        final = truth(made, spec)
        found, naive = provisional(made, spec), provisional(made, spec, naive=True)
        for name in hits:
            hits[name] += inside(found[name], final[name])
            misled[name] += name in naive and not inside(naive[name], final[name])
    assert min(hits.values()) >= worlds - 2, hits
    # Without both classes the naive metrics are of positives alone, or of nothing.
    assert misled["log_loss"] >= worlds - 1, misled
    assert misled["accuracy"] >= worlds - 1, misled


def test_hours_of_a_number_count_as_much_as_they_will() -> None:
    """A bad hour of which a tenth has arrived weighs as much as a good one of which all has."""
    spec = LabelSpec(task="regression")
    rng = np.random.default_rng(3)
    n = 20_000
    hour = np.repeat([0, 1], n)
    error = rng.normal(0, np.where(hour == 0, 1.0, 5.0))
    value = rng.normal(100, 10, 2 * n)
    here = np.where(hour == 0, 1.0, 0.1) > rng.random(2 * n)
    parts = []
    for seen in (here, np.ones(2 * n, np.bool_)):
        rows = Rows(
            group=hour,
            score=value + error,
            value=np.where(seen, value, np.nan),
            delay_us=np.zeros(2 * n, np.int64),
            late=np.zeros(2 * n, np.bool_),
            outside=np.zeros(2 * n, np.bool_),
            mature=np.zeros(2 * n, np.bool_),
            imputed=np.zeros(2 * n, np.bool_),
        )
        parts.append(partials_of(spec, rows, 2))
    shares = (np.ones(3), np.full(3, 0.1))
    labelled = [
        expected(partial, 1.0, spec, Arrived(share=share, error=np.zeros(3)))
        for partial, share in zip(parts[0], shares, strict=True)
    ]
    found = {metric.name: metric for metric in metrics_from(added(labelled), spec.task)}
    final = {metric.name: metric.value for metric in metrics_of(merge(parts[1]), spec.task)}
    naive = {metric.name: metric for metric in metrics_of(merge(parts[0]), spec.task)}
    for name in ("rmse", "mae"):
        assert inside(found[name], final[name]), name
        assert not inside(naive[name], final[name]), name


def test_intervals_of_provisional_numbers_are_wider_and_not_without_end() -> None:
    made = world(1)
    found = provisional(made, SPEC)
    final = {metric.name: metric for metric in metrics_of(merge(made.partials(SPEC, final=True)[HISTORY_H:]), "binary")}
    for name, metric in found.items():
        assert final[name].standard_error < metric.standard_error < 8 * final[name].standard_error, name
        assert metric.sample_size < final[name].sample_size


@given(st.integers(0, 2**32), st.integers(4, 60), st.tuples(*[st.floats(0.06, 1.0)] * 4))
@settings(max_examples=60, deadline=None)
def test_weights_by_partials_equal_weights_by_rows(seed: int, n: int, shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seed)
    hour = rng.integers(0, 2, n)
    # Scores at the middle of their bins: the partial then knows them exactly.
    score = 1 / (1 + np.exp(-((rng.integers(300, 700, n) + 0.5) / SCORE_BINS * 2 - 1) * LOGIT_MAX))
    value = (rng.random(n) < 0.5).astype(np.float64)
    rows = Rows(
        group=hour,
        score=score,
        value=value,
        delay_us=np.zeros(n, np.int64),
        late=np.zeros(n, np.bool_),
        outside=np.zeros(n, np.bool_),
        mature=np.zeros(n, np.bool_),
        imputed=np.zeros(n, np.bool_),
    )
    by_hour = np.array(shares).reshape(2, 2)
    labelled = [
        expected(partial, 1.0, SPEC, Arrived(share=np.array([by_hour[at].min(), *by_hour[at]]), error=np.zeros(3)))
        for at, partial in enumerate(partials_of(SPEC, rows, 2))
    ]
    found = {metric.name: metric.value for metric in metrics_from(added(labelled), "binary")}
    twin = weighted_metrics(
        [Row(float(s), int(v), float(by_hour[h, int(v)])) for s, v, h in zip(score, value, hour, strict=True)]
    )
    assert found == pytest.approx(twin, rel=1e-9)


@given(st.integers(0, 2**32), st.integers(60, 7 * 86_400))
@settings(max_examples=60, deadline=None)
def test_a_curve_rises_from_nothing_to_all(seed: int, window_s: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 40, DELAY_CELLS)
    counts[1 + int(np.searchsorted(DELAY_EDGES_S, window_s)) :] = 0
    partial = partial_of_delays(counts)
    spec = LabelSpec(window=timedelta(seconds=window_s))
    found = learned([partial] * 4, spec)
    if counts.sum() * 4 < 20:
        assert found is None
        return
    assert found is not None
    ages = np.sort(np.concatenate([[-1.0, 0.0, window_s, 2 * window_s], rng.uniform(0, window_s, 50)]))
    share, error = found.all.share(ages), found.all.error(ages)
    assert (np.diff(share) >= -1e-12).all()
    assert share[0] == 0
    assert share[-1] == share[-2] == 1
    assert (error >= 0).all()
    assert error[-1] == 0


def partial_of_delays(counts: npt.NDArray[np.int64]) -> Partial:
    """Outcomes with delays of these cells."""
    edges = np.concatenate([[0.0], np.maximum(DELAY_EDGES_S, 0.5)[1:], [2.0**24]])
    delay = np.repeat(edges, counts)
    n = len(delay)
    rows = Rows(
        group=np.zeros(n, np.int64),
        score=np.full(n, 0.5),
        value=np.zeros(n),
        delay_us=(delay * 1e6).astype(np.int64),
        late=np.zeros(n, np.bool_),
        outside=np.zeros(n, np.bool_),
        mature=np.ones(n, np.bool_),
        imputed=np.zeros(n, np.bool_),
    )
    return partials_of(SPEC, rows, 1)[0]


def test_few_outcomes_teach_nothing() -> None:
    assert learned([], SPEC) is None
    assert learned([partial_of_delays(np.eye(1, DELAY_CELLS, 5, dtype=np.int64)[0] * 19)], SPEC) is None


def test_quantiles_of_delays() -> None:
    counts = np.zeros(DELAY_CELLS, np.int64)
    assert delay_quantile(counts, 0.5) == 0.0
    counts[0], counts[12] = 50, 50  # half before the prediction, half between 1024 and 2048 seconds
    assert delay_quantile(counts, 0.5) == 0.0
    assert delay_quantile(counts, 0.75) == pytest.approx(1024 * 2**0.5)
    assert delay_quantile(counts, 1.0) == pytest.approx(2048)
