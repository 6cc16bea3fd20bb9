"""Arrow batches as the control plane takes them, and UUIDv7 ids that a replay makes again."""

import uuid
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runway_client import outcome_batch, prediction_batch, prediction_ids

from control_plane.core.ground_truth.batch import read_predictions
from control_plane.core.ground_truth.ids import id_columns, id_hours

NOON = datetime(2013, 3, 1, 12, tzinfo=UTC)
NOON_ARRAY = np.array(["2013-03-01T12:00:00"] * 3, "datetime64[us]")


def read(batch: bytes) -> pa.Table:
    return pa.ipc.open_stream(batch).read_all()


def test_a_batch_of_predictions() -> None:
    ids = prediction_ids(NOON_ARRAY, [1, 2, 3])
    table = read(
        prediction_batch(
            ids,
            NOON_ARRAY,
            [0.1, 0.2, 0.3],
            {"temp": [1.5, None, float("nan")], "carrier": ["AA", None, "UA"], "seats": np.array([1, 2, 3])},
        )
    )
    assert table.schema == pa.schema(
        [
            ("prediction_id", pa.binary(16)),
            ("predicted_at", pa.timestamp("us", tz="UTC")),
            ("score", pa.float64()),
            ("feature.temp", pa.float64()),
            ("feature.carrier", pa.string()),
            ("feature.seats", pa.float64()),
        ]
    )
    assert table["feature.temp"].to_pylist() == [1.5, None, None]
    assert table["feature.carrier"].to_pylist() == ["AA", None, "UA"]
    assert table["predicted_at"].to_pylist() == [NOON] * 3
    assert table["prediction_id"].to_pylist() == [row.tobytes() for row in ids]


def test_slices_are_read_by_the_control_plane_as_they_were_given() -> None:
    ids = prediction_ids(NOON_ARRAY, [1, 2, 3])
    batch = prediction_batch(ids, NOON_ARRAY, [0.1, 0.2, 0.3], slices={"country": ["US", None, "DE"]})
    assert {name: column.to_pylist() for name, column in read_predictions(batch).slices.items()} == {
        "country": ["US", None, "DE"]
    }


@pytest.mark.parametrize("revision", [None, [0, 1]])
def test_a_batch_of_outcomes(revision: list[int] | None) -> None:
    ids = [uuid.uuid4().bytes, uuid.uuid4().bytes]
    table = read(outcome_batch(ids, [NOON, NOON], [0, 1], revision))
    assert table["prediction_id"].to_pylist() == ids
    assert table["value"].to_pylist() == [0.0, 1.0]
    assert ("revision" in table.column_names) == (revision is not None)


@pytest.mark.parametrize("kind", ["bytes", "uuids", "array", "arrow"])
def test_ids_in_any_form(kind: str) -> None:
    one = uuid.uuid4()
    forms: dict[str, Any] = {
        "bytes": [one.bytes],
        "uuids": [one],
        "array": np.frombuffer(one.bytes, dtype=np.uint8).reshape(1, 16),
        "arrow": pa.array([one.bytes], type=pa.binary(16)),
    }
    assert read(prediction_batch(forms[kind], [NOON], [0.5]))["prediction_id"].to_pylist() == [one.bytes]


def test_wrong_shapes_are_refused_with_a_sentence() -> None:
    ids = prediction_ids(NOON_ARRAY)
    with pytest.raises(ValueError, match=r"differ in length: prediction_id 3, predicted_at 3, score 2"):
        prediction_batch(ids, NOON_ARRAY, [0.1, 0.2])
    with pytest.raises(ValueError, match=r"ids\[0\] has 3 bytes: an id is 16 bytes"):
        prediction_batch([b"abc"], [NOON], [0.1])
    with pytest.raises(ValueError, match=r"give \(n, 16\) of uint8"):
        prediction_batch(ids[:, :8], NOON_ARRAY, [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="row 0 has no time zone"):
        prediction_batch(ids[:1], [datetime(2013, 3, 1)], [0.1])  # noqa: DTZ001
    with pytest.raises(ValueError, match="one key per prediction"):
        prediction_ids(NOON_ARRAY, [1, 2])


@given(
    st.lists(
        st.tuples(st.integers(0, 4_000_000_000_000), st.integers(-(2**63), 2**63 - 1)),
        min_size=1,
        max_size=20,
        unique=True,
    )
)
def test_ids_are_uuid7_in_their_hour_and_come_again(flights: list[tuple[int, int]]) -> None:
    instants = np.array([instant_ms for instant_ms, _ in flights], "datetime64[ms]")
    keys = [key for _, key in flights]
    ids = prediction_ids(instants, keys)
    assert (ids == prediction_ids(instants, keys)).all()
    assert len({row.tobytes() for row in ids}) == len(flights)
    for row in ids:
        one = uuid.UUID(bytes=row.tobytes())
        assert (one.version, one.variant) == (7, uuid.RFC_4122)
    assert id_hours(id_columns(ids)).tolist() == [instant_ms // 3_600_000 for instant_ms, _ in flights]


def test_random_ids_differ() -> None:
    ids = prediction_ids(np.repeat(NOON_ARRAY[:1], 10_000))
    assert len({row.tobytes() for row in ids}) == 10_000
