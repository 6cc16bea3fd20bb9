"""The hash chain of the log: what an entry's hash covers, and how a tail is checked against it.

    hash = sha256(prev_hash + canonical)
    canonical = seq, epoch, kind, version, at (whole microseconds since 1970 UTC), actor, reason, request_id,
                request_digest, result, payload, as UTF-8, joined by the unit separator 0x1F

No field but the payload's JSON (which escapes control characters) comes from outside unchecked: `submit`
refuses control characters in actor, reason and request id, so two different entries never have the same
canonical bytes. The same rule is written once more in SQL (`postgres/queries.sql`, `verify`); a contract
test holds them together.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from control_plane.app.ports import BadRecord, Record

_UNIX_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def record_hash(
    *,
    seq: int,
    epoch: int,
    kind: str,
    version: int,
    at: datetime,
    actor: str,
    reason: str,
    request_id: str,
    request_digest: str,
    result: str,
    payload: str,
    prev_hash: bytes,
) -> bytes:
    """SHA-256 of an entry's canonical bytes behind its predecessor's hash: 32 bytes."""
    microseconds = (at - _UNIX_START) // _MICROSECOND
    canonical = (
        f"{seq}\x1f{epoch}\x1f{kind}\x1f{version}\x1f{microseconds}\x1f{actor}\x1f{reason}\x1f{request_id}"
        f"\x1f{request_digest}\x1f{result}\x1f{payload}"
    )
    return sha256(prev_hash + canonical.encode()).digest()


def hash_of(record: Record) -> bytes:
    """The hash the record should carry."""
    return record_hash(
        seq=record.seq,
        epoch=record.epoch,
        kind=record.kind,
        version=record.version,
        at=record.at,
        actor=record.actor,
        reason=record.reason,
        request_id=record.request_id,
        request_digest=record.request_digest,
        result=record.result,
        payload=record.payload,
        prev_hash=record.prev_hash,
    )


def fault_of(record: Record, *, seq: int, prev_hash: bytes, version_max: int) -> str:
    """What is wrong with a record that should follow (seq, prev_hash); empty if nothing is."""
    if record.seq != seq + 1:
        return f"the entry after {seq} is {record.seq}; {record.seq - seq - 1} are missing"
    if record.prev_hash != prev_hash:
        return f"its prev_hash is not the hash of entry {seq}: an entry was changed or replaced"
    if record.hash != hash_of(record):
        return "its hash does not match its content: it was changed after it was written"
    if record.version > version_max:
        return f"{record.kind} has version {record.version}, this Runway reads up to {version_max}"
    return ""


def first_bad(
    records: Iterable[Record], *, after_seq: int, prev_hash: bytes | None, version_max: int
) -> BadRecord | None:
    """The first record that breaks the chain. `prev_hash` None: take the first record's word for it."""
    seq = after_seq
    for record in records:
        expected = record.prev_hash if prev_hash is None else prev_hash
        fault = fault_of(record, seq=seq, prev_hash=expected, version_max=version_max)
        if fault:
            return BadRecord(seq=seq + 1, fault=fault)
        seq, prev_hash = record.seq, record.hash
    return None
