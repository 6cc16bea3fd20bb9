"""Prediction ids that say nothing of whom they are about."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

_START = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def hashed(text: str, key: bytes, at: datetime | None = None) -> bytes:
    """A prediction id (16 bytes) made of a text that only holders of a key can make again: HMAC-SHA256, cut.

    Args:
        text: whatever names the prediction with the sender, as an order number.
        key: kept by the senders of predictions and of outcomes; the control plane never sees it.
        at: when it was predicted. With it the id is a UUIDv7 that carries the instant, by which an outcome finds its
            prediction without a search; both senders must know it then. Without it the id is a UUIDv8.

    >>> hashed("order 17", b"secret") == hashed("order 17", b"secret")
    True
    >>> hashed("order 17", b"secret", datetime(2024, 1, 1, tzinfo=UTC)).hex()[:12]
    '018cc251f400'
    """
    digest = bytearray(hmac.new(key, text.encode(), hashlib.sha256).digest()[:16])
    if at is not None:
        digest[:6] = ((at - _START) // _MILLISECOND).to_bytes(6, "big")
    digest[6] = (digest[6] & 0x0F) | (0x80 if at is None else 0x70)
    digest[8] = (digest[8] & 0x3F) | 0x80
    return bytes(digest)
