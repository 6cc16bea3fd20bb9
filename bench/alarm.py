"""[false_stale_per_1000_model_days] How often a fleet in which nothing changes is called STALE.

Models of 200 features and a score, predictions, outcomes and a finite reference, of distributions that never move,
looked at over overlapping windows of 7 days for 30 days, through the real path: `evaluate_fleet`, then `settle` with
its hysteresis, default policy. At each size from 100 to 100,000 predictions a window. The figure is the worst size's
rate of verdicts that became STALE, per 1,000 model-days; asked for is less than 1.

The age is held at 5 days (age is no drift), and the policy's least sizes are set to nothing, or the small windows would
say UNKNOWN and prove nothing. The usual run looks at 100 models of each size every 6 hours (3,000 model-days a size);
`RUNWAY_BENCH_FULL=1` at 500 models every hour.

The peers see the same counts: an alarm where the raw PSI of any feature is above 0.2, and one where a chi-square test
of any feature rejects at 5 %. An alarm that goes on is one alarm.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from scipy import stats

from bench.table import Row
from control_plane.core.staleness.evaluation import evaluate_fleet
from control_plane.core.staleness.evidence import (
    Evidence,
    FeatureTable,
    PerformanceEvidence,
    PredictionCounts,
    flat_feature_table,
)
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import Level, Streak, settle
from control_plane.core.statistics.fleet import row_drift

IDS = ("false_stale_per_1000_model_days",)

SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
FULL = os.environ.get("RUNWAY_BENCH_FULL") == "1"
MODELS = 500 if FULL else 100
STEP = timedelta(hours=1 if FULL else 6)
DAYS = 30
WINDOW = timedelta(days=7)
FEATURES = 200
BINS = 10
SCORE_CELLS = 21
REFERENCE_FACTOR = 10
"""A reference is ten windows: trained on months, looked at by the week."""
LABELLED = 0.5
"""Share of predictions whose outcome is known in time."""
AUC, AUC_SPREAD = 0.80, 0.45
"""The metric, and its standard error times the square root of the outcomes, as DeLong's is at this AUC."""
AGE = timedelta(days=5)
START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = StalenessPolicy(predictions_min=0, labels_min=30)
PSI_ALARM, TEST_LEVEL = 0.2, 0.05

Int64s = npt.NDArray[np.int64]


@dataclass(slots=True)
class Tally:
    """What was counted at one size."""

    size: int
    model_days: float = 0.0
    stale: int = 0
    at_risk: int = 0
    psi: int = 0
    chi_square: int = 0

    def per_1000(self, count: int) -> float:
        """Rate per 1,000 model-days."""
        return 1_000 * count / self.model_days

    @property
    def stale_at_most(self) -> float:
        """Exact (Poisson) upper 95 % bound of the rate."""
        return self.per_1000(1) * float(stats.chi2.ppf(0.95, 2 * (self.stale + 1))) / 2


def run() -> list[Row]:
    """Every size."""
    found = [tally(size, MODELS, seed=at) for at, size in enumerate(SIZES)]
    worst = max(found, key=lambda one: (one.stale, -one.model_days))
    days = sum(one.model_days for one in found)
    everything = Tally(size=0, model_days=days, stale=sum(one.stale for one in found))
    by_size = ", ".join(f"{one.size:,}: {one.stale}" for one in found)
    risky = sum(one.at_risk for one in found)
    return [
        Row(
            id=IDS[0],
            value=worst.per_1000(worst.stale),
            unit="per 1,000 model-days",
            peers={
                "raw PSI > 0.2 on any feature": max(one.per_1000(one.psi) for one in found),
                "chi-square at 5 % on any": max(one.per_1000(one.chi_square) for one in found),
            },
            note=(
                f"Worst of the sizes; false STALE by predictions a window: {by_size}; {found[0].model_days:,.0f} "
                f"model-days each. Over all {days:,.0f}: {everything.per_1000(everything.stale):.2f}, at most "
                f"{everything.stale_at_most:.2f} (95 %); became AT_RISK {risky} times. Asked for < 1."
            ),
        )
    ]


def tally(size: int, models: int, seed: int) -> Tally:
    """One size: models one after the other, so that memory is that of one."""
    found = Tally(size=size, model_days=models * float(DAYS))
    for at in range(models):
        _watch(_Model(np.random.default_rng([seed, at]), size), found)
    return found


