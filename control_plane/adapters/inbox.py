"""Parquet files dropped in a folder or a bucket.

Layout, below the inbox:

    predictions/model_id=<model>/version=<n>/<anything>.parquet
    outcomes/model_id=<model>[/label_type=<type>]/<anything>.parquet

What the folders leave out may stand in the file's own metadata: `runway.model_id`, `runway.version`,
`runway.label_type`.

A file is taken when it looks the same twice, `SETTLED_S` apart, so that one which is still being copied waits; names
that begin with a dot or an underscore, or end otherwise than in `.parquet`, are not looked at. Best is to write beside
and rename. All of a file is stored, or nothing. Its id is the SHA-256 of its content: the same file again, under any
name, changes nothing. Afterwards it is in `done/`, or in `unusable/` with a dead letter that says why; nothing is ever
deleted here. A crash in between is harmless, since the file is then taken once more.
"""

import hashlib
import os
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from pyarrow import fs

from control_plane.app.arrivals import PARQUET, Arrival, FileDoor, Lag, Taken
from control_plane.app.erasure import holds, rows_with
from control_plane.app.fact_reports import ErasedLayer
from control_plane.core.errors import RunwayError

log = structlog.get_logger("runway.inbox")

SCAN_S = 2.0
"""Between two looks: facts of a file are hours old, so that seconds do not matter, and a listing of a bucket costs."""
SETTLED_S = 2.0
"""A file that has not changed for so long is whole."""
RETRY_S_MAX = 60.0
"""The longest wait when the folder, or the store, cannot be reached."""
KINDS = ("predictions", "outcomes")
DONE, UNUSABLE = "done", "unusable"
_HASH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Seen:
    """How a file looked, and since when it has looked so."""

    size: int
    changed_ns: int
    since_s: float


class Inbox:
    """Implements `app.arrivals.FactSource`; watches in a thread of its own."""

    def __init__(self, url: str, door: FileDoor, *, scan_s: float = SCAN_S, settled_s: float = SETTLED_S) -> None:
        self._url = url
        self._door = door
        self._scan_s = scan_s
        self._settled_s = settled_s
        self._files: fs.FileSystem | None = None
        self._root = ""
        self._seen: dict[str, _Seen] = {}
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)

    def start(self) -> None:
        """See `FactSource`."""
        self._thread.start()

    def stop(self) -> None:
        """See `FactSource`. A file under way is finished."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def degraded(self) -> tuple[str, ...]:
        """See `FactSource`."""
        return (self._trouble,) if self._trouble else ()

    def lags(self) -> tuple[Lag, ...]:
        """See `FactSource`."""
        return ()

    def erase(self, ids: frozenset[bytes], entity_ids: tuple[str, ...]) -> ErasedLayer:
        """Write files anew without the rows of these ids, wherever in the inbox they lie; those that cannot be read
        but hold one go whole."""
        files, found, rewritten, left = self._opened(), 0, 0, 0
        for info in files.get_file_info(fs.FileSelector(self._root, recursive=True, allow_not_found=True)):
            if info.type != fs.FileType.File:
                continue
            with files.open_input_stream(info.path) as stream:
                payload = stream.read()
            if not holds(payload, ids, entity_ids):
                continue
            rewritten += 1
            try:
                table = pq.read_table(pa.BufferReader(payload))
            except (pa.ArrowException, OSError):
                files.delete_file(info.path)
                found += 1
                continue
            inside = rows_with(table, ids, entity_ids)
            found += int(inside.sum()) or 1
            if not inside.any() or inside.all():
                files.delete_file(info.path)
                continue
            draft = f"{info.path}.draft"
            with files.open_output_stream(draft) as sink:
                pq.write_table(table.filter(pa.array(~inside)), sink)
            files.move(draft, info.path)
            with files.open_input_stream(info.path) as stream:
                left += holds(stream.read(), ids, entity_ids)
        return ErasedLayer(layer="inbox", found=found, left=left, files_rewritten=rewritten)

    def _run(self) -> None:
        """This thread's edge: whatever happens, it looks again."""
        wait_s = self._scan_s
        while not self._stopping.wait(wait_s):
            try:
                self.scan()
            except (RunwayError, OSError, pa.ArrowException, CancelledError) as error:
                if not self._trouble:
                    log.warning("inbox.degraded", inbox=self._url, message=str(error)[:300])
                self._trouble = f"the inbox {self._url} cannot be used now: {str(error)[:200]}; its files wait there"
                wait_s = min(RETRY_S_MAX, 2 * wait_s)
            else:
                if self._trouble:
                    log.info("inbox.recovered", inbox=self._url)
                self._trouble, wait_s = "", self._scan_s

    def scan(self) -> int:
        """Take every file that is whole, oldest name first; how many were taken."""
        files = self._opened()
        found = {info.path: info for info in self._listed(files)}
        self._seen = {path: seen for path, seen in self._seen.items() if path in found}
        taken = 0
        for path in sorted(found):
            if self._stopping.is_set():
                break
            if self._settled(found[path]):
                self._take(files, path)
                taken += 1
        return taken

    def _opened(self) -> fs.FileSystem:
        """The file system; an inbox on disk is made if it is not there."""
        if self._files is None:
            parts = urlsplit(self._url)
            if parts.scheme == "s3":
                endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
                self._files = fs.S3FileSystem(endpoint_override=endpoint or None, allow_bucket_creation=False)
                self._root = f"{parts.netloc}{parts.path}"
            else:
                self._files, self._root = fs.LocalFileSystem(), str(Path(self._url).absolute())
            if isinstance(self._files, fs.LocalFileSystem):
                for kind in KINDS:
                    self._files.create_dir(f"{self._root}/{kind}")
            self._root = self._root.rstrip("/")
        return self._files

    def _listed(self, files: fs.FileSystem) -> list[fs.FileInfo]:
        """Parquet files below `predictions/` and `outcomes/`."""
        listed: list[fs.FileInfo] = []
        for kind in KINDS:
            selector = fs.FileSelector(f"{self._root}/{kind}", recursive=True, allow_not_found=True)
            listed += [
                info
                for info in files.get_file_info(selector)
                if info.type == fs.FileType.File
                and info.base_name.endswith(".parquet")
                and not info.base_name.startswith((".", "_"))
            ]
        return listed

    def _settled(self, info: fs.FileInfo) -> bool:
        now_s = time.monotonic()
        before = self._seen.get(info.path)
        if before is None or (before.size, before.changed_ns) != (info.size, info.mtime_ns):
            self._seen[info.path] = before = _Seen(info.size, info.mtime_ns or 0, now_s)
        return now_s - before.since_s >= self._settled_s

    def _take(self, files: fs.FileSystem, path: str) -> None:
        """Offer one file, then put it aside. Raises `Unavailable` if it must wait."""
        relative = PurePosixPath(path.removeprefix(f"{self._root}/"))
        digest = _sha256(files, path)
        arrival = _arrival(files, path, relative, digest)
        taken: Taken = self._door(arrival, lambda: files.open_input_file(path)).result()
        self._put_aside(files, path, relative, digest, UNUSABLE if taken.letter is not None else DONE)
        self._seen.pop(path, None)
        if taken.receipt is not None:
            log.info(
                "inbox.taken",
                file=str(relative),
                model=arrival.model_id,
                rows=taken.receipt.rows,
                sampled_out=taken.receipt.sampled_out,
                duplicate=taken.receipt.duplicate,
            )

    def _put_aside(self, files: fs.FileSystem, path: str, relative: PurePosixPath, digest: str, where: str) -> None:
        """Move a file; one of the same name that is there already keeps its own."""
        folder = f"{self._root}/{where}/{relative.parent}"
        files.create_dir(folder)
        target = f"{folder}/{relative.name}"
        if files.get_file_info(target).type != fs.FileType.NotFound:
            target = f"{folder}/{digest[:12]}-{relative.name}"
        files.move(path, target)


