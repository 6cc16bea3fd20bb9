"""kill -9 at any point: nothing acknowledged is lost, nothing is counted twice."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.ground_truth.appender import COUNTS, MODEL, ROWS, open_store, predictions_of, send, send_histogram
from tests.ground_truth.arrows import T0
from tests.ground_truth.counting import current
from tests.ground_truth.joins import FAR, finish

KILLS = 8
BATCHES_BEFORE_KILL = 15


@pytest.mark.slow
def test_killed_while_appending_sealing_and_joining(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    acknowledged = -1
    for _ in range(KILLS):
        command = [sys.executable, "-m", "tests.ground_truth.appender", str(tmp_path), str(acknowledged + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(int(rng.integers(1, BATCHES_BEFORE_KILL))):
                acknowledged = int(process.stdout.readline())
            process.kill()
            for line in process.stdout:  # acknowledged before the kill, read after it
                if line.endswith("\n"):
                    acknowledged = int(line)
    store = open_store(tmp_path)
    for number in range(acknowledged + 1):
        assert send(store, number) == (True, True), number
        assert send_histogram(store, number), number
    send(store, acknowledged + 1)  # perhaps stored, perhaps not; now it is
    send_histogram(store, acknowledged + 1)
    batches = acknowledged + 2
    for _ in range(2):
        total = store.coverage(MODEL, None, T0 - timedelta(days=1), FAR, FAR).total
        assert (total.predicted, total.joined, total.orphans) == (batches * ROWS, batches * ROWS, 0)
        evidence = store.evidence(MODEL, 1, T0 - timedelta(days=1), FAR, FAR)
        assert evidence.predictions == batches * (ROWS + sum(COUNTS))
        assert current(evidence, "temp") == [batches * count for count in COUNTS]
        parts = {part.name: part.predictions for part in evidence.slices}
        assert parts == {"part=p0": batches * ROWS / 2, "part=p1": batches * ROWS / 2}
        assert evidence.prediction is not None
        assert evidence.prediction.current.sum() == batches * ROWS
        finish(store)
    performance = store.performance(MODEL, None, T0 - timedelta(days=1), FAR, FAR).total
    scores = sum(row.score >= 0.5 for number in range(batches) for row in predictions_of(number))
    assert performance.partial.of("true_positive") + performance.partial.of("false_positive") == scores
    assert performance.layer == "batch"
    store.close()
