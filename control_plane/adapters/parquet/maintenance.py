"""What happens as time passes: hours expire, segments become Parquet, due hours are joined.

A *pass* is due every `join_every`. It closes the open segment, keeps the last speed partials of the hours that
expire, converts all closed segments, and joins all due hours that the speed view no longer serves. Since
everything the speed view held is sealed before the join runs, the batch partial never holds less than the speed
partial it replaces. A pass is cut into steps of bounded work; one `tick` does a few of them, and the next tick goes
on where it stopped; a join runs in a thread of its own. Every step commits by itself, so that a crash repeats at most
one.
"""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from control_plane.adapters.parquet.batch_join import BatchJoin, Job, JobResult
from control_plane.adapters.parquet.catalog import ORPHANS_MAX
from control_plane.adapters.parquet.compaction import Compaction
from control_plane.adapters.parquet.conversion import Conversion
from control_plane.adapters.parquet.due import DueHours
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.retention import delete_forgotten, drop_old
from control_plane.adapters.parquet.serving import EPOCH, mature_before_hour
from control_plane.adapters.parquet.settling import Settling
from control_plane.adapters.parquet.writer import Writer
from control_plane.app.fact_reports import Orphan, TickReport
from control_plane.core.errors import Reason, Unavailable
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR
from control_plane.core.ground_truth.partials import merge_weighted, pack
from control_plane.core.ground_truth.speed import ROWS_MAX

JOIN_WAIT_S = 2.0
"""How long a tick waits for a join. Nearly all are done by then; a huge hour goes on in its thread, and later ticks
look after it, so that whoever ticks is not held up for minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """How the store spends time and space."""

    join_every: timedelta = timedelta(hours=1)
    """How often hours expire and are joined. With a driven clock a day is a good choice: the speed view answers
    meanwhile."""
    speed_window: timedelta = timedelta(days=2)
    """How long the speed view waits for outcomes of a model of which nothing else was said, if the attribution window
    is not over before."""
    keep: timedelta = timedelta(days=100)
    """How long rows are kept: the longest attribution window and some. Partials stay."""
    hours_keep: timedelta = timedelta(days=100)
    """How long counts are kept by the hour: as long as rows, so that a backtest finds both."""
    counts_keep: timedelta = timedelta(days=400)
    """How long counts are kept by the day: the same weeks a year earlier, and some (13 months)."""
    orphans_keep: timedelta = timedelta(days=7)
    """How long orphans are listed."""
    speed_rows_max: int = ROWS_MAX
    tables_url: str = ""
    """Where the Delta tables are: a folder or `s3://bucket/prefix`; empty is a folder in the store's directory."""
    join_threads: int = 1


@dataclass(frozen=True, slots=True)
class _RunningJoin:
    """A join in its thread, and what it has seen."""

    job: Job
    seen_file: int
    sealed_segment: int
    result: "Future[JobResult]"


