"""Rollouts and validations."""

from runway.v1 import rollout_pb2

from control_plane.api.convert.common import instant_from, timestamp
from control_plane.core.rollout.types import Rollout, RolloutState, Validation

STATES = {state: rollout_pb2.RolloutState.Value(f"ROLLOUT_STATE_{state.value}") for state in RolloutState}


def validation_from(message: rollout_pb2.Validation) -> Validation:
    """A comparison of candidate and production."""
    return Validation(
        passed=message.passed,
        metric=message.metric,
        candidate=message.candidate,
        production=message.production if message.HasField("production") else None,
        standard_error=message.standard_error,
        sample_size=message.sample_size,
        explanation=message.explanation,
        holdout_from=instant_from(message.holdout_from, "validation.holdout_from")
        if message.HasField("holdout_from")
        else None,
        holdout_until=instant_from(message.holdout_until, "validation.holdout_until")
        if message.HasField("holdout_until")
        else None,
    )


def validation(found: Validation) -> rollout_pb2.Validation:
    """A comparison on the wire."""
    return rollout_pb2.Validation(
        passed=found.passed,
        metric=found.metric,
        candidate=found.candidate,
        production=found.production,
        standard_error=found.standard_error,
        sample_size=found.sample_size,
        explanation=found.explanation,
        holdout_from=timestamp(found.holdout_from),
        holdout_until=timestamp(found.holdout_until),
    )


def rollout(found: Rollout) -> rollout_pb2.Rollout:
    """A rollout on the wire."""
    return rollout_pb2.Rollout(
        rollout_id=found.rollout_id,
        model_id=found.model_id,
        version=found.version,
        production_before=found.production_before,
        state=STATES[found.state],
        validation=validation(found.validation) if found.validation else None,
        started_at=timestamp(found.started_at),
        ended_at=timestamp(found.ended_at),
        retrain_id=found.retrain_id or "",
        conclusion=found.conclusion,
    )
