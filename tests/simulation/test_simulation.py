"""The whole control plane under a virtual clock and a terrible scheduler: seeds pass, planted bugs are found."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from control_plane.core import plan
from control_plane.core.decide import attempts as decide_attempts
from control_plane.core.decide import canary as decide_canary
from control_plane.core.decide import leases as decide_leases
from control_plane.core.decide import onward
from control_plane.core.decide import rollout as decide_rollout
from control_plane.core.events import AliasMoved
from control_plane.core.retraining import limits
from control_plane.core.retraining import rules as retraining_rules
from control_plane.core.retraining.limits import Usage
from control_plane.core.retraining.types import FailureClass, RetrainingLimits, RetrainState
from control_plane.core.rollout.types import JudgeVerdict
from tests.simulation.checkers import Violated
from tests.simulation.releases import Released
from tests.simulation.seeds import histories
from tests.simulation.slots import Overrun
from tests.simulation.turns import Overtaken
from tests.simulation.world import Faults, World

SEEDS = range(12)
STEPS = 400
BUG_SEEDS = 60
"""Histories within which a planted bug must show; most show in the first."""
LATE = Faults(late_tick=0.85, late_report=0.6)
"""Nothing that is due is done in time: what only that shows."""


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken(seed: int) -> None:
    world = World(seed)
    world.run(STEPS)
    assert world.checkers.ended, "a history without a retrain proves nothing"


def test_a_history_repeats_from_its_seed() -> None:
    first, second = World(3), World(3)
    first.run(120)
    second.run(120)
    assert [record.hash for record in first.log] == [record.hash for record in second.log]


def test_histories_see_every_kind_of_end() -> None:
    ends = set()
    for seed in SEEDS:
        world = World(seed)
        world.run(STEPS)
        ends |= {state.value for state in world.checkers.ended.values()}
    assert ends == {"PROMOTED", "REFUSED", "FAILED", "CANCELLED", "SUPERSEDED"}


def _without_order(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda live, asking, usage, most: original(live, replace(asking, wave_of=lambda _: 1), usage, most)


def _without_cooling(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda live, asking, usage, most: original(
        live, replace(asking, cooling_until=lambda _: None, unsettled=lambda _: False), usage, most
    )


def _one_too_many(original: Callable[..., Any]) -> Callable[..., Any]:
    def releasable(live: Any, asking: Any, usage: Usage, most: int) -> Any:
        limits = usage.limits
        usage.limits = RetrainingLimits(
            running_max=limits.running_max + 1, running_per_team_max=limits.running_per_team_max + 1
        )
        return original(live, asking, usage, most)

    return releasable


def _tries_for_ever(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda policy, retrain, failure_class, now: now + timedelta(minutes=5)


def _never_overdue(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda attempt, policy, now: ""


def _any_lease_holds(original: Callable[..., Any]) -> Callable[..., Any]:
    def held_lease(retrain: Any, attempt_id: Any, token: Any, now: Any) -> Any:
        return retrain.running_attempt or original(retrain, attempt_id, token, now)

    return held_lease


def _no_reserve(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda limits, tier: limits.running_max


def _one_over_budget(original: Callable[..., Any]) -> Callable[..., Any]:
    def in_the_way(usage: Usage, claim: Any) -> str:
        return str(original(usage, replace(claim, gpu_hours=1e-6)))

    return in_the_way


def _any_breaker(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda state, scheduler, wanted, now: wanted


def _lost_with_its_scheduler(original: Callable[..., Any]) -> Callable[..., Any]:
    def lost(policy: Any, retrain: Any, failure_class: FailureClass, now: Any) -> Any:
        return None if failure_class is FailureClass.SCHEDULER else original(policy, retrain, failure_class, now)

    return lost


def _runs_twice(original: Callable[..., Any]) -> Callable[..., Any]:
    def releasable(live: Any, asking: Any, usage: Usage, most: int) -> Any:
        both = list(live)
        chosen = original(both, asking, usage, most)
        return (chosen + [one for one in both if one.state is RetrainState.RUNNING])[:most]

    return releasable


def _any_order(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda retrain, tier, now: (0, 0.0, retrain.requested_at, retrain.retrain_id)


def _any_score(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda retrain, tier, now: original(msgspec.structs.replace(retrain, score=-retrain.score), tier, now)


def _no_approval(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda rollout: 0


def _no_freeze(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda state, record, now: ""


def _kind_judge(original: Callable[..., Any]) -> Callable[..., Any]:
    def judge(plan: Any, look: Any, step: int) -> Any:
        return msgspec.structs.replace(original(plan, look, step), verdict=JudgeVerdict.PASS, metrics=())

    return judge


def _alias_stays(original: Callable[..., Any]) -> Callable[..., Any]:
    def restored(*arguments: Any) -> Any:
        return [event for event in original(*arguments) if not isinstance(event, AliasMoved)]

    return restored


def _alone(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda state, rollout: [rollout]


PLANTED = {
    "order ignored": (decide_leases, "releasable", _without_order),
    "cooldowns ignored": (decide_leases, "releasable", _without_cooling),
    "one slot too many": (decide_leases, "releasable", _one_too_many),
    "leased twice": (decide_leases, "releasable", _runs_twice),
    "tried for ever": (decide_attempts, "retry_at", _tries_for_ever),
    "never overdue": (plan, "overdue", _never_overdue),
    "any lease holds": (decide_attempts, "held_lease", _any_lease_holds),
    "no reserve for tier 1": (limits, "slots_of", _no_reserve),
    "one attempt over the budget": (Usage, "in_the_way", _one_over_budget),
    "leased through an open breaker": (decide_leases, "leases_allowed", _any_breaker),
    "lost while the breaker is open": (decide_attempts, "retry_at", _lost_with_its_scheduler),
    "promoted without approval": (onward, "missing_approvals", _no_approval),
    "a step in a freeze": (onward, "freeze_words", _no_freeze),
    "the judge ignored": (decide_canary, "judge", _kind_judge),
    "rolled back, and the alias stays": (decide_rollout, "_restored", _alias_stays),
    "scores ignored": (retraining_rules, "priority", _any_score),
    "tiers ignored": (retraining_rules, "priority", _any_order),
    "half a group goes back": (onward, "together", _alone),
}
"""What is wrong -> where, under which name, and how."""


@pytest.mark.parametrize("wrong", PLANTED)
def test_planted_bugs_are_found(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    place, name, bug = PLANTED[wrong]
    monkeypatch.setattr(place, name, bug(getattr(place, name)))
    with pytest.raises((Violated, Overrun, Released, Overtaken)):
        for seed in range(BUG_SEEDS):
            for faults in (Faults(), LATE):
                World(seed, faults=faults).run(STEPS)


FAULTS = {one.name for one in fields(Faults)} | {
    "scheduler_outage",
    "silent_metrics",
    "harmful_candidate",
    "weight_failure",
}
MET_MIN = 20
"""How often two hundred histories meet each fault, at least."""


@pytest.mark.slow
def test_two_hundred_histories() -> None:
    met: Counter[str] = Counter()
    for one in histories(range(1_000, 1_200), steps=120, workers=2):
        assert not one.failure
        met.update(one.met)
    assert {name for name, count in met.items() if count >= MET_MIN} >= FAULTS | {"turns_compared"}
