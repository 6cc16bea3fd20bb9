"""The shared speed view: one suite for the one in memory and the one in Redis, on a real server; then its faults."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.adapters.memory.speed_view import MemorySpeedView
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.adapters.redis.speed_view import RedisSpeedView
from control_plane.app.speed_view import EMBEDDED_SHARD, ShardHour, SharedSpeedView, SpeedPublisher, merged
from control_plane.core.errors import Unavailable
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import EMPTY, pack
from control_plane.core.ground_truth.speed import SpeedView
from tests.ground_truth.arrows import HOUR_US, T0, T0_US, prediction_id
from tests.ground_truth.joins import append, feed, hour_answer, twin_answer
from tests.redis.server import Server
from tests.redis.shards import shard_hours
from tests.reference.join import Outcome, Prediction

SPEC = LabelSpec(window=timedelta(hours=6))
HOUR = T0_US // HOUR_US
WAIT_S = 20.0
ROWS = [Prediction(prediction_id(T0_US + n, n), T0_US + n, 0.1 * n, 1 + n % 2) for n in range(8)]
TRUTHS = [Outcome(row.id, T0_US + HOUR_US, float(n % 2)) for n, row in enumerate(ROWS[:6])]


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def server(running: Server) -> Server:
    running.flush()
    return running


MakeView = Callable[[float], SharedSpeedView]


@pytest.fixture(params=["memory", "redis"])
def make_view(request: pytest.FixtureRequest, server: Server) -> MakeView:
    if request.param == "memory":
        return MemorySpeedView
    return lambda ttl_s: RedisSpeedView(server.url, ttl_s)


@pytest.fixture
def view(make_view: MakeView) -> Iterator[SharedSpeedView]:
    view = make_view(3_600)
    yield view
    view.close()


def of(shard: str, computed_us: int = 1, *rows: Prediction | Outcome, model_id: str = "m") -> list[ShardHour]:
    """What a shard with these rows has to say."""
    speed = SpeedView()
    feed(speed, rows, model_id)
    return shard_hours(speed, model_id, SPEC, shard, computed_us)


def read(view: SharedSpeedView, model_id: str = "m") -> list[ShardHour]:
    return view.read(model_id, "default", HOUR - 2, HOUR + 3)


def test_what_is_written_is_read(view: SharedSpeedView) -> None:
    hours = of("0", 1, *ROWS, *TRUTHS)
    view.write(hours)
    assert read(view) == hours
    assert view.read("m", "other", HOUR - 2, HOUR + 3) == []
    assert view.read("other", "default", HOUR - 2, HOUR + 3) == []
    assert view.read("m", "default", HOUR + 1, HOUR + 3) == []


def test_writing_again_changes_nothing(view: SharedSpeedView) -> None:
    hours = of("0", 1, *ROWS, *TRUTHS)
    for _ in range(3):
        view.write(hours)
    assert read(view) == hours


def test_shards_add_up_to_what_one_view_of_all_rows_has(view: SharedSpeedView) -> None:
    for n in range(3):
        mine = [row for at, row in enumerate(ROWS) if at % 3 == n]
        ids = {row.id for row in mine}
        view.write(of(f"facts-{n}", 1, *mine, *[one for one in TRUTHS if one.id in ids]))
    answer, _ = twin_answer([*ROWS, *TRUTHS], SPEC)
    found = {(hour, v): hour_answer(p) for hour, versions in merged(read(view)).items() for v, p in versions.items()}
    assert found == answer
    assert {one.shard for one in read(view)} == {"facts-0", "facts-1", "facts-2"}


def test_a_shard_replaces_only_its_own_hours_and_whole(view: SharedSpeedView) -> None:
    view.write(of("a", 1, *ROWS))
    view.write(of("b", 1, *ROWS[:2]))
    view.write(of("a", 2, ROWS[0]))
    by_shard = {one.shard: one for one in read(view)}
    assert sorted(by_shard["a"].packed) == [1]
    assert sorted(by_shard["b"].packed) == [1, 2]


def test_names_that_begin_alike_are_different_shards(view: SharedSpeedView) -> None:
    view.write([*of("facts-1", 1, *ROWS), *of("facts-10", 1, *ROWS[:2])])
    view.write([replace(one, computed_us=2) for one in of("facts-1", 2, ROWS[0])])
    assert [one.shard for one in read(view)] == ["facts-1", "facts-10"]
    assert sorted(read(view)[1].packed) == [1, 2]


def test_an_older_result_never_replaces_a_newer_one(view: SharedSpeedView) -> None:
    newer = of("0", 1_800_000_000_000_001, *ROWS, *TRUTHS)
    view.write(newer)
    view.write(of("0", 1_800_000_000_000_000, *ROWS[:2]))
    assert read(view) == newer


def test_an_empty_hour_is_gone(view: SharedSpeedView) -> None:
    hours = of("0", 1, *ROWS)
    view.write(hours)
    view.write([replace(one, computed_us=2, packed={}) for one in hours])
    assert read(view) == []


def test_a_sample_is_scaled_to_all(view: SharedSpeedView) -> None:
    view.write([replace(one, rate=0.25) for one in of("0", 1, *ROWS)])
    found = merged(read(view))[HOUR]
    assert [found[version].of("predicted") for version in (1, 2)] == [16, 16]
    assert found[1].design == 4.0


def test_a_marker_is_kept_by_shard(view: SharedSpeedView) -> None:
    assert view.marker("a") == ""
    view.set_marker("a", "one")
    view.set_marker("b", "two")
    assert (view.marker("a"), view.marker("b"), view.marker("c")) == ("one", "two", "")


def test_hours_are_gone_after_their_time(make_view: MakeView) -> None:
    view = make_view(0.2)
    view.write(of("0", 1, *ROWS))
    view.set_marker("0", "x")
    until_s = time.monotonic() + WAIT_S
    while read(view):
        assert time.monotonic() < until_s, "an hour outlives its time"
    view.close()


# --- the publisher, over a real store and a real server ---


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ParquetFactStore]:
    store = ParquetFactStore(tmp_path / "facts")
    store.set_label("m", SPEC)
    yield store
    store.close()


def answers(view: SharedSpeedView) -> dict[tuple[int, int], object]:
    return {(hour, v): hour_answer(p) for hour, versions in merged(read(view)).items() for v, p in versions.items()}


NOW = T0 + timedelta(hours=2)


def test_what_changed_is_published_and_nothing_else(store: ParquetFactStore, server: Server) -> None:
    view = RedisSpeedView(server.url)
    publisher = SpeedPublisher(store, view, lambda: NOW)
    append(store, "m", ROWS, "p")
    assert publisher.publish() == 1
    assert publisher.publish() == 0
    append(store, "m", TRUTHS, "o")
    append(store, "m", ROWS, "p")  # the same batches again
    assert publisher.publish() == 1
    expected, _ = twin_answer([*ROWS, *TRUTHS], SPEC)
    assert answers(view) == expected
    publisher.stop()


@pytest.mark.parametrize("lost", ["flushed", "restarted"])
def test_a_view_that_was_emptied_is_written_again(store: ParquetFactStore, lost: str) -> None:
    server = Server()
    server.start()
    try:
        view = RedisSpeedView(server.url)
        publisher = SpeedPublisher(store, view, lambda: NOW)
        append(store, "m", [*ROWS, *TRUTHS])
        publisher.publish()
        before = answers(view)
        if lost == "flushed":
            server.flush()
        else:
            server.stop()
            server.start()
        assert read(view) == []
        assert publisher.publish() == 1
        assert answers(view) == before != {}
        publisher.stop()
    finally:
        server.remove()


def test_a_server_that_is_gone_costs_no_answer_and_is_caught_up_with(store: ParquetFactStore) -> None:
    server = Server()
    server.start()
    try:
        view = RedisSpeedView(server.url)
        publisher = SpeedPublisher(store, view, lambda: NOW, every_s=0.01)
        publisher.start()
        server.stop()
        until_s = time.monotonic() + WAIT_S
        while not publisher.degraded():
            assert time.monotonic() < until_s, "nobody says that it is gone"
        assert "has not been reached since" in publisher.degraded()[0]
        append(store, "m", [*ROWS, *TRUTHS])
        report = store.performance("m", None, T0 - timedelta(hours=1), NOW + timedelta(days=9), NOW + timedelta(days=9))
        assert sum(row.partial.of("joined") for row in report.rows) == len(TRUTHS)
        with pytest.raises(Unavailable, match="Redis"):
            read(view)
        server.start()
        expected, _ = twin_answer([*ROWS, *TRUTHS], SPEC)
        while publisher.degraded() or answers(view) != expected:
            assert time.monotonic() < until_s + WAIT_S, "it does not catch up"
        publisher.stop()
    finally:
        server.remove()


def test_a_store_that_was_opened_again_replaces_what_it_had_written(tmp_path: Path, server: Server) -> None:
    view = RedisSpeedView(server.url)
    expected, _ = twin_answer([*ROWS, *TRUTHS], SPEC)
    for minute in (0, 1):
        store = ParquetFactStore(tmp_path / "again")
        store.set_label("m", SPEC)
        append(store, "m", [*ROWS, *TRUTHS])
        SpeedPublisher(store, view, lambda at=minute: NOW + timedelta(minutes=at)).publish()  # type: ignore[misc]
        store.close()
        assert answers(view) == expected
    assert {one.shard for one in read(view)} == {EMBEDDED_SHARD}
    view.close()


def test_an_hour_of_nothing_is_no_hour() -> None:
    assert merged([]) == {}
    one = of("0", 1, ROWS[0])[0]
    assert merged([replace(one, packed={1: pack(EMPTY)})])[HOUR][1].of("predicted") == 0
