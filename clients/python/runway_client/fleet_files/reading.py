"""A directory of YAML files -> a Manifest, with all that is wrong in them, each with its place.

File boundaries have no meaning: any file may hold any kinds. The result is in one order whatever the files are called,
so that the same fleet is the same manifest.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from runway.v1 import fleet_pb2, graph_pb2

from runway_client.fleet_files.contract import (
    DEPENDS_ON,
    DEPENDS_ON_FIELDS,
    DURATION,
    KINDS,
    SERVER_FIELDS,
    TIMESTAMP,
    Rules,
    is_map,
    names_of,
    rules_of,
    settable,
    usual_type,
)
from runway_client.fleet_files.faults import number_fault, text_fault, wanted, word_of
from runway_client.fleet_files.finding import Problem, paths_below, text_of
from runway_client.fleet_files.scalars import flag_of, number_of, span_of, time_of, whole_of
from runway_client.fleet_files.yaml_text import Mapping, Place, Scalar, Sequence, Unreadable, Value, parse

_SCOPE_ORDER = {"fleet": 0, "tier": 1, "team": 2, "model": 3}


@dataclass(slots=True)
class _Entry:
    """A message with the values it was read from."""

    message: Any
    source: Value


@dataclass(slots=True)
class FleetFiles:
    """What a directory says. `manifest` is whole only if there are no problems."""

    manifest: fleet_pb2.Manifest = field(default_factory=fleet_pb2.Manifest)
    problems: list[Problem] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    _entries: dict[str, list[_Entry]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def place_of(self, path: str) -> Place | None:
        """Where a field of the manifest, as an error names it (`manifest.models[3].owner`), stands in the files."""
        found = re.match(r"(?:manifest\.)?(\w+)\[(\d+)\]\.?(.*)", path)
        if found is None or found[1] not in self._entries or int(found[2]) >= len(self._entries[found[1]]):
            return None
        source = self._entries[found[1]][int(found[2])].source
        return _inside(source, re.findall(r"[^.\[\]]+", found[3]))


def _inside(source: Value, names: list[str]) -> Place:
    for name in names:
        if isinstance(source, Sequence) and name.isdigit() and int(name) < len(source.items):
            source = source.items[int(name)]
        elif isinstance(source, Mapping):
            short = {full: short for short, full in DEPENDS_ON_FIELDS.items()}.get(name, name)
            inside = next((value for key, value in source.pairs if key.text in (name, short)), None)
            if inside is None:
                break
            source = inside
        else:
            break
    return source.place


def read_fleet(directory: str | os.PathLike[str]) -> FleetFiles:
    """Read every `*.yaml` and `*.yml` below a directory; hidden files and directories are passed over.

    Nothing is raised for what is in the files: see `problems`.
    """
    root = Path(directory)
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for path in paths_below(root, problems):
        name = path.relative_to(root).as_posix() if path != root else path.name
        text = text_of(path, name, problems)
        if text is not None:
            texts[name] = text
    if not texts and not problems:
        message = "there is no .yaml file here: `runway export` writes some"
        problems.append(Problem(place=Place(str(directory)), field="", rule="empty", message=message))
    found = read_texts(texts)
    found.problems[:0] = problems
    return found


def read_texts(texts: dict[str, str]) -> FleetFiles:
    """Read files that are in memory: name -> text."""
    found = FleetFiles(files=sorted(texts))
    reader = _Reader(found)
    for name in found.files:
        try:
            documents = parse(texts[name], name)
        except Unreadable as error:
            found.problems.append(Problem(place=error.place, field="", rule=error.rule, message=error.message))
            continue
        for document in documents:
            reader.document(document)
    _order(found)
    _refuse_repeated(found)
    found.problems.sort(key=lambda problem: (problem.place.file, problem.place.line, problem.place.column))
    return found


def key_of(kind: str, message: Any) -> tuple[Any, ...]:
    """What makes an entry this one and not another; also the order of a manifest."""
    match kind:
        case "policies":
            return (_SCOPE_ORDER.get(message.scope.partition(":")[0], 9), message.scope)
        case "rules":
            return (_SCOPE_ORDER.get(message.scope.partition(":")[0], 9), message.scope, message.name)
        case "nodes":
            return (message.node_id,)
        case "models":
            return (message.model_id,)
        case _:
            return (message.upstream_id, message.downstream_id, message.type)


def _order(found: FleetFiles) -> None:
    for kind, entries in found._entries.items():
        entries.sort(key=lambda entry: key_of(kind, entry.message))
        getattr(found.manifest, kind).extend(entry.message for entry in entries)


def subject(kind: str, message: Any) -> str:
    """An entry in words."""
    match kind:
        case "policies":
            return f"the policies of {message.scope}"
        case "rules":
            return f"rule {message.name} of {message.scope}"
        case "nodes":
            return str(message.node_id)
        case "models":
            return f"model:{message.model_id}"
        case _:
            return f"{message.upstream_id} -> {message.downstream_id}"


def _refuse_repeated(found: FleetFiles) -> None:
    for kind, entries in found._entries.items():
        for index in range(1, len(entries)):
            one, other = entries[index - 1], entries[index]
            key = key_of(kind, other.message)
            if key == key_of(kind, one.message) and key[0] != "":
                message = f"{subject(kind, other.message)} is at {one.source.place} already: keep one of them"
                place = other.source.place
                found.problems.append(Problem(place=place, field=kind, rule="unique", message=message))
    layers = {entry.message.scope: entry.source.place for entry in found._entries["policies"]}
    for entry in found._entries["models"]:
        other_place = layers.get(f"model:{entry.message.model_id}")
        if other_place is not None and entry.message.HasField("policies"):
            message = f"model:{entry.message.model_id} says policies of its own and at {other_place}: keep one of them"
            found.problems.append(Problem(place=entry.source.place, field="policies", rule="unique", message=message))


class _Reader:
    """Reads values into messages, noting problems as it goes."""

    def __init__(self, found: FleetFiles) -> None:
        self._found = found

    def _wrong(self, at: Value, field: str, rule: str, message: str) -> None:
        self._found.problems.append(Problem(place=at.place, field=field, rule=rule, message=message))

    def document(self, document: Value) -> None:
        """One document: kinds with their lists."""
        if isinstance(document, Scalar) and document.empty:
            return
        for name, value in self._pairs(document, "", list(KINDS)):
            if isinstance(value, Scalar) and value.empty:
                continue
            if not isinstance(value, Sequence):
                self._wrong(value, name, "list", f"{name} is a list: begin each entry with `- `")
                continue
            for index, item in enumerate(value.items):
                self._entry(name, item, f"{name}[{index}]")

    def _entry(self, kind: str, item: Value, path: str) -> None:
        message = getattr(fleet_pb2.Manifest(), kind).add()
        self._message(item, message, path)
        if isinstance(item, Mapping):
            if kind == "dependencies":
                self._usual(message)
            self._found._entries[kind].append(_Entry(message, item))

    def _usual(self, dependency: graph_pb2.Dependency) -> None:
        if not dependency.type:
            dependency.type = usual_type(dependency.upstream_id, dependency.downstream_id)

    def _pairs(
        self, value: Value, path: str, known: list[str], server: frozenset[str] = frozenset()
    ) -> Iterator[tuple[str, Value]]:
        """Names and values of a mapping, without those that are unknown or there twice. Those in `server` are known,
        but no remedy."""
        if not isinstance(value, Mapping):
            what = "a list" if isinstance(value, Sequence) else repr(value.text[:40])
            example = f"{known[0]}: ..." if known else "name: value"
            self._wrong(value, path, "mapping", f"names with values belong here (`{example}`), not {what}")
            return
        seen: dict[str, Place] = {}
        for name, inside in value.pairs:
            where = f"{path}.{name.text}" if path else name.text
            if name.text in seen:
                self._wrong(name, where, "unique", f"{name.text} is at line {seen[name.text].line} already: keep one")
            elif known and name.text not in known and name.text not in server:
                self._unknown(name, where, known)
            else:
                seen[name.text] = name.place
                yield name.text, inside

    def _unknown(self, name: Scalar, where: str, known: list[str]) -> None:
        near = difflib.get_close_matches(name.text, known, n=3, cutoff=0.6)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        self._wrong(name, where, "unknown_name", f"there is no {name.text[:60]!r} here: {remedy}")

    def _message(self, value: Value, message: Message, path: str) -> None:
        descriptor: Any = message.DESCRIPTOR
        fields = settable(descriptor)
        server = SERVER_FIELDS.get(descriptor.full_name, frozenset())
        said: set[str] = set()
        depends_on: Value | None = None
        for name, inside in self._pairs(value, path, names_of(descriptor), server):
            where = f"{path}.{name}"
            if name in server:
                self._wrong(inside, where, "server", f"{name} is set by the control plane: leave it out")
            elif isinstance(inside, Scalar) and inside.empty:
                continue
            elif name == DEPENDS_ON and name not in fields:
                depends_on = inside
            else:
                said.add(name)
                self._field(inside, message, fields[name], where)
        if isinstance(value, Mapping):
            self._missing(value, fields, said, path)
        if depends_on is not None:
            self._upstream(depends_on, message, f"{path}.{DEPENDS_ON}")

    def _missing(self, value: Mapping, fields: dict[str, FieldDescriptor], said: set[str], path: str) -> None:
        for name, of in fields.items():
            rules = rules_of(of)
            must = rules.required or (rules.chars_min or 0) > 0 or not rules.unspecified
            if rules.pattern is not None and not of.is_repeated and not of.has_presence:
                # One with presence may be left out: then its pattern is not asked.
                must = must or re.search(rules.pattern, "") is None
            if must and name not in said and not of.is_repeated:
                self._wrong(value, f"{path}.{name}", "required", f"{name} is missing: {wanted(of, rules)}")

    def _upstream(self, value: Value, downstream: Any, path: str) -> None:
        if not isinstance(value, Sequence):
            self._wrong(value, path, "list", "depends_on is a list: begin each entry with `- `")
            return
        is_model = downstream.DESCRIPTOR.name == "Model"
        downstream_id = f"model:{downstream.model_id}" if is_model else downstream.node_id
        for index, item in enumerate(value.items):
            dependency = graph_pb2.Dependency(downstream_id=downstream_id)
            where = f"{path}[{index}]"
            fields = graph_pb2.Dependency.DESCRIPTOR.fields_by_name
            if isinstance(item, Scalar):
                self._field(item, dependency, fields["upstream_id"], where)
            else:
                for name, inside in self._pairs(item, where, list(DEPENDS_ON_FIELDS)):
                    if not (isinstance(inside, Scalar) and inside.empty):
                        self._field(inside, dependency, fields[DEPENDS_ON_FIELDS[name]], f"{where}.{name}")
                if isinstance(item, Mapping) and not any(name.text == "upstream" for name, _ in item.pairs):
                    self._wrong(item, f"{where}.upstream", "required", "upstream is missing: write feature:temp")
            if dependency.upstream_id:
                self._usual(dependency)
                self._found._entries["dependencies"].append(_Entry(dependency, item))

    def _field(self, value: Value, message: Any, field: FieldDescriptor, path: str) -> None:
        rules = rules_of(field)
        if is_map(field):
            self._map(value, message, field, path)
        elif field.is_repeated:
            if not isinstance(value, Sequence):
                self._wrong(value, path, "list", f"{field.name} is a list: write `[...]`, or each entry after `- `")
                return
            self._count(value, len(value.items), rules, path)
            for index, item in enumerate(value.items):
                where = f"{path}[{index}]"
                if field.message_type is not None:
                    self._message(item, getattr(message, field.name).add(), where)
                elif (found := self._scalar(item, field, rules, where)) is not None:
                    getattr(message, field.name).append(found)
        elif field.message_type is None:
            if (found := self._scalar(value, field, rules, path)) is not None:
                setattr(message, field.name, found)
        elif field.message_type.full_name in _READ:
            read = _READ[field.message_type.full_name]
            if isinstance(found := self._converted(value, read, path), Message):
                getattr(message, field.name).CopyFrom(found)
        else:
            getattr(message, field.name).SetInParent()
            self._message(value, getattr(message, field.name), path)

    def _map(self, value: Value, message: Any, field: FieldDescriptor, path: str) -> None:
        inside_of = field.message_type.fields_by_name["value"]
        pairs = list(self._pairs(value, path, []))
        self._count(value, len(pairs), rules_of(field), path)
        for name, inside in pairs:
            blank = isinstance(inside, Scalar) and inside.empty and inside_of.type == FieldDescriptor.TYPE_STRING
            found = "" if blank else self._scalar(inside, inside_of, Rules(), f"{path}.{name}")
            if found is not None:
                getattr(message, field.name)[name] = found

    def _count(self, value: Value, count: int, rules: Rules, path: str) -> None:
        if rules.items_max is not None and count > rules.items_max:
            self._wrong(value, path, "count", f"{count:,} entries; at most {rules.items_max:,} fit")

    def _converted(self, value: Value, convert: Callable[[str], Any], path: str) -> Any:
        if not isinstance(value, Scalar):
            self._wrong(value, path, "scalar", "a single value belongs here, not a list or names")
            return None
        try:
            return convert(value.text)
        except (ValueError, OverflowError) as error:
            self._wrong(value, path, "value", str(error))
            return None

    def _scalar(self, value: Value, field: FieldDescriptor, rules: Rules, path: str) -> Any:
        if field.type == FieldDescriptor.TYPE_ENUM:
            return self._converted(value, lambda text: word_of(text, field), path)
        found = self._converted(value, _SCALARS[field.type], path)
        if found is None:
            return None
        fault = text_fault(found, rules) if isinstance(found, str) else number_fault(found, field, rules)
        if fault:
            self._wrong(value, path, "value", fault)
            return None
        return found


_READ: dict[str, Callable[[str], Message]] = {DURATION: span_of, TIMESTAMP: time_of}
_SCALARS: dict[int, Callable[[str], Any]] = {
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_DOUBLE: number_of,
    FieldDescriptor.TYPE_INT32: whole_of,
    FieldDescriptor.TYPE_INT64: whole_of,
    FieldDescriptor.TYPE_BOOL: flag_of,
}
