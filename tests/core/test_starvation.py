"""Strict priority by tier, and nobody starves: an endless stream of important retrains holds up the others for days,
not for ever."""

from datetime import timedelta

import pytest

from control_plane.core.commands import SetLimits
from control_plane.core.ids import AttemptId, ModelId
from control_plane.core.retraining import rules
from control_plane.core.retraining.types import RetrainingLimits, RetrainingPolicy
from tests.core.fleets import HOUR, Fleet

POLICY = RetrainingPolicy(cooldown=timedelta(0), cascade_cooldown=timedelta(0), lease_ttl=timedelta(hours=2))
IMPORTANT = [f"important{at}" for at in range(5)]
RUNNING_MAX = 2
DAYS_MAX = 10


def first_turn(tier: int) -> timedelta | None:
    """How long a model of a tier waits among models of tier 1 that are asked for again as soon as they have ended."""
    fleet = Fleet()
    fleet.do(SetLimits(limits=RetrainingLimits(running_max=RUNNING_MAX, running_per_team_max=RUNNING_MAX)))
    for name in IMPORTANT:
        fleet.model(name, tier=1, policy=POLICY)
    fleet.model("humble", tier=tier, policy=POLICY)
    asked_at = fleet.now
    fleet.request("humble")
    running: list[AttemptId] = []
    while fleet.now < asked_at + timedelta(days=DAYS_MAX):
        for name in IMPORTANT:
            if fleet.state.models[ModelId(name)].live_retrain is None:
                fleet.request(name)
        running += fleet.lease(known=tuple(running))
        assert len(running) <= RUNNING_MAX
        if "humble" in fleet.leased_models(tuple(running)):
            return fleet.now - asked_at
        fleet.now += HOUR
        for attempt in running:
            model_id = fleet.state.retrain_of_attempt(attempt).model_id
            fleet.validate(model_id, fleet.train(attempt), passed=False)
        running = []
    return None


@pytest.mark.parametrize("tier", [2, 3, 4])
def test_a_day_of_waiting_counts_as_a_tier(tier: int) -> None:
    waited = first_turn(tier)
    assert waited is not None
    assert timedelta(days=tier - 1) <= waited <= timedelta(days=tier - 1) + 2 * HOUR


def test_without_that_the_humble_starve(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would say of a rule that forgets those who wait."""
    monkeypatch.setattr(rules, "priority", lambda one, tier, now: (tier, -one.score, one.requested_at, one.retrain_id))
    assert first_turn(4) is None
