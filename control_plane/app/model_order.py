"""In which order models are listed, and where a page ends: sort keys and page tokens.

A token carries a digest of the query and the sort key of the last row shown. The next page begins behind that key,
wherever rows have come or gone since.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.ids import ModelId
from control_plane.core.registry.types import Lifecycle
from control_plane.core.staleness.verdict import Evaluation, Level
from control_plane.core.state import ModelRecord

VERDICT_ORDER = {Level.STALE: 0, Level.AT_RISK: 1, Level.UNKNOWN: 2, Level.FRESH: 3}
LIFECYCLE_ORDER = {one: number for number, one in enumerate(Lifecycle)}
NUMBERS = frozenset({"tier", "verdict", "score", "registered_at", "updated_at", "lifecycle"})
"""Keys whose values are numbers; the others are text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a query needs to know beside the state."""

    now: datetime
    latest: Mapping[ModelId, Evaluation] = field(default_factory=dict)
    """The latest look at each model; the past has none but those that changed a verdict."""
    last_predictions: Mapping[str, datetime] = field(default_factory=dict)


def _score(record: ModelRecord, facts: Facts) -> float:
    latest = facts.latest.get(record.model_id)
    shown = latest if latest is not None and latest.version == record.standing.version else record.standing.evaluation
    return shown.score if shown is not None else -1.0


def _microseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1_000_000)


KEYS: dict[str, Callable[[ModelRecord, Facts], Any]] = {
    "model_id": lambda record, _: str(record.facts.model_id),
    "tier": lambda record, _: record.facts.tier,
    "team": lambda record, _: str(record.facts.team),
    "owner": lambda record, _: record.facts.owner,
    "verdict": lambda record, _: VERDICT_ORDER[record.standing.level],
    "score": _score,
    "registered_at": lambda record, _: _microseconds(record.registered_at),
    "updated_at": lambda record, _: _microseconds(record.updated_at),
    "lifecycle": lambda record, _: LIFECYCLE_ORDER[record.lifecycle],
}
"""What can be sorted by. Verdicts go from the worst to the best; a model without a score comes before all others."""

Order = tuple[tuple[str, bool], ...]
"""Keys, each with whether it goes down."""


def parse_order(text: str) -> Order:
    """Read `tier, score desc`. The model id breaks ties. Raises `Invalid` with every part that is no key.

    >>> parse_order("tier, score desc")
    (('tier', False), ('score', True), ('model_id', False))
    """
    found: list[tuple[str, bool]] = []
    wrong: list[str] = []
    for part in text.split(",") if text.strip() else []:
        match part.split():
            case [key] if key in KEYS:
                found.append((key, False))
            case [key, ("asc" | "desc") as way] if key in KEYS:
                found.append((key, way == "desc"))
            case _:
                wrong.append(
                    f"{part.strip()[:50]!r} is no key: each is one of {', '.join(KEYS)}, then ` desc` or nothing"
                )
    names = [key for key, _ in found]
    wrong += [f"{key} is named twice" for key in sorted({key for key in names if names.count(key) > 1})]
    if wrong:
        raise Invalid(
            Reason.INVALID_ARGUMENT, *(Violation(field="order_by", rule="order", message=one) for one in wrong)
        )
    if "model_id" not in names:
        found.append(("model_id", False))
    return tuple(found)


def sort_key(record: ModelRecord, facts: Facts, order: Order) -> list[Any]:
    """Where a model stands in an order."""
    return [KEYS[name](record, facts) for name, _ in order]


def behind(key: Sequence[Any], last: Sequence[Any], order: Order) -> bool:
    """Does a row with this key come after one with the last key?"""
    for value, shown, (_, down) in zip(key, last, order, strict=True):
        if value != shown:
            return bool(value < shown) if down else bool(value > shown)
    return False


def token_of(digest: bytes, key: Sequence[Any]) -> str:
    """The token of a page that ends at this key."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode([digest[:8], list(key)])).decode().rstrip("=")


def last_key(token: str, digest: bytes, order: Order) -> list[Any]:
    """The sort key in a token. Raises `Invalid` for what is no token, or one of another query."""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        made_for, key = msgspec.msgpack.decode(raw, type=tuple[bytes, list[str | int | float]])
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise _bad_token("not a token of this list: use next_page_token of the page before") from error
    if made_for != digest[:8]:
        raise _bad_token("it belongs to another query: keep filters and order while paging, or begin without a token")
    if len(key) != len(order) or any(
        isinstance(value, str) is (name in NUMBERS) for value, (name, _) in zip(key, order, strict=True)
    ):
        raise _bad_token("not a token of this list: use next_page_token of the page before")
    return key


def _bad_token(message: str) -> Invalid:
    return Invalid(Reason.INVALID_ARGUMENT, Violation(field="page.page_token", rule="token", message=message))
