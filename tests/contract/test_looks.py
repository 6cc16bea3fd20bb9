"""Every store of looks keeps the same promises: in memory, and in a SQLite file that is closed and opened again."""

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters.memory.looks import MemoryLooks
from control_plane.adapters.parquet.looks import SqliteLooks
from control_plane.app.looks import Look, Looks
from control_plane.core.errors import Unavailable
from control_plane.core.ids import ModelId
from tests.core.fleets import an_evaluation

START = datetime(2013, 3, 1, tzinfo=UTC)
A, B = ModelId("air_time"), ModelId("bag_volume")


@pytest.fixture(params=["memory", "sqlite"])
def looks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Looks]:
    one: Looks = MemoryLooks() if request.param == "memory" else SqliteLooks(tmp_path / "looks.sqlite")
    yield one
    one.close()


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def a_look(model_id: ModelId, hours: float, *, version: int = 1, score: float = 0.8, digest: str = "") -> Look:
    found = an_evaluation(version, at(hours), stale=True, score=score)
    return Look(model_id=model_id, evaluation=msgspec.structs.replace(found, evidence_sha256=digest))


def hours_of(found: list[Look]) -> list[float]:
    return [(one.evaluation.at - START) / timedelta(hours=1) for one in found]


def test_looks_are_found_by_model_and_time_newest_first(looks: Looks) -> None:
    looks.record([a_look(A, hour) for hour in (3, 1, 2)] + [a_look(B, 2)], {})
    assert hours_of(looks.between(A, at(0), at(9), 10)) == [3, 2, 1]
    assert hours_of(looks.between(A, at(1), at(3), 10)) == [2, 1], "the end is not in it"
    assert hours_of(looks.between(A, at(0), at(9), 2)) == [3, 2], "the newest of too many"
    assert hours_of(looks.between(B, at(0), at(9), 10)) == [2]
    assert looks.between(ModelId("nobody"), at(0), at(9), 10) == []
    assert looks.first_at(A, at(0), at(9)) == at(1)
    assert looks.first_at(A, at(4), at(9)) is None
    made = looks.made_at(A, at(2))
    assert made is not None
    assert made == a_look(A, 2), "every field of a look comes back"
    assert looks.made_at(A, at(2.5)) is None


def test_the_newest_look_at_each_model_is_read_back(looks: Looks) -> None:
    assert looks.latest() == {}
    looks.record([a_look(A, 5, score=0.7), a_look(A, 4), a_look(B, 1, version=3)], {})
    latest = looks.latest()
    assert {model_id: found.at for model_id, found in latest.items()} == {A: at(5), B: at(1)}
    assert (latest[A].score, latest[B].version) == (0.7, 3)


def test_a_later_look_at_the_same_time_takes_the_place_of_the_first(looks: Looks) -> None:
    looks.record([a_look(A, 1, score=0.7)], {})
    looks.record([a_look(A, 1, score=0.9)], {})
    assert [one.evaluation.score for one in looks.between(A, at(0), at(9), 10)] == [0.9]


def test_thinned_looks_are_the_newest_of_each_stretch(looks: Looks) -> None:
    looks.record([a_look(A, hour) for hour in (0, 1, 2, 5, 9)], {})
    assert hours_of(looks.thinned(A, at(0), at(10), 2)) == [9, 2]
    assert hours_of(looks.thinned(A, at(0), at(10), 5)) == [9, 5, 2, 1]
    assert hours_of(looks.thinned(A, at(0), at(10), 1_000)) == [9, 5, 2, 1, 0]
    assert looks.thinned(B, at(0), at(10), 5) == []


def test_scores_are_of_one_version_and_of_the_past(looks: Looks) -> None:
    looks.record([a_look(A, hour, score=hour / 10, version=1 + (hour >= 4)) for hour in range(8)], {})
    found = looks.scores(A, 2, at(7), 10)
    assert [(one.at, one.score) for one in found] == [(at(4), 0.4), (at(5), 0.5), (at(6), 0.6)]
    assert [one.at for one in looks.scores(A, 1, at(9), 2)] == [at(1), at(3)]
    assert looks.scores(A, 3, at(9), 10) == ()


def test_evidence_is_found_by_its_sha256_and_kept_once(looks: Looks) -> None:
    data = bytes(range(256)) * 50
    digest = hashlib.sha256(data).hexdigest()
    looks.record([a_look(A, 1, digest=digest)], {digest: data})
    looks.record([a_look(A, 2, digest=digest)], {digest: data})
    assert looks.evidence(digest) == data
    assert looks.evidence("0" * 64) is None


