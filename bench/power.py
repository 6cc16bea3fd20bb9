"""How big a change is found at which sample size: `python -m bench.power` draws docs/power.png.

On the left features, by the tests of every look: ten of two hundred numbers shift, and the share of these that
is called drifted is drawn against the shift, by predictions in the window. On the right models: nothing drifts, the
metric drops, and the share of looks that are not FRESH is drawn against the drop, by outcomes in the window.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from control_plane.core.staleness.evaluation import evaluate_fleet
from control_plane.core.staleness.evidence import Evidence, PerformanceEvidence, PredictionCounts
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import Level
from control_plane.core.statistics.fleet import discoveries, row_drift

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "power.png"
SIZES = (300, 1_000, 3_000, 10_000, 100_000)
SHIFTS = np.linspace(0, 1, 21)
FEATURES, MOVED, BINS = 200, 10, 10
OUTCOMES = (200, 500, 1_000, 5_000, 20_000)
DROPS = np.linspace(0, 0.15, 31)
ROUNDS = 40
LOOKS = 400
AUC, SPREAD, HOLDOUT = 0.80, 0.45, 10_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = StalenessPolicy()

Float64s = npt.NDArray[np.float64]


def found_features(size: int, rng: np.random.Generator) -> Float64s:
    """Share of the shifted features that are called drifted, by shift; the reference has ten windows."""
    edges = stats.norm.ppf(np.arange(1, BINS) / BINS)
    flat = np.full(BINS, 1 / BINS)
    shares = []
    for shift in SHIFTS:
        moved = np.diff(np.concatenate([[0.0], stats.norm.cdf(edges - shift), [1.0]]))
        now = np.where((np.arange(FEATURES) < MOVED)[:, None], moved, flat)
        hits = 0
        for _ in range(ROUNDS):
            then, current = rng.multinomial(10 * size, flat, FEATURES), rng.multinomial(size, now)
            rows = row_drift(then, current, np.full(FEATURES, BINS))
            called = discoveries(rows.p_value[None, :], np.array([POLICY.false_discovery_rate]))[0]
            hits += int((called & (rows.psi_debiased > POLICY.psi_moderate))[:MOVED].sum())
        shares.append(hits / (ROUNDS * MOVED))
    return np.array(shares)


def found_drops(outcomes: int, rng: np.random.Generator) -> Float64s:
    """Share of looks that are not FRESH, by true drop of the metric."""
    flat = np.full(20, 5_000)
    shares = []
    for drop in DROPS:
        items = []
        for _ in range(LOOKS):
            baseline_error, error = SPREAD / np.sqrt(HOLDOUT), SPREAD / np.sqrt(outcomes)
            evidence = Evidence(
                model_version=1,
                trained_until=NOW - timedelta(days=5),
                prediction=PredictionCounts(reference=flat, current=flat),
                performance=PerformanceEvidence(
                    metric="auc",
                    higher_is_better=True,
                    baseline=float(rng.normal(AUC, baseline_error)),
                    baseline_error=float(baseline_error),
                    current=float(rng.normal(AUC - drop, error)),
                    current_error=float(error),
                    sample_size=outcomes,
                ),
            )
            items.append((POLICY, evidence))
        looks = evaluate_fleet(items, NOW)
        shares.append(sum(look.level is not Level.FRESH for look in looks) / LOOKS)
    return np.array(shares)


def main() -> None:
    """Draw both."""
    rng = np.random.default_rng(11)
    drawn = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2)
    for size in SIZES:
        left.plot(SHIFTS, found_features(size, rng), label=f"{size:,}")
    left.set(xlabel="shift of the feature, in its standard deviations", ylabel="called drifted", title="a feature")
    left.legend(title="predictions a window", frameon=False)
    for outcomes in OUTCOMES:
        right.plot(DROPS, found_drops(outcomes, rng), label=f"{outcomes:,}")
    right.axvline(POLICY.performance_tolerance, color="grey", linestyle=":", linewidth=1)
    right.set(xlabel="true drop of the AUC (dotted: the tolerance)", ylabel="looks that are not FRESH", title="a model")
    right.legend(title="outcomes a window", frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(PICTURE, dpi=130)
    sys.stdout.write(f"drew {PICTURE.relative_to(PICTURE.parent.parent)}\n")


if __name__ == "__main__":
    main()
