"""Segments: whatever a crash leaves of the tail, what was acknowledged is there, and nothing else."""

import os
from pathlib import Path

import pytest

from control_plane.adapters.parquet.segments import (
    BatchHead,
    Record,
    SegmentDamaged,
    SegmentLog,
    read_segment,
    recover_segment,
)
from control_plane.core.errors import Reason, Unavailable


def record(number: int, size: int = 40) -> Record:
    """A record whose payload contains the magic, to make it harder."""
    head = BatchHead(kind="predictions", batch_id=f"b{number}", model_id="m", version=1, rows=1, horizon=0)
    return Record(head=head, ipc=(b"RWS1" + bytes([number]) * size)[:size])


def write(directory: Path, *groups: list[Record]) -> Path:
    """A segment of groups, each made durable on its own."""
    log = SegmentLog(directory)
    for group in groups:
        log.append(group)
    log.close_segment()
    return log.path(log.number)


def test_reads_back(tmp_path: Path) -> None:
    records = [record(number) for number in range(5)]
    path = write(tmp_path, records[:2], records[2:])
    assert list(read_segment(path)) == records
    assert recover_segment(path) == records


def test_every_cut_of_the_tail_keeps_all_whole_records(tmp_path: Path) -> None:
    records = [record(number) for number in range(3)]
    path = write(tmp_path, records)
    whole = path.read_bytes()
    record_bytes = len(whole) // 3
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        survivors = recover_segment(path)
        assert survivors == records[: size // record_bytes]
        assert path.stat().st_size == size // record_bytes * record_bytes
        assert list(read_segment(path)) == survivors


def test_every_damaged_byte_of_an_unacknowledged_tail_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path, [record(0)], [record(1)])
    whole = path.read_bytes()
    first = len(whole) // 2
    for position in range(first, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        assert recover_segment(path) == [record(0)]


def test_every_damaged_byte_below_the_durable_mark_refuses(tmp_path: Path) -> None:
    path = write(tmp_path, [record(0)], [record(1)])
    whole = path.read_bytes()
    for position in range(len(whole) // 2):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(SegmentDamaged) as caught:
            recover_segment(path)
        assert caught.value.details == {"segment": path.name, "offset": "0"}


def test_pages_written_out_of_order_are_a_torn_tail(tmp_path: Path) -> None:
    """A group of two, its first record lost by the crash, its second one on disk: neither was acknowledged."""
    path = write(tmp_path, [record(0)], [record(1), record(2)])
    whole = bytearray(path.read_bytes())
    third = len(whole) // 3
    whole[third : 2 * third] = bytes(third)
    path.write_bytes(whole)
    assert recover_segment(path) == [record(0)]


def test_a_broken_record_in_a_closed_segment_refuses(tmp_path: Path) -> None:
    path = write(tmp_path, [record(0)])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SegmentDamaged):
        list(read_segment(path))


def test_a_failed_write_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SegmentLog(tmp_path)
    log.append([record(0)])
    real = os.writev

    def full_disk(file: int, buffers: list[memoryview]) -> int:
        real(file, [bytes(buffers[0])[:10]])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", full_disk)
    with pytest.raises(Unavailable, match="No space left") as caught:
        log.append([record(1)])
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    monkeypatch.setattr(os, "writev", real)
    log.append([record(2)])
    log.close_segment()
    assert list(read_segment(log.path(1))) == [record(0), record(2)]


def test_after_a_failed_sync_nothing_more_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SegmentLog(tmp_path)

    def broken_disk(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken_disk)
    with pytest.raises(Unavailable, match="Input/output error"):
        log.append([record(0)])
    monkeypatch.undo()
    with pytest.raises(Unavailable, match="restart"):
        log.append([record(1)])


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    log.start_after(7)
    assert log.append([record(0)]) == 8
    log.close_segment()
    assert log.append([record(1)]) == 9
    assert log.closed_numbers() == [8]
