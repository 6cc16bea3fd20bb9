"""The year as a world: what is declared, nothing known before its time, and two contenders from end to end."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from assets.flights.backtest import table, tried
from assets.flights.backtest_files import declared
from assets.flights.backtest_world import FlightsWorld
from assets.flights.data import instant
from assets.flights.fleet import FIRST_DAY
from control_plane.backtest.contenders import current, every
from control_plane.core.ids import ModelId
from control_plane.core.staleness.evaluation import evaluate
from control_plane.core.staleness.policy import StalenessPolicy

MODEL = ModelId("weather_disruption")
END = datetime(2013, 4, 20, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backtest")


def test_declares_what_the_files_say() -> None:
    said = declared(["air_time", "arrival_delay_ewr"])
    layers = dict(said.policies)

    assert [one.tier for one in said.models] == [3, 1]
    assert layers["tier:1"]["staleness.cadence"] == "14400s"
    assert layers["model:air_time"]["staleness.performance_tolerance"] == 3
    assert said.tolerance == {"air_time": 3.0, "arrival_delay_ewr": 0.05}


@pytest.mark.slow
def test_evidence_holds_no_outcome_before_its_time(folder: Path) -> None:
    world = FlightsWorld([MODEL], FIRST_DAY, END, folder)
    policy = StalenessPolicy()
    first = world.first(MODEL)
    for hours in (1, 36, 100, 371, 800):
        now = FIRST_DAY + timedelta(hours=hours)
        other = FlightsWorld([MODEL], FIRST_DAY, END, folder)
        history = other._models[MODEL]
        late = ~(history.known_at <= instant(now))
        history.value = np.where(late, 1 - history.value, history.value)
        looks = [evaluate(policy, one.evidence(first, FIRST_DAY, policy, now), now) for one in (world, other)]
        assert looks[0] == looks[1]


@pytest.mark.slow
def test_a_candidate_is_compared_on_flights_that_neither_has_seen(folder: Path) -> None:
    world = FlightsWorld([MODEL], FIRST_DAY, END, folder)
    candidate = world.train(MODEL, FIRST_DAY + 30 * DAY + timedelta(hours=5))

    assert candidate == world.train(MODEL, FIRST_DAY + 30 * DAY)
    assert candidate.trained_until == FIRST_DAY + 20 * DAY
    found = world.compare(candidate, world.first(MODEL), FIRST_DAY + 30 * DAY)
    assert found.candidate == pytest.approx(candidate.holdout, abs=1e-9)
    assert 0 < found.standard_error < 0.1


@pytest.mark.slow
def test_two_contenders_from_end_to_end(folder: Path) -> None:
    reports = [tried([MODEL], FIRST_DAY, END, folder, [current(), every(14 * DAY)]) for _ in range(2)]

    assert reports[0] == reports[1]
    assert not reports[0].estimated
    by_name = {one.name: one for one in reports[0].results}
    assert by_name["every 14 d"].retrains == 4
    assert 0.5 < by_name["current"].quality < 1
    assert "every 14 d" in table(reports[0])
