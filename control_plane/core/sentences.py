"""Each event as one plain sentence, for people who watch, read the audit log, or are on call."""

from datetime import timedelta
from typing import assert_never

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
from control_plane.core.graph.lineage_facts import EdgeChange, EdgeState, LineagePolicy
from control_plane.core.registry.types import Metric
from control_plane.core.retraining.types import AttemptState, RetrainCause
from control_plane.core.rollout.types import Validation
from control_plane.core.rules.types import RuleAction, RuleMatch
from control_plane.core.sentences_of_releases import release_sentence
from control_plane.core.timewindow import spelled

NAMES_MAX = 6
"""Names in one sentence; a person stops reading after a few."""

CAUSES = {
    RetrainCause.STALE: "it is stale",
    RetrainCause.OPERATOR: "somebody asked",
    RetrainCause.UPSTREAM: "an upstream model changed",
    RetrainCause.RULE: "a rule asks for it",
    RetrainCause.SCHEDULE: "its schedule asks for it",
}


def sentence(envelope: Envelope) -> str:  # noqa: PLR0912 - one line per event
    """The event in words; subject first."""
    event = envelope.event
    match event:
        case ModelRegistered():
            facts = event.facts
            return f"{facts.model_id} joined the fleet (tier {facts.tier}, team {facts.team})"
        case ModelUpdated():
            return f"{event.facts.model_id} was changed by {envelope.actor}"
        case PoliciesSet():
            said = _count(len(event.overrides), "policy", "policies") if event.overrides else "no policy any more"
            return f"{event.scope} says {said} since version {event.version}, set by {envelope.actor}"
        case RuleSet():
            return _rule_set(envelope, event)
        case RuleRemoved():
            return f"rule {event.name} ({event.scope}) was removed by {envelope.actor}"
        case RulesMatched():
            return _rules_matched(event)
        case LifecycleChanged():
            used = f"; it was used by {_names(list(event.consumers))}" if event.consumers else ""
            return f"{event.model_id} is {event.after.value.lower()} (was {event.before.value.lower()}){used}"
        case LoadChecked():
            where = f" in {event.environment}" if event.environment else ""
            how = "loads" if event.passed else "does not load"
            return f"{event.model_id} version {event.version} {how}{where}, says {envelope.actor}"
        case VersionRegistered():
            return f"{event.model_id} has a new version {event.version}{_metrics(event.facts.metrics)}"
        case AliasMoved():
            return _alias_moved(event)
        case NodesDeclared():
            return f"{_count(len(event.nodes), 'node')} declared: {_names([n.node_id for n in event.nodes])}"
        case DependenciesDeclared():
            return f"{_count(len(event.dependencies), 'dependency', 'dependencies')} declared: {_edges(event)}"
        case DependenciesRetracted():
            return f"{_count(len(event.dependencies), 'dependency', 'dependencies')} retracted: {_edges(event)}"
        case (
            NodesDiscovered()
            | NodesRemoved()
            | NodesMoved()
            | LineageReported()
            | EdgesSettled()
            | OverrideSet()
            | OverrideCleared()
            | LineagePolicySet()
            | UnfinishedRunsDropped()
        ):
            return _lineage(envelope, event)
        case FactsErased():
            return (
                f"{event.prediction_ids:,} prediction{'s' * (event.prediction_ids != 1)} and all that hangs on them "
                f"were erased from every layer ({event.erasure_id}, receipt {event.receipt_sha256[:12]})"
            )
        case StreakChanged():
            return (
                f"{event.model_id} was seen otherwise than its verdict says; the verdict stands until it is seen again"
            )
        case VerdictChanged():
            return _verdict_changed(event)
        case CoverageAlertRaised():
            return (
                f"{event.model_id} lacks outcomes: {event.coverage:.1%} of what should be known by now has arrived, "
                f"{event.coverage_min:.1%} is asked for" + (f". {event.explanation}" if event.explanation else "")
            )
        case CoverageAlertCleared():
            return f"{event.model_id} has enough outcomes again ({event.coverage:.1%})"
        case RetrainRequested():
            wait = _until(event.not_before - envelope.at)
            cause = f"rule {event.rule} asks for it" if event.rule else CAUSES[event.cause]
            return f"{event.retrain_id} was requested for {event.model_id}: {cause}{wait}"
        case RetrainJoined():
            return f"{event.retrain_id} of {event.model_id} was asked for again: {CAUSES[event.cause]}"
        case RetrainLeased():
            return (
                f"{event.model_id} is released to {event.scheduler} in wave {event.wave} "
                f"({event.attempt_id}, attempt {event.number})"
            )
        case LeaseRenewed():
            return f"{event.attempt_id} of {event.model_id} is still running"
        case AttemptEnded():
            return _attempt_ended(event)
        case RetrainEnded():
            return f"{event.retrain_id} of {event.model_id} ended {event.state.value.lower()}: {event.conclusion}"
        case RolloutStarted():
            against = f"version {event.production_before}" if event.production_before else "nothing in production"
            return f"{event.model_id} version {event.version} is validated against {against}"
        case ValidationReported():
            return f"{event.model_id} version {event.version} {_validation(event.validation)}"
        case RolloutEnded():
            return (
                f"{event.model_id} version {event.version} was "
                f"{event.state.value.lower().replace('_', ' ')}: {event.conclusion}"
            )
        case CascadeCooldownStarted():
            return (
                f"{_count(len(event.until), 'model')} downstream of {event.upstream} cool down: "
                f"{_names(sorted(event.until))}"
            )
        case LimitsSet():
            limits = event.limits
            return f"at most {limits.running_max} retrains run at once, {limits.running_per_team_max} of one team"
        case RetrainingHeld():
            return f"retraining is held by {envelope.actor}: nothing new is leased"
        case RetrainingReleased():
            return f"retraining goes on, released by {envelope.actor}"
        case (
            RetrainHeld()
            | RetrainReleased()
            | CascadeSettled()
            | BreakerChanged()
            | ApprovalAsked()
            | RolloutApproved()
            | RolloutStepped()
            | CheckReported()
            | WeightReported()
            | CanaryJudged()
            | RolloutHeld()
            | RolloutReleased()
            | RolloutsGrouped()
            | FreezeSet()
            | FreezeRemoved()
            | UpliftMeasured()
            | DestinationSet()
            | DestinationRemoved()
            | AlertSilenced()
        ):
            return release_sentence(envelope, event)
        case ClockAdvanced():
            return f"the clock stands at {event.to:%Y-%m-%d %H:%M}"
        case _:
            assert_never(event)


