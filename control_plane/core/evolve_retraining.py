"""What events do to retrains, their attempts, and what a team has spent."""

from datetime import datetime, timedelta
from typing import assert_never

from msgspec.structs import replace

from control_plane.core.events import (
    AttemptEnded,
    CascadeCooldownStarted,
    CascadeSettled,
    Envelope,
    LeaseRenewed,
    RetrainEnded,
    RetrainHeld,
    RetrainJoined,
    RetrainLeased,
    RetrainReleased,
    RetrainRequested,
)
from control_plane.core.retraining.rules import merged_causes
from control_plane.core.retraining.types import Attempt, AttemptState, Retrain, RetrainState
from control_plane.core.state import Cascade, Spending, State

RetrainEvent = (
    RetrainRequested
    | RetrainJoined
    | RetrainLeased
    | LeaseRenewed
    | AttemptEnded
    | RetrainHeld
    | RetrainReleased
    | RetrainEnded
)


def retrain_changed(state: State, envelope: Envelope, event: RetrainEvent) -> None:
    """Begin a retrain, or make it what it is after the event."""
    record = state.models[event.model_id]
    if isinstance(event, RetrainRequested):
        state.retrains_count += 1
        state.retrains[event.retrain_id] = Retrain(
            retrain_id=event.retrain_id,
            model_id=event.model_id,
            state=RetrainState.WAITING,
            causes=(event.cause,),
            score=event.score,
            requested_at=envelope.at,
            requested_by=envelope.actor,
            reason=envelope.reason,
            not_before=event.not_before,
            ignore_cooldown=event.ignore_cooldown,
            group=event.group,
            expires_at=event.expires_at,
            wanted_at=event.not_before,
        )
        state.live_retrains[event.retrain_id] = None
        record.live_retrain = event.retrain_id
        record.retrain_ids.append(event.retrain_id)
        return
    before = state.retrains[event.retrain_id]
    state.retrains[event.retrain_id] = _next(before, envelope, event)
    if isinstance(event, AttemptEnded) and event.gpu_hours:
        _spend(state, envelope.at, event)
    if isinstance(event, RetrainEnded):
        del state.live_retrains[event.retrain_id]
        if record.live_retrain == event.retrain_id:
            record.live_retrain = None
        if before.attempts:
            # A retrain that never ran leaves no cooldown behind.
            record.retrain_ended_at = envelope.at


def week_of(at: datetime) -> datetime:
    """Monday 00:00 UTC of the week of a moment.

    >>> week_of(datetime(2026, 11, 22, 23, 59))
    datetime.datetime(2026, 11, 16, 0, 0)
    """
    return at.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=at.weekday())


def _spend(state: State, at: datetime, event: AttemptEnded) -> None:
    team = state.models[event.model_id].facts.team
    before = state.spending.get(team)
    week = week_of(at)
    spent = before.gpu_hours if before is not None and before.week == week else 0.0
    state.spending[team] = Spending(week=week, gpu_hours=spent + event.gpu_hours)


def _next(
    retrain: Retrain,
    envelope: Envelope,
    event: RetrainJoined | RetrainLeased | LeaseRenewed | AttemptEnded | RetrainHeld | RetrainReleased | RetrainEnded,
) -> Retrain:
    match event:
        case RetrainJoined():
            return replace(
                retrain,
                causes=merged_causes(retrain.causes, event.cause),
                not_before=event.not_before,
                ignore_cooldown=event.ignore_cooldown,
                wanted_at=retrain.wanted_at if retrain.attempts else event.not_before,
            )
        case RetrainLeased():
            attempt = Attempt(
                attempt_id=event.attempt_id,
                number=event.number,
                state=AttemptState.RUNNING,
                scheduler=event.scheduler,
                lease_token=event.lease_token,
                leased_at=envelope.at,
                expires_at=event.expires_at,
                wave=event.wave,
                gpu_hours_reserved=event.gpu_hours_reserved,
                probe=event.probe,
                memory_scale=event.memory_scale,
            )
            return replace(retrain, state=RetrainState.RUNNING, attempts=(*retrain.attempts, attempt))
        case LeaseRenewed():
            last = retrain.attempts[-1]
            renewed = replace(last, expires_at=event.expires_at, run=event.run or last.run)
            return replace(retrain, attempts=(*retrain.attempts[:-1], renewed))
        case AttemptEnded():
            return _attempt_ended(retrain, envelope, event)
        case RetrainHeld():
            return replace(retrain, held_by=envelope.actor, hold_reason=envelope.reason)
        case RetrainReleased():
            # Held ones are not forgotten; released, it has as long as at first.
            return replace(retrain, held_by="", hold_reason="", expires_at=_anew(retrain, envelope.at))
        case RetrainEnded():
            return replace(
                retrain,
                state=event.state,
                ended_at=envelope.at,
                conclusion=event.conclusion,
                superseded_by=event.superseded_by,
            )
        case _:
            assert_never(event)


def _anew(retrain: Retrain, at: datetime) -> datetime | None:
    """When a request is forgotten that may run from `at` on: it keeps the time that it was given, never less."""
    if retrain.expires_at is None:
        return None
    return max(retrain.expires_at, at + (retrain.expires_at - retrain.not_before))


def _attempt_ended(retrain: Retrain, envelope: Envelope, event: AttemptEnded) -> Retrain:
    last = retrain.attempts[-1]
    ended = replace(
        last,
        state=event.state,
        ended_at=envelope.at,
        failure=event.failure,
        run=event.run or last.run,
        version=event.version,
        failure_class=event.failure_class,
        gpu_hours=event.gpu_hours,
        log_url=event.log_url or last.log_url,
    )
    after = replace(retrain, attempts=(*retrain.attempts[:-1], ended))
    if event.state is AttemptState.SUCCEEDED:
        return replace(after, state=RetrainState.VALIDATING)
    if event.retry_at is not None:
        # It has run: what is left of the time to live of its request says nothing about the next try.
        expires_at = _anew(retrain, event.retry_at)
        return replace(after, state=RetrainState.WAITING, not_before=event.retry_at, expires_at=expires_at)
    return after


def cascade_started(state: State, envelope: Envelope, event: CascadeCooldownStarted) -> None:
    """Models downstream cool down; several promotions in a row count from the first."""
    for model_id, until in event.until.items():
        record = state.models[model_id]
        before = record.cascade
        pending = before is not None and before.harmed is None
        record.cooling_until = until
        record.cascade = Cascade(
            upstream=event.upstream,
            version=event.version,
            began_at=before.began_at if before is not None and pending else envelope.at,
            until=until,
        )


def cascade_settled(state: State, event: CascadeSettled) -> None:
    """The look after the cooldown said whether the model is harmed."""
    record = state.models[event.model_id]
    if record.cascade is not None:
        record.cascade = replace(record.cascade, harmed=event.harmed, why=event.why)
