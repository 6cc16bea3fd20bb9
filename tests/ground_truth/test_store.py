"""The fact store as its users see it: receipts, restarts, layers, evidence."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from control_plane.adapters.parquet import segments
from control_plane.adapters.parquet.batch_join import Job, JobResult
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.errors import Invalid, NotFound, Reason, Unavailable
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.statistics.bins import CategoricalBins, NumericBins
from tests.ground_truth.arrows import (
    HOUR_US,
    T0,
    T0_US,
    ipc,
    outcome_columns,
    outcomes_for,
    prediction_columns,
    prediction_id,
    some_predictions,
)
from tests.ground_truth.joins import FAR, finish
from tests.reference.join import Prediction

DAY = timedelta(days=1)
SPEC = LabelSpec(window=timedelta(hours=6))
EDGES = (0.25, 0.5, 0.75)
TEMP_EDGES = (-1.0, 0.0, 1.0)
CARRIERS = ("AA", "UA")
PROFILE = json.dumps(
    {
        "features": {
            "temp": {"kind": "numeric", "edges": TEMP_EDGES, "counts": [10, 10, 10, 10, 0]},
            "carrier": {"kind": "categorical", "categories": CARRIERS, "counts": [20, 15, 5, 0]},
        },
        "prediction": {"edges": EDGES, "counts": [10, 10, 10, 10]},
    }
).encode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ParquetFactStore]:
    opened = ParquetFactStore(tmp_path)
    yield opened
    opened.close()


def reopen(store: ParquetFactStore, config: StoreConfig | None = None) -> ParquetFactStore:
    """Close and open again."""
    store.close()
    return ParquetFactStore(store._facts.root, config)


def with_features(rows: list[Prediction], seed: int = 0) -> dict[str, pa.Array]:
    """A batch with a number and a category, some of them missing."""
    rng = np.random.default_rng(seed)
    temp = [None if rng.random() < 0.1 else float(rng.normal()) for _ in rows]
    carrier = [None if rng.random() < 0.1 else str(rng.choice(["AA", "UA", "B6"])) for _ in rows]
    return prediction_columns(rows) | {
        "feature.temp": pa.array(temp, pa.float64()),
        "feature.carrier": pa.array(carrier),
    }


def test_a_batch_id_sent_again_changes_nothing_even_after_restart_and_sealing(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path)
    batch = ipc(prediction_columns(some_predictions(10)))
    other = ipc(prediction_columns(some_predictions(3, first=50)))
    assert (store.append_predictions("b1", "m", 1, batch).rows, store.stats().duplicate_batches) == (10, 0)
    again = store.append_predictions("b1", "m", 1, other)
    assert (again.rows, again.duplicate) == (10, True)
    assert not store.append_predictions("b1", "n", 1, batch).duplicate
    assert not store.append_outcomes(
        "b1", "m", "default", ipc(outcome_columns(outcomes_for(some_predictions(10))))
    ).duplicate
    store = reopen(store)
    assert store.append_predictions("b1", "m", 1, other).duplicate
    finish(store)
    assert store.append_predictions("b1", "m", 1, other).duplicate
    store = reopen(store)
    assert store.append_predictions("b1", "m", 1, other).duplicate
    assert store.coverage("m", None, T0, T0 + DAY, FAR).total.predicted == 10
    store.close()


def test_an_invalid_batch_is_refused_alone(store: ParquetFactStore) -> None:
    good = ipc(prediction_columns(some_predictions(4)))
    futures = [
        store.submit_predictions("a", "m", 1, good),
        store.submit_predictions("b", "m", 1, b"garbage"),
        store.submit_predictions("c", "m", 1, ipc(prediction_columns(some_predictions(4, first=10)))),
    ]
    assert futures[0].result().rows == futures[2].result().rows == 4
    with pytest.raises(Invalid) as caught:
        futures[1].result()
    assert caught.value.reason is Reason.INVALID_BATCH
    assert not store.append_predictions("b", "m", 1, ipc(prediction_columns(some_predictions(1, first=20)))).duplicate


def test_headers_are_checked(store: ParquetFactStore) -> None:
    batch = ipc(prediction_columns(some_predictions(1)))
    for call in (
        lambda: store.append_predictions("", "m", 1, batch),
        lambda: store.append_predictions("x" * 201, "m", 1, batch),
        lambda: store.append_predictions("b", "m", 0, batch),
        lambda: store.append_predictions("b", "../m", 1, batch),
        lambda: store.append_outcomes("b", "m", "x" * 101, batch),
        lambda: store.set_label("m", LabelSpec(window=timedelta(days=91))),
        lambda: store.set_label("m", LabelSpec(window=timedelta(0))),
    ):
        with pytest.raises(Invalid):
            call()


def test_declared_labels_are_checked(store: ParquetFactStore) -> None:
    store.set_label("m", SPEC)
    rows = some_predictions(3)
    wrong = outcome_columns(outcomes_for(rows)) | {"value": pa.array([0.0, 1.0, 2.5])}
    with pytest.raises(Invalid, match="row 2"):
        store.append_outcomes("o", "m", "", ipc(wrong))
    store.set_label("m", LabelSpec(window=SPEC.window, task="regression"))
    assert store.append_outcomes("o", "m", "", ipc(wrong)).rows == 3


def test_concurrent_senders_share_syncs_and_lose_nothing(store: ParquetFactStore) -> None:
    batches = [ipc(prediction_columns(some_predictions(20, first=20 * number))) for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda at: store.append_predictions(f"b{at}", "m", 1, batches[at]), range(60)))
    assert all(receipt.rows == 20 and not receipt.duplicate for receipt in receipts)
    assert store.coverage("m", None, T0, T0 + DAY, T0).total.predicted == 1200


def test_segments_that_roll_under_ticks_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly every batch opens, fills and closes a segment of its own while another thread converts segments."""
    monkeypatch.setattr("control_plane.adapters.parquet.segments.SEGMENT_BYTES_MAX", 2_500)
    store = ParquetFactStore(tmp_path)
    store.set_label("m", SPEC)
    store.set_reference("m", 1, store.put_profile(PROFILE))
    batches = [ipc(with_features(some_predictions(10, first=10 * number))) for number in range(40)]
    done = threading.Event()

    def keep_ticking() -> None:
        while not done.is_set():
            store.tick(T0 + DAY, force=True)

    with ThreadPoolExecutor(4) as pool:
        ticking = pool.submit(keep_ticking)
        list(pool.map(lambda at: store.append_predictions(f"b{at}", "m", 1, batches[at]), range(40)))
        done.set()
        ticking.result()
    for _ in range(2):
        assert all(store.append_predictions(f"b{at}", "m", 1, batches[at]).duplicate for at in range(40))
        finish(store)
        assert store.coverage("m", None, T0, T0 + DAY, FAR).total.predicted == 400
        evidence = store.evidence("m", 1, T0, T0 + DAY, FAR)
        assert [int(one.current.sum()) for one in evidence.features] == [400, 400]
        store = reopen(store)
    store.close()


