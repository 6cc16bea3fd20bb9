"""A backtest's report as one self-contained page, and as a picture.

Above, the quality of the whole fleet day by day under each contender. Below, a strip for each: the darker, the more of
the fleet was truly stale on that day; the ticks are retrains that were asked for, dark where the model was truly stale,
red where it was not.
"""

import io
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from control_plane.backtest.report import DEFINITIONS, Report, Result, decode_report
from control_plane.backtest.scoring import RETRAIN_LOG_MAX

__all__ = ["decode_report", "figure", "page"]

TEMPLATE = Path(__file__).with_name("backtest_page.html.j2")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's, which colour-blind people tell apart."""

STALE_COLOUR = "#c0392b"
TICK_TRUE, TICK_FALSE = "#1b2631", "#e74c3c"

TICKS_MAX = 2_000
"""Of one strip: beyond that they are a solid bar, and the file grows for nothing."""

LOG_ROWS_MAX = 200
"""Retrains that the page lists of one contender; the JSON has them all."""

SETTINGS: Any = {
    "font.size": 9,
    "svg.hashsalt": "runway",  # the same report gives the same bytes
    "svg.fonttype": "path",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
DPI = 130
LEGEND_COLUMNS = 7
WIDTH_INCHES = 10.0


def page(report: Report, title: str = "Backtest") -> str:
    """One HTML page without any outside reference: table, pictures, what was asked for when, definitions."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=title,
        report=report,
        picture=_picture(report, "svg").decode(),
        definitions=DEFINITIONS,
        days=(report.end_time - report.start_time) / timedelta(days=1),
        log_max=LOG_ROWS_MAX,
        log_kept=RETRAIN_LOG_MAX,
        colours=COLOURS,
    )


def figure(report: Report) -> bytes:
    """The picture as PNG."""
    return _picture(report, "png")


def _picture(report: Report, form: str) -> bytes:
    results = report.results
    with mpl.rc_context(SETTINGS):
        strips = max(0.28 * len(results), 0.6)
        drawn = Figure(figsize=(WIDTH_INCHES, 3.4 + strips + 0.8), layout="constrained")
        FigureCanvasAgg(drawn)
        above, below = drawn.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.4, strips]})
        _quality(above, results, report.end_time)
        _strips(below, results, report)
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        below.xaxis.set_major_locator(locator)
        below.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        below.set_xlim(_num(report.start_time), _num(report.end_time))
        out = io.BytesIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type")) if form == "svg" else {}
        drawn.savefig(out, format=form, dpi=DPI, metadata=metadata)
    found = out.getvalue()
    # Inside HTML an SVG begins with its element.
    return found[found.index(b"<svg") :] if form == "svg" else found


def _num(at: datetime) -> float:
    return float(date2num(at))  # type: ignore[no-untyped-call]


def _quality(axes: Axes, results: tuple[Result, ...], end: datetime) -> None:
    known = False
    for at, result in enumerate(results):
        if not any(point.quality for point in result.points):
            continue
        known = True
        style = "--" if result.name == "oracle" else "-"
        days = [*(_num(point.at) for point in result.points), _num(end)]
        axes.step(
            days,
            [*(point.quality for point in result.points), result.points[-1].quality],
            style,
            where="post",
            color=COLOURS[at % len(COLOURS)],
            label=result.name,
            linewidth=1.4,
        )
    axes.set_ylabel("quality (higher is better)")
    if known:
        axes.legend(ncols=LEGEND_COLUMNS, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    else:
        axes.text(0.5, 0.5, "no outcomes, so no quality", transform=axes.transAxes, ha="center")
    axes.grid(alpha=0.25)


def _strips(axes: Axes, results: tuple[Result, ...], report: Report) -> None:
    """A strip for each contender, the first on top."""
    for at, result in enumerate(results):
        row = len(results) - 1 - at
        ends = [*(point.at for point in result.points[1:]), report.end_time]
        for point, end in zip(result.points, ends, strict=True):
            if point.stale_share > 0:
                axes.axvspan(
                    _num(point.at),
                    _num(end),
                    ymin=(row + 0.05) / len(results),
                    ymax=(row + 0.95) / len(results),
                    color=STALE_COLOUR,
                    alpha=0.1 + 0.5 * min(point.stale_share, 1.0),
                    linewidth=0,
                )
        for stale, colour in ((True, TICK_TRUE), (False, TICK_FALSE)):
            ticks = [_num(one.at) for one in result.retrain_log if one.truly_stale is stale][:TICKS_MAX]
            axes.vlines(ticks, row + 0.15, row + 0.85, color=colour, linewidth=0.9)
    axes.set_ylim(0, max(len(results), 1))
    axes.set_yticks([len(results) - 1 - at + 0.5 for at in range(len(results))], [one.name for one in results])
    axes.tick_params(axis="y", length=0)
