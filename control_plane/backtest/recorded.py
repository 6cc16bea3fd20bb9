"""The world of a real fleet's history: what it counted and measured, and estimates where history went another way.

A version that history has is served its own evidence for the hours in which it served. A version that history does not
have (it was trained at another time) is given:

- inputs and scores: what the fleet counted in the window, binned by the profile of whatever version served then. Its
  reference is what was counted, over the same bins, in its training window (the model's, else 28 days), so far as
  history was read and has 500 predictions; else that profile's own reference;
- its metric: by `estimates`, with the sample size and error of what was really measured in that window.

A retrain within a day of one that history has *is* that one. Labels are complete when the attribution window has ended,
as for a verdict of today; proxies, slices, concept drift and seasons are not replayed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from control_plane.app.fact_reports import RecordedCounts
from control_plane.backtest.estimates import Estimates, day_number
from control_plane.backtest.recording import HISTORY, RecordedModel, RecordedVersion, RecordingHead
from control_plane.backtest.windows import CountWindow, PartialWindow
from control_plane.backtest.world import Comparison, Trained
from control_plane.core.graph.facts import Dependency
from control_plane.core.ground_truth.labels import Task
from control_plane.core.ids import ModelId
from control_plane.core.policies import Overrides, built_in, resolve
from control_plane.core.registry.types import ModelFacts
from control_plane.core.staleness.evidence import (
    Evidence,
    FeatureTable,
    IntMatrix,
    PerformanceEvidence,
    PredictionCounts,
    Volume,
)
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.statistics.sample import Int64s

HOUR = timedelta(hours=1)
SAME_RETRAIN = timedelta(days=1)
REFERENCE_MIN = 500
"""Predictions that a reference is made of at least."""
COMPARED_DAYS = 7
"""Days before a validation whose outcomes it would compare on."""
WINDOWS_BEFORE_MAX = 8
COUNTERFACTUAL = 1_000_000
"""Numbers of versions that history does not have begin here, and count the hours to their training."""


def hour_number(at: datetime) -> int:
    """Hours since 1970, UTC, begun."""
    return int(at.astimezone(UTC).timestamp() // 3_600)


class _Track:
    """What was counted by one profile, whichever versions served."""

    def __init__(self, parts: Sequence[RecordedCounts]) -> None:
        first = parts[0]
        hours = np.concatenate([part.hours for part in parts])
        order = np.argsort(hours, kind="stable")
        self.hours = hours[order]
        only = len(parts) == 1
        self.counts = first.counts if only else np.concatenate([part.counts for part in parts])[order]
        self._first = int(self.hours[0])
        by_hour = np.zeros(int(self.hours[-1]) - self._first + 2, np.int64)
        np.add.at(by_hour, self.hours - self._first + 1, np.concatenate([part.predictions for part in parts])[order])
        self._until: list[int] = np.cumsum(by_hour).tolist()
        """Predictions made before hour `_first + i`: asked some ten times a look, so as plain numbers."""
        self.versions = frozenset(part.version for part in parts)
        features = first.features
        self.names = tuple(feature.name for feature in features)
        self.categorical = np.array([feature.kind == "categorical" for feature in features], np.bool_)
        self.categories = {f.name: f.cells[:-2] for f in features if f.kind == "categorical"}
        self.cells = np.array([len(feature.reference) for feature in features], np.int64)
        self.importance = np.array([feature.importance for feature in features], np.float64)
        self.usual = np.zeros(len(features))
        width = int(self.cells.max(initial=2))
        self._inside = np.arange(width) < self.cells[:, None]
        starts = np.array([feature.start for feature in features], np.int64)
        self._at = np.where(self._inside, starts[:, None] + np.arange(width), 0)
        self._plain = bool(np.array_equal(self._at.reshape(-1), np.arange(self._at.size)))
        """Deciles throughout, one feature behind the other: the vector is the table."""
        vector = np.zeros(self.counts.shape[1], np.int64)
        for feature in (*features, *([first.prediction] if first.prediction is not None else [])):
            vector[feature.start : feature.end] = feature.reference
        self.reference = vector
        self.prediction = slice(first.prediction.start, first.prediction.end) if first.prediction else None
        self.window = CountWindow(self.hours, self.counts)

    def stacked(self, vector: Int64s) -> IntMatrix:
        """Cells of all features as a table."""
        if self._plain:
            return vector[: self._at.size].reshape(self._at.shape).copy()
        return np.where(self._inside, vector[self._at], 0)

    def predictions(self, first: int, last: int) -> int:
        """Made in [first, last)."""
        return self._before(last) - self._before(first)

    def _before(self, hour: int) -> int:
        return self._until[min(max(hour - self._first, 0), len(self._until) - 1)]

    def sum(self, first: int, last: int) -> Int64s:
        """Counts of [first, last)."""
        low, high = np.searchsorted(self.hours, (first, last))
        return np.asarray(self.counts[low:high].sum(axis=0, dtype=np.int64))


@dataclass(slots=True)
class _Reference:
    """What a version is compared with on one track."""

    table: IntMatrix
    prediction: Int64s | None


class _Model:
    """One model of the recording, with its moving windows."""

    def __init__(self, model: RecordedModel, head: RecordingHead) -> None:
        self.recorded = model
        self.facts = model.facts
        self.versions = {version.number: version for version in model.versions}
        first_day = day_number(head.start - HISTORY)
        self.estimates = Estimates(model, first_day, day_number(head.end) + 1 - first_day)
        by_profile: dict[str, list[RecordedCounts]] = {}
        for part in model.hours.counts:
            by_profile.setdefault(part.profile_sha256, []).append(part)
        self.tracks = [_Track(parts) for parts in by_profile.values() if any(len(part.hours) for part in parts)]
        self.partials = {one.version: PartialWindow(one.hours, one.partials) for one in model.hours.partials}
        self.references: dict[tuple[int, int], _Reference] = {}
        layers = [
            (scope, overrides)
            for wanted in (
                "fleet",
                f"tier:{model.facts.tier}",
                f"team:{model.facts.team}",
                f"model:{model.facts.model_id}",
            )
            for scope, overrides in head.policies
            if scope == wanted
        ]
        policies, _ = resolve(built_in(model.facts.tier, model.facts.task_type), layers)
        self.tolerance = policies.staleness.performance_tolerance
        self.first_hour = min((int(track.hours[0]) for track in self.tracks if len(track.hours)), default=0)

    def begun(self, serving: Trained, since: datetime, start: datetime) -> int:
        """From which hour on this version's predictions are in its evidence: it may have served before the start."""
        if since <= start:
            for began, until in self.versions[serving.number].served if serving.number in self.versions else ():
                if began <= start < until:
                    return hour_number(began)
        return hour_number(since)

    def track_at(self, number: int, first: int, last: int) -> int | None:
        """The track that a version is looked at by: that of its own profile, else the one that counted last."""
        counted = [at for at, track in enumerate(self.tracks) if track.predictions(first, last)]
        own = [at for at in counted if number in self.tracks[at].versions]
        if own:
            return own[0]
        return max(
            counted,
            key=lambda at: int(self.tracks[at].hours[np.searchsorted(self.tracks[at].hours, last) - 1]),
            default=None,
        )

    def reference(self, serving: Trained, at: int) -> _Reference:
        """Its own profile's, or what was counted in its training window."""
        key = (serving.number, at)
        found = self.references.get(key)
        if found is None:
            track = self.tracks[at]
            vector = track.reference
            if serving.number not in track.versions:
                last = hour_number(serving.trained_until)
                first = last - int((self.facts.training_window or HISTORY) / HOUR)
                if track.predictions(first, last) >= REFERENCE_MIN:
                    vector = track.sum(first, last)
            prediction = vector[track.prediction] if track.prediction is not None else None
            found = self.references[key] = _Reference(track.stacked(vector), prediction)
        return found


