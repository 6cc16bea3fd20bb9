"""Embeddings of anchors: kept by content, refused with row and column of what is wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from control_plane.adapters.parquet import embeddings
from control_plane.adapters.parquet.embeddings import EmbeddingStore
from control_plane.core.errors import Invalid
from tests.ground_truth.arrows import ipc

ROWS = 30


def vectors(rows: int = ROWS, size: int = 4) -> pa.Array:
    """Vectors that differ."""
    flat = np.random.default_rng(0).normal(size=rows * size).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), size)


def good(**changes: pa.Array) -> dict[str, pa.Array]:
    """Columns that are accepted, some of them changed."""
    return {"anchor_id": pa.array([f"a{row}" for row in range(ROWS)]), "vector": vectors(), **changes}


def test_the_same_content_is_stored_once(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    content = ipc(good(vector_other_seed=vectors()))
    digest = store.put(content)
    assert store.put(content) == digest
    assert store.get(digest) == content
    assert EmbeddingStore(tmp_path).get(digest) == content
    assert store.get("0" * 64) is None
    with pytest.raises(Invalid):
        store.get("../catalog.sqlite")


def with_nan() -> pa.Array:
    """The number at row 7 is none."""
    flat = np.ones(ROWS * 4, np.float32)
    flat[29] = np.nan
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), 4)


@pytest.mark.parametrize(
    ("columns", "field", "says"),
    [
        ({"vector": vectors()}, "embeddings.anchor_id", "missing"),
        (good(vector=with_nan()), "embeddings.vector", "row 7: NaN"),
        (
            good(anchor_id=pa.array(["a", "a", *map(str, range(28))])),
            "embeddings.anchor_id",
            "row 1: 'a' is there already",
        ),
        (good(anchor_id=pa.array([None, *map(str, range(29))])), "embeddings.anchor_id", "row 0: null"),
        (good(vector=pa.array([[1.0]] * ROWS)), "embeddings.vector", "fixed_size_list"),
        (good(vector_other_seed=vectors(size=5)), "embeddings.vector_other_seed", "5 dimensions, `vector` has 4"),
        (good(more=pa.array([1] * ROWS)), "embeddings.more", "unknown column"),
        ({"anchor_id": pa.array(["a"]), "vector": vectors(1)}, "embeddings.anchor_id", "1 anchors: send 20"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, columns: dict[str, pa.Array], field: str, says: str
) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        EmbeddingStore(tmp_path).put(ipc(columns))
    assert [violation.field for violation in caught.value.violations] == [field]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"nonsense", ipc(good())[:200]])
def test_bytes_that_are_not_arrow(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Invalid, match="not one Arrow IPC stream"):
        EmbeddingStore(tmp_path).put(content)


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BYTES_MAX", 100)
    with pytest.raises(Invalid, match="at most 100"):
        EmbeddingStore(tmp_path).put(ipc(good()))
