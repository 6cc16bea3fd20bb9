"""When each discovered edge was last seen, in arrays, so that an answer can say how old the lineage is it rests on.

One slot per discovered edge; declared edges have none. The fold feeds it (`put`, `remove`), and it is rebuilt from the
ledger when a snapshot is read, so it is never kept. An answer of tens of thousands of nodes asks for its oldest edge in
a few numpy calls: the ends of all slots are known as positions, and those are looked up again only when the graph has
been numbered anew.
"""

from datetime import UTC, datetime, timedelta
from weakref import WeakKeyDictionary

import numpy as np

from control_plane.core.graph.facts import DependencyType
from control_plane.core.graph.layout import Bools, Counts, Layout, Numbering
from control_plane.core.ids import NodeId

EdgeKey = tuple[NodeId, NodeId, DependencyType]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
NEVER = np.iinfo(np.int64).max
CAPACITY_MIN = 64

TYPE_BITS = {kind: 1 << bit for bit, kind in enumerate(DependencyType)}
"""Types as bits, so that one `&` asks for any of several."""


class EdgeTimes:
    """Last sightings by edge. Free slots have ends of -1 and are taken again."""

    def __init__(self) -> None:
        self._slots: dict[EdgeKey, int] = {}
        self._free: list[int] = []
        self._nodes: dict[NodeId, int] = {}
        """A number for each node that ever had an edge here."""
        self._upstream = np.full(0, -1, np.int32)
        self._downstream = np.full(0, -1, np.int32)
        self._type = np.zeros(0, np.uint8)
        self._seen_us = np.zeros(0, np.int64)
        self._suspect = np.zeros(0, np.bool_)
        self._placed: WeakKeyDictionary[Numbering, tuple[int, Counts, Counts]] = WeakKeyDictionary()
        """Positions of both ends of each slot, with the number of changes of slots they were found at."""
        self._changes = 0

    def __len__(self) -> int:
        return len(self._slots)

    def put(self, key: EdgeKey, last_seen_at: datetime, suspect: bool) -> None:
        """An edge was seen, or its state changed."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._new_slot(key)
        self._seen_us[slot] = (last_seen_at - EPOCH) // MICROSECOND
        self._suspect[slot] = suspect

    def remove(self, key: EdgeKey) -> None:
        """An edge is no longer discovered, or no longer part of the graph; no change if it was not here."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        self._upstream[slot] = self._downstream[slot] = -1
        self._suspect[slot] = False
        self._free.append(slot)
        self._changes += 1

    def oldest(self, layout: Layout, members: Bools) -> datetime | None:
        """The earliest last sighting among the edges of a layout between members; None if none was discovered.

        Args:
            layout: what was walked; edges of other types do not count.
            members: True at the position of each node of the answer, shape (N,).
        """
        used = self._used(layout, members)
        oldest = int(np.min(self._seen_us[: len(used)], where=used, initial=NEVER)) if len(used) else NEVER
        return None if oldest == NEVER else EPOCH + oldest * MICROSECOND

    def suspect(self, layout: Layout, members: Bools) -> int:
        """How many edges of a layout between members are suspect."""
        used = self._used(layout, members)
        return int(np.count_nonzero(used & self._suspect[: len(used)]))

    def _used(self, layout: Layout, members: Bools) -> Bools:
        """Of each slot in use so far, whether both ends are members and the layout has its type."""
        if not self._slots:
            return np.zeros(0, np.bool_)
        upstream, downstream = self._positions(layout.numbering)
        inside = np.append(members, False)  # the value at -1, of slots without a place
        used: Bools = inside.take(upstream) & inside.take(downstream)
        if layout.types:
            wanted = sum(TYPE_BITS[kind] for kind in layout.types)
            used &= (self._type[: len(used)] & wanted) != 0
        return used

    def _positions(self, numbering: Numbering) -> tuple[Counts, Counts]:
        known = self._placed.get(numbering)
        if known is not None and known[0] == self._changes:
            return known[1], known[2]
        position = numbering.position
        # One beyond the last node, so that a slot's -1 finds -1.
        places = np.fromiter((position.get(node, -1) for node in self._nodes), np.int32, len(self._nodes))
        places = np.append(places, np.int32(-1))
        count = len(self._slots) + len(self._free)
        found = places.take(self._upstream[:count]), places.take(self._downstream[:count])
        self._placed[numbering] = (self._changes, *found)
        return found

    def _new_slot(self, key: EdgeKey) -> int:
        upstream, downstream, edge_type = key
        slot = self._free.pop() if self._free else len(self._slots)
        if slot >= len(self._upstream):
            self._grow()
        self._slots[key] = slot
        self._upstream[slot] = self._nodes.setdefault(upstream, len(self._nodes))
        self._downstream[slot] = self._nodes.setdefault(downstream, len(self._nodes))
        self._type[slot] = TYPE_BITS[edge_type]
        self._changes += 1
        return slot

    def _grow(self) -> None:
        """Twice the places, so that filling costs little per edge."""
        more = max(len(self._upstream), CAPACITY_MIN)
        self._upstream = np.append(self._upstream, np.full(more, -1, np.int32))
        self._downstream = np.append(self._downstream, np.full(more, -1, np.int32))
        self._type = np.append(self._type, np.zeros(more, np.uint8))
        self._seen_us = np.append(self._seen_us, np.zeros(more, np.int64))
        self._suspect = np.append(self._suspect, np.zeros(more, np.bool_))
