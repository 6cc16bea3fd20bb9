"""A model's place in life: active, deprecated, retired, and back."""

from datetime import datetime

from control_plane.core.commands import Result, SetLifecycle
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.onward import back
from control_plane.core.decide.requests import ended_by_hand
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import Event, LifecycleChanged
from control_plane.core.ids import NodeId
from control_plane.core.registry.types import PRODUCTION, Lifecycle
from control_plane.core.relations import consumers_of
from control_plane.core.retraining.types import RetrainState
from control_plane.core.state import ModelRecord, State

CONSUMERS_NAMED_MAX = 20
"""In the sentence of a refusal; its details name as many as fit."""


def set_lifecycle(state: State, command: SetLifecycle, now: datetime) -> Decision:
    """Move a model to another place in life.

    1. Retiring a model that others consume is refused with the list, unless forced.
    2. A retired model's live retrain and rollout end with it: nothing of it goes on.
    3. A model that comes back is active if it was ever in production, else just registered.
    """
    record = state.model(command.model_id)
    wanted = _reached(record, command.lifecycle)
    result = Result(model_id=command.model_id)
    if wanted is record.lifecycle:
        return Decision(result=result)
    consumers = tuple(consumers_of(state, command.model_id)) if wanted is Lifecycle.RETIRED else ()
    if consumers and not command.force:
        raise _still_used(record, consumers)
    changed = LifecycleChanged(model_id=command.model_id, before=record.lifecycle, after=wanted, consumers=consumers)
    ended = _endings(state, record, now) if wanted is Lifecycle.RETIRED else ()
    return Decision(events=(*ended, changed), result=Result(model_id=command.model_id, changed=1))


def _reached(record: ModelRecord, wanted: Lifecycle) -> Lifecycle:
    """Where the model gets to: nobody can make a model active that was never in production."""
    if wanted is not Lifecycle.ACTIVE or any(move.alias == PRODUCTION for move in record.alias_moves):
        return wanted
    if record.lifecycle is Lifecycle.REGISTERED:
        raise Invalid(
            Reason.INVALID_ARGUMENT,
            Violation(
                field="lifecycle",
                rule="never_in_production",
                message=f"{record.model_id} was never in production; it becomes active by itself when a version is "
                "promoted",
            ),
        )
    return Lifecycle.REGISTERED


def _still_used(record: ModelRecord, consumers: tuple[NodeId, ...]) -> Refused:
    named = ", ".join(consumers[:CONSUMERS_NAMED_MAX])
    more = f" and {len(consumers) - CONSUMERS_NAMED_MAX} more" if len(consumers) > CONSUMERS_NAMED_MAX else ""
    return Refused(
        Reason.MODEL_HAS_CONSUMERS,
        f"{record.model_id} is used by {named}{more}: let them go first (`runway impact {record.model_id}`), "
        "or retire it with force and a reason",
        model_id=record.model_id,
        consumers=",".join(consumers),
        count=str(len(consumers)),
    )


def _endings(state: State, record: ModelRecord, now: datetime) -> tuple[Event, ...]:
    """Everything of the model that is still going on, ended."""
    events: list[Event] = []
    rollout = state.rollouts[record.live_rollout] if record.live_rollout is not None else None
    if record.live_retrain is not None:
        retrain = state.retrains[record.live_retrain]
        events.extend(ended_by_hand(state, retrain, RetrainState.CANCELLED, "the model was retired", now))
        if rollout is not None and rollout.retrain_id == record.live_retrain:
            rollout = None
    if rollout is not None:
        events.extend(back(state, rollout, "the model was retired", aborted=True))
    return tuple(events)
