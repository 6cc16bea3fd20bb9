"""Plan and apply: what retraining some models would come to, with all that may follow downstream.

What is asked for is certain; what follows is not: a model downstream of a promotion is looked at afresh, and retrains
only if that says so. The plan gives its likelihood, read from how often that happened, and the exact worst case: every
model once, never more at once than the limits allow.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from msgspec.structs import replace

from control_plane.core.decide.breakers import leases_allowed
from control_plane.core.decide.leases import claim_of, gpu_hours_expected, usage_now
from control_plane.core.decide.likelihood import Cases, Kind, harm_likelihood, past_harm
from control_plane.core.decide.requests import touches_many
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.evolve_retraining import week_of
from control_plane.core.graph.order import topological_waves
from control_plane.core.ids import ModelId, NodeId, RetrainId, TeamId, model_node, node_name
from control_plane.core.retraining.breaker import standing_words
from control_plane.core.retraining.forecast import Expected, Job, forecast
from control_plane.core.retraining.limits import Usage, budget_words
from control_plane.core.retraining.rules import earliest_start, next_off_peak
from control_plane.core.retraining.types import AttemptState, Retrain, RetrainCause, RetrainingPolicy, RetrainState
from control_plane.core.rollout.plan import plan_of
from control_plane.core.staleness.verdict import Level
from control_plane.core.state import ModelRecord, State

JOBS_MAX = 20_000
ROWS_AT_ONCE = 500
"""Of bits that are counted: ten megabytes at `JOBS_MAX`."""
PAST_RUNS = 5
"""Last successful attempts whose time a model's next is expected to take."""
HEALING = 0.5
"""Likelihood of a retrain whose model looks better already, though its verdict stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRetrain:
    """One retrain as the plan expects it."""

    expected: Expected
    record: ModelRecord
    retrain_id: RetrainId | None
    requested: bool
    likelihood: float
    why_likely: str
    gpu_hours: float
    downstream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainPlan:
    """The whole cascade before it happens."""

    retrains: tuple[PlannedRetrain, ...]
    waves: int
    ends_at: datetime | None
    gpu_hours_expected: float
    gpu_hours_max: float
    retrains_max: int
    running_max: int
    warnings: tuple[str, ...]
    etag: str


def plan_retrains(
    state: State,
    now: datetime,
    model_ids: Sequence[ModelId],
    *,
    cascade: bool = True,
    ignore_cooldown: bool = False,
    off_peak: bool = False,
) -> RetrainPlan:
    """What it would come to if these models were asked for now; without any, what is live and due by itself."""
    asked = list(dict.fromkeys(model_ids))
    _check(state, asked)
    live = {retrain.model_id: retrain for retrain in state.living()}
    roots = asked or list(live)
    wanted = dict.fromkeys([*live, *roots])
    followers = _downstream(state, roots) if cascade else ()
    following = [model_id for model_id in followers if model_id not in wanted and _may_follow(state, model_id)]
    members = [*wanted, *following]
    if len(members) > JOBS_MAX:
        raise Invalid(
            Reason.LIMIT_EXCEEDED,
            Violation(field="model_ids", rule="size", message=f"touches {len(members)} models, at most {JOBS_MAX}"),
        )
    upstream = _upstream_among(state, members)
    options = _Options(ignore_cooldown=ignore_cooldown, off_peak=off_peak)
    jobs = [
        _job(state, model_id, live.get(model_id), model_id in wanted, upstream[model_id], options, now)
        for model_id in members
    ]
    below = dict(zip(members, _counted(upstream.values(), len(members)), strict=True))
    waves = {
        ModelId(node_name(node)): number
        for number, wave in enumerate(topological_waves(state.graph, [model_node(one) for one in members]), start=1)
        for node in wave
    }
    held = usage_now(state, now)
    usage = Usage(limits=state.limits, spent=dict(held.spent))
    found = forecast(
        jobs, usage, now, waves, week_of(now) + timedelta(days=7), lambda name: leases_allowed(state, name, 1, now) > 0
    )
    history = _History(members=frozenset(map(model_node, members)), cases=past_harm(state))
    planned = tuple(
        _planned(state, one, live.get(one.model_id), one.model_id in wanted, below[one.model_id], history)
        for one in found
    )
    return _summed(state, planned, waves, now, _etag(state, planned, upstream, asked, options))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    ignore_cooldown: bool
    off_peak: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _History:
    """What likelihoods are read from: who is in the plan, and what past promotions did."""

    members: frozenset[NodeId]
    cases: Mapping[Kind, Cases]


def _check(state: State, model_ids: Iterable[ModelId]) -> None:
    found = [
        Violation(
            field="model_ids",
            rule="exists",
            message=f"{model_id} is {'retired' if model_id in state.models else 'no model'}",
        )
        for model_id in model_ids
        if model_id not in state.models or state.models[model_id].retired
    ]
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)


def _may_follow(state: State, model_id: ModelId) -> bool:
    record = state.models.get(model_id)
    return record is not None and not record.retired and record.retraining_policy.automatic and bool(record.aliases)


def _downstream(state: State, roots: Collection[ModelId]) -> list[ModelId]:
    """Models downstream of any of these, sorted; themselves too if one is downstream of another."""
    found: set[ModelId] = set()
    for root in roots:
        if root not in found:
            found.update(ModelId(node_name(node)) for node in state.graph.downstream_models(model_node(root)))
    return sorted(found)


def _upstream_among(state: State, members: Collection[ModelId]) -> dict[ModelId, int]:
    """For each of these models, which of the others it depends on at any distance: a bit for each, by its place."""
    place = {model_node(model_id): at for at, model_id in enumerate(members)}
    targets: dict[str, list[str]] = {}
    missing: dict[str, int] = {}
    for edge in state.graph.dependencies():
        targets.setdefault(edge.upstream, []).append(edge.downstream)
        missing[edge.downstream] = missing.get(edge.downstream, 0) + 1
    reached: dict[str, int] = {}
    """Node -> bits of the members upstream of it."""
    pending = [node for node in targets if node not in missing]
    while pending:
        node = pending.pop()
        known = reached.get(node, 0)
        passed = known | (1 << place[node] if node in place else 0)  # type: ignore[index]
        for target in targets.get(node, ()):
            reached[target] = reached.get(target, 0) | passed
            missing[target] -= 1
            if not missing[target]:
                pending.append(target)
    return {name: reached.get(model_node(name), 0) for name in members}


def _counted(masks: Iterable[int], size: int) -> list[int]:
    """How often each of `size` bits is set."""
    width = max(size + 7, 8) // 8
    rows = np.frombuffer(b"".join(mask.to_bytes(width, "little") for mask in masks), np.uint8).reshape(-1, width)
    counts = np.zeros(width * 8, np.int64)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        counts += np.unpackbits(rows[first : first + ROWS_AT_ONCE], axis=1, bitorder="little").sum(
            axis=0, dtype=np.int64
        )
    found: list[int] = counts[:size].tolist()
    return found


def _job(
    state: State,
    model_id: ModelId,
    live: Retrain | None,
    requested: bool,
    upstream: int,
    options: _Options,
    now: datetime,
) -> Job:
    record = state.models[model_id]
    policy = record.retraining_policy
    many = live is None and not (requested and options.ignore_cooldown) and touches_many(state, record)
    retrain = live or _imagined(record, requested, many, options, now)
    attempt = retrain.running_attempt
    ignores = retrain.ignore_cooldown or (requested and options.ignore_cooldown)
    cascade = record.cascade
    if live is not None and not ignores and cascade is not None and cascade.harmed is None:
        retrain = replace(retrain, not_before=max(retrain.not_before, cascade.until))
    return Job(
        retrain=retrain,
        claim=claim_of(state, retrain),
        scheduler=policy.scheduler,
        duration=expected_duration(state, record),
        rollout=_rollout_time(record),
        upstream=upstream,
        cooldown=timedelta(0) if ignores else policy.cascade_cooldown,
        follows=not requested,
        started_at=attempt.leased_at if attempt is not None else None,
        postponed=(lambda at: next_off_peak(policy, at)) if many and not requested else None,
    )


def _imagined(record: ModelRecord, requested: bool, many: bool, options: _Options, now: datetime) -> Retrain:
    """The retrain that would be asked for."""
    policy = record.retraining_policy
    not_before = earliest_start(policy, now, record.retrain_ended_at, requested and options.ignore_cooldown)
    if requested and (options.off_peak or many):
        not_before = next_off_peak(policy, not_before)
    evaluation = record.standing.evaluation
    return Retrain(
        retrain_id=RetrainId(f"plan:{record.model_id}"),
        model_id=record.model_id,
        state=RetrainState.WAITING,
        causes=(RetrainCause.OPERATOR if requested else RetrainCause.UPSTREAM,),
        score=evaluation.score if evaluation is not None else 0.0,
        requested_at=now,
        requested_by="",
        reason="",
        not_before=not_before,
        ignore_cooldown=requested and options.ignore_cooldown,
    )


def expected_duration(state: State, record: ModelRecord) -> timedelta:
    """How long a training is expected to take: as long as the model's last ones, else as its policy says."""
    spans = []
    for retrain_id in reversed(record.retrain_ids):
        for attempt in reversed(state.retrains[retrain_id].attempts):
            if attempt.state is AttemptState.SUCCEEDED and attempt.ended_at is not None:
                spans.append(attempt.ended_at - attempt.leased_at)
        if len(spans) >= PAST_RUNS:
            break
    if not spans:
        return record.retraining_policy.duration_expected
    return sum(spans, timedelta(0)) / len(spans)


