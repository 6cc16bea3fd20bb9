"""Ground truth as the rest of the application uses it: the fact store behind an asynchronous face.

The store does its own group commit: batches that wait together share one fdatasync. What is added here is what only the
application knows: which label a model has and by which profile a version's predictions are binned, both taken from the
state and told to the store before the first batch that needs them. A version that was promoted without a profile is
measured by what the version before it saw until then.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from control_plane.app.fact_reports import JoinReport, Receipt, SentHistogram
from control_plane.app.fact_store import FactStore
from control_plane.core.errors import NotFound, Reason, Unavailable
from control_plane.core.ground_truth.batch import SKEW_MAX
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.sampling import felt_pressure, rate_in_force, room_for
from control_plane.core.ids import ModelId
from control_plane.core.registry.types import PRODUCTION, ModelVersion
from control_plane.core.state import ModelRecord

log = structlog.get_logger("runway.ground_truth")

T = TypeVar("T")

BATCHES_WAITING_MAX = 64
"""Batches that the store is given at once: more are not made durable sooner."""
WAITING_BYTES_MAX = 512 * 2**20
"""Bytes in memory that are not on disk yet. As they fill up, less is kept of low tiers, then these are turned away."""


@dataclass(frozen=True, slots=True)
class FactCounts:
    """Rows accepted by this server since it started."""

    predictions: int
    outcomes: int
    histograms: int = 0
    """Hours that producers counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedHour:
    """One hour of predictions as a producer counted it, of all of them or of a slice (as `country=US`)."""

    producer: str
    hour: datetime
    predictions: int
    features: tuple[SentHistogram, ...]
    prediction: SentHistogram | None
    slice_name: str
    replace: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledModel:
    """A model of which less than everything is kept."""

    model_id: ModelId
    tier: int
    policy_rate: float
    rate: float
    """In force when its last batch came; below `policy_rate` under pressure."""


_Known = tuple[LabelSpec, str, tuple[int, datetime, datetime] | None, int, timedelta]
"""What the store was told: label, profile, by what to make a reference if there is no profile, tier, speed window."""


