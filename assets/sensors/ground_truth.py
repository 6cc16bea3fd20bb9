"""When partitions of ground truth are joined: by the clock on the wall, or by Runway's where that is another one.

On the wall's clock two schedules do it: an hour ten minutes after it is over, a day half an hour after. Each night the
day is joined that became seven days old as well, for by then the outcomes of most labels are in. In a replay a day
lasts seconds and the year is another, so the schedules stand back and a sensor asks Runway what time it is: it requests
what has become due since it last asked as one run over the whole stretch, and never while the one before still runs.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from runway_client import RunwayRpcError

from assets.ground_truth import NAMES, Grain, Span, partitions
from assets.plane import Connect, Status

EVERY_S = 4

AGAIN_AFTER = timedelta(days=7)
"""A day is joined once more when it is this old."""

STEP = {"daily": timedelta(days=1), "hourly": timedelta(hours=1)}
PARTITIONS_PER_RUN_MAX = {"daily": 31, "hourly": 48}
"""Of one run of the sensor: each partition costs a join and some 20 ms of writing; a run stays below a minute."""

PAUSE_S = {"daily": 30.0, "hourly": 60.0}
"""Seconds on the wall between two runs of the sensor: in a replay that runs a year in minutes, joins must not take the
machine from the trainings. What became due meanwhile goes into one run."""

PARTITIONS_TAG = "runway/ground_truth"

CRON = {"daily": "30 0 * * *", "hourly": "10 * * * *"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The cursor: up to when partitions were requested, and at which second on the wall."""

    until: dict[str, datetime] = {}
    asked_s: dict[str, float] = {}


def follow_clock_sensor(connect: Connect, span: Span, clock: Callable[[], float]) -> dg.SensorDefinition:
    """The sensor; `clock` gives wall-clock seconds."""

    @dg.sensor(
        name="join_by_runways_clock",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        asset_selection=[dg.AssetKey([name]) for name in NAMES.values()],
        description="In a replay: joins the days and hours of ground truth that are over by Runway's clock.",
    )
    def join_by_runways_clock(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        status = told(connect)
        if isinstance(status, str):
            return dg.SensorResult(skip_reason=status)
        if not status.driven or status.now is None:
            return dg.SensorResult(skip_reason="Runway's clock is the one on the wall: the schedules do this.")
        asked, now_s = read_cursor(context.cursor), clock()
        requests: list[dg.RunRequest] = []
        for grain in NAMES:
            if now_s - asked.asked_s.get(grain, float("-inf")) < PAUSE_S[grain] or _runs(context.instance, grain):
                continue
            start, end = due(grain, status.now, asked.until.get(grain), span)
            if start >= end:
                continue
            requests += _requests(grain, start, end, span)
            asked = Asked(until={**asked.until, grain: end}, asked_s={**asked.asked_s, grain: now_s})
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "Nothing is due.",
            cursor=msgspec.json.encode(asked).decode(),
        )

    return join_by_runways_clock


def ground_truth_schedules(connect: Connect, span: Span) -> list[dg.ScheduleDefinition]:
    """One for each asset."""
    return [_schedule(grain, connect, span) for grain in NAMES]


def _schedule(grain: Grain, connect: Connect, span: Span) -> dg.ScheduleDefinition:
    def request(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        status = told(connect)
        # While nobody answers the partition is requested all the same: its run waits, and tries again.
        if not isinstance(status, str) and status.driven:
            yield dg.SkipReason("Runway's clock is driven: the sensor join_by_runways_clock follows it.")
            return
        now = context.scheduled_execution_time.astimezone(UTC)
        end = whole(grain, now)
        start = end - STEP[grain]
        found = list(_requests(grain, start, end, span))
        if found:
            yield from found
        else:
            yield dg.SkipReason(f"There is no partition for {start:%Y-%m-%d %H:%M} yet.")

    return dg.ScheduleDefinition(
        name=f"join_{grain}",
        cron_schedule=CRON[grain],
        execution_timezone="UTC",
        job_name="__ASSET_JOB",
        execution_fn=request,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Joins each {'day' if grain == 'daily' else 'hour'} of predictions once it is over.",
    )


def told(connect: Connect) -> Status | str:
    """What the control plane says of itself, or why it says nothing."""
    try:
        plane = connect()
        try:
            return plane.status()
        finally:
            plane.close()
    except RunwayRpcError as error:
        return error.message


def whole(grain: Grain, instant: datetime) -> datetime:
    """The day or hour that an instant is in, by its start."""
    hour = instant.replace(minute=0, second=0, microsecond=0)
    return hour.replace(hour=0) if grain == "daily" else hour


def due(grain: Grain, now: datetime, until: datetime | None, span: Span) -> tuple[datetime, datetime]:
    """[start, end) of what is over and was not requested yet, as much of it as one run takes."""
    first = datetime(span.start.year, span.start.month, span.start.day, tzinfo=UTC)
    start = max(first, until or first)
    end = whole(grain, now)
    if span.until is not None:
        end = min(end, datetime(span.until.year, span.until.month, span.until.day, tzinfo=UTC))
    return start, min(end, start + PARTITIONS_PER_RUN_MAX[grain] * STEP[grain])


def _requests(grain: Grain, start: datetime, end: datetime, span: Span) -> Iterator[dg.RunRequest]:
    """Of a stretch, and of days the stretch that is old enough by now to be joined for good."""
    first = datetime(span.start.year, span.start.month, span.start.day, tzinfo=UTC)
    stretches = [("first", start, end)]
    if grain == "daily":
        stretches.append(("again", max(first, start - AGAIN_AFTER), end - AGAIN_AFTER))
    pieces = partitions(grain, span)
    for which, a, b in stretches:
        if max(a, first) < b:
            keys = [pieces.get_partition_key_for_timestamp(at.timestamp()) for at in (max(a, first), b - STEP[grain])]
            yield dg.RunRequest(
                run_key=f"{NAMES[grain]}/{keys[0]}/{keys[1]}/{which}",
                asset_selection=[dg.AssetKey([NAMES[grain]])],
                tags={
                    ASSET_PARTITION_RANGE_START_TAG: keys[0],
                    ASSET_PARTITION_RANGE_END_TAG: keys[1],
                    PARTITIONS_TAG: grain,
                },
            )


def _runs(instance: dg.DagsterInstance, grain: Grain) -> bool:
    """Whether a run that the sensor asked for has not ended."""
    unfinished = [
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    return bool(instance.get_runs(filters=dg.RunsFilter(statuses=unfinished, tags={PARTITIONS_TAG: grain}), limit=1))


def read_cursor(text: str | None) -> Asked:
    """The cursor; a blank one for none, or one of another age."""
    try:
        return msgspec.json.decode(text or "{}", type=Asked)
    except msgspec.DecodeError:
        return Asked()
