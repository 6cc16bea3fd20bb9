"""All of it, as a newcomer starts it: real Postgres, control plane, Dagster, models, flights; killed and resumed."""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from runway_client import Runway, connect, messages

from assets.flights.data import column, flights
from assets.flights.fleet import FIRST_DAY, FLEET
from assets.flights.training import rows_between
from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from tests.e2e.stacks import READY_S_MAX, STORY_S_MAX, Stack, await_that, clock_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "home", days=20, seconds_per_day=2)
    try:
        yield made
    finally:
        made.clean_up()


def _ended_well(runway: Runway, retrain_id: str) -> bool:
    return runway.retraining.get_retrain(retrain_id).state in (
        messages.RETRAIN_STATE_PROMOTED,
        messages.RETRAIN_STATE_REFUSED,
    )


def _predicted_twice_or_not_at_all(runway: Runway, monkeypatch: pytest.MonkeyPatch, home: Path) -> list[str]:
    """Models whose count of predictions on the first day is not the number of flights of that day."""
    monkeypatch.setenv("RUNWAY_HOME", str(home))
    assert column(flights(), "scheduled").size
    wrong = []
    for model in FLEET:
        answer = runway.ground_truth.get_coverage(model.model_id, start=FIRST_DAY, end=FIRST_DAY + timedelta(days=1))
        expected = len(rows_between(FIRST_DAY, FIRST_DAY + timedelta(days=1), model.origin))
        if answer.total.predicted != expected:
            wrong.append(f"{model.model_id}: {answer.total.predicted} predictions of {expected} flights")
    return wrong


def test_a_retrain_goes_all_the_way_and_everything_survives_being_killed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.up()
    stack.until(r"Runway is up", READY_S_MAX)
    with connect(stack.address, actor="story", retry_for_s=120) as runway:
        retrain = runway.retraining.request_retrain("air_time", ignore_cooldown=True).retrain
        stack.until(r"air_time is released to dagster", STORY_S_MAX)
        stack.until(r"air_time version 2 (was )?(promoted|refused)", STORY_S_MAX)
        assert _ended_well(runway, retrain.retrain_id)
        moves = runway.registry.list_alias_moves("air_time", alias="production")
        assert moves[-1].to_version == 1

        before = clock_of(runway)
        assert stack.kill("control_plane")
        assert stack.kill("assets.flights.replay")
        await_that(lambda: clock_of(runway) > before, STORY_S_MAX, "the replay went on after both died")
        before = clock_of(runway)
        postgres = EmbeddedPostgres(stack.home / "postgres").pid
        assert postgres
        os.kill(postgres, signal.SIGKILL)
        await_that(lambda: clock_of(runway) > before, STORY_S_MAX, "the replay went on after Postgres died")
        revision = runway.operations.get_status().revision
        await_that(
            lambda: clock_of(runway) >= FIRST_DAY + timedelta(days=2), STORY_S_MAX, "the first day and a half are over"
        )
        assert _predicted_twice_or_not_at_all(runway, monkeypatch, stack.home) == []

    assert stack.end() == 0
    assert stack.family() == []

    stack.up()
    stack.until(r"Runway is up", READY_S_MAX)
    with connect(stack.address, actor="story", retry_for_s=120) as runway:
        assert runway.operations.get_status().revision >= revision
        again = runway.retraining.get_retrain(retrain.retrain_id)
        assert again.state in (messages.RETRAIN_STATE_PROMOTED, messages.RETRAIN_STATE_REFUSED)
        assert len(list(runway.registry.list_versions("air_time"))) == 2
        assert _predicted_twice_or_not_at_all(runway, monkeypatch, stack.home) == []
    assert stack.end() == 0
    assert stack.family() == []
