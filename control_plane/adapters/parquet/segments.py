"""The segment log: arriving batches, durable before they are acknowledged.

A segment is a file of records, appended by one writer. A record is a fixed preamble (magic, CRC-32, sizes, and how
much of this file was known to be durable when the record was written), a JSON head, and the Arrow bytes as they
came. A group of records is written with one call and made durable with one `fdatasync`.

Recovery reads the last segment up to the first record that is not whole, and cuts the rest off: it was never
acknowledged. A broken record *below* the durable mark of a later one is something else, damage to acknowledged
data, and refuses the start instead of losing it silently.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from control_plane.core.errors import Reason, Unavailable

Kind = Literal["predictions", "outcomes"]

SEGMENT_BYTES_MAX = 64 * 1024 * 1024
"""Bytes after which a segment is closed: two million bare predictions, turned into Parquet within a second."""

_PREAMBLE = struct.Struct("<4sIIQQ")  # magic, crc of all that follows, head bytes, payload bytes, durable bytes
_MAGIC = b"RWS1"
_CRC_AT = struct.calcsize("<4sI")


class BatchHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a record is, beside its Arrow bytes."""

    kind: Kind
    batch_id: str
    model_id: str
    version: int = 0
    """Of predictions; 0 for outcomes."""
    label_type: str = ""
    """Of outcomes; empty for predictions."""
    rows: int
    horizon: int
    """The model's horizon at arrival, in hours since 1970: outcomes of earlier hours were late."""
    source: str = ""
    """Who sent it: a serving system, a topic, a folder."""
    rates: dict[int, float] = {}
    """Hour -> share of ids that was kept of it, where that is below 1; others of the batch were not stored."""
    offered: dict[int, int] = {}
    """Hour -> predictions before sampling, of a batch that was sampled: volumes count them all."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One stored batch."""

    head: BatchHead
    ipc: bytes


class SegmentDamaged(Unavailable):
    """Acknowledged data does not read back."""

    def __init__(self, path: Path, offset: int) -> None:
        super().__init__(
            Reason.STORE_UNAVAILABLE,
            f"segment {path.name} is damaged at byte {offset}, below what was acknowledged: restore this file from a "
            "backup, or move it away to go on without its batches",
            segment=path.name,
            offset=str(offset),
        )


def encode(record: Record, durable_bytes: int) -> list[bytes]:
    """A record as buffers, to be written in order."""
    head = msgspec.json.encode(record.head)
    rest = _PREAMBLE.pack(_MAGIC, 0, len(head), len(record.ipc), durable_bytes)[_CRC_AT:]
    crc = zlib.crc32(record.ipc, zlib.crc32(head, zlib.crc32(rest)))
    return [_MAGIC + struct.pack("<I", crc) + rest + head, record.ipc]


def _decode(data: memoryview, offset: int) -> tuple[Record, int, int] | None:
    """The record at an offset, the offset behind it, and its durable mark; None if it is not whole."""
    if len(data) - offset < _PREAMBLE.size:
        return None
    magic, crc, head_bytes, ipc_bytes, durable_bytes = _PREAMBLE.unpack_from(data, offset)
    start = offset + _PREAMBLE.size
    end = start + head_bytes + ipc_bytes
    if magic != _MAGIC or end > len(data) or zlib.crc32(data[offset + _CRC_AT : end]) != crc:
        return None
    head = msgspec.json.decode(data[start : start + head_bytes], type=BatchHead)
    return Record(head=head, ipc=bytes(data[start + head_bytes : end])), end, durable_bytes


def read_segment(path: Path) -> Iterator[Record]:
    """All records of a closed segment.

    Raises:
        SegmentDamaged: a record is not whole.
    """
    data = memoryview(path.read_bytes())
    offset = 0
    while offset < len(data):
        found = _decode(data, offset)
        if found is None:
            raise SegmentDamaged(path, offset)
        yield found[0]
        offset = found[1]


def recover_segment(path: Path) -> list[Record]:
    """Records of the last segment; what follows the last whole one is cut off the file.

    Raises:
        SegmentDamaged: a broken record lies below the durable mark of a later record.
    """
    data = memoryview(path.read_bytes())
    records: list[Record] = []
    offset = 0
    while (found := _decode(data, offset)) is not None:
        records.append(found[0])
        offset = found[1]
    if offset < len(data):
        if _durable_mark_behind(data, offset) > offset:
            raise SegmentDamaged(path, offset)
        with path.open("r+b") as file:
            file.truncate(offset)
            os.fsync(file.fileno())
    return records


