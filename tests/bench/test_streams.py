"""Streams: labels are river's, worlds are deterministic, and nothing is known before its time."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.datasets import synth

from bench.streams.compare import POLICY, TWO_DAYS, Setting, compared, runway_contender, world_of
from bench.streams.concepts import Agrawal, Hyperplane, Sea, beyond
from bench.streams.detectors import DetectorAlarm, defaults
from bench.streams.timeline import GAP_DAYS_MIN, timeline
from bench.streams.versions import ROWS_PER_HOUR, START, WARM_DAYS, StreamModel
from bench.streams.world import StreamsWorld
from control_plane.backtest.contenders import Serving
from control_plane.backtest.run import run
from control_plane.core.ids import ModelId
from control_plane.core.staleness.evaluation import evaluate
from control_plane.core.staleness.policy import StalenessPolicy

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ONE = ModelId("sea_0")
DAYS = 45
WATCH = StalenessPolicy(window_days=2.0, labels_min=800)


def sea(**changed: bool | int) -> StreamsWorld:
    setting = Setting(name="as asked", **changed)  # type: ignore[arg-type]
    return world_of("SEA", setting, days=DAYS, models=2)


@pytest.mark.parametrize("variant", range(4))
def test_labels_of_sea_are_rivers(variant: int) -> None:
    rows, labels = zip(*synth.SEA(variant=variant, seed=7).take(500), strict=True)
    given_rows = np.array([[row[at] for at in range(3)] for row in rows])

    assert Sea().labels(given_rows, variant).tolist() == [bool(label) for label in labels]


@pytest.mark.parametrize("function", range(10))
def test_labels_of_agrawal_are_rivers(function: int) -> None:
    rows, labels = zip(*synth.Agrawal(classification_function=function, seed=7).take(500), strict=True)
    given_rows = np.array([[float(row[name]) for name in Agrawal.features] for row in rows])

    assert Agrawal().labels(given_rows, function).tolist() == [bool(label) for label in labels]


def test_inputs_of_agrawal_are_drawn_as_river_draws_them() -> None:
    theirs = [row for row, _ in synth.Agrawal(classification_function=0, seed=7).take(4000)]
    ours = Agrawal().rows(np.random.default_rng(7), 4000)

    for at, name in enumerate(Agrawal.features):
        column = np.array([float(row[name]) for row in theirs])
        spread = np.hypot(column.std(), ours[:, at].std()) / np.sqrt(4000)
        assert abs(column.mean() - ours[:, at].mean()) < 4.5 * spread, name


def test_the_rule_of_the_plane_is_rivers() -> None:
    generator = synth.Hyperplane(seed=7, n_features=10, n_drift_features=0, noise_percentage=0.0)
    rows, labels = zip(*generator.take(500), strict=True)
    given_rows = np.array([[row[at] for at in range(10)] for row in rows])

    assert beyond(given_rows, np.array(generator._weights)).tolist() == [bool(label) for label in labels]


def test_a_plane_half_way_lies_between_both() -> None:
    stream = Hyperplane(seed=3)

    assert np.allclose(stream.weights(1.5), (stream.weights(1.0) + stream.weights(2.0)) / 2)


def test_changes_leave_time_between_them() -> None:
    line = timeline(Sea(), np.random.default_rng(5), WARM_DAYS, 200)
    starts = np.flatnonzero(np.diff(line.after) != 0)

    assert len(starts) >= 3
    assert np.diff(starts).min() >= (GAP_DAYS_MIN - 1) * 24
    assert starts[0] >= WARM_DAYS * 24


def test_a_world_gives_the_same_answers_in_any_order() -> None:
    one, other = sea(), sea()
    later = one.train(ONE, START + 20 * DAY)
    first = one.first(ONE)

    assert other.first(ONE) == first
    assert other.train(ONE, START + 20 * DAY) == later
    assert one.quality(first, START + 9 * DAY) == other.quality(first, START + 9 * DAY)
    now = START + 12 * DAY
    looks = [evaluate(WATCH, world.evidence(first, START, WATCH, now), now) for world in (one, other)]
    assert looks[0] == looks[1]


@settings(max_examples=12, deadline=None)
@given(hour=st.integers(30, DAYS * 24 - 1), delay=st.sampled_from([2, 14]), blind=st.booleans())
def test_evidence_holds_no_label_before_its_time(hour: int, delay: int, blind: bool) -> None:
    """The same look if every label that is not there yet were another one."""
    model_id = ModelId("sea_1")
    now = START + HOUR * hour
    looks = []
    for turned in (False, True):
        world = sea(label_delay_days=delay, blind=blind)
        if turned:
            _turn_labels_after(world, model_id, now - DAY * delay)
        looks.append(evaluate(WATCH, world.evidence(world.first(model_id), START, WATCH, now), now))

    assert looks[0] == looks[1]


def _turn_labels_after(world: StreamsWorld, model_id: ModelId, known_until: datetime) -> None:
    model = world._models[model_id]
    at = world.hour_of(known_until) * ROWS_PER_HOUR
    history = model.history
    labels = history.labels.copy()
    labels[at:] = ~labels[at:]
    consumers = tuple(np.concatenate([one[:at], ~one[at:]]) for one in history.consumers)
    world._models[model_id] = StreamModel(
        model_id,
        replace(history, labels=labels, consumers=consumers),
        world.label_delay_hours,
        blind=model.blind,
    )


def test_a_detector_hears_no_error_before_its_label() -> None:
    world = sea(label_delay_days=14)
    first = world.first(ONE)
    asked: list[datetime] = []
    heard = world.errors
    world.errors = lambda serving, begin, end: (asked.append(end), heard(serving, begin, end))[1]  # type: ignore
    alarm = DetectorAlarm(world, defaults()[0])
    fleet = {ONE: Serving(trained=first, since=START, busy=False, margin=0.005)}

    for hour in range(0, 20 * 24, 6):
        alarm.wishes(fleet, [], START + HOUR * hour)
        assert not asked or max(asked) <= START + HOUR * hour - 14 * DAY

    assert asked


def test_a_blind_model_is_seen_through_its_consumers_alone() -> None:
    world = sea(blind=True)
    seen = world.evidence(world.first(ModelId("sea_1")), START, WATCH, START + 10 * DAY)

    assert seen.performance is None
    assert seen.coverage == 0.0
    assert seen.fallbacks[0].source == "DOWNSTREAM"


def test_a_change_is_seen_and_a_benign_shift_is_not() -> None:
    ours, *_ = compared(world_of("Agrawal", TWO_DAYS, days=DAYS, models=2), ())

    assert ours.recall == 1.0
    assert ours.precision == 1.0
    assert ours.retrains >= 2


def test_the_policy_is_one_that_a_server_takes() -> None:
    done = run(world_of("SEA", TWO_DAYS, days=2, models=1), runway_contender())

    assert done.refused == ()
    assert POLICY["staleness.weights.performance"] == 1.0