class GroundTruth:
    """The fact store, and a thread for everything in it that takes more than a moment."""

    def __init__(self, store: FactStore, *, clock_runs: bool = False) -> None:
        self._store = store
        self._clock_runs = clock_runs
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="facts")
        self._room = asyncio.Semaphore(BATCHES_WAITING_MAX)
        self._joining = asyncio.Lock()
        self._waiting_bytes = 0
        self._felt = 0.0
        self._sampled: dict[ModelId, SampledModel] = {}
        self._told: dict[tuple[ModelId, int], _Known] = {}
        self._predictions = 0
        self._outcomes = 0
        self._histograms = 0

    async def append_predictions(
        self,
        batch_id: str,
        record: ModelRecord,
        version: ModelVersion,
        arrow_ipc: bytes,
        *,
        source: str = "",
        now: datetime | None = None,
    ) -> Receipt:
        """Store a batch of predictions; durable when this returns. `now`: what is a day later than this is refused.

        Raises:
            Invalid(INVALID_BATCH): refused whole, with row and column of each violation.
            Unavailable: the disk did not take it, or too much waits already; send it again under the same id.
        """
        await self.tell(record, version)
        receipt = await self._append(
            record,
            len(arrow_ipc),
            lambda rate: self._store.submit_predictions(
                batch_id, record.model_id, version.number, arrow_ipc, source=source, rate=rate, latest=self._latest(now)
            ),
        )
        self._predictions += 0 if receipt.duplicate else receipt.rows
        return receipt

    async def append_outcomes(
        self,
        batch_id: str,
        record: ModelRecord,
        label_type: str,
        arrow_ipc: bytes,
        *,
        source: str = "",
        now: datetime | None = None,
    ) -> Receipt:
        """Store a batch of outcomes; durable when this returns. Errors as `append_predictions`."""
        await self.tell(record, None)
        receipt = await self._append(
            record,
            len(arrow_ipc),
            lambda rate: self._store.submit_outcomes(
                batch_id, record.model_id, label_type, arrow_ipc, source=source, rate=rate, latest=self._latest(now)
            ),
        )
        self._outcomes += 0 if receipt.duplicate else receipt.rows
        return receipt

    def _latest(self, now: datetime | None) -> datetime | None:
        """The latest instant that is believed; with a driven clock all are, since it stands where it is put."""
        return now + SKEW_MAX if now is not None and self._clock_runs else None

    async def _append(self, record: ModelRecord, size: int, submit: Callable[[float], "Future[Receipt]"]) -> Receipt:
        """Wait for room, then for the disk. The rate is that of the moment at which the batch leaves the queue."""
        tier, policy = record.facts.tier, record.ground_truth_policy
        if not room_for(tier, self.pressure, degrade=policy.degrade_under_pressure):
            raise Unavailable(
                Reason.STORE_UNAVAILABLE,
                f"too much waits to be written already ({self._waiting_bytes / 2**20:,.0f} MiB), and models of higher "
                "tiers go first: slow down and send the batch again under the same id",
                model_id=record.model_id,
            )
        self._waiting_bytes += size
        try:
            async with self._room:
                self._felt = felt_pressure(self._felt, self.pressure)
                rate = rate_in_force(policy.sample_rate, tier, self._felt, degrade=policy.degrade_under_pressure)
                self._note_rate(record.model_id, tier, policy.sample_rate, rate)
                return await asyncio.wrap_future(submit(rate))
        finally:
            self._waiting_bytes -= size

    @property
    def pressure(self) -> float:
        """The share of the room for waiting batches that is taken, 0 (idle) to 1 (full)."""
        return min(1.0, self._waiting_bytes / WAITING_BYTES_MAX)

    def sampled(self) -> tuple["SampledModel", ...]:
        """Models of which less than everything was kept when their last batch came, by id."""
        return tuple(one for _, one in sorted(self._sampled.items()))

    def _note_rate(self, model_id: ModelId, tier: int, policy_rate: float, rate: float) -> None:
        known = self._sampled.get(model_id)
        if rate < policy_rate and (known is None or known.rate >= known.policy_rate):
            log.warning("ingest.degraded", model=model_id, tier=tier, rate=rate, pressure=round(self.pressure, 3))
        elif known is not None and known.rate < known.policy_rate <= rate:
            log.info("ingest.recovered", model=model_id, tier=tier, rate=rate)
        if rate < 1:
            self._sampled[model_id] = SampledModel(model_id=model_id, tier=tier, policy_rate=policy_rate, rate=rate)
        else:
            self._sampled.pop(model_id, None)

    async def append_histograms(
        self, batch_id: str, record: ModelRecord, version: ModelVersion, counted: CountedHour, now: datetime
    ) -> Receipt:
        """Store an hour that a producer counted; durable when this returns. Errors as `append_predictions`."""
        await self.tell(record, version)
        async with self._room:
            receipt = await asyncio.wrap_future(
                self._store.submit_histograms(
                    batch_id,
                    record.model_id,
                    version.number,
                    counted.producer,
                    counted.hour,
                    counted.predictions,
                    counted.features,
                    counted.prediction,
                    counted.slice_name,
                    counted.replace,
                    now,
                )
            )
        self._histograms += 0 if receipt.duplicate else 1
        return receipt

    async def tell(self, record: ModelRecord, version: ModelVersion | None) -> None:
        """Let the store know a model's label and a version's profile; free when it does."""
        number = version.number if version is not None else 0
        profile = version.facts.profile_sha256 if version is not None else ""
        baseline = _baseline(record, version) if version is not None and not profile else None
        known = (record.label_spec, profile, baseline, record.facts.tier, record.ground_truth_policy.speed_window)
        if self._told.get((record.model_id, number)) == known:
            return
        await self.run(lambda: self._tell(record.model_id, number, known))
        self._told[(record.model_id, number)] = known

    def _tell(self, model_id: ModelId, number: int, known: "_Known") -> None:
        label, profile, baseline, tier, speed_window = known
        self._store.set_label(model_id, label)
        self._store.describe_model(model_id, tier=tier, speed_window=speed_window)
        if profile:
            self._store.set_reference(model_id, number, profile)
        elif baseline is not None:
            before, start, end = baseline
            try:
                digest = self._store.rebaseline(model_id, before, number, start, end)
            except NotFound as error:
                log.info("reference.none", model=model_id, version=number, message=error.message)
            else:
                log.info("reference.rebaselined", model=model_id, version=number, before=before, sha256=digest)

    async def put_profile(self, text: bytes) -> str:
        """Store a reference profile; its sha256. Raises Invalid if it cannot be used."""
        return await self.run(lambda: self._store.put_profile(text))

    async def put_embeddings(self, ipc: bytes) -> str:
        """Store what a version makes of the fixed anchors; its sha256. Raises Invalid if it cannot be used."""
        return await self.run(lambda: self._store.put_embeddings(ipc))

    def arrivals(self) -> dict[str, int]:
        """How much has arrived of each model; grows when its evidence may have changed."""
        return self._store.arrivals()

    async def read(self, look: Callable[[FactStore], T]) -> T:
        """Look at the store; its own locks are held for milliseconds."""
        return await asyncio.to_thread(look, self._store)

    async def last_predictions(self) -> dict[str, datetime]:
        """When each model got its newest prediction, to the hour."""
        return await self.read(lambda store: store.last_predictions())

    async def run(self, work: Callable[[], T]) -> T:
        """Do work in the background thread, one piece at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def tick(self, now: datetime) -> None:
        """Let the store expire, seal and join a bounded part of what is due."""
        await self.run(lambda: self._store.tick(now))

    async def join_partition(
        self, start: datetime, end: datetime, now: datetime, *, record: ModelRecord | None, authoritative: bool
    ) -> JoinReport:
        """Join the predictions made in [start, end), of one model or of all, and wait for it; one caller at a time.

        In a thread of its own: it may take minutes, and labels and ticks must not wait for it.
        """
        if record is not None:
            await self.tell(record, None)
        model_id = record.model_id if record is not None else ""
        async with self._joining:
            return await asyncio.to_thread(
                lambda: self._store.join_partition(start, end, now, model_id=model_id, authoritative=authoritative)
            )

    def counts(self) -> FactCounts:
        """Rows accepted so far."""
        return FactCounts(predictions=self._predictions, outcomes=self._outcomes, histograms=self._histograms)

    async def close(self) -> None:
        """Finish what is under way, then close the store."""
        await self.run(self._store.close)
        self._thread.shutdown()


def _baseline(record: ModelRecord, version: ModelVersion) -> tuple[int, datetime, datetime] | None:
    """(version before, from, until) of what a version in production was preceded by; None if there was none."""
    last = next((move for move in reversed(record.alias_moves) if move.alias == PRODUCTION), None)
    if last is None or last.to_version != version.number or not last.from_version:
        return None
    at = last.moved_at
    return last.from_version, at - timedelta(days=record.staleness_policy.window_days), at
