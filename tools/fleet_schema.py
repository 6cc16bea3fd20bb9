"""The JSON Schema of fleet files, from the contract: names, types, rules and words from its descriptors, descriptions
from its comments.

    python -m tools.fleet_schema     write docs/fleet.schema.json and the copy that `runway schema` prints
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from runway_client.fleet_files.contract import (
    DEPENDS_ON,
    DEPENDS_ON_FIELDS,
    DURATION,
    MANIFEST,
    TIMESTAMP,
    enum_words,
    is_map,
    rules_of,
    settable,
)
from runway_client.fleet_files.scalars import SPAN_PATTERN

from tools import contract

TARGETS = (
    contract.ROOT / "docs" / "fleet.schema.json",
    contract.ROOT / "clients" / "python" / "runway_client" / "fleet_files" / "fleet.schema.json",
)
_MESSAGE_FIELDS, _NESTED, _MESSAGES, _ENUMS, _VALUES = 2, 3, 4, 5, 2
"""Field numbers in descriptor.proto, of which the paths of comments are made."""

Schema = dict[str, Any]


def comments() -> dict[str, str]:
    """Full name of a message, field, enum or enum value -> its comment, on one line."""
    with tempfile.TemporaryDirectory() as work:
        target = Path(work) / "image.binpb"
        contract.image(contract.PROTO, target)
        compiled = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    found: dict[str, str] = {}
    for file in compiled.file:
        for location in file.source_code_info.location:
            if location.leading_comments and (name := _named(file, list(location.path))):
                found[name] = " ".join(location.leading_comments.split())
    return found


def _named(file: Any, path: list[int]) -> str:
    name, at = str(file.package), file
    fields = {_MESSAGES: "message_type", _ENUMS: "enum_type"}
    while path:
        number, index, *path = path if len(path) > 1 else [0, 0]
        if number not in fields:
            return ""
        at = getattr(at, fields[number])[index]
        name += f".{at.name}"
        is_enum = isinstance(at, descriptor_pb2.EnumDescriptorProto)
        fields = {_VALUES: "value"} if is_enum else {_MESSAGE_FIELDS: "field", _NESTED: "nested_type", 4: "enum_type"}
    return name


class _Writer:
    def __init__(self, told: dict[str, str]) -> None:
        self._told = told
        self.defs: dict[str, Schema] = {}

    def message(self, message: Any) -> Schema:
        """A reference to a message; its definition is written once."""
        name = message.full_name.removeprefix("runway.v1.")
        if name not in self.defs:
            self.defs[name] = {}
            self.defs[name] = self._definition(message)
        return {"$ref": f"#/$defs/{name}"}

    def _definition(self, message: Any) -> Schema:
        properties, required = {}, []
        for name, field in settable(message).items():
            properties[name] = self._property(field)
            rules = rules_of(field)
            must = rules.required or (rules.chars_min or 0) > 0 or not rules.unspecified
            if rules.pattern is not None and not field.is_repeated and not field.has_presence:
                must = must or re.search(rules.pattern, "") is None
            if must and not field.is_repeated:
                required.append(name)
        if message.name in ("Model", "Node"):
            properties[DEPENDS_ON] = self._depends_on()
        schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
        if required:
            schema["required"] = required
        return self._described(schema, message.full_name)

    def _described(self, schema: Schema, name: str) -> Schema:
        told = self._told.get(name)
        return {"description": told, **schema} if told else schema

    def _property(self, field: Any) -> Schema:
        rules = rules_of(field)
        if is_map(field):
            inside = self._value(field.message_type.fields_by_name["value"])
            schema: Schema = {"type": "object", "additionalProperties": inside}
            if rules.items_max is not None:
                schema["maxProperties"] = rules.items_max
        elif field.is_repeated:
            schema = {"type": "array", "items": self._value(field)}
            if rules.items_max is not None:
                schema["maxItems"] = rules.items_max
        else:
            schema = self._value(field)
        return self._described(schema, field.full_name)

    def _value(self, field: Any) -> Schema:
        rules = rules_of(field)
        match field.type:
            case FieldDescriptor.TYPE_ENUM:
                return self._words(field.enum_type)
            case FieldDescriptor.TYPE_BOOL:
                return {"type": "boolean"}
            case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_INT32 | FieldDescriptor.TYPE_INT64:
                kind = "number" if field.type == FieldDescriptor.TYPE_DOUBLE else "integer"
                limits = {"minimum": rules.minimum, "exclusiveMinimum": rules.above, "maximum": rules.maximum}
                return {"type": kind, **{name: limit for name, limit in limits.items() if limit is not None}}
            case FieldDescriptor.TYPE_STRING:
                return self._text(field)
        if field.message_type.full_name == DURATION:
            return {"type": "string", "pattern": SPAN_PATTERN, "examples": ["15m", "4h", "7d", "900s"]}
        if field.message_type.full_name == TIMESTAMP:
            return {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}", "examples": ["2013-03-01T00:00:00Z"]}
        return self.message(field.message_type)

    def _text(self, field: Any) -> Schema:
        rules = rules_of(field)
        limits = {
            "enum": [word for word in rules.words if word] or None,
            "pattern": rules.pattern,
            "minLength": rules.chars_min,
            "maxLength": rules.chars_max,
        }
        return {"type": "string", **{name: limit for name, limit in limits.items() if limit is not None}}

    def _words(self, enum: Any) -> Schema:
        """Words with what each means; a tier is a number."""
        words = enum_words(enum)
        names = {value.number: value.name for value in enum.values}
        scope = enum.full_name
        choices = []
        for word, number in words.items():
            choice: Schema = {"const": int(word) if word.isdigit() else word}
            told = self._told.get(f"{scope}.{names[number]}")
            choices.append({**choice, "description": told} if told else choice)
        if any("description" in choice for choice in choices):
            return {"oneOf": choices}
        return {"enum": [choice["const"] for choice in choices]}

    def _depends_on(self) -> Schema:
        fields = settable(MANIFEST.fields_by_name["dependencies"].message_type)
        item = {
            "type": "object",
            "additionalProperties": False,
            "properties": {short: self._property(fields[full]) for short, full in DEPENDS_ON_FIELDS.items()},
            "required": ["upstream"],
        }
        upstream = self._value(fields["upstream_id"])
        return {
            "description": "What it depends on: `feature:temp`, or the upstream with type, pinned and note.",
            "type": "array",
            "items": {"anyOf": [upstream, item]},
        }


def schema() -> str:
    """The JSON Schema as text; the same contract gives the same text."""
    writer = _Writer(comments())
    kinds = {field.name: {"type": "array", "items": writer.message(field.message_type)} for field in MANIFEST.fields}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A file of a Runway fleet",
        "description": "What people declare; any file may hold any kinds. `runway apply DIR` applies all of them.",
        "type": "object",
        "additionalProperties": False,
        "properties": kinds,
        "$defs": dict(sorted(writer.defs.items())),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write it; exit code 0."""
    text = schema()
    for target in TARGETS:
        target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
