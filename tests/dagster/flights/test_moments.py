"""Who may know what when: a flight never hears of itself, a label never comes before its question."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from assets.flights import data, features
from assets.flights.fleet import FLEET
from assets.flights.labels import WINDOW, outcomes
from assets.flights.replay import STEP
from assets.flights.training import rows_between

ROLLING = ("origin_delay_3h", "carrier_delay_24h")


def test_a_flight_that_leaves_early_is_not_in_its_own_features(year: pa.Table, year_features: pa.Table) -> None:
    rows = np.arange(4_000)
    some = year.take(pa.array(rows))
    scheduled, departed = data.column(some, "scheduled"), data.column(some, "departed")
    early = np.flatnonzero(departed <= scheduled)[::97]
    delay = data.column(some, "dep_delay").copy()
    for row in early[:12]:
        other = delay.copy()
        other[row] = -1_000.0
        changed = features.compute(
            some.set_column(some.schema.get_field_index("dep_delay"), "dep_delay", pa.array(other))
        )
        for name in ROLLING:
            before, after = data.column(year_features, name, rows), data.column(changed, name)
            assert before[row] == after[row] or np.isnan(before[row]), name
            assert (before != after)[~np.isnan(before)].any(), "others do hear of it"


def test_no_outcome_is_known_before_its_prediction_or_after_the_window(year: pa.Table) -> None:
    rows = np.arange(0, year.num_rows, 7, dtype=np.int64)
    scheduled = data.column(year, "scheduled", rows)
    for model in FLEET:
        _, known_at = outcomes(model, rows)
        known = ~np.isnat(known_at)
        assert (known_at[known] >= scheduled[known]).all(), model.model_id
        assert (known_at[known] - scheduled[known] <= np.timedelta64(WINDOW)).all(), model.model_id


def test_every_outcome_falls_into_one_step_of_the_replay(year: pa.Table) -> None:
    """A step sends what became known in it, of flights scheduled up to its end and no longer ago than the window."""
    start = datetime(2013, 4, 1, tzinfo=UTC)
    rows = rows_between(start, start + 3 * STEP)
    for model in FLEET:
        value, known_at = outcomes(model, rows)
        sent = np.zeros(len(rows), int)
        for number in range(24):
            step = start + number * STEP
            recent = np.isin(rows, rows_between(max(start, step - WINDOW), step + STEP))
            sent += recent & (known_at >= data.instant(step)) & (known_at < data.instant(step + STEP))
        assert (sent == ~np.isnan(value)).all(), model.model_id
