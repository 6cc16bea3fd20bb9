"""Performance as it is served: by grain, provisional, and as it was known at a time."""

import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters.parquet import beliefs
from control_plane.adapters.parquet.catalog import Catalog
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.parts import served_parts
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.app.fact_reports import PerformanceReport
from control_plane.core.errors import Invalid
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, merge, pack, partials_of, unpack
from tests.ground_truth.arrows import (
    HOUR_US,
    T0,
    T0_US,
    ipc,
    outcome_columns,
    outcomes_for,
    prediction_columns,
    some_predictions,
    us,
)
from tests.ground_truth.test_partials import binary_sample, rows_of
from tests.reference.join import Outcome, Prediction

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SPEC = LabelSpec(window=2 * DAY)
CONFIG = StoreConfig(join_every=HOUR, speed_window=2 * HOUR)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ParquetFactStore]:
    opened = ParquetFactStore(tmp_path, CONFIG)
    opened.set_label("m", SPEC)
    yield opened
    opened.close()


def predict(store: ParquetFactStore, rows: Sequence[Prediction], *, version: int = 1, batch: str = "p") -> None:
    """Store predictions of one version."""
    store.append_predictions(f"{batch}{rows[0].id.hex()}", "m", version, ipc(prediction_columns(rows)))


def turn_out(store: ParquetFactStore, rows: Sequence[Outcome], batch: str, label_type: str = "default") -> None:
    """Store outcomes."""
    store.append_outcomes(batch, "m", label_type, ipc(outcome_columns(rows)))


def work(store: ParquetFactStore, now: datetime) -> None:
    """Everything that is due at a time."""
    report = store.tick(now, force=True)
    while report.more:
        report = store.tick(now)


def metrics(report: PerformanceReport) -> dict[str, float]:
    """Of the total, by name."""
    return {metric.name: metric.value for metric in report.total.metrics}


def month(store: ParquetFactStore, days: int, *, versions: int = 1) -> list[Prediction]:
    """Forty predictions a day with outcomes an hour later, joined and mature."""
    rows: list[Prediction] = []
    for day in range(days):
        for version in range(1, versions + 1):
            some = some_predictions(
                40, start_us=T0_US + day * 24 * HOUR_US, first=(day * versions + version) * 100, spread_us=24 * HOUR_US
            )
            predict(store, some, version=version)
            turn_out(store, outcomes_for(some), f"o{day}/{version}")
            rows += some
    work(store, T0 + (days + 3) * DAY)
    return rows


# --- days, versions, hours ---


def test_days_are_merged_once_mature_and_say_what_their_hours_say(store: ParquetFactStore) -> None:
    rows = month(store, 4, versions=2)
    now = T0 + 7 * DAY
    merged = store._facts.catalog.db.execute("SELECT count(*) FROM day_partials").fetchone()[0]
    assert merged == 8
    by_day = store.performance("m", None, T0, T0 + 4 * DAY, now)
    by_hour = store.performance("m", None, T0, T0 + 4 * DAY, now, grain="hour")
    assert by_day.total.partial.dense().tolist() == by_hour.total.partial.dense().tolist()
    assert metrics(by_day) == pytest.approx(metrics(by_hour))
    assert [row.partial.of("joined") for row in by_day.rows] == [80] * 4
    assert by_day.total.layer == "batch"
    assert not by_day.total.provisional
    # A correction reaches the merged day.
    turn_out(store, [Outcome(rows[1].id, rows[1].predicted_us + 5, float(rows[1].score <= 0.5), 3)], "correction")
    work(store, now + HOUR)
    after = store.performance("m", None, T0, T0 + 4 * DAY, now + HOUR)
    hours = store.performance("m", None, T0, T0 + 4 * DAY, now + HOUR, grain="hour")
    assert metrics(after) != metrics(by_day)
    assert after.total.partial.dense().tolist() == hours.total.partial.dense().tolist()


