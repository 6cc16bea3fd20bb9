"""Processes that send a history to a store until they are killed: `python -m tests.faults.victim`.

Importing takes a second, and fifty lives would take fifty: this process imports once, starts no thread, and forks a
life for each line on its input, as `{"directory": ..., "first": 12, "die_at": ["tables.Tables.commit", 1, "after"]}`. A
life prints `ready PREDICTED` once it has recovered, and `ack N` for each message; its parent prints `pid P` and `ended
CODE`.

Ticks run beside the sending, with segments and windows so small that expiring, sealing and joining are always under
way. `die_at` names a step of the store, and before or after which call of it the life ends itself by SIGKILL: the
moments between two steps are too short for a kill from outside to hit.
"""

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections import deque
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

from control_plane.adapters.parquet import conversion, segments
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.app.fact_reports import Receipt
from tests.faults.history import MODELS, SPEC, history, submit
from tests.ground_truth.arrows import T0
from tests.ground_truth.joins import FAR

GROUPS = 160
IN_FLIGHT = 4
SEGMENT_BYTES_MAX = 8_000
TICK_S = 0.003
MESSAGES_PER_HOUR = 40
"""About as fast as the history's own clock."""


def open_store(directory: Path) -> ParquetFactStore:
    """The store under test, with everything small."""
    segments.SEGMENT_BYTES_MAX = SEGMENT_BYTES_MAX
    conversion.SEALED_BYTES_MAX = 2 * SEGMENT_BYTES_MAX
    store = ParquetFactStore(
        directory,
        StoreConfig(join_every=timedelta(minutes=20), speed_window=timedelta(hours=2), keep=timedelta(days=99)),
    )
    for model_id in MODELS:
        store.set_label(model_id, SPEC)
    return store


def predicted(store: ParquetFactStore) -> int:
    """Predictions that the store counts, of all models."""
    return sum(store.coverage(model_id, None, T0 - timedelta(days=1), FAR, FAR).total.predicted for model_id in MODELS)


def die_at(where: str, calls: int, when: str) -> None:
    """End this process at the n-th call of a function of the store, before it begins or after it returned."""
    module_name, _, path = where.partition(".")
    owner: Any = importlib.import_module(f"control_plane.adapters.parquet.{module_name}")
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real, left = getattr(owner, name), calls

    def mortal(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*arguments, **named)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, name, mortal)


def live(directory: Path, first: int, death: "tuple[str, int, str] | None") -> None:
    """One life."""
    messages = history(GROUPS)
    if death is not None:
        die_at(*death)
    store = open_store(directory)
    _say(f"ready {predicted(store)}")
    reached = first

    def keep_ticking() -> None:
        pause = threading.Event()
        while not pause.wait(TICK_S):
            store.tick(T0 + timedelta(hours=reached / MESSAGES_PER_HOUR))

    threading.Thread(target=keep_ticking, daemon=True).start()
    under_way: deque[tuple[int, Future[Receipt]]] = deque()
    for number in range(first, len(messages)):
        under_way.append((number, submit(store, messages[number])))
        if len(under_way) >= IN_FLIGHT:
            reached, receipt = under_way.popleft()
            receipt.result()
            _say(f"ack {reached}")
    for reached, receipt in under_way:
        receipt.result()
        _say(f"ack {reached}")
    _say("done")


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def main() -> None:
    """Fork a life for each line."""
    _say("warm")
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                live(Path(order["directory"]), int(order["first"]), order.get("die_at"))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(70)
        _say(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        _say(f"ended {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
