"""What was sent where, on a `MemoryServer`: the twin of adapters/postgres/cursors.py."""

from collections.abc import Sequence

from control_plane.adapters.memory.server import MemoryServer
from control_plane.app.delivery import Cursor, Told
from control_plane.core.errors import Reason, Unavailable


class MemoryCursors:
    """`Cursors` on a `MemoryServer`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def load(self) -> dict[str, Cursor]:
        """All cursors by destination."""
        await self._server.meet()
        return dict(self._server.cursors)

    async def save(self, epoch: int, cursor: Cursor) -> None:
        """Keep a cursor."""
        await self._check(epoch)
        self._server.cursors[cursor.destination] = cursor

    async def told(self, destination: str) -> dict[str, Told]:
        """What a destination was told."""
        await self._server.meet()
        return dict(self._server.told.get(destination, {}))

    async def tell(self, epoch: int, destination: str, told: Sequence[Told], over: Sequence[str]) -> None:
        """Remember what was told and forget what is over."""
        await self._check(epoch)
        kept = self._server.told.setdefault(destination, {})
        for key in over:
            kept.pop(key, None)
        kept.update((one.alert.key, one) for one in told)

    async def forget(self, epoch: int, destination: str) -> None:
        """Forget all about a destination."""
        await self._check(epoch)
        self._server.told.pop(destination, None)
        self._server.cursors.pop(destination, None)

    async def close(self) -> None:
        """Nothing to close."""

    async def _check(self, epoch: int) -> None:
        await self._server.meet()
        if epoch != self._server.epoch:
            raise Unavailable(Reason.NOT_LEADER, f"epoch {epoch} is over", epoch=str(epoch))
