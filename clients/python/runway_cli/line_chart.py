"""Charts for a terminal: a line over time in dots of braille, bars in blocks; ASCII where the terminal has neither.

Nothing here carries meaning by colour, so the charts read the same when piped.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

WIDTH_MAX = 96
"""Wider is no easier to read."""
WIDTH_MIN = 30
ROWS = 6
"""Text rows of a line chart."""
AXIS = 7
"""Columns left of a line chart: a number and the axis."""

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a cell's dots, by row and column of the dot."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Point(NamedTuple):
    """A value at a time; `label` says what was measured: where it changes, the chart marks it."""

    at: datetime
    value: float
    label: str = ""


def line_chart(points: Sequence[Point], threshold: float, *, width: int, unicode: bool) -> list[str]:
    """Values over time with a threshold, oldest left; nothing for fewer than two times.

    >>> from datetime import UTC, timedelta
    >>> begin = datetime(2013, 3, 1, tzinfo=UTC)
    >>> points = [Point(begin + timedelta(days=day), day / 10, "v1") for day in range(9)]
    >>> for line in line_chart(points, 0.6, width=30, unicode=False):
    ...     print(line)
     0.80 |                    ***
     0.60 |----------------****---
          |            ****
          |       *****
          |   ****
     0.00 |***
          +-----------------------
           2013-03-01   2013-03-09
    """
    found = sorted((point for point in points if math.isfinite(point.value)), key=lambda point: point.at)
    if len(found) < 2 or found[0].at == found[-1].at:
        return []
    columns = max(WIDTH_MIN, min(width, WIDTH_MAX)) - AXIS
    across, down = (2, 4) if unicode else (1, 1)
    top = max([threshold, *(point.value for point in found)]) or 1.0
    drawn = _Drawing(columns * across, ROWS * down)
    cut = drawn.row(threshold / top)
    begin, span = found[0].at, found[-1].at - found[0].at
    places = [((one.at - begin) / span * (columns * across - 1), one.value / top) for one in found]
    for first, second in pairwise(places):
        drawn.segment(first, second)
    rows = [_text(drawn, row, cut, unicode) for row in range(ROWS)]
    labels = {0: f"{top:5.2f}", ROWS - 1: f"{0:5.2f}", cut // down: f"{threshold:5.2f}"}
    lines = [f"{labels.get(row, ''):>5} |{text}".rstrip() for row, text in enumerate(rows)]
    lines.append(" " * (AXIS - 1) + "+" + "-" * columns)
    marks = _marks(found, columns)
    if marks:
        lines.append(" " * AXIS + marks)
    left, right = f"{begin:%Y-%m-%d}", f"{found[-1].at:%Y-%m-%d}"
    if left == right:
        left, right = f"{begin:%Y-%m-%d %H:%M}", f"{found[-1].at:%H:%M}"
    lines.append(" " * AXIS + left + right.rjust(columns - len(left)))
    return lines


def bar(value: float, whole: float, width: int, *, unicode: bool) -> str:
    """A bar for a share of `whole`; a value above zero always shows.

    >>> bar(0.5, 1.0, 8, unicode=False), bar(0.001, 1.0, 8, unicode=False), bar(0.0, 1.0, 8, unicode=False)
    ('####', '#', '')
    """
    if not math.isfinite(value) or value <= 0 or whole <= 0:
        return ""
    filled = min(value / whole, 1.0) * width
    if not unicode:
        return "#" * max(1, round(filled))
    eighths = max(1, round(filled * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


class _Drawing:
    """Dots on a grid, row 0 on top."""

    def __init__(self, columns: int, rows: int) -> None:
        self.rows = rows
        self.dots = [[False] * columns for _ in range(rows)]

    def row(self, share: float) -> int:
        """The row of a share of the height."""
        return self.rows - 1 - min(self.rows - 1, max(0, round(share * (self.rows - 1))))

    def segment(self, first: tuple[float, float], second: tuple[float, float]) -> None:
        """A line between two places (column, share of the height), without gaps."""
        (left, low), (right, high) = first, second
        before: int | None = None
        for column in range(round(left), round(right) + 1):
            along = min(max((column - left) / (right - left), 0.0), 1.0) if right > left else 1.0
            row = self.row(low + (high - low) * along)
            # A step up or down is drawn whole in the later column, so that a jump stands upright.
            upright = range(min(row, before) + 1, max(row, before)) if before is not None else range(0)
            for between in (row, *upright):
                self.dots[between][column] = True
            before = row


def _text(drawn: _Drawing, row: int, cut: int, unicode: bool) -> str:
    if not unicode:
        return "".join("*" if dot else "-" if row == cut else " " for dot in drawn.dots[row])
    return "".join(_cell(drawn, row, column, cut) for column in range(len(drawn.dots[0]) // 2))


def _cell(drawn: _Drawing, row: int, column: int, cut: int) -> str:
    """Four by two dots; the threshold is every other dot, so that it is not taken for the line."""
    bits = 0
    for y in range(4):
        for x in range(2):
            on = drawn.dots[row * 4 + y][column * 2 + x]
            if on or (row * 4 + y == cut and x == 0):
                bits |= _DOTS[y][x]
    return chr(_BRAILLE + bits) if bits else " "


def _marks(points: Sequence[Point], columns: int) -> str:
    """Where the label changes, as `^v4`, at its column; those without room are left out."""
    begin, span = points[0].at, points[-1].at - points[0].at
    found = ""
    for before, point in pairwise(points):
        if point.label == before.label:
            continue
        mark, column = f"^{point.label}", round((point.at - begin) / span * (columns - 1))
        if column >= len(found) + bool(found) and column + len(mark) <= columns:
            found = found.ljust(column) + mark
    return found
