"""`plan` looks only at models that may have something due; it must find what a look at every model finds."""

from control_plane.core.commands import RequestRetrain, SettleCascade
from control_plane.core.decide.cascade import overlooked
from control_plane.core.plan import COMMANDS_PER_TICK_MAX, plan, wanted_retrain
from tests.simulation.world import MINUTE, World


def naive(world: World) -> list[object]:
    """Every model, one after the other."""
    models = sorted(world.state.models.items())
    found: list[object] = [SettleCascade(model_id=m) for m, record in models if overlooked(record, world.now)]
    for model_id, record in models:
        cause = wanted_retrain(record, world.now)
        if cause is not None:
            found.append(RequestRetrain(model_id=model_id, cause=cause))
    return found


def test_nothing_is_overlooked() -> None:
    asked = sum(wanted_in(100 + seed) for seed in range(6))
    assert asked, "histories in which nothing is ever due prove nothing"


def wanted_in(seed: int) -> int:
    """How much was due in a history, found both ways at each step and looking ahead."""
    world, asked = World(seed), 0
    for number in range(250):
        world.step()
        for later in (0, 60, 60 * 24 * 40):
            world.now += later * MINUTE
            planned = plan(world.state, world.now)
            assert len(planned) < COMMANDS_PER_TICK_MAX
            wanted = [one for one in planned if isinstance(one, RequestRetrain | SettleCascade)]
            assert wanted == naive(world), f"seed {seed}, step {number}"
            asked += len(wanted)
            world.now -= later * MINUTE
    return asked