RULE_WORDS = {
    RuleAction.PAGE: "page",
    RuleAction.ALERT: "alert",
    RuleAction.RETRAIN: "retrain",
    RuleAction.RETRAIN_OFF_PEAK: "retrain off-peak",
    RuleAction.REQUIRE_APPROVAL: "approval needed",
    RuleAction.IGNORE: "no retrain",
}
"""How the sentence about a rule begins that holds; what people must see first comes first."""


def _rule_set(envelope: Envelope, event: RuleSet) -> str:
    rule = event.rule
    if rule.disabled:
        return f"rule {rule.name} ({rule.scope}) is disabled since version {event.version}, set by {envelope.actor}"
    when = " ".join(rule.when.split())
    return (
        f"rule {rule.name} ({rule.scope}) says {RULE_WORDS[rule.action]} when {when} since version {event.version}, "
        f"set by {envelope.actor}"
    )


def _rules_matched(event: RulesMatched) -> str:
    """`page: crew_overtime is STALE (score 0.71 of 0.60): rule wake_up (fleet): tier 1 must not rot`."""
    is_ = f"{event.model_id} is {event.level.value} (score {event.score:.2f} of {event.threshold:.2f})"
    matches = event.outcome.matches
    order = list(RULE_WORDS)
    begun = sorted(event.begun, key=lambda one: order.index(one.action))
    told = [f"{RULE_WORDS[one.action]}: {is_}: {_rule(one)}" for one in begun]
    told += [f"{RULE_WORDS[one.action]} is over: {is_}: {_rule(one)}" for one in event.ended]
    told = told or [
        f"rule {one.name} ({one.scope}) cannot be asked about {event.model_id}: {one.message}"
        for one in event.outcome.faults
    ]
    holding = f"rules hold for {event.model_id} as {_names([one.name for one in matches])}"
    return "; ".join(told) or (holding if matches else f"no rule holds for {event.model_id}")