def _rollout_time(record: ModelRecord) -> timedelta:
    """From a passed validation to the promotion, if nothing goes wrong; people are not forecast."""
    plan = plan_of(record.rollout_policy)
    return plan.shadow + sum((step.bake for step in plan.steps), timedelta(0))


def _planned(
    state: State, expected: Expected, live: Retrain | None, requested: bool, below: int, history: _History
) -> PlannedRetrain:
    record = state.models[expected.model_id]
    likelihood, why = _likelihood(state, record, live, requested, history)
    return PlannedRetrain(
        expected=expected,
        record=record,
        retrain_id=live.retrain_id if live is not None else None,
        requested=requested,
        likelihood=likelihood,
        why_likely=why,
        gpu_hours=gpu_hours_expected(record),
        downstream=below,
    )


def _likelihood(
    state: State, record: ModelRecord, live: Retrain | None, requested: bool, history: _History
) -> tuple[float, str]:
    """How likely a retrain is needed at all, and what that is read from."""
    if not requested:
        return harm_likelihood(state, record, history.members, history.cases)
    by_verdict = live is not None and {RetrainCause.STALE, RetrainCause.UPSTREAM}.issuperset(live.causes)
    recent = record.standing.streak.recent
    waits = live is not None and live.state is RetrainState.WAITING
    if by_verdict and waits and recent and recent[-1] is Level.FRESH:
        return HEALING, "its last look was FRESH: it may heal by itself"
    return 1.0, "asked for"


