"""What changes, for people: actions, subjects, and fields with their values as in YAML."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from control_plane.core.policies import Scalar, span_text, value_text

KINDS = ("policies", "rules", "nodes", "models", "dependencies")


class Action(StrEnum):
    """What happens to a thing."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


class FieldChange(NamedTuple):
    """One field before and after; empty text is not said."""

    field: str
    before: str
    after: str


class Change(NamedTuple):
    """One thing that changes; fields of updates only."""

    action: Action
    kind: str
    subject: str
    fields: tuple[FieldChange, ...] = ()

    @property
    def order(self) -> tuple[int, str]:
        """Policies, rules, nodes, models, dependencies; each by subject."""
        return KINDS.index(self.kind), self.subject


NAMES = {"edge_type": "type", "start": "from", "value_type": "type"}
"""Fields that the contract calls otherwise."""


def differences(before: msgspec.Struct | None, after: msgspec.Struct) -> tuple[FieldChange, ...]:
    """Fields that are not the same."""
    found = []
    for name in after.__struct_fields__:
        old, new = getattr(before, name, None), getattr(after, name)
        if old != new:
            found.append(FieldChange(NAMES.get(name, name), text(old), text(new)))
    return tuple(found)


def override_differences(before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> tuple[FieldChange, ...]:
    """Fields about which a scope says something else; empty text is inherited."""
    return tuple(
        FieldChange(path, _said(before.get(path)), _said(after.get(path)))
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    )


def _said(scalar: Scalar | None) -> str:
    return "" if scalar is None else value_text(scalar)


def text(value: Any) -> str:
    """A value as in YAML, on one line; empty for nothing.

    >>> text(("gate_desk",)), text(None), text(timedelta(hours=1))
    ('["gate_desk"]', '', '3600s')
    """
    match value:
        case None:
            return ""
        case StrEnum():
            return value.value.lower()
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float():
            return value_text(value)
        case timedelta():
            return span_text(value)
        case tuple() | dict():
            return msgspec.json.encode(_plain(value)).decode() if value else ""
        case _:
            return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {NAMES.get(name, name): _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, StrEnum):
        return value.value.lower()
    return value
