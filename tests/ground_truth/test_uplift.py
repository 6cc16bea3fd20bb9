"""What a promotion brought is measured once, on complete outcomes of both versions, and never made up."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.app.ground_truth import GroundTruth
from control_plane.app.returns import return_totals
from control_plane.app.uplift import UpliftWatch, windows_of
from control_plane.core.ids import ModelId
from control_plane.core.rollout.types import RolloutState, Uplift
from tests.ground_truth.arrows import HOUR_US, ipc, outcome_columns, outcomes_for, prediction_columns, some_predictions
from tests.ground_truth.arrows import us as us_of
from tests.reference.join import Outcome
from tests.serving.planes import START, Plane

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WINDOW = 2 * DAY
POLICIES: dict[str, str | float | bool] = {
    "label.window": "172800s",
    "staleness.labels_min": 200,
    "staleness.window_days": 2.0,
}


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    opened = Plane()
    await opened.begin({})
    yield opened
    await opened.end()


@pytest.fixture
async def truth(tmp_path: Path) -> AsyncIterator[GroundTruth]:
    opened = GroundTruth(ParquetFactStore(tmp_path, StoreConfig(join_every=HOUR, speed_window=2 * HOUR)))
    yield opened
    await opened.close()


async def serve(plane: Plane, truth: GroundTruth, model_id: ModelId, version: int, per_day: int, *, good: bool) -> None:
    """Two days of predictions from now on, with outcomes an hour later, good or turned round every other time."""
    rows = some_predictions(
        2 * per_day, start_us=us_of(plane.clock.at), first=version * 100_000, spread_us=48 * HOUR_US
    )
    outcomes = outcomes_for(rows)
    if not good:
        outcomes = [
            Outcome(one.id, one.observed_us, 1 - one.value if number % 2 else one.value, one.revision)
            for number, one in enumerate(outcomes)
        ]
    record = plane.node.state.models[model_id]
    await truth.tell(record, None)

    await truth.read(
        lambda store: store.append_predictions(f"p{version}", model_id, version, ipc(prediction_columns(rows)))
    )
    await truth.read(
        lambda store: store.append_outcomes(f"o{version}", model_id, "default", ipc(outcome_columns(outcomes)))
    )
    await plane.pass_time(2 * DAY)


async def measured(plane: Plane, truth: GroundTruth, watch: UpliftWatch) -> list[Uplift]:
    """What is known after a turn."""
    await truth.tick(plane.clock.at)
    await watch.tick()
    return list(plane.node.state.uplifts.values())


async def promoted(plane: Plane, truth: GroundTruth, *, per_day: int = 400) -> ModelId:
    """A bad version 1 for two days, then a good version 2 for two days."""
    model_id = await plane.model(policies=POLICIES)
    await serve(plane, truth, model_id, 1, per_day, good=False)
    rollout = await plane.candidate(model_id)
    assert rollout.state is RolloutState.PROMOTED
    await serve(plane, truth, model_id, 2, per_day, good=True)
    return model_id


async def test_a_better_version_is_measured_once_its_outcomes_are_complete(plane: Plane, truth: GroundTruth) -> None:
    watch = UpliftWatch(plane.node, truth)
    model_id = await promoted(plane, truth)
    assert await measured(plane, truth, watch) == []
    await plane.pass_time(2 * DAY + HOUR)
    (found,) = await measured(plane, truth, watch)
    assert (found.model_id, found.version, found.metric) == (model_id, 2, "auc")
    assert found.before < 0.6 < found.after
    assert found.uplift == pytest.approx(found.after - found.before)
    assert found.uplift > 3 * found.standard_error > 0
    assert found.sample_size > 700
    assert found.retrain_id == plane.node.state.models[model_id].retrain_ids[-1]
    assert await measured(plane, truth, watch) == [found]
    (total,) = return_totals(plane.node.state, [model_id])
    assert (total.promoted, total.measured, total.for_nothing) == (1, 1, "")


async def test_the_window_is_the_one_that_the_asked_for_outcomes_were_counted_for(
    plane: Plane, truth: GroundTruth
) -> None:
    """A label of hours does not mean that hours of outcomes are enough: staleness looks at days, and so is this."""
    watch = UpliftWatch(plane.node, truth)
    model_id = await plane.model(policies=POLICIES | {"label.window": "10800s", "staleness.labels_min": 700})
    await serve(plane, truth, model_id, 1, 400, good=False)
    await plane.candidate(model_id)
    await serve(plane, truth, model_id, 2, 400, good=True)
    assert await measured(plane, truth, watch) == []
    await plane.pass_time(4 * HOUR)
    (found,) = await measured(plane, truth, watch)
    assert found.sample_size > 700


async def test_too_few_outcomes_are_no_measurement(plane: Plane, truth: GroundTruth) -> None:
    watch = UpliftWatch(plane.node, truth)
    await promoted(plane, truth, per_day=50)
    await plane.pass_time(3 * DAY)
    assert await measured(plane, truth, watch) == []


async def test_a_new_leader_measures_what_the_last_one_did_not(plane: Plane, truth: GroundTruth) -> None:
    await promoted(plane, truth)
    await plane.pass_time(10 * DAY)
    assert len(await measured(plane, truth, UpliftWatch(plane.node, truth))) == 1
    assert len(await measured(plane, truth, UpliftWatch(plane.node, truth))) == 1


async def test_the_first_version_has_nothing_to_be_compared_with(plane: Plane, truth: GroundTruth) -> None:
    model_id = await plane.model(policies=POLICIES)
    await serve(plane, truth, model_id, 1, 400, good=True)
    await plane.pass_time(5 * DAY)
    assert await measured(plane, truth, UpliftWatch(plane.node, truth)) == []


async def test_windows_keep_clear_of_the_canary_and_end_with_the_next_promotion(
    plane: Plane, truth: GroundTruth
) -> None:
    model_id = await promoted(plane, truth)
    rollout = replace(plane.rollout(model_id), started_at=START, canary_since=START + 3 * DAY, ended_at=START + 4 * DAY)
    found = windows_of(rollout, WINDOW, WINDOW, START + 5 * DAY)
    assert found is not None
    assert found.before == (START + DAY, START + 3 * DAY)
    assert found.after == (START + 4 * DAY, START + 5 * DAY)
    assert found.complete_at == START + 8 * DAY
    assert windows_of(rollout, WINDOW, WINDOW, START + 4 * DAY) is None
