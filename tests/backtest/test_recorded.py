"""The world of a recorded history: its own counts where history is followed, documented estimates where it is not."""

import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.backtest import job
from control_plane.backtest.comparison import compare
from control_plane.backtest.contenders import current, every, oracle, performance_only, psi_only, usual, with_policies
from control_plane.backtest.recorded import RecordedWorld
from control_plane.backtest.recording import append_model, take_recording, write_head
from control_plane.backtest.windows import CountWindow, PartialWindow
from control_plane.core.ground_truth.metrics import metrics_of
from control_plane.core.ground_truth.partials import merge
from control_plane.core.ids import ModelId
from control_plane.core.staleness.policy import StalenessPolicy
from tests.backtest.recordings import (
    EVEN,
    PER_HOUR,
    UPPER,
    counts_of,
    head_of_one,
    partial_of,
    partials_at,
    version_of,
    world_of,
)
from tests.backtest.worlds import DAY, HOUR, START, facts_of

RANKER = ModelId("ranker")
DRIFT = START + 8 * DAY
BEFORE = START - 10 * DAY
END = START + 20 * DAY
POLICY = StalenessPolicy()


def wind(at: datetime) -> list[int]:
    return UPPER if at >= DRIFT else EVEN


def accuracy(at: datetime) -> float:
    return 0.7 if at >= DRIFT else 0.9


@pytest.fixture
def followed() -> RecordedWorld:
    """Version 1 served all the time; the world jumped on the ninth day."""
    return world_of(
        (version_of(1, BEFORE, END),),
        (counts_of(1, BEFORE, END, wind),),
        (partials_at(1, BEFORE, END, accuracy),),
    )


def test_evidence_of_history_is_its_own_counts(followed: RecordedWorld) -> None:
    now = DRIFT + DAY
    found = followed.evidence(followed.first(RANKER), START, POLICY, now)
    assert found.features is not None
    assert found.features.current.tolist() == [
        [6 * 24 * even + 24 * upper for even, upper in zip(EVEN, UPPER, strict=True)]
    ]
    assert found.features.reference.tolist() == [[10 * count for count in EVEN]]
    assert found.coverage == 1
    assert found.volume is not None
    assert found.volume.current == 7 * 24 * PER_HOUR
    assert found.trained_until == BEFORE


def test_labels_are_known_when_their_window_has_ended(followed: RecordedWorld) -> None:
    """Two days of attribution: a day after the jump nothing of it is known, three days after it one day is."""
    first = followed.first(RANKER)
    early = followed.evidence(first, START, POLICY, DRIFT + DAY).performance
    late = followed.evidence(first, START, POLICY, DRIFT + 3 * DAY).performance
    assert early is not None
    assert late is not None
    assert early.current == pytest.approx(0.9)
    assert late.current == pytest.approx((6 * 0.9 + 0.7) / 7)
    assert (late.baseline, late.sample_size) == (0.9, 7 * 24 * PER_HOUR)


def test_a_version_sees_only_what_it_predicted_itself(followed: RecordedWorld) -> None:
    at = START + 5 * DAY
    again = followed.train(RANKER, at)
    found = followed.evidence(again, at + 2 * HOUR, POLICY, at + 5 * HOUR)
    assert found.features is not None
    assert found.features.current.sum() == 3 * PER_HOUR
    assert found.performance is None, "none of its labels can be complete yet"


def test_what_history_does_not_have_is_compared_with_its_own_training_window(followed: RecordedWorld) -> None:
    at = DRIFT + 2 * DAY
    again = followed.train(RANKER, at)
    assert again.estimated
    assert followed.train(RANKER, at) is again
    found = followed.evidence(again, at, POLICY, at + DAY)
    assert found.features is not None
    expected = 18 * 24 * np.array(EVEN) + 2 * 24 * np.array(UPPER)
    assert found.features.reference.tolist() == [expected.tolist()]


def test_truth_where_history_was_followed(followed: RecordedWorld) -> None:
    first = followed.first(RANKER)
    assert followed.quality(first, START) == pytest.approx(0.9)
    assert followed.quality(first, DRIFT) == pytest.approx(0.7)
    assert followed.fresh_quality(RANKER, DRIFT) == pytest.approx(0.9)
    assert not followed.truly_stale(first, DRIFT - DAY)
    assert followed.truly_stale(first, DRIFT)


def test_a_version_trained_after_the_jump_is_fresh_and_one_before_it_is_not(followed: RecordedWorld) -> None:
    before, after = followed.train(RANKER, DRIFT - 2 * DAY), followed.train(RANKER, DRIFT + DAY)
    day = DRIFT + 3 * DAY
    assert followed.quality(before, day) == pytest.approx(0.7)
    assert followed.quality(after, day) == pytest.approx(0.9)
    assert followed.truly_stale(before, day)
    assert not followed.truly_stale(after, day)
    compared = followed.compare(after, followed.first(RANKER), day)
    assert compared.candidate == pytest.approx(0.9)
    assert compared.production == pytest.approx(0.7)


def test_the_tolerance_is_that_of_the_start_whoever_contends() -> None:
    world = world_of(
        (version_of(1, BEFORE, END),),
        (counts_of(1, BEFORE, END, wind),),
        (partials_at(1, BEFORE, END, accuracy),),
        policies=(("fleet", {"staleness.performance_tolerance": 0.3}),),
    )
    assert not world.truly_stale(world.first(RANKER), DRIFT + DAY)


@pytest.fixture
def retrained() -> RecordedWorld:
    """History retrained two days after the jump."""
    promoted = DRIFT + 2 * DAY
    return world_of(
        (version_of(1, BEFORE, promoted), version_of(2, promoted, END)),
        (counts_of(1, BEFORE, promoted, wind), counts_of(2, promoted, END, wind)),
        (
            partials_at(1, BEFORE, promoted, accuracy),
            partials_at(2, promoted, END, lambda at: 0.9),
        ),
    )


