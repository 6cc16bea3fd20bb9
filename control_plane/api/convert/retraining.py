"""Retrains, attempts, leases."""

from runway.v1 import retraining_pb2

from control_plane.api.convert.common import timestamp
from control_plane.api.convert.registry import TIERS
from control_plane.core.retraining.types import Attempt, AttemptState, Retrain, RetrainCause, RetrainState
from control_plane.core.state import State

STATES = {state: retraining_pb2.RetrainState.Value(f"RETRAIN_STATE_{state.value}") for state in RetrainState}
STATES_FROM = {number: state for state, number in STATES.items()}
CAUSES = {cause: retraining_pb2.RetrainCause.Value(f"RETRAIN_CAUSE_{cause.value}") for cause in RetrainCause}
ATTEMPT_STATES = {state: retraining_pb2.AttemptState.Value(f"ATTEMPT_STATE_{state.value}") for state in AttemptState}


def attempt(found: Attempt) -> retraining_pb2.Attempt:
    """An attempt; its lease token stays between Runway and the scheduler."""
    return retraining_pb2.Attempt(
        attempt_id=found.attempt_id,
        number=found.number,
        state=ATTEMPT_STATES[found.state],
        scheduler=found.scheduler,
        leased_at=timestamp(found.leased_at),
        ended_at=timestamp(found.ended_at),
        failure=found.failure,
        run=found.run,
        version=found.version or 0,
    )


def retrain(state: State, found: Retrain, waiting_for: list[str]) -> retraining_pb2.Retrain:
    """A retrain with its attempts and why it waits."""
    return retraining_pb2.Retrain(
        retrain_id=found.retrain_id,
        model_id=found.model_id,
        state=STATES[found.state],
        causes=[CAUSES[cause] for cause in found.causes],
        tier=TIERS[state.models[found.model_id].facts.tier],
        score=found.score,
        requested_at=timestamp(found.requested_at),
        requested_by=found.requested_by,
        reason=found.reason,
        not_before=timestamp(found.not_before),
        attempts=[attempt(one) for one in found.attempts],
        ended_at=timestamp(found.ended_at),
        conclusion=found.conclusion,
        waiting_for=waiting_for,
        rollout_id=found.rollout_id or "",
    )


def lease(state: State, found: Retrain, held: Attempt) -> retraining_pb2.Lease:
    """What a scheduler needs to run an attempt."""
    facts = state.models[found.model_id].facts
    return retraining_pb2.Lease(
        attempt_id=held.attempt_id,
        retrain_id=found.retrain_id,
        model_id=found.model_id,
        lease_token=held.lease_token,
        expires_at=timestamp(held.expires_at),
        tier=TIERS[facts.tier],
        team=facts.team,
        wave=held.wave,
        data_until=timestamp(held.leased_at),
        causes=[cause.value for cause in found.causes],
    )
