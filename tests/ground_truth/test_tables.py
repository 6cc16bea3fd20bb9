"""The Delta tables, on local disk and in a bucket: the same answers, whatever happens to files, log and catalogue."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from control_plane.adapters.parquet.compaction import FILES_MIN
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.retention import GRACE
from control_plane.adapters.parquet.sealing import DAYS_MAX
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.adapters.parquet.tables import TableFile, Tables, place_of, storage_options
from control_plane.core.errors import Unavailable
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.tables import COLUMNS
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
from tests.ground_truth.joins import FAR, Arrival, append, finish, stored_answer, twin_answer
from tests.ground_truth.objects import object_store
from tests.reference.join import Outcome, Prediction

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SPEC = LabelSpec(window=timedelta(days=3))


@pytest.fixture(params=["local", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the tables are."""
    if request.param == "local":
        yield str(tmp_path / "elsewhere")
    else:
        with object_store(monkeypatch) as bucket:
            yield f"{bucket}/runway"


def opened(root: Path, url: str, *, keep: timedelta = timedelta(days=100)) -> ParquetFactStore:
    """A store with its tables at a url; segments and catalogue stay local."""
    store = ParquetFactStore(root / "facts", StoreConfig(join_every=timedelta(days=1000), tables_url=url, keep=keep))
    store.set_label("m", SPEC)
    return store


def delta(url: str, kind: str) -> DeltaTable:
    """A table as another engine opens it."""
    return DeltaTable(f"{url}/{kind}", storage_options=storage_options(url))


def history() -> list[Arrival]:
    """Two days of predictions; outcomes first and last, twice, corrected, outside the window, and an orphan."""
    rows = some_predictions(60, spread_us=48 * HOUR_US)
    outcomes = outcomes_for(rows, delay_us=30 * HOUR_US)
    corrected = [Outcome(one.id, one.observed_us + 1, 1 - one.value, 1) for one in outcomes[::7]]
    outside = [Outcome(rows[5].id, rows[5].predicted_us + SPEC.window_us + 1, 1.0, 2)]
    orphan = [Outcome(prediction_id(T0_US, 999), T0_US + 5, 1.0, 0)]
    return [*outcomes[:20], *rows, *rows[:5], *outcomes[20:50], *corrected, *outside, *orphan, *outcomes[10:30]]


def expected(arrivals: list[Arrival]) -> object:
    """What the twin says."""
    return twin_answer(arrivals, SPEC)


def test_answers_are_the_twins_wherever_the_tables_are(tmp_path: Path, url: str) -> None:
    arrivals = history()
    store = opened(tmp_path, url)
    for first in range(0, len(arrivals), 40):
        append(store, "m", arrivals[first : first + 40], prefix=f"{first}-")
        finish(store)
    assert stored_answer(store, "m", SPEC) == expected(arrivals)
    store.close()
    store = opened(tmp_path, url)
    assert stored_answer(store, "m", SPEC) == expected(arrivals)
    late = outcomes_for([row for row in arrivals if isinstance(row, Prediction)][50:60], delay_us=31 * HOUR_US)
    append(store, "m", late, prefix="late-")
    finish(store)
    assert stored_answer(store, "m", SPEC) == expected([*arrivals, *late])
    store.close()
    predictions = sum(isinstance(row, Prediction) for row in arrivals)
    found = delta(url, "predictions").to_pyarrow_table()
    assert found.num_rows == predictions
    assert set(found.column("day").to_pylist()) == {date(2013, 3, 1), date(2013, 3, 2)}
    assert delta(url, "outcomes").to_pyarrow_table().num_rows == len(arrivals) + len(late) - predictions
    assert found.column_names == [name for name, _ in COLUMNS["predictions"]]


def test_a_segment_is_committed_once(tmp_path: Path, url: str) -> None:
    tables = Tables(place_of(url, cache=tmp_path / "cache"))
    assert tables.files("predictions") == []
    file = TableFile(path="day=2013-03-01/a.parquet", day=date(2013, 3, 1), rows=3, size=10)
    assert tables.commit("predictions", [file], segment=7)
    assert not tables.commit("predictions", [file], segment=7)
    again = Tables(place_of(url, cache=tmp_path / "cache"))
    assert not again.commit("predictions", [file], segment=6)
    assert again.committed("predictions") == 7
    assert again.committed("outcomes") == 0
    assert again.files("predictions") == [file]
    other = TableFile(path="day=2013-03-02/b.parquet", day=date(2013, 3, 2), rows=1, size=5)
    assert again.commit("predictions", [other], removed=[file])
    assert tables.files("predictions") == [other]
    tables.checkpoint("predictions")
    assert again.commit("predictions", [file], segment=8)
    assert tables.files("predictions") == [file, other]
    assert tables.committed("predictions") == 8