def test_a_retrain_near_that_of_history_is_that_of_history(retrained: RecordedWorld) -> None:
    found = retrained.train(RANKER, DRIFT + 2 * DAY + 5 * HOUR)
    assert (found.number, found.estimated) == (2, False)
    assert retrained.train(RANKER, DRIFT + 4 * DAY).estimated


def test_a_version_that_history_replaced_stays_as_bad_as_it_was(retrained: RecordedWorld) -> None:
    first = retrained.first(RANKER)
    assert retrained.quality(first, END - DAY) == pytest.approx(0.7, abs=0.03)
    assert retrained.truly_stale(first, END - DAY)
    assert retrained.evidence(first, START, POLICY, END).performance is not None


def test_contenders_run_on_it_and_the_oracle_is_best(followed: RecordedWorld) -> None:
    report = compare(followed, [*usual(), every(timedelta(hours=30))])
    by_name = {one.name: one for one in report.results}
    assert by_name["current"].retrains >= 1
    assert by_name["current"].recall == 1
    assert all(one.stale_hours >= by_name["oracle"].stale_hours for one in report.results)
    assert report.estimated
    assert compare(followed, [*usual(), every(timedelta(hours=30))]) == report, "windows that moved give the same again"


def test_a_model_without_outcomes_is_never_truly_stale() -> None:
    world = world_of((version_of(1, BEFORE, END),), (counts_of(1, BEFORE, END, wind),), ())
    [result] = compare(world, [psi_only()]).results
    assert result.stale_hours == 0
    assert result.retrain_log[0].promoted, "there is nothing to measure a candidate by"
    assert not result.retrain_log[0].truly_stale


def test_a_model_without_any_prediction_has_only_its_age() -> None:
    world = world_of((version_of(1, BEFORE, END),), (), ())
    found = world.evidence(world.first(RANKER), START, POLICY, END)
    assert found.features is None
    assert found.performance is None
    assert compare(world, [current()]).results[0].retrains <= 1


def test_a_recording_survives_its_folder(tmp_path: Path) -> None:
    world = world_of(
        (version_of(1, BEFORE, END),),
        (counts_of(1, BEFORE, END, wind),),
        (partials_at(1, BEFORE, END, accuracy),),
    )
    [model] = [one.recorded for one in world._models.values()]
    append_model(tmp_path, model)
    write_head(tmp_path, head_of_one())
    job.write_contenders(tmp_path, [current(), every(DAY), oracle(), performance_only()])
    assert list(job.read_contenders(tmp_path)) == [current(), every(DAY), oracle(), performance_only()]
    head, models = take_recording(tmp_path)
    assert compare(RecordedWorld(head, models), [current()]) == compare(world, [current()])
    assert with_policies("a") in job.read_contenders(_with(tmp_path, "a"))


def test_a_process_of_its_own_which_shares_its_looks_says_the_same(tmp_path: Path) -> None:
    world = world_of(
        (version_of(1, BEFORE, END),),
        (counts_of(1, BEFORE, END, wind),),
        (partials_at(1, BEFORE, END, accuracy),),
    )
    [one] = [model.recorded for model in world._models.values()]
    models = [replace(one, facts=facts_of(f"model_{at}", tier=1 + at % 4)) for at in range(6)]
    for model in models:
        append_model(tmp_path, model)
    head = replace(head_of_one(), models=len(models))
    write_head(tmp_path, head)
    job.write_contenders(tmp_path, [current(), oracle()])
    subprocess.run([sys.executable, "-m", "control_plane.backtest", str(tmp_path)], check=True, timeout=120)
    assert job.read_outcome(tmp_path) == compare(RecordedWorld(head, models), [current(), oracle()])


def _with(folder: Path, name: str) -> Path:
    job.write_contenders(folder, [with_policies(name)])
    return folder


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    hours=st.lists(st.integers(0, 40), min_size=1, max_size=40).map(sorted),
)
def test_a_moved_window_is_the_sum_over_it(data: st.DataObject, hours: list[int]) -> None:
    counts = np.random.default_rng(len(hours)).integers(0, 9, (len(hours), 3))
    window = CountWindow(np.array(hours), counts)
    for _ in range(6):
        first, last = sorted((data.draw(st.integers(-5, 45)), data.draw(st.integers(-5, 45))))
        expected = [
            sum(int(row[cell]) for hour, row in zip(hours, counts, strict=True) if first <= hour < last)
            for cell in range(3)
        ]
        assert window.move(first, last).tolist() == expected


@settings(max_examples=25, deadline=None)
@given(data=st.data(), size=st.integers(1, 20))
def test_a_moved_window_of_partials_has_the_metrics_of_their_merge(data: st.DataObject, size: int) -> None:
    partials = [partial_of(0.5 + at / 50) for at in range(size)]
    window = PartialWindow(np.arange(size), partials)
    for _ in range(4):
        first, last = sorted((data.draw(st.integers(0, size)), data.draw(st.integers(0, size))))
        window.move(first, last)
        merged = merge(partials[first:last])
        assert window.labelled == merged.labelled
        for name in ("auc", "accuracy", "log_loss"):
            expected = next((one for one in metrics_of(merged, "binary") if one.name == name), None)
            found = window.metric(name, "binary")
            assert (found is None) == (expected is None)
            if found is not None and expected is not None:
                assert found.value == pytest.approx(expected.value)
                assert found.standard_error == pytest.approx(expected.standard_error)
                assert found.sample_size == expected.sample_size
