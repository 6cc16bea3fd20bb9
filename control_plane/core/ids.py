"""Identifiers: one type and one parser each; nothing else builds one from outside input.

Slugs are what Dagster accepts in op and asset keys (`[A-Za-z0-9_]+`), narrowed to lower case so that two
models never differ by case alone.
"""

import re
import unicodedata
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
SLUG_CHAR = re.compile(r"[a-z0-9_]")
SLUG_CHARS_MAX = 100

LOOK_ALIKES = {
    chr(code): plain
    for plain, codes in {
        "a": (0x430, 0x3B1),
        "b": (0x432, 0x44C),
        "c": (0x441, 0x3F2),
        "d": (0x501,),
        "e": (0x435, 0x3B5),
        "h": (0x4BB, 0x43D),
        "i": (0x456, 0x3B9),
        "j": (0x458, 0x3F3),
        "k": (0x43A, 0x3BA),
        "l": (0x4CF, 0x269),
        "m": (0x43C,),
        "n": (0x3B7,),
        "o": (0x43E, 0x3BF),
        "p": (0x440, 0x3C1),
        "s": (0x455,),
        "t": (0x442, 0x3C4),
        "u": (0x3C5,),
        "v": (0x3BD, 0x475),
        "w": (0x51D,),
        "x": (0x445, 0x3C7),
        "y": (0x443, 0x3B3),
        "_": (0x2013, 0x2014, 0x203F),
    }.items()
    for code in codes
}
"""Cyrillic and Greek letters, and dashes, that people take for the ones that an id is made of."""

NODE_KINDS = ("dataset", "feature", "model", "consumer")
REQUEST_ID_CHARS_MAX = 128
"""Long enough for a UUID with a prefix; short enough to index."""


def _culprit(text: str) -> str:
    """Which character is to blame, by name: many look like a letter that would do. Empty if none is, but the length.

    The message stays ASCII: it goes through trailers, where anything else takes nine bytes a character.
    """
    for place, char in enumerate(text[: SLUG_CHARS_MAX + 1], start=1):
        if SLUG_CHAR.fullmatch(char) and (place > 1 or char.isalpha()):
            continue
        if char.isascii():
            looks = f"{char!r}" + (", which is upper case" if char.isupper() else "")
        else:
            plain = LOOK_ALIKES.get(char) or unicodedata.normalize("NFKD", char)[:1].casefold()
            looks = unicodedata.name(char, f"U+{ord(char):04X}")
            if SLUG_CHAR.fullmatch(plain):
                looks += f", which only looks like {plain!r}"
        return f", its {_ordinal(place)} character is {looks}"
    return ", it is empty" if not text else f", it has {len(text)} characters"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def parse_slug(text: str, field: str) -> str:
    """Return `text` if it is a slug, else raise `Invalid` naming the field and the remedy."""
    if not SLUG.fullmatch(text):
        raise Invalid(
            Reason.INVALID_ID,
            Violation(
                field=field,
                rule="slug",
                message=f"{text[:60]!a} is not an id{_culprit(text)}: "
                "use a lower-case letter, then up to 99 of a-z 0-9 _",
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
                message=f"{text[:60]!a} is not a node id: write kind:name with kind one of {', '.join(NODE_KINDS)}",
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