def _summed(
    state: State, planned: tuple[PlannedRetrain, ...], waves: Mapping[ModelId, int], now: datetime, etag: str
) -> RetrainPlan:
    ends = [one.expected.ends_at for one in planned if one.expected.ends_at is not None]
    hours = sum(one.gpu_hours for one in planned)
    return RetrainPlan(
        retrains=planned,
        waves=max(waves.values(), default=0),
        ends_at=max(ends, default=None),
        gpu_hours_expected=sum(one.gpu_hours * one.likelihood for one in planned),
        gpu_hours_max=hours,
        retrains_max=len(planned),
        # What runs already goes on, even if the limit was lowered since.
        running_max=min(len(planned), max(state.limits.running_max, len(state.running()))),
        warnings=tuple(_warnings(state, planned, now)),
        etag=etag,
    )


def _warnings(state: State, planned: Sequence[PlannedRetrain], now: datetime) -> Iterable[str]:
    if state.held:
        yield "retraining is held for the whole fleet: nothing starts before `runway release`"
    for breaker in state.breakers.values():
        words = standing_words(breaker)
        if words:
            yield f"retrains wait for {words}"
    never = [one for one in planned if one.expected.starts_at is None and one.expected.ends_at is None]
    stuck = [one for one in never if not _is_validating(state, one)]
    for one in stuck[:10]:
        why = ", ".join(one.expected.waits_for) or "what is upstream of it never ends"
        yield f"no time was found for {one.record.model_id}: it waits for {why}"
    if len(stuck) > 10:
        yield f"no time was found for {len(stuck) - 10} more"
    yield from _put_off(planned, week_of(now) + timedelta(days=7))
    yield from _too_late(state, planned)


