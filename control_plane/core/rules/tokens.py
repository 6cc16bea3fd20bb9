"""A rule's text cut into tokens: enough to bound its size, depth and cost before CEL sees it, and to say where a name
begins. What a text means is CEL's to say.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>//[^\n]*)
  | (?P<string>[rRbB]{0,2}(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
  | (?P<number>(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)u?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>&&|\|\||[<>=!]=|.)
    """,
    re.VERBOSE | re.DOTALL,
)

LOOPS = frozenset({"all", "exists", "exists_one"})
"""Macros that go through a list."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a text that begins at index `at`."""

    kind: str
    text: str
    at: int


def tokens(text: str) -> list[Token]:
    """All tokens but spaces and comments."""
    return [
        Token(found.lastgroup or "sign", found.group(), found.start())
        for found in _TOKEN.finditer(text)
        if found.lastgroup not in ("space", "comment")
    ]


def place(text: str, at: int) -> tuple[int, int]:
    """Line and column of an index, both from 1, in characters.

    >>> place("a &&\\n  b", 7)
    (2, 3)
    """
    before = text[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1


def index(text: str, line: int, column: int) -> int:
    """Inverse of `place`; the nearest index there is."""
    lines = text.split("\n")
    line = min(max(line, 1), len(lines))
    start = sum(len(one) + 1 for one in lines[: line - 1])
    return min(start + max(column, 1) - 1, len(text))


@dataclass(frozen=True, slots=True)
class Chain:
    """Names joined by dots, as `season.expected`; it begins at `at` and ends before `end`."""

    names: tuple[str, ...]
    at: int
    end: int
    called: bool
    """An opening bracket follows: the last name is a function's."""
    after_dot: bool
    """It goes on from something else: `f(x).size`."""

    @property
    def text(self) -> str:
        """With its dots."""
        return ".".join(self.names)


def chains(found: Sequence[Token]) -> Iterator[Chain]:
    """All of them, in order."""
    at = 0
    while at < len(found):
        if found[at].kind != "name":
            at += 1
            continue
        first = at
        while at + 2 < len(found) and found[at + 1].text == "." and found[at + 2].kind == "name":
            at += 2
        last = found[at]
        yield Chain(
            names=tuple(token.text for token in found[first : at + 1 : 2]),
            at=found[first].at,
            end=last.at + len(last.text),
            called=at + 1 < len(found) and found[at + 1].text == "(",
            after_dot=first > 0 and found[first - 1].text == ".",
        )
        at += 1
