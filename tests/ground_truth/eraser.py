"""Erases until it is killed: `python -m tests.ground_truth.eraser FOLDER STEPS` kills itself (SIGKILL) right after its
n-th write, commit, deletion or transaction of an erasure."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from control_plane.adapters.parquet.catalog import Catalog
from control_plane.adapters.parquet.segments import SegmentLog
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.adapters.parquet.tables import LocalPlace, Tables
from tests.ground_truth.test_erasure import GONE, NOW, SPEC, fill

STEPS: tuple[tuple[type, str], ...] = (
    (LocalPlace, "write"),
    (LocalPlace, "delete"),
    (Tables, "commit"),
    (SegmentLog, "delete"),
)


def main() -> None:
    """Prints `done` if it came to its end before."""
    store = ParquetFactStore(Path(sys.argv[1]))
    store.set_label("m", SPEC)
    fill(store)
    store.tick(NOW, force=True)
    left = int(sys.argv[2])

    def stepped() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    for of, name in STEPS:
        real = getattr(of, name)

        def after(*given: Any, real: Any = real, **named: Any) -> Any:
            answer = real(*given, **named)
            stepped()
            return answer

        setattr(of, name, after)
    transaction = Catalog.transaction

    @contextmanager
    def counted(catalog: Catalog) -> Iterator[None]:
        with transaction(catalog):
            yield
        stepped()

    Catalog.transaction = counted  # type: ignore[method-assign,assignment]
    store.erase("r1", GONE, (), NOW)
    print("done", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