def _is_validating(state: State, one: PlannedRetrain) -> bool:
    return one.retrain_id is not None and state.retrains[one.retrain_id].state is RetrainState.VALIDATING


def _put_off(planned: Sequence[PlannedRetrain], next_week: datetime) -> Iterable[str]:
    """Whose budget does not last for all that this week asks of it."""
    late: dict[TeamId, list[datetime]] = {}
    for one in planned:
        starts_at, team = one.expected.starts_at, one.record.facts.team
        if starts_at is not None and starts_at >= next_week and budget_words(team) in one.expected.waits_for:
            late.setdefault(team, []).append(starts_at)
    for team, starts in sorted(late.items()):
        what = "1 retrain waits" if len(starts) == 1 else f"{len(starts)} retrains wait"
        yield (
            f"team {team} has too few GPU hours this week: {what} for its budget of a later one, the last until "
            f"{max(starts):%Y-%m-%d %H:%M}"
        )


def _too_late(state: State, planned: Sequence[PlannedRetrain]) -> Iterable[str]:
    """Which live requests would be forgotten before their turn."""
    for one in planned:
        live = state.retrains[one.retrain_id] if one.retrain_id is not None else None
        if live is None or live.expires_at is None or live.held_by or live.state is not RetrainState.WAITING:
            continue
        if one.expected.starts_at is None:
            until = f"{live.expires_at:%Y-%m-%d %H:%M}"
            yield f"{live.retrain_id} of {live.model_id} is given up at {until} if nothing changes"


def _etag(
    state: State,
    planned: Sequence[PlannedRetrain],
    upstream: Mapping[ModelId, int],
    asked: Sequence[ModelId],
    options: _Options,
) -> str:
    """Changes with what the plan asks for and what that depends on; not with the time that passes.

    Of what is live anyway only that counts which is upstream or downstream of what is asked for: else no plan could be
    applied in a fleet where some retrain always begins or ends.
    """
    place = {model_id: at for at, model_id in enumerate(upstream)}
    own = sum(1 << place[model_id] for model_id in asked)
    above = 0
    for model_id in asked:
        above |= upstream[model_id]
    rules: dict[RetrainingPolicy, int] = {}
    told = [
        (
            one.record.model_id,
            one.requested,
            one.retrain_id,
            one.expected.wave,
            one.record.etag,
            one.retrain_id is not None and state.retrains[one.retrain_id].held_by,
            rules.setdefault(one.record.retraining_policy, len(rules)),
        )
        for one in sorted(planned, key=lambda one: one.record.model_id)
        if not asked or (upstream[one.record.model_id] & own) or (own | above) >> place[one.record.model_id] & 1
    ]
    text = repr((told, list(rules), options, state.limits, state.held))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
