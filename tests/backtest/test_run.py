"""Contenders on a world whose outcomes follow by hand, and scores against the dumb twin."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.backtest import contenders as who
from control_plane.backtest.comparison import compare
from control_plane.backtest.report import Report, Result, decode_report, encode_report
from control_plane.backtest.run import run
from control_plane.backtest.scoring import Truth, score
from control_plane.backtest.world import Trained
from control_plane.core.errors import Invalid
from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.ids import ModelId, NodeId
from control_plane.core.retraining.types import RetrainingLimits
from control_plane.core.rules.types import Rule, RuleAction
from tests.backtest.worlds import BAD, DAY, GOOD, HOUR, START, StepWorld, facts_of
from tests.reference.backtest_twin import scored

DRIFT = START + 10 * DAY


def by_name(report: Report) -> dict[str, Result]:
    return {one.name: one for one in report.results}


@pytest.fixture(scope="module")
def stepped() -> dict[str, Result]:
    return by_name(compare(StepWorld(drift_at=DRIFT)))


def test_a_weekly_schedule_comes_out_as_by_hand(stepped: dict[str, Result]) -> None:
    """Trained a day before the start, it asks on days 6, 13, 20 and 27; a training takes two hours."""
    weekly = stepped["every 7 d"]
    assert [one.at for one in weekly.retrain_log] == [START + timedelta(days=day) for day in (6, 13, 20, 27)]
    assert weekly.retrains == 4
    assert weekly.gpu_hours == 8
    assert weekly.stale_hours == 3 * 24 + 2
    assert weekly.detection_delay_hours == 3 * 24
    assert (weekly.recall, weekly.precision) == (1.0, 0.25)
    assert weekly.f1 == pytest.approx(0.4)
    assert weekly.false_alarms_per_model_month == 3
    good_days = 30 - (3 * 24 + 2) / 24
    assert weekly.quality == pytest.approx((good_days * GOOD + (30 - good_days) * BAD) / 30)
    assert weekly.quality_fresh == pytest.approx(GOOD)


def test_the_oracle_trains_as_soon_as_it_helps(stepped: dict[str, Result]) -> None:
    """An hour after the jump there is an hour to train on; two hours later it serves."""
    oracle = stepped["oracle"]
    assert [one.at for one in oracle.retrain_log] == [DRIFT + HOUR]
    assert (oracle.retrains, oracle.stale_hours, oracle.regret) == (1, 3, 0)
    assert (oracle.recall, oracle.precision, oracle.f1) == (1, 1, 1)


def test_a_monthly_schedule_waits_for_its_day(stepped: dict[str, Result]) -> None:
    monthly = stepped["every 30 d"]
    assert [one.at for one in monthly.retrain_log] == [START + 29 * DAY]
    assert monthly.stale_hours == 19 * 24 + 2


def test_verdicts_ask_once_and_the_usual_alarm_again_and_again(stepped: dict[str, Result]) -> None:
    """After the retrain the window still holds what came before the jump: raw PSI rings, a test with a reason does not
    ring any longer than the policy's cooldown and hysteresis let it."""
    assert stepped["current"].retrains == 1
    assert stepped["current"].precision == 1
    assert stepped["psi only"].retrains > 1
    assert stepped["psi only"].false_alarms_per_model_month > 0


def test_performance_alone_waits_for_the_labels(stepped: dict[str, Result]) -> None:
    delay = stepped["performance only"].detection_delay_hours
    assert delay is not None
    assert delay > 48


def test_regret_is_what_the_oracle_has_more(stepped: dict[str, Result]) -> None:
    for result in stepped.values():
        assert result.regret == pytest.approx(stepped["oracle"].quality - result.quality)


def test_the_same_world_gives_the_same_report_and_it_survives_json() -> None:
    world = StepWorld(drift_at=DRIFT, end=START + 14 * DAY)
    first = compare(world)
    assert compare(StepWorld(drift_at=DRIFT, end=START + 14 * DAY)) == first
    assert decode_report(encode_report(first)) == first


def test_a_model_that_never_drifts_is_left_alone() -> None:
    report = by_name(compare(StepWorld(drift_at=None, end=START + 20 * DAY)))
    assert report["current"].retrains == report["oracle"].retrains == 0
    assert report["every 7 d"].precision == 0
    assert report["every 7 d"].recall == 1
    assert report["current"].detection_delay_hours is None


def test_policies_upon_the_current_ones_change_what_happens() -> None:
    world = StepWorld(drift_at=DRIFT, policies=[("fleet", {"staleness.stale_threshold": 0.95})])
    eager = who.with_policies(
        "eager", (who.EVERY_MODEL, {"staleness.stale_threshold": 0.2, "staleness.at_risk_threshold": 0.1})
    )
    never = who.with_policies("never", ("fleet", {"retraining.automatic": False}))
    found = by_name(compare(world, [who.current(), eager, never]))
    assert found["eager"].stale_hours < found["current"].stale_hours
    assert found["never"].retrains == 0


def test_rules_have_the_last_word_as_in_production() -> None:
    world = StepWorld(drift_at=DRIFT, end=START + 20 * DAY)
    ignore = Rule(name="leave_it", scope="fleet", when="verdict == STALE", action=RuleAction.IGNORE, priority=9)
    silent = who.with_policies("silent", rules=[ignore])
    found = by_name(compare(world, [who.current(), silent]))
    assert found["current"].retrains > 0
    assert found["silent"].retrains == 0
    assert by_name(compare(world, [who.current()], rules=[ignore]))["current"].retrains == 0


