"""What each event does to the state. Never refuses, never reads a clock: what happened, happened."""

from collections.abc import Iterable
from itertools import islice
from typing import assert_never

from msgspec.structs import replace

from control_plane.core import evolve_retraining, evolve_rollout, registry_fold
from control_plane.core.erasure import RECEIPTS_MAX, ErasureReceipt
from control_plane.core.events import (
    AlertSilenced,
    AliasMoved,
    ApprovalAsked,
    AttemptEnded,
    BreakerChanged,
    CanaryJudged,
    CascadeCooldownStarted,
    CascadeSettled,
    CheckReported,
    ClockAdvanced,
    CoverageAlertCleared,
    CoverageAlertRaised,
    DependenciesDeclared,
    DependenciesRetracted,
    DestinationRemoved,
    DestinationSet,
    EdgesSettled,
    Envelope,
    Event,
    FactsErased,
    FreezeRemoved,
    FreezeSet,
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
    RetrainHeld,
    RetrainingHeld,
    RetrainingReleased,
    RetrainJoined,
    RetrainLeased,
    RetrainReleased,
    RetrainRequested,
    RolloutApproved,
    RolloutEnded,
    RolloutHeld,
    RolloutReleased,
    RolloutsGrouped,
    RolloutStarted,
    RolloutStepped,
    RuleRemoved,
    RuleSet,
    RulesMatched,
    StreakChanged,
    UnfinishedRunsDropped,
    UpliftMeasured,
    ValidationReported,
    VerdictChanged,
    VersionRegistered,
    WeightReported,
)
from control_plane.core.evolve_graph import change_graph, put_model_node
from control_plane.core.ids import ModelId
from control_plane.core.state import (
    REQUESTS_DROPPED,
    REQUESTS_KEPT_MAX,
    VERDICT_CHANGES_KEPT_MAX,
    ModelRecord,
    RequestRecord,
    Standing,
    State,
    VerdictChange,
    in_force,
)


def evolve(state: State, envelope: Envelope) -> None:
    """Apply one event: first the place in the log, then what it means."""
    state.revision = envelope.seq
    state.epoch = envelope.epoch
    state.last_hash = envelope.hash
    state.at = envelope.at
    _apply(state, envelope, envelope.event)
    _watch(state, envelope.event)
    if envelope.request_id and envelope.result is not None:
        state.requests[envelope.request_id] = RequestRecord(
            digest=envelope.request_digest, result=envelope.result, revision=envelope.seq
        )
        if len(state.requests) > REQUESTS_KEPT_MAX:
            # Many at once: finding a dict's first key walks over the places of those deleted before.
            for oldest in tuple(islice(state.requests, REQUESTS_DROPPED)):
                del state.requests[oldest]


def _watch(state: State, event: Event) -> None:
    """Keep `state.restless` true: only models that an event is about can have changed."""
    touched: Iterable[ModelId]
    match event:
        case PoliciesSet():
            touched = state.models
        case CascadeCooldownStarted():
            touched = event.until
        case ModelRegistered() | ModelUpdated():
            touched = (event.facts.model_id,)
        case _:
            model_id: ModelId | None = getattr(event, "model_id", None)
            touched = () if model_id is None else (model_id,)
    for one in touched:
        if state.models[one].restless:
            state.restless.add(one)
        else:
            state.restless.discard(one)


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
            record.coverage_alert, record.coverage_since = True, envelope.at
            record.coverage_cause, record.coverage_explanation = event.cause, event.explanation
        case CoverageAlertCleared():
            record = state.models[event.model_id]
            record.coverage_alert, record.coverage_since = False, None
            record.coverage_cause = record.coverage_explanation = ""
        case (
            RetrainRequested()
            | RetrainJoined()
            | RetrainLeased()
            | LeaseRenewed()
            | AttemptEnded()
            | RetrainHeld()
            | RetrainReleased()
            | RetrainEnded()
        ):
            evolve_retraining.retrain_changed(state, envelope, event)
        case CascadeCooldownStarted():
            evolve_retraining.cascade_started(state, envelope, event)
        case CascadeSettled():
            evolve_retraining.cascade_settled(state, event)
        case BreakerChanged():
            state.breakers[event.breaker.scheduler] = event.breaker
        case (
            RolloutStarted()
            | ValidationReported()
            | ApprovalAsked()
            | RolloutApproved()
            | RolloutStepped()
            | CheckReported()
            | WeightReported()
            | CanaryJudged()
            | RolloutHeld()
            | RolloutReleased()
            | RolloutEnded()
        ):
            evolve_rollout.rollout_changed(state, envelope, event)
        case RolloutsGrouped():
            evolve_rollout.grouped(state, event)
        case FreezeSet():
            state.freezes[event.freeze.name] = event.freeze
        case FreezeRemoved():
            state.freezes.pop(event.name, None)
        case UpliftMeasured():
            state.uplifts[event.uplift.rollout_id] = event.uplift
        case DestinationSet():
            state.destinations[event.destination.name] = event.destination
        case DestinationRemoved():
            state.destinations.pop(event.name, None)
        case AlertSilenced():
            # Those that are over say nothing any more.
            state.silences = {key: one for key, one in state.silences.items() if envelope.at < one.until}
            state.silences[event.silence.key] = event.silence
        case LimitsSet():
            state.limits = event.limits
        case RetrainingHeld():
            state.held, state.held_since = True, envelope.at
        case RetrainingReleased():
            state.held, state.held_since = False, None
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
    if record.live_retrain is not None:
        # Its place in the queue is by what is known now, not by what was known when it was asked for.
        live = state.retrains[record.live_retrain]
        state.retrains[record.live_retrain] = replace(live, score=event.evaluation.score)
