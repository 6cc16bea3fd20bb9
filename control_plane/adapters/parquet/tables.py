"""The Delta tables of sealed rows: `predictions` and `outcomes`, on local disk or in object storage.

The Parquet files are ours, written as the join wants to read them; Delta says which of them count. A commit carries the
number of the last segment it holds as its application transaction, so that committing a segment again changes nothing,
and a reader of another engine sees whole segments or none. Partitioned by `day`: that of a prediction's `predicted_at`,
and for an outcome the day in its id, or that of its observation if the id carries none.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from control_plane.adapters.parquet.segments import sync_directory
from control_plane.core.errors import Reason, Unavailable
from control_plane.core.ground_truth.tables import COLUMNS, TableKind

OTHER_DAY = date(1970, 1, 1)
"""Where rows go whose days are too many for files of their own."""
APP_ID = "runway"
"""Of the application transactions."""
COMMIT_TRIES = 5
"""A commit that another writer (compaction, an engine beside us) was quicker than is tried on top of that one's."""
CACHE_BYTES_MAX = 4 * 1024**3
"""Objects kept on local disk after they were read: DuckDB reads files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """A written file of a table: path below the table, its day, rows and bytes."""

    path: str
    day: date
    rows: int
    size: int


class Place(Protocol):
    """Where files are: paths are relative, with slashes."""

    url: str

    def write(self, path: str, table: pa.Table, options: dict[str, object]) -> int:
        """Write a Parquet file, durable and whole on return; its bytes."""
        ...

    def local(self, path: str) -> Path:
        """A file on local disk with its content."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file; one that is not there is fine."""
        ...

    def paths(self, folder: str) -> list[str]:
        """Parquet files below a folder, in order."""
        ...


