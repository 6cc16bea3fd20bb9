"""Output for people: sentences, facts and tables that fit the terminal, plain when piped.

On a terminal a table that is too wide first wraps its prose, then leaves out its least needed columns and says so; ids
are never cut. When piped nothing is wrapped, left out or coloured. Text that came from elsewhere is stripped of control
characters, so that a description cannot repaint the screen.
"""

import os
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO

GAP = "  "
PROSE_WIDTH_MIN = 28
"""Narrower prose is harder to read than a missing column."""

STYLES = {
    "FRESH": "green",
    "AT_RISK": "yellow",
    "STALE": "bold red",
    "UNKNOWN": "magenta",
    "WAITING": "yellow",
    "RUNNING": "cyan",
    "VALIDATING": "cyan",
    "PROMOTED": "green",
    "SUCCEEDED": "green",
    "REFUSED": "bold yellow",
    "FAILED": "bold red",
    "LEASE_EXPIRED": "red",
    "ROLLED_BACK": "bold yellow",
    "CANCELLED": "dim",
    "HELD": "bold red",
    "LOW": "yellow",
    "yes": "bold",
}
"""Words that carry a colour wherever they are a whole cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: never left out unless `spare` (the largest goes first); `prose` may wrap; `right` aligns numbers."""

    title: str
    spare: int = 0
    prose: bool = False
    right: bool = False


class Layout(NamedTuple):
    """Which columns are shown, how wide, and which are not."""

    shown: list[int]
    widths: list[int]
    hidden: list[str]


def printable(text: str) -> str:
    """Text on one line without control characters.

    >>> printable("red" + chr(27) + "[31m  alert\\n")
    'red[31m alert'
    """
    return " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text).split())


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Layout:
    """Choose columns and widths for a terminal of `width` characters (None: unbounded)."""
    widths = [max([len(c.title), *(len(row[i]) for row in rows)]) for i, c in enumerate(columns)]
    shown = list(range(len(columns)))
    hidden: list[str] = []

    def excess() -> int:
        return 0 if width is None else sum(widths[i] for i in shown) + len(GAP) * (len(shown) - 1) - width

    while excess() > 0:
        prose = [i for i in shown if columns[i].prose and widths[i] > PROSE_WIDTH_MIN]
        if prose:
            widest = max(prose, key=lambda i: widths[i])
            widths[widest] = max(PROSE_WIDTH_MIN, widths[widest] - excess())
            continue
        spare = [i for i in shown if columns[i].spare]
        if not spare:
            break
        least = max(spare, key=lambda i: columns[i].spare)
        shown.remove(least)
        hidden.append(columns[least].title.lower())
    # What a left-out column freed goes back to the prose that was wrapped for it.
    for i in shown:
        if columns[i].prose and width is not None and excess() < 0:
            natural = max([len(columns[i].title), *(len(row[i]) for row in rows)])
            widths[i] = min(natural, widths[i] - excess())
    return Layout(shown, [widths[i] for i in shown], hidden)


class Page:
    """Writes to one stream."""

    def __init__(self, stream: TextIO, *, width: int | None, colours: bool) -> None:
        self._stream = stream
        self.width = width
        self._console: Any = None
        if colours:
            from rich.console import Console  # noqa: PLC0415 (only terminals pay for it)

            self._console = Console(
                file=stream, width=width, highlight=False, soft_wrap=True, force_terminal=True, color_system="standard"
            )

    @classmethod
    def of(cls, stream: TextIO) -> "Page":
        """A page as wide and colourful as the stream allows."""
        if not stream.isatty():
            return cls(stream, width=None, colours=False)
        colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(stream, width=max(20, shutil.get_terminal_size().columns), colours=colours)

    def line(self, text: str = "", style: str = "") -> None:
        """One line, as it is."""
        self._write([(text, style)])

    def prose(self, text: str, *, indent: str = "", style: str = "") -> None:
        """A paragraph, wrapped to the terminal."""
        text = printable(text)
        if self.width is None:
            self.line(indent + text, style)
            return
        for line in textwrap.wrap(
            text,
            self.width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
            break_long_words=False,
        ):
            self.line(line, style)

    def heading(self, text: str) -> None:
        """A title with an empty line before it."""
        self.line()
        self.line(text, "bold")

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Names and values, one pair a line; pairs without a value are left out."""
        kept = [(name, printable(value)) for name, value in facts if value and value != "-"]
        if not kept:
            return
        left = max(len(name) for name, _ in kept)
        for name, value in kept:
            room = None if self.width is None else max(PROSE_WIDTH_MIN, self.width - left - len(GAP))
            lines = (
                [value] if room is None else textwrap.wrap(value, room, break_on_hyphens=False, break_long_words=False)
            )
            for number, line in enumerate(lines):
                self._write([((name if number == 0 else "").ljust(left) + GAP, "dim"), (line, STYLES.get(line, ""))])

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """A table; nothing at all if it has no rows."""
        self.grouped_table(columns, [("", rows)])

    def grouped_table(self, columns: Sequence[Column], groups: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> None:
        """A table in groups, each under its title, all with the same columns; nothing if there are no rows."""
        clean = [(title, [[_cell(cell) for cell in row] for row in rows]) for title, rows in groups]
        everything = [row for _, rows in clean for row in rows]
        if not everything:
            return
        layout = fit(columns, everything, self.width)
        shown = [columns[i] for i in layout.shown]
        header = [(_padded(c.title, w, c.right) + GAP, "bold") for c, w in zip(shown, layout.widths, strict=True)]
        self._write(header)
        for title, rows in clean:
            if title:
                self.line(title, "bold")
            for row in rows:
                self._row(shown, layout, [row[i] for i in layout.shown])
        if layout.hidden:
            self.line(f"(left out to fit: {', '.join(layout.hidden)}; a wider terminal or --json shows them)", "dim")

    def _row(self, columns: Sequence[Column], layout: Layout, cells: Sequence[str]) -> None:
        wrapped = [
            textwrap.wrap(cell, width, break_on_hyphens=False, break_long_words=False) or [""]
            if column.prose
            else [cell]
            for column, width, cell in zip(columns, layout.widths, cells, strict=True)
        ]
        for number in range(max(len(lines) for lines in wrapped)):
            parts = []
            for column, width, cell, lines in zip(columns, layout.widths, cells, wrapped, strict=True):
                text = lines[number] if number < len(lines) else ""
                parts.append((_padded(text, width, column.right) + GAP, STYLES.get(cell, "")))
            self._write(parts)

    def _write(self, parts: Sequence[tuple[str, str]]) -> None:
        """One line of styled parts, without trailing blanks."""
        if self._console is None:
            self._stream.write("".join(text for text, _ in parts).rstrip() + "\n")
            return
        from rich.text import Text  # noqa: PLC0415

        line = Text()
        for text, style in parts:
            line.append(text, style=style)
        line.rstrip()
        self._console.print(line, soft_wrap=True)


def _cell(text: str) -> str:
    """Printable, with its indent."""
    return " " * (len(text) - len(text.lstrip(" "))) + printable(text)


def _padded(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
