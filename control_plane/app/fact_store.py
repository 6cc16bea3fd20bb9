"""The port to the fact store: predictions and outcomes in, coverage, performance and evidence out.

Facts are bulk and recomputable; they never enter the event log. `adapters/parquet` implements this on local disk.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import MetricValue
from control_plane.core.ground_truth.missing import MissingFacts
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


class FactStore(Protocol):
    """What the application asks of a fact store. Errors: `Invalid` (INVALID_BATCH, INVALID_ARGUMENT), `NotFound`,
    `Unavailable` (STORE_UNAVAILABLE, SHUTTING_DOWN)."""

    def submit_predictions(
        self,
        batch_id: str,
        model_id: str,
        version: int,
        ipc_bytes: bytes,
        *,
        source: str = "",
        rate: float = 1.0,
        latest: datetime | None = None,
    ) -> "Future[Receipt]":
        """Queue a batch of predictions; the future resolves once it is durable and readable.

        Args:
            source: who sends it.
            rate: share of ids to keep, by their hash; the others are answered as sampled out.
            latest: instants after this are refused; None believes all.
        """
        ...

    def submit_outcomes(
        self,
        batch_id: str,
        model_id: str,
        label_type: str,
        ipc_bytes: bytes,
        *,
        source: str = "",
        rate: float = 1.0,
        latest: datetime | None = None,
    ) -> "Future[Receipt]":
        """Queue a batch of outcomes. An empty label type means the model's first.

        Outcomes of an hour whose predictions are here are kept at the rate of those, of another hour at `rate`.
        """
        ...

    def pressure(self) -> float:
        """The share of the room for waiting batches that is taken, 0 (idle) to 1 (full)."""
        ...

    def append_predictions(self, batch_id: str, model_id: str, version: int, ipc_bytes: bytes) -> Receipt:
        """Store a batch of predictions; durable and readable on return."""
        ...

    def append_outcomes(self, batch_id: str, model_id: str, label_type: str, ipc_bytes: bytes) -> Receipt:
        """Store a batch of outcomes; durable and readable on return."""
        ...

    def submit_histograms(
        self,
        batch_id: str,
        model_id: str,
        version: int,
        producer: str,
        hour: datetime,
        predictions: int,
        histograms: Sequence[SentHistogram],
        prediction: SentHistogram | None,
        slice_name: str,
        replace: bool,
        now: datetime,
    ) -> "Future[Receipt]":
        """Queue one hour as a producer counted it, of all its predictions or of a slice (as `country=US`).

        The same hour of the same producer again changes nothing if the counts are the same; others are refused
        (`INVALID_BATCH`) unless `replace`.
        """
        ...

    def set_label(self, model_id: str, spec: LabelSpec) -> None:
        """Declare a model's label and its proxy; the same again changes nothing."""
        ...

    def describe_model(self, model_id: str, *, tier: int, speed_window: timedelta) -> None:
        """Say how important a model is, 1 to 4: lower tiers give up memory first. And how long the speed view waits for
        its outcomes. Known until the store is closed."""
        ...

    def put_profile(self, json_bytes: bytes) -> str:
        """Store a reference profile; returns its sha256."""
        ...

    def profile(self, digest: str) -> bytes | None:
        """The JSON of a profile; None if there is none."""
        ...

    def put_embeddings(self, ipc_bytes: bytes) -> str:
        """Check and store what a version makes of the fixed anchors; returns its sha256.

        `INVALID_ARGUMENT` names row and column of each violation.
        """
        ...

    def embeddings(self, digest: str) -> bytes | None:
        """The Arrow IPC stream as it was put; None if there is none."""
        ...

    def rebaseline(self, model_id: str, from_version: int, to_version: int, start: datetime, end: datetime) -> str:
        """Give a version that has no profile one made of the counts of another in [start, end), whole days; its sha256.

        A version that has a profile keeps it.

        Raises:
            NotFound: the other version has no profile, or nothing was counted then.
        """
        ...

    def set_reference(self, model_id: str, version: int, digest: str) -> None:
        """Say which profile a version's predictions are binned by; rows that are here already are binned anew."""
        ...

    def evidence(
        self, model_id: str, version: int, window_start: datetime, window_end: datetime, now: datetime
    ) -> FactEvidence:
        """All that facts say about a version in a window of whole hours."""
        ...

    def coverage(
        self,
        model_id: str,
        version: int | None,
        start: datetime,
        end: datetime,
        now: datetime,
        *,
        label_type: str = "",
        grain: Grain = "day",
        slice_name: str = "",
    ) -> CoverageReport:
        """How much of the truth has arrived for predictions made in [start, end).

        Args:
            slice_name: as `country=US`; empty is all.
        """
        ...

    def fleet_coverage(
        self, model_ids: Sequence[str], start: datetime, end: datetime, now: datetime
    ) -> dict[str, CoverageRow]:
        """Coverage of many models by their first label, of as many hours as [start, end), moved back to where labels
        are complete. Only counts of predictions and outcomes are filled. Cheap: 500 models in well under a second."""
        ...

    def missing_facts(
        self,
        model_id: str,
        version: int | None,
        start: datetime,
        end: datetime,
        now: datetime,
        *,
        label_type: str = "",
        with_ids: bool = True,
    ) -> tuple[MissingFacts, Partial]:
        """What `core.ground_truth.causes` needs to say why outcomes of [start, end) are missing, and the merged partial
        of its mature predictions. Reads files, for a fraction of a second, if `with_ids`."""
        ...

    def performance(
        self,
        model_id: str,
        version: int | None,
        start: datetime,
        end: datetime,
        now: datetime,
        *,
        label_type: str = "",
        grain: Grain = "day",
        slice_name: str = "",
        known_at: datetime | None = None,
        provisional: bool = False,
    ) -> PerformanceReport:
        """Metrics over the mature predictions made in [start, end).

        Args:
            slice_name: as `country=US`; empty is all.
            known_at: answer with what had been computed by then, of what was mature then; not of slices.
            provisional: also predictions that are not mature, corrected by how fast outcomes arrive.
        """
        ...

    def recorded_hours(self, model_id: str, start: datetime, end: datetime) -> RecordedHours:
        """What was recorded of the predictions made in [start, end): counts, and partials as they are served now."""
        ...

    def arrivals(self) -> dict[str, int]:
        """How much has arrived of each model since the start (rows, outcomes, histograms).

        Grows whenever a model's evidence may have changed. Cheap; models of which nothing came are missing.
        """
        ...

    def last_predictions(self) -> dict[str, datetime]:
        """The end of the hour of each model's newest prediction; models without any are missing."""
        ...

    def tick(self, now: datetime, *, force: bool = False) -> TickReport:
        """Do a bounded part of what is due; call it often, from a worker thread."""
        ...

    def join_partition(
        self, start: datetime, end: datetime, now: datetime, *, model_id: str = "", authoritative: bool = False
    ) -> JoinReport:
        """Join the predictions made in [start, end), widened to whole hours, and wait for it; from a worker thread.

        Args:
            model_id: of one model; empty is of all.
            authoritative: join every hour again. Otherwise only hours whose rows have changed since their last join.
        """
        ...

    def orphans(self, model_id: str, limit: int = 100) -> tuple[Orphan, ...]:
        """Outcomes of a model whose prediction was never seen, as of the last joins; newest first."""
        ...

    def sources(self, model_id: str = "") -> tuple[SourceActivity, ...]:
        """What each sender sent of a model, or of all, as long as its hours are kept; by source and model."""
        ...

    def speed_rates(self) -> dict[str, float]:
        """The lowest share of ids that the speed view keeps of any live hour, of models where that is below 1."""
        ...

    def erase(
        self,
        request_id: str,
        prediction_ids: Sequence[bytes],
        entity_ids: Sequence[str],
        now: datetime,
        beside: EraseBeside,
    ) -> Erased:
        """Erase predictions, by id and by entity, and all that hangs on them; takes as long as it takes.

        Begun durably: after a crash `resume_erasures` finishes it. The same request again gives the same answer.
        """
        ...

    def resume_erasures(self, now: datetime, beside: EraseBeside) -> tuple[str, ...]:
        """Finish what a crash interrupted; the requests that were."""
        ...

    def live_models(self) -> tuple[str, ...]:
        """Models of which the speed view has hours, by id."""
        ...

    def live_hours(self, model_id: str, now: datetime) -> tuple[LiveHour, ...]:
        """A model's hours in the speed view, of all its labels, by hour. Packed anew each time: for some models."""
        ...

    def orphans_total(self, model_id: str) -> int:
        """How many orphans a model has, listed or not."""
        ...

    def stats(self) -> StoreStats:
        """Counters and sizes."""
        ...

    def close(self) -> None:
        """Write what is queued and let go of the directory."""
        ...
