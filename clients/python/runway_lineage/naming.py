"""Names as a source has them, and the nodes they become."""

import re

from runway.v1 import graph_pb2, lineage_pb2

KINDS = ("dataset", "feature", "model", "consumer")
NODE_ID = re.compile(rf"({'|'.join(KINDS)}):[a-z][a-z0-9_]{{0,99}}")
_LIKE_NODE_ID = re.compile(rf"({'|'.join(KINDS)}):(?!//)", re.IGNORECASE)
EXTERNAL_ID_CHARS_MAX = 2_000
"""As in the contract."""


def name_problem(name: str) -> str:
    """What is wrong with a name that a run gives, in a sentence with the remedy; empty if nothing is.

    >>> name_problem("model:air_time"), name_problem("s3://lake/weather")
    ('', '')
    >>> name_problem("model:Air Time")
    "'model:Air Time' is not a node id: write the kind, a colon, and a name of a-z, 0-9 and _ that begins with a letter"
    """
    if not name.strip():
        return "a name is empty: leave it out"
    if len(name) > EXTERNAL_ID_CHARS_MAX:
        return f"a name has {len(name):,} characters: at most {EXTERNAL_ID_CHARS_MAX:,} are taken"
    if _LIKE_NODE_ID.match(name) and not NODE_ID.fullmatch(name):
        return (
            f"{name[:120]!r} is not a node id: write the kind, a colon, and a name of a-z, 0-9 and _ "
            "that begins with a letter"
        )
    return ""


def named_node(name: str, version: str = "") -> lineage_pb2.LineageNode:
    """The node of a name: a node id as it is, everything else is a name of the source's own.

    >>> named_node("s3://lake/weather", "7").external_id
    's3://lake/weather'
    """
    if NODE_ID.fullmatch(name):
        return lineage_pb2.LineageNode(node_id=name, version=version)
    return lineage_pb2.LineageNode(external_id=name, version=version)


def model_kind(is_model: bool) -> graph_pb2.NodeKind.ValueType:
    """The kind of a node that a source describes; unset means a dataset."""
    return graph_pb2.NODE_KIND_MODEL if is_model else graph_pb2.NODE_KIND_UNSPECIFIED
