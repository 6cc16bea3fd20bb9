"""The control plane, which also notes when each batch of events became durable. `python -m bench.stamped_plane`.

A stamp is the last revision of the batch and the machine's monotonic clock, which all processes share, in nanoseconds.
"""

import os
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from control_plane import bootstrap
from control_plane.adapters.postgres.event_log import PostgresEventLog
from control_plane.app.ports import Record

STAMPS_FILE = "stamps"
STAMP = struct.Struct("<qq")


class StampedLog(PostgresEventLog):
    """Stamps after each append."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        home = Path(os.environ["RUNWAY_HOME"])
        home.mkdir(parents=True, exist_ok=True)
        self._stamps = (home / STAMPS_FILE).open("ab", buffering=0)

    async def append(self, epoch: int, records: Sequence[Record]) -> None:
        """As the log does; then the stamp."""
        await super().append(epoch, records)
        self._stamps.write(STAMP.pack(records[-1].seq, time.monotonic_ns()))


if __name__ == "__main__":
    setattr(bootstrap, PostgresEventLog.__name__, StampedLog)
    sys.exit(bootstrap.main())
