"""Leases: who may run now, for whichever scheduler asks."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from control_plane.core.commands import LeaseRetrains, Result
from control_plane.core.decide.breakers import is_probe, leases_allowed
from control_plane.core.decide.decision import Decision
from control_plane.core.events import RetrainLeased
from control_plane.core.evolve_retraining import week_of
from control_plane.core.graph.order import wave_numbers
from control_plane.core.ids import AttemptId, ModelId, model_node
from control_plane.core.retraining.failures import memory_scale
from control_plane.core.retraining.limits import Claim, Usage, usage_of
from control_plane.core.retraining.rules import Asking, releasable
from control_plane.core.retraining.types import Retrain
from control_plane.core.state import ModelRecord, State


def lease_retrains(state: State, command: LeaseRetrains, now: datetime) -> Decision:
    """Give what may run now, and again what this scheduler holds but does not know (its last answer was lost)."""
    known = set(command.known_attempt_ids)
    running = state.running()
    forgotten = [
        attempt.attempt_id
        for retrain in running
        if (attempt := retrain.running_attempt) is not None
        and attempt.scheduler == command.scheduler
        and attempt.attempt_id not in known
        and attempt.expires_at >= now
    ]
    leased = () if state.held else _leased(state, command, now, running)
    attempt_ids = (*forgotten, *(event.attempt_id for event in leased))
    return Decision(events=leased, result=Result(attempt_ids=attempt_ids, changed=len(leased)))


def _leased(
    state: State, command: LeaseRetrains, now: datetime, running: Sequence[Retrain]
) -> tuple[RetrainLeased, ...]:
    leases_max = leases_allowed(state, command.scheduler, len(command.lease_tokens), now)
    if not leases_max or not state.live_retrains:
        return ()
    waves, probe = waves_of(state), is_probe(state, command.scheduler)
    chosen = releasable(
        state.living(), asking(state, command.scheduler, now, waves), usage_now(state, now, running), leases_max
    )
    return tuple(
        RetrainLeased(
            retrain_id=retrain.retrain_id,
            model_id=retrain.model_id,
            attempt_id=AttemptId(f"{retrain.retrain_id}_a{len(retrain.attempts) + 1}"),
            number=len(retrain.attempts) + 1,
            scheduler=command.scheduler,
            lease_token=token,
            expires_at=now + state.models[retrain.model_id].retraining_policy.lease_ttl,
            wave=waves.get(retrain.model_id, 1),
            gpu_hours_reserved=gpu_hours_expected(state.models[retrain.model_id]),
            memory_scale=memory_scale(retrain),
            probe=probe,
        )
        for retrain, token in zip(chosen, command.lease_tokens, strict=False)
    )


def asking(state: State, scheduler: str, now: datetime, waves: Mapping[ModelId, int]) -> Asking:
    """What the state says about every retrain that a scheduler might take."""
    models = state.models
    return Asking(
        scheduler=scheduler,
        now=now,
        tier=lambda model_id: models[model_id].facts.tier,
        claim=lambda retrain: claim_of(state, retrain),
        scheduler_of=lambda model_id: state.models[model_id].retraining_policy.scheduler,
        wave_of=lambda model_id: waves.get(model_id, 1),
        cooling_until=lambda model_id: state.models[model_id].cooling_until,
        unsettled=lambda model_id: unsettled(state.models[model_id], now),
    )


def unsettled(record: ModelRecord, now: datetime) -> bool:
    """Has nobody looked at the model since its cooldown after an upstream promotion is over?"""
    cascade = record.cascade
    seen = record.production is not None  # else there is nothing to look at
    return seen and cascade is not None and cascade.harmed is None and now >= cascade.until


def claim_of(state: State, retrain: Retrain) -> Claim:
    """What a retrain would hold while it runs."""
    record = state.models[retrain.model_id]
    return Claim(
        tier=record.facts.tier,
        team=record.facts.team,
        resource_class=record.retraining_policy.resource_class,
        gpu_hours=gpu_hours_expected(record),
    )


def gpu_hours_expected(record: ModelRecord) -> float:
    """What an attempt is expected to spend: as registered, else its GPUs times the time that it is expected to take."""
    if record.facts.retrain_gpu_hours:
        return float(record.facts.retrain_gpu_hours)
    policy = record.retraining_policy
    return policy.gpus * (policy.duration_expected / timedelta(hours=1))


def usage_now(state: State, now: datetime, running: Sequence[Retrain] | None = None) -> Usage:
    """What running attempts hold, and what each team has spent this week. `running`: if it is known already."""
    week = week_of(now)
    spent: dict[str, float] = {team: one.gpu_hours for team, one in state.spending.items() if one.week == week}
    held = state.running() if running is None else running
    return usage_of(held, state.limits, spent, lambda retrain: claim_of(state, retrain))


def waves_of(state: State) -> dict[ModelId, int]:
    """Which wave each live retrain belongs to, from 1, among what is live now: 1 has nothing live upstream."""
    models = [retrain.model_id for retrain in state.living()]
    return dict(zip(models, wave_numbers(state.graph, [model_node(one) for one in models]), strict=True))
