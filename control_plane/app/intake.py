"""The one door for facts that nobody waits for: out of Kafka, out of a folder, and dead letters once more.

A batch is offered until it is stored or known to be no use. No use is what the sender would have to mend (`Invalid`) or
somebody else (a model that is not registered): it becomes a dead letter, durable before its offset is committed or its
file is moved. Not now (`Unavailable`: the disk is full, too much waits) is neither: the caller offers it again.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
import pyarrow as pa
import structlog

from control_plane.app.arrivals import ARROW, PARQUET, Arrival, DeadLetter, DeadLetters, FactSource, OpenFile, Taken
from control_plane.app.fact_reports import Receipt
from control_plane.app.ground_truth import GroundTruth
from control_plane.app.parquet_rows import parquet_batches
from control_plane.core.errors import Invalid, Reason, RunwayError, Unavailable, Violation
from control_plane.core.ground_truth.batch import read_outcomes, read_predictions
from control_plane.core.ids import parse_model_id
from control_plane.core.state import ModelRecord, State

log = structlog.get_logger("runway.intake")

LETTER_BYTES_MAX = 64 * 2**20
"""A longer file is not kept in its dead letter: it stays where it was put aside, to be dropped in again."""
REPLAYS_AT_ONCE = 8
"""Dead letters replayed side by side: they share the disk's syncs, and leave room for what arrives."""

Decode = Callable[[Arrival], Arrival]
"""Turns a protobuf payload into Arrow, with what the message says of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What became of dead letters that were tried again."""

    replayed: int
    left: tuple[DeadLetter, ...]


