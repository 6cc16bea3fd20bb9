"""What is known about a model when it is looked at: counts then and now, its metric then and now, and its
age.

Evidence is small and already aggregated. Whoever gathers it (hours merged, partials summed) has done the
heavy part; looking at it is arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from control_plane.core.statistics.sample import Bools, Counts, Float64s, Int64s, InvalidSample

IntMatrix = npt.NDArray[np.integer]


class FeatureKind(StrEnum):
    """What the cells of a feature are: a number's bins, or categories and `other`; then `missing`."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCounts:
    """One feature: counts of the reference and of the current window over the same cells, `missing` last."""

    name: str
    kind: FeatureKind
    reference: Counts
    current: Counts
    importance: float = 1.0
    psi_usual: float = 0.0
    """Debiased PSI that this calendar period usually shows; 0 if there is no history."""
    categories: tuple[str, ...] = ()
    """Names of the cells before `other`, for sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """The features of a model, stacked: row per feature, cells from the left, zeros behind `cells[row]`.

    Shapes: `reference` and `current` (features, width); everything else (features,). A row whose reference or
    current counts are all 0 says nothing and is left out of every share.
    """

    names: tuple[str, ...]
    categorical: Bools
    cells: Int64s
    reference: IntMatrix
    current: IntMatrix
    importance: Float64s
    psi_usual: Float64s
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outside: Int64s | None = None
    """Current values outside the range of the training data, by feature; None if nobody counted them."""

    def __post_init__(self) -> None:
        rows = len(self.names)
        matrices = (self.reference, self.current)
        vectors = (self.categorical, self.cells, self.importance, self.psi_usual)
        shape = (rows,)
        categorical, cells, importance, usual = vectors
        if not (categorical.shape == cells.shape == importance.shape == usual.shape == shape):
            raise InvalidSample("features", "shape", f"every column of the table has {rows} rows, one per feature")
        if self.reference.ndim != 2 or len(self.reference) != rows or self.current.shape != self.reference.shape:
            raise InvalidSample(
                "features", "shape", f"counts are {self.reference.shape} and {self.current.shape} for {rows} features"
            )
        if any(matrix.dtype.kind not in "iu" for matrix in matrices):
            raise InvalidSample("features", "type", "counts are integers")
        if self.outside is not None and (self.outside.shape != (rows,) or self.outside.min(initial=0) < 0):
            raise InvalidSample("features", "outside", f"counts outside the range are {rows} rows of 0 or more")
        if not rows:
            return
        least, most = np.minimum.reduce, np.maximum.reduce
        fewest, widest = _extent(self.cells.astype(np.int64, copy=False).tobytes())
        if fewest < 2 or widest > self.reference.shape[1]:
            raise InvalidSample("features", "cells", "every feature has from 2 cells to the width of the table")
        if any(matrix.dtype.kind == "i" and least(matrix, axis=None) < 0 for matrix in matrices):
            raise InvalidSample("features", "count", "a count is negative")
        if self.importance is not even_importance(rows) and not (
            least(self.importance) >= 0 and most(self.importance) < np.inf
        ):
            raise InvalidSample("features", "importance", "importances are finite and 0 or more")
        if self.psi_usual is not _unusual(rows) and not (
            least(self.psi_usual) > -np.inf and most(self.psi_usual) < np.inf
        ):
            raise InvalidSample("features", "psi_usual", "usual PSI is finite")


@lru_cache(maxsize=1024)
def _extent(cells: bytes) -> tuple[int, int]:
    """Fewest and most cells of a feature; the layout of a version is the same in every look at it."""
    numbers = np.frombuffer(cells, np.int64)
    return int(numbers.min()), int(numbers.max())


@lru_cache(maxsize=1024)
def _distinct(names: tuple[str, ...]) -> bool:
    return len(set(names)) == len(names)


@lru_cache(maxsize=64)
def even_importance(rows: int) -> Float64s:
    """Importances of features that weigh alike; one array for all models of so many features."""
    found = np.ones(rows)
    found.setflags(write=False)
    return found


@lru_cache(maxsize=64)
def _unusual(rows: int) -> Float64s:
    """Usual PSI of features without history; one array likewise."""
    found = np.zeros(rows)
    found.setflags(write=False)
    return found


def feature_table(features: Sequence[FeatureCounts]) -> FeatureTable:
    """Stack features of different numbers of cells.

    Raises:
        InvalidSample: a feature's counts differ in length, a name occurs twice, or as `FeatureTable`.
    """
    for feature in features:
        if len(feature.reference) != len(feature.current):
            raise InvalidSample(feature.name, "shape", "reference and current have different numbers of cells")
    cells = np.array([len(feature.reference) for feature in features], np.int64)
    return flat_feature_table(
        names=tuple(feature.name for feature in features),
        categorical=np.array([feature.kind is FeatureKind.CATEGORICAL for feature in features], np.bool_),
        cells=cells,
        reference=_joined([feature.reference for feature in features]),
        current=_joined([feature.current for feature in features]),
        importance=np.array([feature.importance for feature in features], np.float64),
        psi_usual=np.array([feature.psi_usual for feature in features], np.float64),
        categories={feature.name: feature.categories for feature in features if feature.categories},
    )


def flat_feature_table(
    *,
    names: tuple[str, ...],
    categorical: Bools,
    cells: Int64s,
    reference: Int64s,
    current: Int64s,
    importance: Float64s | None = None,
    psi_usual: Float64s | None = None,
    categories: dict[str, tuple[str, ...]] | None = None,
    outside: Int64s | None = None,
) -> FeatureTable:
    """Stack the cells of all features that lie behind one another, as profiles and hourly counts keep them.

    Args:
        categorical: which features are categories, shape (features,).
        cells: how many belong to each feature, shape (features,).
        reference: shape (sum of cells,).
        current: likewise.
        importance: shape (features,); None weighs all alike.
        outside: current values outside the range of the training data, shape (features,); None if nobody counted.
    Raises:
        InvalidSample: lengths do not add up, a name occurs twice, or as `FeatureTable`.
    """
    rows = len(names)
    if not _distinct(names):
        raise InvalidSample("features", "unique", "a feature is named twice")
    cells = np.ascontiguousarray(cells, np.int64)
    fewest, width = _extent(cells.tobytes()) if rows and cells.shape == (rows,) else (0, 2)
    width = max(width, 2)
    even = fewest == width
    total = rows * width if even else int(cells.sum())
    if cells.shape != (rows,) or reference.shape != (total,) or current.shape != reference.shape:
        raise InvalidSample("features", "shape", f"{reference.size} and {current.size} counts for {total} cells")
    if even:  # nothing to pad: most models have deciles throughout
        stacked = (reference.reshape(rows, width), current.reshape(rows, width))
    else:
        inside = np.arange(width) < cells[:, None]
        stacked = (np.zeros((rows, width), np.int64), np.zeros((rows, width), np.int64))
        stacked[0][inside], stacked[1][inside] = reference, current
    return FeatureTable(
        names=names,
        categorical=categorical,
        cells=cells,
        reference=stacked[0],
        current=stacked[1],
        importance=even_importance(rows) if importance is None else importance,
        psi_usual=_unusual(rows) if psi_usual is None else psi_usual,
        categories=categories or {},
        outside=outside,
    )


def _joined(rows: Sequence[Counts]) -> Int64s:
    whole = np.concatenate([np.asarray(row) for row in rows]) if rows else np.zeros(0, np.int64)
    counts = whole.astype(np.int64)
    if not np.array_equal(counts, whole):
        raise InvalidSample("features", "count", "every count is an integer")
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionCounts:
    """Histograms of the score, over the same bins, shape (B,)."""

    reference: Int64s
    current: Int64s

    def __post_init__(self) -> None:
        if self.reference.ndim != 1 or self.reference.shape != self.current.shape or self.reference.size < 2:
            raise InvalidSample(
                "prediction",
                "shape",
                f"{self.reference.shape} and {self.current.shape}: give two rows over the same bins",
            )
        if np.minimum.reduce(self.reference) < 0 or np.minimum.reduce(self.current) < 0:
            raise InvalidSample("prediction", "count", "a count is negative")


class PerformanceSource(StrEnum):
    """What a performance was measured on, strongest first."""

    LABELS = "LABELS"
    PROXY = "PROXY"
    DOWNSTREAM = "DOWNSTREAM"
    ESTIMATE = "ESTIMATE"


class MetricRole(StrEnum):
    """What a metric is for."""

    PRIMARY = "PRIMARY"
    GUARDRAIL = "GUARDRAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceEvidence:
    """A metric on the version's holdout, and on matured outcomes of the current window."""

    metric: str
    higher_is_better: bool
    baseline: float | None
    """None if the version was registered without it; a floor is still watched."""
    baseline_error: float
    """Standard errors, 0 if not known."""
    current: float
    current_error: float
    sample_size: int
    """Outcomes behind `current`."""
    proxy: str = ""
    """Name of the stand-in the metric was measured on, if these are not real outcomes. Weaker, and says
    so."""
    proxy_correlation: float | None = None
    """Of the proxy with the real metric, day by day, where both are known."""
    source: PerformanceSource = PerformanceSource.LABELS
    detail: str = ""
    """Where a DOWNSTREAM or ESTIMATE comes from, for the explanation: `read off 3 labelled consumers: ...`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptCounts:
    """Outcomes by score bin, on the holdout and in the current window; shapes (B,). Positives are at most totals."""

    reference_total: Int64s
    reference_positive: Int64s
    current_total: Int64s
    current_positive: Int64s

    def __post_init__(self) -> None:
        columns = (self.reference_total, self.reference_positive, self.current_total, self.current_positive)
        if any(column.ndim != 1 or column.shape != columns[0].shape for column in columns):
            raise InvalidSample("concept", "shape", "give four rows over the same score bins")
        if min(int(column.min(initial=0)) for column in columns) < 0:
            raise InvalidSample("concept", "count", "a count is negative")
        if (columns[1] > columns[0]).any() or (columns[3] > columns[2]).any():
            raise InvalidSample("concept", "count", "there are more positives than predictions in a bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEvidence:
    """One part of the data, as `country=US`; its features are compared with the same part of the reference if that was
    profiled, else with all of it."""

    name: str
    features: FeatureTable | None = None
    performance: PerformanceEvidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Predictions in the current window, and in the windows of the same length before it, newest first."""

    current: int
    before: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatibility:
    """Embeddings of two versions on the same anchors, see `statistics.embeddings`. Floors: two seeds of one version."""

    anchors: int
    knn_jaccard: float
    procrustes_cosine: float
    cka: float
    knn_jaccard_floor: float
    procrustes_cosine_floor: float
    cka_floor: float
    floor_measured: bool
    """False: nobody gave a second seed, and the floors are the usual ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamEvidence:
    """An upstream model serves another version than this one was trained with. None: nobody gave embeddings."""

    model_id: str
    trained_with: int
    serves: int
    compatibility: Compatibility | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreAt:
    """The score of an earlier look at the same version."""

    at: datetime
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known about one version of a model. None is "not known", which is never "fine"."""

    model_version: int
    trained_until: datetime | None = None
    features: FeatureTable | None = None
    prediction: PredictionCounts | None = None
    performance: PerformanceEvidence | None = None
    coverage: float | None = None
    """joined / mature predictions of the window; None if nothing is mature."""
    guardrails: tuple[PerformanceEvidence, ...] = ()
    """Metrics that the policy names as guardrails, as far as they are known."""
    fallbacks: tuple[PerformanceEvidence, ...] = ()
    """The primary metric from weaker sources, strongest first; the first usable one stands in for few outcomes."""
    concept: ConceptCounts | None = None
    slices: tuple[SliceEvidence, ...] = ()
    volume: Volume | None = None
    upstreams: tuple[UpstreamEvidence, ...] = ()
    labels_per_day: float = 0.0
    """Outcomes that arrive a day, for how long more of them take."""
    history: tuple[ScoreAt, ...] = ()
    """Scores of earlier looks at this version, oldest first, thinned to a few dozen: for the forecast."""
