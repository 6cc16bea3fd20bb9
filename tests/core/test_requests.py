"""Requests in odd orders: held past their time, tried again after it, and asked for again by somebody in a hurry."""

from datetime import datetime, timedelta

import pytest

from control_plane.core.commands import HoldRetrain, ReleaseRetrain, ReportFailure, RequestRetrain, SetLimits
from control_plane.core.ids import ModelId, RetrainId
from control_plane.core.retraining.types import Retrain, RetrainCause, RetrainingLimits, RetrainingPolicy, RetrainState
from tests.core.fleets import HOUR, MINUTE, Fleet

TTL = 2 * HOUR
POLICY = RetrainingPolicy(
    request_ttl=TTL, cooldown=timedelta(0), retry_backoff=HOUR, lease_ttl=6 * HOUR, attempt_timeout=7 * HOUR
)


def asked(
    fleet: Fleet,
    *,
    cause: RetrainCause = RetrainCause.OPERATOR,
    off_peak: bool = False,
    ignore_cooldown: bool = False,
) -> Retrain:
    """The live retrain of `a` after one more request."""
    command = RequestRetrain(model_id=ModelId("a"), cause=cause, off_peak=off_peak, ignore_cooldown=ignore_cooldown)
    result = fleet.do(command)
    assert result.retrain_id is not None
    return fleet.state.retrains[result.retrain_id]


def noon() -> Fleet:
    """One model, at noon: the off-peak hours begin at ten in the evening."""
    fleet = Fleet()
    fleet.model("a", policy=POLICY)
    fleet.now = fleet.now.replace(hour=12)
    return fleet


def test_what_was_held_past_its_time_to_live_can_run_when_it_is_released() -> None:
    fleet = noon()
    retrain = asked(fleet)
    fleet.do(HoldRetrain(retrain_id=retrain.retrain_id))
    assert fleet.pass_time(30 * TTL) == []
    fleet.do(ReleaseRetrain(retrain_id=retrain.retrain_id))
    assert fleet.pass_time(TTL) == []
    assert fleet.leased_models(fleet.lease()) == ["a"]


def test_what_was_released_and_cannot_run_is_forgotten_in_the_end() -> None:
    fleet = noon()
    retrain = asked(fleet)
    fleet.do(HoldRetrain(retrain_id=retrain.retrain_id))
    fleet.pass_time(30 * TTL)
    fleet.do(ReleaseRetrain(retrain_id=retrain.retrain_id))
    assert fleet.pass_time(TTL + MINUTE) == ["RetrainEnded"]


def test_an_attempt_that_outlasts_the_time_to_live_is_tried_again_all_the_same() -> None:
    fleet = noon()
    retrain = asked(fleet)
    (attempt,) = fleet.lease()
    fleet.now += 3 * HOUR
    fleet.do(ReportFailure(attempt_id=attempt, lease_token=fleet.token(attempt), failure="boom"))
    assert fleet.pass_time(HOUR + MINUTE) == []
    assert fleet.leased_models(fleet.lease()) == ["a"]
    assert fleet.state.retrains[retrain.retrain_id].state is RetrainState.RUNNING


@pytest.mark.parametrize("ignore_cooldown", [False, True])
def test_a_person_in_a_hurry_brings_forward_what_waits_for_the_night(ignore_cooldown: bool) -> None:
    fleet = noon()
    waits = asked(fleet, off_peak=True, ignore_cooldown=ignore_cooldown)
    assert waits.not_before.hour == 22
    again = asked(fleet, ignore_cooldown=ignore_cooldown)
    assert (again.retrain_id, again.not_before) == (waits.retrain_id, fleet.now)
    assert fleet.leased_models(fleet.lease()) == ["a"]


def test_nobody_puts_off_what_is_asked_for_already_and_no_verdict_hurries_what_a_person_put_off() -> None:
    fleet = noon()
    now = asked(fleet)
    assert asked(fleet, off_peak=True, ignore_cooldown=True).not_before == now.not_before
    other = noon()
    put_off = asked(other, off_peak=True)
    assert asked(other, cause=RetrainCause.STALE).not_before == put_off.not_before


def test_a_cooldown_that_is_ignored_for_the_night_still_waits_for_the_night() -> None:
    fleet = Fleet()
    fleet.model("a", policy=RetrainingPolicy(cooldown=timedelta(days=3)), serving=True)
    fleet.now = fleet.now.replace(hour=12)
    assert asked(fleet).not_before == _ended_at(fleet, RetrainId("rt_000001")) + timedelta(days=3)
    assert asked(fleet, off_peak=True, ignore_cooldown=True).not_before == fleet.now.replace(hour=22)


def _ended_at(fleet: Fleet, retrain_id: RetrainId) -> datetime:
    ended_at = fleet.state.retrains[retrain_id].ended_at
    assert ended_at is not None
    return ended_at


def test_the_place_in_the_queue_is_by_the_verdict_that_stands_not_by_the_one_at_the_request() -> None:
    fleet = Fleet()
    for name in "ab":
        fleet.model(name, policy=POLICY, serving=True)
    for name in "ab":
        fleet.look(name, stale=False)
        fleet.request(name)
        fleet.now += MINUTE
    fleet.look("b", stale=True, score=0.9)
    fleet.do(SetLimits(limits=RetrainingLimits(running_max=1)))
    assert fleet.leased_models(fleet.lease()) == ["b"]
