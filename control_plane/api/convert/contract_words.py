"""What the rules of the contract say to people: what is wrong with this value, and what to write instead.

protovalidate says `does not match regex pattern` and `must not be in list [0]`, which is true and helps nobody. The
rule keeps its name; only the sentence is ours. A rule without words here is told as protovalidate tells it.
"""

from collections.abc import Sized
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from control_plane.core.errors import Invalid
from control_plane.core.ids import SLUG, parse_node_id, parse_slug

NODE_ID_PATTERN = f"^(dataset|feature|model|consumer):{SLUG.pattern}$"
OTHER_PATTERNS = {
    f"^(fleet|tier:[1-4]|team:{SLUG.pattern}|model:{SLUG.pattern})$": (
        "{value!a} is no scope: write fleet, tier:1 to tier:4, team:<team> or model:<model id>"
    ),
    f"^$|^v[1-9][0-9]*$|^{SLUG.pattern}$": (
        "{value!a} is neither a version nor an alias: write v3 or production, or leave it out"
    ),
    "^[0-9a-f]{64}$": "{value!a} is no sha256: write 64 lower-case hex digits, what sha256sum prints",
}
VALUE_CHARS_MAX = 120


def sentence(whole: Message, violation: Any) -> str:
    """The sentence of a protovalidate violation of a message, without the name of the field."""
    message = cast("Descriptor", whole.DESCRIPTOR)
    rule, value, said = violation.proto.rule_id, violation.field_value, violation.rule_value
    plain: str = violation.proto.message
    match rule.split("."):
        case ["string", "pattern"]:
            return _pattern(value, said) or plain
        case ["enum", _]:
            enum = _enum_of(message, violation)
            return _one_of(enum, value, said if rule == "enum.in" else ()) if enum is not None else plain
        case ["string", "min_len"] if not value:
            return "it is empty: write something"
        case ["string", "max_len"]:
            return f"it has {len(value):,} characters: use at most {said:,}"
        case ["repeated" | "map", "max_items" | "max_pairs"] if isinstance(value, Sized):
            return f"it has {len(value):,} entries: {said:,} are the most"
        case ["required"]:
            choices = _choices(message, violation)
            return f"say exactly one of {', '.join(choices)}" if choices else "it is missing: it must be said"
        case [("int32" | "int64" | "double"), _]:
            return f"{value} {plain}"
        case _:
            return plain


def _pattern(value: str, pattern: str) -> str:
    shown = value[:VALUE_CHARS_MAX]
    if pattern in OTHER_PATTERNS:
        return OTHER_PATTERNS[pattern].format(value=shown)
    try:
        if pattern == f"^{SLUG.pattern}$":
            parse_slug(value, "")
        elif pattern == NODE_ID_PATTERN:
            parse_node_id(value, "")
    except Invalid as error:
        return error.violations[0].message
    return ""


def _one_of(enum: EnumDescriptor, value: int, allowed: Any) -> str:
    """Zero is what a field is that was not said; no list offers it."""
    numbers = sorted(allowed) or sorted(number for number in enum.values_by_number if number)
    names = ", ".join(enum.values_by_number[number].name for number in numbers)
    known = enum.values_by_number.get(value)
    wrong = "it is missing" if not value else f"{known.name if known else value} cannot be meant"
    return f"{wrong}: write one of {names}"


def _fields(message: Descriptor, violation: Any) -> list[FieldDescriptor]:
    """The fields on the way to what is wrong; shorter than the way if it ends in a oneof."""
    found: list[FieldDescriptor] = []
    at: Descriptor | None = message
    for element in violation.proto.field.elements:
        field = at.fields_by_name.get(element.field_name) if at is not None else None
        if field is None:
            break
        found.append(field)
        at = field.message_type
    return found


def _enum_of(message: Descriptor, violation: Any) -> EnumDescriptor | None:
    fields = _fields(message, violation)
    return fields[-1].enum_type if fields else None


def _choices(message: Descriptor, violation: Any) -> list[str]:
    """The fields of a oneof of which none was said; empty if it is no oneof that is required."""
    elements, fields = violation.proto.field.elements, _fields(message, violation)
    if not elements or len(fields) == len(elements):
        return []
    owner = fields[-1].message_type if fields else message
    oneof = owner.oneofs_by_name.get(elements[-1].field_name) if owner is not None else None
    return [field.name for field in oneof.fields] if oneof is not None else []