def test_a_segment_that_is_just_being_opened_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ParquetFactStore(tmp_path)
    finish(store)
    real, opening, allowed = segments.sync_directory, threading.Event(), threading.Event()

    def slow(directory: Path) -> None:
        real(directory)
        opening.set()
        allowed.wait()

    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
        patch.setattr(segments, "sync_directory", slow)
        receipt = store.submit_predictions("b", "m", 1, ipc(prediction_columns(some_predictions(10))))
        opening.wait()
        ticking = pool.submit(store.tick, FAR)
        wait([ticking], timeout=0.2)  # a wrong tick is done by then; a right one waits for the writer
        allowed.set()
        assert receipt.result().rows == 10
        ticking.result()
    finish(store)
    store = reopen(store)
    assert store.append_predictions("b", "m", 1, b"").duplicate
    assert store.coverage("m", None, T0, T0 + DAY, FAR).total.predicted == 10
    store.close()


def story(store: ParquetFactStore) -> None:
    """Two days of predictions with features, outcomes for most, a tick each hour."""
    store.set_label("m", SPEC)
    digest = store.put_profile(PROFILE)
    store.set_reference("m", 1, digest)
    for hour in range(40):
        rows = some_predictions(12, start_us=T0_US + hour * HOUR_US, first=100 * hour)
        store.append_predictions(f"p{hour}", "m", 1, ipc(with_features(rows, hour)))
        store.append_predictions(f"p{hour}-again", "m", 1, ipc(with_features(rows[:4], hour)))
        if hour % 10 != 9:
            store.append_outcomes(f"o{hour}", "m", "", ipc(outcome_columns(outcomes_for(rows[:-1]))))
        report = store.tick(T0 + timedelta(hours=hour + 1))
        while report.more:
            report = store.tick(T0 + timedelta(hours=hour + 1))


