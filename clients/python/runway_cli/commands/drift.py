"""`runway drift`: two files compared, without a control plane."""

import importlib
import json
import sys
import webbrowser
from pathlib import Path
from typing import Any

import click

from runway_cli.page import Column, Page
from runway_cli.session import Session, json_option

SHOWN_MAX = 30
"""Columns in the table unless --all is given; drifted ones are always shown."""
EXIT_DRIFTED = 1


@click.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("current", type=click.Path(path_type=Path))
@click.option(
    "--column", "--columns", "columns", multiple=True, metavar="NAME", help="Only this column; several times."
)
@click.option("--exclude", multiple=True, metavar="NAME", help="Not this column; several times.")
@click.option("--categorical", multiple=True, metavar="NAME", help="A number that is a name, as a zip code.")
@click.option("--prediction", default="", metavar="NAME", help="The column of the model's scores, told apart.")
@click.option("--by", default="", metavar="NAME", help="Compare the parts of the data by this column too.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, min_open=True),
    metavar="PSI",
    help="Debiased PSI from which on it is drift; default 0.1.",
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots.")
@click.option("--open", "show", is_flag=True, help="Open that page in a browser.")
@click.option("--all", "everything", is_flag=True, help="Every column, drifted or not.")
@click.option("--fail-on-drift", is_flag=True, help="Exit code 1 if a column drifted or data are broken.")
@json_option
@click.pass_context
def drift(
    ctx: click.Context,
    reference: Path,
    current: Path,
    columns: tuple[str, ...],
    exclude: tuple[str, ...],
    categorical: tuple[str, ...],
    prediction: str,
    by: str,
    threshold: float | None,
    html: Path | None,
    show: bool,
    everything: bool,
    fail_on_drift: bool,
) -> None:
    """Did CURRENT drift from REFERENCE? Both are Parquet or CSV; no server is needed."""
    if show and html is None:
        raise click.UsageError("--open shows the page that --html writes: give --html FILE too")
    session: Session = ctx.obj
    offline: Any = importlib.import_module("control_plane.offline.drift")
    options = {"columns": columns, "exclude": exclude, "categorical": categorical, "prediction": prediction, "by": by}
    if threshold is not None:
        options["psi_moderate"] = threshold  # type: ignore[assignment]
    try:
        found = offline.report(reference, current, offline.Options(**options))
    except offline.TableError as error:
        raise click.UsageError(str(error)) from None
    if html is not None:
        page: Any = importlib.import_module("control_plane.offline.drift_page")
        try:
            html.write_text(page.page(found), encoding="utf-8")
        except OSError as error:
            raise click.UsageError(f"--html {html}: {error.strerror}: name a file that can be written") from None
        if show:
            webbrowser.open(html.resolve().as_uri())
    if session.as_json:
        msgspec: Any = importlib.import_module("msgspec")
        click.echo(json.dumps(msgspec.to_builtins(found) | {"sentence": found.sentence}, indent=2))
    else:
        _show(session.page, found, everything)
        if html is not None:
            session.page.line(f"The page is {html}.", "dim")
    if fail_on_drift and (found.drifted or found.data_quality):
        sys.stdout.flush()
        ctx.exit(EXIT_DRIFTED)


def _show(page: Page, found: Any, everything: bool) -> None:
    page.prose(found.sentence, style="bold")
    for fault in found.data_quality:
        page.prose(f"Broken data: {fault}.", style="bold red")
    if found.prediction is not None:
        moved = "moved" if found.prediction.significant else "did not move more than chance"
        page.prose(
            f"The prediction {found.prediction.name} {moved}: KL {found.prediction.kl:.3f} nats, "
            f"JS distance {found.prediction.js_distance:.2f}, p = {found.prediction.p_value:.2g}."
        )
    page.line()
    shown = [one for at, one in enumerate(found.columns) if everything or one.drifted or at < SHOWN_MAX]
    page.table(
        [
            Column(title="COLUMN"),
            Column(title="KIND", spare=3),
            Column(title="PSI", right=True),
            Column(title="LESS CHANCE", right=True),
            Column(title="P VALUE", right=True, spare=1),
            Column(title="DRIFTED"),
            Column(title="MISSING", right=True, spare=2),
            Column(title="THEN"),
            Column(title="NOW"),
        ],
        [
            [
                one.name,
                one.kind,
                f"{one.psi:.3f}",
                f"{one.psi_debiased:.3f}",
                f"{one.p_value:.2g}",
                one.strength if one.drifted else "no",
                f"{one.missing_then:.0%} -> {one.missing_now:.0%}" if one.missing_then or one.missing_now else "-",
                _bars(one.reference),
                _bars(one.current),
            ]
            for one in shown
        ],
    )
    if len(shown) < len(found.columns):
        page.line(f"(and {len(found.columns) - len(shown)} more that did not drift; --all shows them)", "dim")
    if found.slices:
        page.heading("parts of the data")
        page.table(
            [
                Column(title="PART"),
                Column(title="ROWS THEN", right=True),
                Column(title="ROWS NOW", right=True),
                Column(title="DRIFTED", right=True),
                Column(title="MOST", prose=True),
            ],
            [
                [
                    one.name,
                    f"{one.reference_rows:,}",
                    f"{one.current_rows:,}",
                    str(one.drifted),
                    ", ".join(f"{name} ({psi:.2f})" for name, psi in one.top) or "-",
                ]
                for one in found.slices
            ],
        )
    for name, why in found.left_out:
        page.prose(f"Left out: {name}, {why}.", style="dim")
    for note in found.notes:
        page.prose(f"Note: {note}.", style="dim")


def _bars(counts: tuple[int, ...]) -> str:
    """A histogram in one cell of a table; `missing` is not shown."""
    levels = " ▁▂▃▄▅▆▇█" if "utf" in (sys.stdout.encoding or "").lower() else " .:-=+*%#"
    bins = counts[:-1]
    top = max([*bins, 1])
    return "".join(levels[0 if not one else max(1, round(one / top * (len(levels) - 1)))] for one in bins) or "-"
