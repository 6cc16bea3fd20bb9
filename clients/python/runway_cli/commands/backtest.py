"""`runway backtest`: what other policies would have done with one's own history."""

import importlib
import re
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from google.protobuf.json_format import MessageToJson
from runway_client import messages, to_duration
from runway_client.fleet_files import read_texts

from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.spans import parse_span
from runway_cli.suggestions import model_suggestions, nearest
from runway_cli.words import bare_model, count, listed

CURRENT, PSI, PERFORMANCE, ORACLE = "current", "psi only", "performance only", "oracle"
SCHEDULES = (timedelta(days=7), timedelta(days=30))
SPAN_USUAL = timedelta(days=30)
MANIFEST_KEYS = re.compile(r"(policies|rules|models|nodes|dependencies)\s*:")
FLAT_LINES_BEFORE = 3
"""Lines that are put before a file that says only policies, so that the reader of fleet files reads it."""

EPILOG = """\b
A FILE of --policy says what `runway policies set --file` takes, which is then
upon the policies of every model (`staleness: {stale_threshold: 0.5}`); or what
a fleet file says under `policies:` and `rules:`, scope by scope.

\b
Contenders: current, one for each --policy (by the name of its file), every 7 d,
every 30 d, psi only, performance only, oracle. See docs/backtest.md."""


@click.command(epilog=EPILOG)
@click.option("--policy", "policies", multiple=True, metavar="FILE", help="Policies to try, as YAML; several times.")
@click.option("--from", "start", metavar="WHEN", help="2026-03-01, 2026-03-01T12:00 (UTC) or a span ago (30d).")
@click.option("--to", "end", metavar="WHEN", help="Likewise; default now.")
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Only this model; several times.")
@click.option("--every", multiple=True, metavar="SPAN", help="A fixed schedule instead of 7d and 30d; several times.")
@click.option("--only", default="", metavar="NAMES", help="Only these contenders: current,new,oracle.")
@click.option("--html", metavar="FILE", help="Write one page with plots.")
@click.option("--open", "show", is_flag=True, help="Open that page in a browser.")
@json_option
@click.pass_obj
def run_backtest(
    session: Session,
    policies: tuple[str, ...],
    start: str | None,
    end: str | None,
    models: tuple[str, ...],
    every: tuple[str, ...],
    only: str,
    html: str | None,
    show: bool,
) -> None:
    """Try policies on recorded history, side by side.

    The same rules that run the fleet run its history again, hour by hour, under each contender. Nothing is changed.
    """
    asked = chosen([*_current_and(policies), *_schedules(every), *_others()], only)
    until = _instant(end, "--to", session) if end else session.now
    since = _instant(start, "--from", session) if start else until - SPAN_USUAL
    if html is not None and not Path(html).absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {Path(html).absolute().parent} for --html")
    model_ids = [bare_model(name) for name in models]
    progress = _Progress()
    with model_suggestions(session.runway, model_ids[0] if model_ids else ""):
        try:
            report = session.runway.backtest.run_backtest(
                since, until, model_ids=model_ids, contenders=asked, progress=progress.told
            )
        finally:
            progress.end()
    if session.as_json:
        session.emit(report)
    else:
        _show(session, report)
    if html is not None or show:
        _write_page(session, report, html, show=show)


# --- what is asked ---


def _current_and(files: Sequence[str]) -> list[messages.Contender]:
    found = [messages.Contender(name=CURRENT, current=True)]
    for file in files:
        stem = Path(file).stem or "new"
        name, number = stem, 2
        while name in {one.name for one in found}:
            name, number = f"{stem} {number}", number + 1
        found.append(contender_of(file, name))
    return found


def _schedules(every: Sequence[str]) -> list[messages.Contender]:
    spans = []
    for text in every:
        try:
            span = parse_span(text)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--every") from None
        if span < timedelta(hours=1):
            raise click.BadParameter(
                f"{text!r} is shorter than an hour, the step of virtual time", param_hint="--every"
            )
        spans.append(span)
    return [
        messages.Contender(name=f"every {_span_words(span)}", every=to_duration(span))
        for span in dict.fromkeys(spans or SCHEDULES)
    ]


def _span_words(span: timedelta) -> str:
    days = span / timedelta(days=1)
    return f"{days:g} d" if days >= 1 else f"{span / timedelta(hours=1):g} h"


def _others() -> list[messages.Contender]:
    return [
        messages.Contender(name=PSI, psi_only=True),
        messages.Contender(name=PERFORMANCE, performance_only=True),
        messages.Contender(name=ORACLE, oracle=True),
    ]


