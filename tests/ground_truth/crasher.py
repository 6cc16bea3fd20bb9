"""Dies at every step that touches a disk, one after the other: `python -m tests.ground_truth.crasher FOLDER EVERY`.

A scenario converts, joins, merges, drops and deletes. It is run in forks of this process, each of which kills itself
(SIGKILL) right after its n-th write, commit, transaction or deletion, n = 1, 1 + EVERY, ...; another fork then opens
what is left, does the scenario again (what was acknowledged is recognised) and compares with the twin. Prints the last
n, or what was wrong after which.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from control_plane.adapters.parquet.catalog import Catalog
from control_plane.adapters.parquet.compaction import FILES_MIN
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.segments import SegmentLog
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.adapters.parquet.tables import LocalPlace, Tables
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.tables import KINDS
from tests.ground_truth.arrows import HOUR_US, T0, T0_US, ipc, outcome_columns, outcomes_for, prediction_columns
from tests.ground_truth.arrows import some_predictions as some
from tests.ground_truth.joins import FAR, finish, stored_answer, twin_answer

SPEC = LabelSpec(window=timedelta(hours=6))
ROWS = some(36, spread_us=3 * HOUR_US)
OUTCOMES = outcomes_for(ROWS)
STEPS: tuple[tuple[type, str], ...] = (
    (LocalPlace, "write"),
    (LocalPlace, "delete"),
    (Tables, "commit"),
    (SegmentLog, "delete"),
)
STEPS_MAX = 500


class Steps:
    """Counts steps; at the last one the process is gone."""

    def __init__(self, last: int) -> None:
        self.done = 0
        self._last = last

    def one(self) -> None:
        """A step was done."""
        self.done += 1
        if self.done == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(self, owner: type, name: str) -> None:
        """Count the calls of a method as steps."""
        method: Callable[..., Any] = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            self.one()
            return result

        setattr(owner, name, counting)

    def counted_transactions(self) -> None:
        """Count the catalogue's transactions."""
        transaction = Catalog.transaction

        @contextmanager
        def counting(catalog: Catalog) -> Any:
            with transaction(catalog):
                yield
            self.one()

        Catalog.transaction = counting  # type: ignore[method-assign, assignment]


def scenario(folder: Path) -> ParquetFactStore:
    """Everything that happens to rows. Doing it again changes nothing."""
    store = ParquetFactStore(folder, StoreConfig(join_every=timedelta(hours=1), speed_window=timedelta(hours=2)))
    store.set_label("m", SPEC)
    store.append_predictions("p", "m", 1, ipc(prediction_columns(ROWS)))
    for number in range(FILES_MIN):
        store.append_outcomes(f"o{number}", "m", "", ipc(outcome_columns(OUTCOMES[number::FILES_MIN])))
        store._facts.log.close_segment()
        store.tick(T0 + timedelta(hours=4))
    finish(store)
    old = some(4, start_us=T0_US - 200 * 24 * HOUR_US, first=5000)
    store.append_predictions("old", "m", 2, ipc(prediction_columns(old)))
    finish(store)
    after = FAR + timedelta(hours=2)
    while store.tick(after).more:
        pass
    return store


def check(folder: Path) -> None:
    """Open what is left, do it all again, and compare."""
    store = scenario(folder)
    total = store.coverage("m", 1, T0 - timedelta(days=1), FAR, FAR).total
    assert (total.predicted, total.joined) == (len(ROWS), len(OUTCOMES)), total
    found, orphans = stored_answer(store, "m", SPEC)
    expected, _ = twin_answer([*ROWS, *OUTCOMES], SPEC)
    assert {key: hour for key, hour in found.items() if key[1] == 1} == expected
    assert orphans == 0
    tables = store._facts.tables
    for kind in KINDS:
        counted = {f"{kind}/{file.path}" for file in tables.files(kind)}
        listed = {path for (path,) in store._facts.catalog.db.execute("SELECT path FROM files WHERE kind = ?", (kind,))}
        assert counted == listed, kind
        rows = sum(file.rows for file in tables.files(kind))
        assert rows == 36, (kind, rows)
        on_disk = set(tables.place.paths(kind))
        waiting = {path for (path,) in store._facts.catalog.db.execute("SELECT path FROM forgotten")}
        assert on_disk - waiting == listed, (on_disk, listed)
    volume = store._facts.catalog.db.execute("SELECT sum(predictions) FROM volumes").fetchone()[0]
    assert volume == len(ROWS) + 4, volume
    store.close()


def forked(work: Callable[[], None]) -> int:
    """Run something in a fork; its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        work()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(1)
    os._exit(0)


def main() -> None:
    """All steps."""
    root, every = Path(sys.argv[1]), int(sys.argv[2])
    for last in range(1, STEPS_MAX, every):
        folder = root / str(last)

        def until_killed(last: int = last, folder: Path = folder) -> None:
            steps = Steps(last)
            for owner, name in (
                (LocalPlace, "write"),
                (Tables, "commit"),
                (LocalPlace, "delete"),
                (SegmentLog, "delete"),
            ):
                steps.counted(owner, name)
            steps.counted_transactions()
            scenario(folder).close()

        died = forked(until_killed)
        if died not in (0, signal.SIGKILL):
            sys.exit(f"step {last}: status {died}")
        if forked(lambda folder=folder: check(folder)):  # type: ignore[misc]
            sys.exit(f"wrong after step {last}")
        if died == 0:
            print(last - 1)
            return
    sys.exit("the scenario does not end")


if __name__ == "__main__":
    main()