def _rule(match: RuleMatch) -> str:
    return f"rule {match.name} ({match.scope}){f': {match.reason}' if match.reason else ''}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more


def _metrics(metrics: tuple[Metric, ...]) -> str:
    return " (" + ", ".join(f"{m.name} {m.value:.4g}" for m in metrics[:3]) + ")" if metrics else ""


def _until(wait: timedelta) -> str:
    return f" (it waits {spelled(wait)} for its cooldown)" if wait > timedelta(0) else ""


def _lineage(
    envelope: Envelope,
    event: NodesDiscovered
    | NodesRemoved
    | NodesMoved
    | LineageReported
    | EdgesSettled
    | OverrideSet
    | OverrideCleared
    | LineagePolicySet
    | UnfinishedRunsDropped,
) -> str:
    match event:
        case NodesDiscovered():
            return f"{_count(len(event.nodes), 'node')} discovered: {_names([n.node_id for n in event.nodes])}"
        case NodesRemoved():
            return f"{_count(len(event.node_ids), 'node')} removed by {envelope.actor}: {_names(list(event.node_ids))}"
        case NodesMoved():
            return _nodes_moved(event)
        case LineageReported():
            return _lineage_reported(event)
        case EdgesSettled():
            return _edges_settled(event)
        case OverrideSet():
            until = f" until {event.expires_at:%Y-%m-%d %H:%M}" if event.expires_at else ""
            verb = "does not depend" if not event.present else "depends"
            edge = event.dependency
            return f"{event.owner} says that {edge.downstream} {verb} on {edge.upstream}{until}: {event.reason}"
        case OverrideCleared():
            return _override_cleared(envelope.actor, event)
        case LineagePolicySet():
            return _lineage_policy(event.policy)
        case UnfinishedRunsDropped():
            names = _names([f"{source} {job} {run_id}" for source, job, run_id in event.runs])
            return f"{_count(len(event.runs), 'unfinished run')} forgotten, {event.reason}: {names}"
        case _:
            assert_never(event)


def _edges(event: DependenciesDeclared | DependenciesRetracted) -> str:
    """The first few; there may be 50,000."""
    first = [f"{d.downstream} on {d.upstream}" for d in event.dependencies[:NAMES_MAX]]
    more = len(event.dependencies) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


EDGE_WORDS = {
    EdgeState.ACTIVE: "found",
    EdgeState.SUSPECT: "suspect",
    EdgeState.RETIRED: "retired",
    EdgeState.QUARANTINED: "quarantined",
    EdgeState.SUPPRESSED: "suppressed",
}

EDGES_SPELLED_MAX = 3
"""Edges told one by one; of more, what became of how many."""


def _edges_settled(event: EdgesSettled) -> str:
    if len(event.changes) <= EDGES_SPELLED_MAX:
        return "; ".join(_edge_settled(change) for change in event.changes)
    words = [_edge_word(change) for change in event.changes]
    counts = [f"{words.count(word)} {word}" for word in dict.fromkeys(words)]
    first = event.changes[0]
    return f"{len(words)} edges settled: {', '.join(counts)}; the first: {_edge_settled(first)}"


def _edge_word(change: EdgeChange) -> str:
    known = change.before is not None and not (change.before is EdgeState.RETIRED and change.after.counts)
    if change.after is EdgeState.ACTIVE and known:
        return "active again"
    return EDGE_WORDS[change.after]


