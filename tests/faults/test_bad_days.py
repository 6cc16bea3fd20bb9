"""What goes wrong outside: clocks, senders, ids, schemas. Each row counts once, and what cannot be is refused.

Every test holds the store's answer against the dumb twin, after recovery and after the batch join.
"""

import shutil
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.errors import Invalid
from tests.faults.history import MODELS, SPEC, Message, arrivals, distinct_predictions, history, send
from tests.ground_truth.arrows import (
    HOUR_US,
    T0,
    T0_US,
    ipc,
    outcome_columns,
    outcomes_for,
    prediction_columns,
    prediction_id,
    some_predictions,
)
from tests.ground_truth.joins import FAR, append, finish, stored_answer, twin_answer
from tests.reference.join import Arrival, Outcome, Prediction

MODEL = "m"
DAY_US = 24 * HOUR_US
CONFIG = StoreConfig(join_every=timedelta(hours=1), speed_window=timedelta(hours=2))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ParquetFactStore]:
    one = opened(tmp_path / "facts")
    yield one
    one.close()


def opened(directory: Path) -> ParquetFactStore:
    store = ParquetFactStore(directory, CONFIG)
    for model_id in (MODEL, *MODELS):
        store.set_label(model_id, SPEC)
    return store


def predicted(store: ParquetFactStore, model_id: str) -> int:
    return store.coverage(model_id, None, T0 - timedelta(days=3), FAR, FAR).total.predicted


def agrees(store: ParquetFactStore, rows: Sequence[Arrival], model_id: str = MODEL) -> None:
    """The batch join says what the twin says."""
    finish(store)
    assert stored_answer(store, model_id, SPEC) == twin_answer(rows, SPEC)


def test_a_torn_end_of_the_log_costs_only_what_was_not_acknowledged(tmp_path: Path) -> None:
    messages = history(2)
    messages.append(messages.pop(next(at for at, one in enumerate(messages) if one.kind == "predictions")))
    whole = tmp_path / "whole"
    store = opened(whole)
    for message in messages[:-1]:
        send(store, message)
    segment = store._facts.log.path(store._facts.log.number)
    durable = segment.stat().st_size
    send(store, messages[-1])
    written = segment.stat().st_size
    # As the kernel would leave it: `close` would close the segment too.
    shutil.copytree(whole, tmp_path / "torn")
    store.close()
    for number, cut in enumerate(np.linspace(durable, written - 1, 9).astype(int)):
        torn = tmp_path / f"torn{number}"
        shutil.copytree(tmp_path / "torn", torn)
        with (torn / "segments" / segment.name).open("r+b") as file:
            file.truncate(cut)
        again = opened(torn)
        for message in messages[:-1]:
            assert send(again, message).duplicate, (cut, message.batch_id)
        assert not send(again, messages[-1]).duplicate, cut
        finish(again)
        for model_id in MODELS:
            assert stored_answer(again, model_id, SPEC) == twin_answer(arrivals(messages, model_id), SPEC), cut
        again.close()


@pytest.mark.parametrize("seed", range(3))
def test_batches_that_come_twice_and_in_any_order_count_once(store: ParquetFactStore, seed: int) -> None:
    messages, rng = history(12), np.random.default_rng(seed)
    order = [messages[place] for place in rng.permutation(np.repeat(np.arange(len(messages)), 2))]
    for number, message in enumerate(order):
        send(store, message)
        if number % 40 == 0:
            store.tick(T0 + timedelta(hours=number / 40), force=True)
    finish(store)
    for model_id in MODELS:
        assert stored_answer(store, model_id, SPEC) == twin_answer(arrivals(order, model_id), SPEC), model_id
    assert sum(predicted(store, model_id) for model_id in MODELS) == distinct_predictions(messages)


