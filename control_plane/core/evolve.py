"""What each event does to the state. Never refuses, never reads a clock: what happened, happened."""

from itertools import islice
from typing import assert_never

from msgspec.structs import replace

from control_plane.core import registry_fold
from control_plane.core.erasure import RECEIPTS_MAX, ErasureReceipt
from control_plane.core.events import (
    AliasMoved,
    AttemptEnded,
    CascadeCooldownStarted,
    ClockAdvanced,
    CoverageAlertCleared,
    CoverageAlertRaised,
    DependenciesDeclared,
    DependenciesRetracted,
    EdgesSettled,
    Envelope,
    Event,
    FactsErased,
    LeaseRenewed,
    LifecycleChanged,
    LimitsSet,
    LineagePolicySet,
    LineageReported,
    LoadChecked,
    ModelRegistered,
    ModelUpdated,
    NodesDeclared,
    NodesDiscovered,
    NodesMoved,
    NodesRemoved,
    OverrideCleared,
    OverrideSet,
    PoliciesSet,
    RetrainEnded,
    RetrainingHeld,
    RetrainingReleased,
    RetrainJoined,
    RetrainLeased,
    RetrainRequested,
    RolloutEnded,
    RolloutStarted,
    RuleRemoved,
    RuleSet,
    RulesMatched,
    StreakChanged,
    UnfinishedRunsDropped,
    ValidationReported,
    VerdictChanged,
    VersionRegistered,
)
from control_plane.core.evolve_graph import change_graph, put_model_node
from control_plane.core.retraining.rules import merged_causes
from control_plane.core.retraining.types import Attempt, AttemptState, Retrain, RetrainState
from control_plane.core.state import (
    REQUESTS_DROPPED,
    REQUESTS_KEPT_MAX,
    VERDICT_CHANGES_KEPT_MAX,
    ModelRecord,
    RequestRecord,
    Standing,
    State,
    VerdictChange,
    begun,
    in_force,
)


def evolve(state: State, envelope: Envelope) -> None:
    """Apply one event: first the place in the log, then what it means."""
    state.revision = envelope.seq
    state.epoch = envelope.epoch
    state.last_hash = envelope.hash
    state.at = envelope.at
    _apply(state, envelope, envelope.event)
    if envelope.request_id and envelope.result is not None:
        state.requests[envelope.request_id] = RequestRecord(
            digest=envelope.request_digest, result=envelope.result, revision=envelope.seq
        )
        if len(state.requests) > REQUESTS_KEPT_MAX:
            # Many at once: finding a dict's first key walks over the places of those deleted before.
            for oldest in tuple(islice(state.requests, REQUESTS_DROPPED)):
                del state.requests[oldest]


def _apply(state: State, envelope: Envelope, event: Event) -> None:  # noqa: PLR0912, PLR0915 - one branch per event
    match event:
        case ModelRegistered():
            _model_registered(state, envelope, event)
        case ModelUpdated():
            _model_updated(state, envelope, event)
        case PoliciesSet():
            registry_fold.policies_set(state, envelope, event)
        case RuleSet() | RuleRemoved():
            registry_fold.rule_changed(state, envelope, event)
        case RulesMatched():
            state.models[event.model_id].rule_outcome = event.outcome
        case LifecycleChanged():
            registry_fold.lifecycle_changed(state, envelope, event)
        case LoadChecked():
            registry_fold.load_checked(state, envelope, event)
        case VersionRegistered():
            registry_fold.version_registered(state, envelope, event)
        case AliasMoved():
            registry_fold.alias_moved(state, envelope, event)
        case (
            NodesDeclared()
            | DependenciesDeclared()
            | DependenciesRetracted()
            | NodesDiscovered()
            | NodesRemoved()
            | NodesMoved()
            | LineageReported()
            | EdgesSettled()
            | OverrideSet()
            | OverrideCleared()
            | LineagePolicySet()
            | UnfinishedRunsDropped()
        ):
            change_graph(state, envelope, event)
        case FactsErased():
            _facts_erased(state, envelope, event)
        case StreakChanged():
            record = state.models[event.model_id]
            record.standing = replace(record.standing, streak=event.streak)
        case VerdictChanged():
            _verdict_changed(state, envelope, event)
        case CoverageAlertRaised():
            record = state.models[event.model_id]
            record.coverage_alert = True
            record.coverage_cause, record.coverage_explanation = event.cause, event.explanation
        case CoverageAlertCleared():
            record = state.models[event.model_id]
            record.coverage_alert = False
            record.coverage_cause = record.coverage_explanation = ""
        case RetrainRequested() | RetrainJoined() | RetrainLeased() | LeaseRenewed() | AttemptEnded() | RetrainEnded():
            _retraining(state, envelope, event)
        case RolloutStarted() | ValidationReported() | RolloutEnded():
            _rollout(state, envelope, event)
        case CascadeCooldownStarted():
            for model_id, until in event.until.items():
                state.models[model_id].cooling_until = until
        case LimitsSet():
            state.limits = event.limits
        case RetrainingHeld():
            state.held = True
        case RetrainingReleased():
            state.held = False
        case ClockAdvanced():
            state.clock = event.to
        case _:
            assert_never(event)