@dataclass(slots=True)
class _Model:
    """One model in which nothing changes; counts are drawn by step."""

    rng: np.random.Generator
    size: int
    shares: npt.NDArray[np.float64] = field(init=False)
    reference: Int64s = field(init=False)
    score_shares: npt.NDArray[np.float64] = field(init=False)
    score_reference: Int64s = field(init=False)
    baseline: float = field(init=False)

    def __post_init__(self) -> None:
        # Uneven cells, as a reference's deciles are in any other sample, and some missing.
        self.shares = self.rng.dirichlet(np.full(BINS, 30.0), FEATURES)
        missing = self.rng.uniform(0, 0.05, (FEATURES, 1))
        self.shares = np.hstack([self.shares * (1 - missing), missing])
        self.score_shares = self.rng.dirichlet(np.full(SCORE_CELLS, 20.0))
        rows = self.size * REFERENCE_FACTOR
        self.reference = self.rng.multinomial(rows, self.shares)
        self.score_reference = self.rng.multinomial(rows, self.score_shares)
        self.baseline = AUC + self.rng.normal() * self.baseline_error

    @property
    def baseline_error(self) -> float:
        """Of the holdout, a fifth of the reference."""
        return AUC_SPREAD / float(np.sqrt(self.size * REFERENCE_FACTOR / 5))

    def looks(self) -> Iterator[tuple[datetime, Evidence, FeatureTable]]:
        """Evidence of each look: sums over a window of steps."""
        steps, looks = WINDOW // STEP, timedelta(days=DAYS) // STEP
        rows = self.rng.multinomial(self.size * (steps + looks) // steps, np.full(steps + looks, 1 / (steps + looks)))
        counts = np.stack([self.rng.multinomial(int(one), self.shares) for one in rows])
        scores = self.rng.multinomial(rows, self.score_shares)
        labels = self.rng.binomial(rows, LABELLED)
        # A metric of a window is the mean over its outcomes: neighbouring windows share most of them.
        sums = self.rng.normal(AUC * labels, AUC_SPREAD * np.sqrt(np.maximum(labels, 1e-9)))
        window = counts[:steps].sum(axis=0)
        for at in range(looks):
            inside = slice(at + 1, at + 1 + steps)
            window = window + counts[at + steps] - counts[at]
            now = START + (at + 1) * STEP
            table = flat_feature_table(
                names=NAMES,
                categorical=CATEGORICAL,
                cells=CELLS,
                reference=self.reference.reshape(-1),
                current=window.reshape(-1),
            )
            known = int(labels[inside].sum())
            yield now, self._evidence(now, table, scores[inside].sum(axis=0), float(sums[inside].sum()), known), table

    def _evidence(self, now: datetime, table: FeatureTable, scores: Int64s, total: float, known: int) -> Evidence:
        return Evidence(
            model_version=1,
            trained_until=now - AGE,
            features=table,
            prediction=PredictionCounts(reference=self.score_reference, current=scores),
            performance=PerformanceEvidence(
                metric="auc",
                higher_is_better=True,
                baseline=self.baseline,
                baseline_error=self.baseline_error,
                current=total / known,
                current_error=AUC_SPREAD / float(np.sqrt(known)),
                sample_size=known,
            )
            if known
            else None,
            coverage=0.95,
        )


NAMES = tuple(f"feature_{at}" for at in range(FEATURES))
CATEGORICAL = np.zeros(FEATURES, np.bool_)
CELLS = np.full(FEATURES, BINS + 1)


def _watch(model: _Model, into: Tally) -> None:
    """Thirty days of one model."""
    times, evidence, tables = zip(*model.looks(), strict=True)
    level, streak, since = Level.UNKNOWN, Streak(), START
    psi_before = chi_before = False
    for now, one, table in zip(times, evidence, tables, strict=True):
        [look] = evaluate_fleet([(POLICY, one)], now)
        after, streak = settle(level, streak, look, POLICY, since=since)
        if after is not level:
            into.stale += after is Level.STALE
            into.at_risk += after is Level.AT_RISK
            level, since = after, now
        rows = row_drift(table.reference, table.current, table.cells)
        psi, chi = bool((rows.psi > PSI_ALARM).any()), bool((rows.p_value < TEST_LEVEL).any())
        into.psi += psi and not psi_before
        into.chi_square += chi and not chi_before
        psi_before, chi_before = psi, chi
