"""The three implementations of the join behind one face: twin, speed view, batch join through the whole store."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.ground_truth.ids import NO_HOUR, id_columns
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial
from control_plane.core.ground_truth.speed import SpeedView
from tests.ground_truth.arrows import T0, ipc, outcome_columns, prediction_columns
from tests.reference import join as twin
from tests.reference.join import Arrival, Outcome, Prediction

FAR = T0 + timedelta(days=40)
"""An instant at which everything that a test makes is mature and expired."""


@dataclass(frozen=True)
class HourAnswer:
    """What an implementation says of an hour."""

    predicted: int
    joined: int
    outside: int
    value_sum: float
    brier_sum: float
    confusion: tuple[int, int, int, int]
    delay_count: int


Answer = dict[tuple[int, int], HourAnswer]


def twin_answer(arrivals: Sequence[Arrival], spec: LabelSpec) -> tuple[Answer, int]:
    """By (hour, version), and the number of orphans."""
    found = twin.join(list(arrivals), spec.window_us, spec.label_type)
    answer = {}
    for key, hour in found.hours.items():
        pairs = [(score >= 0.5, value == 1) for score, value, _ in hour.joined]
        answer[key] = HourAnswer(
            predicted=hour.predicted,
            joined=len(hour.joined),
            outside=hour.outside,
            value_sum=round(sum(value for _, value, _ in hour.joined), 9),
            brier_sum=round(sum((score - value) ** 2 for score, value, _ in hour.joined), 9),
            confusion=tuple(pairs.count(pair) for pair in ((True, True), (True, False), (False, False), (False, True))),  # type: ignore[arg-type]
            delay_count=len(hour.joined),
        )
    return answer, len(found.orphans)


def hour_answer(partial: Partial) -> HourAnswer:
    """The same of a partial."""
    return HourAnswer(
        predicted=partial.of("predicted"),
        joined=partial.of("joined"),
        outside=partial.of("outside"),
        value_sum=round(partial.sum_of("value"), 9),
        brier_sum=round(partial.sum_of("brier"), 9),
        confusion=(
            partial.of("true_positive"),
            partial.of("false_positive"),
            partial.of("true_negative"),
            partial.of("false_negative"),
        ),
        delay_count=int(partial.delays().sum()),
    )


def feed(speed: SpeedView, arrivals: Sequence[Arrival], model_id: str = "m") -> None:
    """Each arrival as a batch of its own."""
    for row in arrivals:
        ids = id_columns(np.frombuffer(row.id, np.uint8).reshape(1, 16))
        if isinstance(row, Prediction):
            instants = np.array([row.predicted_us])
            speed.add_predictions(model_id, row.version, ids, instants, np.array([row.score]), tell_new=False)
        else:
            speed.add_outcomes(
                model_id,
                row.label_type,
                ids,
                np.array([row.observed_us]),
                np.array([row.value]),
                np.array([row.revision], np.int32),
            )


def speed_answer(arrivals: Sequence[Arrival], spec: LabelSpec) -> tuple[Answer, int]:
    """The speed view's answer."""
    speed = SpeedView()
    feed(speed, arrivals)
    answer = {}
    for hour in speed.hours("m"):
        for version, partial in (speed.partials("m", spec, hour, 0) or {}).items():
            answer[(hour, version)] = hour_answer(partial)
    return answer, sum(speed.orphans("m", spec.label_type, NO_HOUR, 10**6).values())


def append(store: ParquetFactStore, model_id: str, arrivals: Sequence[Arrival], prefix: str = "") -> None:
    """Store arrivals one by one, in order."""
    for number, row in enumerate(arrivals):
        if isinstance(row, Prediction):
            store.append_predictions(f"{prefix}{number}", model_id, row.version, ipc(prediction_columns([row])))
        else:
            store.append_outcomes(f"{prefix}{number}", model_id, row.label_type, ipc(outcome_columns([row])))


def finish(store: ParquetFactStore) -> None:
    """Expire, seal and join everything."""
    report = store.tick(FAR, force=True)
    while report.more:
        report = store.tick(FAR)


def stored_answer(store: ParquetFactStore, model_id: str, spec: LabelSpec) -> tuple[Answer, int]:
    """What the store's catalogue says, through its public reports."""
    start, end = T0 - timedelta(days=10), FAR
    answer = {}
    for version in (1, 2):
        report = store.performance(model_id, version, start, end, FAR, label_type=spec.label_type, grain="hour")
        for row in report.rows:
            if row.partial.of("predicted"):
                hour = int(row.start.timestamp()) // 3600
                answer[(hour, version)] = hour_answer(row.partial)
                assert row.layer == "batch"
    with store._facts.lock:
        orphans = store._facts.catalog.db.execute(
            "SELECT coalesce(sum(orphans), 0) FROM orphan_hours WHERE model_id = ? AND label_type = ?",
            (model_id, spec.label_type),
        ).fetchone()[0]
    return answer, int(orphans)


def batch_answers(root: Path, histories: Sequence[Sequence[Arrival]], spec: LabelSpec) -> list[tuple[Answer, int]]:
    """The batch join's answers: each history as a model of one store, joined in one pass."""
    store = ParquetFactStore(root, StoreConfig(join_every=timedelta(days=1000)))
    try:
        for number, history in enumerate(histories):
            store.set_label(f"m{number}", spec)
            append(store, f"m{number}", history)
        finish(store)
        return [stored_answer(store, f"m{number}", spec) for number in range(len(histories))]
    finally:
        store.close()


__all__ = ["FAR", "Answer", "Arrival", "HourAnswer", "Outcome", "Prediction"]
