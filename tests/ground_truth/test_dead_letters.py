"""Dead letters on disk: the same batch is one letter, nothing durable is lost, and there is a limit to it all."""

import sqlite3
from pathlib import Path

import pytest

from control_plane.adapters.parquet.dead_letters import SqliteDeadLetters
from control_plane.app.arrivals import Arrival
from control_plane.core.errors import Unavailable
from tests.ground_truth.arrows import T0


def arrival(number: int, *, model_id: str = "m", size: int = 10, fault: str = "") -> Arrival:
    return Arrival(
        kind="predictions",
        batch_id=f"b{number}",
        source="kafka/p",
        model_id=model_id,
        version=1,
        payload=bytes([number % 256]) * size,
        fault=fault,
    )


def test_a_letter_outlives_the_process_with_its_payload(tmp_path: Path) -> None:
    letters = SqliteDeadLetters(tmp_path)
    kept = letters.keep(arrival(1), "MODEL_NOT_FOUND", "no model 'm'", T0)
    letters.close()
    letters = SqliteDeadLetters(tmp_path)
    assert letters.find() == [kept]
    assert letters.opened(kept.letter_id) == arrival(1)
    assert (kept.size, kept.reason, kept.received_at, kept.replays) == (10, "MODEL_NOT_FOUND", T0, 0)
    letters.close()


def test_the_same_batch_again_is_the_same_letter(tmp_path: Path) -> None:
    letters = SqliteDeadLetters(tmp_path)
    first = letters.keep(arrival(1), "A", "first", T0)
    again = letters.keep(arrival(1), "B", "second", T0)
    other = letters.keep(arrival(1, fault="no header"), "B", "another envelope", T0)
    assert (again.letter_id, again.message) == (first.letter_id, "second")
    assert other.letter_id != first.letter_id
    assert letters.total() == 2
    letters.close()


def test_letters_are_found_by_model_and_id_and_forgotten_with_their_payload(tmp_path: Path) -> None:
    letters = SqliteDeadLetters(tmp_path)
    kept = [letters.keep(arrival(n, model_id="ab"[n % 2]), "R", "why", T0).letter_id for n in range(6)]
    assert [one.letter_id for one in letters.find()] == kept[::-1]
    assert [one.letter_id for one in letters.find("b")] == kept[5::-2]
    assert [one.letter_id for one in letters.find(limit=2)] == kept[:3:-1]
    assert [one.letter_id for one in letters.find("b", [kept[0], kept[1]])] == [kept[1]]
    assert letters.total("a") == 3
    assert letters.discard([kept[0], kept[1], 999]) == 2
    assert letters.opened(kept[0]) is None
    assert len(list((tmp_path / "payloads").iterdir())) == 4
    letters.tried(kept[2], "R2", "still")
    assert [(one.replays, one.message) for one in letters.find("", [kept[2]])] == [(1, "still")]
    letters.close()


@pytest.mark.parametrize("limits", [{"letters_max": 3}, {"bytes_max": 300}])
def test_the_oldest_go_when_there_is_no_room_and_it_is_counted(tmp_path: Path, limits: dict[str, int]) -> None:
    letters = SqliteDeadLetters(tmp_path, **limits)
    kept = [letters.keep(arrival(n, size=100), "R", "why", T0).letter_id for n in range(5)]
    assert [one.letter_id for one in letters.find()] == kept[:1:-1]
    assert letters.dropped() == 2
    # One that is larger than all the room is still kept: it is the newest, and says why.
    large = letters.keep(arrival(9, size=1000), "R", "why", T0)
    assert large.letter_id in [one.letter_id for one in letters.find()]
    letters.close()
    letters = SqliteDeadLetters(tmp_path, **limits)
    assert letters.dropped() >= 2
    letters.close()


def test_a_payload_without_a_row_is_what_a_crash_left(tmp_path: Path) -> None:
    letters = SqliteDeadLetters(tmp_path)
    letters.keep(arrival(1), "R", "why", T0)
    letters.close()
    (tmp_path / "payloads" / "0123.bin").write_bytes(b"half")
    letters = SqliteDeadLetters(tmp_path)
    assert len(list((tmp_path / "payloads").iterdir())) == 1
    letters.close()


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    SqliteDeadLetters(tmp_path).close()
    with sqlite3.connect(tmp_path / "letters.sqlite") as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(Unavailable, match="version 7"):
        SqliteDeadLetters(tmp_path)
