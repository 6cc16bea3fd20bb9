"""kill -9 of each program of the stack in turn, Dagster's daemon and its workers among them, while the flights go on.

Nothing is sent twice or lost, every outcome that came is counted, cancelled flights stay without one, and the
partitions of ground truth are joined in the end, whatever died while they were.
"""

import json
import os
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from runway_client import connect

from assets.flights.data import column, flights, instant
from assets.flights.fleet import FIRST_DAY, FLEET
from assets.flights.labels import WINDOW, outcomes
from assets.flights.training import rows_between
from assets.ground_truth import DAILY
from tests.e2e.stacks import READY_S_MAX, STORY_S_MAX, Stack, await_that, clock_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROGRAMS = (
    ("dagster-daemon", "run"),
    ("-m", "control_plane"),
    ("api", "execute_run"),
    ("code-server", "start"),
    ("assets.flights.replay",),
    ("dagster-daemon", "run"),
    ("-m", "control_plane"),
    ("dagster-webserver",),
)
"""Words of the command lines of what is killed, in this order."""

KILLS = int(os.environ.get("RUNWAY_FAULT_KILLS", str(len(PROGRAMS))))
DAYS_CHECKED = 6


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "home", days=20, seconds_per_day=2)
    try:
        yield made
    finally:
        if made.started is not None and made.started.poll() is None:
            made.end()
        for process in made.family():
            process.kill()


def partitions_joined(stack: Stack) -> tuple[int, int]:
    """(materialized, failed) partitions of the daily join, as Dagster's page shows them."""
    query = (
        "{assetNodes(assetKeys: [{path: [%s]}]) {partitionStats {numMaterialized numFailed}}}" % json.dumps(DAILY)  # noqa: UP031
    )
    request = urllib.request.Request(
        f"http://{stack.environment['RUNWAY_WEB_ADDRESS']}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            nodes = json.load(answer)["data"]["assetNodes"]
    except OSError:
        return 0, 0
    stats = nodes[0]["partitionStats"] if nodes else None
    return (int(stats["numMaterialized"]), int(stats["numFailed"])) if stats else (0, 0)


def test_every_program_may_die_and_the_truth_is_counted_once(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWAY_HOME", str(stack.home))
    stack.up()
    stack.until(r"Runway is up", READY_S_MAX)
    killed: dict[str, int] = {}
    with connect(stack.address, actor="faults", retry_for_s=120) as runway:
        for kill in range(KILLS):
            words = PROGRAMS[kill % len(PROGRAMS)]
            killed[" ".join(words)] = killed.get(" ".join(words), 0) + stack.kill(*words)
            before = clock_of(runway)
            await_that(
                lambda: clock_of(runway) > before or before >= FIRST_DAY + timedelta(days=20),  # noqa: B023 (called now)
                STORY_S_MAX,
                f"time goes on after {words} died",
            )
        last = FIRST_DAY + timedelta(days=DAYS_CHECKED)
        await_that(
            lambda: clock_of(runway) >= last + WINDOW + timedelta(days=1), STORY_S_MAX, "the days are over and mature"
        )
        assert all(killed[" ".join(words)] for words in PROGRAMS if words != ("api", "execute_run")), killed
        for model in FLEET:
            rows = rows_between(FIRST_DAY, last, model.origin)
            value, _ = outcomes(model, rows)
            answer = runway.ground_truth.get_coverage(model.model_id, start=FIRST_DAY, end=last)
            found = (answer.total.predicted, answer.total.joined, answer.total.orphans)
            assert found == (len(rows), int((~np.isnan(value)).sum()), 0), model.model_id
            assert found[1] < found[0]  # some were cancelled, and nobody made up what became of them
        assert column(flights(), "scheduled").max() > instant(last)
        await_that(lambda: partitions_joined(stack)[0] >= DAYS_CHECKED, STORY_S_MAX, "the days are joined in Dagster")
    assert stack.end() == 0
    assert stack.family() == []
