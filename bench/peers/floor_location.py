"""What a user of Dagster would write to retrain on a signal: a sensor that looks for files, and a job of one op."""

import os
from pathlib import Path

import dagster as dg


@dg.op
def train() -> None:
    """Nothing: only that it starts is measured."""


@dg.job
def retrain() -> None:
    """One op."""
    train()


@dg.sensor(job=retrain, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def look_for_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """A run for each file that has not been seen."""
    folder = Path(os.environ["FLOOR_FOLDER"])
    seen = set((context.cursor or "").split())
    new = sorted(one.name for one in folder.iterdir() if one.name not in seen)
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=name, tags={"trigger": name}) for name in new],
        cursor=" ".join(sorted({*seen, *new})),
    )


defs = dg.Definitions(jobs=[retrain], sensors=[look_for_files], executor=dg.in_process_executor)
