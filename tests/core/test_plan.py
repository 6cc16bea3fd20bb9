"""`plan`: what is due by itself, bounded, and harmless when late or repeated."""

from datetime import timedelta

from msgspec.structs import replace

from control_plane.core import plan as plan_module
from control_plane.core.commands import CloseHealed, ExpireAttempt, ExpireValidation, RequestRetrain
from control_plane.core.plan import COMMANDS_PER_TICK_MAX, plan
from control_plane.core.retraining.types import RetrainingPolicy
from control_plane.core.rollout.types import ValidationPolicy
from control_plane.core.staleness.verdict import Action
from tests.core.fleets import HOUR, MINUTE, Fleet, an_evaluation

POLICY = RetrainingPolicy(cooldown=HOUR, lease_ttl=10 * MINUTE, attempt_timeout=HOUR)


def busy() -> Fleet:
    """One of each: a lost attempt, a silent candidate, a healed retrain, a stale model."""
    fleet = Fleet()
    for name in ("lost", "silent", "healed", "stale"):
        fleet.model(name, policy=POLICY, validation=ValidationPolicy(timeout=HOUR), serving=True)
    fleet.now += 2 * HOUR
    fleet.request("silent")
    fleet.train(fleet.lease()[0])
    fleet.request("lost")
    fleet.lease()
    fleet.look("healed", stale=True)
    fleet.pass_time(timedelta(0))
    fleet.look("healed", stale=False)
    fleet.look("stale", stale=True)
    return fleet


def test_nothing_is_due_in_an_empty_fleet() -> None:
    assert plan(Fleet().state, Fleet().now) == []


def test_what_frees_something_comes_first_and_each_is_due_once() -> None:
    fleet = busy()
    fleet.now += 2 * HOUR
    due = plan(fleet.state, fleet.now)
    order = [ExpireAttempt, ExpireValidation, CloseHealed, RequestRetrain]
    kinds = [order.index(type(command)) for command in due]
    assert kinds == sorted(kinds)
    assert set(order) == {type(command) for command in due}
    for command in (*due, *due):
        fleet.do(command)
    assert plan(fleet.state, fleet.now) == []


def test_a_plan_is_bounded_and_the_rest_is_due_next_time() -> None:
    fleet = Fleet()
    for number in range(6):
        fleet.model(f"m{number}", policy=POLICY, serving=True)
    fleet.now += 2 * HOUR
    for number in range(6):
        fleet.look(f"m{number}", stale=True)
    assert COMMANDS_PER_TICK_MAX >= 6
    before = plan_module.COMMANDS_PER_TICK_MAX
    try:
        plan_module.COMMANDS_PER_TICK_MAX = 4
        seen = [len(fleet.pass_time(timedelta(0))) for _ in range(3)]
    finally:
        plan_module.COMMANDS_PER_TICK_MAX = before
    assert seen == [4, 2, 0]


def test_a_stale_model_waits_for_its_own_cooldown() -> None:
    fleet = Fleet()
    fleet.model("m", policy=POLICY, serving=True)
    fleet.look("m", stale=True)
    assert fleet.pass_time(HOUR - MINUTE) == []
    assert fleet.pass_time(MINUTE) == ["RetrainRequested"]


def test_what_a_retrain_cannot_mend_is_not_retrained() -> None:
    fleet = Fleet()
    model_id = fleet.model("m", policy=POLICY, serving=True)
    fleet.now += 2 * HOUR
    fleet.look("m", stale=True)
    record = fleet.state.models[model_id]
    look = an_evaluation(1, fleet.now, stale=True)
    others = [action for action in Action if action is not Action.RETRAIN]
    for action in others:
        record.standing = replace(record.standing, evaluation=replace(look, recommended_action=action))
        assert plan(fleet.state, fleet.now) == []
    record.standing = replace(record.standing, evaluation=look)
    assert len(plan(fleet.state, fleet.now)) == 1
