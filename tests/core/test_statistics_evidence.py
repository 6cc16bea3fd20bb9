"""Statistics of weaker evidence: concept, forecast, embeddings, expected performance, proxies, seasons, consumers."""

import doctest
import importlib
import math
import subprocess
import sys
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from control_plane.core import statistics as library
from control_plane.core.statistics.cbpe import calibration, expected_metrics
from control_plane.core.statistics.concept import concept_drift
from control_plane.core.statistics.correlation import rank_correlation
from control_plane.core.statistics.downstream import ConsumerDrop, attribute
from control_plane.core.statistics.embeddings import nearest, stability
from control_plane.core.statistics.forecast import crossing
from control_plane.core.statistics.sample import InvalidSample
from control_plane.core.statistics.season import YEAR, period_windows, rebinned, usual_psi

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ROOT = Path(__file__).resolve().parents[2]


class TestConcept:
    RATES = np.linspace(0.05, 0.6, 10)

    def drawn(self, rng: np.random.Generator, rows: int, rates: Floats) -> tuple[Ints, Ints]:
        total = rng.multinomial(rows, np.full(10, 0.1))
        return total, rng.binomial(total, rates)

    @pytest.mark.parametrize("rows", [200, 2_000, 50_000])
    def test_without_a_change_the_test_rejects_one_time_in_twenty(self, rows: int) -> None:
        rng = np.random.default_rng(1)
        found = [
            concept_drift(*self.drawn(rng, rows, self.RATES), *self.drawn(rng, rows, self.RATES)) for _ in range(400)
        ]
        rejected = sum(one.p_value < 0.05 for one in found)
        assert stats.binom.cdf(3, 400, 0.05) < stats.binom.cdf(rejected, 400, 0.05) < 1 - 1e-3
        # The squared distance is debiased: chance alone leaves it at 0 about half the time.
        assert 0.3 < np.mean([one.distance == 0 for one in found]) < 0.85

    def test_a_shift_of_scores_alone_is_none(self) -> None:
        rng = np.random.default_rng(2)
        total = rng.multinomial(20_000, np.linspace(1, 3, 10) / np.linspace(1, 3, 10).sum())
        found = concept_drift(*self.drawn(rng, 20_000, self.RATES), total, rng.binomial(total, self.RATES))
        assert found.p_value > 0.01

    def test_a_change_is_found_at_its_size(self) -> None:
        rng = np.random.default_rng(3)
        found = concept_drift(*self.drawn(rng, 50_000, self.RATES), *self.drawn(rng, 50_000, self.RATES + 0.1))
        assert found.p_value < 1e-9
        assert found.distance == pytest.approx(0.1, abs=0.01)

    def test_too_little_says_nothing_and_nonsense_is_refused(self) -> None:
        none = np.zeros(3, np.int64)
        assert concept_drift(none, none, none, none).p_value == 1.0
        one = np.array([1, 0, 0])
        assert concept_drift(one, none, one, one).freedom == 0
        with pytest.raises(InvalidSample, match="more positives"):
            concept_drift(one, 2 * one, one, one)
        with pytest.raises(InvalidSample, match="same score bins"):
            concept_drift(one, none, one[:2], none[:2])


class TestForecast:
    def test_noise_crosses_seldom(self) -> None:
        rng = np.random.default_rng(4)
        times = np.arange(40.0)
        alarms = sum(crossing(times, rng.normal(0.3, 0.02, 40), 0.6, 39.0) is not None for _ in range(400))
        assert alarms / 400 < 0.09

    @given(slope=st.floats(1e-4, 1e-1), noise=st.floats(0, 1e-3), points=st.integers(8, 60))
    def test_a_steady_rise_is_extended(self, slope: float, noise: float, points: int) -> None:
        times = np.arange(points, dtype=np.float64)
        wobble = noise * slope * (-1.0) ** np.arange(points)
        found = crossing(times, slope * times + wobble, slope * (points + 9), points - 1.0)
        assert found == pytest.approx(10.0, abs=1.0)

    def test_a_wild_look_does_not_move_it(self) -> None:
        times, scores = np.arange(20.0), np.arange(20.0) / 100
        scores[7] = 1.0
        assert crossing(times, scores, 0.3, 19.0) == pytest.approx(11.0, abs=0.5)

    @pytest.mark.parametrize(
        "scores", [[0.5] * 9, [0.9 - at / 10 for at in range(9)], [0.7 + at / 100 for at in range(9)]]
    )
    def test_flat_falling_or_there_already_forecast_nothing(self, scores: list[float]) -> None:
        assert crossing(range(9), scores, 0.6, 8.0) is None

    def test_every_time_has_a_score(self) -> None:
        with pytest.raises(InvalidSample, match="one score for each time"):
            crossing(list(range(9)), [0.1] * 8, 0.6, 9.0)

    def test_too_few_or_not_finite(self) -> None:
        assert crossing([1, 2], [0.1, 0.2], 0.6, 2.0) is None
        assert crossing(range(9), [math.nan] * 9, 0.6, 9.0) is None
        assert crossing([5.0] * 9, list(range(9)), 0.6, 9.0) is None


