"""The flights as a world for backtests: March to December 2013 as it happened, with models that are really trained.

Every candidate that any contender asks for is fitted on the flights known by midnight of that day (two months, the
newest ten days held out, as `training` does it), once, and kept on disk. Each model is tried alone: what it reads of
other models comes from their first versions, so that its history depends on nobody else's retrains.

Evidence at a time holds counts of the flights scheduled in the window before it, and outcomes that were known by then:
when the plane had landed, and only of flights whose 36 hours are over. Truth of a day is the metric over the fortnight
that begins with it (one day of one airport is some 300 flights, too few to say), of a version and of one that was
trained in that very week.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import numpy.typing as npt

from assets.flights import comparison, estimators, training
from assets.flights.artifacts import Artifact
from assets.flights.backtest_files import declared
from assets.flights.data import column, flights, instant
from assets.flights.fleet import BY_ID, FIRST_DAY, HISTORY, FlightModel, with_upstream
from assets.flights.home import write_atomically
from assets.flights.labels import WINDOW, outcomes
from assets.flights.scoring import Outputs, encode, inputs_of, is_categorical
from assets.flights.threads import one_thread
from control_plane.backtest.world import Comparison, Trained
from control_plane.core.graph.facts import Dependency
from control_plane.core.ids import ModelId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import ModelFacts
from control_plane.core.staleness.evidence import (
    Evidence,
    FeatureTable,
    PerformanceEvidence,
    PredictionCounts,
    flat_feature_table,
)
from control_plane.core.staleness.policy import StalenessPolicy

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int16]

T = TypeVar("T")

LAST_DAY = datetime(2014, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TRUTH_DAYS = 14
FRESH_EVERY_DAYS = 7
"""A fresh version is one trained in the same week."""
TRAINING_HOURS = 2.0
MEASURED_MIN = 50
"""Fewer labelled flights than this measure nothing."""
BINS = 10
CATEGORIES_MAX = 20


class Version:
    """One fit: its scores of every flight from its day on, and its reference profile."""

    def __init__(self, model: "FlightHistory", day: int, estimator: Any) -> None:
        self.day = day
        start, cut, until = training.window(FIRST_DAY + DAY * day)
        self.cut = cut
        self._model = model
        first, self._last = model.between(start, cut), model.between(cut, until)
        self.begin = self._last[1]
        with one_thread():
            self._held = _scores(model.model, estimator, model.matrix[slice(*self._last)])
            self._later = _scores(model.model, estimator, model.matrix[self.begin :])
        self.codes, self.cells, self.reference = _profiled(model, slice(*first), self.begin)
        self.edges = np.unique(np.quantile(self._held, np.arange(1, BINS) / BINS))
        self.scored = _counted(self.edges, self._held)

    def scores(self, first: int, end: int) -> Floats:
        """Of flights [first, end), which lie in its holdout or later."""
        whole = np.concatenate([self._held, self._later])
        found: Floats = whole[first - self._last[0] : end - self._last[0]]
        return found

    @cached_property
    def trained(self) -> Trained:
        """With the metric on its holdout."""
        model = self._model
        known = model.known(*self._last, model.instant_of(self.day))
        measured = comparison.metrics(model.model.task, self._held[known], model.value[slice(*self._last)][known])[0]
        return Trained(
            model_id=ModelId(model.model.model_id),
            number=self.day + 1,
            trained_until=self.cut,
            metric=measured.name,
            higher_is_better=model.model.task == "binary",
            holdout=measured.value,
            holdout_error=measured.standard_error,
            holdout_size=measured.sample_size,
            estimated=False,
        )


class FlightHistory:
    """All flights of one model in time, with inputs and outcomes; versions by the day they were trained, from 0."""

    def __init__(self, model: FlightModel, upstream: Callable[[], Mapping[str, Artifact]], folder: Path) -> None:
        self.model = model
        self.rows = training.rows_between(FIRST_DAY - HISTORY, LAST_DAY, model.origin)
        self.scheduled = column(flights(), "scheduled", self.rows)
        self.value, self.known_at = outcomes(model, self.rows)
        self.inputs, self.matrix = _kept(folder / model.model_id / "inputs.joblib", lambda: self._encoded(upstream()))
        self._folder = folder
        self._versions: dict[int, Version] = {}

    def _encoded(self, upstream: Mapping[str, Artifact]) -> tuple[Artifact, Floats]:
        """How inputs are encoded, and all of them."""
        raw = inputs_of(self.model, Outputs(self.rows, upstream))
        categories = {
            name: tuple(sorted({str(one) for one in values if one is not None}))
            for name, values in raw.items()
            if is_categorical(name)
        }
        inputs = Artifact(model_id=self.model.model_id, inputs=tuple(raw), categories=categories)
        return inputs, encode(inputs, raw)

    def between(self, start: datetime, end: datetime) -> tuple[int, int]:
        """Places of the flights scheduled in [start, end)."""
        first, last = np.searchsorted(self.scheduled, [instant(start), instant(end)])
        return int(first), int(last)

    def instant_of(self, day: int) -> np.datetime64:
        """Midnight when that day begins."""
        return instant(FIRST_DAY + DAY * day)

    def known(self, first: int, end: int, now: np.datetime64) -> npt.NDArray[np.bool_]:
        """Of flights [first, end): is the outcome known at `now`?"""
        where = slice(first, end)
        known: npt.NDArray[np.bool_] = ~np.isnan(self.value[where]) & (self.known_at[where] <= now)
        return known

    def version(self, day: int) -> Version:
        """Trained on what was known when that day began."""
        if day not in self._versions:
            self._versions[day] = Version(self, day, self._fitted(day))
        return self._versions[day]

    def _fitted(self, day: int) -> Any:
        return _kept(self._folder / self.model.model_id / f"{day:03d}.joblib", lambda: self._fit(day))

    def _fit(self, day: int) -> Any:
        start, cut, until = training.window(FIRST_DAY + DAY * day)
        first, end = self.between(start, cut)
        places = training._sampled(np.arange(first, end)[self.known(first, end, instant(until))])
        blank: estimators.Estimator = training._estimator(self.model, self.inputs)
        with one_thread():
            return blank.fit(self.matrix[places], self.value[places])


def _kept(path: Path, make: Callable[[], T]) -> T:
    """What is on disk, or is made and put there."""
    if path.exists():
        found: T = joblib.load(path)
        return found
    made = make()
    sink = io.BytesIO()
    joblib.dump(made, sink, compress=3)
    write_atomically(path, sink.getvalue())
    return made


def _scores(model: FlightModel, estimator: Any, matrix: Floats) -> Floats:
    if not len(matrix):
        return np.zeros(0)
    found: Floats = estimator.predict_proba(matrix)[:, 1] if model.task == "binary" else estimator.predict(matrix)
    return found


def _counted(edges: Floats, values: Floats) -> npt.NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).astype(np.int64)


def _profiled(model: FlightHistory, past: slice, begin: int) -> tuple[Codes, list[int], list[npt.NDArray[np.int64]]]:
    """Cells of every flight from `begin` on, shape (flights, inputs); cells and reference counts by input."""
    codes = np.empty((len(model.matrix) - begin, model.matrix.shape[1]), np.int16)
    cells, reference = [], []
    for at, name in enumerate(model.inputs.inputs):
        values = model.matrix[:, at]
        known = values[past][~np.isnan(values[past])]
        if name in model.inputs.categories:
            top = np.sort(np.argsort(-np.bincount(known.astype(int)), kind="stable")[:CATEGORIES_MAX]).astype(float)
            place = np.clip(np.searchsorted(top, values), 0, len(top) - 1)
            code = np.where(top[place] == values, place, len(top))
            count = len(top) + 2
        else:
            edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS)) if known.size else np.zeros(1)
            code = np.searchsorted(edges, values)
            count = len(edges) + 2
        code = np.where(np.isnan(values), count - 1, code)
        codes[:, at] = code[begin:]
        cells.append(count)
        reference.append(np.bincount(code[past], minlength=count).astype(np.int64))
    return codes, cells, reference


@dataclass(frozen=True, slots=True)
class _Measured:
    value: float
    error: float
    size: int


class FlightsWorld:
    """Implements `control_plane.backtest.world.World`.

    Args:
        model_ids: which models of the fleet; those without outcomes cannot be tried.
        start, end: whole days from 2013-03-01 to 2014-01-01.
        folder: where fits are kept, by model and day.
        tolerance: what a model may be worse than a fresh one and not be truly stale; None: its own
            `performance_tolerance`.
    """

    def __init__(
        self,
        model_ids: Sequence[str],
        start: datetime,
        end: datetime,
        folder: Path,
        tolerance: float | None = None,
    ) -> None:
        self.start, self.end = start, end
        self.dependencies: Sequence[Dependency] = ()
        said = declared(model_ids)
        self.models: Sequence[ModelFacts] = said.models
        self.policies: Sequence[tuple[str, Overrides]] = said.policies
        self._tolerance = said.tolerance if tolerance is None else dict.fromkeys(model_ids, tolerance)

        @cache
        def upstream() -> dict[str, Artifact]:
            return first_versions({one.model_id for name in model_ids for one in with_upstream(name)[:-1]}, folder)

        self._models = {name: FlightHistory(BY_ID[name], upstream, folder) for name in model_ids}
        self._measures: dict[tuple[str, int, int, int], _Measured | None] = {}

    def _version(self, trained: Trained) -> Version:
        return self._models[trained.model_id].version(trained.number - 1)

    def first(self, model_id: ModelId) -> Trained:
        """Trained on January and February, whatever day the backtest begins."""
        return self._models[model_id].version(0).trained

    def train(self, model_id: ModelId, at: datetime) -> Trained:
        """Really trained, on what was known at midnight before."""
        return self._models[model_id].version((at - FIRST_DAY) // DAY).trained

    def training_hours(self, model_id: ModelId) -> float:
        """Two hours of the year."""
        return TRAINING_HOURS

    def compare(self, candidate: Trained, production: Trained, at: datetime) -> Comparison:
        """On the candidate's holdout, flight by flight, as a validation does it."""
        model = self._models[candidate.model_id]
        new, old = self._version(candidate), self._version(production)
        _, cut, until = training.window(FIRST_DAY + DAY * new.day)
        first, end = model.between(max(cut, old.cut), until)
        known = model.known(first, end, instant(at))
        found = comparison.compare(
            model.model,
            new.scores(first, end)[known],
            old.scores(first, end)[known],
            model.value[first:end][known],
            comparison.Holdout(start=cut, end=until),
        )
        return Comparison(
            candidate=found.candidate,
            production=found.production if found.production is not None else float("nan"),
            standard_error=found.standard_error or 0.0,
            sample_size=found.sample_size,
        )

    def evidence(self, serving: Trained, since: datetime, policy: StalenessPolicy, now: datetime) -> Evidence:
        """Counts of flights scheduled in the window, outcomes known at `now` of flights that are mature."""
        model, version = self._models[serving.model_id], self._version(serving)
        window = timedelta(days=policy.window_days)
        first, end = model.between(max(now - window, since), now)
        mature_end = max(now - WINDOW, since)
        mature = model.between(max(mature_end - window, since), mature_end)
        known = model.known(*mature, instant(now))
        return Evidence(
            model_version=serving.number,
            trained_until=serving.trained_until,
            features=_table(model, version, first, end),
            prediction=PredictionCounts(
                reference=version.scored, current=_counted(version.edges, version.scores(first, end))
            ),
            performance=self._performance(model, version, mature, known),
            coverage=float(known.mean()) if len(known) else None,
        )

    def _performance(
        self, model: FlightHistory, version: Version, mature: tuple[int, int], known: npt.NDArray[np.bool_]
    ) -> PerformanceEvidence | None:
        now = self._measured(model, version, *mature, known)
        if now is None:
            return None
        own = version.trained
        return PerformanceEvidence(
            metric=own.metric,
            higher_is_better=own.higher_is_better,
            baseline=own.holdout,
            baseline_error=own.holdout_error,
            current=now.value,
            current_error=now.error,
            sample_size=now.size,
        )

    def _measured(
        self, model: FlightHistory, version: Version, first: int, end: int, known: npt.NDArray[np.bool_]
    ) -> _Measured | None:
        """The primary metric on known flights of [first, end); the same flights are asked about again and again."""
        key = (model.model.model_id, version.day, first, end)
        if key not in self._measures:
            if known.sum() < MEASURED_MIN:
                return None
            found = comparison.metrics(
                model.model.task, version.scores(first, end)[known], model.value[first:end][known]
            )
            usable = found and found[0].name == version.trained.metric
            self._measures[key] = (
                _Measured(found[0].value, found[0].standard_error, found[0].sample_size) if usable else None
            )
        return self._measures[key]

    def quality(self, serving: Trained, hour: datetime) -> float | None:
        """Its metric over the fortnight that begins that day."""
        model, version = self._models[serving.model_id], self._version(serving)
        first, end = model.between(hour, hour + DAY * TRUTH_DAYS)
        found = self._measured(model, version, first, end, ~np.isnan(model.value[first:end]))
        return found.value if found is not None else None

    def fresh_quality(self, model_id: ModelId, hour: datetime) -> float | None:
        """The same of a version trained in that week."""
        day = (hour - FIRST_DAY) // DAY
        model = self._models[model_id]
        return self.quality(model.version(day - day % FRESH_EVERY_DAYS).trained, hour)

    def truly_stale(self, serving: Trained, hour: datetime) -> bool:
        """Worse than that by more than what is tolerated."""
        own, fresh = self.quality(serving, hour), self.fresh_quality(serving.model_id, hour)
        if own is None or fresh is None:
            return False
        lost = fresh - own if serving.higher_is_better else own - fresh
        return lost > self._tolerance[serving.model_id]