NOW = T0 + timedelta(hours=40)


def test_restart_changes_no_answer(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path)
    story(store)
    before = store.evidence("m", 1, T0, NOW, NOW)
    rows = store.coverage("m", None, T0, NOW, NOW, grain="hour").rows
    assert {row.layer for row in rows} == {"speed", "batch"}
    assert before.coverage.coverage == pytest.approx(11 / 12 * 31 / 34)
    for _ in range(2):
        store = reopen(store)
        after = store.evidence("m", 1, T0, NOW, NOW)
        assert store.coverage("m", None, T0, NOW, NOW, grain="hour").rows == rows
        assert after.performance.metrics == before.performance.metrics
        assert after.predictions == before.predictions == 480
        for one, other in zip((*before.features, before.prediction), (*after.features, after.prediction), strict=True):
            assert one is not None and other is not None
            assert one.current.tolist() == other.current.tolist()
    store.close()


def test_hours_of_histograms_equal_the_whole_batch(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path)
    story(store)
    evidence = store.evidence("m", 1, T0, NOW, NOW)
    tables = [
        pa.table(with_features(some_predictions(12, start_us=T0_US + hour * HOUR_US, first=100 * hour), hour))
        for hour in range(40)
    ]
    whole = pa.concat_tables(tables)
    carrier, temp = evidence.features
    assert (carrier.name, temp.name) == ("carrier", "temp")
    assert temp.current.tolist() == NumericBins(edges=TEMP_EDGES).count(whole["feature.temp"].to_pylist()).tolist()
    assert (
        carrier.current.tolist()
        == CategoricalBins(categories=CARRIERS).count(whole["feature.carrier"].to_pylist()).tolist()
    )
    assert evidence.prediction is not None
    assert evidence.prediction.current.tolist() == NumericBins(edges=EDGES).count(whole["score"].to_numpy()).tolist()
    assert evidence.prediction.cells[-1] == "missing"
    assert temp.reference.tolist() == [10, 10, 10, 10, 0]
    store.close()


@pytest.mark.parametrize("sealed", [False, True])
def test_a_profile_that_comes_late_counts_what_is_there(store: ParquetFactStore, sealed: bool) -> None:
    rows = some_predictions(30)
    store.append_predictions("a", "m", 1, ipc(with_features(rows)))
    if sealed:
        finish(store)
    store.append_predictions("b", "m", 1, ipc(with_features(rows[:9])))
    store.append_predictions(
        "c",
        "m",
        1,
        ipc(
            prediction_columns(some_predictions(5, first=900))
            | {"feature.temp": pa.array(["text"] * 5), "feature.carrier": pa.array(["AA"] * 5)}
        ),
    )
    assert store.evidence("m", 1, T0, T0 + DAY, FAR).features == ()
    store.set_reference("m", 1, store.put_profile(PROFILE))
    evidence = store.evidence("m", 1, T0, T0 + DAY, FAR)
    assert evidence.predictions == 35
    temp = evidence.features[1].current
    missing = pa.table(with_features(rows))["feature.temp"].null_count
    assert (int(temp.sum()), int(temp[-1])) == (35, missing + 5)
    with pytest.raises(Invalid, match="float64"):
        store.append_predictions("d", "m", 1, ipc(prediction_columns(rows) | {"feature.temp": pa.array(["text"] * 30)}))


