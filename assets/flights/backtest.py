"""Policies tried on the year of flights, with models that are really trained.

    python -m assets.flights.backtest --models arrival_delay_ewr departure_delay_lga --html flights.html

Contenders: a retrain every 7 and every 30 days, PSI alone, performance alone, the fleet's own policies, a policy that
trusts outcomes (`OUTCOMES_FIRST`), and an oracle that knows the future. What is tried and how truth is told is in
`backtest_world`. Fits are kept in `RUNWAY_HOME/flights/backtest`, so that the second time takes a minute.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from assets.flights.backtest_world import LAST_DAY, FlightsWorld
from assets.flights.data import FlightsError
from assets.flights.fleet import BY_ID, FIRST_DAY
from assets.flights.home import home
from assets.flights.training import TrainingError
from control_plane.backtest.comparison import compare
from control_plane.backtest.contenders import (
    EVERY_MODEL,
    Contender,
    current,
    every,
    oracle,
    performance_only,
    psi_only,
    with_policies,
)
from control_plane.backtest.report import Report, encode_report
from control_plane.core.policies import Overrides
from control_plane.offline.backtest_page import figure, page

MODELS = ("arrival_delay_ewr", "arrival_delay_jfk", "departure_delay_lga")
"""Three airports, both questions."""

OUTCOMES_FIRST: Overrides = {
    "staleness.weights.age": 0.0,
    "staleness.weights.input_drift": 0.1,
    "staleness.weights.prediction_drift": 0.1,
    "staleness.weights.performance": 0.8,
    "staleness.stale_threshold": 0.45,
    "staleness.at_risk_threshold": 0.30,
    "staleness.window_days": 14.0,
    "staleness.age_backstop_days": 120.0,
}
"""Flights are labelled within hours, and weather drifts all year: so outcomes decide, over a fortnight, which holds
enough late flights of one airport to be sure of five points of AUC. Drift alone cannot make a model stale."""


def contenders() -> list[Contender]:
    """Everybody, in the order of the table."""
    return [
        current(),
        with_policies("outcomes first", (EVERY_MODEL, OUTCOMES_FIRST)),
        performance_only(),
        psi_only(),
        every(timedelta(days=7)),
        every(timedelta(days=30)),
        oracle(),
    ]


def tried(
    models: Sequence[str] = MODELS,
    start: datetime = FIRST_DAY,
    end: datetime = LAST_DAY,
    folder: Path | None = None,
    who: Sequence[Contender] = (),
    tolerance: float | None = None,
) -> Report:
    """Run contenders (all of them if none is named) on these models.

    Args:
        folder: where fits are kept.
        tolerance: see `FlightsWorld`.
    Raises:
        FlightsError, TrainingError: the data are not there, or too few for a first version.
    """
    world = FlightsWorld(models, start, end, folder if folder is not None else home() / "backtest", tolerance)
    return compare(
        world,
        list(who) or contenders(),
        progress=lambda name, done: print(f"\r{name:<20} {done:>4.0%}", end="", file=sys.stderr),
    )


def table(report: Report) -> str:
    """The report as text."""
    lines = [
        f"{report.models} models, {report.start_time:%Y-%m-%d} to {report.end_time:%Y-%m-%d}; "
        f"every version was {'estimated' if report.estimated else 'really trained'}",
        f"{'':<18}{'retrains':>9}{'GPU h':>7}{'stale h':>9}{'quality':>9}{'fresh':>8}{'false/mo':>10}{'delay h':>9}"
        f"{'recall':>8}{'prec.':>7}{'F1':>6}{'regret':>9}",
    ]
    for one in report.results:
        delay = "-" if one.detection_delay_hours is None else f"{one.detection_delay_hours:.0f}"
        lines.append(
            f"{one.name:<18}{one.retrains:>9}{one.gpu_hours:>7.2f}{one.stale_hours:>9,.0f}{one.quality:>9.4f}"
            f"{one.quality_fresh:>8.4f}{one.false_alarms_per_model_month:>10.2f}{delay:>9}{one.recall:>8.2f}"
            f"{one.precision:>7.2f}{one.f1:>6.2f}{one.regret:>9.4f}"
        )
    promoted = "; ".join(
        f"{one.name} {sum(row.promoted for row in one.retrain_log)} of {len(one.retrain_log)}" for one in report.results
    )
    return "\n".join([*lines, f"promoted of asked: {promoted}", report.reading, *report.warnings])


def _day(text: str) -> datetime:
    found = date.fromisoformat(text)
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


def main() -> int:
    """Exit code: 0, 1 with a sentence when the data are not there, 2 for wrong arguments."""
    known = sorted(one.model_id for one in BY_ID.values() if one.task != "embedding")
    parser = argparse.ArgumentParser(prog="python -m assets.flights.backtest", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=known, metavar="MODEL", help=", ".join(known))
    parser.add_argument("--from", dest="start", type=_day, default=FIRST_DAY, help="first day; default 2013-03-01")
    parser.add_argument("--to", dest="end", type=_day, default=LAST_DAY, help="day after the last; default 2014-01-01")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="call a model truly stale that is worse than a fresh one by so much; default: its performance_tolerance",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the plots")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the picture alone")
    parser.add_argument("--json", action="store_true", help="print all numbers instead of the table")
    arguments = parser.parse_args()
    if not FIRST_DAY <= arguments.start < arguments.end <= LAST_DAY:
        parser.error(
            f"--from and --to are days from {FIRST_DAY:%Y-%m-%d} to {LAST_DAY:%Y-%m-%d}, the first one earlier"
        )
    try:
        report = tried(arguments.models, arguments.start, arguments.end, tolerance=arguments.tolerance)
    except (FlightsError, TrainingError) as error:
        print(f"flights: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(file=sys.stderr)
    print(encode_report(report).decode() if arguments.json else table(report))
    if arguments.html is not None:
        arguments.html.write_text(page(report, "The flights fleet, March to December 2013"), encoding="utf-8")
    if arguments.png is not None:
        arguments.png.write_bytes(figure(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