@given(st.integers(0, 70), st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_any_range_is_the_merge_of_its_hours(first: int, length: int) -> None:
    store = MONTH.store()
    start, end, now = T0 + first * HOUR, T0 + (first + length) * HOUR, T0 + 9 * DAY
    ranged = store.performance("m", None, start, end, now)
    with store._facts.lock:
        mature = (us(now) - SPEC.window_us) // MICROSECONDS_PER_HOUR
        hour = T0_US // HOUR_US + first
        parts = served_parts(store._facts, "m", SPEC, hour, hour + length, mature, by_day=False).parts
    assert ranged.total.partial.dense().tolist() == merge(part.partial for part in parts).dense().tolist()
    assert sum(row.partial.of("predicted") for row in ranged.rows) == ranged.total.partial.of("predicted")


class _Month:
    """A store that many examples read."""

    def __init__(self) -> None:
        self._store: ParquetFactStore | None = None

    def store(self) -> ParquetFactStore:
        assert self._store is not None
        return self._store

    def open(self, root: Path) -> None:
        self._store = ParquetFactStore(root, CONFIG)
        self._store.set_label("m", SPEC)
        month(self._store, 4, versions=2)

    def close(self) -> None:
        self.store().close()


MONTH = _Month()


@pytest.fixture(autouse=True, scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    MONTH.open(tmp_path_factory.mktemp("month"))
    yield
    MONTH.close()


def test_by_version(store: ParquetFactStore) -> None:
    month(store, 2, versions=3)
    found = store.performance("m", None, T0, T0 + 2 * DAY, T0 + 5 * DAY, grain="version")
    assert [(row.version, row.partial.of("joined")) for row in found.rows] == [(1, 80), (2, 80), (3, 80)]
    alone = store.performance("m", 2, T0, T0 + 2 * DAY, T0 + 5 * DAY)
    assert found.rows[1].metrics == alone.total.metrics


def test_hours_that_wait_for_the_join_are_pending_and_never_nothing(store: ParquetFactStore) -> None:
    rows = some_predictions(30)
    predict(store, rows)
    work(store, T0 + 9 * DAY)
    with store._facts.lock:  # as between conversion and join: rows in files, no layer has joined them
        store._facts.catalog.db.executescript("DELETE FROM partials; DELETE FROM day_partials")
    found = store.performance("m", None, T0, T0 + DAY, T0 + 9 * DAY)
    assert [(row.layer, row.metrics) for row in found.rows] == [("pending", ())]
    assert "30 predictions of 1 hours wait for the batch join" in found.degraded[0]


# --- labels ---


def test_each_label_type_has_its_own_window(store: ParquetFactStore) -> None:
    store.set_label("m", LabelSpec(window=2 * DAY, proxy="click", proxy_window=HOUR, others="refund 5d imputed"))
    rows = some_predictions(40)
    predict(store, rows)
    turn_out(store, outcomes_for(rows, delay_us=30 * HOUR_US), "sale")
    turn_out(store, outcomes_for(rows[:30], delay_us=HOUR_US // 2), "click", "click")
    turn_out(store, outcomes_for(rows[30:], delay_us=2 * HOUR_US), "late click", "click")
    turn_out(store, outcomes_for(rows[:20], delay_us=100 * HOUR_US), "refund", "refund")
    now = T0 + 7 * DAY
    work(store, now)

    def joined(label_type: str, at: datetime) -> int:
        found = store.performance("m", None, T0, T0 + DAY, at, label_type=label_type)
        assert found.label.label_type == (label_type or "default")
        return found.total.partial.of("joined")

    assert [joined(one, now) for one in ("", "click", "refund")] == [40, 30, 20]
    assert [joined(one, T0 + 3 * DAY) for one in ("", "click", "refund")] == [40, 30, 0]
    with pytest.raises(Invalid, match="no label type 'churn': it has default, click, refund"):
        store.performance("m", None, T0, T0 + DAY, now, label_type="churn")


# --- slices ---


def test_slices_come_from_the_batch_join_and_are_pending_until_then(store: ParquetFactStore) -> None:
    rows = some_predictions(60)
    countries = pa.array(["US" if number % 3 else "FR" for number in range(60)])
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows) | {"slice.country": countries}))
    turn_out(store, outcomes_for(rows), "o")
    soon = T0 + 2 * HOUR
    early = store.performance("m", None, T0, T0 + DAY, soon, slice_name="country=US", provisional=True)
    assert [(row.layer, row.metrics) for row in early.rows] == [("pending", ())]
    assert "60 predictions of 1 hours wait for the batch join and are not counted in slices" in early.degraded[0]
    now = T0 + 4 * DAY
    work(store, now)
    found = store.performance("m", None, T0, T0 + DAY, now, grain="slice")
    counted = [(row.slice_name, row.partial.of("predicted")) for row in found.rows]
    assert counted == [("country=FR", 20), ("country=US", 40)]
    assert found.total.partial.of("predicted") == 60
    one = store.performance("m", None, T0, T0 + DAY, now, slice_name="country=FR")
    assert one.total.metrics == found.rows[0].metrics
    assert not one.degraded
    with pytest.raises(Invalid, match="no slice 'country=DE': it has country=FR, country=US"):
        store.performance("m", None, T0, T0 + DAY, now, slice_name="country=DE")


# --- sampling ---


def test_a_sample_is_scaled_and_its_intervals_are_wider(tmp_path: Path) -> None:
    rows = some_predictions(4_000)
    reports = {}
    for rate in (1.0, 0.25):
        store = ParquetFactStore(tmp_path / str(rate), CONFIG)
        store.set_label("m", SPEC)
        store.submit_predictions("p", "m", 1, ipc(prediction_columns(rows)), rate=rate).result()
        store.submit_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows))), rate=rate).result()
        work(store, T0 + 5 * DAY)
        reports[rate] = store.performance("m", None, T0, T0 + DAY, T0 + 5 * DAY).total
        store.close()
    whole, sample = reports[1.0], reports[0.25]
    assert whole.sample_rate == 1.0
    assert sample.sample_rate == pytest.approx(0.25)
    assert sample.partial.of("predicted") == pytest.approx(4_000, rel=0.1)
    for mine, full in zip(sample.metrics, whole.metrics, strict=True):
        low, high = mine.interval
        assert low <= full.value <= high
        assert mine.standard_error == pytest.approx(2 * full.standard_error, rel=0.25)
        assert mine.sample_size == pytest.approx(full.sample_size / 4, rel=0.1)


