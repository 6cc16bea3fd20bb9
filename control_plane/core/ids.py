"""Identifiers: one type and one parser each; nothing else builds one from outside input.

Slugs are what Dagster accepts in op and asset keys (`[A-Za-z0-9_]+`), narrowed to lower case so that two
models never differ by case alone.
"""

import re
from typing import NewType

from control_plane.core.errors import Invalid, Reason, Violation

ModelId = NewType("ModelId", str)
NodeId = NewType("NodeId", str)
"""Global id of a graph node, `kind:slug`: `model:arrival_delay_jfk`, `dataset:weather`."""

RetrainId = NewType("RetrainId", str)
AttemptId = NewType("AttemptId", str)
RolloutId = NewType("RolloutId", str)
LeaseToken = NewType("LeaseToken", str)
RequestId = NewType("RequestId", str)
TeamId = NewType("TeamId", str)

SLUG = re.compile(r"[a-z][a-z0-9_]{0,99}")
NODE_KINDS = ("dataset", "feature", "model", "consumer")
REQUEST_ID_CHARS_MAX = 128
"""Long enough for a UUID with a prefix; short enough to index."""


def parse_slug(text: str, field: str) -> str:
    """Return `text` if it is a slug, else raise `Invalid` naming the field and the remedy."""
    if not SLUG.fullmatch(text):
        raise Invalid(
            Reason.INVALID_ID,
            Violation(
                field=field,
                rule="slug",
                message=f"{text[:120]!r} is not an id: use a lower-case letter, then up to 99 of a-z 0-9 _",
            ),
        )
    return text


def parse_model_id(text: str, field: str = "model_id") -> ModelId:
    """Parse a model id; a node id `model:slug` is accepted too, since people paste those."""
    return ModelId(parse_slug(text.removeprefix("model:"), field))


def parse_team(text: str, field: str = "team") -> TeamId:
    """Parse a team slug."""
    return TeamId(parse_slug(text, field))


def parse_node_id(text: str, field: str = "node_id") -> NodeId:
    """Parse `kind:slug`; the kind is one of dataset, feature, model, consumer."""
    kind, colon, slug = text.partition(":")
    if not colon or kind not in NODE_KINDS:
        raise Invalid(
            Reason.INVALID_ID,
            Violation(
                field=field,
                rule="node_id",
                message=f"{text[:120]!r} is not a node id: write kind:name with kind one of {', '.join(NODE_KINDS)}",
            ),
        )
    parse_slug(slug, field)
    return NodeId(text)


def model_node(model_id: ModelId) -> NodeId:
    """The graph node of a model."""
    return NodeId(f"model:{model_id}")


def node_kind(node_id: NodeId) -> str:
    """`dataset`, `feature`, `model` or `consumer`."""
    return node_id.partition(":")[0]


def node_name(node_id: NodeId) -> str:
    """The slug behind the kind."""
    return node_id.partition(":")[2]
