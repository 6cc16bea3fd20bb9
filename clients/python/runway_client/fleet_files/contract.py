"""What the contract says about the fields of a fleet file: which there are, their words, and the rules they obey.

Everything is read from the descriptors of `Manifest`; reader, writer and JSON Schema all stand on this, so that they
cannot differ. What a file has beside the contract is `depends_on`: the upstream of a model or node, written where its
owner edits.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from runway.v1 import fleet_pb2, graph_pb2

_validate: Any = importlib.import_module("buf.validate.validate_pb2")  # generated without types

MANIFEST: Any = fleet_pb2.Manifest.DESCRIPTOR
KINDS = tuple(field.name for field in MANIFEST.fields)
"""Names at the top of a file."""

SERVER_FIELDS: Mapping[str, frozenset[str]] = {
    "runway.v1.Model": frozenset(
        [
            "registered_at",
            "updated_at",
            "etag",
            "aliases",
            "latest_version",
            "lifecycle",
            "effective_policies",
            "consuming_models",
        ]
    ),
    "runway.v1.Node": frozenset({"kind", "declared"}),
    "runway.v1.Rule": frozenset(["set_at", "set_by", "version", "revision", "etag"]),
    "runway.v1.PolicyLayer": frozenset(["version", "set_at", "set_by", "reason", "etag", "revision"]),
}
"""Set by the server: not in files."""

DEPENDS_ON = "depends_on"
DEPENDS_ON_FIELDS: Mapping[str, str] = {
    "upstream": "upstream_id",
    "type": "type",
    "pinned": "pinned",
    "note": "note",
}
"""Names in an item of `depends_on` -> fields of Dependency."""

DURATION, TIMESTAMP = "google.protobuf.Duration", "google.protobuf.Timestamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules on the values of one field, as far as a file can be held to them; None is no rule."""

    required: bool = False
    pattern: str | None = None
    chars_min: int | None = None
    chars_max: int | None = None
    words: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    finite: bool = False
    items_max: int | None = None
    unspecified: bool = True
    """May an enum be left out?"""


def settable(message: Any) -> dict[str, FieldDescriptor]:
    """Fields of a message that a file may have, in the order of the contract."""
    kept = SERVER_FIELDS.get(message.full_name, frozenset())
    return {field.name: field for field in message.fields if field.name not in kept}


def names_of(message: Any) -> list[str]:
    """Names that a file may have in the place of this message."""
    extra = [DEPENDS_ON] if message.full_name in ("runway.v1.Model", "runway.v1.Node") else []
    return [*settable(message), *extra]


@cache
def enum_words(enum: EnumDescriptor) -> dict[str, int]:
    """The words of an enum: its names without their prefix, in small letters; a tier is its number."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


def is_map(field: Any) -> bool:
    """Is the field a map from names to values?"""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


@cache
def rules_of(field: FieldDescriptor) -> Rules:
    """Rules on the field; of a list the rules on its items, with the limit on their number."""
    said = field.GetOptions().Extensions[_validate.field]
    items_max = None
    if said.HasField("repeated"):
        items_max = _given(said.repeated, "max_items")
        said = said.repeated.items
    elif said.HasField("map"):
        items_max = _given(said.map, "max_pairs")
    number: Any = next(
        (getattr(said, kind) for kind in ("double", "int32", "int64") if said.HasField(kind)),
        _validate.DoubleRules(),
    )
    return Rules(
        required=said.required,
        pattern=_given(said.string, "pattern"),
        chars_min=_given(said.string, "min_len"),
        chars_max=_given(said.string, "max_len"),
        words=tuple(getattr(said.string, "in")),
        minimum=_given(number, "gte"),
        above=_given(number, "gt"),
        maximum=_given(number, "lte"),
        finite=bool(getattr(number, "finite", False)),
        items_max=items_max,
        unspecified=0 not in said.enum.not_in,
    )


def _given(rules: Any, name: str) -> Any:
    return getattr(rules, name) if rules.HasField(name) else None


def usual_type(upstream_id: str, downstream_id: str) -> "graph_pb2.DependencyType.ValueType":
    """What a dependency is that does not say its type: what the control plane takes it for."""
    kinds = upstream_id.partition(":")[0], downstream_id.partition(":")[0]
    if kinds[0] == "model":
        return graph_pb2.DEPENDENCY_TYPE_CONSUMES_OUTPUT
    if kinds == ("dataset", "model"):
        return graph_pb2.DEPENDENCY_TYPE_TRAINED_ON
    if kinds[0] == "feature" and kinds[1] in ("model", "consumer"):
        return graph_pb2.DEPENDENCY_TYPE_READS_FEATURE
    return graph_pb2.DEPENDENCY_TYPE_DERIVED_FROM
