"""The fact store: predictions, outcomes and profiles on local disk, and every number made of them.

Theory of operation. A batch is appended to the segment log, durable, and taken into memory: into the speed view
(joined when read) and, binned by its version's reference profile, into hourly counts. In the background segments
become Parquet and hours that the speed view has let go of are joined by DuckDB. Each step is one transaction of the
catalogue; after a crash, memory is rebuilt from catalogue, Parquet and the segments that were not converted yet.

Files below the directory: `segments/` (the log), `tables/` (the Delta tables `predictions` and `outcomes`, and features
beside them; elsewhere if so configured), `profiles/` (JSON by sha256), `embeddings/` (Arrow by sha256),
`catalog.sqlite`, `spill/` (DuckDB's, emptied at start), `cache/` (objects read), `lock` (one process at a time).

Every method may be called from any thread. Writing goes through one thread; reads take a lock for milliseconds.
"""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

from control_plane.adapters.parquet.catalog import Catalog
from control_plane.adapters.parquet.directory_lock import lock_directory
from control_plane.adapters.parquet.embeddings import EmbeddingStore
from control_plane.adapters.parquet.erasure import Erasure, nothing_beside
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.folding import Folder
from control_plane.adapters.parquet.histograms import Histograms
from control_plane.adapters.parquet.live import live_hours
from control_plane.adapters.parquet.maintenance import Maintenance, StoreConfig
from control_plane.adapters.parquet.partition import join_partition
from control_plane.adapters.parquet.profiles import ProfileStore
from control_plane.adapters.parquet.reading import Reader
from control_plane.adapters.parquet.rebaseline import rebaselined_profile
from control_plane.adapters.parquet.rebuild import rebuild_histograms
from control_plane.adapters.parquet.recovery import recover
from control_plane.adapters.parquet.segments import SegmentLog
from control_plane.adapters.parquet.sent import SentHour, SentHours
from control_plane.adapters.parquet.serving import microseconds
from control_plane.adapters.parquet.sources import source_activity
from control_plane.adapters.parquet.tables import Tables, place_of
from control_plane.adapters.parquet.writer import Request, Writer
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
from control_plane.core.errors import Invalid, NotFound, Reason, Violation
from control_plane.core.ground_truth.batch import INSTANT_US_MAX
from control_plane.core.ground_truth.labels import WINDOW_MAX, LabelSpec
from control_plane.core.ground_truth.missing import MissingFacts
from control_plane.core.ground_truth.partials import Partial
from control_plane.core.ground_truth.speed import SpeedView
from control_plane.core.ids import parse_model_id
from control_plane.core.statistics.sample import COUNT_MAX

BATCH_ID_CHARS_MAX = 200
"""As in the contract."""


