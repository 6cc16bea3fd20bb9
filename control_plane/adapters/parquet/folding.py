"""Joining what arrives, a moment after it arrived: a thread beside the writer's.

A batch is acknowledged once it is durable and filed; joining it costs more than that and need not be waited for. Reads
join what is left first, so that no answer depends on this thread, only how long an answer takes.
"""

import threading

import structlog

from control_plane.adapters.parquet.facts import Facts

log = structlog.get_logger("runway.facts")

ROWS_AT_ONCE = 131_072
"""Joined under one hold of the lock: about a tenth of a second."""
GATHER_S = 0.25
"""How long arrivals are gathered: joining many rows at once is cheaper than joining few often."""


class Folder:
    """Owns the thread."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fact-folder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what is not joined is joined when it is read, or after a restart."""
        self._closing.set()
        self._facts.arrived.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._facts.arrived.wait()
            if self._closing.wait(GATHER_S):
                return
            self._facts.arrived.clear()
            try:
                self._fold()
            except Exception:
                # Nothing is lost: the rows are on disk, and whoever reads them meets the same error and says it.
                log.exception("facts.fold_failed")

    def _fold(self) -> None:
        more = True
        while more and not self._closing.is_set():
            with self._facts.lock:
                more = self._facts.speed.fold(self._facts.labels_of, ROWS_AT_ONCE)
