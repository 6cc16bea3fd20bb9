"""A join of a stretch of time, on the wire."""

from datetime import datetime, timedelta

from runway.v1 import facts_pb2

from control_plane.api.convert.common import instant_from
from control_plane.api.errors import invalid
from control_plane.app.fact_reports import JoinReport

JOIN_RANGE_MAX = timedelta(days=92)
"""A quarter: what is asked for at once must end within the patience of whoever waits for it."""

ENGINES = {"embedded": "duckdb", "spark": "spark"}
"""What joins, by the setting."""


def join_range(request: facts_pb2.JoinPartitionRequest, now: datetime) -> tuple[datetime, datetime]:
    """The asked stretch of prediction time.

    Raises:
        Invalid: it is turned round, too long, or has not begun.
    """
    start, end = instant_from(request.start_time, "start_time"), instant_from(request.end_time, "end_time")
    if start >= end:
        raise invalid("start_time", "order", f"{start.isoformat()} is not before {end.isoformat()}")
    if end - start > JOIN_RANGE_MAX:
        raise invalid(
            "start_time",
            "range",
            f"{(end - start).days} days are too many for one join: ask for at most {JOIN_RANGE_MAX.days} at once, "
            "one after the other",
        )
    if start > now:
        raise invalid(
            "start_time",
            "future",
            f"{start.isoformat()} has not come yet: the control plane's clock says {now.isoformat(timespec='minutes')}",
        )
    return start, end


def join_response(report: JoinReport, engine: str) -> facts_pb2.JoinPartitionResponse:
    """The answer."""
    return facts_pb2.JoinPartitionResponse(
        hours_joined=report.hours_joined,
        predicted=report.predicted,
        joined=report.joined,
        late=report.late,
        orphans=report.orphans,
        hours_live=report.hours_live,
        engine=ENGINES.get(engine, engine),
        cpu_s=report.cpu_s,
        models=[
            facts_pb2.ModelJoin(model_id=model_id, predicted=predicted, joined=joined, coverage=coverage)
            for model_id, predicted, joined, coverage in report.by_model
        ],
    )
