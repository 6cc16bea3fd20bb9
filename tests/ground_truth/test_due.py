"""Late outcomes of very many rows: a pass joins again what it has time for, and every hour gets its turn."""

from datetime import timedelta
from pathlib import Path

from control_plane.adapters.parquet.due import DueHours
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.ground_truth.labels import LabelSpec
from tests.ground_truth.arrows import HOUR_US, T0, ipc, outcome_columns, outcomes_for, prediction_columns
from tests.ground_truth.arrows import some_predictions as some
from tests.ground_truth.joins import append, stored_answer, twin_answer

HOUR = timedelta(hours=1)
HOURS = 6
SPEC = LabelSpec(window=timedelta(days=3))


def opened(root: Path) -> ParquetFactStore:
    """A store that lets go of hours after one, and joins ten rows of known hours in a pass, new ones besides."""
    store = ParquetFactStore(root, StoreConfig(join_every=HOUR, speed_window=HOUR))
    store.set_label("m", SPEC)
    store._maintenance._due = DueHours(store._facts, rejoined_rows_max=10)
    return store


def passed(store: ParquetFactStore, hour: int) -> int:
    """A pass that begins by itself; hours joined."""
    now = T0 + hour * HOUR
    report = store.tick(now)
    joined = report.joined_hours
    while report.more:
        report = store.tick(now)
        joined += report.joined_hours
    return joined


def test_new_hours_first_and_late_ones_in_turn(tmp_path: Path) -> None:
    store = opened(tmp_path)
    rows = some(HOURS * 4, spread_us=HOURS * HOUR_US)
    append(store, "m", rows)
    passed(store, 1)
    assert passed(store, HOURS + 2) == HOURS  # all are new: nothing waits
    late = outcomes_for(rows, delay_us=10 * HOUR_US)
    append(store, "m", late, prefix="late")
    new = some(20, start_us=rows[0].predicted_us + (HOURS + 1) * HOUR_US, first=500)
    store.append_predictions("new", "m", 1, ipc(prediction_columns(new)))
    assert passed(store, HOURS + 3 + 24) == 1 + 1  # the new hour, and of the six with eight rows each the first
    waiting = HOURS - 1
    for later in range(1, waiting + 1):
        report = store.coverage("m", None, T0, T0 + 9 * HOUR, T0 + timedelta(days=5), label_type="").total
        assert report.joined == 4 * later
        assert report.late == 4 * (HOURS - later) + 4 * later  # told as late, whether counted already or not
        assert passed(store, HOURS + 3 + 24 + later) == 1
    assert store.stats().due_hours == 0
    answer, _ = stored_answer(store, "m", SPEC)
    assert answer == twin_answer([*rows, *late, *new], SPEC)[0]
    store.close()


def test_a_pass_that_was_asked_for_leaves_nothing_out(tmp_path: Path) -> None:
    store = opened(tmp_path)
    rows = some(HOURS * 4, spread_us=HOURS * HOUR_US)
    append(store, "m", rows)
    passed(store, 1)
    passed(store, HOURS + 2)
    store.append_outcomes("late", "m", "", ipc(outcome_columns(outcomes_for(rows, delay_us=10 * HOUR_US))))
    report = store.join_partition(T0, T0 + HOURS * HOUR, T0 + timedelta(days=2))
    assert (report.hours_joined, report.joined) == (HOURS, HOURS * 4)
    assert store.stats().due_hours == 0
    store.close()