def test_a_clock_that_is_a_day_off_loses_nothing(store: ParquetFactStore) -> None:
    now = some_predictions(12)
    # A server whose clock is a day ahead, and one whose clock is a day behind: ids and times agree with one another.
    ahead = some_predictions(12, start_us=T0_US + DAY_US, first=100)
    behind = some_predictions(12, start_us=T0_US - DAY_US, first=200)
    # And one that makes ids by the right clock and times by the wrong one.
    torn = [Prediction(prediction_id(T0_US, 300 + row), T0_US + DAY_US, 0.7) for row in range(12)]
    rows: list[Arrival] = [*now, *ahead, *behind, *torn]
    for made in (now, ahead, behind, torn):
        rows += outcomes_for(made)
    # The labeller's clock is a day off as well: before the prediction (counts), and past the window (does not).
    rows += [Outcome(row.id, row.predicted_us - DAY_US, 1.0, 1) for row in now[:4]]
    rows += [Outcome(row.id, row.predicted_us + DAY_US, 0.0, 2) for row in now[4:8]]
    append(store, MODEL, rows)
    live = store.coverage(MODEL, None, T0 - timedelta(days=3), FAR, T0 + timedelta(hours=1)).total
    assert live.predicted == 48
    assert live.mature == 12  # of those that are behind; what says it is of tomorrow is not late yet
    agrees(store, rows)


def test_a_clock_that_goes_back_a_day_undoes_nothing(store: ParquetFactStore) -> None:
    made = some_predictions(24, spread_us=4 * HOUR_US)
    rows: list[Arrival] = [*made, *outcomes_for(made[:12])]
    append(store, MODEL, rows)
    store.tick(T0 + timedelta(days=2), force=True)
    more = outcomes_for(made[12:])
    append(store, MODEL, more, "back")
    for hours in (24, 25, 20, 48):
        report = store.tick(T0 + timedelta(hours=hours), force=True)
        while report.more:
            report = store.tick(T0 + timedelta(hours=hours))
        assert predicted(store, MODEL) == 24
    agrees(store, [*rows, *more])


def test_ids_that_collide_keep_the_first_of_a_model_and_do_not_cross_models(store: ParquetFactStore) -> None:
    one = prediction_id(T0_US, 1)
    rows: list[Arrival] = [
        Prediction(one, T0_US + 5, 0.9),
        Prediction(one, T0_US + 7, 0.1),  # the same hour, another score
        Prediction(one, T0_US + 9, 0.2, version=2),  # another version
        Outcome(one, T0_US + HOUR_US, 1.0),
        Outcome(one, T0_US + HOUR_US + 1, 0.0),  # the same revision with another value: the first stays
    ]
    append(store, MODEL, rows)
    others: list[Arrival] = [Prediction(one, T0_US + 5, 0.3)]
    append(store, MODELS[0], others)
    assert (predicted(store, MODEL), predicted(store, MODELS[0])) == (1, 1)
    agrees(store, rows)
    assert stored_answer(store, MODELS[0], SPEC) == twin_answer(others, SPEC)


def test_a_label_from_the_future_waits_and_one_from_never_is_refused(store: ParquetFactStore) -> None:
    made = some_predictions(6)
    rows: list[Arrival] = [*made]
    rows += [Outcome(row.id, row.predicted_us + SPEC.window_us, 1.0) for row in made[:2]]
    rows += [Outcome(row.id, row.predicted_us + 300 * DAY_US, 1.0) for row in made[2:4]]
    append(store, MODEL, rows)
    early = store.coverage(MODEL, None, T0, T0 + timedelta(hours=1), T0 + timedelta(hours=1)).total
    assert (early.mature, early.joined, early.joined_early, early.outside) == (0, 0, 2, 2)
    bad = [Outcome(made[4].id, T0_US, 1.0), Outcome(made[5].id, 9_000 * 365 * DAY_US, 1.0)]
    with pytest.raises(Invalid) as refused:
        store.append_outcomes("never", MODEL, "", ipc(outcome_columns(bad)))
    assert [violation.field for violation in refused.value.violations] == ["observed_at"]
    assert "row 1" in refused.value.message
    agrees(store, rows)


def test_an_outcome_of_another_models_prediction_is_an_orphan_and_no_label(store: ParquetFactStore) -> None:
    made = some_predictions(6)
    append(store, MODEL, list(made))
    strays = outcomes_for(made)
    append(store, MODELS[0], list(strays), "stray")
    agrees(store, list(made))
    finish(store)
    total = store.coverage(MODELS[0], None, T0, T0 + timedelta(hours=1), FAR).total
    assert (total.predicted, total.orphans) == (0, 6)
    # The predictions come after all, days later: the outcomes are there.
    append(store, MODELS[0], list(made), "at last")
    agrees(store, [*strays, *made], MODELS[0])