def _durable_mark_behind(data: memoryview, offset: int) -> int:
    """The highest durable mark of the whole records behind an offset; 0 if there are none."""
    raw, mark = bytes(data), 0
    at = raw.find(_MAGIC, offset + 1)
    while at >= 0:
        found = _decode(data, at)
        if found is not None:
            mark = max(mark, found[2])
        at = raw.find(_MAGIC, at + 1 if found is None else found[1])
    return mark


class SegmentLog:
    """The segments of a directory, and the open one. One writer."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._file: int | None = None
        self._number = max(self.numbers(), default=0)
        self._bytes = 0
        self._broken = False

    def numbers(self) -> list[int]:
        """Numbers of all segments on disk, ascending."""
        return sorted(int(path.stem) for path in self._directory.glob("*.seg"))

    def path(self, number: int) -> Path:
        """File of a segment."""
        return self._directory / f"{number:010d}.seg"

    @property
    def number(self) -> int:
        """Number of the open segment, or of the last one."""
        return self._number

    @property
    def open_bytes(self) -> int:
        """Bytes in the open segment; 0 if none is open."""
        return self._bytes

    def start_after(self, number: int) -> None:
        """Never reuse the number of a segment that was already turned into Parquet."""
        self._number = max(self._number, number)

    def append(self, records: Sequence[Record]) -> int:
        """Write a group of records and make it durable; returns the number of the segment that holds it.

        Raises:
            Unavailable: the disk refused. A failed write is taken back; after a failed sync nothing is known
                about the disk, so that the log takes nothing more until it is opened anew.
        """
        if self._broken:
            raise _unavailable("an earlier write failed; restart to recover")
        if self._file is None:
            self._open_next()
        assert self._file is not None
        before = self._bytes
        buffers = [buffer for record in records for buffer in encode(record, before)]
        try:
            written = _write_all(self._file, buffers)
        except OSError as error:
            self._take_back(before)
            raise _unavailable(str(error)) from error
        try:
            os.fdatasync(self._file)
        except OSError as error:
            self._broken = True
            raise _unavailable(str(error)) from error
        self._bytes = before + written
        number = self._number
        if self._bytes >= SEGMENT_BYTES_MAX:
            self.close_segment()
        return number

    def close_segment(self) -> None:
        """Close the open segment, if it holds anything; the next append begins another."""
        if self._file is not None:
            os.close(self._file)
            self._file, self._bytes = None, 0

    def closed_numbers(self) -> list[int]:
        """Segments that get no more records, ascending."""
        return [number for number in self.numbers() if self._file is None or number != self._number]

    def delete(self, number: int) -> None:
        """Delete a segment whose content is elsewhere."""
        self.path(number).unlink(missing_ok=True)

    def _open_next(self) -> None:
        self._number += 1
        path = self.path(self._number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            file = os.open(path, flags, 0o644)
        except OSError as error:
            raise _unavailable(str(error)) from error
        try:
            sync_directory(self._directory)
        except OSError as error:
            os.close(file)
            path.unlink(missing_ok=True)
            raise _unavailable(str(error)) from error
        self._file, self._bytes = file, 0

    def _take_back(self, size: int) -> None:
        """Cut a half-written group off, or take nothing more if even that fails."""
        assert self._file is not None
        try:
            os.ftruncate(self._file, size)
        except OSError:
            self._broken = True


def _write_all(file: int, buffers: list[bytes]) -> int:
    """Write all buffers, however many calls the kernel wants; returns the bytes."""
    total = sum(len(buffer) for buffer in buffers)
    views = [memoryview(buffer) for buffer in buffers if buffer]
    while views:
        written = os.writev(file, views[:512])  # IOV_MAX is at least 1,024 on Linux, 16 by POSIX
        while views and written >= len(views[0]):
            written -= len(views[0])
            views.pop(0)
        if written:
            views[0] = views[0][written:]
    return total


def sync_directory(directory: Path) -> None:
    """Make names of new or renamed files durable."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is whole or not there."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_directory(path.parent)


def _unavailable(cause: str) -> Unavailable:
    return Unavailable(Reason.STORE_UNAVAILABLE, f"the fact store cannot write: {cause}")
