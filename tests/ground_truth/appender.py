"""A process that appends batches in a loop until it is killed: `python -m tests.ground_truth.appender DIR FIRST`.

Prints the number of each batch once it is acknowledged, with the hour that a producer counted for it. Ticks run beside
it, so that a kill lands in appending, counting, sealing and joining alike.
"""

import sys
import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.ground_truth.labels import LabelSpec
from tests.ground_truth.arrows import (
    HOUR_US,
    T0,
    T0_US,
    ipc,
    outcome_columns,
    outcomes_for,
    prediction_columns,
    some_predictions,
)
from tests.ground_truth.counting import profile_json, sent
from tests.reference.join import Prediction

MODEL = "m"
ROWS = 20
SPEC = LabelSpec(window=timedelta(hours=6))
BATCHES_PER_HOUR = 4
COUNTS = (1, 2, 3, 4, 5)


def predictions_of(number: int) -> list[Prediction]:
    """The predictions of a batch."""
    return some_predictions(ROWS, start_us=T0_US + number // BATCHES_PER_HOUR * HOUR_US, first=100 * number)


def send(store: ParquetFactStore, number: int) -> tuple[bool, bool]:
    """Append a batch of predictions and all its outcomes; whether each was there before."""
    rows = predictions_of(number)
    columns = prediction_columns(rows) | {"slice.part": pa.array([f"p{row % 2}" for row in range(ROWS)])}
    predictions = store.append_predictions(f"b{number}", MODEL, 1, ipc(columns))
    outcomes = store.append_outcomes(f"b{number}", MODEL, "", ipc(outcome_columns(outcomes_for(rows))))
    return predictions.duplicate, outcomes.duplicate


def send_histogram(store: ParquetFactStore, number: int) -> bool:
    """Send an hour that a producer counted; whether it was there before."""
    hour = T0 + timedelta(hours=number // BATCHES_PER_HOUR)
    return sent(
        store, f"h{number}", hour, model_id=MODEL, producer=f"p{number % BATCHES_PER_HOUR}", temp=COUNTS
    ).duplicate


def open_store(directory: Path) -> ParquetFactStore:
    """The store under test."""
    store = ParquetFactStore(directory, StoreConfig(join_every=timedelta(hours=1), speed_window=timedelta(hours=3)))
    store.set_label(MODEL, SPEC)
    store.set_reference(MODEL, 1, store.put_profile(profile_json()))
    return store


def main() -> None:
    """Append until killed."""
    directory, first = Path(sys.argv[1]), int(sys.argv[2])
    store = open_store(directory)
    reached = first

    def keep_ticking() -> None:
        while True:
            store.tick(T0 + timedelta(hours=reached // BATCHES_PER_HOUR))

    threading.Thread(target=keep_ticking, daemon=True).start()
    while True:
        send(store, reached)
        send_histogram(store, reached)
        print(reached, flush=True)
        reached += 1


if __name__ == "__main__":
    main()
