"""Watchers for tests: a stream read item by item, which knows how far it has come."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from runway.v1 import operations_pb2

from tests.api.worlds import Api

Item = operations_pb2.SnapshotItem | operations_pb2.SnapshotEnd | operations_pb2.Event
Call = grpc.aio.UnaryStreamCall[operations_pb2.WatchRequest, operations_pb2.WatchResponse]


class Reader:
    """One stream. Progress is noted and not given."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.responses = 0
        self.revision = 0
        """From here a watch goes on."""
        self.items: deque[Item] = deque()

    @classmethod
    def of(
        cls,
        api: Api,
        after_revision: int = 0,
        *,
        kinds: Iterable[str] = (),
        models: Iterable[str] = (),
        teams: Iterable[str] = (),
        include_snapshot: bool = False,
    ) -> "Reader":
        """Begin to watch."""
        request = operations_pb2.WatchRequest(
            after_revision=after_revision,
            include_snapshot=include_snapshot,
            kinds=kinds,
            model_ids=models,
            teams=teams,
        )
        return cls(api.operations.Watch(request))

    @classmethod
    def filtered(cls, api: Api, after_revision: int, chosen: Mapping[str, list[str]]) -> "Reader":
        """Begin to watch; `chosen` holds kinds, models, teams."""
        kinds, models, teams = (chosen.get(name, []) for name in ("kinds", "models", "teams"))
        return cls.of(api, after_revision, kinds=kinds, models=models, teams=teams)

    async def more(self) -> operations_pb2.WatchResponse:
        """The next response."""
        response = await anext(aiter(self.call))
        self.responses += 1
        self.items.extend(response.snapshot_items)
        if response.HasField("snapshot_end"):
            self.items.append(response.snapshot_end)
            self.revision = response.snapshot_end.revision
        self.items.extend(response.events)
        if response.HasField("progress"):
            assert not response.events or response.events[-1].revision <= response.progress.revision
            self.revision = response.progress.revision
        return response

    async def take(self, count: int) -> list[Any]:
        """The next so many items."""
        while len(self.items) < count:
            await self.more()
        return [self.items.popleft() for _ in range(count)]

    async def up_to(self, revision: int) -> list[Any]:
        """All items until everything up to `revision` was told."""
        while self.revision < revision:
            await self.more()
        found = list(self.items)
        self.items.clear()
        return found

    def close(self) -> None:
        """Go away."""
        self.call.cancel()


def what(item: Item) -> str:
    """Which kind of item, and of what."""
    match item:
        case operations_pb2.Event():
            return f"{item.kind} {item.model_id}".strip()
        case operations_pb2.SnapshotItem():
            return f"item {item.model.model_id}"
        case _:
            return "end"
