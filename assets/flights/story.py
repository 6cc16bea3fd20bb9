"""The whole story without a server: what a year does to models, month by month.

    python -m assets.flights.story --models arrival_delay_ewr air_time

For each model: `static` was trained once, on January and February. On the first of each month a candidate is trained
on the two months before, on top of what then serves, and validated as a retrain would be; `kept` is what serves after
that: the candidate if it passed, what was there if not. All are measured on the month that follows, whose flights none
of them saw. Beside them the input that drifted most from static's reference profile, as PSI (nats).
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from assets.flights import comparison
from assets.flights.artifacts import Artifact
from assets.flights.data import FlightsError
from assets.flights.fleet import BY_ID, FIRST_DAY, FlightModel, Task, in_order, with_upstream
from assets.flights.labels import outcomes
from assets.flights.profile import Histogram, recount, reference_histograms
from assets.flights.scoring import Outputs, inputs_of
from assets.flights.training import Rows, Trained, TrainingError, rows_between, train, validate
from assets.plane import Evidence, Validation

MODELS = ("arrival_delay_ewr", "departure_delay_lga")
"""Two that tell it all: a slow decay, and retrains that are refused."""
MONTHS = range(FIRST_DAY.month, 13)

MARGINS: Mapping[Task, float] = {"binary": 0.005, "regression": 0.25, "embedding": 0.05}
"""By how much a candidate may look worse and still pass: AUC, minutes, R squared; as the fleet's policies say."""

Artifacts = Mapping[str, Artifact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One model in one month; `static`, `candidate` and `kept` are its metric on the month's flights."""

    model_id: str
    month: int
    outcome: float
    """Mean of the outcome: the share of late flights, or minutes."""
    static: float
    candidate: float
    kept: float
    passed: bool
    drift: float
    drifted: str


def psi(reference: npt.NDArray[np.int64], current: npt.NDArray[np.int64]) -> float:
    """Population stability index of two binned samples, half a count added to each cell.

    >>> psi(np.array([50, 50]), np.array([50, 50]))
    0.0
    """
    p = (reference + 0.5) / (reference.sum() + len(reference) / 2)
    q = (current + 0.5) / (current.sum() + len(current) / 2)
    return float(((q - p) * np.log(q / p)).sum())


def story(model_ids: set[str], months: range = MONTHS) -> Iterator[Chapter]:
    """Chapters of these models, month by month."""
    fleet = in_order({model.model_id for one in model_ids for model in with_upstream(one)})
    static: dict[str, Artifact] = {}
    first: dict[str, Trained] = {}
    for model in fleet:
        first[model.model_id] = train(model, FIRST_DAY, static)
        static[model.model_id] = first[model.model_id].artifact
    kept: Artifacts = dict(static)
    for month in months:
        start, end = _month(month)
        for model in fleet:
            candidate, passed = kept, True
            if start > FIRST_DAY:
                candidate = {**kept, model.model_id: train(model, start, kept).artifact}
                passed = held_up(model, validate(model, start, candidate, kept))
            kept = candidate if passed else kept
            if model.model_id not in model_ids:
                continue
            rows = rows_between(start, end, model.origin)
            value, _ = outcomes(model, rows)
            drift, drifted = _most_drifted(model, rows, static, first[model.model_id])
            yield Chapter(
                model_id=model.model_id,
                month=month,
                outcome=float(np.nanmean(value)),
                static=_measured(model, rows, static),
                candidate=_measured(model, rows, candidate),
                kept=_measured(model, rows, kept),
                passed=passed,
                drift=drift,
                drifted=drifted,
            )


def held_up(model: FlightModel, found: Evidence | Validation) -> bool:
    """Is a candidate not worse by more than the margin, by the estimate? The gate of a real Runway knows more."""
    if isinstance(found, Validation):
        return found.passed
    if found.production is None:
        return True
    gain = found.candidate - found.production
    return (-gain if model.task == "regression" else gain) >= -MARGINS[model.task]


def _month(month: int) -> tuple[datetime, datetime]:
    return datetime(2013, month, 1, tzinfo=UTC), datetime(2013 + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _measured(model: FlightModel, rows: Rows, artifacts: Artifacts) -> float:
    value, _ = outcomes(model, rows)
    known = ~np.isnan(value)
    output = Outputs(rows, artifacts).output(model.model_id)
    return comparison.metrics(model.task, output[known], value[known])[0].value


def _most_drifted(model: FlightModel, rows: Rows, artifacts: Artifacts, trained: Trained) -> tuple[float, str]:
    """The largest PSI among a model's inputs, and whose it is."""
    reference: Mapping[str, Histogram] = reference_histograms(trained.profile)
    inputs = inputs_of(model, Outputs(rows, artifacts))
    return max((psi(np.array(reference[name].counts), recount(reference[name], inputs[name])), name) for name in inputs)


def tell(chapters: Iterator[Chapter]) -> None:
    """Print chapters as they come."""
    print(
        f"{'month':>5}  {'model':<22}{'outcome':>8}{'static':>9}{'retrained':>11}{'kept':>9}  validation  largest PSI"
    )
    for one in chapters:
        digits = 3 if BY_ID[one.model_id].task == "binary" else 2
        numbers = f"{one.static:>9.{digits}f}{one.candidate:>11.{digits}f}{one.kept:>9.{digits}f}"
        verdict = "first" if one.month == FIRST_DAY.month else "passed" if one.passed else "REFUSED"
        print(
            f"{one.month:>5}  {one.model_id:<22}{one.outcome:>8.{digits}f}{numbers}  {verdict:<10}  "
            f"{one.drifted} {one.drift:.1f}",
            flush=True,
        )


def main() -> int:
    """Exit code: 0, or 1 with a sentence when the data is not there, 2 for wrong arguments."""
    told = sorted(model.model_id for model in BY_ID.values() if model.task != "embedding")
    parser = argparse.ArgumentParser(prog="python -m assets.flights.story", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=told, metavar="MODEL", help=", ".join(told))
    arguments = parser.parse_args()
    try:
        tell(story(set(arguments.models)))
    except (FlightsError, TrainingError) as error:
        print(f"flights: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
