"""Reads values out of decoded JSON of any shape, and keeps all that is wrong instead of stopping at the first."""

from collections.abc import Mapping

from control_plane.api.openlineage import limits
from control_plane.core.errors import Violation

KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}

QUOTED_CHARS_MAX = 60
"""Of what was sent, in an answer."""


class Reading:
    """One event under way; `found` is what is wrong with it so far. Fields are named from the event's root."""

    def __init__(self, root: str = "") -> None:
        self._root = root
        self.found: list[Violation] = []

    def wrong(self, field: str, rule: str, message: str) -> None:
        """Note a broken rule."""
        joint = "." if self._root and field else ""
        self.found.append(Violation(field=f"{self._root}{joint}{field}", rule=rule, message=message))

    @staticmethod
    def kind(value: object) -> str:
        """What a value is, in words."""
        return KINDS.get(type(value), "a number")

    def part(self, parent: Mapping[str, object], key: str, where: str) -> Mapping[str, object]:
        """A required object; empty if it is not there or not one, which is noted."""
        value = parent.get(key)
        field = _under(where, key)
        if isinstance(value, Mapping):
            if not value:
                self.wrong(field, "required", "is empty")
            return value
        if value is None:
            self.wrong(field, "required", "is missing; send an object")
        else:
            self.wrong(field, "type", f"is {self.kind(value)}; send an object")
        return {}

    def text(
        self, parent: Mapping[str, object], key: str, where: str, *, chars_max: int, required: bool = False
    ) -> str:
        """A text that people and databases can take; empty if it is not, which is noted."""
        value = parent.get(key)
        field = _under(where, key)
        if value is None:
            if required:
                self.wrong(field, "required", "is missing; send a text")
            return ""
        if not isinstance(value, str):
            self.wrong(field, "type", f"is {self.kind(value)}; send a text")
            return ""
        if required and not value.strip():
            self.wrong(field, "required", "is empty; send a text")
            return ""
        if len(value) > chars_max:
            self.wrong(field, "length", f"{len(value)} characters; at most {chars_max}")
            return ""
        if not is_clean(value):
            self.wrong(
                field,
                "characters",
                f"{value[:QUOTED_CHARS_MAX]!r} has control characters or lone surrogates; send it without",
            )
            return ""
        return value

    def qualified(self, thing: Mapping[str, object], where: str) -> str:
        """`namespace/name` of a job or a dataset; empty if one of them is wrong."""
        namespace = self.text(thing, "namespace", where, required=True, chars_max=limits.NAME_CHARS_MAX)
        name = self.text(thing, "name", where, required=True, chars_max=limits.NAME_CHARS_MAX)
        if not namespace or not name:
            return ""
        if len(namespace) + len(name) > limits.NAME_CHARS_MAX:
            self.wrong(
                where,
                "length",
                f"namespace and name have {len(namespace) + len(name)} characters; at most {limits.NAME_CHARS_MAX}",
            )
            return ""
        return f"{namespace}/{name}"


def is_clean(text: str) -> bool:
    """Whether a text has no control characters and no lone surrogates."""
    return text.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) <= 0xDFFF for c in text)


def facets_of(reading: Reading, thing: Mapping[str, object], where: str) -> Mapping[str, object]:
    """The facets of a dataset; none is fine, something else than an object is not."""
    facets = thing.get("facets")
    if facets is None:
        return {}
    if not isinstance(facets, Mapping):
        reading.wrong(f"{where}.facets", "type", f"is {reading.kind(facets)}; send an object")
        return {}
    return facets


def facet(facets: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A facet; empty if it is not there, was deleted, or is no object."""
    found = facets.get(name)
    return found if isinstance(found, Mapping) and found.get("_deleted") is not True else {}


def _under(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
