"""What the replay sends: the same batches every time, labels late, some never."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from assets.flights import replay
from assets.flights.fleet import BY_ID, FIRST_DAY
from assets.flights.training import rows_between


def test_prediction_ids_are_the_same_every_time_and_differ_between_models(year: pa.Table) -> None:
    rows = rows_between(FIRST_DAY, FIRST_DAY + timedelta(days=1), "JFK")
    first = replay._ids(BY_ID["departure_delay_jfk"], rows)
    assert (first == replay._ids(BY_ID["departure_delay_jfk"], rows)).all()
    other = replay._ids(BY_ID["arrival_delay_jfk"], rows)
    assert len(np.unique(np.vstack([first, other]), axis=0)) == 2 * len(rows)


def test_where_a_replay_began_is_remembered(fleet_home: object) -> None:
    assert replay.planned(date(2013, 4, 2), 10, 1.0).start == datetime(2013, 4, 2, tzinfo=UTC)
    resumed = replay.planned(None, 10, 1.0)
    assert resumed.start == datetime(2013, 4, 2, tzinfo=UTC)
    assert resumed.end == datetime(2013, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize("first_day", [date(2013, 2, 1), date(2014, 1, 1)])
def test_a_day_without_data_says_which_have_some(first_day: date) -> None:
    with pytest.raises(ValueError, match="2013-03-01"):
        replay.planned(first_day, None, 1.0)


def test_a_replay_of_no_days_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        replay.planned(None, 0, 1.0)
