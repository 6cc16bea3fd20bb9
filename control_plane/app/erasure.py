"""Erasing facts: the store, then what lies beside it (dead letters, files of the inbox), with one answer for all."""

import contextlib
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from control_plane.app.arrivals import DeadLetters, FactSource
from control_plane.app.fact_reports import Erased, ErasedLayer
from control_plane.app.ground_truth import GroundTruth

log = structlog.get_logger("runway.erasure")

ID_COLUMN = "prediction_id"
ENTITY_COLUMN = "entity_id"


@runtime_checkable
class ErasableSource(Protocol):
    """A source that keeps what it took."""

    def erase(self, ids: frozenset[bytes], entity_ids: tuple[str, ...]) -> ErasedLayer:
        """Take these out of what is kept."""
        ...


class Erasure:
    """Reaches every layer."""

    def __init__(
        self, ground_truth: GroundTruth, letters: DeadLetters, sources: Callable[[], Sequence[FactSource]]
    ) -> None:
        self._ground_truth = ground_truth
        self._letters = letters
        self._sources = sources

    async def erase(
        self, request_id: str, prediction_ids: Sequence[bytes], entity_ids: Sequence[str], now: datetime
    ) -> Erased:
        """Erase, in a thread of its own; the same request again gives the same answer."""
        erased = await self._ground_truth.read(
            lambda store: store.erase(request_id, prediction_ids, entity_ids, now, self._beside)
        )
        log.info("facts.erased", ids=erased.ids, ids_sha256=erased.ids_sha256)
        return erased

    async def resume(self, now: datetime) -> None:
        """Finish what a crash interrupted; whoever asked gets the receipt by asking again under the same request id."""
        for request_id in await self._ground_truth.read(lambda store: store.resume_erasures(now, self._beside)):
            log.warning("erasure.resumed", request_id=request_id)

    def _beside(self, ids: frozenset[bytes], entity_ids: tuple[str, ...]) -> tuple[ErasedLayer, ...]:
        layers = [self._dead_letters(ids, entity_ids)]
        layers += [source.erase(ids, entity_ids) for source in self._sources() if isinstance(source, ErasableSource)]
        return tuple(layers)

    def _dead_letters(self, ids: frozenset[bytes], entity_ids: tuple[str, ...]) -> ErasedLayer:
        found = self._letters_with(ids, entity_ids)
        self._letters.discard(found)
        return ErasedLayer(
            layer="dead letters",
            found=len(found),
            left=len(self._letters_with(ids, entity_ids)),
            note="batches that could not be used are thrown away whole if one of the ids is in them",
        )

    def _letters_with(self, ids: frozenset[bytes], entity_ids: tuple[str, ...]) -> list[int]:
        found = []
        for letter in self._letters.find():
            opened = self._letters.opened(letter.letter_id)
            if opened is not None and (
                holds(opened.payload, ids, entity_ids) or holds(letter.message.encode(), ids, entity_ids)
            ):
                found.append(letter.letter_id)
        return found


def holds(payload: bytes, ids: frozenset[bytes], entity_ids: Sequence[str]) -> bool:
    """Is one of the ids in some bytes: as bytes, hex or text, or in a row of Arrow or Parquet, compressed or not?"""
    table = _table(payload)
    if table is not None and bool(rows_with(table, ids, entity_ids).any()):
        return True
    texts = [form for one in ids for form in (one, one.hex().encode(), str(uuid.UUID(bytes=one)).encode())]
    return any(text in payload for text in (*texts, *(entity.encode() for entity in entity_ids)))


def rows_with(table: pa.Table, ids: frozenset[bytes], entity_ids: Sequence[str]) -> Any:
    """Which rows are of one of the ids. A boolean numpy array of shape (rows,)."""
    inside = pa.array([False] * table.num_rows)
    if ID_COLUMN in table.column_names:
        forms = [*ids, *(str(uuid.UUID(bytes=one)).encode() for one in ids), *(one.hex().encode() for one in ids)]
        column = pa.array(
            [one.encode() if isinstance(one, str) else getattr(one, "bytes", one) for one in _values(table, ID_COLUMN)],
            pa.binary(),
        )
        inside = pc.or_(inside, pc.is_in(column, value_set=pa.array(forms, pa.binary())))
    if entity_ids and ENTITY_COLUMN in table.column_names:
        names = table.column(ENTITY_COLUMN).cast(pa.string()).combine_chunks()
        inside = pc.or_(inside, pc.is_in(names, value_set=pa.array(entity_ids, pa.string())))
    return inside.to_numpy(zero_copy_only=False)


def _values(table: pa.Table, name: str) -> list[Any]:
    found: list[Any] = table.column(name).to_pylist()
    return found


def _table(payload: bytes) -> pa.Table | None:
    """The rows of a payload; None if it is neither Arrow nor Parquet, or broken."""
    with contextlib.suppress(pa.ArrowException, OSError, ValueError):
        return pa.ipc.open_stream(payload).read_all()
    with contextlib.suppress(pa.ArrowException, OSError, ValueError):
        return pq.read_table(pa.BufferReader(payload))
    return None
