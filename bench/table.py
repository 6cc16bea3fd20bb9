"""Rows of measurements and the table that shows them."""

from collections.abc import Sequence
from typing import TypedDict

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_WITHOUT_TERMINAL = 160
"""Columns when the output goes to a file: a table folded at 80 is unreadable in a log."""


class Row(TypedDict):
    """One measured id. `value` is None if measuring failed; `note` then says why."""

    id: str
    value: float | None
    unit: str
    peers: dict[str, float]
    note: str


def rows_from(decoded: Sequence[Row]) -> list[Row]:
    """Check what a module returned; raises KeyError, TypeError or ValueError."""
    return [
        Row(
            id=str(row["id"]),
            value=float(row["value"]) if row["value"] is not None else None,
            unit=str(row["unit"]),
            peers={str(name): float(value) for name, value in row.get("peers", {}).items()},
            note=str(row.get("note", "")),
        )
        for row in decoded
    ]


def failure(measured_id: str, why: str) -> Row:
    """The row of something that could not be measured."""
    return Row(id=measured_id, value=None, unit="", peers={}, note=f"FAILED: {why}")


def print_table(rows: Sequence[Row]) -> None:
    """Print all rows as one table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_WITHOUT_TERMINAL)
    table = Table(title="Runway, medians on this machine")
    table.add_column("id", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("peers, same run", overflow="fold")
    table.add_column("note", overflow="fold")
    for row in rows:
        peers = "\n".join(f"{name}: {number(value)}" for name, value in row["peers"].items())
        failed = row["value"] is None
        # Text, not markup: ids and errors contain brackets.
        cells = (row["id"], "-" if row["value"] is None else number(row["value"]), row["unit"], peers, row["note"])
        table.add_row(*(Text(cell) for cell in cells), style="red" if failed else "")
    console.print(table)


def number(value: float) -> str:
    """Three significant digits for small values, whole numbers with separators for large ones.

    >>> number(0.12345), number(12.345), number(1234567.0)
    ('0.123', '12.3', '1,234,567')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
