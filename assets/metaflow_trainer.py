"""Trains by a Metaflow flow inside a Dagster op: Metaflow's own `Runner`, each run tagged with its attempt.

A run that is there already is taken, not made again: Dagster may run an op twice, an attempt is trained once. The flow
says what it made in an artifact:

    self.runway_version = {"artifact_uri": ..., "artifact_sha256": ..., "artifact_size_bytes": ..., "metrics": {...}}
"""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from assets.plane import Evidence, Metric, TrainedVersion, Validation
from assets.trainer import TrainingOrder

TAG = "runway_attempt:"
ARTIFACT = "runway_version"
LAST_WORDS_CHARS_MAX = 500


class FlowFailedError(Exception):
    """The flow ended without a version."""


class MetaflowTrainer:
    """The trainer of models that one flow trains.

    Args:
        flow_file: the file with the flow.
        flow_name: its class, as Metaflow names it.
        validate: how a version is compared with production; flows differ in nothing more than in this.
    """

    def __init__(
        self,
        flow_file: Path,
        flow_name: str,
        validate: Callable[[TrainingOrder, int, Callable[[str], None]], Validation | Evidence],
        environment: dict[str, str] | None = None,
    ) -> None:
        self._flow_file, self._flow_name = flow_file, flow_name
        self._validate = validate
        self._environment = environment or {}

    def train(self, order: TrainingOrder, say: Callable[[str], None]) -> TrainedVersion:
        """Run the flow, or take the run of this attempt that has succeeded.

        Raises:
            FlowFailedError: the flow failed, or says nothing of what it made.
        """
        run = self._found(order.attempt_id)
        if run is None:
            run = self._run(order)
        else:
            say(f"attempt {order.attempt_id} was trained before, in {run.pathspec}")
        say(f"Metaflow run {run.pathspec}")
        return _version(run, order.data_until)

    def validate(self, order: TrainingOrder, version: int, say: Callable[[str], None]) -> Validation | Evidence:
        """As it was told to."""
        return self._validate(order, version, say)

    def _found(self, attempt_id: str) -> Any:
        """The newest run of an attempt that has succeeded; None if there is none."""
        from metaflow import Flow, namespace  # noqa: PLC0415 - heavy, and only here
        from metaflow.exception import MetaflowNotFound  # noqa: PLC0415

        namespace(None)
        try:
            flow = Flow(self._flow_name)  # type: ignore[no-untyped-call]  # Metaflow has no annotations
            return next((run for run in flow.runs(f"{TAG}{attempt_id}") if run.successful), None)
        except MetaflowNotFound:
            return None

    def _run(self, order: TrainingOrder) -> Any:
        from metaflow import Runner  # noqa: PLC0415 - heavy, and only here

        told = {
            "RUNWAY_ATTEMPT_ID": order.attempt_id,
            "RUNWAY_RETRAIN_ID": order.retrain_id,
            "RUNWAY_MODEL_ID": order.model_id,
            "RUNWAY_DATA_UNTIL": order.data_until.isoformat(),
            "RUNWAY_CAUSES": ",".join(order.causes),
        }
        with Runner(str(self._flow_file), show_output=False, env=os.environ | self._environment | told) as runner:
            done = runner.run(tags=[f"{TAG}{order.attempt_id}"])
            if done.status != "successful":
                said = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
                words = said[-1][-LAST_WORDS_CHARS_MAX:] if said else "it says nothing"
                raise FlowFailedError(f"the flow {self._flow_name} ended {done.status}: {words}")
            return done.run


def _version(run: Any, data_until: datetime) -> TrainedVersion:
    made = getattr(run.data, ARTIFACT, None) if run.data is not None else None
    if not isinstance(made, dict) or not made.get("artifact_uri"):
        raise FlowFailedError(
            f"{run.pathspec} says nothing of what it made: set self.{ARTIFACT} with artifact_uri, artifact_sha256 and "
            "artifact_size_bytes"
        )
    metrics: dict[str, float] = made.get("metrics", {})
    return TrainedVersion(
        artifact_uri=str(made["artifact_uri"]),
        artifact_sha256=str(made.get("artifact_sha256", "")),
        artifact_size_bytes=int(made.get("artifact_size_bytes", 0)),
        trained_until=data_until,
        metrics=tuple(Metric(name=name, value=float(value)) for name, value in sorted(metrics.items())),
    )
