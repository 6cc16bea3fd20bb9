"""`runway coverage`: how much of the truth has arrived, and why not more.

One sentence says the number, the next why it is not higher; then the rows, then what to do. Without a model: the fleet,
the worst first.
"""

from collections.abc import Sequence

import click
from runway_client import messages

from runway_cli.commands.truth import day_word, span_of_options, span_options
from runway_cli.page import Column, Page
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import (
    bare_model,
    clock,
    count,
    enum_choices,
    enum_word,
    instant_of,
    number,
    share,
    tier_word,
    version_word,
)

ROWS_SHOWN_MAX = 31
"""Days or hours shown: a month; what is older is in --json."""
MODELS_SHOWN_MAX = 40
CAUSES = {
    messages.COVERAGE_CAUSE_OUTCOMES_STOPPED: "outcomes stopped",
    messages.COVERAGE_CAUSE_IDS_DO_NOT_MATCH: "ids do not match",
    messages.COVERAGE_CAUSE_SOURCE_SILENT: "source silent",
    messages.COVERAGE_CAUSE_SAMPLING_MISMATCH: "sampling mismatch",
    messages.COVERAGE_CAUSE_TOO_LATE: "too late",
    messages.COVERAGE_CAUSE_NEVER_ANY: "never any",
    messages.COVERAGE_CAUSE_NEVER_LABELLED: "never labelled",
}


@click.command()
@click.argument("model", required=False)
@span_options
@click.option("--label", "label_type", default="", metavar="TYPE", help="Of this label type; default the model's own.")
@click.option("--slice", "slice_name", default="", metavar="NAME=VALUE", help="Only this part of the data.")
@click.option("--by", type=click.Choice(enum_choices(messages.Grain)), default="day", help="What a row is of.")
@click.option("--low", is_flag=True, help="Without a model: only those below their minimum.")
@click.option("--team", default="", help="Without a model: only this team's.")
@json_option
@click.pass_obj
def show_coverage(
    session: Session,
    model: str | None,
    version: int | None,
    days: int | None,
    since: str | None,
    until: str | None,
    label_type: str,
    slice_name: str,
    by: str,
    low: bool,
    team: str,
) -> None:
    """How much of the truth has arrived, and why not more.

    Of one MODEL by day, or of all models, the worst first. Only predictions count whose label window has ended.
    """
    if model is None:
        if version or days or since or until or label_type or slice_name or by != "day":
            raise click.UsageError("of which model? Without one, only --low and --team say something")
        _show_fleet(session, low, team)
        return
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    start, end = span_of_options(session, days, since, until)
    with model_suggestions(runway, model_id):
        answer = runway.ground_truth.get_coverage(
            model_id,
            version=version or 0,
            start=start,
            end=end,
            label_type=label_type,
            slice_name=slice_name,
            grain=messages.Grain.Value(f"GRAIN_{by.upper()}"),
        )
    if session.as_json:
        session.emit(answer)
        return
    which = " ".join(
        [model_id, *([version_word(version)] if version else []), *([f"({slice_name})"] if slice_name else [])]
    )
    _sentences(page, which, answer)
    if answer.rows:
        page.line()
        _table(page, answer.rows, by)
    _advice(page, answer)


def _sentences(page: Page, which: str, answer: messages.GetCoverageResponse) -> None:
    """The number, why it is no higher, and what is worse than it should be."""
    total = answer.total
    if not total.predicted:
        page.prose(f"{which} made no predictions in this time.", style="bold")
        return
    if answer.explanation:
        page.prose(f"{which}: {answer.explanation.rstrip('.')}.", style="bold")
    elif not total.HasField("coverage"):
        page.prose(
            f"{which} made {count(total.predicted, 'prediction')}; none is mature yet, so its coverage is not known.",
            style="bold",
        )
    else:
        page.prose(
            f"{which}: {share(total.coverage)} of {count(total.mature, 'mature prediction')} have their outcome"
            f" ({share(answer.coverage_min)} wanted).",
            style="bold",
        )
    if answer.alert:
        page.prose("ALERT: coverage is below the policy's minimum.", style="bold red")
    for at, finding in enumerate(answer.findings):
        name = CAUSES.get(finding.cause, "")
        word = f"{'Likely cause: ' if at == 0 else 'Also: '}{name} ({share(finding.share)} of what is missing)."
        page.prose(f"{word} {finding.explanation}", style="bold yellow" if at == 0 else "yellow")
    if total.imputed:
        page.prose(f"{count(total.imputed, 'outcome')} of these {'was' if total.imputed == 1 else 'were'} guessed.")
    for text in answer.degraded:
        page.prose(f"{text[:1].upper()}{text[1:].rstrip('.')}.", style="yellow")


