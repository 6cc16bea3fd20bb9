"""One suite for the speed join and the batch join: every permutation of arrival of every case, against the twin."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from control_plane.core.ground_truth.ids import id_columns
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.speed import SpeedView
from tests.ground_truth.arrows import HOUR_US, T0_US, prediction_id
from tests.ground_truth.joins import Answer, batch_answers, feed, speed_answer, twin_answer
from tests.redis.server import serve
from tests.redis.shards import shared_answers
from tests.reference.join import Arrival, Outcome, Prediction

SPEC = LabelSpec(window=timedelta(hours=6))
WINDOW_US = 6 * HOUR_US
A, B, C = (prediction_id(T0_US + minute * 60_000_000, minute) for minute in (1, 2, 3))


def _same_key(one: bytes) -> bytes:
    """Another id with the same 64-bit key: equal keys must not make equal ids."""
    columns = id_columns(np.frombuffer(one, np.uint8).reshape(1, 16))
    high = np.uint64(columns.high[0] + np.uint64(1))
    with np.errstate(over="ignore"):
        low = columns.key[0] ^ np.uint64(int(high) * 0x9E3779B97F4A7C15 % 2**64)
    return int(high).to_bytes(8, "big") + int(low).to_bytes(8, "big")


def p(one: bytes, at: int = T0_US + 60_000_000, score: float = 0.7, version: int = 1) -> Prediction:
    """A prediction."""
    return Prediction(one, at, score, version)


def o(one: bytes, at: int = T0_US + HOUR_US, value: float = 1.0, revision: int = 0) -> Outcome:
    """An outcome."""
    return Outcome(one, at, value, revision)


RANDOM_ID = bytes.fromhex("9f1c7f5a0e6b4d3c8a2b1c0d9e8f7a6b")
"""A UUIDv4: carries no hour."""
OTHER_CLOCK = prediction_id(T0_US + 9_000 * 24 * HOUR_US, 77)
"""A UUIDv7 of another clock: its hour is not its prediction's."""

CASES: dict[str, list[Arrival]] = {
    "one pair": [p(A), o(A)],
    "no outcome": [p(A), p(B), o(B, value=0.0)],
    "prediction repeated": [p(A), p(A), p(A), o(A)],
    "outcome repeated": [p(A), o(A), o(A), o(A)],
    "both repeated": [p(A), p(A), o(A), o(A)],
    "corrected": [p(A), o(A, value=0.0), o(A, value=1.0, revision=1)],
    "corrected twice, one sent again": [p(A), o(A, value=0.0), o(A, revision=1), o(A, value=0.0, revision=2)],
    "correction only": [p(A), o(A, value=0.0, revision=3)],
    "end of the window": [p(A, T0_US), o(A, T0_US + WINDOW_US)],
    "a microsecond after the window": [p(A, T0_US), o(A, T0_US + WINDOW_US + 1)],
    "a microsecond before the end": [p(A, T0_US), o(A, T0_US + WINDOW_US - 1)],
    "correction after the window": [
        p(A, T0_US),
        o(A, T0_US + HOUR_US, value=0.0),
        o(A, T0_US + WINDOW_US + 1, revision=1),
    ],
    "observed before it was predicted": [p(A), o(A, T0_US)],
    "orphan": [p(A), o(B), o(A)],
    "orphan repeated and corrected": [p(A), o(B), o(B), o(B, revision=1)],
    "two versions": [p(A), p(B, version=2), o(A), o(B, value=0.0)],
    "two hours": [p(A, T0_US), p(B, T0_US + HOUR_US), o(B, T0_US + 2 * HOUR_US), o(A)],
    "id without time": [p(RANDOM_ID), o(RANDOM_ID), p(A), o(A)],
    "id of another clock": [p(OTHER_CLOCK), o(OTHER_CLOCK), p(A), o(A)],
    "equal keys, different ids": [p(A), p(_same_key(A), score=0.2), o(A), o(_same_key(A), value=0.0)],
    "equal keys, one repeated": [p(A), p(_same_key(A)), p(A), o(_same_key(A))],
    "id on the hour": [p(prediction_id(T0_US + HOUR_US, 5), T0_US + HOUR_US - 1), o(prediction_id(T0_US + HOUR_US, 5))],
}


def speed(_: Path, histories: Sequence[Sequence[Arrival]], spec: LabelSpec) -> list[tuple[Answer, int]]:
    """The speed view over several histories."""
    return [speed_answer(history, spec) for history in histories]


def shared(_: Path, histories: Sequence[Sequence[Arrival]], spec: LabelSpec) -> list[tuple[Answer, int]]:
    """Three workers with a speed view each, who share what they have through a real Redis."""
    with serve() as url:
        return shared_answers(url, histories, spec)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("implementation", [speed, batch_answers, shared], ids=["speed", "batch", "redis"])
def test_every_order_of_arrival_gives_what_the_twin_gives(
    case: str,
    implementation: Callable[[Path, Sequence[Sequence[Arrival]], LabelSpec], list[tuple[Answer, int]]],
    tmp_path: Path,
) -> None:
    histories = [list(history) for history in dict.fromkeys(permutations(CASES[case]))]
    expected = twin_answer(histories[0], SPEC)
    for history in histories:
        assert twin_answer(history, SPEC) == expected
    for history, found in zip(histories, implementation(tmp_path, histories, SPEC), strict=True):
        assert found == expected, history


def test_a_row_repeated_within_a_batch_counts_once() -> None:
    ids = id_columns(np.frombuffer(A + B + A, np.uint8).reshape(3, 16))
    view = SpeedView()
    new = view.add_predictions("m", 1, ids, np.full(3, T0_US), np.array([0.1, 0.2, 0.3]), tell_new=True)
    assert new is not None
    assert new.tolist() == [True, True, False]
    zero = np.zeros(3, np.int32)
    view.add_outcomes("m", "default", ids, np.full(3, T0_US), np.array([1.0, 0.0, 0.0]), zero)
    partial = (view.partials("m", SPEC, T0_US // HOUR_US, 0) or {})[1]
    assert (partial.of("predicted"), partial.of("joined"), partial.sum_of("value")) == (2, 2, 1.0)


def test_absence_means_negative_only_after_the_window() -> None:
    spec = LabelSpec(window=timedelta(hours=6), absence_means_negative=True)
    view = SpeedView()
    feed(view, [p(A), p(B), o(A)])
    hour = T0_US // HOUR_US
    early = (view.partials("m", spec, hour, hour) or {})[1]
    assert (early.of("absent"), early.of("true_negative") + early.of("false_positive")) == (0, 0)
    mature = (view.partials("m", spec, hour, hour + 1) or {})[1]
    assert (mature.of("joined"), mature.of("absent"), mature.labelled) == (1, 1, 2)
    assert mature.of("false_positive") == 1