def test_batches_without_features_say_nothing_about_features(store: ParquetFactStore) -> None:
    store.set_reference("m", 1, store.put_profile(PROFILE))
    store.append_predictions("a", "m", 1, ipc(prediction_columns(some_predictions(30))))
    evidence = store.evidence("m", 1, T0, T0 + DAY, FAR)
    assert evidence.features[0].current.sum() == 0
    assert evidence.prediction is not None
    assert evidence.prediction.current.sum() == 30


def test_late_outcomes_are_counted_late_and_joined_by_the_batch_alone(store: ParquetFactStore) -> None:
    store.set_label("m", LabelSpec(window=10 * DAY))
    rows = some_predictions(20)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows[:5]))))
    soon = T0 + timedelta(days=3)
    while store.tick(soon).more:
        pass
    assert store.coverage("m", None, T0, T0 + DAY, soon).total.joined_early == 5
    late = ipc(outcome_columns(outcomes_for(rows[5:], delay_us=4 * 24 * HOUR_US)))
    store.append_outcomes("late", "m", "", late)
    waiting = store.coverage("m", None, T0, T0 + DAY, soon).total
    assert (waiting.joined_early, waiting.late) == (5, 15)
    later = T0 + timedelta(days=12)
    while store.tick(later).more:
        pass
    done = store.coverage("m", None, T0, T0 + DAY, later).total
    assert (done.joined, done.late, done.coverage, done.layer) == (20, 15, 1.0, "batch")
    store.append_outcomes("late again", "m", "", late)
    while store.tick(later, force=True).more:
        pass
    again = store.coverage("m", None, T0, T0 + DAY, later).total
    assert (again.joined, again.late) == (20, 15)


def test_a_large_hour_is_joined_share_by_share(store: ParquetFactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store._maintenance._join, "_rows_at_once_max", 100)
    store.set_label("m", SPEC)
    rows = some_predictions(600)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    store.append_predictions("q", "m", 1, ipc(prediction_columns(rows[:50])))
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows))))
    before = store.performance("m", None, T0, T0 + DAY, FAR).total.partial
    finish(store)
    after = store.performance("m", None, T0, T0 + DAY, FAR).total
    assert after.layer == "batch"
    assert after.partial.dense().tolist() == before.dense().tolist()


def test_a_long_join_holds_no_tick_up(store: ParquetFactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set_label("m", SPEC)
    rows = some_predictions(10)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows))))
    real, allowed = store._maintenance._join.run, threading.Event()

    def slow(job: Job) -> JobResult:
        allowed.wait()
        return real(job)

    monkeypatch.setattr(store._maintenance._join, "run", slow)
    monkeypatch.setattr("control_plane.adapters.parquet.maintenance.JOIN_WAIT_S", 0.01)
    for _ in range(3):
        report = store.tick(FAR)
        assert (report.more, report.joined_hours) == (True, 0)
    late = some_predictions(5, first=100)
    store.append_predictions("meanwhile", "m", 1, ipc(prediction_columns(late)))
    assert store.coverage("m", None, T0, T0 + DAY, FAR).total.joined == 10
    allowed.set()
    finish(store)
    total = store.coverage("m", None, T0, T0 + DAY, FAR).total
    assert (total.predicted, total.joined, total.layer) == (15, 10, "batch")


