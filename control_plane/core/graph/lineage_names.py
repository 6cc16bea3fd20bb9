"""Ids for nodes that a source names in its own words.

The id follows from the name alone: a slug of it for people, and the first 8 hex digits of its SHA-256, so that two
names that look alike never meet and order never matters. Names are compared after Unicode normalization (NFKC): the
same name typed on two keyboards is one name. Case counts, because most sources' names are case-sensitive.
"""

import hashlib
import re
import unicodedata

from control_plane.core.graph.facts import NodeKind
from control_plane.core.ids import NodeId

SLUG_CHARS_MAX = 60
"""Of the readable part: a slug has at most 100 characters, the digits and a person's eyes need the rest."""

NOT_SLUG = re.compile(r"[^a-z0-9]+")

KIND_RANK = {NodeKind.DATASET: 0, NodeKind.CONSUMER: 1, NodeKind.FEATURE: 2, NodeKind.MODEL: 3}
"""A source that says less calls everything a dataset: of two kinds told for one name, the greater is meant."""


def normal_name(external_id: str) -> str:
    """The form in which names are compared and kept."""
    return unicodedata.normalize("NFKC", external_id).strip()


def discovered_id(external_id: str, kind: NodeKind) -> NodeId:
    """The id of a node that is known by this name only.

    >>> discovered_id("postgres://db:5432/shop.public.orders", NodeKind.DATASET)
    'dataset:shop_public_orders_0b9eda7f'
    """
    name = normal_name(external_id)
    digits = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    # What comes after the last slash is what people know it by; an address in front says little.
    readable = name.rstrip("/").rpartition("/")[2] or name
    plain = unicodedata.normalize("NFKD", readable.casefold()).encode("ascii", "ignore").decode()
    slug = NOT_SLUG.sub("_", plain).strip("_")[-SLUG_CHARS_MAX:].strip("_")
    if not slug or not slug[0].isalpha():
        slug = f"x_{slug}" if slug else "x"
    return NodeId(f"{kind.value}:{slug}_{digits}")


def greater_kind(one: NodeKind, other: NodeKind) -> NodeKind:
    """Which of two kinds told for one name is meant."""
    return max(one, other, key=KIND_RANK.__getitem__)
