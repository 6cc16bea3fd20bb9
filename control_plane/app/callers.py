"""Everybody who waits for an answer: in the queue, in the batch under way, or in doubt about a lost reply.

| where      | becomes
|
|------------|------------------------------------------------------------------------------------------------|
| queued     | decided -> in the batch; given up -> Unavailable
| | in a batch | stored -> told; certainly not stored -> Unavailable; reply lost -> in doubt
| | in doubt   | the log has the batch -> told; it has not -> Unavailable; given up -> AppendOutcomeUnknown
|
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Generic

from control_plane.app import limits
from control_plane.app.ports import CommandT
from control_plane.app.replica import Answer, Batch, Submission
from control_plane.core.errors import AppendOutcomeUnknown, Reason, Unavailable


@dataclass(frozen=True, slots=True)
class Waiting:
    """A caller and what it will hear."""

    future: asyncio.Future[Answer]
    outcome: Answer | Exception

    def tell(self) -> None:
        """Give the outcome; a caller that went away hears nothing."""
        if self.future.done():
            return
        if isinstance(self.outcome, Answer):
            self.future.set_result(self.outcome)
        else:
            self.future.set_exception(self.outcome)

    def fail(self, error: Exception) -> None:
        """Give an error instead of the outcome."""
        if not self.future.done():
            self.future.set_exception(error)


class Callers(Generic[CommandT]):
    """The queue and the promises made to those who left it."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Submission[CommandT], asyncio.Future[Answer]]] = deque()
        self._wake = asyncio.Event()
        self._batch: tuple[Batch | None, list[Waiting]] = (None, [])
        self._in_doubt: list[tuple[Batch, list[Waiting]]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def enqueue(self, submission: Submission[CommandT]) -> asyncio.Future[Answer]:
        """Queue a command. Raises Unavailable(LIMIT_EXCEEDED) when too many wait."""
        if len(self._queue) >= limits.QUEUE_COMMANDS_MAX:
            raise Unavailable(
                Reason.LIMIT_EXCEEDED,
                f"{limits.QUEUE_COMMANDS_MAX} commands wait already; send the request again a little later.",
            )
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((submission, future))
        self._wake.set()
        return future

    def wake(self) -> None:
        """Let the writer look around though nothing was queued."""
        self._wake.set()

    async def arrive(self) -> None:
        """Return when something is queued or `wake` was called."""
        self._wake.clear()
        if not self._queue:
            await self._wake.wait()

    def pop(self) -> tuple[Submission[CommandT], asyncio.Future[Answer]] | None:
        """The next command whose caller still waits."""
        while self._queue:
            submission, future = self._queue.popleft()
            if not future.done():
                return submission, future
        return None

    def promise(self, future: asyncio.Future[Answer], outcome: Answer | Exception) -> None:
        """The caller will hear `outcome` once the batch under way is stored."""
        self._batch[1].append(Waiting(future, outcome))

    def under_way(self, batch: Batch) -> None:
        """The batch goes to the log now."""
        self._batch = (batch, self._batch[1])

    def stored(self) -> None:
        """The log has the batch (or nothing had to be stored): tell everybody in it."""
        _, waiting = self._batch
        self._batch = (None, [])
        for caller in waiting:
            caller.tell()

    def not_stored(self, error: Exception) -> None:
        """The log certainly has not got the batch."""
        _, waiting = self._batch
        self._batch = (None, [])
        for caller in waiting:
            caller.fail(error)

    def lost(self) -> bool:
        """The node steps down. True if a batch was under way: its callers are in doubt now."""
        batch, waiting = self._batch
        if batch is None:
            self.not_stored(Unavailable(Reason.STORE_UNAVAILABLE, "The command was not stored; send it again."))
            return False
        self._batch = (None, [])
        self._in_doubt.append((batch, waiting))
        return True

    def doubts(self) -> list[Batch]:
        """Batches in doubt. Whoever waits for one goes on waiting until `settle`: the term that asks may end first."""
        return [batch for batch, _ in self._in_doubt]

    def settle(self, batch: Batch, *, stored: bool) -> int:
        """The log has said whether it has a batch that was in doubt; how many were told."""
        told = 0
        for doubt in [doubt for doubt in self._in_doubt if doubt[0] is batch]:
            self._in_doubt.remove(doubt)
            told += len(doubt[1])
            for caller in doubt[1]:
                if stored:
                    caller.tell()
                else:
                    caller.fail(Unavailable(Reason.STORE_UNAVAILABLE, "The command was not stored; send it again."))
        return told

    def give_up(self, error: Exception) -> None:
        """Tell everybody who waits that it takes too long."""
        queue, self._queue = self._queue, deque()
        for _, future in queue:
            if not future.done():
                future.set_exception(error)
        doubts, self._in_doubt = self._in_doubt, []
        for _, waiting in doubts:
            for caller in waiting:
                caller.fail(
                    AppendOutcomeUnknown(
                        "Whether the command was stored is not known; send it again with its request id."
                    )
                )