# --- provisional ---


def fill_with_slow_positives(store: ParquetFactStore, days: int, per_hour: int = 30) -> dict[int, list[Outcome]]:
    """Predictions of so many days; outcomes by the hour they come in, positives 20 hours later than negatives."""
    rng = np.random.default_rng(4)
    by_hour: dict[int, list[Outcome]] = {}
    for hour in range(24 * days):
        some = some_predictions(per_hour, start_us=T0_US + hour * HOUR_US, first=hour * per_hour)
        predict(store, some)
        for row in some:
            value = float(rng.random() < 0.2 + 0.6 * row.score)
            delay_us = int((20 if value else 1) * HOUR_US * np.exp(rng.normal(0, 0.6)))
            seen_us = row.predicted_us + delay_us
            by_hour.setdefault((seen_us - T0_US) // HOUR_US, []).append(Outcome(row.id, seen_us, value, 0))
    return by_hour


def test_provisional_numbers_of_the_store_are_revised_into_final_ones(store: ParquetFactStore) -> None:
    days = 8
    arriving = fill_with_slow_positives(store, days)
    now_hour = 24 * days
    early = [row for hour in range(now_hour) for row in arriving.pop(hour, [])]
    turn_out(store, early, "early")
    now = T0 + days * DAY
    work(store, now)
    last_day = (T0 + (days - 1) * DAY, T0 + days * DAY)
    found = store.performance("m", None, *last_day, now, provisional=True)
    assert found.total.provisional
    assert 0.3 < found.total.arrived < 0.95
    assert found.arrival_curve is not None
    assert store.performance("m", None, *last_day, now).total.metrics == ()  # nothing of it is mature
    turn_out(store, [row for rows in arriving.values() for row in rows], "rest")
    later = now + 4 * DAY
    work(store, later)
    final = store.performance("m", None, *last_day, later, provisional=True)
    assert not final.total.provisional
    assert final.total.arrived == 1.0
    for metric in found.total.metrics:
        low, high = metric.interval
        value = final.total.metric(metric.name)
        assert value is not None
        assert low <= value.value <= high, metric.name
    # And what was believed then is still known.
    believed = store.performance("m", None, *last_day, later, known_at=now, provisional=True)
    assert metrics(believed) == pytest.approx(metrics(found))
    assert believed.total.arrived == pytest.approx(found.total.arrived)


def test_without_history_provisional_numbers_say_that_they_are_not_corrected(store: ParquetFactStore) -> None:
    rows = some_predictions(50)
    predict(store, rows)
    turn_out(store, outcomes_for(rows[:25], delay_us=60_000_000), "o")
    found = store.performance("m", None, T0, T0 + DAY, T0 + HOUR, provisional=True)
    assert found.total.provisional
    assert found.total.arrived == 0.5
    assert found.arrival_curve is None
    assert "not corrected" in found.degraded[-1]


# --- what was believed ---


def test_a_correction_does_not_change_what_was_known_before(store: ParquetFactStore) -> None:
    rows = some_predictions(40)
    predict(store, rows)
    turn_out(store, outcomes_for(rows), "o")
    tuesday, thursday = T0 + 4 * DAY, T0 + 6 * DAY
    work(store, tuesday)
    before = store.performance("m", None, T0, T0 + DAY, tuesday)
    wrong = [Outcome(row.id, row.predicted_us + HOUR_US, 1.0, 1) for row in rows]
    turn_out(store, wrong, "corrections")
    work(store, thursday)
    now = store.performance("m", None, T0, T0 + DAY, thursday)
    then = store.performance("m", None, T0, T0 + DAY, thursday, known_at=tuesday + HOUR)
    assert then.total.metrics == before.total.metrics != now.total.metrics
    assert then.total.computed_at == tuesday
    assert now.total.computed_at == thursday
    # Before it was mature nothing final was known, and before it was computed nothing at all.
    assert store.performance("m", None, T0, T0 + DAY, thursday, known_at=T0 + DAY).rows == ()
    assert store.performance("m", None, T0, T0 + DAY, thursday, known_at=T0, provisional=True).rows == ()


def test_live_hours_are_noted_at_each_pass(store: ParquetFactStore) -> None:
    rows = some_predictions(40)
    predict(store, rows)
    seen = []
    for number in range(3):
        turn_out(store, outcomes_for(rows[: 10 * (number + 1)], delay_us=60_000_000), f"o{number}")
        at = T0 + HOUR + number * timedelta(minutes=20)
        work(store, at)
        report = store.performance("m", None, T0, T0 + DAY, at, provisional=True)
        assert report.total.layer == "speed"
        assert report.total.computed_at is None
        seen.append((at, metrics(report)))
    work(store, T0 + 5 * HOUR)
    for at, was in seen:
        known = store.performance("m", None, T0, T0 + DAY, T0 + 5 * HOUR, known_at=at, provisional=True)
        assert metrics(known) == pytest.approx(was)
        assert known.total.computed_at == at


@given(st.integers(0, 2**32))
@settings(max_examples=3, deadline=None)
def test_whatever_arrives_each_pass_is_answered_later_as_it_was_then(seed: int) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as directory:
        store = ParquetFactStore(Path(directory), CONFIG)
        store.set_label("m", SPEC)
        predicted: list[Prediction] = []
        answers = []
        now = T0
        for step in range(6):
            now += int(rng.integers(1, 30)) * timedelta(minutes=30)
            some = some_predictions(int(rng.integers(1, 12)), start_us=us(now) - HOUR_US, first=100 * step)
            predict(store, some, version=int(rng.integers(1, 3)))
            predicted += some
            chosen = [row for row in predicted if rng.random() < 0.4]
            seen = [
                Outcome(row.id, min(us(now), row.predicted_us + HOUR_US), float(rng.random() < 0.5), step)
                for row in chosen
            ]
            if seen:
                turn_out(store, seen, f"o{step}")
            work(store, now)
            answers.append((now, hours_of(store, now, None)))
        for at, was in answers:
            assert hours_of(store, now, at) == was
        store.close()


def hours_of(
    store: ParquetFactStore, now: datetime, known_at: datetime | None
) -> list[tuple[datetime, int, list[int], bool]]:
    """What is said of each hour and version."""
    found = []
    for version in (1, 2):
        report = store.performance(
            "m", version, T0 - DAY, T0 + 9 * DAY, now, grain="hour", known_at=known_at, provisional=True
        )
        found += [
            (row.start, version, row.partial.dense().tolist(), row.provisional)
            for row in report.rows
            if row.partial.of("predicted")
        ]
    return found


def test_what_cannot_be_known_is_refused(store: ParquetFactStore) -> None:
    now = T0 + DAY
    for asked, why in (
        ({"known_at": now + HOUR}, "in the future"),
        ({"known_at": T0, "grain": "slice"}, "slices are kept as they are now"),
    ):
        with pytest.raises(Invalid, match=why):
            store.performance("m", None, T0, now, now, **asked)


def test_beliefs_are_thinned_with_age_and_forgotten_at_last(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.sqlite")
    hour = T0_US // HOUR_US
    for age in range(1, 200):
        with catalog.transaction():
            packed = {1: pack(some_partial(age))}
            catalog.put_partials("m", "default", hour, "batch", packed, computed_us=T0_US + age * HOUR_US)
    with catalog.transaction():
        beliefs.thin(catalog.db, 0, T0_US + 400 * HOUR_US)
    kept = [int(row[0]) for row in catalog.db.execute("SELECT computed_us FROM beliefs ORDER BY 1")]
    assert 10 < len(kept) < 20
    for age in (2, 5, 30, 100, 198):
        known = beliefs.believed(catalog.db, "m", "default", hour, hour + 1, T0_US + age * HOUR_US)
        found_age = (known[hour].computed_us - T0_US) / HOUR_US
        assert age / 1.5 <= found_age <= age
        assert unpack(known[hour].packed[1]).of("predicted") == found_age
    with catalog.transaction():
        beliefs.thin(catalog.db, 0, T0_US + beliefs.KEPT_US + 1_000 * HOUR_US)
    assert not catalog.db.execute("SELECT * FROM beliefs").fetchall()
    catalog.close()


def some_partial(rows: int) -> Partial:
    """A partial of so many predictions."""
    score, value = binary_sample(rows, 0.3, rows)
    return partials_of(SPEC, rows_of(score, value), 1)[0]
