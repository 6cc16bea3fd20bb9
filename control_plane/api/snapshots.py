"""The fleet at one revision for those who begin to watch, encoded in slices while the control plane goes on.

Rendering 5,000 models takes half a second, in which nothing else would be answered. So what they are made of is copied
at once, which takes milliseconds, and rendered bit by bit from the copy: every item is of the same revision whatever
happens meanwhile. Who consumes whom takes a walk through the graph; it is looked up bit by bit before, and what the
graph changed meanwhile once more. Whoever asks while a snapshot is being sent joins it.
"""

import asyncio
import copy
import time
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec
from runway.v1 import operations_pb2

from control_plane.api.convert.registry import model
from control_plane.api.convert.staleness import staleness
from control_plane.app.evaluator import Evaluator
from control_plane.app.node import Node
from control_plane.app.watch import Interest
from control_plane.core.commands import Command
from control_plane.core.ids import ModelId, NodeId
from control_plane.core.relations import consumers_of
from control_plane.core.staleness.verdict import Evaluation
from control_plane.core.state import ModelRecord, State

MESSAGE_BYTES = 256 * 2**10
"""A message ends when it is this large: the first items are there soon, and a slow reader holds little."""

ITEMS_AT_ONCE = 25
"""Items encoded before others get a turn: some milliseconds."""

JOIN_S = 1.0
"""So old a snapshot may be for others to join it while it is sent; they get the events since then after it. When 500
come back at once, it is encoded a few times instead of 500."""


class Snapshot:
    """The fleet at `revision`. Items are encoded when the first one asks for them."""

    def __init__(
        self,
        revision: int,
        records: list[ModelRecord],
        consumers: Mapping[ModelId, Sequence[NodeId]],
        latest: Mapping[ModelId, Evaluation],
    ) -> None:
        self.revision = revision
        self.taken_s = time.monotonic()
        self._records = records
        self._consumers = consumers
        self._latest = latest
        self._encoded: list[bytes | None] = [None] * len(records)

    async def messages(self, interest: Interest) -> AsyncIterator[bytes]:
        """Encoded responses: the items about the models and teams of interest by model id, then their end."""
        parts: list[bytes] = []
        size = 0
        for place, record in enumerate(self._records):
            if place % ITEMS_AT_ONCE == ITEMS_AT_ONCE - 1:
                await asyncio.sleep(0)
            if not _wanted(record, interest):
                continue
            parts.append(self._item(place))
            size += len(parts[-1])
            if size >= MESSAGE_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"".join(parts)
        end = operations_pb2.SnapshotEnd(revision=self.revision)
        yield operations_pb2.WatchResponse(snapshot_end=end).SerializeToString()

    def _item(self, place: int) -> bytes:
        known = self._encoded[place]
        if known is None:
            record = self._records[place]
            item = operations_pb2.SnapshotItem(
                model=model(record, self._consumers[record.model_id]),
                staleness=staleness(record, self._latest.get(record.model_id)),
            )
            known = operations_pb2.WatchResponse(snapshot_items=[item]).SerializeToString()
            self._encoded[place] = known
        return known


class Snapshots:
    """Takes snapshots; remembers the newest while somebody reads it."""

    def __init__(self, node: Node[State, Command], evaluator: Evaluator) -> None:
        self._node = node
        self._evaluator = evaluator
        self._newest: weakref.ref[Snapshot] | None = None
        self._consumers = _Consumers()

    async def take(self) -> Snapshot:
        """The fleet now, durable; or as of a moment ago, if others are just being sent it."""
        known = self._newest() if self._newest is not None else None
        if known is not None and (
            known.revision == self._node.state.revision or time.monotonic() - known.taken_s < JOIN_S
        ):
            await self._node.durable(known.revision)
            return known
        state = self._node.state
        for place, model_id in enumerate(sorted(state.models)):
            self._consumers.of(state, model_id)
            if place % ITEMS_AT_ONCE == ITEMS_AT_ONCE - 1:
                await asyncio.sleep(0)
        snapshot, _ = await self._node.read(self._look)
        return snapshot

    def _look(self, state: State) -> Snapshot:
        records = [_copied(state.models[model_id]) for model_id in sorted(state.models)]
        consumers = {record.model_id: self._consumers.of(state, record.model_id) for record in records}
        snapshot = Snapshot(state.revision, records, consumers, dict(self._evaluator.latest))
        self._newest = weakref.ref(snapshot)
        return snapshot


class _Consumers:
    """Who uses each model, looked up once for each state of the graph."""

    def __init__(self) -> None:
        self._known: dict[ModelId, Sequence[NodeId]] = {}
        self._of: tuple[State, int, int] | None = None

    def of(self, state: State, model_id: ModelId) -> Sequence[NodeId]:
        """See `consumers_of`. The list is never changed."""
        of = (state, state.graph.topology_version, state.lifecycle_revision)
        if self._of != of:
            self._of, self._known = of, {}
        found = self._known.get(model_id)
        if found is None:
            found = self._known[model_id] = consumers_of(state, model_id)
        return found


def _wanted(record: ModelRecord, interest: Interest) -> bool:
    if not (interest.models or interest.teams):
        return True
    return record.model_id in interest.models or record.facts.team in interest.teams


CHANGING = tuple(field.name for field in msgspec.structs.fields(ModelRecord) if field.default_factory in (list, dict))
"""Fields of a record that later events change in place; all others hold what is frozen."""


def _copied(record: ModelRecord) -> ModelRecord:
    """A record that later events do not reach."""
    copied = copy.copy(record)
    for name in CHANGING:
        setattr(copied, name, getattr(record, name).copy())
    return copied
