"""What versions make of the fixed anchors: vectors by anchor, stored once per content, by sha256.

One Arrow IPC stream: `anchor_id` string (unique), `vector` fixed_size_list<float32>, and optionally `vector_other_seed`
of the same size: the same training with another seed, which tells how much two equal trainings differ. Checked when it
is put, so that whoever compares two of them need not.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from control_plane.adapters.parquet.segments import write_durably
from control_plane.core.errors import Invalid, Reason, Violation

ANCHORS_MIN = 20
"""Fewer say nothing about ten nearest neighbours."""
ANCHORS_MAX = 20_000
"""Anchors are a fixed sample: a thousand tell two trainings apart, and comparing all pairs grows with the square."""
DIMENSIONS_MAX = 4_096
"""Twice the widest embedding in common use."""
BYTES_MAX = 64 * 1024 * 1024
"""As in the contract."""
VIOLATIONS_MAX = 20
"""Violations reported at once."""

VECTORS = ("vector", "vector_other_seed")


class EmbeddingStore:
    """Embeddings on disk, one file per content."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def put(self, ipc: bytes) -> str:
        """Check and store durably; returns the sha256. The same content again changes nothing.

        Raises:
            Invalid: `INVALID_ARGUMENT`, each violation with its column and row.
        """
        check_embeddings(ipc)
        digest = hashlib.sha256(ipc).hexdigest()
        path = self._path(digest)
        if not path.exists():
            write_durably(path, ipc)
        return digest

    def get(self, digest: str) -> bytes | None:
        """The stream as it was put; None if there is none."""
        path = self._path(digest)
        return path.read_bytes() if path.exists() else None

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise _invalid(_violation("digest", "sha256", "64 lower-case hex digits"))
        return self._directory / f"{digest}.arrow"


def check_embeddings(ipc: bytes) -> None:
    """Refuse what cannot be compared; see the module.

    Raises:
        Invalid: `INVALID_ARGUMENT` with all violations, at most `VIOLATIONS_MAX`.
    """
    if len(ipc) > BYTES_MAX:
        raise _invalid(_violation("embeddings", "bytes_max", f"{len(ipc):,} bytes, at most {BYTES_MAX:,}"))
    try:
        with pa.ipc.open_stream(pa.py_buffer(ipc)) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, EOFError) as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise _invalid(_violation("embeddings", "arrow", f"not one Arrow IPC stream: {text}")) from error
    violations = _columns(table) or [*_anchors(table), *_vectors(table)]
    if violations:
        raise _invalid(*violations[:VIOLATIONS_MAX])


def _columns(table: pa.Table) -> list[Violation]:
    """Which columns there are, their types, and how much there is."""
    found: list[Violation] = []
    names = table.column_names
    if len(set(names)) < len(names):
        found.append(_violation("embeddings", "duplicate_column", "a column is there more than once"))
        return found
    for name in ("anchor_id", "vector"):
        if name not in names:
            found.append(_violation(f"embeddings.{name}", "required_column", "the column is missing"))
    for field in table.schema:
        wrong = _column(field)
        if wrong is not None:
            found.append(_violation(f"embeddings.{field.name}", *wrong))
    if not found and "vector_other_seed" in names:
        sizes = [table.schema.field(name).type.list_size for name in VECTORS]
        if sizes[0] != sizes[1]:
            says = f"{sizes[1]} dimensions, `vector` has {sizes[0]}"
            found.append(_violation("embeddings.vector_other_seed", "dimensions", says))
    if not ANCHORS_MIN <= table.num_rows <= ANCHORS_MAX:
        says = f"{table.num_rows:,} anchors: send {ANCHORS_MIN} to {ANCHORS_MAX:,}"
        found.append(_violation("embeddings.anchor_id", "anchors", says))
    return found


def _column(field: pa.Field) -> tuple[str, str] | None:
    """(rule, message) if a column is not what it should be."""
    kind = field.type
    if field.name == "anchor_id":
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return None if text else ("type", f"the type is {kind}, send string")
    if field.name not in VECTORS:
        return "unknown_column", f"unknown column, known are {', '.join(('anchor_id', *VECTORS))}"
    if not (pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type)):
        return "type", f"the type is {kind}, send fixed_size_list of float32"
    if not 1 <= kind.list_size <= DIMENSIONS_MAX:
        return "dimensions_max", f"{kind.list_size:,} dimensions, 1 to {DIMENSIONS_MAX:,}"
    return None


def _anchors(table: pa.Table) -> list[Violation]:
    """Anchors that are null or there twice."""
    found: list[Violation] = []
    first: dict[str, int] = {}
    for row, anchor in enumerate(table.column("anchor_id").to_pylist()):
        if anchor is None:
            found.append(_violation("embeddings.anchor_id", "null", f"row {row}: null is not allowed here"))
        elif anchor in first:
            says = f"row {row}: {anchor[:60]!r} is there already, in row {first[anchor]}"
            found.append(_violation("embeddings.anchor_id", "unique", says))
        else:
            first[anchor] = row
        if len(found) >= VIOLATIONS_MAX:
            break
    return found


def _vectors(table: pa.Table) -> list[Violation]:
    """Vectors that are null, or hold NaN or an infinity."""
    found: list[Violation] = []
    for name in VECTORS:
        if name not in table.column_names:
            continue
        matrix, null = vectors_of(table, name)
        bad = ~np.isfinite(matrix).all(axis=1) & ~null
        for rows, rule, says in ((null, "null", "null is not allowed here"), (bad, "finite", "NaN or infinite")):
            at = np.flatnonzero(rows)[:VIOLATIONS_MAX]
            found += [_violation(f"embeddings.{name}", rule, f"row {row}: {says}") for row in at]
    return found


def vectors_of(table: pa.Table, name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """A column of vectors, shape (rows, dimensions), NaN where a number is null; and which rows are null."""
    column = table.column(name).combine_chunks()
    size = column.type.list_size
    values = column.values.slice(column.offset * size, len(column) * size)
    matrix = np.asarray(values.to_numpy(zero_copy_only=False), np.float32).reshape(-1, size)
    return matrix, np.asarray(column.is_null().to_numpy(zero_copy_only=False), np.bool_)


def _violation(field: str, rule: str, message: str) -> Violation:
    return Violation(field=field, rule=rule, message=message)


def _invalid(*violations: Violation) -> Invalid:
    return Invalid(Reason.INVALID_ARGUMENT, *violations)
