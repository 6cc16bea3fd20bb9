"""Each prediction is joined once, whatever arrives in whatever order and in whatever batches."""

import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.core.ground_truth.ids import id_columns
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, merge, pack, unpack
from control_plane.core.ground_truth.speed import SpeedView
from tests.ground_truth.arrows import HOUR_US, T0_US, prediction_id
from tests.ground_truth.joins import batch_answers, hour_answer, speed_answer, twin_answer
from tests.reference.join import Arrival, Outcome, Prediction

SPEC = LabelSpec(window=timedelta(hours=3))


@st.composite
def histories(draw: st.DrawFn) -> list[Arrival]:
    """Predictions of a few hours and outcomes with revisions; repeated, missing, orphaned, outside; shuffled."""
    arrivals: list[Arrival] = []
    for number in range(draw(st.integers(1, 8))):
        at = T0_US + draw(st.integers(0, 3 * HOUR_US))
        one = prediction_id(at, number) if draw(st.booleans()) else bytes([number]) * 16
        prediction = Prediction(one, at, draw(st.integers(0, 20)) / 20, draw(st.integers(1, 2)))
        arrivals += [prediction] * draw(st.integers(0, 2))
        for revision in range(draw(st.integers(0, 3))):
            delay = draw(st.sampled_from([-1, 0, HOUR_US, 3 * HOUR_US, 3 * HOUR_US + 1]))
            outcome = Outcome(one, at + delay, float(draw(st.booleans())), revision)
            arrivals += [outcome] * draw(st.integers(0, 2))
    return draw(st.permutations(arrivals))


@given(histories())
@settings(max_examples=150, deadline=None)
def test_speed_join_equals_twin(history: list[Arrival]) -> None:
    assert speed_answer(history, SPEC) == twin_answer(history, SPEC)


@given(st.lists(histories(), min_size=5, max_size=5))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_batch_join_equals_twin(found: list[list[Arrival]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        answers = batch_answers(Path(directory), found, SPEC)
    assert answers == [twin_answer(history, SPEC) for history in found]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_batches_reading_and_chunks_do_not_matter(data: st.DataObject) -> None:
    """Rows in batches of any size, with the view read (and so merged) in between."""
    count = data.draw(st.integers(1, 60))
    instants = T0_US + np.array(data.draw(st.lists(st.integers(0, 2 * HOUR_US), min_size=count, max_size=count)))
    ids = [prediction_id(int(at), number) for number, at in enumerate(instants)]
    scores = np.arange(count) / count
    arrivals: list[Arrival] = [
        Prediction(one, int(at), float(score)) for one, at, score in zip(ids, instants, scores, strict=True)
    ]
    arrivals += [
        Outcome(one, int(at) + HOUR_US, float(number % 2))
        for number, (one, at) in enumerate(zip(ids, instants, strict=True))
    ]
    view = SpeedView()
    sides: list[tuple[str, list[int]]] = []
    for side in ("prediction", "outcome"):
        order = data.draw(st.permutations(range(count)))
        while order:
            size = data.draw(st.integers(1, len(order)))
            sides.append((side, order[:size]))
            order = order[size:]
    for side, rows in data.draw(st.permutations(sides)):
        columns = id_columns(np.frombuffer(b"".join(ids[row] for row in rows), np.uint8).reshape(-1, 16))
        at = np.array(rows)
        if side == "prediction":
            view.add_predictions("m", 1, columns, instants[at], scores[at], tell_new=data.draw(st.booleans()))
        else:
            view.add_outcomes("m", "default", columns, instants[at] + HOUR_US, at % 2.0, np.zeros(len(at), np.int32))
        if data.draw(st.booleans()):
            view.orphans("m", "default", 0, 10**6)
            for hour in view.hours("m"):
                view.partials("m", SPEC, hour, 0)
    merged = [partial for hour in view.hours("m") for partial in (view.partials("m", SPEC, hour, 0) or {}).values()]
    expected, _ = twin_answer(arrivals, SPEC)
    whole = merge(merged)
    assert whole.of("predicted") == count == sum(hour.predicted for hour in expected.values())
    assert whole.of("joined") == count
    assert hour_answer(merge([whole])) == hour_answer(_round_trip(whole))


def _round_trip(partial: Partial) -> Partial:
    return unpack(pack(partial))
