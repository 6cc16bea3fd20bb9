"""A drift report as one self-contained page: what moved most as histograms, every column in a table that sorts."""

import io
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from control_plane.core.statistics.bins import CATEGORIES
from control_plane.offline.drift import Column, Report

TEMPLATE = Path(__file__).with_name("drift_page.html.j2")
PLOTS_MAX = 12
"""Columns with a picture; the table has all of them."""
LABEL_CHARS = 14
SETTINGS: Any = {"font.size": 8, "svg.hashsalt": "runway", "svg.fonttype": "path"}
REFERENCE, CURRENT = "#0072B2", "#D55E00"


def page(report: Report) -> str:
    """One HTML page without any outside reference."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    plots = [_plot(column) for column in report.columns[:PLOTS_MAX] if column.drifted]
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(report=report, plots=plots, categories=CATEGORIES)


def _plot(column: Column) -> str:
    """Shares of the cells then and now, side by side, as an SVG element."""
    then, now = np.array(column.reference, np.float64), np.array(column.current, np.float64)
    shown = np.flatnonzero((then > 0) | (now > 0))
    with mpl.rc_context(SETTINGS):
        drawn = Figure(figsize=(4.2, 2.3), layout="constrained")
        FigureCanvasAgg(drawn)
        axes = drawn.add_subplot()
        at = np.arange(len(shown))
        axes.bar(at - 0.2, then[shown] / max(then.sum(), 1), 0.4, color=REFERENCE, label="reference")
        axes.bar(at + 0.2, now[shown] / max(now.sum(), 1), 0.4, color=CURRENT, label="current")
        labels = [_short(column.cells[one]) for one in shown]
        axes.set_xticks(at, labels, rotation=60, ha="right")
        axes.set_title(f"{_short(column.name, 40)}   PSI {column.psi:.2f}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7)
        out = io.BytesIO()
        drawn.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue().decode()
    return text[text.index("<svg") :]


def _short(text: str, chars: int = LABEL_CHARS) -> str:
    # A dollar would begin a formula.
    plain = text.replace("$", r"\$")
    return plain if len(text) <= chars else plain[: chars - 1] + "..."