def test_limits_hold_as_in_production() -> None:
    models = [facts_of(f"model_{at}") for at in range(6)]
    world = StepWorld(drift_at=None, end=START + 8 * DAY, models=models)
    limits = RetrainingLimits(running_max=2, running_per_team_max=2)
    found = run(world, who.every(7 * DAY), limits)
    starts = sorted(one.at for one in found.trainings)
    first = START + 6 * DAY
    assert starts == [first, first, first + 2 * HOUR, first + 2 * HOUR, first + 4 * HOUR, first + 4 * HOUR]


def test_a_promotion_upstream_makes_models_downstream_wait() -> None:
    edge = Dependency(
        upstream=NodeId("model:up"), downstream=NodeId("model:down"), edge_type=DependencyType.CONSUMES_OUTPUT
    )
    world = StepWorld(
        drift_at=None, end=START + 8 * DAY, models=[facts_of("up"), facts_of("down")], dependencies=[edge]
    )
    found = run(world, who.every(7 * DAY))
    started = {one.model_id: one.at for one in found.trainings}
    promoted = started[ModelId("up")] + 2 * HOUR
    assert started[ModelId("down")] == promoted + 4 * HOUR, "the usual cascade cooldown"


def test_a_training_longer_than_its_timeout_fails_as_in_production() -> None:
    found = run(StepWorld(drift_at=None, end=START + 9 * DAY, training=7), who.every(7 * DAY))
    assert not any(one.promoted for one in found.asked)
    assert len(found.trainings) > 1, "it is tried again"


def test_a_worse_candidate_is_refused_and_production_stays() -> None:
    class Regressing(StepWorld):
        def truly_stale(self, serving: Trained, hour: datetime) -> bool:
            return serving.number > 1

    found = run(Regressing(drift_at=None, end=START + 9 * DAY), who.every(7 * DAY))
    assert [one.promoted for one in found.asked] == [False]
    assert len(found.stints) == 1


def test_policies_that_cannot_be_are_told_with_the_contenders_name() -> None:
    world = StepWorld(drift_at=None, end=START + DAY)
    wrong = who.with_policies("wrong", ("fleet", {"staleness.stale_threshold": 0.1}))
    with pytest.raises(Invalid) as refused:
        compare(world, [who.current(), wrong])
    assert "wrong" in str(refused.value)
    assert "at_risk_threshold" in str(refused.value)


def test_a_schedule_below_the_step_of_time_is_refused() -> None:
    with pytest.raises(ValueError, match="an hour"):
        who.every(timedelta(minutes=30))


def test_progress_ends_at_one_for_everybody() -> None:
    heard: dict[str, float] = {}
    compare(StepWorld(drift_at=None, end=START + 2 * DAY), progress=lambda name, done: heard.update({name: done}))
    assert set(heard) == {one.name for one in who.usual()}
    assert set(heard.values()) == {1.0}


@dataclass
class Whimsical(StepWorld):
    """Truth by a hash of model, version and day."""

    seed: int = 0

    def truly_stale(self, serving: Trained, hour: datetime) -> bool:
        return hash((self.seed, serving.model_id, serving.number, hour.date().toordinal())) % 3 == 0

    def quality(self, serving: Trained, hour: datetime) -> float | None:
        drawn = hash((self.seed, serving.model_id, serving.number, hour.date().toordinal(), "quality")) % 100
        return None if drawn < 10 else drawn / 100


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    every=st.integers(5, 200),
    begins=st.integers(0, 23),
    hours=st.integers(30, 400),
    training=st.floats(0.2, 5),
)
def test_scores_are_those_of_the_twin(seed: int, every: int, begins: int, hours: int, training: float) -> None:
    start = START + begins * HOUR
    world = Whimsical(
        drift_at=None,
        start=start,
        end=start + hours * HOUR,
        models=[facts_of("one"), facts_of("two")],
        training=training,
        seed=seed,
    )
    found = run(world, who.every(every * HOUR))
    ours, twin = score(found, Truth(world)), scored(found, world)
    assert ours.retrains == twin.retrains
    assert ours.stale_hours == pytest.approx(twin.stale_hours)
    assert ours.quality == pytest.approx(twin.quality)
    months = 2 * hours / 24 / 30
    assert ours.false_alarms_per_model_month == pytest.approx(twin.false_alarms / months)
    assert ours.recall == pytest.approx(len(twin.delays) / twin.stretches if twin.stretches else 1.0)
    assert ours.precision == pytest.approx(twin.true_alarms / twin.alarms if twin.alarms else 1.0)
    assert (ours.detection_delay_hours is None) == (not twin.delays)


@settings(max_examples=8, deadline=None)
@given(
    drift_hour=st.integers(0, 24 * 13),
    training=st.sampled_from([0.5, 2.0, 5.5]),
    late=st.integers(0, 5),
    drifting=st.sets(st.sampled_from(["one", "two"])),
)
def test_nobody_has_fewer_stale_hours_than_the_oracle(
    drift_hour: int, training: float, late: int, drifting: set[str]
) -> None:
    world = StepWorld(
        drift_at=START + drift_hour * HOUR,
        end=START + 14 * DAY,
        models=[facts_of("one", tier=1), facts_of("two", tier=4)],
        label_delay=late * DAY,
        training=training,
        drifting=frozenset(drifting),
    )
    found = by_name(compare(world, [*who.usual(), who.every(5 * HOUR)]))
    assert all(one.stale_hours >= found["oracle"].stale_hours for one in found.values())
