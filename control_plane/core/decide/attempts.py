"""Attempts: leases renewed, results reported, time run out."""

from datetime import datetime

from control_plane.core.commands import ExpireAttempt, RenewLease, ReportFailure, ReportSuccess, Result
from control_plane.core.decide.breakers import probe_ended
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.onward import cleared
from control_plane.core.decide.rollout_ends import candidate_move, ready
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.events import AttemptEnded, Event, LeaseRenewed, RetrainEnded, RolloutStarted
from control_plane.core.ids import AttemptId, RetrainId, RolloutId
from control_plane.core.retraining.failures import classify, gave_up, gpu_hours_spent, retry_at
from control_plane.core.retraining.rules import held_lease, overdue
from control_plane.core.retraining.types import Attempt, AttemptState, FailureClass, Retrain, RetrainState
from control_plane.core.rollout.plan import plan_of
from control_plane.core.state import State, begun


def renew_lease(state: State, command: RenewLease, now: datetime) -> Decision:
    """Push the expiry out by the model's lease time."""
    retrain = state.retrain_of_attempt(command.attempt_id)
    held_lease(retrain, command.attempt_id, command.lease_token, now)
    policy = state.models[retrain.model_id].retraining_policy
    renewed = LeaseRenewed(
        retrain_id=retrain.retrain_id,
        model_id=retrain.model_id,
        attempt_id=command.attempt_id,
        expires_at=now + policy.lease_ttl,
        run=command.run,
    )
    return Decision(events=(renewed,), result=_attempt_result(retrain, command.attempt_id))


def report_success(state: State, command: ReportSuccess, now: datetime) -> Decision:
    """The attempt made a version: it becomes the candidate, and a rollout begins."""
    retrain = state.retrain_of_attempt(command.attempt_id)
    for attempt in retrain.attempts:
        if attempt.attempt_id == command.attempt_id and attempt.state is AttemptState.SUCCEEDED:
            return Decision(result=_attempt_result(retrain, command.attempt_id))
    attempt = held_lease(retrain, command.attempt_id, command.lease_token, now)
    version = state.version(retrain.model_id, command.version)
    if version.attempt_id != command.attempt_id:
        raise Invalid(
            Reason.INVALID_ARGUMENT,
            Violation(
                field="succeeded_version",
                rule="attempt",
                message=f"version {command.version} was not registered by {command.attempt_id}: "
                "call RegisterVersion with the attempt id first",
            ),
        )
    record = state.models[retrain.model_id]
    ended = AttemptEnded(
        retrain_id=retrain.retrain_id,
        model_id=retrain.model_id,
        attempt_id=command.attempt_id,
        state=AttemptState.SUCCEEDED,
        run=command.run or attempt.run,
        version=command.version,
        gpu_hours=gpu_hours_spent(
            attempt,
            command.gpu_hours,
            record.retraining_policy.gpus,
            record.retraining_policy.duration_expected,
            now,
        ),
        log_url=command.log_url,
    )
    started = RolloutStarted(
        rollout_id=RolloutId(f"ro_{state.rollouts_count + 1:06d}"),
        model_id=retrain.model_id,
        version=command.version,
        production_before=record.production.number if record.production else 0,
        retrain_id=retrain.retrain_id,
        plan=plan_of(record.rollout_policy),
        requested_by=retrain.requested_by,
    )
    if record.validation_policy.skip and ready(record, version):
        then = cleared(state, begun(started, now), now, "its policy asks for no validation here")
    else:
        then = candidate_move(record, version)
    probed = probe_ended(state, attempt, None, now)
    return Decision(events=(ended, started, *then, *probed), result=_attempt_result(retrain, command.attempt_id))


