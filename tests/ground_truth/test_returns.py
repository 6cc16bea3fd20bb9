"""Models whose retrains bring nothing that can be measured are named, and only these."""

from datetime import timedelta

import pytest

from control_plane.app.returns import MEASURED_MIN, ReturnTotal, return_totals
from control_plane.core.commands import RecordUplift
from control_plane.core.ids import ModelId
from control_plane.core.retraining.types import RetrainingPolicy
from control_plane.core.rollout.types import Uplift
from tests.core.fleets import HOUR, Fleet

POLICY = RetrainingPolicy(gpus=2.0, cooldown=timedelta(days=5))


def returns(
    *uplifts: float, error: float = 0.01, unmeasured: int = 0, policy: RetrainingPolicy = POLICY
) -> ReturnTotal:
    """A model that was retrained so often, each time with this uplift; the first retrain compares with nothing."""
    fleet = Fleet()
    model_id = fleet.model("m", policy=policy, serving=True)
    fleet.pass_time(HOUR)
    for uplift in (*uplifts, *([None] * unmeasured)):
        fleet.promote(model_id)
        record = fleet.state.models[model_id]
        fleet.pass_time(HOUR)
        if uplift is None:
            continue
        assert record.production is not None
        fleet.do(
            RecordUplift(
                uplift=Uplift(
                    retrain_id=record.retrain_ids[-1],
                    model_id=model_id,
                    rollout_id=record.rollout_ids[-1],
                    version=record.production.number,
                    metric="auc",
                    before=0.8,
                    after=0.8 + uplift,
                    uplift=uplift,
                    standard_error=error,
                    sample_size=1000,
                    gpu_hours=1.0,
                    measured_at=fleet.now,
                )
            )
        )
    (total,) = return_totals(fleet.state, [ModelId("m")])
    return total


def test_retrains_that_bring_nothing_are_named_with_what_they_cost_and_what_to_change() -> None:
    total = returns(0.001, -0.002, 0.0005)
    assert (total.retrains, total.promoted, total.measured) == (4, 4, 3)
    assert total.for_nothing.startswith("3 retrains brought -0.0005 together (standard error 0.017)")
    assert "retraining.cooldown (10d)" in total.for_nothing
    assert "staleness.stale_threshold" in total.for_nothing


def test_a_policy_without_a_cooldown_is_told_a_week() -> None:
    total = returns(0.0, 0.0, 0.0, policy=RetrainingPolicy(cooldown=timedelta(0)))
    assert "retraining.cooldown (7d)" in total.for_nothing


@pytest.mark.parametrize(
    ("uplifts", "error"),
    [
        ((0.05, 0.04, 0.06), 0.01),  # worth it
        ((0.2, -0.01, -0.01), 0.01),  # one that paid for all
        ((-0.01,) * (MEASURED_MIN - 1), 0.01),  # too few to say
    ],
)
def test_what_was_worth_it_or_is_not_known_is_not_named(uplifts: tuple[float, ...], error: float) -> None:
    assert returns(*uplifts, error=error).for_nothing == ""


def test_what_was_not_measured_does_not_count_against_a_policy() -> None:
    total = returns(0.0, 0.0, unmeasured=5)
    assert (total.measured, total.for_nothing) == (2, "")


def test_retrains_that_make_it_surely_worse_are_named_too() -> None:
    assert returns(-0.05, -0.05, -0.05, error=0.001).for_nothing.startswith("3 retrains brought -0.15 together")
