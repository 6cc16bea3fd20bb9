"""How rollouts end, and what hangs on that: aliases, the retrain, the models downstream."""

from datetime import datetime

from control_plane.core.errors import Reason, Refused
from control_plane.core.events import AliasMoved, CascadeCooldownStarted, Event, RetrainEnded, RolloutEnded
from control_plane.core.ids import ModelId, model_node, node_name
from control_plane.core.registry.types import CANDIDATE, PREVIOUS, PRODUCTION, ModelVersion
from control_plane.core.retraining.types import RetrainState
from control_plane.core.rollout.types import Rollout, RolloutState
from control_plane.core.state import ModelRecord, State


def ready(record: ModelRecord, version: ModelVersion) -> bool:
    """May an alias point at this version, as far as loading goes?"""
    return not record.rollout_policy.require_load_check or version.loads is True


def check_loads(record: ModelRecord, version: ModelVersion) -> None:
    """Raise `Refused` unless the version has shown that it loads, where the policy asks for that."""
    if ready(record, version):
        return
    said = "its newest load check failed" if version.loads is False else "nobody has shown that it loads"
    raise Refused(
        Reason.LOAD_CHECK_REQUIRED,
        f"version {version.number} of {record.model_id} may not be pointed at: {said}. Report a load check "
        f"(`runway models load-check {record.model_id} v{version.number} --passed`), or set "
        "rollout.require_load_check to false",
        model_id=record.model_id,
        version=str(version.number),
    )


def candidate_move(record: ModelRecord, version: ModelVersion) -> tuple[Event, ...]:
    """The candidate alias on the version, as soon as an alias may point there."""
    current = record.aliases.get(CANDIDATE, 0)
    if current == version.number or not ready(record, version):
        return ()
    moved = AliasMoved(model_id=record.model_id, alias=CANDIDATE, from_version=current, to_version=version.number)
    return (moved,)


def promotion(state: State, record: ModelRecord, rollout: Rollout, why: str, now: datetime) -> tuple[Event, ...]:
    """Production moves, the version before becomes `previous`, models downstream cool down, the retrain ends."""
    model_id = rollout.model_id
    current = record.aliases.get(PRODUCTION, 0)
    events: list[Event] = [
        AliasMoved(model_id=model_id, alias=PRODUCTION, from_version=current, to_version=rollout.version)
    ]
    if current:
        events.append(
            AliasMoved(
                model_id=model_id,
                alias=PREVIOUS,
                from_version=record.aliases.get(PREVIOUS, 0),
                to_version=current,
            )
        )
    events.extend(drop_candidate(record, rollout))
    events.append(
        RolloutEnded(
            rollout_id=rollout.rollout_id,
            model_id=model_id,
            version=rollout.version,
            state=RolloutState.PROMOTED,
            conclusion=why,
        )
    )
    events.extend(end_of_retrain(rollout, RetrainState.PROMOTED, f"version {rollout.version} promoted: {why}"))
    events.extend(cooldowns(state, model_id, rollout.version, now))
    return tuple(events)


def drop_candidate(record: ModelRecord, rollout: Rollout) -> tuple[Event, ...]:
    if record.aliases.get(CANDIDATE) != rollout.version:
        return ()
    return (AliasMoved(model_id=rollout.model_id, alias=CANDIDATE, from_version=rollout.version, to_version=0),)


def end_of_retrain(rollout: Rollout, ended_as: RetrainState, conclusion: str) -> tuple[Event, ...]:
    if rollout.retrain_id is None:
        return ()
    return (
        RetrainEnded(retrain_id=rollout.retrain_id, model_id=rollout.model_id, state=ended_as, conclusion=conclusion),
    )


def cooldowns(state: State, model_id: ModelId, version: int, now: datetime) -> tuple[Event, ...]:
    """Models downstream wait, each as long as its own policy says, counted from now."""
    until = {
        downstream: _cools_until(record, now)
        for node in state.graph.downstream_models(model_node(model_id))
        if (record := state.models.get(downstream := ModelId(node_name(node)))) is not None and not record.retired
    }
    return (CascadeCooldownStarted(upstream=model_id, version=version, until=until),) if until else ()


def _cools_until(record: ModelRecord, now: datetime) -> datetime:
    """Several promotions upstream, one after the other, do not make a model wait for ever."""
    policy, before = record.retraining_policy, record.cascade
    until = now + policy.cascade_cooldown
    if before is None or before.harmed is not None:
        return until
    return max(min(until, before.began_at + policy.cascade_cooldown_max), now)


def live_rollout(state: State, record: ModelRecord, version: int) -> Rollout | None:
    """The model's live rollout, if it is of this version."""
    if record.live_rollout is None:
        return None
    rollout = state.rollouts[record.live_rollout]
    return rollout if rollout.version == version else None


def last_rollout(state: State, model_id: ModelId, version: int) -> Rollout | None:
    """The latest rollout of a version, live or ended."""
    for rollout_id in reversed(state.models[model_id].rollout_ids):
        rollout = state.rollouts[rollout_id]
        if rollout.version == version:
            return rollout
    return None
