"""Retraining: requests, leases, attempts."""

from datetime import datetime

from control_plane.core.commands import (
    CancelRetrain,
    CloseHealed,
    ExpireAttempt,
    LeaseRetrains,
    RenewLease,
    ReportFailure,
    ReportSuccess,
    RequestRetrain,
    Result,
)
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.onward import cleared
from control_plane.core.decide.rollout_ends import candidate_move, drop_candidate, ready
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import (
    AttemptEnded,
    Event,
    LeaseRenewed,
    RetrainEnded,
    RetrainJoined,
    RetrainLeased,
    RetrainRequested,
    RolloutEnded,
    RolloutStarted,
)
from control_plane.core.graph.order import topological_waves
from control_plane.core.ids import AttemptId, ModelId, RetrainId, RolloutId, model_node, node_name
from control_plane.core.relations import check_not_retired
from control_plane.core.retraining.rules import (
    earliest_start,
    held_lease,
    merged_causes,
    overdue,
    releasable,
    retry_at,
)
from control_plane.core.retraining.types import Attempt, AttemptState, Retrain, RetrainCause, RetrainState
from control_plane.core.rollout.plan import plan_of
from control_plane.core.rollout.types import RolloutState
from control_plane.core.staleness.verdict import Level
from control_plane.core.state import State, begun


def request_retrain(state: State, command: RequestRetrain, now: datetime) -> Decision:
    """One live retrain per model: a further request adds its cause, and may lift the cooldown."""
    record = state.model(command.model_id)
    check_not_retired(record)
    ended_at = record.retrain_ended_at
    not_before = earliest_start(record.retraining_policy, now, ended_at, command.ignore_cooldown)
    if record.live_retrain is not None:
        live = state.retrains[record.live_retrain]
        result = Result(model_id=command.model_id, retrain_id=live.retrain_id, created=False)
        if live.state is not RetrainState.WAITING:
            return Decision(result=result)
        lifts = command.ignore_cooldown and not live.ignore_cooldown
        if merged_causes(live.causes, command.cause) == live.causes and not lifts:
            return Decision(result=result)
        joined = RetrainJoined(
            retrain_id=live.retrain_id,
            model_id=command.model_id,
            cause=command.cause,
            # A backoff after a failed attempt is kept; only the cooldown can be ignored.
            not_before=now if lifts and not live.attempts else live.not_before,
            ignore_cooldown=live.ignore_cooldown or command.ignore_cooldown,
        )
        return Decision(events=(joined,), result=result)
    retrain_id = RetrainId(f"rt_{state.retrains_count + 1:06d}")
    evaluation = record.standing.evaluation
    requested = RetrainRequested(
        retrain_id=retrain_id,
        model_id=command.model_id,
        cause=command.cause,
        score=evaluation.score if evaluation is not None else 0.0,
        not_before=not_before,
        ignore_cooldown=command.ignore_cooldown,
    )
    return Decision(
        events=(requested,),
        result=Result(model_id=command.model_id, retrain_id=retrain_id, created=True, changed=1),
    )


def cancel_retrain(state: State, command: CancelRetrain, why: str = "cancelled by request") -> Decision:
    """End a live retrain; a worker that still runs loses its lease, a candidate under validation is dropped."""
    retrain = state.retrain(command.retrain_id)
    if not retrain.live:
        raise Refused(
            Reason.RETRAIN_FINISHED,
            f"{retrain.retrain_id} has ended already ({retrain.state.value.lower()}: {retrain.conclusion})",
            retrain_id=retrain.retrain_id,
        )
    events: list[Event] = []
    attempt = retrain.running_attempt
    if attempt is not None:
        events.append(_ended(retrain, attempt, AttemptState.CANCELLED, "cancelled"))
    if retrain.state is RetrainState.VALIDATING and retrain.rollout_id is not None:
        rollout = state.rollouts[retrain.rollout_id]
        events.append(
            RolloutEnded(
                rollout_id=rollout.rollout_id,
                model_id=rollout.model_id,
                version=rollout.version,
                state=RolloutState.REFUSED,
                conclusion="its retrain was cancelled",
            )
        )
        events.extend(drop_candidate(state.models[rollout.model_id], rollout))
    events.append(_retrain_ended(retrain, RetrainState.CANCELLED, why))
    return Decision(events=tuple(events), result=Result(model_id=retrain.model_id, retrain_id=retrain.retrain_id))


def close_healed(state: State, command: CloseHealed) -> Decision:
    """Drop a waiting retrain whose only cause was a verdict that is good again."""
    retrain = state.retrain(command.retrain_id)
    result = Result(model_id=retrain.model_id, retrain_id=retrain.retrain_id)
    if not healed(state, retrain):
        return Decision(result=result)
    rule = RetrainCause.RULE in retrain.causes
    why = "no rule asks for it any more" if rule else "the model is fresh again"
    ended = _retrain_ended(retrain, RetrainState.CANCELLED, f"no longer needed: {why}")
    return Decision(events=(ended,), result=result)


