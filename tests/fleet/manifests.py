"""Generated manifests: whatever the contract lets people declare, with texts that YAML likes to misread."""

import math
from typing import Any

from buf.validate import validate_pb2  # noqa: F401 (registers the rules)
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from runway_client import messages
from runway_client.fleet_files.contract import DURATION, TIMESTAMP, enum_words, is_map, rules_of, settable, usual_type
from runway_client.fleet_files.reading import key_of

NASTY = [
    "no", "No", "yes", "on", "y", "~", "null", "true", "2013-03-01", "2013-03-01T12:00:00Z", "1e3", "1e-7",
    "0x1f", "012", "1_000", "1:30", ".inf", "-", "- a", "a: b", "a #b", "#", "'", '"', "%", "@a", "`", "&a",
    "*a", "!x", "{", "[", "|", ">", "a\nb", "a\nb\n", "a\n\nb", "\na", " a", "a ", "a\n b", "a\tb\nc", "\ttab",
    "a\r\nb", "\x85", "\u2028", "\ufeff", "\x07", "é 東京 🛫", "<<", "=", "---", "...", "? a", ": a", "a:", ":a",
    "\x00", "\ud7ff", "a\n---\nb", "a\n...\n", "x" * 300,
]  # fmt: skip
SLUGS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
TEXT = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
SPANS = st.builds(
    lambda seconds, nanos, sign: Duration(seconds=sign * seconds, nanos=sign * nanos),
    st.one_of(st.integers(0, 10_000_000), st.sampled_from([60, 900, 3600, 86400, 604800])),
    st.sampled_from([0, 0, 0, 1, 500_000_000, 123_456_789]),
    st.sampled_from([1, 1, 1, -1]),
)
TIMES = st.builds(
    Timestamp,
    seconds=st.integers(-62_135_596_800, 253_402_300_799),
    nanos=st.sampled_from([0, 0, 1, 999_999_999, 250_000_000]),
)


def _numbers(field: Any) -> "st.SearchStrategy[float]":
    rules = rules_of(field)
    low = rules.minimum if rules.minimum is not None else rules.above
    return st.floats(
        min_value=low,
        max_value=rules.maximum,
        exclude_min=rules.above is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def _scalar(field: Any) -> "st.SearchStrategy[Any]":
    rules = rules_of(field)
    match field.type:
        case FieldDescriptor.TYPE_ENUM:
            return st.sampled_from(sorted(enum_words(field.enum_type).values()))
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_DOUBLE:
            return _numbers(field)
        case FieldDescriptor.TYPE_INT32 | FieldDescriptor.TYPE_INT64:
            return st.integers(int(rules.minimum or 0), int(rules.maximum if rules.maximum is not None else 2**31 - 1))
    if rules.words:
        return st.sampled_from(rules.words)
    if rules.pattern is not None:
        return SLUGS
    size_max = rules.chars_max or math.inf
    return TEXT.filter(lambda text: (rules.chars_min or 0) <= len(text) <= size_max)


@st.composite
def messages_of(draw: Any, kind: Any) -> Any:
    """A message with any of its fields set."""
    message = kind()
    for name, field in settable(kind.DESCRIPTOR).items():
        rules = rules_of(field)
        must = rules.required or rules.chars_min or not rules.unspecified or (rules.pattern and not field.is_repeated)
        if not must and draw(st.booleans()):
            continue
        if is_map(field):
            inside = field.message_type.fields_by_name["value"]
            for key in draw(st.lists(TEXT, max_size=3, unique=True)):
                getattr(message, name)[key] = draw(_scalar(inside))
        elif field.is_repeated and field.message_type is not None:
            for _ in range(draw(st.integers(0, 2))):
                getattr(message, name).add().CopyFrom(draw(messages_of(field.message_type._concrete_class)))
        elif field.is_repeated:
            getattr(message, name).extend(draw(st.lists(_scalar(field), max_size=3, unique=True)))
        elif field.message_type is None:
            setattr(message, name, draw(_scalar(field)))
        elif field.message_type.full_name in (DURATION, TIMESTAMP):
            of = SPANS if field.message_type.full_name == DURATION else TIMES
            getattr(message, name).CopyFrom(draw(of))
        else:
            getattr(message, name).CopyFrom(draw(messages_of(field.message_type._concrete_class)))
    return message


@st.composite
def manifests(draw: Any) -> messages.Manifest:
    """A manifest in its order, that names nothing twice; not necessarily one that a control plane accepts."""
    manifest = messages.Manifest()
    for scope in draw(st.sets(st.one_of(st.sampled_from(["fleet", "tier:1", "tier:4"]), SLUGS.map("team:{}".format)))):
        layer = draw(messages_of(messages.PolicyLayer))
        layer.scope = scope
        manifest.policies.append(layer)
    for scope, name in draw(st.sets(st.tuples(st.sampled_from(["fleet", "tier:1", "team:a"]), SLUGS), max_size=3)):
        rule = draw(messages_of(messages.Rule))
        rule.scope, rule.name = scope, name
        manifest.rules.append(rule)
    node_ids = draw(st.sets(st.builds("{}:{}".format, st.sampled_from(["dataset", "feature", "consumer"]), SLUGS)))
    for node_id in node_ids:
        node = draw(messages_of(messages.Node))
        node.node_id = node_id
        manifest.nodes.append(node)
    model_ids = draw(st.sets(SLUGS, max_size=3))
    for model_id in model_ids:
        model = draw(messages_of(messages.Model))
        model.model_id = model_id
        manifest.models.append(model)
    ends = sorted({*node_ids, *(f"model:{model_id}" for model_id in model_ids), "feature:elsewhere"})
    edges = {}
    for upstream, downstream in draw(st.lists(st.tuples(st.sampled_from(ends), st.sampled_from(ends)), max_size=6)):
        edge = draw(messages_of(messages.Dependency))
        edge.upstream_id, edge.downstream_id = upstream, downstream
        edge.type = edge.type or usual_type(upstream, downstream)
        edges[key_of("dependencies", edge)] = edge
    manifest.dependencies.extend(edges.values())
    return in_order(manifest)


def in_order(manifest: messages.Manifest) -> messages.Manifest:
    """The same manifest in the order in which files are read and fleets exported."""
    found = messages.Manifest()
    for kind in ("policies", "rules", "nodes", "models", "dependencies"):
        getattr(found, kind).extend(sorted(getattr(manifest, kind), key=lambda one: key_of(kind, one)))
    return found
