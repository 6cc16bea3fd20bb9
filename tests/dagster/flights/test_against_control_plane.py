"""The fleet against the real control plane: nothing lost, nothing doubled, over restarts at bad moments."""

import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from runway_client import connect, from_timestamp

from assets.flights import bootstrap, replay, training
from assets.flights.data import column, flights, instant
from assets.flights.fleet import BY_ID, FIRST_DAY, FLEET
from assets.flights.labels import WINDOW, outcomes
from assets.flights.replay import STEP, Plan, Replay, follow
from assets.flights.training import rows_between
from tests.api.served_plane import ServedPlane

DAYS = timedelta(days=2)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year_features: pa.Table) -> Iterator[ServedPlane]:
    one = ServedPlane(tmp_path, monkeypatch)
    one.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", one.address)
    monkeypatch.setattr(training, "ROWS_MAX", 2_000)
    monkeypatch.setattr(replay, "PICKUP_S", 0.0)
    yield one
    one.stop()
    one.close()


def test_every_flight_is_sent_once_and_every_outcome_that_came(
    served: ServedPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bootstrap.main() == 0
    assert f"{len(FLEET)} of them new" in capsys.readouterr().out
    assert bootstrap.main() == 0
    assert "0 of them new" in capsys.readouterr().out
    with connect(served.address) as runway:
        every = list(runway.lineage.list_edges())
        assert len(every) > 150
        for edge in every:
            name = f"{edge.dependency.upstream_id} -> {edge.dependency.downstream_id}"
            # Consumers read outside of anything that could tell.
            seen = [one.source for one in edge.sightings]
            assert seen == ([] if edge.dependency.downstream_id.startswith("consumer:") else ["trainer"]), name
            assert edge.HasField("declaration"), name
        assert list(runway.lineage.list_disagreements()) == []

    with connect(served.address) as runway:
        # Killed between sending and moving the clock, twice: everything goes out again.
        for _ in range(2):
            Replay(runway, Plan(start=FIRST_DAY, end=FIRST_DAY + DAYS, seconds_per_day=0))._send(FIRST_DAY)
    follow(Plan(start=FIRST_DAY, end=FIRST_DAY + 5 * STEP, seconds_per_day=0), served.address)
    served.stop()
    served.start()
    follow(Plan(start=FIRST_DAY, end=FIRST_DAY + DAYS, seconds_per_day=0), served.address)

    with connect(served.address) as runway:
        assert from_timestamp(runway.operations.get_status().now) == FIRST_DAY + DAYS
        for model_id in ("departure_delay_lga", "arrival_delay_jfk", "air_time", "route_embedding"):
            model = BY_ID[model_id]
            of_model = rows_between(FIRST_DAY, FIRST_DAY + DAYS, model.origin)
            value, known_at = outcomes(model, of_model)
            # Predictions mature by whole hours.
            mature = column(flights(), "scheduled", of_model) < instant(FIRST_DAY + DAYS - WINDOW)
            came = mature & ~np.isnan(value) & (known_at < instant(FIRST_DAY + DAYS))
            total = runway.ground_truth.get_coverage(model_id, start=FIRST_DAY, end=FIRST_DAY + DAYS).total
            assert (total.predicted, total.mature) == (len(of_model), mature.sum()), model_id
            assert (total.joined, total.late, total.orphans) == (came.sum(), 0, 0), model_id
            assert total.mature > 50


def test_away_is_said_once_and_time_goes_on_when_it_is_back(
    served: ServedPlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served.stop()
    pauses: list[float] = []

    def come_back(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 2:
            served.start()

    monkeypatch.setattr(replay, "time", SimpleNamespace(monotonic=time.monotonic, sleep=come_back))
    monkeypatch.setattr(replay, "connect", partial(connect, retry_for_s=0.0))
    follow(Plan(start=FIRST_DAY, end=FIRST_DAY + STEP, seconds_per_day=0), served.address)
    assert capsys.readouterr().out.count("the control plane is away") == 1
    with connect(served.address) as runway:
        assert from_timestamp(runway.operations.get_status().now) == FIRST_DAY + STEP