class ParquetFactStore:
    """`FactStore` on a local directory."""

    def __init__(self, root: Path, config: StoreConfig | None = None, *, joins_here: bool = True) -> None:
        """Open or create a store; recovers from whatever a crash left.

        Args:
            joins_here: False if another engine stores rows in the tables and joins them.

        Raises:
            Unavailable: another process has the directory, or acknowledged data is damaged (`SegmentDamaged`).
        """
        config = config or StoreConfig()
        root.mkdir(parents=True, exist_ok=True)
        self._lock_file = lock_directory(root)
        shutil.rmtree(root / "spill", ignore_errors=True)
        try:
            catalog = Catalog(root / "catalog.sqlite")
            self._facts = Facts(
                joins_here=joins_here,
                root=root,
                log=SegmentLog(root / "segments"),
                catalog=catalog,
                profiles=ProfileStore(root / "profiles"),
                histograms=Histograms(catalog),
                speed=SpeedView(config.speed_rows_max),
                speed_window=config.speed_window,
                tables=Tables(place_of(config.tables_url or str(root / "tables"), cache=root / "cache")),
            )
            recover(self._facts)
        except BaseException:
            os.close(self._lock_file)
            raise
        self._config = config
        self._embeddings = EmbeddingStore(root / "embeddings")
        self._writer = Writer(
            self._facts, SentHours(self._facts, hours_keep=config.hours_keep, keep=config.counts_keep)
        )
        self._reader = Reader(self._facts)
        self._maintenance = Maintenance(self._facts, self._writer, config)
        self._erasure = Erasure(self._facts, self._writer, self._maintenance)
        self._folder = Folder(self._facts)
        self._open = True

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
        """See `FactStore`."""
        _check_header(batch_id, "version", version >= 1, "a version is 1 or more")
        return self._writer.submit(
            Request(
                kind="predictions",
                batch_id=batch_id,
                model_id=parse_model_id(model_id),
                version=version,
                ipc=ipc_bytes,
                source=source,
                rate=rate,
                latest_us=INSTANT_US_MAX if latest is None else microseconds(latest),
            )
        )

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
        """See `FactStore`."""
        _check_header(batch_id, "label_type", len(label_type) <= 100, "at most 100 characters")
        return self._writer.submit(
            Request(
                kind="outcomes",
                batch_id=batch_id,
                model_id=parse_model_id(model_id),
                label_type=label_type,
                ipc=ipc_bytes,
                source=source,
                rate=rate,
                latest_us=INSTANT_US_MAX if latest is None else microseconds(latest),
            )
        )

    def pressure(self) -> float:
        """See `FactStore`."""
        return self._writer.pressure()

    def append_predictions(self, batch_id: str, model_id: str, version: int, ipc_bytes: bytes) -> Receipt:
        """See `FactStore`."""
        return self.submit_predictions(batch_id, model_id, version, ipc_bytes).result()

    def append_outcomes(self, batch_id: str, model_id: str, label_type: str, ipc_bytes: bytes) -> Receipt:
        """See `FactStore`."""
        return self.submit_outcomes(batch_id, model_id, label_type, ipc_bytes).result()

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
        """See `FactStore`."""
        _check_header(batch_id, "version", version >= 1, "a version is 1 or more")
        _check_header(batch_id, "producer", 0 < len(producer) <= BATCH_ID_CHARS_MAX, "1 to 200 characters")
        _check_header(batch_id, "predictions", 0 <= predictions <= COUNT_MAX, "0 to 2^53")
        return self._writer.submit_counts(
            SentHour(
                batch_id=batch_id,
                model_id=parse_model_id(model_id),
                version=version,
                producer=producer,
                hour=hour,
                predictions=predictions,
                histograms=histograms,
                prediction=prediction,
                slice_name=slice_name,
                replace=replace,
                now=now,
            )
        )

    def set_label(self, model_id: str, spec: LabelSpec) -> None:
        """See `FactStore`."""
        if not spec.label_type or not 0 < spec.window.total_seconds() <= WINDOW_MAX.total_seconds():
            raise _invalid("label", f"a label has a name and a window of up to {WINDOW_MAX.days} days")
        with self._facts.lock:
            self._facts.put_label(parse_model_id(model_id), spec)

    def describe_model(self, model_id: str, *, tier: int, speed_window: timedelta) -> None:
        """See `FactStore`."""
        with self._facts.lock:
            self._facts.put_tier(parse_model_id(model_id), tier)
            self._facts.speed_windows[model_id] = speed_window

    def put_profile(self, json_bytes: bytes) -> str:
        """See `FactStore`."""
        with self._facts.lock:
            return self._facts.profiles.put(json_bytes)

    def profile(self, digest: str) -> bytes | None:
        """See `FactStore`."""
        return self._facts.profiles.text(digest)

    def put_embeddings(self, ipc_bytes: bytes) -> str:
        """See `FactStore`."""
        return self._embeddings.put(ipc_bytes)

    def embeddings(self, digest: str) -> bytes | None:
        """See `FactStore`."""
        return self._embeddings.get(digest)

    def set_reference(self, model_id: str, version: int, digest: str) -> None:
        """See `FactStore`."""
        model_id = parse_model_id(model_id)
        if self._facts.references.get((model_id, version)) == digest:
            return
        if self._facts.profiles.text(digest) is None:
            raise NotFound(Reason.VERSION_NOT_FOUND, f"there is no profile {digest}", digest=digest)
        with self._writer.exclusive, self._facts.lock:
            rebuild_histograms(self._facts, model_id, version, digest)

    def evidence(
        self, model_id: str, version: int, window_start: datetime, window_end: datetime, now: datetime
    ) -> FactEvidence:
        """See `FactStore`."""
        return self._reader.evidence(model_id, version, window_start, window_end, now)

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
        """See `FactStore`."""
        return self._reader.coverage(
            model_id, version, start, end, now, label_type=label_type, grain=grain, slice_name=slice_name
        )

    def fleet_coverage(
        self, model_ids: Sequence[str], start: datetime, end: datetime, now: datetime
    ) -> dict[str, CoverageRow]:
        """See `FactStore`."""
        return self._reader.fleet_coverage(model_ids, start, end, now)

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
        """See `FactStore`."""
        return self._reader.missing_facts(
            parse_model_id(model_id), version, start, end, now, label_type=label_type, with_ids=with_ids
        )

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
        """See `FactStore`."""
        return self._reader.performance(
            parse_model_id(model_id),
            version,
            start,
            end,
            now,
            label_type=label_type,
            grain=grain,
            slice_name=slice_name,
            known_at=known_at,
            provisional=provisional,
        )

    def orphans(self, model_id: str, limit: int = 100) -> tuple[Orphan, ...]:
        """See `FactStore`."""
        with self._facts.lock:
            return self._facts.catalog.orphans(model_id, limit)

    def sources(self, model_id: str = "") -> tuple[SourceActivity, ...]:
        """See `FactStore`."""
        with self._facts.lock:
            return source_activity(self._facts, model_id)

    def speed_rates(self) -> dict[str, float]:
        """See `FactStore`."""
        with self._facts.lock:
            speed = self._facts.speed
            lowest = {
                model_id: min((speed.rate(model_id, hour) for hour in speed.hours(model_id)), default=1.0)
                for model_id in speed.models()
            }
        return {model_id: rate for model_id, rate in lowest.items() if rate < 1}

    def orphans_total(self, model_id: str) -> int:
        """See `FactStore`."""
        with self._facts.lock:
            return self._facts.catalog.orphans_total(model_id)

    def erase(
        self,
        request_id: str,
        prediction_ids: Sequence[bytes],
        entity_ids: Sequence[str],
        now: datetime,
        beside: EraseBeside = nothing_beside,
    ) -> Erased:
        """See `FactStore`."""
        return self._erasure.erase(request_id, prediction_ids, entity_ids, now, beside)

    def resume_erasures(self, now: datetime, beside: EraseBeside = nothing_beside) -> tuple[str, ...]:
        """See `FactStore`."""
        return self._erasure.resume(now, beside)

    def live_models(self) -> tuple[str, ...]:
        """See `FactStore`."""
        with self._facts.lock:
            return tuple(one for one in self._facts.speed.models() if self._facts.speed.hours(one))

    def live_hours(self, model_id: str, now: datetime) -> tuple[LiveHour, ...]:
        """See `FactStore`."""
        with self._facts.lock:
            return live_hours(self._facts, model_id, now)

    def rebaseline(self, model_id: str, from_version: int, to_version: int, start: datetime, end: datetime) -> str:
        """See `FactStore`."""
        known = self._facts.references.get((parse_model_id(model_id), to_version))
        if known is not None:
            return known
        with self._facts.lock:
            text = rebaselined_profile(self._facts, parse_model_id(model_id), from_version, start, end)
        digest = self.put_profile(text)
        self.set_reference(model_id, to_version, digest)
        return digest

    def recorded_hours(self, model_id: str, start: datetime, end: datetime) -> RecordedHours:
        """See `FactStore`."""
        return self._reader.recorded_hours(model_id, start, end)

    def arrivals(self) -> dict[str, int]:
        """See `FactStore`."""
        with self._facts.lock:
            return dict(self._facts.arrivals)

    def last_predictions(self) -> dict[str, datetime]:
        """See `FactStore`."""
        facts = self._facts
        with facts.lock:
            hours: dict[str, int] = dict(
                facts.catalog.db.execute("SELECT model_id, max(hour) FROM volumes GROUP BY model_id").fetchall()
            )
            for by_model in facts.unsealed_volumes.values():
                for model_id, volumes in by_model.items():
                    hours[model_id] = max(*volumes, hours.get(model_id, 0))
        start = datetime(1970, 1, 1, tzinfo=UTC)
        return {model_id: start + timedelta(hours=hour + 1) for model_id, hour in hours.items()}

    def tick(self, now: datetime, *, force: bool = False) -> TickReport:
        """See `FactStore`."""
        return self._maintenance.tick(now, force=force)

    def join_partition(
        self, start: datetime, end: datetime, now: datetime, *, model_id: str = "", authoritative: bool = False
    ) -> JoinReport:
        """See `FactStore`."""
        return join_partition(
            self._facts,
            self._maintenance,
            self._reader,
            start,
            end,
            now,
            model_id=model_id,
            authoritative=authoritative,
        )

    def stats(self) -> StoreStats:
        """See `FactStore`."""
        facts = self._facts
        with facts.lock:
            files, rows = facts.catalog.db.execute("SELECT count(*), coalesce(sum(rows), 0) FROM files").fetchone()
            due = facts.catalog.db.execute("SELECT count(*) FROM due").fetchone()[0]
            orphans = facts.catalog.db.execute("SELECT coalesce(sum(orphans), 0) FROM orphan_hours").fetchone()[0]
            return StoreStats(
                rows_appended=facts.rows_appended,
                batches_appended=facts.batches_appended,
                duplicate_batches=facts.duplicate_batches,
                segments=len(facts.log.numbers()),
                open_segment_bytes=facts.log.open_bytes,
                files=int(files),
                file_rows=int(rows),
                speed_rows=facts.speed.rows,
                speed_rows_shed=facts.speed.rows_shed,
                due_hours=int(due),
                orphans=int(orphans),
            )

    def close(self) -> None:
        """See `FactStore`. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        self._writer.close()
        self._folder.close()
        self._maintenance.close()
        with self._facts.lock:
            self._facts.log.close_segment()
            self._facts.catalog.close()
        os.close(self._lock_file)


def _check_header(batch_id: str, field: str, fits: bool, rule: str) -> None:
    if not 0 < len(batch_id) <= BATCH_ID_CHARS_MAX:
        raise _invalid("batch_id", f"1 to {BATCH_ID_CHARS_MAX} characters")
    if not fits:
        raise _invalid(field, rule)


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(Reason.INVALID_ARGUMENT, Violation(field=field, rule="range", message=message))
