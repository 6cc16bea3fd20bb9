"""YAML in and out, as much of it as a file of facts needs.

Reading goes event by event through libyaml and keeps where each thing stands. What a scalar means is left to whoever
knows the field: `no` is a word where text is expected, so that nothing changes its meaning by looking like something
else. Anchors, aliases and tags are refused: they make files that a person cannot read from the top, or that grow when
they are read. Writing gives every text a form that YAML 1.1 and 1.2 read alike.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

DEPTH_MAX = 50
"""Levels of nesting; ours are eight deep."""

LITERAL_LINE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(slots=True)
class Scalar:
    """A single value, as text. `plain`: not quoted, so that it may also mean a number, yes, or nothing."""

    place: Place
    text: str
    plain: bool

    @property
    def empty(self) -> bool:
        """Said nothing: `key:`, `key: ~` or `key: null`."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(slots=True)
class Sequence:
    """A list."""

    place: Place
    items: "list[Value]" = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """Names and values in order; a name may be there twice, which whoever reads it refuses."""

    place: Place
    pairs: "list[tuple[Scalar, Value]]" = field(default_factory=list)


Value = Scalar | Sequence | Mapping


class Unreadable(Exception):
    """Not YAML, or YAML that is not accepted here."""

    def __init__(self, place: Place, rule: str, message: str) -> None:
        super().__init__(message)
        self.place = place
        self.rule = rule
        self.message = message


def parse(text: str, file: str) -> list[Value]:
    """The documents of a file.

    Raises:
        Unreadable: with the place and the remedy.
    """
    try:
        return list(_documents(text, file))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        raise Unreadable(place, "yaml", _sentence(error, text, place)) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        place = Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        message = "a control character: YAML does not allow it; write it as an escape in double quotes"
        raise Unreadable(place, "yaml", message) from None


def _sentence(error: yaml.MarkedYAMLError, text: str, place: Place) -> str:
    problem = str(error.problem or error.context or "not YAML")
    lines = text.split("\n")
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "'\\t'" in problem or (line[: place.column].strip(" ").startswith("\t")):
        return "a tab indents this line: YAML wants spaces"
    if "mapping values are not allowed" in problem:
        return "a colon where none can be: put quotes around a text that contains one, or mend the indent"
    if "could not find expected ':'" in problem:
        return "a name without a colon: write `name: value`"
    return f"this is not YAML: {problem}"


def _documents(text: str, file: str) -> Iterator[Value]:
    open_ones: list[Sequence | Mapping] = []
    names: list[Scalar | None] = []
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            done: Value = open_ones.pop()
            names.pop()
        elif isinstance(event, yaml.NodeEvent):
            assert event.start_mark is not None
            place = Place(file, event.start_mark.line + 1, event.start_mark.column + 1)
            _check_accepted(event, place)
            if isinstance(event, yaml.ScalarEvent):
                done = Scalar(place, event.value, not event.style)
            else:
                opened = Sequence(place) if isinstance(event, yaml.SequenceStartEvent) else Mapping(place)
                open_ones.append(opened)
                names.append(None)
                if len(open_ones) > DEPTH_MAX:
                    raise Unreadable(place, "depth", f"nested more than {DEPTH_MAX} deep: nothing here goes that deep")
                continue
        else:
            continue
        if not open_ones:
            yield done
        elif isinstance(parent := open_ones[-1], Sequence):
            parent.items.append(done)
        elif (name := names[-1]) is not None:
            parent.pairs.append((name, done))
            names[-1] = None
        elif isinstance(done, Scalar):
            names[-1] = done
        else:
            raise Unreadable(done.place, "name", "a list or mapping cannot be a name")


def _check_accepted(event: Any, place: Place) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise Unreadable(place, "alias", f"*{event.anchor} is an alias: write the value itself")
    if event.anchor:
        raise Unreadable(place, "alias", f"&{event.anchor} is an anchor: write the value where it is needed")
    if event.tag and event.tag not in ("!", "tag:yaml.org,2002:str"):
        raise Unreadable(place, "tag", f"{event.tag[:80]} is a tag: write the value without it")


# Writing

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.@/+()=%?&~;<>*|^$!',-]*(?:[ :][A-Za-z0-9_.@/+()=%?&~;<>*|^$!',-]+)*")
"""Text that needs no quotes: it begins with a letter and has no `: `, ` #`, doubled or trailing blank."""

_MEANING_MORE = frozenset(["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf", "none"])
"""What some reader takes for more than text."""


def quoted(text: str) -> str:
    """A text in the form that reads back as the same text, on one line.

    >>> print(quoted("fresh water"), quoted("no"), quoted("2013-03-01"), quoted("a: b"))
    fresh water "no" "2013-03-01" "a: b"
    """
    if _PLAIN.fullmatch(text) and text.lower() not in _MEANING_MORE and len(text) < LITERAL_LINE_MAX:
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    number = ord(character)
    if character.isprintable() and number != 0xFEFF:
        return character
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def block(text: str, indent: str) -> str | None:
    """A text of several lines as a literal block, with its header; None if only quotes give it back exactly."""
    body = text.removesuffix("\n")
    lines = body.split("\n")
    if len(lines) < 2 or body.endswith("\n") or lines[0] != lines[0].lstrip() or not lines[0]:
        return None
    if any(line != line.rstrip() or len(line) > LITERAL_LINE_MAX or not line.isprintable() for line in lines):
        return None
    if "\ufeff" in text:
        return None
    header = "|" if text.endswith("\n") else "|-"
    return "\n".join([header, *(f"{indent}{line}" if line else "" for line in lines)])


@dataclass(frozen=True, slots=True)
class Written:
    """A scalar that is text of YAML already: a number, a word of ours."""

    text: str


Writable = Written | str | list[Any] | dict[str, Any]


def dump(value: Writable, indent: int = 0) -> str:
    """YAML of nested dicts and lists with str (quoted as needed) and `Written` leaves; ends with a newline."""
    lines: list[str] = []
    _lines(value, "  " * indent, lines)
    return "\n".join(lines) + "\n"


def _lines(value: Writable, indent: str, lines: list[str]) -> None:
    if isinstance(value, dict):
        for name, inside in value.items():
            _entry(f"{indent}{quoted(name)}:", inside, indent, lines)
    elif isinstance(value, list):
        for inside in value:
            _item(inside, indent, lines)
    else:
        lines.append(indent + _leaf(value))


def _item(inside: Writable, indent: str, lines: list[str]) -> None:
    if isinstance(inside, dict) and inside:
        nested: list[str] = []
        _lines(inside, indent + "  ", nested)
        nested[0] = f"{indent}- {nested[0][len(indent) + 2 :]}"
        lines.extend(nested)
    else:
        _entry(f"{indent}-", inside, indent, lines)


def _entry(start: str, inside: Writable, indent: str, lines: list[str]) -> None:
    if isinstance(inside, dict | list) and not inside:
        lines.append(f"{start} {'{}' if isinstance(inside, dict) else '[]'}")
    elif isinstance(inside, dict | list):
        lines.append(start)
        _lines(inside, indent + "  ", lines)
    elif isinstance(inside, str) and "\n" in inside and (text := block(inside, indent + "  ")) is not None:
        lines.append(f"{start} {text}")
    else:
        lines.append(f"{start} {_leaf(inside)}")


def _leaf(value: Written | str) -> str:
    return value.text if isinstance(value, Written) else quoted(value)