def trickled(store: ParquetFactStore, rows: list[Prediction]) -> list[Outcome]:
    """Outcomes of one day, a few in each conversion."""
    outcomes = outcomes_for(rows)
    for number in range(FILES_MIN + 1):
        store.append_outcomes(f"o{number}", "m", "", ipc(outcome_columns(outcomes[number :: FILES_MIN + 1])))
        store._facts.log.close_segment()
        store.tick(T0 + DAY)
    return outcomes


def test_small_files_of_a_past_day_become_one(tmp_path: Path, url: str) -> None:
    rows = some_predictions(90)
    store = opened(tmp_path, url)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    outcomes = trickled(store, rows)
    before = delta(url, "outcomes")
    assert len(before.file_uris()) == FILES_MIN + 1
    finish(store)
    after = delta(url, "outcomes")
    assert len(after.file_uris()) == 1
    assert stored_answer(store, "m", SPEC) == expected([*rows, *outcomes])
    assert before.to_pyarrow_table().num_rows == 90  # whoever opened the table before still reads it
    merged = after.to_pyarrow_table()
    assert merged.num_rows == 90
    hours = merged.select(["model_id", "hour", "bucket"]).to_pylist()
    assert hours == sorted(hours, key=lambda row: tuple(row.values()))
    correction = Outcome(rows[3].id, rows[3].predicted_us + 5, 1.0, 9)
    append(store, "m", [correction], prefix="c")
    report = store.tick(FAR + GRACE + HOUR, force=True)
    while report.more:
        report = store.tick(FAR + GRACE + HOUR)
    assert len(store._facts.tables.place.paths("outcomes")) == 2  # merged, and that of the correction
    assert stored_answer(store, "m", SPEC) == expected([*rows, *outcomes, correction])
    store.close()
    store = opened(tmp_path, url)
    finish(store)
    assert stored_answer(store, "m", SPEC) == expected([*rows, *outcomes, correction])
    store.close()


def test_whole_days_go_when_their_time_is_over(tmp_path: Path, url: str) -> None:
    store = opened(tmp_path, url, keep=timedelta(days=5))
    old, new = some_predictions(10), some_predictions(10, start_us=T0_US + 4 * 24 * HOUR_US, first=100)
    strange = [Outcome(b"not a time: %04d" % number, T0_US + 4 * 24 * HOUR_US, 1.0) for number in range(3)]
    append(store, "m", [*old, *outcomes_for(old), *new, *strange])
    now = T0 + timedelta(days=5, hours=12)
    report = store.tick(now, force=True)
    while report.more:
        report = store.tick(now)
    assert delta(url, "predictions").to_pyarrow_table().num_rows == 20  # the day is five days old when it has ended
    now += DAY
    report = store.tick(now, force=True)
    while report.more:
        report = store.tick(now)
    dropped = report.deleted_files
    assert dropped == 2
    assert delta(url, "predictions").to_pyarrow_table().num_rows == 10
    assert delta(url, "outcomes").to_pyarrow_table().num_rows == 3  # ids without a time are kept by when they were seen
    assert store.performance("m", None, T0, FAR, now).total.partial.of("joined") == 10  # what was counted stays
    store.tick(now + GRACE, force=True)
    assert len(store._facts.tables.place.paths("predictions")) == 1
    store.close()


def test_a_lost_catalogue_is_made_anew(tmp_path: Path, url: str) -> None:
    arrivals = history()
    store = opened(tmp_path, url)
    append(store, "m", arrivals)
    finish(store)
    answer = stored_answer(store, "m", SPEC)
    store.close()
    for path in (tmp_path / "facts").glob("catalog.sqlite*"):
        path.unlink()
    store = opened(tmp_path, url)
    finish(store)
    assert stored_answer(store, "m", SPEC) == answer
    more = some_predictions(5, first=500)
    append(store, "m", more, prefix="more")  # its segments have new numbers, so that no commit is taken for done
    finish(store)
    assert stored_answer(store, "m", SPEC) == expected([*arrivals, *more])
    store.close()