class LocalPlace:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def write(self, path: str, table: pa.Table, options: dict[str, object]) -> int:
        """See `Place`."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(".draft")
        with draft.open("wb") as file:
            pq.write_table(table, file, **options)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(target)
        sync_directory(target.parent)
        return target.stat().st_size

    def local(self, path: str) -> Path:
        """See `Place`."""
        return self.root / path

    def delete(self, path: str) -> None:
        """See `Place`."""
        (self.root / path).unlink(missing_ok=True)

    def paths(self, folder: str) -> list[str]:
        """See `Place`."""
        found = (self.root / folder).rglob("*.parquet")
        return sorted(path.relative_to(self.root).as_posix() for path in found)


class ObjectPlace:
    """A prefix of a bucket (S3 API), configured by the usual AWS_* variables."""

    def __init__(self, url: str, cache: Path) -> None:
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._prefix = f"{parts.netloc}{parts.path}".rstrip("/")
        self._cache = cache
        shutil.rmtree(cache, ignore_errors=True)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._files = pafs.S3FileSystem(endpoint_override=endpoint or None, allow_bucket_creation=False)

    def write(self, path: str, table: pa.Table, options: dict[str, object]) -> int:
        """See `Place`. An object appears whole or not at all."""
        with self._files.open_output_stream(f"{self._prefix}/{path}") as sink:
            pq.write_table(table, sink, **options)
        return int(self._files.get_file_info(f"{self._prefix}/{path}").size)

    def local(self, path: str) -> Path:
        """See `Place`. Kept until `CACHE_BYTES_MAX` are."""
        target = self._cache / path
        if not target.exists():
            self._make_room()
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_suffix(".draft")
            with self._files.open_input_stream(f"{self._prefix}/{path}") as source, draft.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            draft.rename(target)
        return target

    def _make_room(self) -> None:
        files = sorted(self._cache.rglob("*.parquet"), key=lambda file: file.stat().st_mtime)
        size = sum(file.stat().st_size for file in files)
        while files and size > CACHE_BYTES_MAX:
            size -= files[0].stat().st_size
            files.pop(0).unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        """See `Place`."""
        with contextlib.suppress(FileNotFoundError):
            self._files.delete_file(f"{self._prefix}/{path}")
        (self._cache / path).unlink(missing_ok=True)

    def paths(self, folder: str) -> list[str]:
        """See `Place`."""
        below = pafs.FileSelector(f"{self._prefix}/{folder}", allow_not_found=True, recursive=True)
        found = [info.path for info in self._files.get_file_info(below) if info.path.endswith(".parquet")]
        return sorted(path.removeprefix(f"{self._prefix}/") for path in found)


def place_of(url: str, *, cache: Path) -> Place:
    """The place that a url names: `s3://bucket/prefix`, or a folder."""
    return ObjectPlace(url, cache) if urlsplit(url).scheme == "s3" else LocalPlace(Path(url))


def storage_options(url: str) -> dict[str, str]:
    """What deltalake must be told of object storage; from the usual AWS_* variables."""
    if urlsplit(url).scheme != "s3":
        return {}
    options = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    if options.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    # Two writers at once are told apart by a conditional put, which every S3 of today knows.
    options.setdefault("conditional_put", "etag")
    return options


class Tables:
    """Both tables under one url. Not safe for concurrent use; its owner serialises."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._options = storage_options(place.url)
        self._open: dict[TableKind, DeltaTable] = {}

    def path(self, kind: TableKind, path: str) -> str:
        """The path of a table's file below the place."""
        return f"{kind}/{path}"

    def url(self, kind: TableKind) -> str:
        """Where a table is."""
        return f"{self.place.url}/{kind}"

    def committed(self, kind: TableKind) -> int:
        """Number of the last segment that a table holds; 0 if none."""
        table = self.table(kind)
        return (table.transaction_version(APP_ID) or 0) if table is not None else 0

    def table(self, kind: TableKind) -> DeltaTable | None:
        """The table as it is now; None if nothing was ever committed."""
        try:
            known = self._open.get(kind)
            if known is None:
                known = self._open[kind] = DeltaTable(self.url(kind), storage_options=self._options)
            else:
                known.update_incremental()
        except TableNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(
                Reason.STORE_UNAVAILABLE, f"the table {self.url(kind)} cannot be read: {error}"
            ) from error
        return known

    def commit(
        self, kind: TableKind, added: Sequence[TableFile], *, segment: int = 0, removed: Iterable[TableFile] = ()
    ) -> bool:
        """Let files count, and others no more, in one step.

        Args:
            segment: the last segment that is in `added`; 0 if the rows were there before (compaction, erasure).
        Returns:
            False if the segment was committed before, and nothing was changed.
        """
        actions = [_added(file, moved=not segment) for file in added]
        gone = [_removed(file) for file in removed]
        properties = CommitProperties(app_transactions=[Transaction(APP_ID, segment)] if segment else None)
        for attempt in range(COMMIT_TRIES):
            table = self.table(kind)
            try:
                if table is None:
                    create_table_with_add_actions(
                        self.url(kind),
                        _schema(kind),
                        actions,
                        partition_by=["day"],
                        storage_options=self._options or None,
                        commit_properties=properties,
                    )
                    return True
                if segment and (table.transaction_version(APP_ID) or 0) >= segment:
                    return False
                self._evolve(kind, table)
                table.create_write_transaction(
                    [*actions, *gone], "append", table.schema(), ["day"], commit_properties=properties
                )
            except CommitFailedError:
                self._open.pop(kind, None)
                if attempt == COMMIT_TRIES - 1:
                    raise
            else:
                return True
        raise AssertionError("unreachable")

    def _evolve(self, kind: TableKind, table: DeltaTable) -> None:
        """Add columns that a table of an earlier version lacks; those that others added stay."""
        known = {field.name for field in table.schema().fields}
        missing = [Field(name, PrimitiveType(of), nullable=True) for name, of in COLUMNS[kind] if name not in known]
        if missing:
            table.alter.add_columns(missing)
            table.update_incremental()

    def files(self, kind: TableKind) -> list[TableFile]:
        """The files that count now, by path."""
        table = self.table(kind)
        if table is None:
            return []
        actions = pa.table(table.get_add_actions(flatten=True))
        return sorted(
            (
                TableFile(
                    path=row["path"],
                    day=row["partition.day"],
                    rows=row.get("num_records") or 0,
                    size=row["size_bytes"],
                )
                for row in actions.to_pylist()
            ),
            key=lambda file: file.path,
        )

    def version(self, kind: TableKind) -> int:
        """Number of the newest commit of a table; -1 if there is none."""
        table = self.table(kind)
        return table.version() if table is not None else -1

    def checkpoint(self, kind: TableKind) -> None:
        """Write the state of a table as one file, and drop entries of its log that are past their retention (30 days,
        unless the table says otherwise)."""
        table = self.table(kind)
        if table is not None:
            table.create_checkpoint()
            table.cleanup_metadata()
            self._open.pop(kind, None)


def _schema(kind: TableKind) -> Schema:
    return Schema([Field(name, PrimitiveType(of), nullable=True) for name, of in COLUMNS[kind]])


def _added(file: TableFile, *, moved: bool) -> AddAction:
    stats = json.dumps({"numRecords": file.rows})
    return AddAction(file.path, file.size, {"day": file.day.isoformat()}, int(time.time() * 1000), not moved, stats)


def _removed(file: TableFile) -> RemoveAction:
    return RemoveAction(
        path=file.path,
        data_change=False,
        deletion_timestamp=int(time.time() * 1000),
        size=file.size,
        partition_values={"day": file.day.isoformat()},
    )