def chosen(contenders: Sequence[messages.Contender], only: str) -> list[messages.Contender]:
    """Those that `--only` names, in their order; all if it names none.

    >>> two = [messages.Contender(name="every 7 d"), messages.Contender(name="psi only")]
    >>> [one.name for one in chosen(two, "PSI-only, every7d")]
    ['every 7 d', 'psi only']
    """
    if not only.strip():
        return list(contenders)
    by_plain = {_plain(one.name): one for one in contenders}
    wanted = set()
    for name in only.split(","):
        plain = _plain(name)
        if plain not in by_plain:
            near = [one for one in by_plain if plain and plain in one] or nearest(plain, by_plain)
            names = listed([by_plain[one].name for one in near]) if near else ""
            known = ", ".join(one.name for one in contenders)
            hint = f"did you mean {names}?" if names else f"they are {known}"
            raise click.BadParameter(f"there is no contender {name.strip()!r}: {hint}", param_hint="--only")
        wanted.add(plain)
    return [one for one in contenders if _plain(one.name) in wanted]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def contender_of(file: str, name: str) -> messages.Contender:
    """A contender out of a file of policies.

    Raises:
        click.ClickException: the file cannot be read.
        click.UsageError: it says something else than policies and rules; names line and field.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read {file}: {error}") from None
    manifest = any(MANIFEST_KEYS.match(line) for line in text.splitlines())
    before = 0 if manifest else FLAT_LINES_BEFORE
    found = read_texts({file: text if manifest else _as_manifest(text)})
    if found.problems:
        told = []
        for problem in found.problems:
            field = problem.field if manifest else problem.field.removeprefix("policies[0].").removeprefix("policies.")
            told.append(f"{file}:{problem.place.line - before}: {f'{field}: ' if field else ''}{problem.message}")
        raise click.UsageError("; ".join(told))
    if not manifest:
        said = found.manifest.policies[0].policies if found.manifest.policies else messages.Policies()
        if not said.ListFields():
            raise click.UsageError(f"{file} says nothing: write for example `staleness: {{stale_threshold: 0.5}}`")
        return messages.Contender(name=name, policies=said)
    layers = messages.ContenderLayers(layers=found.manifest.policies, rules=getattr(found.manifest, "rules", ()))
    for model in found.manifest.models:
        if model.policies.ListFields():
            layers.layers.add(scope=f"model:{model.model_id}", policies=model.policies)
    if not layers.layers and not layers.rules:
        raise click.UsageError(f"{file} says nothing under policies: or rules:")
    return messages.Contender(name=name, layers=layers)


def _as_manifest(text: str) -> str:
    indented = "".join(f"      {line}\n" for line in text.splitlines())
    return f"policies:\n  - scope: fleet\n    policies:\n{indented or '      {}' + chr(10)}"


def _instant(text: str, option: str, session: Session) -> datetime:
    """A time, or a span before the control plane's now."""
    if re.fullmatch(r"[0-9.]+\s*[smhdw]", text.strip()):
        try:
            return session.now - parse_span(text)
        except (ValueError, OverflowError) as error:
            raise click.BadParameter(str(error), param_hint=option) from None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time: write 2026-03-01, 2026-03-01T12:00 (UTC), or a span ago as 30d", param_hint=option
        ) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


class _Progress:
    """One line on a terminal's standard error, rewritten."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._shown = ""

    def told(self, contender: str, done: float) -> None:
        text = f"{contender} {done:.0%}"
        if self._on and text != self._shown:
            sys.stderr.write(f"\r{text.ljust(len(self._shown))}")
            sys.stderr.flush()
            self._shown = text

    def end(self) -> None:
        if self._shown:
            sys.stderr.write(f"\r{' ' * len(self._shown)}\r")
            sys.stderr.flush()


# --- what is shown ---


def _show(session: Session, report: "messages.BacktestReport") -> None:
    page = session.page
    start, end = report.start_time.ToDatetime(UTC), report.end_time.ToDatetime(UTC)
    page.line(
        f"{count(report.models, 'model')}, {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
        + (", estimated where history went another way" if report.estimated else ""),
        "bold",
    )
    page.table(
        [
            Column(title="CONTENDER"),
            Column(title="RETRAINS", right=True),
            Column(title="GPU HOURS", right=True, spare=2),
            Column(title="STALE HOURS", right=True),
            Column(title="QUALITY", right=True),
            Column(title="REGRET", right=True, spare=1),
            Column(title="FALSE/MODEL-MONTH", right=True),
            Column(title="DELAY", right=True),
            Column(title="RECALL", right=True, spare=4),
            Column(title="PRECISION", right=True, spare=3),
            Column(title="F1", right=True),
        ],
        [_row(result) for result in report.results],
    )
    page.line()
    page.prose(report.reading)
    for warning in report.warnings:
        page.prose(f"Note: {warning}", style="yellow")


def _row(result: Any) -> list[str]:
    delay = f"{result.detection_delay_hours:,.0f} h" if result.HasField("detection_delay_hours") else "-"
    return [
        result.name,
        f"{result.retrains:,}",
        f"{result.gpu_hours:,.1f}",
        f"{result.stale_hours:,.0f}",
        f"{result.quality:.4f}",
        f"{result.regret:+.4f}",
        f"{result.false_alarms_per_model_month:.2f}",
        delay,
        f"{result.recall:.2f}",
        f"{result.precision:.2f}",
        f"{result.f1:.2f}",
    ]


def _write_page(session: Session, report: "messages.BacktestReport", html: str | None, *, show: bool) -> None:
    pages = importlib.import_module("control_plane.offline.backtest_page")  # matplotlib: only who draws pays for it
    text = pages.page(pages.decode_report(MessageToJson(report, preserving_proto_field_name=True)))
    if html is None:
        with tempfile.NamedTemporaryFile(prefix="runway-backtest-", suffix=".html", delete=False) as made:
            html = made.name
    try:
        Path(html).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {html}: {error}") from None
    if not session.as_json:
        session.page.line(f"Wrote {html}.")
    if show:
        webbrowser.open(Path(html).absolute().as_uri())