def test_what_is_too_old_goes_with_its_evidence(looks: Looks) -> None:
    looks.record([a_look(A, 1)], {"a" * 64: b"old"})
    looks.record([a_look(A, 5), a_look(B, 5)], {"b" * 64: b"new"})
    assert looks.expire(at(5)) == 1
    assert hours_of(looks.between(A, at(0), at(9), 10)) == [5]
    assert (looks.evidence("a" * 64), looks.evidence("b" * 64)) == (None, b"new")
    assert looks.expire(at(5)) == 0


def test_threads_do_not_disturb_one_another(looks: Looks) -> None:
    def write(first: int) -> None:
        for hour in range(first, first + 50):
            looks.record([a_look(A, hour)], {})
            looks.scores(A, 1, at(hour), 10)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 50, 100, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(looks.between(A, at(0), at(999), 1_000)) == 200


made_looks = st.lists(
    st.tuples(st.sampled_from([A, B]), st.integers(0, 200), st.integers(1, 3), st.integers(0, 100)), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(made_looks, st.integers(0, 200), st.integers(1, 200), st.integers(1, 40))
def test_both_stores_answer_alike(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[tuple[ModelId, int, int, int]],
    first: int,
    span: int,
    points: int,
) -> None:
    memory, disk = MemoryLooks(), SqliteLooks(tmp_path_factory.mktemp("looks") / "looks.sqlite")
    for model_id, hour, version, score in made:
        for store in (memory, disk):
            store.record([a_look(model_id, hour, version=version, score=score / 100)], {})
    start, end = at(first), at(first + span)
    asked: list[Callable[[Looks], object]] = [
        lambda store: store.latest(),
        lambda store: store.between(A, start, end, points),
        lambda store: store.thinned(A, start, end, points),
        lambda store: store.first_at(A, start, end),
        lambda store: store.scores(A, 2, end, points),
        lambda store: (store.expire(start), store.between(B, at(0), at(999), 999)),
    ]
    for ask in asked:
        assert ask(memory) == ask(disk)
    disk.close()


def test_looks_outlive_the_program(tmp_path: Path) -> None:
    first = SqliteLooks(tmp_path / "looks.sqlite")
    first.record([a_look(A, 1)], {"a" * 64: b"evidence"})
    # Not closed: a program that is killed closes nothing.
    second = SqliteLooks(tmp_path / "looks.sqlite")
    assert second.made_at(A, at(1)) == a_look(A, 1)
    assert second.evidence("a" * 64) == b"evidence"
    first.close()
    second.close()


def test_a_look_and_its_evidence_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    store = SqliteLooks(tmp_path / "looks.sqlite")
    other = sqlite3.connect(tmp_path / "looks.sqlite")
    other.execute("CREATE TRIGGER full BEFORE INSERT ON looks BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    other.commit()
    with pytest.raises(Unavailable, match="disk is full"):
        store.record([a_look(A, 1)], {"a" * 64: b"evidence"})
    assert store.evidence("a" * 64) is None
    other.execute("DROP TRIGGER full")
    other.commit()
    other.close()
    store.record([a_look(A, 1)], {"a" * 64: b"evidence"})
    assert store.evidence("a" * 64) == b"evidence"
    store.close()


def test_a_file_that_is_none_or_newer_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database at all, and long enough to be looked at as one" * 20)
    with pytest.raises(Unavailable, match=r"text\.sqlite cannot be used.*move the file away"):
        SqliteLooks(tmp_path / "text.sqlite")
    newer = sqlite3.connect(tmp_path / "newer.sqlite")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(Unavailable, match="version 99"):
        SqliteLooks(tmp_path / "newer.sqlite")


def test_damaged_evidence_is_given_back_as_it_is(tmp_path: Path) -> None:
    store = SqliteLooks(tmp_path / "looks.sqlite")
    store.record([a_look(A, 1)], {"a" * 64: b"evidence" * 100})
    other = sqlite3.connect(tmp_path / "looks.sqlite")
    other.execute("UPDATE evidence SET data = ?", (b"rust",))
    other.commit()
    other.close()
    assert store.evidence("a" * 64) == b"rust", "whoever asked compares the sha256 and says so"
    store.close()
