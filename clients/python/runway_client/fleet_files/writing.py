"""A Manifest -> YAML files: one for each model, with what it depends on; one for each other kind.

The same manifest gives the same bytes. What the server sets is left out, and so is everything that is not said.
"""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from runway.v1 import fleet_pb2, graph_pb2

from runway_client.fleet_files.contract import (
    DEPENDS_ON,
    DEPENDS_ON_FIELDS,
    DURATION,
    TIMESTAMP,
    enum_words,
    is_map,
    settable,
    usual_type,
)
from runway_client.fleet_files.finding import SUFFIXES
from runway_client.fleet_files.reading import key_of
from runway_client.fleet_files.scalars import number_text, span_text, time_text
from runway_client.fleet_files.yaml_text import Writable, Written, dump

SCHEMA_FILE = "fleet.schema.json"
NODE_FILES = {"dataset": "datasets.yaml", "feature": "features.yaml", "consumer": "consumers.yaml"}


def render(manifest: fleet_pb2.Manifest, schema: str = SCHEMA_FILE) -> dict[str, str]:
    """The files of a fleet: path below the directory -> text.

    Args:
        schema: where an editor finds the JSON Schema, from the directory of the files; a URL stays as it is.
    """
    upstream: dict[str, list[graph_pb2.Dependency]] = defaultdict(list)
    for one in sorted(manifest.dependencies, key=lambda one: key_of("dependencies", one)):
        upstream[one.downstream_id].append(one)
    files: dict[str, dict[str, list[Writable]]] = defaultdict(lambda: defaultdict(list))
    for layer in sorted(manifest.policies, key=lambda one: key_of("policies", one)):
        files["policies.yaml"]["policies"].append(_message(layer))
    for rule in sorted(manifest.rules, key=lambda one: key_of("rules", one)):
        files["rules.yaml"]["rules"].append(_message(rule))
    for node in sorted(manifest.nodes, key=lambda one: key_of("nodes", one)):
        file = NODE_FILES.get(node.node_id.partition(":")[0], "nodes.yaml")
        files[file]["nodes"].append(_with_upstream(node, upstream.pop(node.node_id, ())))
    for model in sorted(manifest.models, key=lambda one: key_of("models", one)):
        entry = _with_upstream(model, upstream.pop(f"model:{model.model_id}", ()))
        files[f"models/{model.model_id}.yaml"]["models"].append(entry)
    for _, rest in sorted(upstream.items()):
        files["dependencies.yaml"]["dependencies"].extend(_dependency(one) for one in rest)
    return {path: _text(path, dict(kinds), schema) for path, kinds in sorted(files.items())}


def _text(path: str, kinds: dict[str, Any], schema: str) -> str:
    local = "://" not in schema
    where = f"{'../' * path.count('/')}{schema}" if local else schema
    return f"# yaml-language-server: $schema={where}\n{dump(kinds)}"


def _with_upstream(message: Message, upstream: Any) -> Writable:
    entry = _message(message)
    if upstream:
        entry[DEPENDS_ON] = [_upstream(one) for one in upstream]
    return entry


def _upstream(dependency: graph_pb2.Dependency) -> Writable:
    """An item of `depends_on`: only the upstream if all else is as usual."""
    if dependency.type == usual_type(dependency.upstream_id, dependency.downstream_id):
        if not dependency.pinned and not dependency.note:
            return str(dependency.upstream_id)
        bare = graph_pb2.Dependency()
        bare.CopyFrom(dependency)
        bare.ClearField("type")
        dependency = bare
    said = _message(dependency)
    return {short: said[full] for short, full in DEPENDS_ON_FIELDS.items() if full in said}


def _dependency(dependency: graph_pb2.Dependency) -> Writable:
    return _message(dependency)


def _message(message: Message) -> dict[str, Writable]:
    """What a message says, in the order of the contract."""
    found: dict[str, Writable] = {}
    for name, field in settable(message.DESCRIPTOR).items():
        value = getattr(message, name)
        if is_map(field):
            if value:
                inside = field.message_type.fields_by_name["value"]
                found[name] = {key: _scalar(value[key], inside) for key in sorted(value)}
        elif field.is_repeated:
            if value:
                found[name] = [_value(one, field) for one in value]
        elif message.HasField(name) if field.has_presence else value:
            found[name] = _value(value, field)
    return found


def _value(value: Any, field: FieldDescriptor) -> Writable:
    if field.message_type is None:
        return _scalar(value, field)
    match field.message_type.full_name:
        case name if name == DURATION:
            return Written(span_text(value))
        case name if name == TIMESTAMP:
            return Written(time_text(value))
        case _:
            return _message(value)


def _scalar(value: Any, field: FieldDescriptor) -> Writable:
    if field.type == FieldDescriptor.TYPE_ENUM:
        words = {number: word for word, number in enum_words(field.enum_type).items()}
        return Written(words[value])
    if field.type == FieldDescriptor.TYPE_BOOL:
        return Written("true" if value else "false")
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return Written(number_text(value))
    return Written(str(value)) if isinstance(value, int) else str(value)


class StrayFiles(Exception):
    """The directory has YAML files that would not be written: what they say would still apply."""

    def __init__(self, files: list[str]) -> None:
        super().__init__(f"{len(files)} YAML files here are not of this fleet: {', '.join(files[:5])}")
        self.files = files


def write_fleet(
    manifest: fleet_pb2.Manifest,
    directory: str | os.PathLike[str],
    *,
    schema: str = SCHEMA_FILE,
    clean: bool = False,
) -> list[str]:
    """Write the files of a fleet; the paths written. With `clean`, YAML files of anything else are removed.

    Raises:
        StrayFiles: there are such files, and nobody said to remove them; nothing was written.
        OSError: the directory cannot be written.
    """
    root = Path(directory)
    files = render(manifest, schema)
    stray = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix in SUFFIXES
        and path.relative_to(root).as_posix() not in files
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if stray and not clean:
        raise StrayFiles(stray)
    for name in stray:
        (root / name).unlink()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return list(files)
