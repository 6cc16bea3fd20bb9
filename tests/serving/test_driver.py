"""The driver, against the real rules in a real node: what serving systems are told, and when."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.app.rollout_driver import CALLS_AT_ONCE_MAX, CHECK_EVERY_S, REFUSED_PAUSE_S
from control_plane.app.serving import ServingSystem, target_of
from control_plane.core.commands import AbortRollout, GroupRollouts, PromoteVersion, RollBack
from control_plane.core.events import AliasMoved, RolloutEnded, WeightReported
from control_plane.core.registry.types import PREVIOUS
from control_plane.core.rollout.types import Arm, JudgeVerdict, RolloutState
from tests.serving.fakes import FakeMetrics, FakeServing, a_look
from tests.serving.planes import SERVED, Plane, leading

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
def serving() -> FakeServing:
    return FakeServing()


@pytest.fixture
def metrics() -> FakeMetrics:
    return FakeMetrics()


@pytest.fixture
def systems(serving: FakeServing, metrics: FakeMetrics) -> dict[str, ServingSystem]:
    return {"fake": ServingSystem(serving=serving, metrics=metrics)}


@pytest.fixture
async def plane(systems: dict[str, ServingSystem]) -> AsyncIterator[Plane]:
    async with leading(systems, call_s_max=0.2) as found:
        yield found


async def events_of(plane: Plane, *kinds: type) -> list[object]:
    """All events of these kinds, oldest first."""
    return [one.event for one in await plane.node.events(0, 10_000) if isinstance(one.event, kinds)]


async def reach(plane: Plane, metrics: FakeMetrics, weight: float, *, candidate: float = 0.5) -> None:
    """Let a canary of `m` go on until it has this weight, both arms measuring the same unless told otherwise."""
    model_id = plane.rollout(next(iter(plane.node.state.models))).model_id
    for number in range(1, 40):
        if plane.rollout(model_id).weight == weight:
            return
        metrics.looks[model_id] = a_look(plane.clock.at, candidate, 0.5, 40_000 * number)
        await plane.pass_time(11 * MINUTE)
    raise AssertionError(f"stuck: {plane.rollout(model_id)}")


async def test_an_equal_candidate_goes_to_production_step_by_step(
    plane: Plane, serving: FakeServing, metrics: FakeMetrics
) -> None:
    model_id = await plane.model()
    await plane.candidate(model_id)
    await plane.pass_time(SECOND)
    for weight in (0.05, 0.2, 0.5):
        await reach(plane, metrics, weight)
        target = serving.targets[model_id]
        assert target.candidate is not None
        assert (target.candidate.version, target.candidate_weight, target.control_weight) == (2, weight, weight)
    await reach(plane, metrics, 1.0)
    target = serving.targets[model_id]
    assert target.production is not None
    assert (target.production.version, target.candidate) == (2, None)
    rollout = plane.rollout(model_id)
    assert (rollout.state, rollout.weight_applied) == (RolloutState.PROMOTED, 1.0)


async def test_harm_is_rolled_back_in_the_turn_that_sees_it(
    plane: Plane, serving: FakeServing, metrics: FakeMetrics
) -> None:
    model_id = await plane.model()
    await plane.candidate(model_id)
    await plane.pass_time(SECOND)
    assert serving.targets[model_id].candidate_weight == 0.05
    metrics.looks[model_id] = a_look(plane.clock.at, 0.3, 0.5, 5_000)
    await plane.driver.turn()
    rollout = plane.rollout(model_id)
    assert (rollout.state, rollout.weight, rollout.weight_applied) == (RolloutState.ROLLED_BACK, 0.0, 0.0)
    assert serving.targets[model_id].candidate is None
    kinds = [type(one) for one in await events_of(plane, AliasMoved, RolloutEnded, WeightReported)]
    # The candidate's alias goes before its traffic does.
    assert kinds[-3:] == [AliasMoved, RolloutEnded, WeightReported]


async def test_nothing_is_told_or_written_twice(plane: Plane, serving: FakeServing) -> None:
    model_id = await plane.model()
    await plane.candidate(model_id)
    for _ in range(2):
        await plane.pass_time(SECOND)
    revision, told = plane.node.state.revision, len(serving.told)
    for _ in range(5):
        await plane.pass_time(SECOND)
    assert (plane.node.state.revision, len(serving.told)) == (revision, told)


async def test_a_rollback_by_hand_is_followed_by_the_traffic(plane: Plane, serving: FakeServing) -> None:
    model_id = await plane.model()
    await plane.candidate(model_id)
    await plane.do(PromoteVersion(model_id=model_id, version=2, force=True))
    await plane.driver.turn()
    assert serving.targets[model_id].production is not None
    await plane.do(RollBack(model_id=model_id))
    await plane.driver.turn()
    target = serving.targets[model_id]
    assert target.production is not None
    assert (target.production.version, target.candidate) == (1, None)
    assert not plane.node.state.unconfirmed_rollouts


async def test_a_failure_is_told_once_and_tried_again_ever_more_seldom(plane: Plane, serving: FakeServing) -> None:
    model_id = await plane.model()
    await plane.driver.turn()
    serving.mood, told = "down", len(serving.told)
    await plane.candidate(model_id)
    for _ in range(60):
        await plane.pass_time(SECOND)
    assert 5 <= len(serving.told) - told <= 8, "1, 2, 4, 8, 16, 32 s apart"
    failures = [
        one for one in await events_of(plane, WeightReported) if isinstance(one, WeightReported) and one.failure
    ]
    assert [one.failure for one in failures] == ["the fake is down"]
    assert plane.rollout(model_id).weight_failure == "the fake is down"
    serving.mood = ""
    await plane.pass_time(MINUTE)
    assert (plane.rollout(model_id).weight_applied, plane.rollout(model_id).weight_failure) == (0.05, "")


async def test_a_refusal_is_not_hammered(plane: Plane, serving: FakeServing) -> None:
    model_id = await plane.model()
    await plane.driver.turn()
    serving.mood, told = "refusing", len(serving.told)
    await plane.candidate(model_id)
    for _ in range(20):
        await plane.pass_time(SECOND)
    assert len(serving.told) - told == 1
    serving.mood = ""
    await plane.pass_time(timedelta(seconds=REFUSED_PAUSE_S))
    assert plane.rollout(model_id).weight_applied == 0.05


async def test_going_back_waits_for_no_pause(plane: Plane, serving: FakeServing) -> None:
    model_id = await plane.model()
    rollout = await plane.candidate(model_id)
    serving.mood = "refusing"
    await plane.pass_time(SECOND)
    serving.mood = ""
    await plane.do(AbortRollout(rollout_id=rollout.rollout_id, by="ann"))
    await plane.driver.turn()
    assert serving.targets[model_id].candidate is None
    assert plane.rollout(model_id).weight_applied == 0.0


async def test_a_hanging_system_holds_up_nobody_else(
    systems: dict[str, ServingSystem], serving: FakeServing, metrics: FakeMetrics
) -> None:
    hanging, quiet = FakeServing(mood="hanging"), FakeMetrics(mood="hanging")
    async with leading(systems | {"slow": ServingSystem(serving=hanging, metrics=quiet)}, call_s_max=3600) as plane:
        slow = [
            await plane.model(f"slow{number}", {**SERVED, "rollout.serving": "slow"})
            for number in range(CALLS_AT_ONCE_MAX + 2)
        ]
        model_id = await plane.model("m")
        await plane.candidate(model_id)
        plane.driver.begin_turn()
        while plane.rollout(model_id).weight_applied != 0.05:
            await plane.node.durable(plane.node.state.revision)
            await asyncio.sleep(0)
            plane.driver.begin_turn()
        assert len(hanging.told) == CALLS_AT_ONCE_MAX
        assert all(plane.rollout(one).weight_applied is None for one in slow)


async def test_a_check_that_hangs_does_not_hold_up_a_rollback(
    plane: Plane, serving: FakeServing, metrics: FakeMetrics
) -> None:
    model_id = await plane.model()
    await plane.candidate(model_id)
    await plane.pass_time(SECOND)
    serving.silent, metrics.looks[model_id] = True, a_look(plane.clock.at, 0.3, 0.5, 5_000)
    plane.driver.begin_turn()
    while serving.targets[model_id].candidate is not None:
        await asyncio.sleep(0)
    assert serving.asked
    await plane.driver.settled()


async def test_a_canary_is_not_judged_by_the_numbers_of_the_one_before(
    plane: Plane, serving: FakeServing, metrics: FakeMetrics
) -> None:
    model_id = await plane.model()
    serving.mood = "down"
    await plane.candidate(model_id)
    metrics.looks[model_id] = a_look(plane.clock.at, 0.5, 0.5, 40_000)
    for _ in range(3):
        await plane.pass_time(MINUTE)
    assert metrics.reads == 0, "nobody has confirmed that this candidate is served at all"
    serving.mood = ""
    for _ in range(2):
        await plane.pass_time(MINUTE)
    assert metrics.reads > 0


async def test_metrics_that_hang_do_not_hold_up_a_rollback(
    plane: Plane, serving: FakeServing, metrics: FakeMetrics
) -> None:
    model_id = await plane.model()
    rollout = await plane.candidate(model_id)
    await plane.pass_time(SECOND)
    metrics.mood = "hanging"
    plane.driver.begin_turn()
    await plane.do(AbortRollout(rollout_id=rollout.rollout_id, by="ann"))
    plane.driver.begin_turn()
    while serving.targets[model_id].candidate is not None:
        await asyncio.sleep(0)
    await plane.driver.settled()


async def test_metrics_that_cannot_be_read_hold_the_canary(
    plane: Plane, serving: FakeServing, metrics: FakeMetrics
) -> None:
    model_id = await plane.model()
    await plane.candidate(model_id)
    await plane.pass_time(SECOND)
    metrics.looks[model_id] = a_look(plane.clock.at, 0.5, 0.5, 40_000)
    await plane.pass_time(SECOND)
    metrics.mood = "down"
    for _ in range(30):
        await plane.pass_time(MINUTE)
    rollout = plane.rollout(model_id)
    assert (rollout.state, rollout.weight) == (RolloutState.CANARY, 0.05)
    assert rollout.judgement is not None
    assert rollout.judgement.verdict is JudgeVerdict.NODATA
    assert "the metrics are down" in rollout.judgement.reason
    metrics.mood = ""
    await reach(plane, metrics, 0.2)


@pytest.mark.parametrize("broken", [Arm(count=40_000, mean=float("nan"), m2=1.0), Arm(count=-1, mean=0.5, m2=1.0)])
async def test_a_number_that_is_none_holds_and_is_never_written(
    plane: Plane, metrics: FakeMetrics, broken: Arm
) -> None:
    model_id = await plane.model()
    await plane.candidate(model_id)
    look = a_look(plane.clock.at, 0.5, 0.5, 40_000)
    metrics.looks[model_id] = replace(look, candidate={"engagement": broken})
    await plane.pass_time(11 * MINUTE)
    await plane.pass_time(11 * MINUTE)
    rollout = plane.rollout(model_id)
    assert rollout.weight == 0.05
    assert rollout.judgement is not None
    assert rollout.judgement.verdict is JudgeVerdict.NODATA
    assert "engagement of the candidate is no number" in rollout.judgement.reason


async def test_a_system_that_nobody_configured_holds_with_a_sentence(plane: Plane) -> None:
    model_id = await plane.model("m", {**SERVED, "rollout.serving": "nowhere"})
    await plane.candidate(model_id)
    for _ in range(3):
        await plane.pass_time(11 * MINUTE)
    rollout = plane.rollout(model_id)
    assert rollout.weight == 0.05
    assert "no serving system 'nowhere'" in rollout.weight_failure
    assert "[serving.nowhere]" in rollout.weight_failure
    assert rollout.judgement is not None
    assert rollout.judgement.verdict is JudgeVerdict.NODATA


async def test_without_a_source_of_metrics_the_driver_reads_none(serving: FakeServing) -> None:
    async with leading({"fake": ServingSystem(serving=serving)}) as plane:
        model_id = await plane.model()
        await plane.candidate(model_id)
        await plane.pass_time(SECOND)
        assert plane.rollout(model_id).weight_applied == 0.05
        assert plane.rollout(model_id).judgement is None


async def test_after_a_failover_the_next_driver_goes_on(
    plane: Plane, systems: dict[str, ServingSystem], serving: FakeServing, metrics: FakeMetrics
) -> None:
    model_id = await plane.model()
    rollout = await plane.candidate(model_id)
    await plane.pass_time(SECOND)
    serving.mood = "down"
    await plane.do(AbortRollout(rollout_id=rollout.rollout_id, by="ann"))
    await plane.driver.turn()
    await plane.end()
    serving.mood = ""
    await plane.begin(systems)
    assert list(plane.node.state.unconfirmed_rollouts) == [rollout.rollout_id]
    await plane.driver.turn()
    assert serving.targets[model_id].candidate is None
    assert plane.rollout(model_id).weight_applied == 0.0
    assert not plane.node.state.unconfirmed_rollouts


async def test_a_new_driver_writes_nothing_where_nothing_changed(
    plane: Plane, systems: dict[str, ServingSystem], serving: FakeServing
) -> None:
    model_id = await plane.model()
    await plane.candidate(model_id)
    await plane.pass_time(SECOND)
    before = await events_of(plane, WeightReported)
    await plane.end()
    await plane.begin(systems)
    await plane.driver.turn()
    assert await events_of(plane, WeightReported) == before
    assert serving.targets[model_id].epoch == plane.node.epoch


async def test_weights_changed_behind_our_back_are_set_again(plane: Plane, serving: FakeServing) -> None:
    model_id = await plane.model()
    await plane.candidate(model_id)
    for _ in range(2):
        await plane.pass_time(SECOND)
    serving.targets[model_id] = replace(serving.targets[model_id], candidate_weight=0.9)
    for _ in range(2):
        await plane.pass_time(timedelta(seconds=CHECK_EVERY_S))
    assert serving.targets[model_id].candidate_weight == 0.05


async def test_a_shadow_gets_copies_and_then_its_first_step(
    plane: Plane, serving: FakeServing, metrics: FakeMetrics
) -> None:
    model_id = await plane.model("m", {**SERVED, "rollout.shadow": "3600s"})
    await plane.candidate(model_id)
    await plane.pass_time(SECOND)
    target = serving.targets[model_id]
    assert (target.shadow, target.candidate_weight, target.control_weight) == (True, 0.0, 0.05)
    shadowed_since = plane.rollout(model_id).canary_since
    await plane.pass_time(61 * MINUTE)
    await plane.driver.turn()
    target = serving.targets[model_id]
    assert (target.shadow, target.candidate_weight) == (False, 0.05)
    # What the shadow measured is of other requests than what the canary will.
    assert plane.rollout(model_id).canary_since != shadowed_since


async def test_the_target_is_what_the_log_says(plane: Plane) -> None:
    model_id = await plane.model()
    rollout = await plane.candidate(model_id)
    target = target_of(plane.node.state, rollout)
    assert target.production is not None
    assert target.candidate is not None
    assert target.production.uri != target.candidate.uri
    assert (target.epoch, target.revision) == (plane.node.epoch, plane.node.state.revision)


async def test_models_that_move_together_go_back_together_in_one_turn(
    plane: Plane, serving: FakeServing, metrics: FakeMetrics
) -> None:
    models = [await plane.model(name) for name in ("one", "two")]
    rollouts = [await plane.trained(model_id) for model_id in models]
    await plane.do(GroupRollouts(group_id="set", rollout_ids=tuple(one.rollout_id for one in rollouts)))
    for rollout in rollouts:
        await plane.validate(rollout)
    await plane.pass_time(SECOND)
    targets = [serving.targets[model_id] for model_id in models]
    assert [(one.candidate_weight, one.group_id) for one in targets] == [(0.05, "set"), (0.05, "set")]
    metrics.looks[models[0]] = a_look(plane.clock.at, 0.5, 0.5, 5_000)
    metrics.looks[models[1]] = a_look(plane.clock.at, 0.3, 0.5, 5_000)
    await plane.driver.turn()
    assert all(serving.targets[model_id].candidate is None for model_id in models)
    assert all(not plane.rollout(model_id).live for model_id in models)
    assert not plane.node.state.unconfirmed_rollouts


@given(
    st.lists(
        st.sampled_from(("down", "refusing", "", "look", "harm", "abort", "force", "back", "new", "fail_over")),
        max_size=25,
    )
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_happens_the_system_ends_as_the_log_says(happenings: list[str]) -> None:
    """Any order of outages, looks, people and failovers: once the system works, it serves what the log wants."""
    serving, metrics = FakeServing(), FakeMetrics()
    systems = {"fake": ServingSystem(serving=serving, metrics=metrics)}
    async with leading(systems) as plane:
        model_id = await plane.model()
        count = 0
        for happening in [*happenings, ""]:
            rollout = plane.rollout(model_id)
            match happening:
                case "look" | "harm":
                    count += 40_000
                    metrics.looks[model_id] = a_look(plane.clock.at, 0.5 if happening == "look" else 0.3, 0.5, count)
                case "abort" if rollout.live:
                    await plane.do(AbortRollout(rollout_id=rollout.rollout_id, by="ann"))
                case "force" if rollout.live:
                    await plane.do(PromoteVersion(model_id=model_id, version=rollout.version, force=True))
                case "back" if plane.node.state.models[model_id].aliases.get(PREVIOUS):
                    await plane.do(RollBack(model_id=model_id))
                case "new" if not rollout.live:
                    metrics.looks.clear()
                    count = 0
                    await plane.candidate(model_id)
                case "fail_over":
                    await plane.end()
                    await plane.begin(systems)
                case "down" | "refusing" | "":
                    serving.mood = happening
                case _:
                    pass
            await plane.pass_time(7 * MINUTE)
        await plane.pass_time(SECOND)
        rollout, target = plane.rollout(model_id), serving.targets[model_id]
        assert not plane.node.state.unconfirmed_rollouts
        assert target.production is not None
        assert target.production.version == plane.node.state.models[model_id].aliases["production"]
        assert (target.candidate.version if target.candidate is not None else None) == (
            rollout.version if rollout.live else None
        )
        assert target.candidate_weight == (rollout.weight if rollout.live else 0.0)
        assert rollout.weight_applied == rollout.weight