class Maintenance:
    """Runs ticks; one at a time."""

    def __init__(self, facts: Facts, writer: Writer, config: StoreConfig) -> None:
        self._facts = facts
        self._writer = writer
        self._config = config
        self._conversion = Conversion(facts, writer)
        self._compaction = Compaction(facts)
        self._due = DueHours(facts)
        self._one_tick = threading.Lock()
        self._join = BatchJoin(facts.root / "spill", threads=config.join_threads)
        self._passed_us = facts.catalog.meta("passed_us")
        self._settling = Settling(facts)
        self._in_pass = False
        self._join_thread = ThreadPoolExecutor(1, "fact-join")
        self._running: _RunningJoin | None = None

    def close(self) -> None:
        """Wait for a running tick, stop a join under way, then let go of DuckDB."""
        with self._one_tick:
            if self._running is not None:
                self._join.interrupt()  # it has written nothing, and will be due again
            self._join_thread.shutdown()
            self._join.close()

    def tick(self, now: datetime, *, force: bool = False) -> TickReport:
        """Do a bounded part of the work that is due at `now`; `force` starts a new pass at once.

        Raises:
            Unavailable: the disk or DuckDB refused; nothing is lost, and the next tick tries again.
        """
        with self._one_tick:
            try:
                return self._tick(now, force=force)
            except (OSError, sqlite3.Error, duckdb.Error, pa.ArrowException, DeltaError) as error:
                raise Unavailable(
                    Reason.STORE_UNAVAILABLE, f"facts could not be converted or joined: {error}"
                ) from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No tick and no join while the block runs. A join under way is given up: it has written nothing, and is due
        again."""
        with self._one_tick:
            if self._running is not None:
                self._join.interrupt()
                wait([self._running.result])
                self._running = None
            yield

    def finish(self, now: datetime) -> int:
        """Do all that is due at `now`, a pass begun for it included; hours joined. Takes as long as it takes."""
        report = self.tick(now, force=True)
        joined = report.joined_hours
        while report.more:
            report = self.tick(now)
            joined += report.joined_hours
        return joined

    def _tick(self, now: datetime, *, force: bool) -> TickReport:
        now_us = int(now.timestamp()) * 1_000_000
        self._facts.now_us = now_us
        expired = 0
        if force or (not self._in_pass and now_us - self._passed_us >= self._us(self._config.join_every)):
            self._in_pass = True
            self._due.begin(all_of_them=force)
            expired = self._expire(now_us)
        sealed = self._conversion.convert()
        joined = deleted = 0
        more = bool(self._conversion.waiting())
        if self._in_pass and not more:
            joined, more = self._run_join(now)
            more = more or self._compaction.step(now_us)
            if not more:
                self._settling.settle(now_us)
                deleted = self._drop_old(now_us)
                with self._facts.lock, self._facts.catalog.transaction():
                    self._facts.catalog.set_meta("passed_us", now_us)
                self._passed_us, self._in_pass = now_us, False
        return TickReport(
            expired_hours=expired,
            sealed_segments=sealed,
            joined_hours=joined,
            deleted_files=deleted,
            more=more,
        )

    def _us(self, span: timedelta) -> int:
        return span // timedelta(microseconds=1)

    def _expire(self, now_us: int) -> int:
        """Close the open segment and let the speed view go of hours whose wait is over, keeping their partials."""
        expired = 0
        with self._writer.exclusive, self._facts.lock:
            self._facts.log.close_segment()
            horizons = {model_id: self._facts.live_from(model_id) for model_id in self._facts.speed.models()}
            with self._facts.catalog.transaction():
                for model_id, horizon in horizons.items():
                    expired += self._keep_partials(model_id, horizon, now_us)
                    self._facts.catalog.db.execute(
                        "INSERT INTO horizons VALUES (?, ?) ON CONFLICT DO UPDATE SET hour = max(hour, excluded.hour)",
                        (model_id, horizon),
                    )
            for model_id, horizon in horizons.items():
                self._facts.speed.expire(model_id, horizon)
        return expired

    def _keep_partials(self, model_id: str, horizon: int, now_us: int) -> int:
        """Store the speed partials of hours before the horizon; they answer until the batch join replaces them."""
        hours = [hour for hour in self._facts.speed.hours(model_id) if hour < horizon]
        for spec in self._facts.labels_of(model_id):
            mature_before = (now_us - spec.window_us) // MICROSECONDS_PER_HOUR
            for hour in hours:
                partials = self._facts.speed.partials(model_id, spec, hour, mature_before) or {}
                weight = 1 / self._facts.speed.rate(model_id, hour)
                packed = {version: pack(merge_weighted([(partial, weight)])) for version, partial in partials.items()}
                self._facts.catalog.put_partials(model_id, spec.label_type, hour, "speed", packed, computed_us=now_us)
        return len(hours)

    def _run_join(self, now: datetime) -> tuple[int, bool]:
        """Start a join of some due hours, or look after the one under way.

        Returns:
            Hours joined, and whether there may be more to do.
        """
        if self._running is None:
            self._running = self._start_join(now)
        if self._running is None:
            return 0, False
        running = self._running
        try:
            result = running.result.result(timeout=JOIN_WAIT_S)
        except TimeoutError:
            return 0, True
        except BaseException:
            self._running = None
            raise
        self._running = None
        with self._facts.lock:
            with self._facts.catalog.transaction():
                self._store(running.job, result, running.seen_file, self._us(now - EPOCH))
            self._forget_late(running.job, running.sealed_segment)
        return len(running.job.due), True

    def _start_join(self, now: datetime) -> "_RunningJoin | None":
        with self._facts.lock:
            due = self._due.some(int(now.timestamp()) * 1_000_000)
            if not due:
                return None
            job = self._job(due, now)
            seen_file = int(self._facts.catalog.db.execute("SELECT coalesce(max(id), 0) FROM files").fetchone()[0])
            sealed_segment = self._facts.catalog.meta("sealed_segment")
        return _RunningJoin(job, seen_file, sealed_segment, self._join_thread.submit(self._join_files, job))

    def _join_files(self, job: Job) -> JobResult:
        """In the thread of joins: objects of a bucket are fetched first, which may take a while."""
        local = {
            path: str(self._facts.tables.place.local(path)) for path in (*job.prediction_files, *job.outcome_files)
        }
        return self._join.run(
            replace(
                job,
                prediction_files=tuple(local[path] for path in job.prediction_files),
                outcome_files=tuple(local[path] for path in job.outcome_files),
                sliced_files=tuple(local[path] for path in job.sliced_files),
            )
        )

    def _job(self, due: list[tuple[str, int]], now: datetime) -> Job:
        """Everything a join of these hours must read."""
        catalog = self._facts.catalog
        predictions: set[tuple[str, int]] = set()
        outcomes: set[tuple[str, int]] = set()
        for model_id, hour in due:
            predictions.add((model_id, hour))
            predictions.update((model_id, reader) for reader in catalog.prediction_hours(model_id, hour))
            outcomes.add((model_id, hour))
            outcomes.update((model_id, in_id) for in_id in catalog.hours_in_ids(model_id, hour))
        models = sorted({model_id for model_id, _ in due})
        files: dict[str, list[str]] = {"predictions": [], "outcomes": []}
        sliced: list[str] = []
        for kind, pairs in (("predictions", predictions), ("outcomes", outcomes)):
            found: dict[str, bool] = {}
            for model_id in models:
                found.update(catalog.files_of(model_id, kind, [hour for one, hour in pairs if one == model_id]))
            for path, has_slices in sorted(found.items()):
                files[kind].append(path)
                sliced += files[kind][-1:] if has_slices else []
        labels = [(model_id, spec) for model_id in models for spec in self._facts.labels_of(model_id)]
        rows = sum(catalog.rows_of(model_id, "predictions", hour) for model_id, hour in predictions)
        rows += sum(catalog.rows_of(model_id, "outcomes", hour) for model_id, hour in outcomes)
        return Job(
            due=tuple(due),
            prediction_hours=tuple(sorted(predictions)),
            outcome_hours=tuple(sorted(outcomes)),
            prediction_files=tuple(files["predictions"]),
            outcome_files=tuple(files["outcomes"]),
            labels=tuple(labels),
            mature_before={f"{model_id}/{spec.label_type}": mature_before_hour(spec, now) for model_id, spec in labels},
            rows=rows,
            sliced_files=tuple(sliced),
            slices={model_id: frozenset(self._facts.slices.get(model_id, ())) for model_id in models},
            rates=tuple(
                (model_id, hour, rate)
                for model_id in models
                for hour, rate in sorted(self._facts.rates.get(model_id, {}).items())
            ),
        )

    def _store(self, job: Job, result: JobResult, seen_file: int, now_us: int) -> None:
        """Replace partials and orphans of the joined hours; inside one transaction."""
        catalog = self._facts.catalog
        for model_id, hour in job.due:
            again_at = 0
            for label_model, spec in job.labels:
                if label_model != model_id:
                    continue
                key = (model_id, spec.label_type, hour)
                weight = 1 / self._facts.rates.get(model_id, {}).get(hour, 1.0)
                packed = {
                    version: pack(merge_weighted([(partial, weight)]))
                    for version, partial in result.partials.get(key, {}).items()
                }
                catalog.put_partials(model_id, spec.label_type, hour, "batch", packed, computed_us=now_us)
                catalog.put_orphans(*key, round(result.orphans.get(key, 0) * weight))
                by_slice = {
                    at: pack(merge_weighted([(partial, weight)]))
                    for at, partial in result.slice_partials.get(key, {}).items()
                }
                catalog.put_slice_partials(*key, by_slice)
                mature_before = job.mature_before[f"{model_id}/{spec.label_type}"]
                if spec.absence_means_negative and packed and hour >= mature_before:
                    again_at = max(again_at, hour + 1 - (-spec.window_us // MICROSECONDS_PER_HOUR))
            catalog.settle_due(model_id, hour, seen_file, again_at, now_us)
        self._list_orphans(result.listed)

    def _list_orphans(self, listed: tuple[Orphan, ...]) -> None:
        db = self._facts.catalog.db
        room = ORPHANS_MAX - int(db.execute("SELECT count(*) FROM orphans").fetchone()[0])
        db.executemany(
            "INSERT OR REPLACE INTO orphans VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    one.model_id,
                    one.label_type,
                    one.hour,
                    one.prediction_id,
                    one.observed_us,
                    one.value,
                    one.revision,
                )
                for one in listed[: max(0, room)]
            ],
        )

    def _forget_late(self, job: Job, sealed_segment: int) -> None:
        """Late rows that the join has seen are in its partials now."""
        due = set(job.due)
        for key in [key for key in self._facts.late if (key[0], key[2]) in due]:
            left = {segment: n for segment, n in self._facts.late[key].items() if segment > sealed_segment}
            if left:
                self._facts.late[key] = left
            else:
                del self._facts.late[key]

    def _drop_old(self, now_us: int) -> int:
        """What is past its time goes; how many files."""
        config = self._config
        dropped = drop_old(
            self._facts,
            now_us,
            keep=config.keep,
            hours_keep=config.hours_keep,
            counts_keep=config.counts_keep,
            orphans_keep=config.orphans_keep,
        )
        delete_forgotten(self._facts, now_us)
        self._compaction.tidy()
        return dropped