class TestEmbeddings:
    @given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 60), d=st.integers(2, 8))
    def test_a_turn_and_a_scale_change_nothing(self, seed: int, n: int, d: int) -> None:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, d))
        turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
        found = stability(x, 2.5 * x @ turn)
        assert found.procrustes_cosine == pytest.approx(1, abs=1e-9)
        assert found.cka == pytest.approx(1, abs=1e-9)
        assert found.knn_jaccard == pytest.approx(1, abs=0.02)  # ties at the tenth place may fall otherwise

    def test_neighbours_are_those_of_a_plain_search(self) -> None:
        x = np.random.default_rng(5).normal(size=(40, 5))
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        for row, found in enumerate(nearest(x)):
            like = sorted((other for other in range(40) if other != row), key=lambda one: -float(unit[row] @ unit[one]))
            assert set(found.tolist()) == set(like[:10])

    def test_noise_in_between_and_another_space(self) -> None:
        rng = np.random.default_rng(6)
        x = rng.normal(size=(300, 16))
        little, much = stability(x, x + 0.1 * rng.normal(size=x.shape)), stability(x, x + rng.normal(size=x.shape))
        other = stability(x, rng.normal(size=(300, 16)))
        assert 1 > little.knn_jaccard > much.knn_jaccard > other.knn_jaccard
        assert other.knn_jaccard < 0.1
        assert little.cka > much.cka > other.cka

    def test_very_large_numbers_are_numbers(self) -> None:
        x = np.random.default_rng(12).normal(size=(40, 4))
        assert stability(x * 1e250, x).knn_jaccard == 1.0

    def test_widths_may_differ(self) -> None:
        x = np.random.default_rng(7).normal(size=(50, 4))
        found = stability(x, np.hstack([x, np.zeros((50, 3))]))
        assert (found.knn_jaccard, round(found.procrustes_cosine, 9)) == (1.0, 1.0)

    @pytest.mark.parametrize(
        ("broken", "says"),
        [
            (np.ones((30, 3)), "the same vector"),
            (np.zeros((30, 3)), "row 0 is all zeros"),
            (np.full((30, 3), np.nan), "row 0 holds a value that is not a finite number"),
            (np.ones((5, 3)), "there are 5 anchors"),
            (np.ones(30), "one row of numbers per anchor"),
            (np.full((30, 3), "a"), "one row of numbers per anchor"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(self, broken: npt.NDArray[np.generic], says: str) -> None:
        with pytest.raises(InvalidSample, match=says):
            stability(np.random.default_rng(8).normal(size=(30, 3)), broken)
        with pytest.raises(InvalidSample, match="same anchors"):
            stability(np.eye(30), np.eye(40))


class TestExpectedPerformance:
    """Scores that are calibrated; the current ones cluster where they are hard."""

    BINS = 64
    MIDDLE = (np.arange(BINS) + 0.5) / BINS

    def drawn(self, rng: np.random.Generator, rows: int, a: float, b: float) -> tuple[Floats, Ints]:
        score = rng.beta(a, b, rows)
        return score, (rng.random(rows) < score).astype(np.int64)

    def counted(
        self, score: Floats, label: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        at = np.minimum((score * self.BINS).astype(int), self.BINS - 1)
        return np.bincount(at, minlength=self.BINS), np.bincount(at[label == 1], minlength=self.BINS)

    @pytest.mark.parametrize(("a", "b"), [(1, 3), (4, 4), (0.5, 0.5)])
    def test_it_is_the_realised_metric_under_covariate_shift(self, a: float, b: float) -> None:
        rng = np.random.default_rng(9)
        known = calibration(*self.counted(*self.drawn(rng, 60_000, 1, 1)))
        assert known is not None
        score, label = self.drawn(rng, 20_000, a, b)
        found = expected_metrics(self.counted(score, label)[0], known, self.MIDDLE >= 0.5, self.MIDDLE)
        clipped = np.clip(score, 1e-6, 1 - 1e-6)
        realised = {
            "accuracy": np.mean((score >= 0.5) == (label == 1)),
            "auc": roc_auc_score(label, score),
            "log_loss": -np.mean(np.where(label == 1, np.log(clipped), np.log1p(-clipped))),
            "brier": np.mean((score - label) ** 2),
        }
        for name, truth in realised.items():
            # Four errors, and what 64 bins cost where the log-loss is steep.
            assert abs(found[name].value - truth) < 4 * found[name].standard_error + 0.004, name

    def test_it_is_blind_to_concept_drift(self) -> None:
        rng = np.random.default_rng(10)
        known = calibration(*self.counted(*self.drawn(rng, 60_000, 1, 1)))
        assert known is not None
        score, _ = self.drawn(rng, 20_000, 1, 1)
        turned = (rng.random(score.size) < 1 - score).astype(np.int64)
        found = expected_metrics(self.counted(score, turned)[0], known, self.MIDDLE >= 0.5, self.MIDDLE)
        assert found["auc"].value > 0.8
        assert roc_auc_score(turned, score) < 0.5

    def test_the_rates_rise_and_fill_gaps(self) -> None:
        found = calibration(np.array([100, 0, 100, 100]), np.array([40, 0, 20, 90]))
        assert found is not None
        assert found.rate.tolist() == sorted(found.rate.tolist())
        assert found.rate[0] == pytest.approx(0.3)
        assert np.isfinite(found.error).all()

    def test_nothing_to_stand_on(self) -> None:
        assert calibration(np.array([50, 50]), np.array([10, 20])) is None
        assert calibration(np.array([500, 500]), np.array([0, 0])) is None
        known = calibration(np.array([500, 500]), np.array([100, 400]))
        assert known is not None
        assert expected_metrics(np.zeros(2, np.int64), known, np.array([False, True]), np.array([0.2, 0.8])) == {}
        with pytest.raises(InvalidSample):
            calibration(np.array([1, 2]), np.array([2, 2]))


class TestCorrelation:
    @given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=8, max_size=40))
    def test_it_is_scipys(self, pairs: list[tuple[int, int]]) -> None:
        x, y = (np.array(one, np.float64) for one in zip(*pairs, strict=True))
        found = rank_correlation(x, y)
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            assert found is None
            return
        assert found is not None
        assert found.value == pytest.approx(float(stats.spearmanr(x, y).statistic), abs=1e-9)
        assert -1 <= found.low <= found.value <= found.high <= 1

    def test_pairs_that_are_not_known_are_left_out(self) -> None:
        found = rank_correlation([*range(9), math.nan], [*range(9), 3.0])
        assert found is not None
        assert found.pairs == 9


class TestSeason:
    @given(
        st.lists(st.integers(0, 500), min_size=4, max_size=12),
        st.lists(st.floats(-5, 15), min_size=1, max_size=8, unique=True),
    )
    def test_moved_counts_are_as_many(self, counts: list[int], edges: list[float]) -> None:
        old = np.arange(len(counts) - 2, dtype=np.float64)
        moved = rebinned(np.array(counts), old, np.array(sorted(edges)))
        assert moved.sum() == sum(counts)
        assert moved[-1] == counts[-1]
        assert moved.min() >= 0

    @given(st.lists(st.integers(0, 500), min_size=5, max_size=12), st.data())
    def test_shared_edges_are_exact(self, counts: list[int], data: st.DataObject) -> None:
        old = np.arange(len(counts) - 2, dtype=np.float64)
        kept = sorted(data.draw(st.sets(st.sampled_from(old.tolist()), min_size=1)))
        cuts = [0, *(int(edge) + 1 for edge in kept), len(counts) - 1]
        wanted = [sum(counts[a:b]) for a, b in pairwise(cuts)]
        assert rebinned(np.array(counts), old, np.array(kept)).tolist()[:-1] == wanted

    def test_a_like_year_is_usual_and_a_new_one_is_not(self) -> None:
        rng = np.random.default_rng(11)
        summer, winter = np.full(10, 0.1), np.linspace(1.8, 0.2, 10) / 10
        reference = rng.multinomial(50_000, summer)
        usual = usual_psi(reference, rng.multinomial(5_000, winter, 5))
        assert usual == pytest.approx(usual_psi(reference, rng.multinomial(5_000, winter, 5)), rel=0.2)
        assert usual > 0.2
        assert usual_psi(reference, rng.multinomial(5_000, winter, 2)) == 0.0
        assert usual_psi(np.zeros(10, np.int64), rng.multinomial(5_000, winter, 5)) == 0.0
        with pytest.raises(InvalidSample):
            usual_psi(reference, np.zeros((3, 4), np.int64))

    def test_windows_are_of_the_same_weekday(self) -> None:
        start, end = date(2026, 3, 4), date(2026, 3, 11)
        for begin, until in period_windows(start, end, years=2):
            assert begin.weekday() == start.weekday()
            assert until - begin == end - start
            assert abs((start - begin).days % YEAR.days - 0) in (0, 7, 14, YEAR.days - 7, YEAR.days - 14)


def drop(consumer: str, upstream: str, size: float, error: float = 0.2, own: bool = False) -> ConsumerDrop:
    return ConsumerDrop(
        consumer=consumer,
        drop=size,
        standard_error=error,
        upstream=frozenset(upstream.split()),
        own_cause=own,
        sample_size=500,
    )


class TestDownstream:
    def test_the_common_upstream_of_all_that_is_bad_takes_the_blame(self) -> None:
        found = attribute([drop("a", "u x", 2), drop("b", "u y", 2), drop("c", "x y", 0)], {"u", "x", "y"})
        assert found["u"].blame > 0.8
        assert found["u"].p_value < 0.05
        assert max(found["x"].drop, found["y"].drop) < found["u"].drop / 4

    def test_healthy_readers_speak_against_it(self) -> None:
        bad = [drop("a", "u", 2), drop("b", "u", 2)]
        well = [drop(f"c{at}", "u", 0) for at in range(4)]
        assert attribute([*bad, *well], {"u"})["u"].drop < attribute(bad, {"u"})["u"].drop

    def test_a_cause_of_its_own_says_nothing_of_others(self) -> None:
        found = attribute([drop("a", "u", 3, own=True), drop("b", "u", 0)], {"u"})["u"]
        assert (found.drop, found.troubled, found.healthy) == (0.0, (), ("b",))

    @given(st.lists(st.tuples(st.sampled_from(["u", "u v", "v w", "w"]), st.floats(-2, 0)), max_size=8))
    def test_without_trouble_nobody_is_blamed(self, consumers: list[tuple[str, float]]) -> None:
        told = [drop(f"c{at}", upstream, size) for at, (upstream, size) in enumerate(consumers)]
        for one in attribute(told, {"u", "v", "w"}).values():
            assert (one.drop, one.blame, one.p_value) == (0.0, 0.0, 1.0)

    @given(
        st.lists(
            st.tuples(st.sampled_from(["u", "u v", "v w", "w", "u v w"]), st.floats(-3, 3), st.floats(0, 1)), max_size=8
        )
    )
    def test_every_number_makes_sense(self, consumers: list[tuple[str, float, float]]) -> None:
        told = [drop(f"c{at}", upstream, size, error) for at, (upstream, size, error) in enumerate(consumers)]
        for one in attribute(told, {"u", "w"}).values():
            assert one.upstream in {"u", "w"}
            assert 0 <= one.blame <= 1
            assert 0 <= one.p_value <= 1
            assert one.drop >= 0
            assert one.standard_error >= 0

    def test_numbers_that_are_none_are_left_out(self) -> None:
        assert attribute([drop("a", "u", math.nan)], {"u"}) == {}
        assert attribute([], {"u"}) == {}


def test_importing_the_library_imports_no_scipy() -> None:
    code = "import sys, control_plane.core.statistics; print(any(name.startswith('scipy') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_library_has_what_it_lists() -> None:
    for name in library.__all__:
        assert getattr(library, name) is not None
    with pytest.raises(AttributeError):
        library.no_such_thing  # noqa: B018
    assert importlib.import_module("control_plane.core.statistics") is library


def test_the_examples_of_the_page_run() -> None:
    found = doctest.testfile(str(ROOT / "docs" / "statistics.md"), module_relative=False)
    assert (found.failed, found.attempted > 10) == (0, True)
