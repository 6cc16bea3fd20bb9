"""What a fact store is told and what it answers: receipts, coverage, performance, evidence, recorded history."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import MetricValue
from control_plane.core.ground_truth.partials import Partial

Int64s = npt.NDArray[np.int64]
ServedBy = Literal["speed", "batch", "pending"]
Grain = Literal["hour", "day", "version", "slice"]
"""How fine the rows of a report are: by time, or one row for each version or slice over the whole time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A stored batch. `duplicate`: it was stored before, and nothing was changed."""

    rows: int
    duplicate: bool
    sampled_out: int = 0
    """Rows that were not kept, because their ids are outside the sample; not in `rows`."""
    sample_rate: float = 1.0
    """The share of ids that was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """How much of the truth has arrived for predictions of [start, end)."""

    start: datetime
    end: datetime
    predicted: int
    mature: int
    """Predictions whose attribution window has ended."""
    joined: int
    """Of the mature, those whose outcome is here."""
    absent: int
    """Of the mature, those that count as 0 because absence means negative."""
    joined_early: int
    """Outcomes of predictions that are not mature; not in coverage, which they would flatter."""
    late: int
    """Outcomes that came after the speed view had let go of the hour."""
    outside: int
    """Predictions whose outcomes all came after the attribution window."""
    orphans: int
    """Outcomes whose prediction was never seen."""
    pending: int
    """Predictions that wait for the batch join; not in `mature`."""
    layer: ServedBy
    """`batch` if the batch join has the last word on all of it."""
    imputed: int = 0
    """Of `joined`, those whose outcome was guessed."""
    sample_rate: float = 1.0
    """Share of ids that the numbers rest on; below 1 they are estimates, scaled to all."""
    version: int = 0
    """Of a report by version; 0 otherwise."""
    slice_name: str = ""
    """Of a report by slice, as `country=US`; empty otherwise."""

    @property
    def coverage(self) -> float | None:
        """(joined + absent) / mature; None if nothing is mature."""
        return (self.joined + self.absent) / self.mature if self.mature else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageReport:
    """Coverage by its grain, and over all."""

    label: LabelSpec
    total: CoverageRow
    rows: tuple[CoverageRow, ...]
    degraded: tuple[str, ...] = ()
    """What of this answer is worse than it should be, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceRow:
    """Metrics over the mature, labelled predictions of [start, end)."""

    start: datetime
    end: datetime
    metrics: tuple[MetricValue, ...]
    partial: Partial
    layer: ServedBy
    provisional: bool = False
    """Not all of it is mature: corrected by how fast labels usually arrive, and to be revised."""
    arrived: float = 1.0
    """Share of the outcomes that will come which are here."""
    sample_rate: float = 1.0
    version: int = 0
    slice_name: str = ""
    computed_at: datetime | None = None
    """When the numbers were last computed; None if they are computed as they are read."""

    def metric(self, name: str) -> MetricValue | None:
        """One metric; None if the labels do not support it."""
        return next((metric for metric in self.metrics if metric.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceReport:
    """Performance by its grain, and over all."""

    label: LabelSpec
    total: PerformanceRow
    rows: tuple[PerformanceRow, ...]
    delays: Int64s | None = None
    """Delays of all outcomes of the range, over `core.ground_truth.partials.DELAY_EDGES_S`; shape (DELAY_CELLS,)."""
    arrival_curve: npt.NDArray[np.float64] | None = None
    """Share of the outcomes that arrive at all which are here after each delay edge, learned over mature predictions;
    shape (len(DELAY_EDGES_S),). None if nothing is mature."""
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinReport:
    """What joining a stretch of time came to."""

    hours_joined: int
    hours_live: int
    """Hours that the speed layer still serves: a later join replaces them."""
    predicted: int
    joined: int
    late: int
    orphans: int
    cpu_s: float
    by_model: tuple[tuple[str, int, int, float | None], ...]
    """(model id, predicted, joined, coverage), by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """An outcome whose prediction was never seen."""

    model_id: str
    label_type: str
    hour: int
    prediction_id: bytes
    observed_us: int
    value: float
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHour:
    """One hour of one model and label as the speed view has it now."""

    model_id: str
    label_type: str
    hour: int
    rate: float
    """The share of ids that it is of."""
    packed: dict[int, bytes]
    """Version -> packed partial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedLayer:
    """What was found in one layer, and what a second search found: `left` must be 0."""

    layer: str
    found: int
    left: int
    files_rewritten: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure came to; says nothing of whom it was about."""

    ids: int
    ids_sha256: str
    """Over the sorted ids, one after the other."""
    layers: tuple[ErasedLayer, ...]


