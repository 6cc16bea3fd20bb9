"""`runway performance`: how good a model is on the truth that has arrived.

Read at 3 am: one sentence says the number that counts and how sure it is; whatever makes it less than final is said
right below it, in words; tables follow.
"""

from collections.abc import Sequence
from datetime import timedelta

import click
from runway_client import messages

from runway_cli.commands.models import parse_instant
from runway_cli.commands.truth import day_word, span_of_options, span_options
from runway_cli.page import Column, Page
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, count, enum_choices, enum_word, instant_of, number, share, span

PRIMARY = ("auc", "rmse")
"""The metric the sentence is about: the first of these that there is, else the first there is."""
LESS_IS_BETTER = ("log_loss", "brier", "mae", "rmse")
EVERYTHING = 0.9995
"""A share that rounds to all of it."""


@click.command()
@click.argument("model")
@span_options
@click.option("--label", "label_type", default="", metavar="TYPE", help="Of this label type; default the model's own.")
@click.option("--slice", "slice_name", default="", metavar="NAME=VALUE", help="Only this part of the data.")
@click.option("--by", type=click.Choice(enum_choices(messages.Grain)), default="day", help="What a row is of.")
@click.option("--as-known-at", "known_at", metavar="TIME", help="What was believed then: as it had been computed.")
@click.option("--provisional", is_flag=True, help="Also predictions whose outcomes still come, corrected for that.")
@click.option("--delays", is_flag=True, help="Also how long outcomes take.")
@json_option
@click.pass_obj
def show_performance(
    session: Session,
    model: str,
    version: int | None,
    days: int | None,
    since: str | None,
    until: str | None,
    label_type: str,
    slice_name: str,
    by: str,
    known_at: str | None,
    provisional: bool,
    delays: bool,
) -> None:
    """How good a model is on the truth that has arrived."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    known = parse_instant(known_at, "--as-known-at")
    start, end = span_of_options(session, days, since, until or known_at)
    with model_suggestions(runway, model_id):
        answer = runway.ground_truth.get_performance(
            model_id,
            version=version or 0,
            start=start,
            end=end,
            label_type=label_type,
            slice_name=slice_name,
            grain=messages.Grain.Value(f"GRAIN_{by.upper()}"),
            known_at=known,
            provisional=provisional,
        )
    if session.as_json:
        session.emit(answer)
        return
    what = " ".join([model_id, *([f"v{version}"] if version else []), *([f"({slice_name})"] if slice_name else [])])
    if known is not None:
        what += f", as known at {clock(known)},"
    _sentence(page, what, model_id, answer, provisional)
    for text in _notes(answer):
        page.prose(text)
    if answer.total.metrics:
        page.line()
        _metrics(page, answer.total)
    if answer.rows:
        page.line()
        _rows(page, answer, by, known is not None)
    if delays:
        _delays(page, answer.delays)


def _sentence(page: Page, what: str, model_id: str, answer: messages.GetPerformanceResponse, provisional: bool) -> None:
    total = answer.total
    metric = _primary(total)
    if metric is None:
        look = f"`runway coverage {model_id}` says what is here"
        if not provisional:
            look += f", `runway performance {model_id} --provisional` what that says"
        page.prose(f"{what} has no prediction of this time with a final outcome: {look}.", style="bold")
        return
    holdout = f"; {number(metric.baseline)} on its holdout" if metric.HasField("baseline") else ""
    page.prose(
        f"{what} has {_name(metric.name)} {number(metric.value)} ({_interval(metric)}) on "
        f"{count(total.labelled, 'outcome')} of {clock(instant_of(total, 'start_time'))} to "
        f"{clock(instant_of(total, 'end_time'))}{holdout}.",
        style="bold",
    )
    verdict = _against_holdout(metric)
    if verdict:
        page.prose(verdict, style="bold yellow")
    if total.provisional:
        page.prose(
            f"PROVISIONAL: {share(total.arrived)} of the outcomes that will come are here. The numbers are corrected "
            "by how fast outcomes usually arrive, and will be revised.",
            style="bold yellow",
        )


def _against_holdout(metric: messages.PerformanceMetric) -> str:
    """Said only where the interval leaves no doubt."""
    if not metric.HasField("baseline"):
        return ""
    worse = metric.low > metric.baseline if metric.name in LESS_IS_BETTER else metric.high < metric.baseline
    return "That is worse than on the holdout, beyond chance." if worse else ""


def _notes(answer: messages.GetPerformanceResponse) -> list[str]:
    """What makes the numbers less than they seem."""
    total = answer.total
    found = []
    if answer.label_kind == messages.LABEL_KIND_PROXY:
        found.append(f"{answer.label_type} is a proxy: it stands in for the label and arrives sooner.")
    if answer.label_kind == messages.LABEL_KIND_IMPUTED:
        found.append(f"{answer.label_type} is imputed: a guess at the label.")
    if total.imputed:
        found.append(f"{count(total.imputed, 'outcome')} of {total.labelled:,} were guessed, not observed.")
    if total.sample_rate < EVERYTHING and total.predicted:
        found.append(f"Estimated from {total.sample_rate:.2%} of the ids; the intervals carry the sampling error.")
    return found + [f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in answer.degraded]


def _metrics(page: Page, total: messages.PerformanceRow) -> None:
    """Weighted outcomes say less than as many unweighted ones: then the column says how many they are worth."""
    weighted = any(metric.sample_size < total.labelled for metric in total.metrics)
    page.table(
        [
            Column(title="METRIC"),
            Column(title="VALUE", right=True),
            Column(title="95 % INTERVAL"),
            Column(title="HOLDOUT", right=True),
            Column(title="WORTH OUTCOMES" if weighted else "OUTCOMES", right=True),
        ],
        [
            [
                metric.name,
                number(metric.value),
                _interval(metric),
                number(metric.baseline) if metric.HasField("baseline") else "-",
                f"{metric.sample_size:,}",
            ]
            for metric in total.metrics
        ],
    )


def _rows(page: Page, answer: messages.GetPerformanceResponse, by: str, known: bool) -> None:
    """One line a row: the primary metric with its interval, then the others."""
    names = [metric.name for metric in answer.total.metrics]
    if not names:
        names = list(dict.fromkeys(metric.name for row in answer.rows for metric in row.metrics))
    primary = next((name for name in PRIMARY if name in names), names[0] if names else "")
    names = [primary, *(name for name in names if name != primary)] if primary else []
    young = any(row.provisional for row in answer.rows)
    columns = [Column(title={"day": "DAY", "hour": "HOUR", "version": "VERSION", "slice": "SLICE"}[by])]
    for place, name in enumerate(names):
        columns.append(Column(title=name.upper(), right=True, spare=place))
        columns += [Column(title="95 % INTERVAL")] if name == primary else []
    columns.append(Column(title="OUTCOMES", right=True))
    columns += [Column(title="HERE", right=True)] if young else []
    columns.append(Column(title="FROM", spare=len(names) + 1))
    columns += [Column(title="COMPUTED")] if known else []
    page.table(columns, [_row(row, names, by, young, known) for row in answer.rows])


def _row(row: messages.PerformanceRow, names: Sequence[str], by: str, young: bool, known: bool) -> list[str]:
    by_name = {metric.name: metric for metric in row.metrics}
    cells = [_key(row, by)]
    for place, name in enumerate(names):
        metric = by_name.get(name)
        cells.append("-" if metric is None else number(metric.value))
        if place == 0:
            cells.append("-" if metric is None else _interval(metric))
    cells.append(f"{row.labelled:,}")
    cells += [share(row.arrived)] if young else []
    layer = enum_word(messages.Layer, row.layer).lower()
    cells.append(f"{layer}, provisional" if row.provisional else layer)
    cells += [clock(instant_of(row, "computed_at"))] if known else []
    return cells


def _key(row: messages.PerformanceRow, by: str) -> str:
    if by == "version":
        return f"v{row.version}"
    if by == "slice":
        return row.slice
    return clock(instant_of(row, "start_time")) if by == "hour" else day_word(instant_of(row, "start_time"))


def _delays(page: Page, delays: messages.DelayHistogram) -> None:
    """From the first delay that occurs to the last."""
    page.line()
    total = sum(delays.counts)
    if not total:
        page.prose("No outcome has arrived in this time: how long they take is not known.", style="bold")
        return
    page.prose(
        f"Half of the outcomes are there {span(timedelta(seconds=delays.median_s))} after the prediction, 95 % after "
        f"{span(timedelta(seconds=delays.p95_s))}.",
        style="bold",
    )
    page.line()
    some = [at for at, n in enumerate(delays.counts) if n]
    rows = []
    for at in range(some[0], some[-1] + 1):
        beyond = at == len(delays.edges_s)
        edge = delays.edges_s[-1] if beyond else delays.edges_s[at]
        rows.append(
            [
                f"{'over' if beyond else 'up to'} {span(timedelta(seconds=edge))}" if edge else "before it",
                f"{delays.counts[at]:,}",
                share(sum(delays.counts[: at + 1]) / total),
                share(delays.arrived[at]) if at < len(delays.arrived) else "-",
            ]
        )
    page.table(
        [
            Column(title="DELAY"),
            Column(title="OUTCOMES", right=True),
            Column(title="SO FAR", right=True),
            Column(title="USUALLY", right=True),
        ],
        rows,
    )


def _primary(row: messages.PerformanceRow) -> messages.PerformanceMetric | None:
    by_name = {metric.name: metric for metric in row.metrics}
    return next((by_name[name] for name in PRIMARY if name in by_name), next(iter(row.metrics), None))


def _interval(metric: messages.PerformanceMetric) -> str:
    """Both ends with as many digits as tell them apart.

    >>> _interval(messages.PerformanceMetric(low=0.7012, high=0.7231))
    '0.7012 to 0.7231'
    """
    return f"{number(metric.low)} to {number(metric.high)}"


def _name(metric: str) -> str:
    return metric.upper() if metric in ("auc", "rmse", "mae") else metric.replace("_", " ")