def report_failure(state: State, command: ReportFailure, now: datetime) -> Decision:
    """The attempt failed: try again after the backoff, or end the retrain after the last attempt."""
    retrain = state.retrain_of_attempt(command.attempt_id)
    for attempt in retrain.attempts:
        if attempt.attempt_id == command.attempt_id and attempt.state is AttemptState.FAILED:
            return Decision(result=_attempt_result(retrain, command.attempt_id))
    attempt = held_lease(retrain, command.attempt_id, command.lease_token, now)
    events = failed_attempt(
        state,
        retrain,
        attempt,
        AttemptState.FAILED,
        command.failure,
        now,
        failure_class=FailureClass.BUG if command.permanent else command.failure_class or classify(command.failure),
        run=command.run,
        gpu_hours=command.gpu_hours,
        log_url=command.log_url,
    )
    return Decision(events=events, result=_attempt_result(retrain, command.attempt_id))


def expire_attempt(state: State, command: ExpireAttempt, now: datetime) -> Decision:
    """A lease or an attempt ran out of time, if it still has when this is decided."""
    retrain = state.retrain_of_attempt(command.attempt_id)
    attempt = retrain.running_attempt
    result = _attempt_result(retrain, command.attempt_id)
    if attempt is None or attempt.attempt_id != command.attempt_id:
        return Decision(result=result)
    why = overdue(attempt, state.models[retrain.model_id].retraining_policy, now)
    if not why:
        return Decision(result=result)
    events = failed_attempt(
        state, retrain, attempt, AttemptState.LEASE_EXPIRED, why, now, failure_class=FailureClass.TIMEOUT
    )
    return Decision(events=events, result=result)


def failed_attempt(
    state: State,
    retrain: Retrain,
    attempt: Attempt,
    ended_as: AttemptState,
    failure: str,
    now: datetime,
    *,
    failure_class: FailureClass,
    run: str = "",
    gpu_hours: float | None = None,
    log_url: str = "",
) -> tuple[Event, ...]:
    """The end of a failed attempt, and of its retrain when it was the last."""
    policy = state.models[retrain.model_id].retraining_policy
    again = retry_at(policy, retrain, failure_class, now)
    spent = gpu_hours_spent(attempt, gpu_hours, policy.gpus, policy.duration_expected, now)
    ended = attempt_ended(
        retrain,
        attempt,
        ended_as,
        failure,
        run=run,
        again=again,
        failure_class=failure_class,
        # What never started has spent nothing.
        gpu_hours=0.0 if failure_class is FailureClass.SCHEDULER else spent,
        log_url=log_url,
    )
    probed = probe_ended(state, attempt, failure_class, now)
    if again is not None:
        return (ended, *probed)
    look = log_url or run or attempt.run
    conclusion = gave_up(retrain, failure, failure_class, look)
    return (ended, retrain_ended(retrain, RetrainState.FAILED, conclusion), *probed)


def attempt_ended(
    retrain: Retrain,
    attempt: Attempt,
    ended_as: AttemptState,
    failure: str,
    *,
    run: str = "",
    again: datetime | None = None,
    failure_class: FailureClass | None = None,
    gpu_hours: float = 0.0,
    log_url: str = "",
) -> AttemptEnded:
    """The end of the running attempt."""
    return AttemptEnded(
        retrain_id=retrain.retrain_id,
        model_id=retrain.model_id,
        attempt_id=attempt.attempt_id,
        state=ended_as,
        failure=failure,
        run=run or attempt.run,
        retry_at=again,
        failure_class=failure_class,
        gpu_hours=gpu_hours,
        log_url=log_url,
    )


def retrain_ended(
    retrain: Retrain, ended_as: RetrainState, conclusion: str, successor: RetrainId | None = None
) -> RetrainEnded:
    """The end of a retrain."""
    return RetrainEnded(
        retrain_id=retrain.retrain_id,
        model_id=retrain.model_id,
        state=ended_as,
        conclusion=conclusion,
        superseded_by=successor,
    )


def _attempt_result(retrain: Retrain, attempt_id: AttemptId) -> Result:
    return Result(model_id=retrain.model_id, retrain_id=retrain.retrain_id, attempt_ids=(attempt_id,))
