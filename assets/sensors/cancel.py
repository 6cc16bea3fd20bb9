"""Ends the runs of retrains that Runway has cancelled, or that another retrain took the place of.

A worker that trains hears of it with its next heartbeat. A run that is still queued or starting, or that validates,
has no heartbeat: it would keep its place in the queue, or work on for nothing. A retrain that ended in any other way is
left alone, because its run may still be telling Dagster what it made.
"""

from collections.abc import Callable

import dagster as dg
from runway_client import RunwayRpcError

from assets.plane import Connect
from assets.sensors.lease import live_runs
from assets.tags import RETRAIN_TAG

EVERY_S = 2


def end_run(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Ask Dagster to end a run, queued or not; False if it has ended already."""
    return instance.run_coordinator.cancel_run(run_id)


def cancel_sensor(connect: Connect, end: Callable[[dg.DagsterInstance, str], bool] = end_run) -> dg.SensorDefinition:
    """The sensor."""

    @dg.sensor(
        name="end_cancelled_runs",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Terminates the runs of retrains that were cancelled or superseded in Runway.",
    )
    def end_cancelled_runs(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        runs = [
            run
            for run in live_runs(context.instance)
            if RETRAIN_TAG in run.tags and run.status is not dg.DagsterRunStatus.CANCELING
        ]
        if not runs:
            return dg.SensorResult(skip_reason="No retrain has a run.")
        plane = connect()
        ended: list[str] = []
        try:
            for run in runs:
                why = plane.cancelled(run.tags[RETRAIN_TAG])
                if why and end(context.instance, run.run_id):
                    ended.append(f"{run.tags[RETRAIN_TAG]}: {why}")
        except RunwayRpcError as error:
            ended.append(error.message)
        finally:
            plane.close()
        return dg.SensorResult(skip_reason="; ".join(ended) or "No retrain with a run was cancelled.")

    return end_cancelled_runs
