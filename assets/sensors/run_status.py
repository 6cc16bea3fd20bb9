"""The net under the op: reports attempts whose worker ended without a word.

The op reports how its attempt ended. A worker that was killed, or that could not reach the control plane, did not; its
run ends as FAILURE or CANCELED, and this sensor reports that with the lease token in the run's tags. What was reported
already is refused or answered again by the control plane, both harmless.

A plain sensor with a cursor of its own instead of Dagster's run-status sensor: the cursor moves only past runs that the
control plane has taken in, so an hour without it loses nothing, and one tick takes fifty runs instead of five.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec
from runway_client import RunwayRpcError, Unreachable
from runway_client.errors import NoAnswer

from assets.plane import Connect, ControlPlane, Validation
from assets.tags import ATTEMPT_TAG, EXIT_TAG, LEASE_TAG, MODEL_TAG, RETRAIN_TAG, WORKER_TAG

RUNS_PER_TICK_MAX = 50
EVERY_S = 2

OVERLAP = timedelta(seconds=60)
"""How far each look reaches back behind the last: runs become visible in order of commit, not of their times."""

FIRST_LOOK = timedelta(days=1)
"""How far back the very first look goes: leases older than that have expired in any case."""

REMEMBERED_MAX = 1_000
"""Runs inside the overlap; at 43 runs a minute it never holds a tenth of that."""


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """Runs updated before `since` are done with; of those since then, `done`."""

    since: datetime
    done: tuple[str, ...] = ()


def run_status_sensor(connect: Connect) -> dg.SensorDefinition:
    """The sensor."""

    @dg.sensor(
        name="report_ended_runs",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells Runway about attempts whose worker was killed or could not report.",
    )
    def report_ended_runs(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = datetime.now(UTC)
        cursor = read_cursor(context.cursor, now)
        records = context.instance.get_run_records(
            filters=dg.RunsFilter(
                statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED], updated_after=cursor.since
            ),
            order_by="update_timestamp",
            ascending=True,
        )
        done = set(cursor.done)
        fresh = [record for record in records if record.dagster_run.run_id not in done][:RUNS_PER_TICK_MAX]
        if not fresh:
            return dg.SensorResult(skip_reason="No run ended badly.")
        plane = connect()
        said: list[str] = []
        since = cursor.since
        try:
            for record in fresh:
                said += report(plane, record.dagster_run, started=was_started(record))
                done.add(record.dagster_run.run_id)
                since = max(since, record.update_timestamp.replace(tzinfo=UTC) - OVERLAP)
        except (Unreachable, NoAnswer) as error:
            said.append(f"the rest later: {error.message}")
        finally:
            plane.close()
        kept = tuple(record.dagster_run.run_id for record in records if record.dagster_run.run_id in done)
        text = msgspec.json.encode(Cursor(since=since, done=kept[-REMEMBERED_MAX:])).decode()
        return dg.SensorResult(skip_reason="; ".join(said) or "Reported already.", cursor=text)

    return report_ended_runs


def read_cursor(text: str | None, now: datetime) -> Cursor:
    """The cursor, or where to begin without one."""
    try:
        return msgspec.json.decode(text or "", type=Cursor)
    except msgspec.DecodeError:
        return Cursor(since=now - FIRST_LOOK)


def was_started(record: dg.RunRecord) -> bool:
    """Did Dagster get a worker going for a run, whatever became of it?"""
    return record.start_time is not None or WORKER_TAG in record.dagster_run.tags


def report(plane: ControlPlane, run: dg.DagsterRun, *, started: bool = True) -> list[str]:
    """Report one ended run; what there was to say.

    Raises:
        Unreachable, NoAnswer: not now; everything else the control plane answers is final.
    """
    tags = run.tags
    if ATTEMPT_TAG not in tags or LEASE_TAG not in tags:
        return []
    attempt_id, cancelled = tags[ATTEMPT_TAG], run.status is dg.DagsterRunStatus.CANCELED
    if not started and not cancelled:
        failure = "Dagster could not start its run"
        try:
            plane.report_never_started(attempt_id, tags[LEASE_TAG], failure, run.run_id)
        except (Unreachable, NoAnswer):
            raise
        except RunwayRpcError:
            return _refuse_orphan(plane, run)
        return [f"{attempt_id}: {failure}"]
    failure = "terminated in Dagster" if cancelled else how_it_ended(tags.get(EXIT_TAG, ""))
    try:
        plane.report_failure(attempt_id, tags[LEASE_TAG], failure, run.run_id, permanent=cancelled)
    except (Unreachable, NoAnswer):
        raise
    except RunwayRpcError:
        return _refuse_orphan(plane, run)
    return [f"{attempt_id}: {failure}"]


def how_it_ended(code: str) -> str:
    """What became of a worker that said nothing, from its exit code.

    >>> how_it_ended("-9")
    'its worker was killed by signal 9, as for want of memory'
    >>> how_it_ended("")
    'its worker ended without a word'
    """
    match code:
        case "-9":
            return "its worker was killed by signal 9, as for want of memory"
        case "-15":
            return "its worker was evicted by signal 15"
        case "":
            return "its worker ended without a word"
        case _:
            return f"its worker ended without a word, exit code {code}"


def _refuse_orphan(plane: ControlPlane, run: dg.DagsterRun) -> list[str]:
    """The attempt is over already. If it left a candidate that nobody will validate any more, refuse that."""
    attempt_id = run.tags[ATTEMPT_TAG]
    why = "its run ended before the validation was reported"
    try:
        version = plane.candidate_of_attempt(run.tags[RETRAIN_TAG], attempt_id)
        if version is None:
            return []
        validation = Validation(passed=False, metric="none", candidate=0.0, explanation=why)
        plane.report_validation(run.tags[MODEL_TAG], version, validation)
    except (Unreachable, NoAnswer):
        raise
    except RunwayRpcError:
        return []
    return [f"{attempt_id}: {why}"]