class Intake:
    """Looks up whose batch it is, stores it, or keeps it as a dead letter."""

    def __init__(
        self,
        *,
        ground_truth: GroundTruth,
        letters: DeadLetters,
        state: Callable[[], State],
        now: Callable[[], datetime],
        decode: Decode,
    ) -> None:
        self._ground_truth = ground_truth
        self._letters = letters
        self._state = state
        self._now = now
        self._decode = decode
        self._replaying = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sources: list[FactSource] = []

    def add(self, source: FactSource) -> None:
        """Something that takes facts in; started and stopped with this."""
        self._sources.append(source)

    @property
    def sources(self) -> tuple[FactSource, ...]:
        """All of them."""
        return tuple(self._sources)

    async def start(self) -> None:
        """Let the sources begin."""
        self._loop = asyncio.get_running_loop()
        for source in self._sources:
            await asyncio.to_thread(source.start)

    async def stop(self) -> None:
        """Let the sources finish what is under way, then let go of the letters."""
        for source in reversed(self._sources):
            await asyncio.to_thread(source.stop)
        await asyncio.to_thread(self._letters.close)

    def door(self, arrival: Arrival) -> "Future[Taken]":
        """`take`, from another thread."""
        assert self._loop is not None, "started before its sources"
        return asyncio.run_coroutine_threadsafe(self.take(arrival), self._loop)

    def file_door(self, arrival: Arrival, opened: OpenFile) -> "Future[Taken]":
        """`take_file`, from another thread."""
        assert self._loop is not None, "started before its sources"
        return asyncio.run_coroutine_threadsafe(self.take_file(arrival, opened), self._loop)

    async def take(self, arrival: Arrival) -> Taken:
        """Store a batch, or keep it as a dead letter; either is durable when this returns.

        Raises:
            Unavailable: neither could be done now; offer it again.
        """
        try:
            return Taken(receipt=await self._store(arrival))
        except RunwayError as error:
            return Taken(letter=await self._dead(arrival, error))

    async def take_file(self, arrival: Arrival, opened: OpenFile) -> Taken:
        """Store a Parquet file, or keep it as a dead letter; errors as `take`."""
        try:
            return Taken(receipt=await self._store_file(arrival, opened))
        except RunwayError as error:
            return Taken(letter=await self._dead(arrival, error, opened))

    async def replay(self, ids: Sequence[int], model_id: str) -> Replayed:
        """Offer dead letters again, oldest first. Those that are of use now are forgotten."""
        async with self._replaying:
            letters = await asyncio.to_thread(self._letters.find, model_id, ids)
            replayed, left = 0, []
            oldest_first = sorted(letters, key=lambda letter: letter.letter_id)
            for start in range(0, len(oldest_first), REPLAYS_AT_ONCE):
                turn = oldest_first[start : start + REPLAYS_AT_ONCE]
                for letter in await asyncio.gather(*(self._again(letter) for letter in turn)):
                    replayed += letter is None
                    left += [letter] if letter is not None else []
        return Replayed(replayed=replayed, left=tuple(left))

    async def discard(self, ids: Sequence[int], model_id: str) -> int:
        """Forget dead letters for good; how many."""
        async with self._replaying:
            letters = await asyncio.to_thread(self._letters.find, model_id, ids)
            gone = await asyncio.to_thread(self._letters.discard, [letter.letter_id for letter in letters])
        log.info("dead_letters.discarded", letters=gone, model=model_id)
        return gone

    async def find(self, model_id: str, limit: int) -> tuple[list[DeadLetter], int]:
        """Dead letters, newest first, and how many there are."""
        found = await asyncio.to_thread(self._letters.find, model_id, (), limit)
        return found, await asyncio.to_thread(self._letters.total, model_id)

    def degraded(self) -> tuple[str, ...]:
        """What of the taking in is not as it should be."""
        said = [text for source in self._sources for text in source.degraded()]
        dropped = self._letters.dropped()
        if dropped:
            said.append(f"{dropped:,} dead letters had to go, oldest first: there is no room for more of them")
        return tuple(said)

    async def _again(self, letter: DeadLetter) -> DeadLetter | None:
        """One dead letter once more; None if it was of use."""
        arrival = await asyncio.to_thread(self._letters.opened, letter.letter_id)
        if arrival is None:
            return None
        try:
            if letter.size and not arrival.payload:
                raise _refused("payload", "kept", "its payload is not kept: see its message for where the file is")
            if arrival.content_type == PARQUET:
                receipt = await self._store_file(arrival, lambda: pa.BufferReader(arrival.payload))
            else:
                receipt = await self._store(arrival)
        except RunwayError as error:
            reason, message = str(error.reason), error.message
            if not isinstance(error, Unavailable):
                await asyncio.to_thread(self._letters.tried, letter.letter_id, reason, message)
                letter = msgspec.structs.replace(letter, replays=letter.replays + 1)
            return msgspec.structs.replace(letter, reason=reason, message=message)
        await asyncio.to_thread(self._letters.discard, [letter.letter_id])
        log.info("dead_letter.replayed", letter=letter.letter_id, model=arrival.model_id, rows=receipt.rows)
        return None

    async def _store(self, arrival: Arrival) -> Receipt:
        if arrival.fault:
            raise _refused("envelope", "envelope", arrival.fault)
        if arrival.content_type != ARROW:
            arrival = await asyncio.to_thread(self._decode, arrival)
        record = self._record(arrival)
        if arrival.kind == "predictions":
            version = self._state().version(record.model_id, arrival.version)
            return await self._ground_truth.append_predictions(
                arrival.batch_id, record, version, arrival.payload, source=arrival.source, now=self._now()
            )
        return await self._ground_truth.append_outcomes(
            arrival.batch_id, record, arrival.label_type, arrival.payload, source=arrival.source, now=self._now()
        )

    async def _store_file(self, arrival: Arrival, opened: OpenFile) -> Receipt:
        """Look at all of a file before any of it is stored; its parts have ids of their own, so that one that was cut
        short goes on where it was."""
        if arrival.fault:
            raise _refused("envelope", "envelope", arrival.fault)
        arrival, parts = await asyncio.to_thread(_file_checked, arrival, opened, self._record(arrival))
        rows = sampled_out = 0
        duplicate = True
        at = iter(range(parts))
        batches = await asyncio.to_thread(lambda: parquet_batches(opened(), arrival.kind))
        while (ipc := await asyncio.to_thread(next, batches, None)) is not None:
            number = next(at)
            batch_id = arrival.batch_id if parts == 1 else f"{arrival.batch_id}/{number}"
            receipt = await self._store(
                msgspec.structs.replace(arrival, payload=ipc, batch_id=batch_id, content_type=ARROW)
            )
            rows += receipt.rows
            sampled_out += receipt.sampled_out
            duplicate = duplicate and receipt.duplicate
        return Receipt(rows=rows, duplicate=duplicate, sampled_out=sampled_out)

    def _record(self, arrival: Arrival) -> ModelRecord:
        if arrival.kind not in ("predictions", "outcomes"):
            raise _refused("kind", "kind", f"{arrival.kind!r} is neither predictions nor outcomes")
        if not 0 < len(arrival.batch_id) <= 200:
            raise _refused("batch_id", "length", "a batch id has 1 to 200 characters")
        return self._state().model(parse_model_id(arrival.model_id))

    async def _dead(self, arrival: Arrival, error: RunwayError, opened: OpenFile | None = None) -> DeadLetter:
        """Keep what is no use; raises `Unavailable` again, which says nothing about the batch."""
        if isinstance(error, Unavailable):
            raise error
        if opened is not None:
            arrival = await asyncio.to_thread(_with_payload, arrival, opened)
        letter = await asyncio.to_thread(self._letters.keep, arrival, str(error.reason), error.message, self._now())
        log.warning(
            "dead_letter.kept",
            letter=letter.letter_id,
            source=arrival.source,
            model=arrival.model_id,
            batch=arrival.batch_id,
            reason=str(error.reason),
            message=error.message[:300],
        )
        return letter


def _file_checked(arrival: Arrival, opened: OpenFile, record: ModelRecord) -> tuple[Arrival, int]:
    """Read a file to its end; how many batches it makes."""
    parts = rows = 0
    own = arrival.label_type in ("", record.label_spec.label_type)
    for ipc in parquet_batches(opened(), arrival.kind):
        try:
            if arrival.kind == "predictions":
                rows += read_predictions(ipc, record.label_spec).rows
            else:
                rows += read_outcomes(ipc, record.label_spec if own else None).rows
        except Invalid as error:
            raise _of_file(error, rows) from error
        parts += 1
    if not parts:
        raise _refused("file", "rows_min", "the file has no rows")
    return arrival, parts


def _of_file(error: Invalid, before: int) -> Invalid:
    """Rows are named by their place in a part; say where that begins."""
    where = f", counted from row {before:,} of the file" if before else ""
    told = (replace(one, message=one.message + where) for one in error.violations)
    return Invalid(error.reason, *told)


def _with_payload(arrival: Arrival, opened: OpenFile) -> Arrival:
    with opened() as file:
        size = file.size()
        return msgspec.structs.replace(arrival, payload=file.read() if size <= LETTER_BYTES_MAX else b"")


def _refused(field: str, rule: str, message: str) -> Invalid:
    return Invalid(Reason.INVALID_BATCH, Violation(field=field, rule=rule, message=message))
