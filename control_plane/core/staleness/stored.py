"""Evidence as it is stored beside a look, so that the look can be made again, bit for bit.

The bytes hold all that a look depends on: the policy, the evidence with its arrays, the time, and the version of the
rules. The same evidence gives the same bytes, so their sha256 names it.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_origin

import msgspec
import numpy as np

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.staleness.evaluation import evaluate
from control_plane.core.staleness.evidence import Evidence
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import Evaluation

RULES_VERSION = 1
"""Raised when the same evidence may give another evaluation than it gave before."""


class StoredEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that a look depends on."""

    rules: int = RULES_VERSION
    at: datetime
    policy: StalenessPolicy
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A look made again."""

    evaluation: Evaluation
    differences: tuple[str, ...]
    """Fields that are not what was recorded; empty: the two are the same, bit for bit."""
    rules: int
    """Version of the rules that made the look."""


def encode_evidence(stored: StoredEvidence) -> bytes:
    """Canonical bytes."""
    return _encoder.encode(stored)


def decode_evidence(data: bytes) -> StoredEvidence:
    """Inverse; `Invalid` if these are no such bytes."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise _broken(f"the stored evidence cannot be read: {error}") from error


def digest_of(data: bytes) -> str:
    """What names the evidence."""
    return hashlib.sha256(data).hexdigest()


def replay(data: bytes, recorded: Evaluation) -> Replay:
    """Make a look again from its evidence and compare with what was recorded.

    Raises:
        Invalid: these are not the bytes that the look stood on.
    """
    digest = digest_of(data)
    if digest != recorded.evidence_sha256:
        raise _broken(
            f"the stored evidence has sha256 {digest[:16]}..., the look stood on {recorded.evidence_sha256[:16]}...: "
            "it was changed or damaged after it was written"
        )
    stored = decode_evidence(data)
    again = msgspec.structs.replace(
        evaluate(stored.policy, stored.evidence, stored.at), evidence_sha256=recorded.evidence_sha256
    )
    differing = tuple(
        name
        for name in Evaluation.__struct_fields__
        if msgspec.msgpack.encode(getattr(again, name)) != msgspec.msgpack.encode(getattr(recorded, name))
    )
    return Replay(evaluation=again, differences=differing, rules=stored.rules)


def _broken(message: str) -> Invalid:
    return Invalid(Reason.INVALID_ARGUMENT, Violation(field="evidence", rule="sha256", message=message))


def _as_plain(value: Any) -> Any:
    """An array as (type, shape, bytes)."""
    if isinstance(value, np.ndarray):
        whole = np.ascontiguousarray(value)
        return (whole.dtype.str, list(whole.shape), whole.tobytes())
    raise NotImplementedError(f"{type(value).__name__} is no part of evidence")


def _as_array(kind: type, value: Any) -> Any:
    if (get_origin(kind) or kind) is not np.ndarray:
        raise NotImplementedError(f"{kind} is no part of evidence")
    dtype, shape, data = value
    return np.frombuffer(data, dtype).reshape(shape)


_encoder = msgspec.msgpack.Encoder(enc_hook=_as_plain)
_decoder: msgspec.msgpack.Decoder[StoredEvidence] = msgspec.msgpack.Decoder(StoredEvidence, dec_hook=_as_array)
