"""Which way a rollout goes: onward step by step, or back. A group goes as one.

Theory of operation. `cleared` is asked when a candidate has passed its validation, `onward` when its numbers (or a
person) allow the next step, `back` when they do not. Each gives the events for the rollout and for all that move with
it: onward upstream first, back downstream first, so that no model ever serves beside an upstream it was not made for.
"""

from collections.abc import Sequence
from datetime import datetime

from control_plane.core.decide.rollout_ends import drop_candidate, end_of_retrain, promotion, ready
from control_plane.core.events import ApprovalAsked, Event, RolloutEnded, RolloutStepped
from control_plane.core.registry.types import PRODUCTION, ModelFacts
from control_plane.core.retraining.types import RetrainState
from control_plane.core.rollout.canary import hindrances, missing_approvals
from control_plane.core.rollout.freeze import frozen_by
from control_plane.core.rollout.gate import checks_missing
from control_plane.core.rollout.types import SERVING, Rollout, RolloutState
from control_plane.core.rollout.words import percent
from control_plane.core.state import ModelRecord, State


def scopes_of(facts: ModelFacts) -> frozenset[str]:
    """All scopes that a model is in."""
    return frozenset(("fleet", f"tier:{facts.tier}", f"team:{facts.team}", f"model:{facts.model_id}"))


def freeze_words(state: State, record: ModelRecord, now: datetime) -> str:
    """The freeze that stands in the way of a model, in words; empty if none does."""
    if not state.freezes:
        return ""
    freeze = frozen_by(state.freezes.values(), scopes_of(record.facts), now)
    if freeze is None:
        return ""
    why = f": {freeze.reason}" if freeze.reason else ""
    return f"the end of freeze {freeze.name} of {freeze.scope} at {freeze.ends_at:%Y-%m-%d %H:%M}{why}"


def in_the_way(state: State, rollout: Rollout, now: datetime) -> list[str]:
    """What keeps a rollout, or one that moves with it, from going forward besides its numbers, in words."""
    found = []
    for one in together(state, rollout):
        words = hindrances(one, now, freeze_words(state, state.models[one.model_id], now))
        found += words if one.rollout_id == rollout.rollout_id else [f"{one.model_id}: {word}" for word in words]
    return found


def together(state: State, rollout: Rollout) -> list[Rollout]:
    """The live rollouts that move as one with this one, upstream first; itself as it is given."""
    group = state.groups.get(rollout.group_id)
    if group is None:
        return [rollout]
    members = [rollout if one == rollout.rollout_id else state.rollouts[one] for one in group.rollout_ids]
    return [one for one in members if one.live]


def validated(state: State, rollout: Rollout) -> bool:
    """Has a candidate passed its validation and all checks, and does it load as far as its policy wants to know?"""
    record = state.models[rollout.model_id]
    policy = record.validation_policy
    passed = policy.skip if rollout.validation is None else rollout.validation.passed
    return passed and ready(record, record.versions[rollout.version - 1]) and not checks_missing(policy, rollout)


def cleared(state: State, rollout: Rollout, now: datetime, why: str) -> tuple[Event, ...]:
    """What follows once a candidate is validated: somebody is asked, or it goes on.

    `rollout` may know more than the state does: what is being decided.
    """
    missing = missing_approvals(rollout)
    if missing:
        if rollout.state is RolloutState.AWAITING_APPROVAL:
            return ()
        return (
            ApprovalAsked(
                rollout_id=rollout.rollout_id,
                model_id=rollout.model_id,
                version=rollout.version,
                until=now + rollout.plan.approval_ttl,
                approvals=missing,
            ),
        )
    members = together(state, rollout)
    for one in members:
        known = one.rollout_id == rollout.rollout_id or validated(state, one)
        if not known or missing_approvals(one) or one.state in SERVING:
            return ()
    if in_the_way(state, rollout, now):
        return ()
    return onward(state, members, now, why)


def onward(state: State, rollouts: Sequence[Rollout], now: datetime, why: str) -> tuple[Event, ...]:
    """Each of them one step further, upstream first."""
    return tuple(event for one in rollouts for event in _step(state, one, now, why))


def _step(state: State, rollout: Rollout, now: datetime, why: str) -> tuple[Event, ...]:
    """Into the shadow, the canary, its next step, or production.

    1. Where nothing splits the traffic, or nothing is in production to compare with, straight into production.
    2. First the shadow, if the plan has one.
    3. Then step by step; after the last into production.
    """
    plan, record = rollout.plan, state.models[rollout.model_id]
    split = bool(plan.serving) and record.aliases.get(PRODUCTION, 0) != 0
    begins = rollout.state not in SERVING
    following = 0 if begins or rollout.state is RolloutState.SHADOW else rollout.step + 1
    if split and begins and plan.shadow:
        return (_stepped(rollout, RolloutState.SHADOW, -1, 0.0, why),)
    if split and following < len(plan.steps):
        return (_stepped(rollout, RolloutState.CANARY, following, plan.steps[following].weight, why),)
    return promotion(state, record, rollout, why, now)


def _stepped(rollout: Rollout, state: RolloutState, step: int, weight: float, why: str) -> RolloutStepped:
    judged = rollout.judgement
    return RolloutStepped(
        rollout_id=rollout.rollout_id,
        model_id=rollout.model_id,
        version=rollout.version,
        state=state,
        step=step,
        weight=weight,
        why=why,
        counts=dict(judged.counts) if judged is not None and step > 0 else {},
    )


def back(state: State, rollout: Rollout, why: str, *, aborted: bool = False) -> tuple[Event, ...]:
    """The rollout ends and so do all that move with it, downstream first: traffic goes back to production.

    One that served is rolled back, one that did not is refused; `aborted` says that nothing was wrong with it.
    """
    events: list[Event] = []
    for one in reversed(together(state, rollout)):
        itself = one.rollout_id == rollout.rollout_id
        reason = why if itself else f"moves with {rollout.model_id} version {rollout.version}: {why}"
        if aborted or not (itself or one.state in SERVING):
            ended = RolloutState.ABORTED
        else:
            ended = RolloutState.ROLLED_BACK if one.state in SERVING else RolloutState.REFUSED
        at = f" at {percent(one.weight)}" if one.state is not RolloutState.SHADOW and one.weight else ""
        how = ended.value.lower().replace("_", " ") + at
        events.extend(drop_candidate(state.models[one.model_id], one))
        events.append(
            RolloutEnded(
                rollout_id=one.rollout_id, model_id=one.model_id, version=one.version, state=ended, conclusion=reason
            )
        )
        events.extend(end_of_retrain(one, RetrainState.REFUSED, f"version {one.version} {how}: {reason}"))
    return tuple(events)
