"""The whole control plane under a virtual clock and a terrible scheduler: seeds pass, planted bugs are found."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core import plan
from control_plane.core.decide import attempts as decide_attempts
from control_plane.core.decide import leases as decide_leases
from control_plane.core.decide import registry as decide_registry
from control_plane.core.retraining import failures, rules
from control_plane.core.retraining.limits import Usage
from control_plane.core.retraining.types import RetrainingLimits
from tests.simulation.checkers import Violated
from tests.simulation.world import World

SEEDS = range(12)
STEPS = 400
BUG_SEEDS = 30
"""Histories within which a planted bug must show; most show in the first."""


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
    assert ends == {"PROMOTED", "REFUSED", "FAILED", "CANCELLED"}


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


@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("releasable", _without_order),
        ("releasable", _without_cooling),
        ("releasable", _one_too_many),
        ("retry_at", _tries_for_ever),
        ("overdue", _never_overdue),
        ("held_lease", _any_lease_holds),
    ],
)
def test_planted_bugs_are_found(
    monkeypatch: pytest.MonkeyPatch, name: str, bug: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    original = getattr(rules, name, None) or getattr(failures, name)
    for module in (decide_attempts, decide_leases, decide_registry, plan):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, bug(original))
    with pytest.raises(Violated):
        for seed in range(BUG_SEEDS):
            World(seed).run(STEPS)