def _facts_erased(state: State, envelope: Envelope, event: FactsErased) -> None:
    state.erasures_count += 1
    receipt = ErasureReceipt(
        erasure_id=event.erasure_id,
        erased_at=event.erased_at,
        actor=event.actor,
        reason=event.reason,
        prediction_ids=event.prediction_ids,
        ids_sha256=event.ids_sha256,
        layers=event.layers,
        receipt_sha256=event.receipt_sha256,
        revision=envelope.seq,
    )
    state.erasures = [*state.erasures[-(RECEIPTS_MAX - 1) :], receipt]


def _model_registered(state: State, envelope: Envelope, event: ModelRegistered) -> None:
    state.models[event.facts.model_id] = ModelRecord(
        facts=event.facts,
        policies=in_force(state, event.facts),
        registered_at=envelope.at,
        updated_at=envelope.at,
        updated_revision=envelope.seq,
        standing=Standing(since=envelope.at),
        team_moves=[(envelope.seq, event.facts.team)],
    )
    put_model_node(state, envelope, event.facts, before=())
    state.graph_revision = envelope.seq


def _model_updated(state: State, envelope: Envelope, event: ModelUpdated) -> None:
    record = state.models[event.facts.model_id]
    before = record.facts
    record.facts = event.facts
    if before.team != event.facts.team:
        record.team_moves.append((envelope.seq, event.facts.team))
    record.policies = in_force(state, event.facts)
    record.updated_at = envelope.at
    record.updated_revision = envelope.seq
    if before != event.facts:
        put_model_node(state, envelope, event.facts, before=before.consumers)
        state.graph_revision = envelope.seq


def _verdict_changed(state: State, envelope: Envelope, event: VerdictChanged) -> None:
    record = state.models[event.model_id]
    record.standing = Standing(
        level=event.to_level,
        since=envelope.at,
        version=event.version,
        streak=event.streak,
        evaluation=event.evaluation,
    )
    record.verdict_changes.append(
        VerdictChange(
            version=event.version,
            from_level=event.from_level,
            to_level=event.to_level,
            changed_at=envelope.at,
            evaluation=event.evaluation,
            revision=envelope.seq,
        )
    )
    del record.verdict_changes[:-VERDICT_CHANGES_KEPT_MAX]


def _retraining(
    state: State,
    envelope: Envelope,
    event: RetrainRequested | RetrainJoined | RetrainLeased | LeaseRenewed | AttemptEnded | RetrainEnded,
) -> None:
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
        )
        state.live_retrains[event.retrain_id] = None
        record.live_retrain = event.retrain_id
        record.retrain_ids.append(event.retrain_id)
        return
    before = state.retrains[event.retrain_id]
    state.retrains[event.retrain_id] = _next(before, envelope, event)
    if isinstance(event, RetrainEnded):
        del state.live_retrains[event.retrain_id]
        record.live_retrain = None
        if before.attempts:
            # A retrain that never ran leaves no cooldown behind.
            record.retrain_ended_at = envelope.at


def _next(
    retrain: Retrain,
    envelope: Envelope,
    event: RetrainJoined | RetrainLeased | LeaseRenewed | AttemptEnded | RetrainEnded,
) -> Retrain:
    match event:
        case RetrainJoined():
            return replace(
                retrain,
                causes=merged_causes(retrain.causes, event.cause),
                not_before=event.not_before,
                ignore_cooldown=event.ignore_cooldown,
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
            )
            return replace(retrain, state=RetrainState.RUNNING, attempts=(*retrain.attempts, attempt))
        case LeaseRenewed():
            last = retrain.attempts[-1]
            renewed = replace(last, expires_at=event.expires_at, run=event.run or last.run)
            return replace(retrain, attempts=(*retrain.attempts[:-1], renewed))
        case AttemptEnded():
            last = retrain.attempts[-1]
            ended = replace(
                last,
                state=event.state,
                ended_at=envelope.at,
                failure=event.failure,
                run=event.run or last.run,
                version=event.version,
            )
            after = replace(retrain, attempts=(*retrain.attempts[:-1], ended))
            if event.state is AttemptState.SUCCEEDED:
                return replace(after, state=RetrainState.VALIDATING)
            if event.retry_at is not None:
                return replace(after, state=RetrainState.WAITING, not_before=event.retry_at)
            return after
        case RetrainEnded():
            return replace(retrain, state=event.state, ended_at=envelope.at, conclusion=event.conclusion)
        case _:
            assert_never(event)


def _rollout(state: State, envelope: Envelope, event: RolloutStarted | ValidationReported | RolloutEnded) -> None:
    record = state.models[event.model_id]
    match event:
        case RolloutStarted():
            state.rollouts_count += 1
            state.rollouts[event.rollout_id] = begun(event, envelope.at)
            record.live_rollout = event.rollout_id
            record.rollout_ids.append(event.rollout_id)
            if event.retrain_id is not None:
                retrain = state.retrains[event.retrain_id]
                state.retrains[event.retrain_id] = replace(retrain, rollout_id=event.rollout_id)
        case ValidationReported():
            rollout = state.rollouts[event.rollout_id]
            state.rollouts[event.rollout_id] = replace(rollout, validation=event.validation)
        case RolloutEnded():
            rollout = state.rollouts[event.rollout_id]
            state.rollouts[event.rollout_id] = replace(
                rollout, state=event.state, ended_at=envelope.at, conclusion=event.conclusion
            )
            if record.live_rollout == event.rollout_id:
                record.live_rollout = None
        case _:
            assert_never(event)