class RecordedWorld:
    """Implements `World` on a recording."""

    def __init__(self, head: RecordingHead, models: Sequence[RecordedModel]) -> None:
        self.start, self.end = head.start, head.end
        self.policies: Sequence[tuple[str, Overrides]] = head.policies
        self.dependencies: Sequence[Dependency] = head.dependencies
        self._models = {model.facts.model_id: _Model(model, head) for model in models}
        self.models: Sequence[ModelFacts] = [model.facts for model in models]
        self._trained: dict[tuple[ModelId, int], Trained] = {}

    def first(self, model_id: ModelId) -> Trained:
        """The version that served at the start."""
        model = self._models[model_id]
        return self._of_history(model, model.versions[model.recorded.first])

    def train(self, model_id: ModelId, at: datetime) -> Trained:
        """That of history, if one was trained within a day before; else one that is estimated."""
        model = self._models[model_id]
        for version in model.versions.values():
            if at - SAME_RETRAIN < version.trained_until <= at and version.number != model.recorded.first:
                return self._of_history(model, version)
        number = COUNTERFACTUAL + (at - self.start) // HOUR
        found = self._trained.get((model_id, number))
        if found is None:
            level = model.estimates.level
            baseline = model.versions[model.recorded.first].baseline
            found = self._trained[model_id, number] = Trained(
                model_id=model_id,
                number=number,
                trained_until=at,
                metric=model.estimates.metric,
                higher_is_better=model.estimates.higher_is_better,
                holdout=model.estimates.as_metric(level) if level is not None else float("nan"),
                holdout_error=baseline.standard_error if baseline is not None else 0.0,
                holdout_size=baseline.sample_size if baseline is not None else 0,
                estimated=True,
            )
        return found

    def _of_history(self, model: _Model, version: RecordedVersion) -> Trained:
        key = (model.facts.model_id, version.number)
        if key not in self._trained:
            baseline = version.baseline
            self._trained[key] = Trained(
                model_id=model.facts.model_id,
                number=version.number,
                trained_until=version.trained_until,
                metric=model.estimates.metric,
                higher_is_better=model.estimates.higher_is_better,
                holdout=baseline.value if baseline is not None else float("nan"),
                holdout_error=baseline.standard_error if baseline is not None else 0.0,
                holdout_size=baseline.sample_size if baseline is not None else 0,
                estimated=False,
            )
        return self._trained[key]

    def training_hours(self, model_id: ModelId) -> float:
        """As history's trainings took."""
        return self._models[model_id].recorded.training_hours

    def compare(self, candidate: Trained, production: Trained, at: datetime) -> Comparison:
        """By what both are worth on that day. Where nothing was ever measured, a candidate is as good as production."""
        model = self._models[candidate.model_id]
        values = [self._worth(model, one, at) for one in (candidate, production)]
        last = hour_number(at)
        measured = [
            found
            for window in model.partials.values()
            if (found := _moved(window, last - 24 * COMPARED_DAYS, last).metric(model.estimates.metric, _task(model)))
        ]
        most = max(measured, key=lambda one: one.sample_size, default=None)
        if values[0] is None or values[1] is None:
            return Comparison(candidate=0.0, production=0.0, standard_error=0.0, sample_size=1)
        return Comparison(
            candidate=model.estimates.as_metric(values[0]),
            production=model.estimates.as_metric(values[1]),
            standard_error=most.standard_error if most is not None else 0.0,
            sample_size=most.sample_size if most is not None else 1,
        )

    def quality(self, serving: Trained, hour: datetime) -> float | None:
        """Measured or estimated; None if nothing of the model ever was."""
        model = self._models[serving.model_id]
        value = self._worth(model, serving, hour)
        return None if value is None else model.estimates.as_metric(value)

    def fresh_quality(self, model_id: ModelId, hour: datetime) -> float | None:
        """Estimated."""
        estimates = self._models[model_id].estimates
        value = estimates.fresh(day_number(hour))
        return None if value is None else estimates.as_metric(value)

    def truly_stale(self, serving: Trained, hour: datetime) -> bool:
        """Worse than fresh by more than the tolerance in force at the start."""
        model = self._models[serving.model_id]
        value, fresh = self._worth(model, serving, hour), model.estimates.fresh(day_number(hour))
        return value is not None and fresh is not None and fresh - value > model.tolerance

    def _worth(self, model: _Model, trained: Trained, at: datetime) -> float | None:
        day = day_number(at)
        version = model.versions.get(trained.number)
        if version is not None:
            return model.estimates.of_recorded(version, day)
        return model.estimates.of_new(trained.trained_until, day)

    # --- evidence ---

    def evidence(self, serving: Trained, since: datetime, policy: StalenessPolicy, now: datetime) -> Evidence:
        """What would have been known."""
        model = self._models[serving.model_id]
        last = hour_number(now)
        span = int(policy.window_days * 24)
        begun = model.begun(serving, since, self.start)
        first = max(last - span, begun)
        features, prediction = _counted(model, serving, first, last)
        mature = hour_number(now - model.recorded.label.window)
        performance, coverage, labels = self._performance(model, serving, max(mature - span, begun), mature)
        return Evidence(
            model_version=serving.number,
            trained_until=serving.trained_until,
            features=features,
            prediction=prediction,
            performance=performance,
            coverage=coverage if model.facts.task_type.has_outcomes else None,
            volume=_volume(model, last, span),
            labels_per_day=labels,
        )

    def _performance(
        self, model: _Model, serving: Trained, first: int, last: int
    ) -> tuple[PerformanceEvidence | None, float | None, float]:
        """The metric over the mature window, its coverage, and outcomes a day."""
        if last <= first:
            return None, None, 0.0
        own = model.partials.get(serving.number)
        if own is not None and _moved(own, first, last).labelled:
            window, value = own, None
        else:
            moved = [_moved(window, first, last) for window in model.partials.values()]
            most = max(moved, key=lambda one: one.labelled, default=None)
            if most is None or not most.of("predicted"):
                return None, None, 0.0
            middle = datetime.fromtimestamp((first + last) / 2 * 3_600, UTC)
            window, value = most, self.quality(serving, middle)
        predicted, labelled = window.of("predicted"), window.labelled
        coverage = labelled / predicted if predicted else None
        measured = window.metric(model.estimates.metric, _task(model))
        if measured is None:
            return None, coverage, 0.0
        holdout = serving.holdout
        found = PerformanceEvidence(
            metric=model.estimates.metric,
            higher_is_better=model.estimates.higher_is_better,
            baseline=holdout if np.isfinite(holdout) else None,
            baseline_error=serving.holdout_error,
            current=measured.value if value is None else value,
            current_error=measured.standard_error,
            sample_size=measured.sample_size,
        )
        return found, coverage, labelled / ((last - first) / 24)


