"""What every serving system does, the fake and the real ones alike."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from control_plane.app.serving import ServingRefused, ServingUnavailable, Weights
from tests.serving.worlds import M, World, a_target, world_of

KINDS = ("fake", "webhook", "titus", "gateway", "kserve")


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with world_of(request.param, tmp_path) as found:
        yield found


async def shown(world: World) -> Weights:
    found = await world.serving.weights(M)
    assert found is not None
    return found


async def test_a_candidate_gets_its_share_and_the_control_the_same(world: World) -> None:
    for revision, weight in enumerate((0.05, 0.2, 0.5), start=1):
        await world.serving.set_weights(a_target(1, 2, weight, revision=revision))
        found = await shown(world)
        assert (found.production, found.candidate) == (1, 2)
        assert found.candidate_weight == pytest.approx(weight, abs=world.grain)
        if world.controls:
            assert found.control_weight == pytest.approx(weight, abs=world.grain)


async def test_a_promoted_candidate_serves_everything(world: World) -> None:
    await world.serving.set_weights(a_target(1, 2, 0.5, revision=1))
    await world.serving.set_weights(a_target(2, revision=2))
    found = await shown(world)
    assert (found.production, found.candidate, found.candidate_weight, found.control_weight) == (2, None, 0.0, 0.0)


async def test_a_candidate_that_is_rolled_back_serves_nothing(world: World) -> None:
    await world.serving.set_weights(a_target(1, 2, 0.5, revision=1))
    await world.serving.set_weights(a_target(1, revision=2))
    found = await shown(world)
    assert (found.production, found.candidate, found.candidate_weight) == (1, None, 0.0)
    await world.serving.set_weights(a_target(1, 3, 0.05, revision=3))
    assert (await shown(world)).candidate == 3


async def test_a_version_that_was_promoted_can_be_rolled_back(world: World) -> None:
    await world.serving.set_weights(a_target(1, 2, 0.5, revision=1))
    await world.serving.set_weights(a_target(2, revision=2))
    await world.serving.set_weights(a_target(1, revision=3))
    found = await shown(world)
    assert (found.production, found.candidate_weight) == (1, 0.0)


async def test_setting_twice_is_setting_once(world: World) -> None:
    target = a_target(1, 2, 0.2)
    await world.serving.set_weights(target)
    first, writes = await shown(world), world.writes()
    await world.serving.set_weights(replace(target, revision=2))
    assert (await shown(world), world.writes()) == (first, writes)


async def test_a_system_that_is_down_is_unavailable_and_comes_back(world: World) -> None:
    world.down(True)
    with pytest.raises(ServingUnavailable):
        await world.serving.set_weights(a_target(1, 2, 0.05))
    with pytest.raises(ServingUnavailable):
        await world.serving.weights(M)
    world.down(False)
    await world.serving.set_weights(a_target(1, 2, 0.05))
    assert (await shown(world)).candidate == 2


async def test_a_model_that_nobody_deployed_is_refused_in_a_sentence(world: World) -> None:
    world.forget()
    with pytest.raises(ServingRefused) as caught:
        await world.serving.set_weights(a_target(1, 2, 0.05))
    assert len(str(caught.value)) > 10


async def test_old_news_change_nothing(world: World) -> None:
    if not world.fences:
        pytest.skip("it has no place to keep who spoke last")
    await world.serving.set_weights(a_target(1, revision=7, epoch=2))
    await world.serving.set_weights(a_target(2, revision=8, epoch=2))
    with pytest.raises(ServingRefused):
        await world.serving.set_weights(a_target(1, 2, 0.5, revision=99, epoch=1))
    assert (await shown(world)).production == 2


async def test_a_shadow_is_told_or_refused(world: World) -> None:
    target = replace(a_target(1, 2, 0.0), shadow=True, control_weight=0.05)
    if not world.shadows:
        with pytest.raises(ServingRefused, match="shadow"):
            await world.serving.set_weights(target)
        return
    await world.serving.set_weights(target)
    found = await shown(world)
    assert (found.shadow, found.candidate, found.candidate_weight) == (True, 2, 0.0)
    await world.serving.set_weights(a_target(1, 2, 0.05, revision=2))
    found = await shown(world)
    assert not found.shadow
    assert found.candidate_weight == pytest.approx(0.05, abs=world.grain)
