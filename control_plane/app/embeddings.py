"""How alike two versions of an embedding are, measured on the anchors that both were asked about.

Measured when somebody needs it (a consumer that was trained with another version than the one that serves) and kept in
memory: versions never change, so neither does the answer, and it goes into the evidence of the look that asked.
"""

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from control_plane.app.fact_store import FactStore
from control_plane.core.errors import RunwayError
from control_plane.core.staleness.evidence import Compatibility
from control_plane.core.statistics.embeddings import ANCHORS_MIN, USUAL_FLOOR, Stability, stability

log = structlog.get_logger("runway.embeddings")

KEPT_MAX = 1_000
"""Pairs of versions remembered: each is a few numbers."""

Vectors = npt.NDArray[np.float32]


class _Anchored(NamedTuple):
    """What a version makes of the anchors, in the order of their ids."""

    ids: tuple[str, ...]
    vectors: Vectors
    other_seed: Vectors | None


class Embeddings:
    """Compares versions by the sha256 of what they make of the anchors. To be called from one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Compatibility | None] = {}

    def compatibility(self, store: FactStore, before: str, after: str) -> Compatibility | None:
        """Of two versions; None if one gave no embeddings, or they cannot be compared."""
        if not before or not after:
            return None
        key = (before, after)
        if key not in self._known:
            while len(self._known) >= KEPT_MAX:
                self._known.pop(next(iter(self._known)))
            self._known[key] = _measured(store, before, after)
        return self._known[key]


def _measured(store: FactStore, before: str, after: str) -> Compatibility | None:
    first, second = (store.embeddings(digest) for digest in (before, after))
    if first is None or second is None:
        log.warning("embeddings.missing", before=before, after=after)
        return None
    old, new = _anchored(first), _anchored(second)
    shared = sorted(set(old.ids) & set(new.ids))
    if len(shared) < ANCHORS_MIN:
        log.warning("embeddings.few_shared_anchors", shared=len(shared), before=before, after=after)
        return None
    try:
        found = stability(_rows(old, shared, old.vectors), _rows(new, shared, new.vectors))
        floors = [
            stability(_rows(one, shared, one.vectors), _rows(one, shared, one.other_seed))
            for one in (old, new)
            if one.other_seed is not None
        ]
    except RunwayError as error:
        log.warning("embeddings.not_comparable", message=error.message, before=before, after=after)
        return None
    floor = _lowest(floors) if floors else USUAL_FLOOR
    return Compatibility(
        anchors=len(shared),
        knn_jaccard=found.knn_jaccard,
        procrustes_cosine=found.procrustes_cosine,
        cka=found.cka,
        knn_jaccard_floor=floor.knn_jaccard,
        procrustes_cosine_floor=floor.procrustes_cosine,
        cka_floor=floor.cka,
        floor_measured=bool(floors),
    )


def _lowest(floors: list[Stability]) -> Stability:
    """The noisier of two trainings: to call a version another one takes more than the noise of either."""
    return Stability(
        knn_jaccard=min(one.knn_jaccard for one in floors),
        procrustes_cosine=min(one.procrustes_cosine for one in floors),
        cka=min(one.cka for one in floors),
    )


def _anchored(ipc: bytes) -> _Anchored:
    table = pa.ipc.open_stream(io.BytesIO(ipc)).read_all().combine_chunks()
    names = table.column_names
    return _Anchored(
        ids=tuple(table.column("anchor_id").to_pylist()),
        vectors=_matrix(table.column("vector")),
        other_seed=_matrix(table.column("vector_other_seed")) if "vector_other_seed" in names else None,
    )


def _matrix(column: pa.ChunkedArray) -> Vectors:
    width = column.type.list_size
    flat = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    return flat.reshape(-1, width)


def _rows(one: _Anchored, shared: list[str], vectors: Vectors) -> Vectors:
    place = {anchor: at for at, anchor in enumerate(one.ids)}
    return vectors[[place[anchor] for anchor in shared]]
