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
from control_plane.core.state import ModelRecord

HIGHER_IS_BETTER = frozenset({"auc", "accuracy", "precision", "recall", "r2"})


def evidence_of(record: ModelRecord, version: ModelVersion, facts: FactEvidence) -> Evidence:
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
        performance=_performance(version, record.label_spec, facts),
        coverage=facts.coverage.coverage if record.facts.task_type.has_outcomes else None,
    )


def _performance(version: ModelVersion, label: LabelSpec, facts: FactEvidence) -> PerformanceEvidence | None:
    """The primary metric now against the version's holdout, if that is known; None without outcomes."""
    now = facts.performance.metric(label.primary_metric)
    baseline = next((m for m in version.facts.metrics if m.name == label.primary_metric), None)
    if now is None:
        return None
    return PerformanceEvidence(
        metric=label.primary_metric,
        higher_is_better=label.primary_metric in HIGHER_IS_BETTER,
        baseline=baseline.value if baseline is not None else None,
        baseline_error=baseline.standard_error if baseline is not None else 0.0,
        current=now.value,
        current_error=now.standard_error,
        sample_size=now.sample_size,
    )


def window_end(now: datetime) -> datetime:
    """Evidence is kept by whole hours: the window ends with the hour that has begun."""
    return now.replace(minute=0, second=0, microsecond=0)