def _task(model: _Model) -> Task:
    return model.recorded.label.task


def _moved(window: PartialWindow, first: int, last: int) -> PartialWindow:
    window.move(first, last)
    return window


def _counted(
    model: _Model, serving: Trained, first: int, last: int
) -> tuple[FeatureTable | None, PredictionCounts | None]:
    at = model.track_at(serving.number, first, last)
    if at is None:
        return None, None
    track = model.tracks[at]
    reference = model.reference(serving, at)
    current = track.window.move(first, last)
    table = FeatureTable(
        names=track.names,
        categorical=track.categorical,
        cells=track.cells,
        reference=reference.table,
        current=track.stacked(current),
        importance=track.importance,
        psi_usual=track.usual,
        categories=track.categories,
    )
    if track.prediction is None or reference.prediction is None:
        return table, None
    return table, PredictionCounts(reference=reference.prediction, current=current[track.prediction].copy())


def _volume(model: _Model, last: int, span: int) -> Volume | None:
    if not model.tracks or span <= 0:
        return None
    windows = [
        sum(track.predictions(last - span * (back + 1), last - span * back) for track in model.tracks)
        for back in range(WINDOWS_BEFORE_MAX + 1)
        if last - span * (back + 1) >= model.first_hour
    ]
    return Volume(current=windows[0], before=tuple(windows[1:])) if windows else None
