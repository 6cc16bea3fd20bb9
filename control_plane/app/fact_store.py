"""The port to the fact store: predictions and outcomes in, coverage, performance and evidence out.

Facts are bulk and recomputable; they never enter the event log. `adapters/parquet` implements this on Delta tables.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Protocol

from control_plane.app.fact_reports import (
    CoverageReport,
    CoverageRow,
    EraseBeside,
    Erased,
    FactEvidence,
    Grain,
    JoinReport,
    LiveHour,
    Orphan,
    PerformanceReport,
    Receipt,
    RecordedHours,
    SentHistogram,
    SourceActivity,
    StoreStats,
    TickReport,
)
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.missing import MissingFacts
from control_plane.core.ground_truth.partials import Partial


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
