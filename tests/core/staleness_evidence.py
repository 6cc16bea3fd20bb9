"""Evidence for tests: a healthy model, made worse one thing at a time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from control_plane.core.staleness.evidence import (
    Compatibility,
    ConceptCounts,
    Evidence,
    FeatureCounts,
    FeatureKind,
    FeatureTable,
    PerformanceEvidence,
    PredictionCounts,
    feature_table,
)

NOW = datetime(2013, 6, 1, tzinfo=UTC)
REFERENCE = [1_000] * 10 + [0]
SAME = [200] * 10 + [0]
SHIFTED = [20, 40, 60, 100, 160, 220, 280, 320, 380, 420, 0]
"""Debiased PSI 0.60 from REFERENCE."""


def numeric(
    name: str,
    current: Sequence[int] = SAME,
    *,
    reference: Sequence[int] = REFERENCE,
    importance: float = 1.0,
    usual: float = 0.0,
) -> FeatureCounts:
    """A numeric feature."""
    return FeatureCounts(
        name=name,
        kind=FeatureKind.NUMERIC,
        reference=list(reference),
        current=list(current),
        importance=importance,
        psi_usual=usual,
    )


def categorical(name: str, reference: Sequence[int], current: Sequence[int]) -> FeatureCounts:
    """A categorical feature with categories a, b, c ..."""
    return FeatureCounts(
        name=name,
        kind=FeatureKind.CATEGORICAL,
        reference=list(reference),
        current=list(current),
        categories=tuple("abcdefgh"[: len(reference) - 2]),
    )


def features(drifted: int = 0, total: int = 10, current: Sequence[int] = SHIFTED) -> FeatureTable:
    """`total` features, the first `drifted` of them shifted."""
    return feature_table([numeric(f"f{at}", current if at < drifted else SAME) for at in range(total)])


def predictions(current: Sequence[int] = SAME[:-1]) -> PredictionCounts:
    """Histogram of the score."""
    return PredictionCounts(reference=np.array(REFERENCE[:-1]), current=np.array(current))


def auc(
    current: float = 0.80, *, sample_size: int = 5_000, error: float = 0.005, proxy: str = ""
) -> PerformanceEvidence:
    """AUC against a baseline of 0.80."""
    return PerformanceEvidence(
        metric="auc",
        higher_is_better=True,
        baseline=0.80,
        baseline_error=0.0,
        current=current,
        current_error=error,
        sample_size=sample_size,
        proxy=proxy,
    )


def healthy(
    *,
    age_days: float = 2.0,
    table: FeatureTable | None = None,
    prediction: PredictionCounts | None = None,
    performance: PerformanceEvidence | None = None,
    coverage: float | None = 0.95,
) -> Evidence:
    """A model with nothing wrong, but for what is given."""
    return Evidence(
        model_version=3,
        trained_until=NOW - timedelta(days=age_days),
        features=table if table is not None else features(),
        prediction=prediction if prediction is not None else predictions(),
        performance=performance if performance is not None else auc(),
        coverage=coverage,
    )


def concept(change: float = 0.0, rows: int = 500) -> ConceptCounts:
    """Outcomes by ten score bins; the share of positives moved by `change` in each."""
    total = np.full(10, rows)
    shares = np.linspace(0.1, 0.8, 10)
    return ConceptCounts(
        reference_total=total,
        reference_positive=np.round(total * shares).astype(np.int64),
        current_total=total,
        current_positive=np.round(total * (shares + change)).astype(np.int64),
    )


def embeddings(overlap: float = 0.84, *, floor: float = 0.86, measured: bool = True) -> Compatibility:
    """An upstream's embeddings against those of the version the model was trained with."""
    return Compatibility(
        anchors=500,
        knn_jaccard=overlap,
        procrustes_cosine=0.9,
        cka=0.95,
        knn_jaccard_floor=floor,
        procrustes_cosine_floor=0.95,
        cka_floor=0.97,
        floor_measured=measured,
    )
