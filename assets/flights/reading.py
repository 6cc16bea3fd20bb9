"""What the code of the fleet really loads, written down where it is loaded.

The fleet's files say what should be read; this says what was. The two meet in Runway, where they may disagree.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FEATURES = "features"
"""The reader that makes the features out of the sources."""

Reads = set[tuple[str, str]]
"""(who, node id)."""

_reads: ContextVar[Reads | None] = ContextVar("reads", default=None)


@contextmanager
def recording() -> Iterator[Reads]:
    """What is noted meanwhile, in this thread; a recording within is apart."""
    reads: Reads = set()
    before = _reads.set(reads)
    try:
        yield reads
    finally:
        _reads.reset(before)


def note(node_id: str, reader: str = "") -> None:
    """`reader` loads from a node now; empty is whatever is being trained."""
    reads = _reads.get()
    if reads is not None:
        reads.add((reader, node_id))


def read_by(reads: Reads, *readers: str) -> tuple[str, ...]:
    """Nodes that any of them read, sorted.

    >>> with recording() as reads:
    ...     note("dataset:operations")
    ...     note("feature:temp", "air_time")
    ...     note("feature:hour", "route_embedding")
    >>> read_by(reads, "", "air_time")
    ('dataset:operations', 'feature:temp')
    """
    return tuple(sorted({node_id for reader, node_id in reads if reader in readers}))