EraseBeside = Callable[[frozenset[bytes], tuple[str, ...]], tuple[ErasedLayer, ...]]
"""Erases prediction ids and entity ids from what lies beside the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceActivity:
    """What one sender sent of one model."""

    source: str
    model_id: str
    predictions: int
    outcomes: int
    last_predictions_at: datetime | None
    last_outcomes_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureEvidence:
    """Reference and current counts of one histogram, over the same cells; shapes (cells,)."""

    name: str
    kind: Literal["numeric", "categorical"]
    cells: tuple[str, ...]
    """A name for each cell, `missing` last."""
    reference: Int64s
    current: Int64s
    importance: float = 1.0
    """As its profile says; 1 if it says nothing."""
    psi_usual: float = 0.0
    """The upper end of what the PSI usually is in these weeks of the year; 0 without history."""
    outside: int = 0
    """Of the rows that were binned here, those outside the range of the training data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFacts:
    """One part of the data, as `country=US`."""

    name: str
    predictions: int
    features: tuple[FeatureEvidence, ...]
    """The reference is that of the same part, if it was profiled, else of all the data."""
    performance: PerformanceRow | None
    """Over the mature window; None if none of it was labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptFacts:
    """Outcomes by score bin of the profile: on the holdout and in the mature window; shapes (B,)."""

    reference_total: Int64s
    reference_positive: Int64s
    current_total: Int64s
    current_positive: Int64s


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateFacts:
    """What is needed to expect a binary model's metric from its scores alone; shapes (SCORE_BINS,), the bins of
    `core.ground_truth.partials`."""

    scores: Int64s
    """All predictions of the window, labelled or not."""
    calibration_total: Int64s
    """Predictions whose outcome is known: of this version's mature history, and of its profile's holdout."""
    calibration_positive: Int64s


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyFacts:
    """A stand-in for the label that arrives sooner."""

    label: LabelSpec
    performance: PerformanceRow
    """On the proxy, over its own mature window: it is later than that of the label."""
    days: tuple[tuple[float, float], ...]
    """(primary metric on the proxy, on the label) of each day on which both are known, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactEvidence:
    """All that facts say about a version in a window."""

    model_id: str
    version: int
    window_start: datetime
    window_end: datetime
    predictions: int
    """Predictions made in the window; with features and scores binned if the version has a profile."""
    profile_sha256: str
    """Of the reference profile; empty if the version has none."""
    features: tuple[FeatureEvidence, ...]
    """Ordered by name."""
    prediction: FeatureEvidence | None
    label: LabelSpec
    performance: PerformanceRow
    """Over mature predictions: a window of the same length, moved back to where labels are complete."""
    coverage: CoverageRow
    """Of that same moved window."""
    volume: tuple[int, tuple[int, ...]] = (0, ())
    """The model's predictions, all versions: of the window, and of windows of the same length before it, newest first;
    at most `WINDOWS_BEFORE_MAX`, none that began before the model did."""
    slices: tuple[SliceFacts, ...] = ()
    """Ordered by name."""
    concept: ConceptFacts | None = None
    """None if the profile has no outcomes, or the window none."""
    estimate: EstimateFacts | None = None
    """None if the label is not binary, or nothing is calibrated."""
    proxy: ProxyFacts | None = None
    """None if the label has no proxy."""
    labels_per_day: float = 0.0
    """Outcomes a day, over the mature window."""


WINDOWS_BEFORE_MAX = 8
"""Earlier windows that the volume is compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentHistogram:
    """Counts that a producer made itself. Edges (of a number) or categories are those of the reference profile."""

    name: str
    edges: tuple[float, ...]
    categories: tuple[str, ...]
    counts: tuple[int, ...]
    """As in the profile: bins, for categories `other`, then missing (which a score may leave out)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCells:
    """Where a histogram is in the vector of all cells of a profile."""

    name: str
    kind: Literal["numeric", "categorical"]
    cells: tuple[str, ...]
    reference: Int64s
    start: int
    importance: float

    @property
    def end(self) -> int:
        """One past its last cell."""
        return self.start + len(self.reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCounts:
    """Hourly counts of a version over the cells of one profile; n hours."""

    version: int
    profile_sha256: str
    features: tuple[FeatureCells, ...]
    prediction: FeatureCells | None
    hours: Int64s
    """Hours since 1970, ascending; shape (n,)."""
    predictions: Int64s
    """Shape (n,)."""
    counts: npt.NDArray[np.integer]
    """Shape (n, cells): 32 bits wide where they hold all counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPartials:
    """Hourly partials of a version as they are served now."""

    version: int
    hours: Int64s
    """Hours since 1970, ascending; shape (n,)."""
    partials: tuple[Partial, ...]
    """n of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedHours:
    """The recorded history of a model, for a backtest."""

    model_id: str
    label: LabelSpec
    counts: tuple[RecordedCounts, ...]
    """By version and profile."""
    partials: tuple[RecordedPartials, ...]
    """By version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """What a tick did. `more`: there is work left, tick again soon."""

    expired_hours: int = 0
    sealed_segments: int = 0
    joined_hours: int = 0
    deleted_files: int = 0
    more: bool = False


class StoreStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters and sizes, for status and metrics."""

    rows_appended: int
    """Since start, rows read again at recovery included."""
    batches_appended: int
    duplicate_batches: int
    segments: int
    """Segments that are not Parquet yet, the open one included."""
    open_segment_bytes: int
    files: int
    file_rows: int
    speed_rows: int
    """Rows the speed view holds."""
    speed_rows_shed: int
    due_hours: int
    """Hours that wait for a batch join."""
    orphans: int
    """Outcomes without a prediction, as of the last joins."""
