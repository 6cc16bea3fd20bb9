"""Well-formed records for log tests."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from control_plane.app.chain import hash_of
from control_plane.app.ports import Record

START = datetime(2013, 1, 1, 5, 0, 0, 123456, tzinfo=UTC)


def record(seq: int, prev_hash: bytes, *, epoch: int = 1, version: int = 1, payload: str = "") -> Record:
    """A sealed record with text that is easily damaged on the way."""
    fresh = Record(
        seq=seq,
        epoch=epoch,
        kind="Added",
        version=version,
        at=START + timedelta(microseconds=seq),
        actor="wörker@example.com",
        reason="line one\nline two\twith 'quotes' and \\",
        request_id=f"r-{seq}" if seq % 2 else "",
        request_digest="abc" if seq % 2 else "",
        result='{"changed": 1}' if seq % 2 else "",
        payload=payload or f'{{"z" : 1.0,  "a":"\\u0000é€", "seq":{seq}, "a":2}}',
        prev_hash=prev_hash,
        hash=b"",
    )
    return msgspec.structs.replace(fresh, hash=hash_of(fresh))


def chain(count: int, after: Sequence[Record] = (), *, epoch: int = 1) -> list[Record]:
    """`count` records that follow `after`."""
    found: list[Record] = []
    seq, digest = (after[-1].seq, after[-1].hash) if after else (0, b"")
    for _ in range(count):
        found.append(record(seq + 1, digest, epoch=epoch))
        seq, digest = found[-1].seq, found[-1].hash
    return found