def test_only_affected_hours_are_joined_again(store: ParquetFactStore) -> None:
    store.set_label("m", LabelSpec(window=10 * DAY))
    hours = [some_predictions(5, start_us=T0_US + hour * HOUR_US, first=10 * hour) for hour in range(6)]
    for number, rows in enumerate(hours):
        store.append_predictions(f"p{number}", "m", 1, ipc(prediction_columns(rows)))
    reports = [store.tick(FAR, force=True)]
    while reports[-1].more:
        reports.append(store.tick(FAR))
    assert sum(report.joined_hours for report in reports) == 6
    store.append_outcomes("late", "m", "", ipc(outcome_columns(outcomes_for(hours[2]))))
    reports = [store.tick(FAR, force=True)]
    while reports[-1].more:
        reports.append(store.tick(FAR))
    assert sum(report.joined_hours for report in reports) == 1


def test_orphans_are_counted_listed_and_found_again(store: ParquetFactStore) -> None:
    store.set_label("m", SPEC)
    rows = some_predictions(4)
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows))))
    assert store.coverage("m", None, T0, T0 + DAY, T0 + DAY).total.orphans == 4
    soon = T0 + timedelta(days=2)
    while store.tick(soon).more:
        pass
    assert store.coverage("m", None, T0, T0 + DAY, FAR).total.orphans == 4
    assert store.stats().orphans == 4
    assert sorted(orphan.prediction_id for orphan in store.orphans("m", limit=10)) == sorted(row.id for row in rows)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    while store.tick(soon, force=True).more:
        pass
    total = store.coverage("m", None, T0, T0 + DAY, FAR).total
    assert (total.orphans, total.joined, total.coverage) == (0, 4, 1.0)
    assert store.orphans("m", limit=10) == ()


def test_a_silent_stream_freezes_and_drops_nothing(store: ParquetFactStore) -> None:
    for model in ("loud", "silent"):
        store.set_label(model, SPEC)
        store.append_predictions("p", model, 1, ipc(prediction_columns(some_predictions(10))))
    for hour in range(1, 30):
        rows = some_predictions(10, start_us=T0_US + hour * HOUR_US, first=50 * hour)
        store.append_predictions(f"p{hour}", "loud", 1, ipc(prediction_columns(rows)))
        store.tick(T0 + timedelta(hours=hour))
    store.append_outcomes("o", "silent", "", ipc(outcome_columns(outcomes_for(some_predictions(10)))))
    finish(store)
    for model in ("loud", "silent"):
        assert store.coverage(model, None, T0, T0 + timedelta(hours=1), FAR).total.predicted == 10
    assert store.coverage("silent", None, T0, T0 + DAY, FAR).total.coverage == 1.0


def test_absence_becomes_negative_when_the_window_ends_after_the_join(store: ParquetFactStore) -> None:
    store.set_label("m", LabelSpec(window=5 * DAY, absence_means_negative=True))
    rows = some_predictions(10)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    store.append_outcomes("o", "m", "", ipc(outcome_columns([replace(outcomes_for(rows)[0], value=1.0)])))
    for day in (3, 4, 7):
        now = T0 + timedelta(days=day)
        while store.tick(now).more:
            pass
        total = store.coverage("m", None, T0, T0 + DAY, now).total
        assert (total.mature, total.joined, total.absent) == ((10, 1, 9) if day == 7 else (0, 0, 0))


def test_memory_is_bounded_and_the_batch_takes_over(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path, StoreConfig(speed_rows_max=500))
    store.set_label("m", SPEC)
    hours = [some_predictions(200, start_us=T0_US + hour * HOUR_US, first=300 * hour) for hour in range(5)]
    for number, rows in enumerate(hours):
        store.append_predictions(f"p{number}", "m", 1, ipc(prediction_columns(rows)))
        store.append_outcomes(f"o{number}", "m", "", ipc(outcome_columns(outcomes_for(rows))))
        assert store.stats().speed_rows <= 500
    assert store.stats().speed_rows_shed > 0
    soon = T0 + timedelta(hours=6)
    while store.tick(soon, force=True).more:
        pass
    total = store.coverage("m", None, T0, T0 + DAY, FAR).total
    assert (total.predicted, total.pending) == (total.joined, 0)
    assert total.predicted == pytest.approx(1000, rel=0.1)  # live hours are estimates from a sample
    store = reopen(store, StoreConfig(speed_rows_max=500))
    assert store.stats().speed_rows <= 500
    finish(store)
    total = store.coverage("m", None, T0, T0 + DAY, FAR).total
    assert (total.predicted, total.joined, total.coverage) == (1000, 1000, 1.0)
    store.close()


