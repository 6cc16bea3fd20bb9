"""What the store keeps in memory, and how one stored batch changes it.

The same `apply` runs when a batch has just become durable and when it is read again after a crash, so that memory
is always a function of what is on disk.
"""

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.compute as pc

from control_plane.adapters.parquet.binning import Admit, bin_batch
from control_plane.adapters.parquet.catalog import Catalog
from control_plane.adapters.parquet.histograms import Histograms
from control_plane.adapters.parquet.profile import Profile
from control_plane.adapters.parquet.profiles import ProfileStore
from control_plane.adapters.parquet.segments import BatchHead, SegmentLog
from control_plane.adapters.parquet.tables import Tables
from control_plane.adapters.parquet.tombstones import Tombstones
from control_plane.core.ground_truth.batch import SLICES_MAX, OutcomeBatch, PredictionBatch, slice_in
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, Int64s
from control_plane.core.ground_truth.labels import LabelSpec, all_labels
from control_plane.core.ground_truth.speed import SpeedView

Batch = PredictionBatch | OutcomeBatch
HOURS_BY_TABLE_MAX = 4_096
"""Hours from the first to the last row of a batch up to which rows are counted by table, not by sorting."""


@dataclass(slots=True, kw_only=True)
class Facts:
    """Shared by writer, reader and maintenance; whoever touches it holds `lock`, for milliseconds at most."""

    root: Path
    log: SegmentLog
    catalog: Catalog
    profiles: ProfileStore
    histograms: Histograms
    speed: SpeedView
    tables: Tables
    lock: threading.RLock = field(default_factory=threading.RLock)
    labels: dict[str, dict[str, LabelSpec]] = field(default_factory=dict)
    """Label types seen or declared, by model."""
    first_labels: dict[str, str] = field(default_factory=dict)
    """Model id -> label type that was declared last, and stands for the model's quality."""
    declared: set[tuple[str, str]] = field(default_factory=set)
    """(model id, label type) of declared labels: their values are checked against the task."""
    references: dict[tuple[str, int], str] = field(default_factory=dict)
    """(model id, version) -> digest of its profile."""
    unsealed_batches: dict[int, dict[bytes, int]] = field(default_factory=dict)
    """Segment -> batch key -> rows."""
    late: dict[tuple[str, str, int], dict[int, int]] = field(default_factory=dict)
    """(model id, label type, hour) -> segment -> late rows that no batch join has seen."""
    slices: dict[str, set[str]] = field(default_factory=dict)
    """Model id -> its slices, as `country=US`; at most `SLICES_MAX`."""
    unsealed_volumes: dict[int, dict[str, dict[int, int]]] = field(default_factory=dict)
    """Segment -> model id -> hour -> predictions; the catalogue has those of sealed segments."""
    unsealed_sources: dict[int, dict[tuple[str, str, str, str], dict[int, int]]] = field(default_factory=dict)
    """Segment -> (model id, kind, label type, source) -> hour of the rows -> rows, likewise."""
    joins_here: bool = True
    """False if another engine stores rows in the tables and joins them: then rows are only counted here."""
    arrived: threading.Event = field(default_factory=threading.Event)
    """Set when there are rows that nobody has joined yet."""
    speed_windows: dict[str, timedelta] = field(default_factory=dict)
    """Model id -> how long the speed view waits for its outcomes; others as the store is configured."""
    now_us: int = 0
    """The clock at the last tick; 0 before the first."""
    speed_window: timedelta = timedelta(days=2)
    """For models of which nothing was said."""
    rates: dict[str, dict[int, float]] = field(default_factory=dict)
    """Model id -> hour -> lowest share of ids that its rows were kept of, where that is below 1."""
    arrivals: dict[str, int] = field(default_factory=dict)
    """Model id -> rows, outcomes and histograms taken in since the start."""
    tombstones: Tombstones = field(default_factory=Tombstones)
    """Ids that were erased: their rows are dropped when they come again."""
    erased_rows_dropped: int = 0
    rows_appended: int = 0
    batches_appended: int = 0
    duplicate_batches: int = 0

    def load(self) -> None:
        """Read the small things from the catalogue."""
        self.tombstones.load(self.catalog.db)
        for model_id, label_type, spec in self.catalog.db.execute("SELECT model_id, label_type, spec FROM labels"):
            self._keep_label(model_id, label_type, spec)
        self.first_labels.update(self.catalog.db.execute("SELECT model_id, label_type FROM first_labels").fetchall())
        for model_id, name in self.catalog.db.execute("SELECT model_id, name FROM slices"):
            self.slices.setdefault(model_id, set()).add(name)
        self.histograms.load()
        for model_id, version, digest in self.catalog.db.execute("SELECT * FROM reference_profiles"):
            self.references[(model_id, version)] = digest
        for model_id, hour in self.catalog.db.execute("SELECT model_id, hour FROM horizons"):
            self.speed.set_horizon(model_id, hour)
        for model_id, tier in self.catalog.db.execute("SELECT model_id, tier FROM tiers"):
            self.speed.set_tier(model_id, tier)
        for model_id, hour, rate in self.catalog.db.execute("SELECT model_id, hour, rate FROM hour_rates"):
            self.note_rates(model_id, {hour: rate})

    def _keep_label(self, model_id: str, label_type: str, spec: bytes) -> None:
        known = self.labels.setdefault(model_id, {})
        if spec:
            known[label_type] = msgspec.json.decode(spec, type=LabelSpec)
            self.declared.add((model_id, label_type))
        else:
            known[label_type] = LabelSpec(label_type=label_type)

    def put_label(self, model_id: str, spec: LabelSpec) -> None:
        """Declare a model's label, and its proxy and its other label types as labels of their own."""
        if self.first_labels.get(model_id) != spec.label_type:
            self.catalog.db.execute("INSERT OR REPLACE INTO first_labels VALUES (?, ?)", (model_id, spec.label_type))
            self.first_labels[model_id] = spec.label_type
        self._declare(model_id, spec)
        for other, _ in all_labels(spec)[1:]:
            self._declare(model_id, other)
        for other, _ in all_labels(spec):
            if other.label_type not in (spec.label_type, spec.proxy):
                self._declare(model_id, other)

    def _declare(self, model_id: str, spec: LabelSpec) -> None:
        """What was computed with another window, task or meaning of absence is computed anew."""
        before = self.labels.get(model_id, {}).get(spec.label_type)
        known = (model_id, spec.label_type) in self.declared
        if known and before == spec:
            return
        with self.catalog.transaction():
            self.catalog.db.execute(
                "INSERT OR REPLACE INTO labels VALUES (?, ?, ?)",
                (model_id, spec.label_type, msgspec.json.encode(spec)),
            )
            if not known or before is None or _counts_by(before) != _counts_by(spec):
                newest = self.catalog.db.execute("SELECT coalesce(max(id), 0) FROM files").fetchone()[0]
                hours = self.catalog.db.execute(
                    "SELECT DISTINCT hour FROM file_hours WHERE model_id = ?", (model_id,)
                ).fetchall()
                self.catalog.mark_due(model_id, {int(row[0]) for row in hours}, int(newest))
        self._keep_label(model_id, spec.label_type, msgspec.json.encode(spec))
        self.speed.forget_cached(model_id)

    def note_label(self, model_id: str, label_type: str) -> None:
        """Remember a label type that outcomes came for; free when it is known."""
        if label_type not in self.labels.get(model_id, {}):
            self.catalog.db.execute("INSERT OR IGNORE INTO labels VALUES (?, ?, x'')", (model_id, label_type))
            self._keep_label(model_id, label_type, b"")

    def labels_of(self, model_id: str) -> list[LabelSpec]:
        """All labels of a model: the one that was declared last, other declared ones, then those that outcomes came
        for; the default one if nothing is known."""
        known = self.labels.get(model_id, {})
        first = self.first_labels.get(model_id)
        ordered = sorted(
            known.values(),
            key=lambda spec: (spec.label_type != first, (model_id, spec.label_type) not in self.declared),
        )
        return ordered or [LabelSpec()]

    def label(self, model_id: str, label_type: str) -> LabelSpec:
        """A model's label; empty means its first one."""
        if not label_type:
            return self.labels_of(model_id)[0]
        return self.labels.get(model_id, {}).get(label_type) or LabelSpec(label_type=label_type)

    def checked_label(self, model_id: str, label_type: str) -> LabelSpec | None:
        """The declared label that values are checked against; None if nothing was declared."""
        spec = self.label(model_id, label_type)
        return spec if (model_id, spec.label_type) in self.declared else None

    def profile_of(self, model_id: str, version: int) -> Profile | None:
        """The reference profile of a version; None if it has none."""
        digest = self.references.get((model_id, version))
        return self.profiles.get(digest) if digest else None

    def batch_rows(self, key: bytes) -> int | None:
        """Rows of a batch that is stored; None if it is not."""
        for keys in self.unsealed_batches.values():
            if key in keys:
                return keys[key]
        row = self.catalog.db.execute("SELECT rows FROM batches WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else None

    def put_tier(self, model_id: str, tier: int) -> None:
        """Remember a model's tier: after a restart memory may run short before anybody says it again."""
        if self.speed.tier(model_id) != tier:
            self.catalog.db.execute("INSERT OR REPLACE INTO tiers VALUES (?, ?)", (model_id, tier))
            self.speed.set_tier(model_id, tier)

    def note_rates(self, model_id: str, rates: dict[int, float]) -> None:
        """Rows of these hours were kept of a share of ids only."""
        known = self.rates.setdefault(model_id, {}) if rates else {}
        for hour, rate in rates.items():
            if rate < known.get(hour, 1.0):
                known[hour] = rate
                self.speed.restrict(model_id, hour, rate)

    def prediction_rows(self, model_id: str, first: int, last: int) -> dict[int, int]:
        """Predictions by hour of first <= hour < last, in files and in open segments, whoever has joined them."""
        rows_of = {
            int(hour): int(rows)
            for hour, rows in self.catalog.db.execute(
                "SELECT hour, sum(rows) FROM file_hours "
                "WHERE model_id = ? AND kind = 'predictions' AND hour >= ? AND hour < ? GROUP BY hour",
                (model_id, first, last),
            )
        }
        for by_model in self.unsealed_volumes.values():
            for hour, rows in by_model.get(model_id, {}).items():
                if first <= hour < last:
                    rows_of[hour] = rows_of.get(hour, 0) + rows
        return rows_of

    def rates_where_known(self, model_id: str, hours: Int64s, otherwise: float) -> dict[int, float]:
        """The rate of each hour of which predictions are here; empty if nothing is sampled at all."""
        with self.lock:
            sampled = self.rates.get(model_id, {})
            if otherwise >= 1 and not sampled:
                return {}
            return {hour: sampled.get(hour, 1.0) for hour in hours_of(hours) if self._has_predictions(model_id, hour)}

    def _has_predictions(self, model_id: str, hour: int) -> bool:
        if any(hour in by_model.get(model_id, {}) for by_model in self.unsealed_volumes.values()):
            return True
        found = self.catalog.db.execute(
            "SELECT 1 FROM volumes WHERE model_id = ? AND hour = ?", (model_id, hour)
        ).fetchone()
        return found is not None

    def apply(self, segment: int, head: BatchHead, batch: Batch | None) -> None:
        """Take in a durable batch that is in an unsealed segment; None if none of its rows is inside the sample."""
        self.unsealed_batches.setdefault(segment, {})[batch_key(head)] = head.rows
        self.rows_appended += head.rows
        self.batches_appended += 1
        self.note_arrival(head.model_id, head.rows)
        self.note_rates(head.model_id, head.rates)
        self.arrived.set()
        if head.kind == "predictions":
            self._count_volumes(segment, head, batch)
        if isinstance(batch, PredictionBatch):
            self._apply_predictions(segment, head, batch)
        elif batch is not None:
            self._apply_outcomes(segment, head, batch)

    def note_arrival(self, model_id: str, rows: int) -> None:
        """A model's evidence may have changed."""
        self.arrivals[model_id] = self.arrivals.get(model_id, 0) + max(rows, 1)

    def admitted(self, model_id: str, names: Iterable[str]) -> Admit:
        """Which slice each of these is counted in: itself while a model has room for more, then `<name>=other`.

        A slice that was admitted stays so; one that found no room finds none later.
        """
        known = self.slices.setdefault(model_id, set())
        for name in names:
            if name not in known and len(known) < SLICES_MAX:
                self.catalog.db.execute("INSERT OR IGNORE INTO slices VALUES (?, ?)", (model_id, name))
                known.add(name)
        return lambda name: slice_in(known, name)

    def _count_volumes(self, segment: int, head: BatchHead, batch: Batch | None) -> None:
        """All predictions that were sent, inside the sample or not; sources are counted likewise."""
        by_hour = sorted(head.offered.items())
        if not by_hour and isinstance(batch, PredictionBatch):
            by_hour = rows_by_hour(batch.predicted_us // MICROSECONDS_PER_HOUR)
        volumes = self.unsealed_volumes.setdefault(segment, {}).setdefault(head.model_id, {})
        for hour, rows in by_hour:
            volumes[hour] = volumes.get(hour, 0) + rows
        if by_hour:
            self._note_source(segment, head, by_hour)

    def _apply_predictions(self, segment: int, head: BatchHead, batch: PredictionBatch) -> None:
        profile = self.profile_of(head.model_id, head.version)
        new = (
            self.speed.add_predictions(
                head.model_id,
                head.version,
                batch.ids,
                batch.predicted_us,
                batch.score,
                tell_new=profile is not None,
            )
            if self.joins_here
            else None
        )
        if profile is not None:
            counted = bin_batch(profile, batch, new, self.admitted(head.model_id, slice_names(batch)))
            self.histograms.add(segment, head.model_id, head.version, profile.digest, counted)
        elif batch.slices:
            self.admitted(head.model_id, slice_names(batch))

    def _apply_outcomes(self, segment: int, head: BatchHead, batch: OutcomeBatch) -> None:
        self.note_label(head.model_id, head.label_type)
        self._note_source(segment, head, rows_by_hour(batch.observed_us // MICROSECONDS_PER_HOUR))
        if not self.joins_here:
            return
        late = self.speed.add_outcomes(
            head.model_id,
            head.label_type,
            batch.ids,
            batch.observed_us,
            batch.value,
            batch.revision,
            leave_before=self.live_from(head.model_id) if self.now_us else 0,
        )
        for hour, rows in late.items():
            by_segment = self.late.setdefault((head.model_id, head.label_type, hour), {})
            by_segment[segment] = by_segment.get(segment, 0) + rows

    def _note_source(self, segment: int, head: BatchHead, by_hour: list[tuple[int, int]]) -> None:
        """Who sent rows of which hours."""
        key = (head.model_id, head.kind, head.label_type, head.source)
        hours = self.unsealed_sources.setdefault(segment, {}).setdefault(key, {})
        for hour, rows in by_hour:
            hours[hour] = hours.get(hour, 0) + rows

    def live_from(self, model_id: str) -> int:
        """The first hour whose outcomes the speed view waits for, by the clock."""
        window = max(spec.window for spec in self.labels_of(model_id))
        waits = min(window, self.speed_windows.get(model_id, self.speed_window))
        return max(0, hour_of(self.now_us - waits // timedelta(microseconds=1)))

    def late_rows(self, model_id: str, label_type: str, hour: int) -> int:
        """Late rows of an hour that the batch join has not seen yet."""
        return sum(self.late.get((model_id, label_type, hour), {}).values())


def _counts_by(spec: LabelSpec) -> tuple[str, timedelta, bool]:
    """What of a label changes the numbers of an hour."""
    return spec.task, spec.window, spec.absence_means_negative


def proxy_label(spec: LabelSpec) -> LabelSpec | None:
    """The label that a label's proxy is joined by: the same task, its own window; None if there is no proxy."""
    return next((other for other, _ in all_labels(spec)[1:] if other.label_type == spec.proxy), None)


def rows_by_hour(hours: Int64s) -> list[tuple[int, int]]:
    """(hour, rows) of a batch; nearly always there is one hour, and no need to sort."""
    low = int(hours.min())
    if low == int(hours.max()):
        return [(low, len(hours))]
    if int(hours.max()) - low < HOURS_BY_TABLE_MAX:
        counts = np.bincount(hours - low)
        at = np.flatnonzero(counts)
        return list(zip((at + low).tolist(), counts[at].tolist(), strict=True))
    distinct, rows = np.unique(hours, return_counts=True)
    return list(zip(distinct.tolist(), rows.tolist(), strict=True))


def hours_of(hours: Int64s) -> list[int]:
    """Distinct hours."""
    low, high = int(hours.min()), int(hours.max())
    return [low] if low == high else [int(hour) for hour in np.unique(hours)]


def slice_names(batch: PredictionBatch) -> list[str]:
    """The slices of a batch, as `country=US`, in order of arrival."""
    return [
        f"{name}={value}"
        for name, column in batch.slices.items()
        for value in pc.unique(column).to_pylist()
        if value is not None
    ]


def batch_key(head: BatchHead) -> bytes:
    """Identity of a batch: what it is of, and the id its sender chose."""
    text = "\0".join((head.kind, head.model_id, head.label_type, head.batch_id))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def hour_of(instant_us: int) -> int:
    """Hours since 1970, rounded down."""
    return instant_us // MICROSECONDS_PER_HOUR
