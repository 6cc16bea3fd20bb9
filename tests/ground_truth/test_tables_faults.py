"""Crashes between any two steps, and a full disk: nothing acknowledged is lost, nothing is counted twice."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.errors import Unavailable
from control_plane.core.ground_truth.labels import LabelSpec
from tests.ground_truth.arrows import HOUR_US, T0, T0_US, ipc, outcome_columns, outcomes_for, prediction_columns
from tests.ground_truth.arrows import some_predictions as some
from tests.ground_truth.joins import FAR, append, finish, stored_answer, twin_answer

CRASHES_EVERY = int(os.environ.get("RUNWAY_CRASHES_EVERY", "8"))
"""All ninety steps take minutes: 1 tries each."""
DISK_MIB = 12
BALLAST_MIB = 7
ROWS = 2_000
BATCHES_MAX = 500
FILE_BYTES = 2_000
SPEC = LabelSpec(window=timedelta(hours=6))


@pytest.mark.slow
def test_killed_between_any_two_steps(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.ground_truth.crasher", str(tmp_path), str(CRASHES_EVERY)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 60


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes, most of them taken by a file `ballast`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a file system takes root; the test of the file size limit stands in")
    try:
        (disk / "ballast").write_bytes(bytes(BALLAST_MIB * 2**20))
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(store: ParquetFactStore) -> tuple[int, int]:
    """Append and tick until the disk is full; acknowledged batches of predictions and of outcomes."""
    predictions = outcomes = 0
    refused = 0
    for number in range(BATCHES_MAX):
        rows = some(ROWS, start_us=T0_US + number * HOUR_US, first=ROWS * number)
        try:
            store.append_predictions(f"p{number}", "m", 1, ipc(prediction_columns(rows)))
            predictions = number + 1
            store.append_outcomes(f"o{number}", "m", "", ipc(outcome_columns(outcomes_for(rows))))
            outcomes = number + 1
            store._facts.log.close_segment()
            store.tick(T0 + timedelta(hours=number), force=number % 3 == 0)
        except Unavailable:
            refused += 1
            if refused > 3:
                return predictions, outcomes
    raise AssertionError("the disk is never full")


def check(store: ParquetFactStore, predictions: int, outcomes: int) -> None:
    """Exactly what was acknowledged is there; what was refused can be sent again."""
    for _ in range(2):
        total = store.coverage("m", None, T0 - timedelta(days=1), FAR, FAR).total
        assert (total.predicted, total.joined) == (predictions * ROWS, outcomes * ROWS)
        finish(store)


def opened(folder: Path) -> ParquetFactStore:
    store = ParquetFactStore(folder, StoreConfig(join_every=timedelta(hours=1), speed_window=timedelta(hours=2)))
    store.set_label("m", SPEC)
    return store


@pytest.mark.parametrize("restarted", [False, True], ids=["goes on", "restarted"])
def test_a_full_disk_refuses_and_loses_nothing(small_disk: Path, restarted: bool) -> None:
    store = opened(small_disk / "facts")
    predictions, outcomes = fill(store)
    assert predictions > 3
    (small_disk / "ballast").unlink()
    if restarted:
        store.close()
        store = opened(small_disk / "facts")
    known = {
        "p": [n for n in range(predictions) if _again(store, "p", n)],
        "o": [n for n in range(outcomes) if _again(store, "o", n)],
    }
    assert known["p"][-1] == predictions - 1
    check(store, predictions, outcomes)
    store.close()


def _again(store: ParquetFactStore, kind: str, number: int) -> bool:
    """Send a batch again: whether it was there, as it was acknowledged (or never was, and is now)."""
    rows = some(ROWS, start_us=T0_US + number * HOUR_US, first=ROWS * number)
    if kind == "p":
        return store.append_predictions(f"p{number}", "m", 1, ipc(prediction_columns(rows))).duplicate
    return store.append_outcomes(f"o{number}", "m", "", ipc(outcome_columns(outcomes_for(rows)))).duplicate


def test_writes_cut_short_are_taken_back(tmp_path: Path) -> None:
    """A limit of the size of files stands in for a full disk where nothing can be mounted."""
    store = opened(tmp_path)
    small, large = some(50), some(ROWS, start_us=T0_US + HOUR_US, first=1000)
    append(store, "m", [*small, *outcomes_for(small)])
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, unlimited[1]))
    try:
        with pytest.raises(Unavailable):
            store.append_predictions("large", "m", 1, ipc(prediction_columns(large)))
        for _ in range(3):
            with pytest.raises(Unavailable):
                store.tick(FAR, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not store.append_predictions("large", "m", 1, ipc(prediction_columns(large))).duplicate
    finish(store)
    assert stored_answer(store, "m", SPEC) == twin_answer([*small, *outcomes_for(small), *large], SPEC)
    store.close()


def test_a_torn_last_segment_is_cut_off(tmp_path: Path) -> None:
    """Bytes that were never acknowledged: half a record at the end, as a power cut leaves it."""
    rows = some(40)
    store = opened(tmp_path)
    append(store, "m", [*rows, *outcomes_for(rows)])
    path = store._facts.log.path(store._facts.log.number)
    store.close()
    whole = path.read_bytes()
    for torn in (whole[:50], b"RWS1" + bytes(40), b"\0" * 4096):
        path.write_bytes(whole + torn)
        store = opened(tmp_path)
        total = store.coverage("m", None, T0 - timedelta(days=1), FAR, FAR).total
        assert (total.predicted, total.joined) == (40, 40)
        store.close()
        assert path.read_bytes() == whole
    store = opened(tmp_path)
    finish(store)
    assert stored_answer(store, "m", SPEC) == twin_answer([*rows, *outcomes_for(rows)], SPEC)
    store.close()