def _sha256(files: fs.FileSystem, path: str) -> str:
    digest = hashlib.sha256()
    with files.open_input_stream(path) as stream:
        while chunk := stream.read(_HASH_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _arrival(files: fs.FileSystem, path: str, relative: PurePosixPath, digest: str) -> Arrival:
    """Whose facts a file holds: by its folders, else by its own metadata."""
    said = _metadata(files, path)
    fault = ""
    for part in relative.parts[1:-1]:
        name, equals, value = part.partition("=")
        if not equals or name not in ("model_id", "version", "label_type"):
            continue
        if said.get(name, value) != value:
            fault = f"{name} is {value!r} by the folder and {said[name]!r} by the file's metadata"
        said[name] = value
    version = said.get("version", "")
    if not fault and relative.parts[0] == "predictions" and not (version.isascii() and version.isdecimal()):
        says = f"{version!r} is none" if version else "none is given"
        fault = f"version: {says}; put the file in predictions/model_id=<model>/version=<n>/"
    if not fault and not said.get("model_id"):
        fault = f"model_id: none is given; put the file in {relative.parts[0]}/model_id=<model>/"
    return Arrival(
        kind=relative.parts[0],
        batch_id=digest,
        source=f"inbox/{relative}"[:200] if fault else "inbox",
        model_id=said.get("model_id", ""),
        version=int(version) if version.isascii() and version.isdecimal() and len(version) < 10 else 0,
        label_type=said.get("label_type", ""),
        content_type=PARQUET,
        fault=fault,
    )


def _metadata(files: fs.FileSystem, path: str) -> dict[str, str]:
    """What the file says of itself; nothing if it is not Parquet, which its rows will show."""
    try:
        with files.open_input_file(path) as file:
            found: dict[Any, Any] = pq.read_metadata(file).metadata or {}
    except (pa.ArrowException, OSError):
        return {}
    return {
        name: found[key].decode(errors="replace")
        for name in ("model_id", "version", "label_type")
        if (key := f"runway.{name}".encode()) in found
    }
