"""The fact store of the Spark engine: rows go to Kafka, what was joined comes back.

A batch is checked and made durable here as ever, for the features that are counted from it; then it is produced to
Kafka, and only when the brokers have it is it acknowledged. Whoever gets no acknowledgement sends the batch again: here
it is a duplicate, in Kafka it may be there twice, and the join counts every id once. Joining and storing rows in the
tables is the jobs' work (`offline.spark_job`); their partials are read as they are handed over.
"""

import shlex
import subprocess
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

from control_plane.adapters.kafka.producer import FactProducer
from control_plane.adapters.parquet.imported import Imports
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.app.arrivals import Arrival
from control_plane.app.fact_reports import JoinReport, Receipt, TickReport
from control_plane.core.errors import Reason, Unavailable

JOB_S_MAX = 3600.0
"""A batch job that takes longer is left to run; the caller is told."""


class KafkaFactStore(ParquetFactStore):
    """`FactStore` whose rows are joined elsewhere."""

    def __init__(self, root: Path, config: StoreConfig, producer: FactProducer, *, job: str) -> None:
        """Open it.

        Args:
            job: command that runs `offline.spark_job`, without the job's own arguments; empty if a scheduler runs it.
        """
        super().__init__(root, config, joins_here=False)
        self._producer = producer
        self._job = shlex.split(job)
        self._imports = Imports(self._facts)

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
        """See `FactStore`. Every row is kept: `rate` is for stores that join by themselves."""
        arrival = Arrival(
            kind="predictions", batch_id=batch_id, model_id=model_id, version=version, payload=ipc_bytes, source=source
        )
        stored = super().submit_predictions(batch_id, model_id, version, ipc_bytes, source=source, latest=latest)
        return self._forwarded(stored, arrival)

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
        """See `FactStore`; likewise."""
        arrival = Arrival(
            kind="outcomes",
            batch_id=batch_id,
            model_id=model_id,
            label_type=label_type,
            payload=ipc_bytes,
            source=source,
        )
        stored = super().submit_outcomes(batch_id, model_id, label_type, ipc_bytes, source=source, latest=latest)
        return self._forwarded(stored, arrival)

    def _forwarded(self, stored: "Future[Receipt]", arrival: Arrival) -> "Future[Receipt]":
        """Produce a batch once it is stored; a duplicate too, for it may not have got as far the first time."""
        answer: Future[Receipt] = Future()

        def produced(sent: "Future[None]", receipt: Receipt) -> None:
            error = sent.exception()
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(receipt)

        def kept(done: "Future[Receipt]") -> None:
            error = done.exception()
            if error is not None:
                answer.set_exception(error)
                return
            receipt = done.result()
            self._producer.produce(arrival).add_done_callback(lambda sent: produced(sent, receipt))

        stored.add_done_callback(kept)
        return answer

    def tick(self, now: datetime, *, force: bool = False) -> TickReport:
        """See `FactStore`."""
        self._imports.tick()
        return super().tick(now, force=force)

    def join_partition(
        self, start: datetime, end: datetime, now: datetime, *, model_id: str = "", authoritative: bool = False
    ) -> JoinReport:
        """See `FactStore`: the batch job, over all rows of the stretch.

        Raises:
            Unavailable: no job is configured, or it failed.
        """
        if not self._job:
            raise Unavailable(
                Reason.STORE_UNAVAILABLE,
                "this control plane does not run the batch job itself: set RUNWAY_SPARK_JOB, or let your scheduler run "
                "`python -m control_plane.offline.spark_job batch`",
            )
        command = [*self._job, "batch", "--tables", self._facts.tables.place.url]
        command += ["--from", start.astimezone(UTC).isoformat(), "--to", end.astimezone(UTC).isoformat()]
        command += ["--model", model_id] if model_id else []
        begun = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=JOB_S_MAX, check=False)  # noqa: S603 - the operator's own command
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(Reason.STORE_UNAVAILABLE, f"the batch job did not end well: {error}") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise Unavailable(Reason.STORE_UNAVAILABLE, f"the batch job failed: {lines[-1][:300]}")
        while self._imports.tick():
            pass
        report = super().join_partition(start, end, now, model_id=model_id)
        return JoinReport(
            hours_joined=int(done.stdout.split()[1]),
            hours_live=0,
            predicted=report.predicted,
            joined=report.joined,
            late=report.late,
            orphans=report.orphans,
            cpu_s=time.monotonic() - begun,
            by_model=report.by_model,
        )

    def close(self) -> None:
        """See `FactStore`."""
        super().close()
        self._producer.close()