def test_a_clock_that_jumps(store: ParquetFactStore) -> None:
    store.set_label("m", SPEC)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(some_predictions(10))))
    finish(store)
    assert not store.tick(T0 - DAY).more
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(some_predictions(10)))))
    assert store.coverage("m", None, T0, T0 + DAY, T0 - DAY).total.coverage is None
    assert store.coverage("m", None, T0, T0 + DAY, FAR).total.late == 10
    while store.tick(FAR + DAY).more:
        pass
    assert store.coverage("m", None, T0, T0 + DAY, FAR).total.coverage == 1.0


def test_old_rows_go_and_their_counts_stay(tmp_path: Path) -> None:
    store = ParquetFactStore(tmp_path, StoreConfig(keep=timedelta(days=20)))
    store.set_label("m", SPEC)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(some_predictions(10))))
    finish(store)
    assert store.stats().files == 0
    assert not list(tmp_path.glob("predictions/**/*.parquet"))
    assert store.coverage("m", None, T0, T0 + DAY, FAR).total.predicted == 10
    store.close()


def test_one_process_at_a_time(store: ParquetFactStore) -> None:
    with pytest.raises(Unavailable, match="another process"):
        ParquetFactStore(store._facts.root)


def test_a_closed_store_says_so(store: ParquetFactStore) -> None:
    store.close()
    with pytest.raises(Unavailable) as caught:
        store.append_predictions("b", "m", 1, b"")
    assert caught.value.reason is Reason.SHUTTING_DOWN


def test_profiles_are_content_addressed(store: ParquetFactStore) -> None:
    digest = store.put_profile(PROFILE)
    assert store.put_profile(PROFILE) == digest
    assert store.profile(digest) == PROFILE
    assert store.profile("0" * 64) is None
    with pytest.raises(NotFound):
        store.set_reference("m", 1, "0" * 64)
    with pytest.raises(Invalid):
        store.profile("../../etc/passwd")


