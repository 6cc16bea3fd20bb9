"""kill -9 of the store fifty times, from outside at random and from inside between two steps of each kind.

After each: what was acknowledged is counted once, and nothing else is. In the end, with all of it sent again, both
layers say row for row what the dumb twin says.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from control_plane.adapters.parquet import conversion, segments
from tests.faults.history import MODELS, SPEC, Message, arrivals, distinct_predictions, history, send, submit
from tests.faults.victim import GROUPS, IN_FLIGHT, open_store, predicted
from tests.ground_truth.joins import finish, stored_answer, twin_answer

KILLS = int(os.environ.get("RUNWAY_FAULT_KILLS", "50"))
MESSAGES_BEFORE_KILL = 25

STEPS = [
    ("segments.SegmentLog.append", 5, "before"),
    ("segments.SegmentLog.append", 5, "after"),
    ("segments.SegmentLog.close_segment", 2, "after"),
    ("sealing._write_days", 1, "after"),
    ("conversion.seal", 1, "before"),
    ("conversion.seal", 1, "after"),
    ("tables.Tables.commit", 1, "before"),
    ("tables.Tables.commit", 1, "after"),
    ("tables.Tables.commit", 2, "after"),
    ("conversion.Conversion._enter_segment", 1, "before"),
    ("conversion.Conversion._enter_segment", 1, "after"),
    ("segments.SegmentLog.delete", 1, "before"),
    ("segments.SegmentLog.delete", 1, "after"),
    ("maintenance.Maintenance._expire", 1, "before"),
    ("maintenance.Maintenance._expire", 1, "after"),
    ("maintenance.Maintenance._store", 1, "before"),
    ("maintenance.Maintenance._store", 1, "after"),
    ("catalog.Catalog.add_file", 1, "after"),
    ("catalog.Catalog.set_meta", 1, "after"),
    ("store.recover", 1, "after"),
]
"""(step, which call of it, before or after): between any two of them lies something half done."""


class Lives:
    """The process that forks lives, and what the present one says."""

    def __init__(self, directory: Path, process: "subprocess.Popen[str]") -> None:
        self._directory, self._process = directory, process
        self.acknowledged = -1
        self.said: list[str] = []

    def line(self) -> str:
        """The next line, acknowledgements noted."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline().strip()
        assert text, self.said
        self.said.append(text)
        if text.startswith("ack "):
            self.acknowledged = int(text.split()[1])
        return text

    def counted(self) -> int | None:
        """What this life counts once it has recovered; None if it died of its step before."""
        text = self.line()
        return int(text.split()[1]) if text.startswith("ready") else None

    def begin(self, die_at: tuple[str, int, str] | None = None) -> int:
        """Fork a life that goes on behind the last acknowledgement; its pid."""
        assert self._process.stdin is not None
        self.said.clear()
        order = {"directory": str(self._directory), "first": self.acknowledged + 1, "die_at": die_at}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self.line().removeprefix("pid "))

    def end(self) -> int:
        """Read to the end of this life; its exit code."""
        while not self.said[-1].startswith("ended"):
            self.line()
        return int(self.said[-1].split()[1])


@contextmanager
def lives(directory: Path) -> Iterator[Lives]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.victim"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        found = Lives(directory, process)
        assert found.line() == "warm"
        yield found
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(autouse=True)
def own_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`open_store` makes everything small, in this process too: other tests must not feel it."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES_MAX", segments.SEGMENT_BYTES_MAX)
    monkeypatch.setattr(conversion, "SEALED_BYTES_MAX", conversion.SEALED_BYTES_MAX)


def bounds(messages: list[Message], acknowledged: int) -> tuple[int, int]:
    """Fewest and most predictions that may be counted: what was under way may be there."""
    return (
        distinct_predictions(messages[: acknowledged + 1]),
        distinct_predictions(messages[: acknowledged + 1 + IN_FLIGHT]),
    )


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_fifty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    messages, rng = history(GROUPS), np.random.default_rng(11)
    hit: set[tuple[str, int, str]] = set()
    furthest = -1
    with lives(tmp_path) as victim:
        for kill in count():
            if kill == KILLS:
                break
            step = STEPS[kill // 2 % len(STEPS)] if kill % 2 else None
            pid = victim.begin(step)
            now = victim.counted()
            if now is not None or step is None:
                low, high = bounds(messages, furthest)
                assert now is not None and low <= now <= high, (kill, step, now)
            if step is None:
                for _ in range(int(rng.integers(0, MESSAGES_BEFORE_KILL))):
                    if victim.line() == "done":
                        break
                os.kill(pid, signal.SIGKILL)
            code = victim.end()
            assert code == -signal.SIGKILL or (code == 0 and "done" in victim.said), (kill, step, victim.said[-5:])
            hit |= {step} if step is not None and code else set()
            furthest = max(furthest, victim.acknowledged)
            if victim.acknowledged > len(messages) - 3 * MESSAGES_BEFORE_KILL:
                victim.acknowledged = -1  # all of it again: nothing of it may count twice
    assert len(hit) >= min(len(STEPS), KILLS // 2) - 2  # a step may not be reached when there is nothing left to do
    agree(tmp_path, messages)


def agree(directory: Path, messages: list[Message]) -> None:
    """Send everything again, then hold both layers against the twin."""
    store = open_store(directory)
    for receipt in [submit(store, message) for message in messages]:
        receipt.result()
    assert predicted(store) == distinct_predictions(messages)
    for message in messages[:: len(messages) // 20]:
        assert send(store, message).duplicate, message.batch_id
    finish(store)
    for model_id in MODELS:
        assert stored_answer(store, model_id, SPEC) == twin_answer(arrivals(messages, model_id), SPEC), model_id
    store.close()
