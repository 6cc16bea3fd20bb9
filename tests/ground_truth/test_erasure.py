"""Erasing: nothing of the ids is left in any layer, down to the bytes of every file; replays do not bring them back."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from control_plane.adapters.parquet.erasure import Erasure
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.ground_truth.ids import id_columns
from control_plane.core.ground_truth.labels import LabelSpec
from tests.ground_truth.arrows import HOUR_US, T0, T0_US, ipc, outcome_columns, prediction_columns, prediction_id
from tests.ground_truth.joins import FAR, append, finish, stored_answer, twin_answer
from tests.reference.join import Arrival, Outcome, Prediction

SPEC = LabelSpec(window=timedelta(hours=6))
ROWS: list[Arrival] = [Prediction(prediction_id(T0_US + n, n), T0_US + n, 0.05 * n, 1 + n % 2) for n in range(16)]
TRUTHS: list[Arrival] = [Outcome(row.id, T0_US + HOUR_US, float(n % 2)) for n, row in enumerate(ROWS[:12])]
STRAY = Outcome(prediction_id(T0_US + 99, 99), T0_US + HOUR_US, 1.0)
GONE = [ROWS[3].id, ROWS[7].id, ROWS[13].id, STRAY.id]
KEPT = [row for row in (*ROWS, *TRUTHS) if row.id not in GONE]
NOW = T0 + timedelta(hours=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ParquetFactStore]:
    store = ParquetFactStore(tmp_path)
    store.set_label("m", SPEC)
    yield store
    store.close()


def traces(root: Path, ids: list[bytes]) -> list[str]:
    """Files that hold an id as bytes, hex or text, also inside of compressed Parquet."""
    needles = [form for one in ids for form in (one, one.hex().encode(), str(uuid.UUID(bytes=one)).encode())]
    found = []
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
            content += b"".join(
                bytes(buffer)
                for column in table.columns
                for chunk in column.chunks
                for buffer in chunk.buffers()
                if buffer
            )
            content += b"".join(map(bytes, table.column("prediction_id").to_pylist()))
        found += [path.name for needle in needles if needle in content]
    return found


def fill(store: ParquetFactStore) -> None:
    append(store, "m", [*ROWS, *TRUTHS, STRAY])


@pytest.mark.parametrize("moment", ["in segments", "sealed and live", "joined"])
def test_nothing_is_left_and_the_rest_is_joined_without_them(
    store: ParquetFactStore, tmp_path: Path, moment: str
) -> None:
    fill(store)
    if moment == "sealed and live":
        store.tick(NOW, force=True)
    elif moment == "joined":
        finish(store)
    assert traces(tmp_path, GONE)
    erased = store.erase("r1", GONE, (), FAR if moment == "joined" else NOW)
    assert erased.ids == 4
    assert [one.left for one in erased.layers] == [0] * len(erased.layers)
    found = {one.layer: one.found for one in erased.layers}
    assert (found["predictions"], found["outcomes"]) == (3, 3)
    assert found["segments"] == (6 if moment == "in segments" else 0)
    assert found["speed view"] == (0 if moment == "joined" else 6)
    assert traces(tmp_path, GONE) == []
    finish(store)
    assert stored_answer(store, "m", SPEC) == twin_answer(KEPT, SPEC)
    assert traces(tmp_path, GONE) == []


def test_an_erased_id_does_not_come_back(store: ParquetFactStore, tmp_path: Path) -> None:
    fill(store)
    store.erase("r1", GONE, (), NOW)
    append(store, "m", [*ROWS, *TRUTHS, STRAY], "again-")  # a replay under other batch ids
    store.append_outcomes("later", "m", "default", ipc(outcome_columns([Outcome(GONE[0], T0_US + HOUR_US, 0.0, 5)])))
    mixed = ipc(prediction_columns([ROWS[3], ROWS[4]]))  # type: ignore[list-item]
    assert store.append_predictions("mixed", "m", 2, mixed).rows == 2
    assert store._facts.erased_rows_dropped == 8
    finish(store)
    assert traces(tmp_path, GONE) == []
    assert stored_answer(store, "m", SPEC) == twin_answer(KEPT, SPEC)


def test_the_same_request_again_gives_the_same_answer(store: ParquetFactStore) -> None:
    fill(store)
    assert store.erase("r1", GONE, (), NOW) == store.erase("r1", GONE, (), FAR)


def test_what_is_not_there_is_erased_too(store: ParquetFactStore) -> None:
    fill(store)
    erased = store.erase("r1", [bytes(range(16))], ["nobody"], NOW)
    assert sum(one.found + one.left for one in erased.layers) == 0


def test_predictions_of_an_entity_are_erased(store: ParquetFactStore, tmp_path: Path) -> None:
    columns = prediction_columns(ROWS)  # type: ignore[arg-type]
    table = pa.table(columns).append_column("entity_id", pa.array([f"customer-{n % 4}" for n in range(16)]))
    store.append_predictions("p", "m", 1, ipc({name: table.column(name) for name in table.column_names}))
    append(store, "m", TRUTHS)
    erased = store.erase("r1", [], ["customer-3"], NOW)
    mine = [row.id for n, row in enumerate(ROWS) if n % 4 == 3]
    assert erased.ids == 4
    assert all(one.left == 0 for one in erased.layers)
    assert traces(tmp_path, mine) == []
    assert not any(b"customer-3" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("step", ["_convert", "_replace", "_from_memory", "_layers", "_scrub"])
@pytest.mark.parametrize("sealed", [False, True])
def test_an_interrupted_erasure_is_finished_after_a_restart(
    tmp_path: Path, step: str, sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ParquetFactStore(tmp_path)
    store.set_label("m", SPEC)
    fill(store)
    if sealed:
        store.tick(NOW, force=True)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Erasure, step, crash)
        with pytest.raises(KeyboardInterrupt):
            store.erase("r1", GONE, (), NOW)
    store.close()
    store = ParquetFactStore(tmp_path)
    assert store.resume_erasures(NOW) == ("r1",)
    assert store.resume_erasures(NOW) == ()
    again = store.erase("r1", GONE, (), NOW)
    assert all(one.left == 0 for one in again.layers)
    assert traces(tmp_path, GONE) == []
    finish(store)
    assert stored_answer(store, "m", SPEC) == twin_answer(KEPT, SPEC)
    store.close()


def test_tombstones_know_exactly_what_was_erased(store: ParquetFactStore) -> None:
    fill(store)
    store.erase("r1", GONE, (), NOW)
    raw = np.frombuffer(b"".join(row.id for row in ROWS), np.uint8).reshape(-1, 16)
    assert store._facts.tombstones.holds(id_columns(raw)).tolist() == [row.id in GONE for row in ROWS]
