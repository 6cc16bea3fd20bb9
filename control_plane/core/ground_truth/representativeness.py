"""Whether the labelled predictions are like all of them, and metrics that are right if they are not.

Labels that go missing at random only widen intervals. Where they go missing by score (only what was approved is ever
repaid), metrics over labelled rows are of another population. Scores of all predictions are known, so that can be seen,
and undone as far as scores tell: each labelled row is weighted by share of all / share of labelled in its score bin.

The labelled are a part of all. If they are a random part of L out of N rows, the PSI between both is about
(B - 1)(1/L - 1/N) in B bins; what is above that is debiased PSI. The chi-square test compares labelled with unlabelled
rows, which are independent. A warning needs both: surely different (p < 1e-3) and by as much as matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from control_plane.core.ground_truth.coverage import PartCoverage
from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.metrics import Labelled, MetricValue, metrics_from
from control_plane.core.ground_truth.partials import (
    LOGIT_MAX,
    SCORE_BINS,
    SUMS,
    Float64s,
    Partial,
    score_bin_edges,
)
from control_plane.core.statistics import chi_square, psi

BINS = 10
"""Score bins of equal size among all predictions: what a PSI is usually read by."""
BIN_LABELLED_MIN = 20
"""Labelled rows below which a bin is merged with its neighbour: its weight would be noise."""
P_MAX = 1e-3
PSI_MIN = 0.02
"""Debiased PSI from which it matters; 0.1 is what drift monitoring calls a moderate change, and metrics of a part that
was chosen by score are off long before."""
WEIGHT_MAX = 20.0
"""Weights are capped: beyond this one row speaks for too many, and the bias that stays is smaller than the noise."""
ROWS_MIN = 100
"""Labelled or unlabelled rows below which nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How labelled rows compare with all. B bins."""

    representative: bool
    psi: float
    psi_chance: float
    p_value: float
    edges: Float64s
    """Interior edges as probabilities, ascending; shape (B - 1,)."""
    weights: Float64s
    """Of a labelled row in each bin; shape (B,)."""
    weighted: tuple[MetricValue, ...]
    """Metrics with these weights, and `base_rate`, the share of positives."""
    explanation: str


def likeness(partial: Partial, slices: Sequence[PartCoverage] = ()) -> Likeness | None:
    """Compare the labelled predictions of a binary label with all mature ones; None if too little is known.

    Args:
        partial: of mature predictions alone.
        slices: named in the explanation if they are labelled much less than others.
    """
    by_label, everything = partial.scores(), partial.all_scores()
    labelled = by_label.sum(axis=0)
    n_all, n_labelled = int(everything.sum()), int(labelled.sum())
    rest = np.maximum(everything - labelled, 0)
    if n_labelled < ROWS_MIN * partial.design or rest.sum() < ROWS_MIN * partial.design:
        return None
    cuts = _cuts(everything, labelled)
    all_bins, known_bins, rest_bins = (_binned(cells, cuts) for cells in (everything, labelled, rest))
    bins = len(all_bins)
    if bins < 2:
        return None
    chance = (bins - 1) * (1 / n_labelled - 1 / n_all) * partial.design
    far = psi(all_bins, known_bins)
    # A sample's counts stand for more rows than were seen.
    _, _, p_value = chi_square(np.rint(known_bins / partial.design), np.rint(rest_bins / partial.design))
    matters = p_value < P_MAX and far - chance >= PSI_MIN
    weights = np.clip((all_bins / n_all) / np.maximum(known_bins / n_labelled, 1e-12), 0, WEIGHT_MAX)
    weighted = weighted_metrics(partial, np.repeat(weights, np.diff([0, *cuts, SCORE_BINS])))
    return Likeness(
        representative=not matters,
        psi=far,
        psi_chance=chance,
        p_value=p_value,
        edges=score_bin_edges()[np.array(cuts, np.int64) - 1],
        weights=weights,
        weighted=weighted,
        explanation=_explained(matters, far, chance, all_bins, known_bins, slices),
    )


def weighted_metrics(partial: Partial, weights: Float64s) -> tuple[MetricValue, ...]:
    """Metrics of a binary label with a weight for each of the SCORE_BINS, and `base_rate`.

    Losses are taken at the middle of each bin, and scaled so that weights of 1 give the exact unweighted sums.
    Standard errors carry Kish's design effect of the weights.

    Args:
        weights: shape (SCORE_BINS,), >= 0.
    """
    counts = partial.scores().astype(np.float64)
    logit = ((np.arange(SCORE_BINS) + 0.5) / SCORE_BINS * 2 - 1) * LOGIT_MAX
    score = 1 / (1 + np.exp(-logit))
    value = np.array([[0.0], [1.0]])
    loss = -np.log(np.where(value == 1, score, 1 - score))
    brier = (score - value) ** 2
    sums = np.zeros(len(SUMS))
    for name, column, power in (
        ("log_loss", loss, 1),
        ("log_loss_squared", loss, 2),
        ("brier", brier, 1),
        ("brier_squared", brier, 2),
    ):
        plain = float((counts * column**power).sum())
        exact = partial.sum_of(name)
        ratio = exact / plain if plain > 0 and exact > 0 else 1.0
        sums[SUMS.index(name)] = ratio * float((counts * column**power * weights).sum())
    for name, source in (("log_loss_positive", loss), ("brier_positive", brier)):
        sums[SUMS.index(name)] = float((counts[1] * source[1] * weights).sum())
    half = SCORE_BINS // 2
    heavy = counts * weights
    right = float(heavy[0, :half].sum() + heavy[1, half:].sum())
    squared = (counts * weights**2).sum(axis=1) * partial.design
    known = Labelled(
        right=right,
        scores=heavy,
        sums=sums,
        weight=heavy.sum(axis=1),
        weight_squared=squared,
        doubt=np.zeros(2),
    )
    metrics = metrics_from(known, "binary")
    total = float(heavy.sum())
    if total <= 0:
        return metrics
    rate = float(heavy[1].sum()) / total
    effective = total**2 / float(squared.sum())
    base = MetricValue(
        name="base_rate",
        value=rate,
        standard_error=float(np.sqrt(rate * (1 - rate) / effective)),
        sample_size=max(1, round(effective)),
    )
    return (*(replace(one, sample_size=min(one.sample_size, base.sample_size)) for one in metrics), base)


def _cuts(everything: Int64s, labelled: Int64s) -> list[int]:
    """First cells of the second and later bins: of equal size among all, with some labelled rows in each."""
    total, reached = float(everything.sum()), np.cumsum(everything)
    wanted = np.searchsorted(reached, total * np.arange(1, BINS) / BINS) + 1
    cuts: list[int] = []
    before = 0
    known = np.concatenate([[0], np.cumsum(labelled)])
    for cut in sorted({int(one) for one in wanted if 0 < one < SCORE_BINS}):
        if known[cut] - known[before] >= BIN_LABELLED_MIN and reached[-1] > reached[cut - 1]:
            cuts.append(cut)
            before = cut
    while cuts and known[-1] - known[cuts[-1]] < BIN_LABELLED_MIN:
        cuts.pop()
    return cuts


def _binned(cells: Int64s, cuts: Sequence[int]) -> Int64s:
    return np.asarray(np.add.reduceat(cells, [0, *cuts]), np.int64)


def _explained(
    matters: bool, far: float, chance: float, everything: Int64s, labelled: Int64s, slices: Sequence[PartCoverage]
) -> str:
    known = labelled.sum() / everything.sum()
    if not matters:
        return (
            f"Labelled predictions are like all of them: their scores are {far:.4f} apart (PSI; chance alone gives "
            f"{chance:.4f})."
        )
    share = labelled / np.maximum(everything, 1)
    low, high = int(np.argmin(share)), int(np.argmax(share))
    place = ["lowest", "highest"]
    where = (
        f"{share[0]:.0%} of the predictions with the {place[0]} scores have an outcome, {share[-1]:.0%} of those with "
        f"the {place[1]}"
        if {low, high} == {0, len(share) - 1}
        else f"from {share[low]:.0%} to {share[high]:.0%} of the predictions of a score bin have an outcome"
    )
    least = sorted((part for part in slices if part.mature >= ROWS_MIN), key=lambda part: part.share)[:1]
    of_slice = (
        f" Least of the slices: {least[0].name}, {least[0].share:.0%}." if least and least[0].share < known else ""
    )
    return (
        f"Labelled predictions are no random sample: {where} (PSI {far:.3f}; chance alone gives {chance:.3f}). Metrics "
        f"over labelled predictions are off; the weighted ones correct for the score.{of_slice}"
    )
