"""What serving systems send on a bad day, the same each time: duplicates, strays, corrections, in no order.

A `Message` is one batch. Of the predictions of a batch some came in an earlier one already; their outcomes come before
them, with them, after them, twice under one batch id and once more under another, corrected, outside of the window, or
never; and some outcomes are of predictions that nobody made, or of another model's.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np

from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.app.fact_reports import Receipt
from control_plane.core.ground_truth.labels import LabelSpec
from tests.ground_truth.arrows import HOUR_US, T0_US, ipc, outcome_columns, prediction_columns, prediction_id
from tests.reference.join import Arrival, Outcome, Prediction

MODELS = ("clicks", "loans")
SPEC = LabelSpec(window=timedelta(hours=6))
ROWS = 6
GROUPS_PER_HOUR = 3
SHUFFLED_OVER = 5
"""A message arrives at most so many places from where it belongs."""


@dataclass(frozen=True)
class Message:
    """One batch of one model."""

    kind: Literal["predictions", "outcomes"]
    batch_id: str
    model_id: str
    rows: tuple[Arrival, ...]


def history(groups: int, seed: int = 5) -> list[Message]:
    """The messages of so many groups of predictions, in the order in which they arrive."""
    rng = np.random.default_rng(seed)
    sent: list[tuple[float, Message]] = []
    for model_id in MODELS:
        before: list[Prediction] = []
        for group in range(groups):
            rows = _predictions(model_id, group)
            shown = [*rows, *before[-2:]]  # two were sent before
            sent += _told(rng, model_id, group, rows, shown)
            before = rows
    sent.sort(key=lambda one: one[0])
    return [message for _, message in sent]


def _predictions(model_id: str, group: int) -> list[Prediction]:
    start_us = T0_US + group // GROUPS_PER_HOUR * HOUR_US
    first = 1_000_000 * (1 + MODELS.index(model_id)) + group * ROWS
    return [
        Prediction(prediction_id(start_us + 1000 * row, first + row), start_us + 1000 * row, (first + row) * 0.618 % 1)
        for row in range(ROWS)
    ]


def _told(
    rng: np.random.Generator, model_id: str, group: int, rows: list[Prediction], shown: Sequence[Prediction]
) -> list[tuple[float, Message]]:
    """(when, message) of a group and all that is ever said of it."""

    def at() -> float:
        return group + float(rng.uniform(0, SHUFFLED_OVER))

    value = {row.id: float(row.score > 0.5) for row in rows}
    first = [Outcome(row.id, row.predicted_us + HOUR_US, value[row.id]) for row in rows[:4]]
    corrected = [Outcome(row.id, row.predicted_us + 2 * HOUR_US, 1 - value[row.id], 1) for row in rows[:1]]
    edge = [
        Outcome(rows[4].id, rows[4].predicted_us + SPEC.window_us, 1.0),  # the last microsecond that counts
        Outcome(rows[5].id, rows[5].predicted_us + SPEC.window_us + 1, 1.0),  # one too many
    ]
    stray = [Outcome(prediction_id(rows[0].predicted_us, 77_000_000 + group), rows[0].predicted_us, 1.0)]
    other = MODELS[1 - MODELS.index(model_id)]
    wrong = [Outcome(_predictions(other, group)[0].id, rows[0].predicted_us, 0.0)]  # of the other model's prediction
    name = f"{model_id}/{group}"
    found = [
        (at(), Message("predictions", f"{name}/p", model_id, tuple(shown))),
        (at(), Message("outcomes", f"{name}/o", model_id, tuple(first))),
        (at(), Message("outcomes", f"{name}/o", model_id, tuple(first))),  # the same batch again
        (at(), Message("outcomes", f"{name}/again", model_id, tuple(first))),  # the same rows under another name
        (at(), Message("outcomes", f"{name}/corrected", model_id, tuple(corrected))),
        (at(), Message("outcomes", f"{name}/edge", model_id, tuple(edge))),
    ]
    if group % 4 == 0:
        found.append((at(), Message("outcomes", f"{name}/stray", model_id, tuple(stray + wrong))))
    return found


def send(store: ParquetFactStore, message: Message) -> Receipt:
    """Store a message; durable on return."""
    return submit(store, message).result()


def submit(store: ParquetFactStore, message: Message) -> Future[Receipt]:
    """Queue a message."""
    if message.kind == "predictions":
        columns = prediction_columns([row for row in message.rows if isinstance(row, Prediction)])
        return store.submit_predictions(message.batch_id, message.model_id, 1, ipc(columns))
    columns = outcome_columns([row for row in message.rows if isinstance(row, Outcome)])
    return store.submit_outcomes(message.batch_id, message.model_id, "", ipc(columns))


def arrivals(messages: Sequence[Message], model_id: str) -> list[Arrival]:
    """The rows of a model, in order of arrival."""
    return [row for message in messages if message.model_id == model_id for row in message.rows]


def distinct_predictions(messages: Sequence[Message]) -> int:
    """Different predictions of all models."""
    return len({row.id for message in messages for row in message.rows if isinstance(row, Prediction)})