@pytest.mark.parametrize(
    ("profile", "field"),
    [
        (b"not json", "reference_profile"),
        (b'{"features": {"x": {"kind": "numeric", "edges": [2, 1], "counts": [1, 1, 1, 1]}}}', "features.x"),
        (b'{"features": {"x": {"kind": "numeric", "edges": [1], "counts": [1, 1]}}}', "features.x"),
        (b'{"features": {"x": {"kind": "numeric", "edges": [1], "counts": [1, 1, -1]}}}', "features.x"),
        (b'{"features": {"x": {"kind": "shape", "counts": []}}}', "features.x"),
        (b'{"features": {"x": {"kind": "categorical", "categories": ["1.0"], "counts": [1, 1, 1]}}}', "features.x"),
        (b'{"features": [{"name": "x", "edges": [], "counts": [1, 0]}, {"name": "x", "counts": [1, 0]}]}', "features"),
        (b'{"prediction": {"edges": [1], "counts": [1]}}', "prediction"),
    ],
)
def test_profiles_that_do_not_add_up_are_refused(store: ParquetFactStore, profile: bytes, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        store.put_profile(profile)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_ids_that_clash_in_every_way_are_counted_once(store: ParquetFactStore) -> None:
    """The same predictions through two versions' batches: the first to arrive stays."""
    rows = some_predictions(10)
    store.set_label("m", SPEC)
    store.append_predictions("a", "m", 1, ipc(prediction_columns(rows)))
    store.append_predictions("b", "m", 2, ipc(prediction_columns(rows)))
    for _ in range(2):
        assert store.coverage("m", 1, T0, T0 + DAY, FAR).total.predicted == 10
        assert store.coverage("m", 2, T0, T0 + DAY, FAR).total.predicted == 0
        assert store.coverage("m", None, T0, T0 + DAY, FAR).total.predicted == 10
        finish(store)


def test_evidence_of_a_model_nobody_knows_is_empty(store: ParquetFactStore) -> None:
    evidence = store.evidence("unknown", 3, T0, T0 + DAY, FAR)
    assert (evidence.predictions, evidence.features, evidence.prediction) == (0, (), None)
    assert evidence.performance.metrics == ()
    assert evidence.coverage.coverage is None


def test_evidence_looks_for_labels_where_they_are_complete(store: ParquetFactStore) -> None:
    """A week's window ends now, but the last day's labels are not complete: performance looks a day further back."""
    store.set_label("m", LabelSpec(window=DAY))
    now = T0 + timedelta(days=8)
    for day in range(8):
        rows = some_predictions(24, start_us=T0_US + day * 24 * HOUR_US, first=100 * day, spread_us=24 * HOUR_US)
        store.append_predictions(f"p{day}", "m", 1, ipc(prediction_columns(rows)))
        if day < 7:
            store.append_outcomes(f"o{day}", "m", "", ipc(outcome_columns(outcomes_for(rows))))
    evidence = store.evidence("m", 1, now - timedelta(days=7), now, now)
    assert evidence.predictions == 7 * 24
    assert (evidence.performance.start, evidence.performance.end) == (T0, T0 + timedelta(days=7))
    assert evidence.coverage.coverage == 1.0
    auc = evidence.performance.metric("auc")
    assert auc is not None
    assert auc.sample_size == 7 * 24


def test_prediction_ids_of_the_past_work(store: ParquetFactStore) -> None:
    """Ids made by another clock than the predictions' are joined too, and survive a restart."""
    store.set_label("m", SPEC)
    rows = [
        replace(row, id=prediction_id(T0_US + 4000 * 24 * HOUR_US, number))
        for number, row in enumerate(some_predictions(10))
    ]
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows))))
    assert store.coverage("m", None, T0, T0 + DAY, FAR).total.joined == 10
    finish(store)
    total = store.coverage("m", None, T0, T0 + DAY, FAR).total
    assert (total.joined, total.layer) == (10, "batch")


@pytest.mark.parametrize("damage", ["garbage", "another version"])
def test_a_catalogue_that_cannot_be_used_says_what_to_do(tmp_path: Path, damage: str) -> None:
    store = ParquetFactStore(tmp_path)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(some_predictions(10))))
    store.close()
    catalogue = tmp_path / "catalog.sqlite"
    if damage == "garbage":
        catalogue.write_bytes(b"half a page" * 500)
    else:
        with sqlite3.connect(catalogue) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    with pytest.raises(Unavailable, match="move the directory away"):
        ParquetFactStore(tmp_path)
    with pytest.raises(Unavailable, match="move the directory away"):  # and the directory is not left locked
        ParquetFactStore(tmp_path)


def test_a_conversion_that_fails_is_tried_again(store: ParquetFactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set_label("m", SPEC)
    rows = some_predictions(10)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows))))

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.write_table", full_disk)
        with pytest.raises(Unavailable, match="No space left"):
            store.tick(FAR)
        assert store.coverage("m", None, T0, T0 + DAY, FAR).total.joined == 10
        assert not store.append_predictions(
            "q", "m", 1, ipc(prediction_columns(some_predictions(1, first=99)))
        ).duplicate
    finish(store)
    total = store.coverage("m", None, T0, T0 + DAY, FAR).total
    assert (total.joined, total.predicted, total.layer) == (10, 11, "batch")
