"""Prediction ids: the hour is in the id, so an outcome finds its partition by arithmetic.

A prediction id is 128 bits, and all of them are joined on. A UUIDv7 (RFC 9562) begins with 48 bits of Unix
milliseconds; any other id still works, it only carries no time and takes the slow path (`NO_HOUR`).

Rows are ordered by a 64-bit key instead of 16 bytes, because sorting and searching `uint64` is eight times faster.
The key is a bijection of the low half for a given high half, so (key, high) still determines the id: equal keys
with different high halves are different ids, and the join checks that.
"""

import uuid
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

ID_BYTES = 16
MILLISECONDS_PER_HOUR = 3_600_000
MICROSECONDS_PER_HOUR = 3_600_000_000
NO_HOUR = -1
"""Hour of an id that carries no time. No real hour is negative: instants before 1970 are refused."""

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class IdColumns:
    """Ids as two columns of shape (n,): `key` to sort and search by, `high` (8 bytes) to tell equal keys apart."""

    key: UInt64s
    high: UInt64s


def id_columns(ids: npt.NDArray[np.uint8]) -> IdColumns:
    """Split ids into sortable columns.

    Args:
        ids: shape (n, 16), the bytes of the ids in network order.
    """
    halves = np.ascontiguousarray(ids).view(">u8")
    high = halves[:, 0].astype(np.uint64)
    return IdColumns(halves[:, 1].astype(np.uint64) ^ (high * _MIX), high)


def id_hours(columns: IdColumns) -> Int64s:
    """Hours since 1970 in the ids, `NO_HOUR` where an id is not a UUIDv7. Shape (n,).

    >>> one = uuid.UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")  # RFC 9562, appendix A.6
    >>> columns = id_columns(np.frombuffer(one.bytes, np.uint8).reshape(1, 16))
    >>> int(id_hours(columns)[0]) == 1645557742000 // MILLISECONDS_PER_HOUR
    True
    """
    low = columns.key ^ (columns.high * _MIX)
    version_7 = (columns.high >> np.uint64(12)) & np.uint64(0xF) == np.uint64(7)
    variant_10 = low >> np.uint64(62) == np.uint64(2)
    hours = (id_instants_ms(columns) // MILLISECONDS_PER_HOUR).astype(np.int64)
    return np.where(version_7 & variant_10, hours, NO_HOUR)


def id_instants_ms(columns: IdColumns) -> Int64s:
    """The first 48 bits as Unix milliseconds; meaningful for UUIDv7 only. Shape (n,)."""
    return (columns.high >> np.uint64(16)).astype(np.int64)


def id_bytes(columns: IdColumns) -> npt.NDArray[np.uint8]:
    """The ids back, shape (n, 16); the inverse of `id_columns`."""
    halves = np.empty((len(columns.key), 2), ">u8")
    halves[:, 0] = columns.high
    halves[:, 1] = columns.key ^ (columns.high * _MIX)
    return halves.view(np.uint8).reshape(-1, ID_BYTES)


def hash_shares(columns: IdColumns) -> npt.NDArray[np.float64]:
    """A uniform number in [0, 1) per id from its random bits: keep `share < rate` to sample.

    Both sides of the join keep the same ids, whatever the rate, and a higher rate keeps all that a lower one kept.
    """
    mixed = columns.key ^ columns.high
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):  # MurmurHash3 finaliser
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(33)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hash_buckets(columns: IdColumns, buckets: int) -> Int64s:
    """Bucket 0 .. buckets - 1 of each id, by its random bits. Shape (n,)."""
    return (hash_shares(columns) * buckets).astype(np.int64)


def uuid7(instant_ms: int, random_bits: int) -> uuid.UUID:
    """A UUIDv7 of an instant from 74 random bits, which the caller draws.

    >>> uuid7(1645557742000, 0x0CC3 << 62 | 0x18C4DC0C0C07398F)
    UUID('017f22e2-79b0-7cc3-98c4-dc0c0c07398f')
    """
    rand_a, rand_b = (random_bits >> 62) & 0xFFF, random_bits & ((1 << 62) - 1)
    return uuid.UUID(int=instant_ms << 80 | 7 << 76 | rand_a << 64 | 2 << 62 | rand_b)