def healed(state: State, retrain: Retrain) -> bool:
    """Waiting, asked for only because the model was stale or a rule said so, and none of that is true any more."""
    own = {RetrainCause.STALE, RetrainCause.RULE}
    if retrain.state is not RetrainState.WAITING or not own.issuperset(retrain.causes):
        return False
    record = state.models[retrain.model_id]
    holds = record.rule_outcome.retraining
    asked = RetrainCause.RULE in retrain.causes and holds is not None and holds.action.requests
    stale = RetrainCause.STALE in retrain.causes and record.standing.level is not Level.FRESH
    return not asked and not stale


def lease_retrains(state: State, command: LeaseRetrains, now: datetime) -> Decision:
    """Give what may run now, and again what this scheduler holds but does not know (its last answer was lost)."""
    known = set(command.known_attempt_ids)
    forgotten = [
        attempt.attempt_id
        for retrain in state.running()
        if (attempt := retrain.running_attempt) is not None
        and attempt.scheduler == command.scheduler
        and attempt.attempt_id not in known
        and attempt.expires_at >= now
    ]
    chosen = (
        []
        if state.held
        else releasable(
            state.living(),
            now=now,
            limits=state.limits,
            tier=lambda model_id: state.models[model_id].facts.tier,
            team=lambda model_id: state.models[model_id].facts.team,
            live_upstream=state.live_upstream,
            cooling_until=_cooling(state),
            leases_max=len(command.lease_tokens),
        )
    )
    waves = _waves(state)
    leased = [
        RetrainLeased(
            retrain_id=retrain.retrain_id,
            model_id=retrain.model_id,
            attempt_id=AttemptId(f"{retrain.retrain_id}_a{len(retrain.attempts) + 1}"),
            number=len(retrain.attempts) + 1,
            scheduler=command.scheduler,
            lease_token=token,
            expires_at=now + state.models[retrain.model_id].retraining_policy.lease_ttl,
            wave=waves.get(retrain.model_id, 1),
        )
        for retrain, token in zip(chosen, command.lease_tokens, strict=False)
    ]
    attempt_ids = (*forgotten, *(event.attempt_id for event in leased))
    return Decision(events=tuple(leased), result=Result(attempt_ids=attempt_ids, changed=len(leased)))


def _cooling(state: State) -> dict[ModelId, datetime]:
    live = (state.models[retrain.model_id] for retrain in state.living())
    return {record.model_id: record.cooling_until for record in live if record.cooling_until is not None}


def _waves(state: State) -> dict[ModelId, int]:
    """Which wave each live retrain belongs to, counted from 1 among what is live now."""
    models = sorted(model_node(retrain.model_id) for retrain in state.living())
    return {
        ModelId(node_name(node)): number
        for number, wave in enumerate(topological_waves(state.graph, models), start=1)
        for node in wave
    }


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
    return Decision(events=(ended, started, *then), result=_attempt_result(retrain, command.attempt_id))


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
        run=command.run,
        permanent=command.permanent,
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
    return Decision(events=failed_attempt(state, retrain, attempt, AttemptState.LEASE_EXPIRED, why, now), result=result)


def failed_attempt(
    state: State,
    retrain: Retrain,
    attempt: Attempt,
    ended_as: AttemptState,
    failure: str,
    now: datetime,
    *,
    run: str = "",
    permanent: bool = False,
) -> tuple[Event, ...]:
    """The end of a failed attempt, and of its retrain when it was the last."""
    again = None if permanent else retry_at(state.models[retrain.model_id].retraining_policy, attempt, now)
    ended = _ended(retrain, attempt, ended_as, failure, run=run, again=again)
    if again is not None:
        return (ended,)
    tries = f"{attempt.number} attempt{'s' if attempt.number > 1 else ''}"
    where = f" ({run or attempt.run})" if run or attempt.run else ""
    return (ended, _retrain_ended(retrain, RetrainState.FAILED, f"failed after {tries}: {failure}{where}"))


def _ended(
    retrain: Retrain,
    attempt: Attempt,
    ended_as: AttemptState,
    failure: str,
    *,
    run: str = "",
    again: datetime | None = None,
) -> AttemptEnded:
    return AttemptEnded(
        retrain_id=retrain.retrain_id,
        model_id=retrain.model_id,
        attempt_id=attempt.attempt_id,
        state=ended_as,
        failure=failure,
        run=run or attempt.run,
        retry_at=again,
    )


def _retrain_ended(retrain: Retrain, ended_as: RetrainState, conclusion: str) -> RetrainEnded:
    return RetrainEnded(retrain_id=retrain.retrain_id, model_id=retrain.model_id, state=ended_as, conclusion=conclusion)


def _attempt_result(retrain: Retrain, attempt_id: AttemptId) -> Result:
    return Result(model_id=retrain.model_id, retrain_id=retrain.retrain_id, attempt_ids=(attempt_id,))
