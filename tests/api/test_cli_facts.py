"""`runway facts` against a real control plane: what people read, and how it exits."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from runway_client import OutcomeBatch, PredictionBatch, Runway, connect, messages, outcome_batch, prediction_batch
from runway_client.arrow import prediction_ids

from control_plane.adapters.parquet.dead_letters import SqliteDeadLetters
from control_plane.app.arrivals import Arrival
from control_plane.app.replica import Submission
from control_plane.core.commands import AdvanceClock
from tests.api.served_plane import ServedPlane
from tests.api.test_cli_rules import Shell

NOW = datetime(2013, 3, 4, 6, tzinfo=UTC)
MADE = [NOW - timedelta(minutes=minute) for minute in range(1, 41)]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedPlane]:
    # What an earlier life could not use.
    letters = SqliteDeadLetters(tmp_path / "home" / "dead_letters")
    for number, (model_id, payload) in enumerate([("air_time", b"nonsense"), ("bag_volume", arrow())]):
        letters.keep(
            Arrival(
                kind="predictions",
                batch_id=f"kafka/runway.predictions/0/{number}",
                source="kafka/runway.predictions",
                model_id=model_id,
                version=1,
                payload=payload,
            ),
            "INVALID_BATCH" if number == 0 else "MODEL_NOT_FOUND",
            "arrow_ipc: not one Arrow IPC stream" if number == 0 else "no model 'bag_volume'",
            NOW - timedelta(minutes=5),
        )
    letters.close()
    one = ServedPlane(tmp_path / "home", monkeypatch)
    one.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", one.address)
    monkeypatch.setenv("COLUMNS", "120")
    yield one
    one.stop()
    one.close()


def arrow() -> bytes:
    return prediction_batch(prediction_ids(MADE, range(len(MADE))), MADE, [0.5] * len(MADE))


def register(runway: Runway, name: str) -> None:
    runway.registry.register_model(
        messages.Model(
            model_id=name,
            team="crew",
            owner="team:crew",
            tier=messages.TIER_3,
            task_type=messages.TASK_TYPE_BINARY,
            policies=messages.Policies(ground_truth=messages.GroundTruthPolicy(sample_rate=0.5)),
        )
    )
    version = messages.ModelVersion(model_id=name, artifact_uri="file:///x", artifact_sha256="a" * 64)
    version.trained_until.FromDatetime(NOW)
    runway.registry.register_version(version)


@pytest.fixture
def runway(served: ServedPlane) -> Iterator[Runway]:
    with connect(served.address, "anna") as one:
        served.look_no_more()
        served.submit(Submission(command=AdvanceClock(to=NOW), actor="a", reason=""))
        register(one, "air_time")
        yield one


@pytest.fixture
def shell(runway: Runway, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_status_says_where_facts_come_from_and_what_is_sampled(shell: Shell, runway: Runway) -> None:
    batch = PredictionBatch(batch_id="1", model_id="air_time", version=1, arrow_ipc=arrow(), source="scorer-7")
    [answer] = runway.ingest_predictions([batch])
    known = outcome_batch(prediction_ids(MADE, range(len(MADE))), MADE, [1.0] * len(MADE))
    list(runway.ingest_outcomes([OutcomeBatch(batch_id="1", model_id="air_time", arrow_ipc=known, source="labels")]))
    assert 0 < answer.rows < len(MADE)
    ran = shell("facts", "status")
    assert ran.code == 0
    for said in (
        "Nothing is degraded.",
        "embedded engine",
        "2 batches could not be used",
        "scorer-7",
        "labels",
        "50.0 %",
    ):
        assert said in ran.out
    told = json.loads(shell("facts", "status", "--json").out)
    assert (told["dead_letters"], told["sampled"][0]["model_id"], len(told["sources"])) == ("2", "air_time", 2)


def test_dead_letters_are_listed_replayed_and_thrown_away(shell: Shell, runway: Runway) -> None:
    ran = shell("facts", "dead-letters")
    assert ran.code == 0
    for said in (
        "kafka/runway.predictions",
        "no model 'bag_volume'",
        "not one Arrow IPC stream",
        "runway facts replay",
    ):
        assert said in ran.out
    assert "bag_volume" not in shell("facts", "dead-letters", "--model", "air_time").out
    register(runway, "bag_volume")
    again = shell("facts", "replay", "--all")
    assert "1 dead letter taken in; 1 still cannot be used:" in again.out
    assert "1 dead letter thrown away." in shell("facts", "discard", "--all").out
    assert "There are no dead letters" in shell("facts", "dead-letters").out
    assert shell("facts", "replay", "--all").out.startswith("0 dead letters taken in; none is left of them.")


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_everything_only_when_it_is_asked_for_by_name(shell: Shell, verb: str) -> None:
    for arguments in ((), ("--all", "1"), ("--all", "--model", "air_time")):
        assert shell("facts", verb, *arguments).code == 2
    assert json.loads(shell("facts", "dead-letters", "--json").out)["total"] == "2"


def test_orphans_are_listed_and_a_slip_is_told(shell: Shell) -> None:
    assert "has found its prediction" in shell("facts", "orphans", "air_time").out
    slip = shell("facts", "orphans", "air_tine")
    assert (slip.code, "did you mean air_time?" in slip.err) == (1, True)
