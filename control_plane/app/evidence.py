"""From what facts say about a version to what staleness looks at."""

from datetime import datetime

import numpy as np

from control_plane.app.fact_store import FactEvidence
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.registry.types import ModelVersion
from control_plane.core.staleness.evidence import (
    Evidence,
    PerformanceEvidence,
    PredictionCounts,
    flat_feature_table,
)

HIGHER_IS_BETTER = frozenset({"auc", "accuracy", "precision", "recall", "r2"})


def evidence_of(version: ModelVersion, label: LabelSpec, facts: FactEvidence) -> Evidence:
    """Everything known about a version; what is not known stays None."""
    features = facts.features
    table = (
        flat_feature_table(
            names=tuple(feature.name for feature in features),
            categorical=np.array([feature.kind == "categorical" for feature in features]),
            cells=np.array([len(feature.reference) for feature in features], np.int64),
            reference=np.concatenate([feature.reference for feature in features]),
            current=np.concatenate([feature.current for feature in features]),
            categories={feature.name: feature.cells for feature in features if feature.kind == "categorical"},
        )
        if features
        else None
    )
    prediction = facts.prediction
    return Evidence(
        model_version=version.number,
        trained_until=version.facts.trained_until,
        features=table,
        prediction=PredictionCounts(reference=prediction.reference, current=prediction.current)
        if prediction is not None
        else None,
        performance=_performance(version, label, facts),
        coverage=facts.coverage.coverage,
    )


def _performance(version: ModelVersion, label: LabelSpec, facts: FactEvidence) -> PerformanceEvidence | None:
    """The primary metric now against the version's holdout; None when either is not known."""
    now = facts.performance.metric(label.primary_metric)
    baseline = next((m for m in version.facts.metrics if m.name == label.primary_metric), None)
    if now is None or baseline is None:
        return None
    return PerformanceEvidence(
        metric=label.primary_metric,
        higher_is_better=label.primary_metric in HIGHER_IS_BETTER,
        baseline=baseline.value,
        baseline_error=baseline.standard_error,
        current=now.value,
        current_error=now.standard_error,
        sample_size=now.sample_size,
    )


def window_end(now: datetime) -> datetime:
    """Evidence is kept by whole hours: the window ends with the hour that has begun."""
    return now.replace(minute=0, second=0, microsecond=0)
