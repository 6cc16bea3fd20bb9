"""Are labelled predictions like all of them? Simulated: no false alarms, and weights that undo what a choice did."""

import numpy as np
import pytest

from control_plane.core.ground_truth.coverage import PartCoverage
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import metrics_of
from control_plane.core.ground_truth.partials import SCORE_BINS, Float64s, Partial, Rows, merge_weighted, partials_of
from control_plane.core.ground_truth.representativeness import WEIGHT_MAX, likeness, weighted_metrics


def partial_of(score: Float64s, value: Float64s, labelled: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Partial:
    """Rows of one hour, some with their outcome."""
    n = len(score)
    nothing = np.zeros(n, np.bool_)
    rows = Rows(
        group=np.zeros(n, np.int64),
        score=score,
        value=np.where(labelled, value, np.nan),
        delay_us=np.zeros(n, np.int64),
        late=nothing,
        outside=nothing,
        mature=~nothing,
        imputed=nothing,
    )
    return partials_of(LabelSpec(), rows, 1)[0]


def world(rng: np.random.Generator, n: int) -> tuple[Float64s, Float64s]:
    """Scores, and outcomes that are not quite as the scores say."""
    score = rng.beta(1, 3, n)
    return score, (rng.random(n) < score**1.2).astype(np.float64)


def test_a_random_sample_is_hardly_ever_called_another() -> None:
    rng = np.random.default_rng(1)
    judged = alarms = 0
    for _ in range(1_500):
        score, value = world(rng, int(rng.integers(250, 4_000)))
        found = likeness(partial_of(score, value, rng.random(len(score)) < rng.uniform(0.1, 0.9)))
        judged += found is not None
        alarms += found is not None and not found.representative
    assert judged > 1_200
    assert alarms < 0.01 * judged


def test_a_difference_that_does_not_matter_is_no_warning_however_sure() -> None:
    rng = np.random.default_rng(2)
    score, value = world(rng, 400_000)
    found = likeness(partial_of(score, value, rng.random(len(score)) < 0.5 + 0.05 * (score > 0.3)))
    assert found is not None
    assert found.p_value < 1e-6
    assert found.representative


@pytest.mark.parametrize("seed", range(8))
def test_labels_chosen_by_score_bias_metrics_and_weights_take_it_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, value = world(rng, 40_000)
    chosen = rng.random(len(score)) < 0.08 + 0.85 * (1 - score) ** 2
    everything = np.ones(len(score), np.bool_)
    truth = {one.name: one.value for one in metrics_of(partial_of(score, value, everything), "binary")}
    truth["base_rate"] = float(value.mean())
    partial = partial_of(score, value, chosen)
    plain = {one.name: one for one in metrics_of(partial, "binary")}
    found = likeness(
        partial, [PartCoverage(name="a=b", mature=1_000, known=1), PartCoverage(name="c", mature=5, known=0)]
    )
    assert found is not None
    assert not found.representative
    assert "no random sample" in found.explanation
    assert "a=b, 0%" in found.explanation
    weighted = {one.name: one for one in found.weighted}
    for name in ("accuracy", "log_loss", "base_rate"):
        biased = plain[name].value if name in plain else float(value[chosen].mean())
        assert abs(weighted[name].value - truth[name]) < 0.25 * abs(biased - truth[name]), name
        assert abs(weighted[name].value - truth[name]) < 4 * weighted[name].standard_error + 0.006, name
    assert weighted["accuracy"].standard_error > plain["accuracy"].standard_error
    assert weighted["accuracy"].sample_size < plain["accuracy"].sample_size


def test_weights_of_one_give_the_plain_metrics() -> None:
    rng = np.random.default_rng(3)
    score, value = world(rng, 5_000)
    partial = partial_of(score, value, rng.random(5_000) < 0.6)
    plain = {one.name: one for one in metrics_of(partial, "binary")}
    for one in weighted_metrics(partial, np.ones(SCORE_BINS)):
        if one.name in plain:
            assert one.value == pytest.approx(plain[one.name].value, rel=1e-9)
            assert one.standard_error == pytest.approx(plain[one.name].standard_error, rel=1e-6)


def test_a_bin_without_labels_joins_its_neighbour_and_no_weight_is_beyond_the_cap() -> None:
    rng = np.random.default_rng(4)
    score, value = world(rng, 20_000)
    found = likeness(partial_of(score, value, (score < 0.4) & (rng.random(20_000) < 0.9)))
    assert found is not None
    assert not found.representative
    assert len(found.weights) == len(found.edges) + 1 < 10
    assert found.weights.max() <= WEIGHT_MAX


def test_too_little_or_everything_labelled_says_nothing() -> None:
    rng = np.random.default_rng(5)
    score, value = world(rng, 2_000)
    assert likeness(partial_of(score, value, np.ones(2_000, np.bool_))) is None
    assert likeness(partial_of(score, value, rng.random(2_000) < 0.02)) is None


def test_a_sample_is_judged_by_what_was_seen_not_by_what_it_stands_for() -> None:
    rng = np.random.default_rng(6)
    alarms = 0
    for _ in range(300):
        score, value = world(rng, 1_000)
        part = partial_of(score, value, rng.random(1_000) < 0.5)
        found = likeness(merge_weighted([(part, 50.0)]))
        alarms += found is not None and not found.representative
    assert alarms <= 3