def _table(model: FlightHistory, version: Version, first: int, end: int) -> FeatureTable:
    codes = version.codes[first - version.begin : end - version.begin]
    offsets = np.concatenate([[0], np.cumsum(version.cells)])
    counts = np.bincount((codes + offsets[:-1]).reshape(-1), minlength=int(offsets[-1])).astype(np.int64)
    return flat_feature_table(
        names=model.inputs.inputs,
        categorical=np.array([name in model.inputs.categories for name in model.inputs.inputs], np.bool_),
        cells=np.array(version.cells, np.int64),
        reference=np.concatenate(version.reference),
        current=counts,
    )


def first_versions(model_ids: set[str], folder: Path) -> dict[str, Artifact]:
    """First versions of what the tried models read, trained as in service and kept on disk."""
    found: dict[str, Artifact] = {}
    for model in (one for one in BY_ID.values() if one.model_id in model_ids):
        below = {one.model_id: found[one.model_id] for one in with_upstream(model.model_id)[:-1]}
        path = folder / "first" / f"{model.model_id}.joblib"
        found[model.model_id] = _kept(path, partial(_first_version, model, below))
    return found


def _first_version(model: FlightModel, below: Mapping[str, Artifact]) -> Artifact:
    return training.train(model, FIRST_DAY, below).artifact
