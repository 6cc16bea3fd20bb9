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
from assets.flights.embedding import reconstruction_r2
from assets.flights.fleet import FlightModel, Task
from assets.plane import Metric, Validation

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

MARGINS: Mapping[Task, float] = {"binary": 0.005, "regression": 0.25, "embedding": 0.05}
"""By how much a candidate may look worse and still pass: AUC, minutes, R squared."""
FLIGHTS_MIN = 200
"""Fewer flights in the holdout compare nothing."""


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


def compare(model: FlightModel, new: Floats, old: Floats | None, value: Floats, holdout: Holdout) -> Validation:
    """Whether the candidate may replace production; outputs and outcomes of the same flights, shape (n,)."""
    known = ~np.isnan(new) & (np.ones(len(new), np.bool_) if old is None else ~np.isnan(old))
    new, value = new[known], value[known]
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
    measured = {metric.name: metric.value for metric in metrics(model.task, new, value)}
    candidate = measured[model.metric]
    if old is None:
        return _unopposed(model, candidate, len(value), holdout)
    better, error = _difference(model.task, new, old[known], value)
    production = candidate - better if model.task == "binary" else candidate + better
    return _judged(model, Difference(candidate, production, better, error, len(value)), holdout)


def embeddings(
    model: FlightModel,
    rows: Rows,
    candidate: Mapping[str, Artifact],
    production: Mapping[str, Artifact] | None,
    holdout: Holdout,
) -> Validation:
    """The same for the embedding: how much of the routes' behaviour in the holdout each explains."""
    new, error, count = reconstruction_r2(candidate[model.model_id].estimator, rows)
    if production is None:
        return _unopposed(model, new, count, holdout)
    old, _, _ = reconstruction_r2(production[model.model_id].estimator, rows)
    return _judged(model, Difference(new, old, new - old, error, count), holdout)


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate and production on the same rows; `better` is oriented: above 0 the candidate is better."""

    candidate: float
    production: float
    better: float
    standard_error: float
    sample_size: int


def _unopposed(model: FlightModel, candidate: float, sample_size: int, holdout: Holdout) -> Validation:
    return Validation(
        passed=True,
        metric=model.metric,
        candidate=candidate,
        sample_size=sample_size,
        explanation=f"{model.metric} {candidate:.4f}, and nothing is in production to compare with",
        holdout_from=holdout.start,
        holdout_until=holdout.end,
    )


def _judged(model: FlightModel, found: Difference, holdout: Holdout) -> Validation:
    passed = found.better >= -MARGINS[model.task]
    if not passed:
        verdict = "the candidate is worse than production"
    elif found.better > 2 * found.standard_error:
        verdict = "the candidate is better than production"
    else:
        verdict = "the candidate is as good as production"
    return Validation(
        passed=bool(passed),
        metric=model.metric,
        candidate=found.candidate,
        production=found.production,
        standard_error=found.standard_error,
        sample_size=found.sample_size,
        explanation=f"{verdict}: {model.metric} {found.candidate:.4f} against {found.production:.4f} "
        f"on {found.sample_size} {'routes' if model.task == 'embedding' else 'flights'} "
        f"(difference {found.better:+.4f}, standard error {found.standard_error:.4f})",
        holdout_from=holdout.start,
        holdout_until=holdout.end,
    )


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
