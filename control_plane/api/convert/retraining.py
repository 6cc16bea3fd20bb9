"""Retrains, attempts, leases."""

from runway.v1 import retraining_pb2

from control_plane.api.convert.common import timestamp
from control_plane.api.convert.registry import TIERS
from control_plane.app.returns import ReturnTotal
from control_plane.core.decide.cascade_plan import PlannedRetrain, RetrainPlan
from control_plane.core.retraining.types import (
    Attempt,
    AttemptState,
    FailureClass,
    Retrain,
    RetrainCause,
    RetrainState,
)
from control_plane.core.rollout.types import Uplift
from control_plane.core.state import State

STATES = {state: retraining_pb2.RetrainState.Value(f"RETRAIN_STATE_{state.value}") for state in RetrainState}
STATES_FROM = {number: state for state, number in STATES.items()}
CAUSES = {cause: retraining_pb2.RetrainCause.Value(f"RETRAIN_CAUSE_{cause.value}") for cause in RetrainCause}
FAILURE_CLASSES = {
    failure_class: retraining_pb2.FailureClass.Value(f"FAILURE_CLASS_{failure_class.value}")
    for failure_class in FailureClass
}
FAILURE_CLASSES_FROM = {number: failure_class for failure_class, number in FAILURE_CLASSES.items()}
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
        failure_class=FAILURE_CLASSES[found.failure_class]
        if found.failure_class is not None
        else retraining_pb2.FAILURE_CLASS_UNSPECIFIED,
        gpu_hours_reserved=found.gpu_hours_reserved,
        gpu_hours=found.gpu_hours,
        log_url=found.log_url,
        probe=found.probe,
    )


def retrain(
    state: State, found: Retrain, waiting_for: list[str], planned: PlannedRetrain | None = None
) -> retraining_pb2.Retrain:
    """A retrain with its attempts, why it waits, and what the plan expects of it."""
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
        held_by=found.held_by,
        hold_reason=found.hold_reason,
        group=found.group,
        expires_at=timestamp(found.expires_at),
        superseded_by=found.superseded_by or "",
        ignore_cooldown=found.ignore_cooldown,
        expected=expected(planned) if planned is not None else None,
    )


def expected(found: PlannedRetrain) -> retraining_pb2.ExpectedRetrain:
    """One retrain as a plan expects it."""
    facts, policy = found.record.facts, found.record.retraining_policy
    return retraining_pb2.ExpectedRetrain(
        model_id=facts.model_id,
        tier=TIERS[facts.tier],
        team=facts.team,
        wave=found.expected.wave,
        slot=found.expected.slot,
        starts_at=timestamp(found.expected.starts_at),
        ends_at=timestamp(found.expected.ends_at),
        gpu_hours=found.gpu_hours,
        waits_for=found.expected.waits_for,
        requested=found.requested,
        likelihood=found.likelihood,
        why_likely=found.why_likely,
        retrain_id=found.retrain_id or "",
        downstream=found.downstream,
        resource_class=policy.resource_class,
        scheduler=policy.scheduler,
    )


def plan(found: RetrainPlan) -> retraining_pb2.RetrainPlan:
    """A whole plan on the wire."""
    return retraining_pb2.RetrainPlan(
        retrains=[expected(one) for one in found.retrains],
        waves=found.waves,
        ends_at=timestamp(found.ends_at),
        gpu_hours_expected=found.gpu_hours_expected,
        gpu_hours_max=found.gpu_hours_max,
        retrains_max=found.retrains_max,
        running_max=found.running_max,
        warnings=found.warnings,
        etag=found.etag,
    )


def uplift(found: Uplift, causes: tuple[RetrainCause, ...]) -> retraining_pb2.Return:
    """What one retrain brought."""
    return retraining_pb2.Return(
        retrain_id=found.retrain_id or "",
        model_id=found.model_id,
        version=found.version,
        metric=found.metric,
        before=found.before,
        after=found.after,
        uplift=found.uplift,
        standard_error=found.standard_error,
        sample_size=found.sample_size,
        gpu_hours=found.gpu_hours,
        measured_at=timestamp(found.measured_at),
        causes=[CAUSES[cause] for cause in causes],
    )


def total(found: ReturnTotal) -> retraining_pb2.ReturnTotal:
    """What one model's retrains came to."""
    return retraining_pb2.ReturnTotal(
        model_id=found.model_id,
        retrains=found.retrains,
        promoted=found.promoted,
        measured=found.measured,
        uplift=found.uplift,
        gpu_hours=found.gpu_hours,
        for_nothing=found.for_nothing,
    )


def lease(state: State, found: Retrain, held: Attempt) -> retraining_pb2.Lease:
    """What a scheduler needs to run an attempt."""
    record = state.models[found.model_id]
    facts = record.facts
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
        resource_class=record.retraining_policy.resource_class,
        memory_scale=held.memory_scale,
        group=found.group,
        probe=held.probe,
    )
