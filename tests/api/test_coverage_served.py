"""Coverage against the real control plane: the number, its cause, the alert and the command line tell one story."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from runway_cli.main import run
from runway_client import (
    OutcomeBatch,
    PredictionBatch,
    Runway,
    Why,
    connect,
    messages,
    outcome_batch,
    prediction_batch,
    prediction_ids,
    to_duration,
    to_timestamp,
)

from tests.api.served_plane import ServedPlane

DAY = datetime(2013, 3, 1, tzinfo=UTC)
DAYS = 12
PER_DAY = 600


@pytest.fixture
def runway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runway]:
    served = ServedPlane(tmp_path, monkeypatch)
    served.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", served.address)
    with connect(served.address, "anna", retry_for_s=20) as client:
        yield client
    served.stop()
    served.close()


def register(client: Runway, model_id: str) -> None:
    """A binary model in production whose outcomes count for a day."""
    client.registry.register_model(
        messages.Model(
            model_id=model_id,
            owner="anna@example.com",
            team="flight_ops",
            tier=messages.TIER_1,
            task_type=messages.TASK_TYPE_BINARY,
            policies=messages.Policies(label=messages.LabelSpec(window=to_duration(timedelta(days=1)))),
        )
    )
    version = client.registry.register_version(
        messages.ModelVersion(
            model_id=model_id, artifact_uri="file:///m", artifact_sha256="0" * 64, trained_until=to_timestamp(DAY)
        )
    )
    client.rollouts.promote_version(model_id, version.version, force=True, why=Why(reason="first"))


def live(client: Runway, *, labelled: float = 0.97, silent_from: int = DAYS, chosen: bool = False) -> None:
    """Days of two models: `fine`, and `ill`, of which one of two senders falls silent, or only low scores are told."""
    client.operations.advance_clock(DAY)
    register(client, "fine")
    register(client, "ill")
    rng = np.random.default_rng(7)
    for day in range(DAYS):
        for model_id in ("fine", "ill"):
            start = np.datetime64(DAY.replace(tzinfo=None), "us") + np.timedelta64(day, "D")
            at = start + np.sort(rng.integers(0, 86_400, PER_DAY)) * np.timedelta64(1, "s")
            ids = prediction_ids(at, rng.integers(0, 2**62, PER_DAY))
            score = rng.beta(2, 4, PER_DAY)
            carrier = rng.choice(["AA", "MQ"], PER_DAY)
            columns = prediction_batch(ids, at, score, {}, {"carrier": carrier.tolist()})
            sent = PredictionBatch(
                batch_id=f"p{day}", model_id=model_id, version=1, arrow_ipc=columns, source="serving"
            )
            assert all(answer.refused is None for answer in client.ground_truth.ingest_predictions([sent]))
            told = rng.random(PER_DAY) < (1.1 - score if chosen and model_id == "ill" else labelled)
            sender = rng.random(PER_DAY) < 0.5
            for name, theirs in (("tower", sender), ("airline", ~sender)):
                if model_id == "ill" and name == "airline" and day >= silent_from:
                    continue
                rows = np.flatnonzero(told & theirs)
                value = (rng.random(len(rows)) < score[rows]).astype(np.float64)
                outcomes = outcome_batch(ids[rows], at[rows] + np.timedelta64(40, "m"), value)
                batch = OutcomeBatch(
                    batch_id=f"o{name}{day}", model_id=model_id, arrow_ipc=outcomes, source=f"{name}-feed"
                )
                assert all(answer.refused is None for answer in client.ground_truth.ingest_outcomes([batch]))
        client.operations.advance_clock(DAY + timedelta(days=day + 1))
    settle(client)


def settle(client: Runway) -> None:
    """Wait until all that is due is joined."""
    client.facts.join_partition(DAY, DAY + timedelta(days=DAYS))


def alerted(client: Runway) -> messages.ModelCoverage:
    """The worst model, once its alert stands: the evaluator looks soon after the evidence came."""
    deadline = time.monotonic() + 30
    while True:
        worst = client.ground_truth.list_coverage().models[0]
        if worst.alert or time.monotonic() > deadline:
            assert worst.alert
            return worst
        time.sleep(0.05)


def test_a_silent_sender_is_named_by_coverage_alert_and_fleet(
    runway: Runway, capsys: pytest.CaptureFixture[str]
) -> None:
    live(runway, silent_from=4)
    answer = runway.ground_truth.get_coverage("ill")
    assert answer.total.coverage < 0.7
    first = answer.findings[0]
    assert first.cause == messages.COVERAGE_CAUSE_SOURCE_SILENT
    assert "airline-feed has sent no outcome since 2013-03-05" in first.explanation
    assert runway.ground_truth.get_coverage("fine").findings == []

    fleet = runway.ground_truth.list_coverage()
    assert [(one.model_id, one.low) for one in fleet.models] == [("ill", True), ("fine", False)]
    assert (fleet.total, fleet.low) == (2, 1)
    assert fleet.models[0].total.coverage == pytest.approx(answer.total.coverage)
    assert [one.model_id for one in runway.ground_truth.list_coverage(low_only=True).models] == ["ill"]

    worst = alerted(runway)
    assert worst.cause == messages.COVERAGE_CAUSE_SOURCE_SILENT
    assert "airline-feed has sent no outcome since" in worst.explanation
    assert run(["events", "--model", "ill"]) == 0
    assert f"80.0% is asked for. {worst.explanation}" in capsys.readouterr().out

    assert run(["coverage", "ill"]) == 0
    told = capsys.readouterr().out
    assert "Likely cause: source silent (" in told
    assert "airline-feed has sent no outcome since" in told
    assert "WHAT TO DO\n1. Look after airline-feed" in told
    assert run(["coverage", "ill", "--by", "slice"]) == 0
    assert "carrier=MQ" in capsys.readouterr().out
    assert run(["coverage"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 of 2 models has less of the truth than its policy asks for.\n")
    assert run(["coverage", "--low", "--json"]) == 0
    assert [one["model_id"] for one in json.loads(capsys.readouterr().out)["models"]] == ["ill"]
    assert run(["coverage", "--by", "hour"]) == 2
    assert "of which model?" in capsys.readouterr().err


def test_labels_that_go_by_the_score_bring_a_warning_and_weights(
    runway: Runway, capsys: pytest.CaptureFixture[str]
) -> None:
    live(runway, chosen=True)
    alike = runway.ground_truth.get_coverage("ill").representativeness
    assert not alike.representative
    assert alike.psi > alike.psi_chance + 0.02
    assert len(alike.weights) == len(alike.score_edges) + 1
    assert alike.weights[-1] > alike.weights[0]
    rate = {metric.name: metric for metric in alike.weighted}["base_rate"]
    assert rate.low < 1 / 3 < rate.high  # the mean of the scores, by which values are drawn
    assert runway.ground_truth.get_coverage("fine").representativeness.representative
    assert run(["coverage", "ill"]) == 0
    assert "NO RANDOM SAMPLE" in capsys.readouterr().out