def test_a_silent_source_freezes_nobody(store: ParquetFactStore) -> None:
    loud: list[Arrival] = []
    silent: list[Arrival] = []
    for hour in range(12):
        made = some_predictions(10, start_us=T0_US + hour * HOUR_US, first=100 * hour)
        more: list[Arrival] = [*made, *outcomes_for(made)]
        append(store, MODELS[0], more, f"loud{hour}")
        loud += more
        heard: list[Arrival] = [*made, *(outcomes_for(made) if hour < 4 else [])]
        append(store, MODELS[1], heard, f"silent{hour}")
        silent += heard
        store.tick(T0 + timedelta(hours=hour + 1), force=True)
    now = T0 + timedelta(hours=20)
    report = store.tick(now, force=True)
    while report.more:
        report = store.tick(now)
    for model_id, joined in ((MODELS[0], 120), (MODELS[1], 40)):
        total = store.coverage(model_id, None, T0, T0 + timedelta(hours=12), now).total
        assert (total.predicted, total.mature, total.joined, total.layer) == (120, 120, joined, "batch")
    agrees(store, loud, MODELS[0])
    assert stored_answer(store, MODELS[1], SPEC) == twin_answer(silent, SPEC)


def test_a_schema_that_changes_in_mid_stream_loses_no_row(store: ParquetFactStore) -> None:
    rows: list[Arrival] = []
    columns: list[dict[str, pa.Array]] = [
        {},
        {"feature.temp": pa.array([1.0] * 5)},
        {"feature.temp": pa.array([1.5] * 5, pa.float32()), "slice.country": pa.array(["US"] * 5)},
        {"feature.temp": pa.array(["warm"] * 5), "feature.new": pa.array([1] * 5)},
        {"slice.country": pa.array(["FR", None, "FR", "US", None]), "slice.device": pa.array(["phone"] * 5)},
        {"entity_id": pa.array(["a", "b", None, "a", "c"]), "acted_on": pa.array([True, False, None, True, False])},
    ]
    for number, extra in enumerate(columns):
        made = some_predictions(5, first=10 * number)
        store.append_predictions(f"p{number}", MODEL, 1 + number % 2, ipc(prediction_columns(made) | extra))
        rows += [Prediction(row.id, row.predicted_us, row.score, 1 + number % 2) for row in made]
        known = outcome_columns(outcomes_for(made))
        if number == 3:
            known.pop("revision")
        store.append_outcomes(f"o{number}", MODEL, "", ipc(known))
        rows += outcomes_for(made)
        report = store.tick(T0 + timedelta(hours=number), force=True)
        while report.more:
            report = store.tick(T0 + timedelta(hours=number))
    with pytest.raises(Invalid, match="sluce"):
        odd = prediction_columns(some_predictions(5, first=900)) | {"sluce.countri": pa.array(["US"] * 5)}
        store.append_predictions("odd", MODEL, 1, ipc(odd))
    assert predicted(store, MODEL) == 30
    agrees(store, rows)


def test_a_bad_batch_among_good_ones_is_refused_whole(store: ParquetFactStore) -> None:
    good: list[Message] = history(3)
    for number, message in enumerate(good):
        send(store, message)
        bad = some_predictions(4, first=10_000 + 10 * number)
        columns = prediction_columns(bad) | {"score": pa.array([0.1, 0.2, float("nan"), 0.4])}
        with pytest.raises(Invalid) as refused:
            store.append_predictions(f"bad{number}", message.model_id, 1, ipc(columns))
        assert "row 2" in refused.value.message
        with pytest.raises(Invalid):
            store.append_outcomes(f"bad{number}", message.model_id, "", b"not arrow at all")
    finish(store)
    for model_id in MODELS:
        assert stored_answer(store, model_id, SPEC) == twin_answer(arrivals(good, model_id), SPEC), model_id
