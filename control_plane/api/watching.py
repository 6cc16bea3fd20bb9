"""What watchers are sent: a snapshot, then events that are encoded once for all of them.

Building and serializing a message for each watcher and event would cost more than everything else together: 100
watchers of 2,000 events a second are 200,000 messages. So each event is encoded once; a batch is the concatenation of
what its watcher wants, which the wire format promises to be the encoding of the whole; and those who want everything of
the same stretch, which is most, get the very same bytes. Watch therefore yields bytes, not messages.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from runway.v1 import operations_pb2

from control_plane.api.convert.common import timestamp
from control_plane.api.convert.operations import event
from control_plane.api.snapshots import Snapshots
from control_plane.app.evaluator import Evaluator
from control_plane.app.node import Node
from control_plane.app.watch import Interest, WatchBatch
from control_plane.core.commands import Command
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.events import EVENT_KINDS, Envelope
from control_plane.core.ids import parse_model_id, parse_team
from control_plane.core.state import State

MESSAGE_BYTES = 2**20
"""A message ends before it is larger: far below every limit, far above what a write costs by itself."""

KEPT_BYTES_MAX = 64 * 2**20
"""Encoded events kept: the whole ring of ordinary ones, which are half a kilobyte each."""

SHARED_BATCHES_MAX = 64
"""Whole batches kept: those of the last rounds."""

Id = TypeVar("Id")


def interest_of(
    kinds: Sequence[str], models: Sequence[str], teams: Sequence[str] = (), *, models_field: str = "model_ids[{}]"
) -> Interest:
    """What a request asks for. Raises `Invalid` with everything that is wrong."""
    wrong: list[Violation] = []
    details = {}
    for number, kind in enumerate(kinds):
        if kind not in EVENT_KINDS:
            details = {"known_kinds": ",".join(sorted(EVENT_KINDS))}
            message = f"there is no kind of event {kind[:120]!r}; `known_kinds` in the error's metadata lists them"
            wrong.append(Violation(field=f"kinds[{number}]", rule="known", message=message))
    found_models = _parsed(models, models_field, parse_model_id, wrong)
    found_teams = _parsed(teams, "teams[{}]", parse_team, wrong)
    if wrong:
        raise Invalid(Reason.INVALID_ARGUMENT, *wrong, **details)
    return Interest(kinds=frozenset(kinds), models=found_models, teams=found_teams)


def _parsed(texts: Sequence[str], field: str, parse: Callable[[str, str], Id], wrong: list[Violation]) -> frozenset[Id]:
    found = []
    for number, text in enumerate(texts):
        try:
            found.append(parse(text, field.format(number)))
        except Invalid as error:
            wrong.extend(error.violations)
    return frozenset(found)


class Watching:
    """The streams of one server."""

    def __init__(self, node: Node[State, Command], evaluator: Evaluator) -> None:
        self._node = node
        self._snapshots = Snapshots(node, evaluator)
        self._encoded = EncodedEvents()

    async def stream(self, request: operations_pb2.WatchRequest) -> AsyncIterator[bytes]:
        """Encoded responses, until the watcher goes or has to come again; see `Changes.follow` for how."""
        interest = interest_of(request.kinds, request.model_ids, request.teams)
        since = request.after_revision
        if request.include_snapshot:
            snapshot = await self._snapshots.take()
            since = snapshot.revision
            async for message in snapshot.messages(interest):
                yield message
            del snapshot  # it may be large, and the watch that follows long
        # A watcher shall know at once that it is heard.
        async for batch in self._node.watch(since, interest, greet=not request.include_snapshot):
            progress = _progress(batch.revision, self._node.now())
            for message in self._encoded.messages(self._node.state, batch, progress, shared=interest.everything):
                yield message


class EncodedEvents:
    """Events as they go out, each encoded once."""

    def __init__(self) -> None:
        self._events: OrderedDict[bytes, bytes] = OrderedDict()
        """By the hash that an event has in the log. Ordered, because to find the first key of a plain dict is to walk
        over all that were deleted before it."""
        self._bytes = 0
        self._batches: dict[tuple[bytes, bytes], Sequence[bytes]] = {}
        """By the hashes of first and last event, of those batches that have all events between."""

    def messages(self, state: State, batch: WatchBatch, progress: bytes, *, shared: bool) -> Sequence[bytes]:
        """A batch as messages, each with the progress after it, `progress` being that of the last.

        `shared`: nothing was left out of the batch, so that others may be sent the same one.
        """
        if not shared or not batch.envelopes:
            return tuple(self._joined(state, batch, progress))
        key = (batch.envelopes[0].hash, batch.envelopes[-1].hash)
        known = self._batches.get(key)
        if known is None:
            known = self._batches[key] = tuple(self._joined(state, batch, progress))
            if len(self._batches) > SHARED_BATCHES_MAX:
                del self._batches[next(iter(self._batches))]
        return known

    def _joined(self, state: State, batch: WatchBatch, progress: bytes) -> Iterator[bytes]:
        parts: list[bytes] = []
        size = 0
        for before, envelope in zip((None, *batch.envelopes), batch.envelopes, strict=False):
            encoded = self._event(state, envelope)
            if before is not None and size + len(encoded) > MESSAGE_BYTES:
                yield b"".join((*parts, _progress(before.seq, None)))
                parts, size = [], 0
            parts.append(encoded)
            size += len(encoded)
        yield b"".join((*parts, progress))

    def _event(self, state: State, envelope: Envelope) -> bytes:
        known = self._events.get(envelope.hash)
        if known is None:
            known = operations_pb2.WatchResponse(events=[event(envelope, state)]).SerializeToString()
            self._events[envelope.hash] = known
            self._bytes += len(known)
            while self._bytes > KEPT_BYTES_MAX and len(self._events) > 1:
                self._bytes -= len(self._events.popitem(last=False)[1])
        return known


def _progress(revision: int, now: datetime | None) -> bytes:
    """A response that says how far the stream is. Nobody needs the time twice in a batch."""
    progress = operations_pb2.Progress(revision=revision, now=timestamp(now))
    return operations_pb2.WatchResponse(progress=progress).SerializeToString()