def test_tables_of_another_store_are_refused(tmp_path: Path) -> None:
    store = opened(tmp_path, str(tmp_path / "a"))
    append(store, "m", history())
    finish(store)
    store.close()
    with pytest.raises(Unavailable, match="set the url under which they were written"):
        opened(tmp_path, str(tmp_path / "b"))


def test_an_older_table_gets_new_columns_and_keeps_those_of_others(tmp_path: Path) -> None:
    """A table without entity_id and source is read, appended to and merged; a column that somebody else added stays."""
    url = str(tmp_path / "tables")
    store = opened(tmp_path, url)
    rows = some_predictions(40)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    outcomes = outcomes_for(rows)
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes)))
    finish(store)
    store.close()
    older = _without(url, "predictions", {"entity_id", "source"})
    older.alter.add_columns([Field("their_note", PrimitiveType("string"), nullable=True)])
    store = opened(tmp_path, url)
    for number in range(FILES_MIN):
        some = some_predictions(5, first=1000 + 10 * number)
        rows += some
        columns = prediction_columns(some) | {"entity_id": pa.array([f"e{number}"] * 5)}
        store.append_predictions(f"n{number}", "m", 1, ipc(columns))
        store._facts.log.close_segment()
        store.tick(T0 + DAY)
    finish(store)
    assert stored_answer(store, "m", SPEC) == expected([*rows, *outcomes])
    table = delta(url, "predictions")
    assert len(table.file_uris()) == 1
    found = table.to_pyarrow_table()
    assert found.num_rows == len(rows)
    assert found.column("entity_id").null_count == 40
    assert {"their_note", "entity_id", "source"} <= set(found.column_names)
    store.close()


def _without(url: str, kind: str, columns: set[str]) -> DeltaTable:
    """Write a table's log and files as a version without some columns had left them."""
    table = delta(url, kind)
    (file,) = [Path(uri.removeprefix("file://")) for uri in table.file_uris()]
    kept = pq.read_table(file, partitioning=None).drop_columns(sorted(columns))
    pq.write_table(kept, file)
    log = Path(url) / kind / "_delta_log" / f"{0:020d}.json"
    text = log.read_text()
    for name in columns:
        field = f'{{\\"name\\":\\"{name}\\",\\"type\\":\\"string\\",\\"nullable\\":true,\\"metadata\\":{{}}}},'
        assert field in text
        text = text.replace(field, "")
    log.write_text(text)
    return delta(url, kind)


def test_nonsense_instants_do_not_make_a_thousand_folders(tmp_path: Path) -> None:
    url = str(tmp_path / "tables")
    store = opened(tmp_path, url)
    rows = [
        Prediction(prediction_id(T0_US + day * 24 * HOUR_US, day), T0_US + day * 24 * HOUR_US, 0.25)
        for day in range(-200, 0)
    ]
    rows += some_predictions(20)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(rows)))
    store.append_outcomes("o", "m", "", ipc(outcome_columns(outcomes_for(rows))))
    store._facts.log.close_segment()
    store.tick(T0)
    days = set(delta(url, "predictions").to_pyarrow_table().column("day").to_pylist())
    assert len(days) == DAYS_MAX
    assert {date(1970, 1, 1), date(2013, 3, 1)} <= days
    finish(store)
    total = store.coverage("m", None, T0 - timedelta(days=300), FAR, FAR).total
    assert (total.predicted, total.joined) == (220, 220)
    store.close()


def test_rows_come_in_row_groups_that_a_reader_can_skip(tmp_path: Path) -> None:
    """Many models in one file, ordered by model and hour; statistics say which row group holds what."""
    url = str(tmp_path / "tables")
    store = opened(tmp_path, url)
    rng = np.random.default_rng(1)
    for number, model in enumerate(rng.permutation(12).tolist()):
        store.append_predictions(
            str(number), f"m{model}", 1, ipc(prediction_columns(some_predictions(30, spread_us=3 * HOUR_US)))
        )
    finish(store)
    (uri,) = delta(url, "predictions").file_uris()
    table = pq.read_table(Path(uri.removeprefix("file://")), partitioning=None)
    keys = list(zip(table.column("model_id").to_pylist(), table.column("hour").to_pylist(), strict=True))
    assert keys == sorted(keys)
    group = pq.read_metadata(Path(uri.removeprefix("file://"))).row_group(0)
    with_statistics = {
        group.column(at).path_in_schema for at in range(group.num_columns) if group.column(at).statistics is not None
    }
    assert with_statistics == {"model_id", "hour", "bucket"}
    store.close()