def _table(page: Page, rows: Sequence[messages.CoverageRow], by: str) -> None:
    shown = rows[-ROWS_SHOWN_MAX:] if by in ("day", "hour") else rows
    if by == "slice":
        shown = sorted(shown, key=lambda row: (not row.HasField("coverage"), row.coverage))
    sampled = any(row.sample_rate and row.sample_rate < 1 for row in shown)
    columns = [
        Column(title=by.upper()),
        Column(title="PREDICTED", right=True),
        Column(title="MATURE", right=True),
        Column(title="JOINED", right=True),
        *([Column(title="ABSENT", right=True)] if any(row.absent for row in shown) else []),
        Column(title="COVERAGE", right=True),
        *([Column(title="+-", right=True)] if sampled else []),
        *([Column(title="TOO LATE", right=True, spare=1)] if any(row.outside for row in shown) else []),
        *([Column(title="PENDING", right=True, spare=1)] if any(row.pending for row in shown) else []),
        Column(title="LATE", right=True, spare=3),
        *([Column(title="ORPHANS", right=True, spare=2)] if by in ("day", "hour") else []),
        Column(title="FROM", spare=4),
    ]
    titles = [column.title for column in columns]
    page.table(columns, [[_cells(row, by)[title] for title in titles] for row in shown])
    if len(shown) < len(rows):
        page.line(f"({count(len(rows) - len(shown), 'earlier row')} left out; --json has them)", "dim")


def _cells(row: messages.CoverageRow, by: str) -> dict[str, str]:
    names = {
        "day": day_word(instant_of(row, "start_time")),
        "hour": clock(instant_of(row, "start_time")),
        "version": version_word(row.version),
        "slice": row.slice or "-",
    }
    return {
        by.upper(): names[by],
        "PREDICTED": f"{row.predicted:,}",
        "MATURE": f"{row.mature:,}",
        "JOINED": f"{row.joined:,}",
        "ABSENT": f"{row.absent:,}",
        "COVERAGE": share(row.coverage) if row.HasField("coverage") else "-",
        "+-": share(1.96 * row.standard_error) if row.standard_error else "-",
        "TOO LATE": f"{row.outside:,}",
        "PENDING": f"{row.pending:,}",
        "LATE": f"{row.late:,}",
        "ORPHANS": f"{row.orphans:,}",
        "FROM": enum_word(messages.Layer, row.layer).lower(),
    }


def _advice(page: Page, answer: messages.GetCoverageResponse) -> None:
    """What to do, and what the labelled ones are worth."""
    remedies = list(dict.fromkeys(finding.remedy for finding in answer.findings if finding.remedy))
    if remedies:
        page.heading("WHAT TO DO")
        for at, remedy in enumerate(remedies, 1):
            page.prose(f"{at}. {remedy}")
    alike = answer.representativeness
    if answer.HasField("representativeness") and not alike.representative:
        page.heading("NO RANDOM SAMPLE")
        page.prose(alike.explanation)
        page.line()
        page.table(
            [
                Column(title="WEIGHTED METRIC"),
                Column(title="VALUE", right=True),
                Column(title="95 % INTERVAL"),
                Column(title="ROWS", right=True, spare=1),
            ],
            [
                [
                    metric.name,
                    number(metric.value),
                    f"{number(metric.low)} to {number(metric.high)}",
                    f"{metric.sample_size:,}",
                ]
                for metric in alike.weighted
            ],
        )


def _show_fleet(session: Session, low: bool, team: str) -> None:
    answer = session.runway.ground_truth.list_coverage(low_only=low, team=team)
    if session.as_json:
        session.emit(answer)
        return
    page = session.page
    if not answer.total:
        page.prose("No model gets outcomes yet.", style="bold")
        return
    if answer.low:
        has = "has less of the truth than its" if answer.low == 1 else "have less of the truth than their"
        page.prose(f"{answer.low:,} of {count(answer.total, 'model')} {has} policy asks for.", style="bold red")
    else:
        page.prose(
            f"All of {count(answer.total, 'model')} have enough of the truth, as far as it is due.", style="bold"
        )
    shown = answer.models[:MODELS_SHOWN_MAX]
    if shown:
        page.line()
    page.table(
        [
            Column(title="MODEL"),
            Column(title="TIER", spare=3),
            Column(title="MATURE", right=True, spare=2),
            Column(title="COVERAGE", right=True),
            Column(title="WANTED", right=True),
            Column(title="ALERT", spare=1),
            Column(title="LIKELY CAUSE"),
        ],
        [
            [
                one.model_id,
                tier_word(one.tier),
                f"{one.total.mature:,}",
                share(one.total.coverage) if one.total.HasField("coverage") else "-",
                share(one.coverage_min),
                "yes" if one.alert else "-",
                CAUSES.get(one.cause, "-"),
            ]
            for one in shown
        ],
    )
    if len(shown) < len(answer.models):
        page.line(f"({count(len(answer.models) - len(shown), 'model')} more; --json has them)", "dim")
    if answer.low:
        page.line()
        page.prose(f"`runway coverage {answer.models[0].model_id}` says why, and what to do.")
