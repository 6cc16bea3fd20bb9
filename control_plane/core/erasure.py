"""Receipts of erasures: what was found in which layer, that nothing is left, and of which ids, without naming one.

The receipt's hash is over its own words, so that whoever holds one can show that the log holds the same; the ids' hash
shows to whoever knows the ids that they were these.
"""

import hashlib
from datetime import datetime

import msgspec

RECEIPTS_MAX = 10_000
"""Receipts kept at hand; older ones are in the log."""


class LayerReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one layer, and what a second search found."""

    layer: str
    found: int
    left: int
    files_rewritten: int = 0
    note: str = ""


class ErasureReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """An erasure as it is kept."""

    erasure_id: str
    erased_at: datetime
    actor: str
    reason: str
    prediction_ids: int
    ids_sha256: str
    layers: tuple[LayerReceipt, ...]
    receipt_sha256: str
    revision: int = 0


def receipt_sha256(
    erasure_id: str,
    erased_at: datetime,
    actor: str,
    reason: str,
    prediction_ids: int,
    ids_sha256: str,
    layers: tuple[LayerReceipt, ...],
) -> str:
    """SHA-256 over a line for each field, then one for each layer, as UTF-8; instants in microseconds since 1970."""
    lines = [
        erasure_id,
        str(round(erased_at.timestamp() * 1_000_000)),
        actor,
        reason,
        str(prediction_ids),
        ids_sha256,
        *(f"{one.layer}\t{one.found}\t{one.left}\t{one.files_rewritten}\t{one.note}" for one in layers),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
