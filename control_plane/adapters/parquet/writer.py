"""The one writer: batches queue up, a group is written with one sync, then all of it is answered.

A batch is validated before it touches the disk; an invalid one is answered by itself and its neighbours in the
group do not notice. Nothing is answered before it is durable *and* visible to readers.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from control_plane.adapters.parquet.facts import Batch, Facts, batch_key, hours_of, rows_by_hour, slice_names
from control_plane.adapters.parquet.segments import BatchHead, Kind, Record
from control_plane.adapters.parquet.sent import SentHour, SentHours
from control_plane.app.fact_reports import Receipt
from control_plane.core.errors import Reason, RunwayError, Unavailable
from control_plane.core.ground_truth.batch import (
    INSTANT_US_MAX,
    OutcomeBatch,
    PredictionBatch,
    as_ipc,
    read_outcomes,
    read_predictions,
)
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, NO_HOUR, id_hours
from control_plane.core.ground_truth.sampling import kept

GROUP_BYTES_MAX = 32 * 1024 * 1024
"""Bytes made durable at once: half a segment, so that a segment never grows far beyond its size."""
GROUP_BATCHES_MAX = 256
"""Batches made durable at once; beyond this the sync is amortised and only latency would grow."""
QUEUED_BYTES_MAX = 1024 * 1024 * 1024
"""Bytes waiting to be written before new batches are turned away: three of the largest messages."""


@dataclass(slots=True, kw_only=True)
class Request:
    """A batch on its way. `rate`: share of ids to keep."""

    kind: Kind
    batch_id: str
    model_id: str
    ipc: bytes
    version: int = 0
    """Of predictions."""
    label_type: str = ""
    """Of outcomes."""
    source: str = ""
    rate: float = 1.0
    latest_us: int = INSTANT_US_MAX
    """The latest instant that is believed."""
    answer: "Future[Receipt]" = field(default_factory=Future)


@dataclass(slots=True, kw_only=True)
class _CountsRequest:
    """An hour that a producer counted, on its way."""

    sent: SentHour
    answer: "Future[Receipt]" = field(default_factory=Future)


_Queued = Request | _CountsRequest
_QueuedT = TypeVar("_QueuedT", Request, _CountsRequest)


def _size(request: _Queued) -> int:
    return len(request.ipc) if isinstance(request, Request) else request.sent.size


@dataclass(slots=True)
class _Prepared:
    """A valid batch of a group."""

    request: Request
    head: BatchHead
    batch: Batch | None
    """None if no row of it is inside the sample."""
    ipc: bytes
    receipt: Receipt


class Writer:
    """Owns the writing thread. `exclusive` is held while a group is written: hold it to close segments or move
    horizons, so that no group sees half of that."""

    def __init__(self, facts: Facts, sent: SentHours) -> None:
        self._facts = facts
        self._sent = sent
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._queued_bytes = 0
        self._queued_lock = threading.Lock()
        self._closed = False
        self.exclusive = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="fact-writer", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> "Future[Receipt]":
        """Queue a batch; the future resolves once it is durable, or fails with `Invalid` or `Unavailable`."""
        self._put(request)
        return request.answer

    def pressure(self) -> float:
        """The share of the room for waiting bytes that is taken, 0 to 1."""
        return min(1.0, self._queued_bytes / QUEUED_BYTES_MAX)

    def submit_counts(self, sent: SentHour) -> "Future[Receipt]":
        """Queue an hour that a producer counted; as `submit`."""
        request = _CountsRequest(sent=sent)
        self._put(request)
        return request.answer

    def _put(self, request: _Queued) -> None:
        size = _size(request)
        with self._queued_lock:
            if self._closed:
                raise Unavailable(Reason.SHUTTING_DOWN, "the fact store is closed")
            if self._queued_bytes and self._queued_bytes + size > QUEUED_BYTES_MAX:
                raise Unavailable(Reason.STORE_UNAVAILABLE, "too many batches wait to be written: slow down")
            self._queued_bytes += size
            self._queue.put(request)

    def close(self) -> None:
        """Write what is queued, then stop."""
        with self._queued_lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group, size, last = [first], _size(first), False
            while size < GROUP_BYTES_MAX and len(group) < GROUP_BATCHES_MAX and not last:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    last = True
                else:
                    group.append(following)
                    size += _size(following)
            self._write_safely(group)
            with self._queued_lock:
                self._queued_bytes -= size
            if last:
                return

    def _write_safely(self, group: list[_Queued]) -> None:
        """Every request gets an answer, whatever happens; this is the thread's edge."""
        batches = [request for request in group if isinstance(request, Request)]
        counts = [request for request in group if isinstance(request, _CountsRequest)]
        self._safely(self._write, batches)
        self._safely(self._write_counts, counts)

    def _safely(self, write: Callable[[list[_QueuedT]], None], group: list[_QueuedT]) -> None:
        if not group:
            return
        try:
            write(group)
        except RunwayError as error:
            _fail(group, error)
        except Exception as error:
            failure = Unavailable(Reason.STORE_UNAVAILABLE, f"the fact store failed: {error}")
            failure.__cause__ = error
            _fail(group, failure)

    def _write(self, group: list[Request]) -> None:
        with self.exclusive:
            prepared: list[_Prepared] = []
            receipts: list[tuple[Request, Receipt]] = []
            in_group: dict[bytes, int] = {}
            for request in group:
                try:
                    self._prepare(request, prepared, receipts, in_group)
                except RunwayError as error:
                    request.answer.set_exception(error)
            if prepared:
                segment = self._facts.log.append([Record(head=one.head, ipc=one.ipc) for one in prepared])
                with self._facts.lock:
                    for one in prepared:
                        self._facts.apply(segment, one.head, one.batch)
        for one in prepared:
            one.request.answer.set_result(one.receipt)
        for request, receipt in receipts:
            request.answer.set_result(receipt)

    def _write_counts(self, group: list[_CountsRequest]) -> None:
        """Store what producers counted, in one transaction; an invalid hour does not hold up its neighbours."""
        facts = self._facts
        receipts: list[tuple[_CountsRequest, Receipt]] = []
        with self.exclusive, facts.lock:
            with facts.catalog.transaction():
                for request in group:
                    try:
                        receipts.append((request, self._sent.store(request.sent)))
                    except RunwayError as error:
                        request.answer.set_exception(error)
            facts.histograms.settled()
            for request, receipt in receipts:
                if not receipt.duplicate:
                    facts.note_arrival(request.sent.model_id, receipt.rows)
        for request, receipt in receipts:
            request.answer.set_result(receipt)

    def _prepare(
        self,
        request: Request,
        prepared: list[_Prepared],
        receipts: list[tuple[Request, Receipt]],
        in_group: dict[bytes, int],
    ) -> None:
        """Recognise a duplicate, or validate."""
        facts = self._facts
        with facts.lock:
            label_type = request.label_type
            if request.kind == "outcomes":
                label_type = facts.label(request.model_id, label_type).label_type
            spec = facts.checked_label(request.model_id, label_type)
            profile = facts.profile_of(request.model_id, request.version)
            horizon = facts.speed.horizon(request.model_id)
            head = BatchHead(
                kind=request.kind,
                batch_id=request.batch_id,
                model_id=request.model_id,
                version=request.version,
                label_type=label_type,
                rows=0,
                horizon=horizon,
                source=request.source,
            )
            key = batch_key(head)
            known = in_group.get(key)
            known = facts.batch_rows(key) if known is None else known
            if known is not None:
                facts.duplicate_batches += 1
                receipts.append((request, Receipt(rows=known, duplicate=True)))
                return
        batch: Batch
        if request.kind == "predictions":
            batch = read_predictions(request.ipc, spec, request.latest_us)
            if profile is not None:
                profile.check(batch.features)
        else:
            batch = read_outcomes(request.ipc, spec, request.latest_us)
        one = self._without_erased(request, head, batch) if len(facts.tombstones) else None
        one = one or self._sampled(request, head, batch)
        with facts.lock:
            if isinstance(one.batch, PredictionBatch) and one.batch.slices:
                facts.admitted(head.model_id, slice_names(one.batch))
            elif isinstance(one.batch, OutcomeBatch):
                facts.note_label(head.model_id, head.label_type)
        in_group[key] = one.head.rows
        prepared.append(one)

    def _without_erased(self, request: Request, head: BatchHead, batch: Batch) -> _Prepared | None:
        """The batch without rows of ids that were erased, which are acknowledged and dropped; None if it has none."""
        erased = self._facts.tombstones.holds(batch.ids)
        count = int(np.count_nonzero(erased))
        if not count:
            return None
        self._facts.erased_rows_dropped += count
        receipt = Receipt(rows=batch.rows, duplicate=False)
        if count == batch.rows:
            return _Prepared(request, msgspec.structs.replace(head, rows=0), None, b"", receipt)
        ipc = as_ipc(batch.table.filter(pa.array(~erased)))
        left: Batch = read_predictions(ipc) if isinstance(batch, PredictionBatch) else read_outcomes(ipc)
        request.ipc = ipc
        one = self._sampled(request, head, left)
        return _Prepared(request, one.head, one.batch, one.ipc, receipt)

    def _sampled(self, request: Request, head: BatchHead, batch: Batch) -> _Prepared:
        """The rows of a batch that are inside the sample, and what is recorded of it.

        An outcome is kept at the rate of its prediction's hour, if predictions of that are here: so outcomes of an hour
        that was taken whole stay whole, whatever the rate is now. Whose id carries no time is kept: nobody can tell at
        which rate its prediction was.
        """
        if isinstance(batch, PredictionBatch):
            hours, known = batch.predicted_us // MICROSECONDS_PER_HOUR, {}
        else:
            hours = id_hours(batch.ids)
            known = {NO_HOUR: 1.0, **self._facts.rates_where_known(head.model_id, hours, request.rate)}
        rates = {hour: rate for hour in hours_of(hours) if (rate := known.get(hour, request.rate)) < 1}
        if not rates:
            whole = msgspec.structs.replace(head, rows=batch.rows)
            return _Prepared(request, whole, batch, request.ipc, Receipt(rows=batch.rows, duplicate=False))
        inside = kept(batch.ids, hours, rates, 1.0)
        rows = int(np.count_nonzero(inside))
        receipt = Receipt(
            rows=rows, duplicate=False, sampled_out=batch.rows - rows, sample_rate=min(rates.values(), default=1.0)
        )
        offered = dict(rows_by_hour(hours)) if isinstance(batch, PredictionBatch) else {}
        recorded = msgspec.structs.replace(head, rows=rows, rates=rates, offered=offered)
        if rows == batch.rows:
            return _Prepared(request, recorded, batch, request.ipc, receipt)
        if not rows:
            return _Prepared(request, recorded, None, b"", receipt)
        ipc = as_ipc(batch.table.filter(pa.array(inside)))
        left: Batch = read_predictions(ipc) if isinstance(batch, PredictionBatch) else read_outcomes(ipc)
        return _Prepared(request, recorded, left, ipc, receipt)


def _fail(group: Sequence[_Queued], error: RunwayError) -> None:
    for request in group:
        if not request.answer.done():
            request.answer.set_exception(error)