def _edge_settled(change: EdgeChange) -> str:
    what = f"{change.downstream} on {change.upstream}"
    why = f"closes the cycle {' -> '.join(change.cycle)}" if change.cycle else change.reason
    return f"the dependency of {what} is {_edge_word(change)}: {why}"


def _nodes_moved(event: NodesMoved) -> str:
    names = _names([f"{move.node_id} is {move.new_node_id} now" for move in event.moves])
    apart = _count(len(event.quarantined), "edge")
    return names + (f"; {apart} quarantined for a cycle that this would close" if event.quarantined else "")


def _lineage_reported(event: LineageReported) -> str:
    jobs = list(dict.fromkeys(f"{run.job} ({run.state.lower()})" for run in event.runs))
    sources = " and ".join(dict.fromkeys(run.source for run in event.runs)) or "a source"
    apart = f"; {_count(event.untyped, 'pair')} of nodes that no edge can join" if event.untyped else ""
    same = f"; {_names([f'{m.node_id} turns out to be {m.new_node_id}' for m in event.wanted_moves])}"
    told = (
        f"{sources} told of {_count(len(event.runs), 'run')}: {_names(jobs)}" if event.runs else f"{sources} told more"
    )
    return told + apart + (same if event.wanted_moves else "")


def _override_cleared(actor: str, event: OverrideCleared) -> str:
    dependency = event.dependency
    how = "expired" if event.expired else f"was cleared by {actor}"
    after = f"the edge is {EDGE_WORDS[event.after]}" if event.after else "the edge is gone"
    if event.after is EdgeState.ACTIVE:
        after = "the edge is there"
    why = f"closes the cycle {' -> '.join(event.cycle)}" if event.cycle else event.reason
    return f"{event.owner}'s word on {dependency.upstream} -> {dependency.downstream} {how}; {after}: {why}"


def _lineage_policy(policy: LineagePolicy) -> str:
    def bound(runs: int, span: timedelta) -> str:
        parts = [_count(runs, "missed run")] * bool(runs) + [spelled(span)] * bool(span)
        return " or ".join(parts) or "never"

    suspect = bound(policy.suspect_after_runs, policy.suspect_after)
    retired = bound(policy.retire_after_runs, policy.retire_after)
    return (
        f"discovered edges are suspect after {suspect}, retired after {retired}; "
        f"sources must be {policy.confidence_min:.2f} sure"
    )


def _alias_moved(event: AliasMoved) -> str:
    if not event.to_version:
        return f"{event.model_id} has no {event.alias} any more (it was version {event.from_version})"
    before = f", before it was version {event.from_version}" if event.from_version else ""
    return f"{event.model_id} {event.alias} is version {event.to_version}{before}"


def _verdict_changed(event: VerdictChanged) -> str:
    evaluation = event.evaluation
    why = f": {evaluation.reasons[0]}" if evaluation.reasons else ""
    return (
        f"{event.model_id} is {event.to_level.value} (was {event.from_level.value}), "
        f"score {evaluation.score:.2f} of {evaluation.threshold:.2f}, "
        f"confidence {evaluation.confidence.value}{why}"
    )


def _attempt_ended(event: AttemptEnded) -> str:
    if event.state is AttemptState.SUCCEEDED:
        return f"{event.attempt_id} of {event.model_id} trained version {event.version}"
    again = f"; next try at {event.retry_at:%Y-%m-%d %H:%M}" if event.retry_at else ""
    return (
        f"{event.attempt_id} of {event.model_id} {event.state.value.lower().replace('_', ' ')}: {event.failure}{again}"
    )


def _validation(validation: Validation) -> str:
    verb = "passed" if validation.passed else "failed"
    against = f" against {validation.production:.4f}" if validation.production is not None else ""
    measured = f"{validation.metric} {validation.candidate:.4f}{against}"
    return f"{verb} its validation: {measured} on {validation.sample_size} rows"
