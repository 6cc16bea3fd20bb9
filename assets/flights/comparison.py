"""Candidate against production on the same flights: paired, with the standard error of the difference.

AUC: DeLong, DeLong, Clarke-Pearson 1988, in the O(n log n) form of Sun and Xu 2014. Errors in minutes: paired means.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from assets.flights.artifacts import Artifact
from assets.flights.embedding import reconstruction_difference_error, reconstruction_r2
from assets.flights.fleet import FlightModel, Task
from assets.plane import Evidence, Metric, Slice, Validation

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

FLIGHTS_MIN = 200
"""Fewer flights in the holdout compare nothing."""
SLICES_MAX = 8
"""The most frequent values of what flights are sliced by."""
CALIBRATION_BINS = 10


def metrics(task: Task, output: Floats, value: Floats) -> tuple[Metric, ...]:
    """Metrics on a holdout with their standard errors, the primary one first."""
    if not len(value):
        return ()
    if task == "binary":
        placements = _placements(output, value)
        clipped = np.clip(output, 1e-6, 1 - 1e-6)
        losses = -(value * np.log(clipped) + (1 - value) * np.log(1 - clipped))
        squares = (output - value) ** 2
        found = [("auc", *_auc(placements)), ("log_loss", *_mean(losses)), ("brier", *_mean(squares))]
    else:
        error = output - value
        rmse = float(np.sqrt((error**2).mean()))
        spread = float((error**2).std() / np.sqrt(len(error)) / (2 * rmse)) if rmse else 0.0
        found = [("mae", *_mean(np.abs(error))), ("rmse", rmse, spread)]
    return tuple(
        Metric(name=name, value=number, standard_error=error, sample_size=len(value))
        for name, number, error in found
        if np.isfinite(number)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """The stretch of time a comparison is made on."""

    start: datetime
    end: datetime


def compare(
    model: FlightModel,
    new: Floats,
    old: Floats | None,
    value: Floats,
    holdout: Holdout,
    groups: npt.NDArray[np.str_] | None = None,
) -> Evidence | Validation:
    """What a candidate shows beside production; whether that is enough, Runway says by the model's policies.

    Args:
        new, old, value: outputs and outcomes of the same flights, shape (n,); NaN where there is none.
        groups: which slice each flight is in, as `carrier=UA`, shape (n,).
    Returns:
        Evidence; a failed validation where there is too little to compare anything.
    """
    known = ~np.isnan(new) & (np.ones(len(new), np.bool_) if old is None else ~np.isnan(old))
    new, value = new[known], value[known]
    old = None if old is None else old[known]
    if len(value) < FLIGHTS_MIN or (model.task == "binary" and len(np.unique(value)) < 2):
        return Validation(
            passed=False,
            metric=model.metric,
            candidate=0.0,
            sample_size=len(value),
            explanation=f"{len(value)} labelled flights in the holdout; it takes {FLIGHTS_MIN}, of both kinds",
            holdout_from=holdout.start,
            holdout_until=holdout.end,
        )
    candidate, production, error = _compared(model, new, old, value)
    return Evidence(
        metric=model.metric,
        candidate=candidate,
        production=production,
        standard_error=error,
        sample_size=len(value),
        slices=() if old is None or groups is None else slices(model, new, old, value, groups[known]),
        calibration_error=calibration_error(new, value) if model.task == "binary" else None,
        holdout_from=holdout.start,
        holdout_until=holdout.end,
    )


def embeddings(
    model: FlightModel,
    rows: Rows,
    candidate: Mapping[str, Artifact],
    production: Mapping[str, Artifact] | None,
    holdout: Holdout,
) -> Evidence:
    """The same for the embedding: how much of the routes' behaviour in the holdout each explains."""
    fitted = candidate[model.model_id].estimator
    new, error, count = reconstruction_r2(fitted, rows)
    old = None
    if production is not None:
        serving = production[model.model_id].estimator
        old = reconstruction_r2(serving, rows)[0]
        error = reconstruction_difference_error(fitted, serving, rows)
    return Evidence(
        metric=model.metric,
        candidate=new,
        production=old,
        standard_error=error,
        sample_size=count,
        higher_is_better=True,
        holdout_from=holdout.start,
        holdout_until=holdout.end,
    )


def slices(
    model: FlightModel, new: Floats, old: Floats, value: Floats, groups: npt.NDArray[np.str_]
) -> tuple[Slice, ...]:
    """The primary metric in each of the most frequent groups that is large enough to have one."""
    names, counts = np.unique(groups, return_counts=True)
    found = []
    for name in names[np.argsort(-counts, kind="stable")][:SLICES_MAX]:
        within = groups == name
        if within.sum() < FLIGHTS_MIN or (model.task == "binary" and len(np.unique(value[within])) < 2):
            continue
        candidate, production, error = _compared(model, new[within], old[within], value[within])
        assert production is not None
        if np.isfinite([candidate, production, error]).all():
            found.append(
                Slice(
                    slice=str(name),
                    candidate=candidate,
                    production=production,
                    standard_error=error,
                    sample_size=int(within.sum()),
                )
            )
    return tuple(found)


def calibration_error(score: Floats, value: Floats) -> float:
    """Expected calibration error: |mean score - share of positives| in ten bins of equal size, averaged.

    >>> calibration_error(np.array([0.2] * 10), np.array([1.0, 0, 0, 0, 1.0, 0, 0, 0, 0, 0]))
    0.0
    """
    order = np.argsort(score, kind="stable")
    bins = [part for part in np.array_split(order, CALIBRATION_BINS) if len(part)]
    gaps = [abs(score[part].mean() - value[part].mean()) * len(part) for part in bins]
    return float(np.round(sum(gaps) / len(order), 12))


def _compared(model: FlightModel, new: Floats, old: Floats | None, value: Floats) -> tuple[float, float | None, float]:
    """The primary metric of the candidate, of production, and the standard error of the difference."""
    candidate = {metric.name: metric.value for metric in metrics(model.task, new, value)}[model.metric]
    if old is None:
        return candidate, None, 0.0
    better, error = _difference(model.task, new, old, value)
    return candidate, candidate - better if model.task == "binary" else candidate + better, error


def _difference(task: Task, new: Floats, old: Floats, value: Floats) -> tuple[float, float]:
    """How much better the candidate is, and the standard error of that, paired."""
    if task != "binary":
        return _mean(np.abs(old - value) - np.abs(new - value))
    (new_up, new_down), (old_up, old_down) = _placements(new, value), _placements(old, value)
    better = float(new_up.mean() - old_up.mean())
    variance = (new_up - old_up).var(ddof=1) / len(new_up) + (new_down - old_down).var(ddof=1) / len(new_down)
    return better, float(np.sqrt(variance))


def _placements(score: Floats, value: Floats) -> tuple[Floats, Floats]:
    """For each positive the share of negatives below it, and for each negative the share of positives above it."""
    positive = value > 0.5
    up, down = score[positive], score[~positive]
    ranks = rankdata(np.concatenate([up, down]))
    of_up = (ranks[: len(up)] - rankdata(up)) / max(len(down), 1)
    of_down = 1 - (ranks[len(up) :] - rankdata(down)) / max(len(up), 1)
    return of_up, of_down


def _auc(placements: tuple[Floats, Floats]) -> tuple[float, float]:
    up, down = placements
    if len(up) < 2 or len(down) < 2:
        return float("nan"), 0.0
    return float(up.mean()), float(np.sqrt(up.var(ddof=1) / len(up) + down.var(ddof=1) / len(down)))


def _mean(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
