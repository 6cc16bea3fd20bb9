"""Closed segments become files of the Delta tables, and the catalogue learns of them.

Theory of operation. Files are written durably, then each table takes them in one commit, then the catalogue in one
transaction, then the segments are deleted. Which segments go together is written down before anything else
(`sealing_from`, `sealing_to`), and file names follow from it, so that a crash between any two steps does the rest again
with the same segments: files are written over themselves, a commit that was done is recognised by its application
transaction (the number of its last segment), the catalogue's transaction happens once, and segments that it knows are
deleted when the store opens.
"""

from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.sealing import seal
from control_plane.adapters.parquet.segments import SEGMENT_BYTES_MAX, read_segment
from control_plane.adapters.parquet.sources import enter_sources
from control_plane.adapters.parquet.writer import Writer

SEGMENTS_PER_TICK_MAX = 64
"""Segments converted together at most: many small ones make one file."""
SEALED_BYTES_MAX = SEGMENT_BYTES_MAX + SEGMENT_BYTES_MAX // 2
"""Bytes converted together: a full segment and some small ones, half a second of work."""


class Conversion:
    """Converts; one call at a time."""

    def __init__(self, facts: Facts, writer: Writer) -> None:
        self._facts = facts
        self._writer = writer

    def waiting(self) -> list[int]:
        """Segments to convert. Looked for between two groups: within one, a segment may just be opened or closed, and
        hold batches that memory does not know yet."""
        with self._writer.exclusive:
            return self._facts.log.closed_numbers()

    def convert(self) -> int:
        """Turn a few closed segments into Parquet; how many."""
        facts = self._facts
        numbers = self._group(self.waiting())
        if not numbers:
            return 0
        with facts.lock, facts.catalog.transaction():
            facts.catalog.set_meta("sealing_from", numbers[0])
            facts.catalog.set_meta("sealing_to", numbers[-1])
        records = [(number, list(read_segment(facts.log.path(number)))) for number in numbers]
        sealed = seal(facts.tables.place, records, features_only=not facts.joins_here)
        for kind, files in sealed.files.items():
            facts.tables.commit(kind, files, segment=numbers[-1])
        with facts.lock:
            with facts.catalog.transaction():
                for entry in sealed.entries:
                    facts.catalog.add_file(entry)
                for number in numbers:
                    self._enter_segment(number)
                facts.catalog.set_meta("sealed_segment", numbers[-1])
            for number in numbers:
                facts.histograms.sealed(number)
                facts.unsealed_volumes.pop(number, None)
                facts.unsealed_sources.pop(number, None)
                facts.unsealed_batches.pop(number, None)
                facts.log.delete(number)
        return len(numbers)

    def _group(self, closed: list[int]) -> list[int]:
        """The segments to convert together: those of a conversion that was begun, else as many as fit."""
        first, last = self._facts.catalog.meta("sealing_from"), self._facts.catalog.meta("sealing_to")
        begun = [number for number in closed if first <= number <= last]
        if begun:
            return begun
        group: list[int] = []
        size = 0
        for number in closed[:SEGMENTS_PER_TICK_MAX]:
            size += self._facts.log.path(number).stat().st_size
            if group and size > SEALED_BYTES_MAX:
                break
            group.append(number)
        return group

    def _enter_segment(self, number: int) -> None:
        """What the catalogue keeps of a segment beside its files; inside a transaction."""
        facts = self._facts
        facts.catalog.db.executemany(
            "INSERT OR IGNORE INTO batches VALUES (?, ?)", list(facts.unsealed_batches.get(number, {}).items())
        )
        for model_id, hours in facts.unsealed_volumes.get(number, {}).items():
            for hour, rows in hours.items():
                facts.catalog.add_volume(model_id, hour, rows)
            facts.catalog.db.executemany(
                "INSERT OR REPLACE INTO hour_rates VALUES (?, ?, ?)",
                [(model_id, hour, rate) for hour, rate in facts.rates.get(model_id, {}).items()],
            )
        enter_sources(facts.catalog.db, facts.unsealed_sources.get(number, {}))
        facts.histograms.seal(number)
