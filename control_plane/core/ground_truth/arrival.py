"""How fast the truth about a model arrives, and what the truth that is here says of the truth that will be.

Metrics over what has arrived by now are biased whenever one class arrives sooner than the other: a fraud is reported
within a day, an honest payment is only known as such after a month. What mature predictions teach is the *arrival
curve* F_c(t): of the outcomes of class c that arrive at all, the share that is here t after the prediction. A young
hour's outcomes of class c are then weighted by 1 / F_c(age) (inverse probability of having been observed; Horvitz and
Thompson 1952), which makes both classes, and hours of different age, count as they will in the end.

Where absence means negative nothing more is heard of negatives: all that is not a positive now, nor expected to become
one, counts as negative already.

What remains uncertain is added to the standard errors: the spread of the curve between days, where inside a cell of the
delay histogram outcomes arrive, and the chance with which few outcomes arrive. The curve is of the age of the outcome
when it was observed: it holds as far as outcomes are sent soon after that.

For a label that is not binary only hours are balanced, not values: whether small values arrive sooner is not known.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import Labelled, labelled_of
from control_plane.core.ground_truth.partials import (
    DELAY_EDGES_S,
    PROBABILITY_MIN,
    SCORE_BINS,
    SUMS,
    Float64s,
    Partial,
    score_bin_edges,
)

OUTCOMES_MIN = 20
"""Outcomes a curve is learned from at least; a class with fewer arrives as all of them do."""
DAYS_MIN = 3
"""Days that say how much a curve varies between days."""
ARRIVED_MIN = 0.05
"""An hour of which less than this has arrived says too little: one outcome would stand for more than twenty."""
STEPS_PER_HOUR = 8
"""Where an hour's predictions are taken to be, for their ages."""
SECONDS_PER_HOUR = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalCurve:
    """F(t) at the edges of the delay histogram, interpolated in log time between them."""

    window_s: float
    reached: Float64s
    """F at each of `DELAY_EDGES_S`; 1 from the end of the window on."""
    spread: Float64s
    """Standard error of `reached` as a forecast for another day."""
    outcomes: int

    def share(self, age_s: Float64s) -> Float64s:
        """F at these ages; 0 before the prediction."""
        ages = np.asarray(age_s, np.float64)
        knots, reached, _ = self._knots()
        return np.where(ages < 0, 0.0, np.interp(_scale(np.minimum(ages, self.window_s)), knots, reached))

    def error(self, age_s: Float64s) -> Float64s:
        """Standard error of `share`: between days, and from not knowing where inside a cell outcomes arrive.

        Were they all to arrive at one moment of the cell, F would be off by sqrt(u (1 - u)) of the cell's share at the
        fraction u of it; half of that is taken.
        """
        ages = _scale(np.clip(np.asarray(age_s, np.float64), 0, self.window_s))
        knots, reached, spread = self._knots()
        upper = np.clip(np.searchsorted(knots, ages, side="left"), 1, len(knots) - 1)
        fraction = np.clip((ages - knots[upper - 1]) / (knots[upper] - knots[upper - 1]), 0, 1)
        inside = (reached[upper] - reached[upper - 1]) * np.sqrt(fraction * (1 - fraction)) / 2
        return np.asarray(np.hypot(np.interp(ages, knots, spread), inside), np.float64)

    def _knots(self) -> tuple[Float64s, Float64s, Float64s]:
        inside = self.window_s > DELAY_EDGES_S
        return (
            np.append(_scale(DELAY_EDGES_S[inside]), _scale(np.array([self.window_s]))),
            np.append(self.reached[inside], 1.0),
            np.append(self.spread[inside], 0.0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalCurves:
    """Of all outcomes, and of each class."""

    all: ArrivalCurve
    negative: ArrivalCurve
    positive: ArrivalCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """How much of an hour is here, with the standard error of each: all, negatives, positives; shape (3,)."""

    share: Float64s
    error: Float64s

    @property
    def enough(self) -> bool:
        """There is something to go by."""
        return bool(self.share.min() >= ARRIVED_MIN)


def learned(days: Sequence[Partial], spec: LabelSpec) -> ArrivalCurves | None:
    """Curves from mature predictions; None if too few outcomes came.

    Args:
        days: one partial for each day: how they differ says how far the curve can be trusted tomorrow.
    """
    everything = np.array([day.delays() for day in days], np.float64)
    window_s = spec.window.total_seconds()
    if not days or everything.sum() < OUTCOMES_MIN:
        return None
    whole = _curve(everything, window_s)
    if spec.task != "binary":
        return ArrivalCurves(all=whole, negative=whole, positive=whole)
    positive = np.array([day.positive_delays() for day in days], np.float64)
    negative = everything - positive
    return ArrivalCurves(
        all=whole,
        negative=_curve(negative, window_s) if negative.sum() >= OUTCOMES_MIN else whole,
        positive=_curve(positive, window_s) if positive.sum() >= OUTCOMES_MIN else whole,
    )


def arrived_of(curves: ArrivalCurves, spec: LabelSpec, hour_start_s: float, as_of_s: float) -> Arrived:
    """How much of an hour has arrived, its predictions taken as evenly spread over as much of it as has passed."""
    return arrived_by_hour(curves, spec, np.array([hour_start_s]), np.array([as_of_s]))[0]


def arrived_by_hour(curves: ArrivalCurves, spec: LabelSpec, hour_start_s: Float64s, as_of_s: Float64s) -> list[Arrived]:
    """The same of several hours at once, each as of a time of its own; shapes (H,)."""
    passed = np.clip(as_of_s - hour_start_s, 0.0, SECONDS_PER_HOUR)
    steps = (np.arange(STEPS_PER_HOUR) + 0.5) / STEPS_PER_HOUR
    ages = (as_of_s - hour_start_s)[:, np.newaxis] - passed[:, np.newaxis] * steps
    of = (curves.all, curves.negative, curves.positive)
    share = np.stack([curve.share(ages).mean(axis=1) for curve in of], axis=1)
    error = np.stack([curve.error(ages).mean(axis=1) for curve in of], axis=1)
    if spec.absence_means_negative:  # what is not positive is negative by now
        share[:, 1], error[:, 1] = 1.0, 0.0
        share[:, 0], error[:, 0] = share[:, 2], error[:, 2]
    return [Arrived(share=share[at], error=error[at]) for at in range(len(share))]


def expected(partial: Partial, weight: float, spec: LabelSpec, arrived: Arrived) -> Labelled:
    """The labelled rows that a young hour will have, as far as those that are here tell.

    Args:
        partial: as it is now; it stands for `weight` times its rows.
        arrived: with `enough`.
    """
    if spec.task != "binary":
        return _weighted(labelled_of([(partial, weight)], spec.task), arrived.share[:1].repeat(2), arrived.error[:1])
    now = labelled_of([(partial, weight)], spec.task)
    if not spec.absence_means_negative:
        return _weighted(now, arrived.share[1:], arrived.error[1:])
    return _with_absent(partial, weight, now, arrived)


def delay_quantile(counts: Int64s, share: float) -> float:
    """Seconds after which this share of outcomes is here, by a delay histogram; interpolated in log time.

    >>> counts = np.zeros(len(DELAY_EDGES_S) + 1, np.int64)
    >>> counts[3] = 10  # between 2 and 4 seconds
    >>> round(delay_quantile(counts, 0.5), 2)
    2.83
    """
    total = counts.sum()
    if total == 0:
        return 0.0
    reached = np.cumsum(counts) / total
    cell = int(np.searchsorted(reached, share))
    if cell == 0:
        return 0.0
    if cell >= len(DELAY_EDGES_S):
        return float(DELAY_EDGES_S[-1])
    before = float(reached[cell - 1])
    fraction = (share - before) / (float(reached[cell]) - before)
    low, high = _scale(DELAY_EDGES_S[cell - 1 : cell + 1]).tolist()
    at = low + fraction * (high - low)
    return at if at <= 1 else float(2.0 ** (at - 1))


def _scale(seconds: Float64s) -> Float64s:
    """Time as it is interpolated over: as it is up to a second, its logarithm from there on."""
    return np.where(seconds <= 1, seconds, 1 + np.log2(np.maximum(seconds, 1)))


def _curve(days: Float64s, window_s: float) -> ArrivalCurve:
    """From delay histograms by day, shape (D, DELAY_CELLS)."""
    totals = days.sum(axis=1)
    total = float(totals.sum())
    beyond = window_s <= DELAY_EDGES_S
    reached = np.where(beyond, 1.0, np.cumsum(days.sum(axis=0))[:-1] / total)
    variance = reached * (1 - reached) / total
    some = totals >= OUTCOMES_MIN
    if some.sum() >= DAYS_MIN:
        by_day = np.cumsum(days[some], axis=1)[:, :-1] / totals[some, np.newaxis]
        chance = (reached * (1 - reached)) * float(np.mean(1 / totals[some]))
        variance = variance + np.maximum(by_day.var(axis=0, ddof=1) - chance, 0)
    return ArrivalCurve(
        window_s=window_s, reached=reached, spread=np.where(beyond, 0.0, np.sqrt(variance)), outcomes=round(total)
    )


def _weighted(now: Labelled, share: Float64s, error: Float64s) -> Labelled:
    """Each class by the inverse of how much of it has arrived."""
    w0, w1 = (1 / share).tolist()
    sums = _sums_by_class(now)
    weight = now.weight / share
    few = np.sqrt(np.maximum(now.weight_squared, 0) * (1 - share)) / share  # chance of what has arrived
    half = SCORE_BINS // 2
    return Labelled(
        right=float(now.scores[0, :half].sum() * w0 + now.scores[1, half:].sum() * w1),
        scores=now.scores / share[:, np.newaxis],
        sums=sums[0] * w0 + sums[1] * w1,
        weight=weight,
        weight_squared=now.weight_squared / share**2,
        doubt=np.hypot(weight * error / share, few),
    )


def _with_absent(partial: Partial, weight: float, now: Labelled, arrived: Arrived) -> Labelled:
    """Positives by their inverse share; negatives are the rest of all predictions."""
    share, error = float(arrived.share[2]), float(arrived.error[2])
    positives = now.scores[1] / share
    count = float(now.weight[1]) / share
    rest = max(partial.of("predicted") * weight - count, 0.0)
    negatives = np.maximum(partial.all_scores() * weight - positives, 0.0)
    negatives = negatives * (rest / negatives.sum()) if negatives.any() else negatives
    half = SCORE_BINS // 2
    sums = _sums_by_class(now)[1] / share + _sums_of_bins(negatives, positive=False)
    doubt = float(np.hypot(count * error / share, np.sqrt(max(now.weight_squared[1], 0) * (1 - share)) / share))
    return Labelled(
        right=float(negatives[:half].sum() + positives[half:].sum()),
        scores=np.stack([negatives, positives]),
        sums=sums,
        weight=np.array([negatives.sum(), count]),
        weight_squared=np.array([negatives.sum() * weight * partial.design, now.weight_squared[1] / share**2]),
        doubt=np.array([doubt, doubt]),
        inferred=True,
    )


def _sums_by_class(now: Labelled) -> tuple[Float64s, Float64s]:
    """Sums of negatives and of positives. Their squares are not kept apart: they are divided as their scores say."""
    at = {name: number for number, name in enumerate(SUMS)}
    positive = np.zeros(len(SUMS))
    if not now.scores.any():  # not binary: all rows count as negatives
        return now.sums, positive
    by_bins = [_sums_of_bins(now.scores[label], positive=bool(label)) for label in (0, 1)]
    for name in ("log_loss", "brier"):
        kept = now.sums[at[f"{name}_positive"]]
        # Partials of old have no sums of positives.
        positive[at[name]] = kept if kept > 0 else by_bins[1][at[name]]
        positive[at[f"{name}_positive"]] = positive[at[name]]
        squared = at[f"{name}_squared"]
        both = by_bins[0][squared] + by_bins[1][squared]
        positive[squared] = now.sums[squared] * (by_bins[1][squared] / both if both > 0 else 0.0)
    for name in ("value", "value_squared"):
        positive[at[name]] = now.sums[at[name]]
    return now.sums - positive, positive


def _sums_of_bins(scores: Float64s, *, positive: bool) -> Float64s:
    """Float sums of rows of one class, by the middles of their score bins."""
    return _bin_sums(positive) @ scores


@functools.cache
def _bin_sums(positive: bool) -> Float64s:
    """What a row of a class adds to each sum, by its score bin; shape (len(SUMS), SCORE_BINS)."""
    edges = score_bin_edges()
    logit = np.log(edges / (1 - edges))
    step = logit[1] - logit[0]
    middle = np.clip(1 / (1 + np.exp(-np.append(logit - step / 2, logit[-1] + step / 2))), PROBABILITY_MIN, 1)
    loss = -np.log(middle) if positive else -np.log1p(-middle)
    brier = (1 - middle) ** 2 if positive else middle**2
    values = {
        "log_loss": loss,
        "log_loss_squared": loss**2,
        "brier": brier,
        "brier_squared": brier**2,
        "value": np.full(SCORE_BINS, float(positive)),
        "value_squared": np.full(SCORE_BINS, float(positive)),
    }
    if positive:
        values |= {"log_loss_positive": loss, "brier_positive": brier}
    sums = np.zeros((len(SUMS), SCORE_BINS))
    for name, of_bin in values.items():
        sums[SUMS.index(name)] = of_bin
    return sums
