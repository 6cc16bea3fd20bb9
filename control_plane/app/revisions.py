"""Who waits for which revision to be durable."""

import asyncio
import heapq
from itertools import count


class RevisionWaiters:
    """Futures by revision; `reached` resolves those at or below, `fail` all."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()

    def wait(self, revision: int) -> asyncio.Future[None]:
        """A future that is done once `revision` is reached. Cancel it to stop waiting."""
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._heap, (revision, next(self._order), future))
        return future

    def reached(self, revision: int) -> None:
        """Everything up to `revision` is durable."""
        while self._heap and self._heap[0][0] <= revision:
            _, _, future = heapq.heappop(self._heap)
            if not future.done():
                future.set_result(None)

    def fail(self, error: Exception) -> None:
        """Nobody will be served: the state they read is gone."""
        heap, self._heap = self._heap, []
        for _, _, future in heap:
            if not future.done():
                future.set_exception(error)
