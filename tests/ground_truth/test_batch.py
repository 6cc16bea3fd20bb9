"""Bad input: refused whole, with row and column of everything that is wrong."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.errors import Invalid, Reason
from control_plane.core.ground_truth.batch import ROWS_MAX, VIOLATIONS_MAX, read_outcomes, read_predictions
from control_plane.core.ground_truth.ids import id_bytes
from control_plane.core.ground_truth.labels import LabelSpec
from tests.ground_truth.arrows import (
    MICROSECONDS,
    ipc,
    outcome_columns,
    outcomes_for,
    prediction_columns,
    some_predictions,
)

ROWS = some_predictions(5)
GOOD: dict[str, Any] = prediction_columns(ROWS)
BINARY = LabelSpec()


def refused(columns: dict[str, Any], spec: LabelSpec | None = None) -> set[tuple[str, str]]:
    """(column, rule) of every violation."""
    with pytest.raises(Invalid) as caught:
        read_predictions(ipc(columns), spec)
    assert caught.value.reason is Reason.INVALID_BATCH
    return {(violation.field, violation.rule) for violation in caught.value.violations}


def test_reads_what_was_sent() -> None:
    features = {"feature.temp": pa.array([1.0, None, 3, 4, 5]), "feature.carrier": pa.array(["a", None, "b", "a", "a"])}
    batch = read_predictions(ipc(GOOD | features), BINARY)
    assert batch.rows == 5
    assert id_bytes(batch.ids).tobytes() == b"".join(row.id for row in ROWS)
    assert batch.predicted_us.tolist() == [row.predicted_us for row in ROWS]
    assert batch.score.tolist() == [row.score for row in ROWS]
    assert sorted(batch.features) == ["carrier", "temp"]
    assert batch.features["carrier"].to_pylist() == ["a", None, "b", "a", "a"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_comes_in_several_types(kind: pa.DataType) -> None:
    column = pa.array(["a", None, "b", "a", "a"]).cast(kind)
    batch = read_predictions(ipc(GOOD | {"feature.carrier": column}))
    assert batch.features["carrier"].to_pylist() == ["a", None, "b", "a", "a"]


def test_numbers_come_in_several_types() -> None:
    batch = read_predictions(
        ipc(
            GOOD
            | {"feature.a": pa.array([1, None, 3, 4, 5], pa.int32()), "feature.b": pa.array([0.5] * 5, pa.float32())}
        )
    )
    assert batch.features["a"].to_pylist() == [1.0, None, 3.0, 4.0, 5.0]
    assert batch.features["b"].type == pa.float64()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities_are_refused_with_row_and_column(bad: float) -> None:
    columns = GOOD | {"score": pa.array([0.1, bad, 0.3, 0.4, bad]), "feature.temp": pa.array([None, 1.0, bad, 2, 3])}
    with pytest.raises(Invalid) as caught:
        read_predictions(ipc(columns))
    assert [(v.field, v.message.split(":")[0]) for v in caught.value.violations] == [
        ("score", "row 1"),
        ("score", "row 4"),
        ("feature.temp", "row 2"),
    ]


def test_nan_below_null_is_missing() -> None:
    column = pa.array([1.0, np.nan, 3, 4, 5], mask=np.array([False, True, False, False, False]))
    assert read_predictions(ipc(GOOD | {"feature.temp": column})).features["temp"].null_count == 1
    all_missing = pa.nulls(5, pa.float64())
    assert read_predictions(ipc(GOOD | {"feature.temp": all_missing})).features["temp"].null_count == 5


def test_nulls_are_refused_in_required_columns() -> None:
    assert refused(
        GOOD
        | {
            "prediction_id": pa.array([ROWS[0].id, None, ROWS[2].id, ROWS[3].id, ROWS[4].id], pa.binary(16)),
            "predicted_at": pa.array([None, 1, 2, 3, 4], MICROSECONDS),
            "score": pa.array([0.1, 0.2, None, 0.3, 0.4]),
        }
    ) == {("prediction_id", "null"), ("predicted_at", "null"), ("score", "null")}


def test_types_and_columns_are_reported_together() -> None:
    assert refused(
        {
            "prediction_id": pa.array([row.id for row in ROWS]),
            "predicted_at": pa.array([1, 2, 3, 4, 5], pa.timestamp("ns", tz="UTC")),
            "extra": pa.array([1, 2, 3, 4, 5]),
            "feature.shape": pa.array([[1], [2], [3], [4], [5]]),
        }
    ) == {
        ("prediction_id", "type"),
        ("predicted_at", "type"),
        ("score", "required_column"),
        ("extra", "unknown_column"),
        ("feature.shape", "type"),
    }


def test_a_column_twice_is_refused() -> None:
    table = pa.Table.from_arrays([*GOOD.values(), GOOD["score"]], [*GOOD, "score"])
    with pytest.raises(Invalid, match="more than once"):
        read_predictions(ipc(table))


def test_instants_out_of_this_world_are_refused() -> None:
    columns = GOOD | {"predicted_at": pa.array([-1, 0, 10**18, 1, 2], pa.int64()).cast(MICROSECONDS)}
    with pytest.raises(Invalid) as caught:
        read_predictions(ipc(columns))
    assert [v.message.split(":")[0] for v in caught.value.violations] == ["row 0", "row 2"]


def test_a_binary_score_is_a_probability() -> None:
    columns = GOOD | {"score": pa.array([0.0, 1.0, 1.5, -0.1, 0.5])}
    assert refused(columns, BINARY) == {("score", "probability")}
    assert read_predictions(ipc(columns), LabelSpec(task="regression")).rows == 5
    assert read_predictions(ipc(columns)).rows == 5


def test_empty_and_huge_batches_are_refused() -> None:
    empty = pa.table(GOOD).slice(0, 0)
    assert refused(empty) == {("arrow_ipc", "rows_min")}
    many = ROWS_MAX + 1
    huge = {
        "prediction_id": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), many, [None, pa.py_buffer(bytes(16 * many))]
        ),
        "predicted_at": pa.array(np.zeros(many, np.int64)).cast(MICROSECONDS),
        "score": pa.array(np.zeros(many)),
    }
    assert refused(huge) == {("arrow_ipc", "rows_max")}


def test_violations_are_many_but_not_endless() -> None:
    rows = some_predictions(1000)
    columns = prediction_columns(rows) | {"score": pa.array([np.nan] * 1000)}
    with pytest.raises(Invalid) as caught:
        read_predictions(ipc(columns))
    assert len(caught.value.violations) == VIOLATIONS_MAX


def test_outcomes_are_checked_likewise() -> None:
    columns = outcome_columns(outcomes_for(ROWS))
    assert read_outcomes(ipc(columns), BINARY).revision.tolist() == [0] * 5
    without = {name: column for name, column in columns.items() if name != "revision"}
    assert read_outcomes(ipc(without), BINARY).revision.tolist() == [0] * 5
    bad = columns | {
        "value": pa.array([0.0, 1.0, 0.5, np.nan, 1.0]),
        "revision": pa.array([0, -1, 0, None, 0], pa.int32()),
    }
    with pytest.raises(Invalid) as caught:
        read_outcomes(ipc(bad), BINARY)
    assert {(v.field, v.rule) for v in caught.value.violations} == {
        ("value", "binary"),
        ("value", "finite"),
        ("revision", "null"),
    }
    with pytest.raises(Invalid, match="feature"):
        read_outcomes(ipc(columns | {"feature.x": pa.array([1.0] * 5)}))


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_predictions(garbage)
    assert caught.value.reason is Reason.INVALID_BATCH


def test_every_truncation_is_refused_or_whole() -> None:
    """Arrow's end marker may be missing; a stream cut inside its one batch has no rows and is refused."""
    whole = ipc(GOOD)
    for size in range(len(whole)):
        try:
            batch = read_predictions(whole[:size])
        except Invalid as error:
            assert error.reason is Reason.INVALID_BATCH
        else:
            assert batch.score.tolist() == [row.score for row in ROWS]


@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=400, deadline=None)
def test_a_damaged_byte_never_escapes(position: int, value: int) -> None:
    """Any single byte changed: an answer or a refusal, never another error."""
    damaged = bytearray(ipc(GOOD | {"feature.carrier": pa.array(["a", None, "b", "a", "a"])}))
    damaged[position % len(damaged)] = value
    try:
        read_predictions(bytes(damaged))
    except Invalid as error:
        assert error.reason is Reason.INVALID_BATCH
