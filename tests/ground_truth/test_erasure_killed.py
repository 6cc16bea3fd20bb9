"""An erasure whose process is killed after any of its steps is finished at the next start, and leaves no byte."""

import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.adapters.parquet.store import ParquetFactStore
from tests.ground_truth.joins import finish, stored_answer, twin_answer
from tests.ground_truth.test_erasure import GONE, KEPT, NOW, SPEC, traces

STEPS_MAX = 200
STRIDE = 4
"""Every fourth step: each is a start of the interpreter."""


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 3])
def test_a_killed_erasure_is_finished_at_the_next_start(tmp_path: Path, first: int) -> None:
    interrupted = 0
    for step in range(first, STEPS_MAX, STRIDE):
        root = tmp_path / str(step)
        command = [sys.executable, "-m", "tests.ground_truth.eraser", str(root), str(step)]
        killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert killed.returncode == -9, killed.stderr
        store = ParquetFactStore(root)
        interrupted += store.resume_erasures(NOW) == ("r1",)
        again = store.erase("r1", GONE, (), NOW)
        assert all(one.left == 0 for one in again.layers), step
        assert traces(root, GONE) == [], step
        finish(store)
        assert stored_answer(store, "m", SPEC) == twin_answer(KEPT, SPEC), step
        store.close()
        if "done" in killed.stdout:
            break
    else:
        raise AssertionError("it never comes to its end")
    assert interrupted > 3
