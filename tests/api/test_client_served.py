"""Client and command line against the real control plane: what a newcomer's script does, over a restart."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from runway_cli.main import run
from runway_client import (
    AlreadyExists,
    Histogram,
    HistogramBatch,
    InvalidRequest,
    NotFound,
    OutcomeBatch,
    PredictionBatch,
    Refused,
    Runway,
    Unreachable,
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


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedPlane]:
    one = ServedPlane(tmp_path, monkeypatch)
    one.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", one.address)
    yield one
    one.stop()
    one.close()


@pytest.fixture
def runway(served: ServedPlane) -> Iterator[Runway]:
    with connect(served.address, "anna", retry_for_s=20) as client:
        fill(client)
        yield client


def fill(client: Runway) -> None:
    """Two models, one feeding the other, a feature, a dataset; the first in production."""
    client.operations.advance_clock(DAY)
    for model_id, task in (("air_time", messages.TASK_TYPE_REGRESSION), ("arrival_delay", messages.TASK_TYPE_BINARY)):
        client.registry.register_model(
            messages.Model(
                model_id=model_id,
                owner="anna@example.com",
                team="flight_ops",
                tier=messages.TIER_1,
                task_type=task,
                policies=messages.Policies(label=messages.LabelSpec(window=to_duration(timedelta(days=1)))),
            )
        )
    client.graph.declare_nodes(
        [messages.Node(node_id="dataset:weather"), messages.Node(node_id="feature:temp")], why=Why(reason="fleet")
    )
    client.graph.declare_dependencies(
        [
            messages.Dependency(upstream_id=up, downstream_id=down, type=kind)
            for up, down, kind in (
                ("dataset:weather", "feature:temp", messages.DEPENDENCY_TYPE_DERIVED_FROM),
                ("feature:temp", "model:air_time", messages.DEPENDENCY_TYPE_READS_FEATURE),
                ("model:air_time", "model:arrival_delay", messages.DEPENDENCY_TYPE_CONSUMES_OUTPUT),
            )
        ]
    )
    version = client.registry.register_version(
        messages.ModelVersion(
            model_id="air_time",
            artifact_uri="file:///air_time",
            artifact_sha256="0" * 64,
            trained_until=to_timestamp(DAY),
        )
    )
    client.rollouts.promote_version("air_time", version.version, force=True, why=Why(reason="first"))


def flights(hour: int, rows: int = 50) -> tuple[PredictionBatch, OutcomeBatch]:
    at = (
        np.datetime64(DAY.replace(tzinfo=None), "us")
        + np.arange(rows) * np.timedelta64(1, "s")
        + np.timedelta64(hour, "h")
    )
    ids = prediction_ids(at, np.arange(rows) + hour * rows)
    predictions = PredictionBatch(
        batch_id=f"p{hour}",
        model_id="air_time",
        version=1,
        arrow_ipc=prediction_batch(ids, at, np.full(rows, 100.0), {"temp": np.linspace(0, 1, rows)}),
    )
    outcomes = OutcomeBatch(
        batch_id=f"o{hour}",
        model_id="air_time",
        arrow_ipc=outcome_batch(ids[:-5], at[:-5] + np.timedelta64(2, "h"), np.full(rows - 5, 103.0)),
    )
    return predictions, outcomes


def test_a_fleet_is_read_back(runway: Runway) -> None:
    assert [model.model_id for model in runway.registry.list_models()] == ["air_time", "arrival_delay"]
    assert runway.registry.get_version("air_time", alias="production").version == 1
    impact = runway.graph.get_impact("dataset:weather", min_revision=runway.revision)
    assert [one.node_id for one in impact.reached] == ["feature:temp", "model:air_time", "model:arrival_delay"]
    assert impact.completeness.complete
    asked = runway.retraining.request_retrain("air_time", ignore_cooldown=True, why=Why(reason="because"))
    again = runway.retraining.request_retrain("air_time", why=Why(reason="because"))
    assert (asked.created, again.created) == (True, False)
    assert runway.retraining.cancel_retrain(asked.retrain.retrain_id).state == messages.RETRAIN_STATE_CANCELLED
    assert runway.operations.get_status().leader
    reasons = [event.reason for event in runway.operations.list_events() if event.actor == "anna"]
    assert "because" in reasons


def test_a_repeated_request_id_changes_nothing_again(runway: Runway) -> None:
    model = messages.Model(
        model_id="twin",
        owner="anna@example.com",
        team="flight_ops",
        tier=messages.TIER_2,
        task_type=messages.TASK_TYPE_BINARY,
    )
    runway.registry.register_model(model, why=Why(request_id="once"))
    before = runway.revision
    runway.registry.register_model(model, why=Why(request_id="once"))
    assert runway.revision == before
    with pytest.raises(AlreadyExists, match="twin"):
        runway.registry.register_model(model)


def test_errors_of_the_real_server_are_sentences(runway: Runway) -> None:
    with pytest.raises(NotFound) as lost:
        runway.registry.get_model("air_tim")
    assert lost.value.reason == "MODEL_NOT_FOUND"
    with pytest.raises(InvalidRequest) as invalid:
        runway.registry.register_model(messages.Model(model_id="Bad Name"))
    assert {violation.field for violation in invalid.value.violations} >= {
        "model.model_id",
        "model.team",
        "model.tier",
    }
    with pytest.raises(Refused) as cycle:
        runway.graph.declare_dependencies(
            [
                messages.Dependency(
                    upstream_id="model:arrival_delay",
                    downstream_id="model:air_time",
                    type=messages.DEPENDENCY_TYPE_CONSUMES_OUTPUT,
                )
            ]
        )
    assert cycle.value.reason == "DEPENDENCY_CYCLE"
    assert "model:air_time" in str(cycle.value)


def test_facts_are_stored_once_and_read_back(runway: Runway) -> None:
    pairs = [flights(hour) for hour in range(12)]
    answers = list(runway.ingest_predictions(predictions for predictions, _ in pairs))
    assert [(answer.rows, answer.duplicate, answer.refused) for answer in answers] == [(50, False, None)] * 12
    answers = list(runway.ingest_outcomes(outcomes for _, outcomes in pairs))
    assert [(answer.rows, answer.refused) for answer in answers] == [(45, None)] * 12
    again = list(runway.ingest_predictions([pairs[0][0]]))
    assert again[0].duplicate
    runway.operations.advance_clock(DAY + timedelta(days=3))
    coverage = runway.ground_truth.get_coverage("air_time")
    assert (coverage.total.predicted, coverage.total.joined) == (600, 540)
    assert coverage.total.coverage == pytest.approx(0.9)
    metrics = {metric.name: metric.value for metric in runway.ground_truth.get_performance("air_time").total.metrics}
    assert metrics["mae"] == pytest.approx(3.0)


def test_hours_that_a_producer_counted_are_stored_once_and_refused_one_by_one(runway: Runway) -> None:
    profile = b'{"features": {"temp": {"kind": "numeric", "edges": [0.0, 1.0], "counts": [5, 5, 5, 0]}}}'
    version = runway.registry.register_version(
        messages.ModelVersion(
            model_id="air_time",
            artifact_uri="file:///artifacts/profiled",
            artifact_sha256="c" * 64,
            trained_until=to_timestamp(DAY),
        ),
        reference_profile=profile,
    ).version
    hours = [
        HistogramBatch(
            batch_id=f"h{number}",
            model_id="air_time",
            version=version,
            producer="gateway",
            hour=DAY - timedelta(hours=number),
            predictions=7,
            features=[Histogram(name="temp", edges=edges, counts=[1, 2, 3, 1])],
        )
        for number, edges in enumerate([(0.0, 1.0), (0.0, 2.0), (0.0, 1.0)])
    ]
    first, refused, third = runway.ingest_histograms(hours)
    assert (first.rows, first.duplicate, third.rows) == (7, False, 7)
    assert refused.refused is not None
    assert "sent [0.0, 2.0], the reference has [0.0, 1.0]" in str(refused.refused)
    assert [answer.duplicate for answer in runway.ingest_histograms(hours[::2])] == [True, True]


def test_bad_batches_are_refused_one_by_one(runway: Runway) -> None:
    good, _ = flights(0)
    bad = [
        PredictionBatch(batch_id="x1", model_id="air_time", version=1, arrow_ipc=b"not arrow"),
        PredictionBatch(batch_id="x2", model_id="air_time", version=9, arrow_ipc=good.arrow_ipc),
        PredictionBatch(batch_id="x3", model_id="nosuch", version=1, arrow_ipc=good.arrow_ipc),
    ]
    first, second, third, fourth = runway.ingest_predictions([*bad, good])
    assert first.refused is not None
    assert first.refused.reason == "INVALID_BATCH"
    assert second.refused is not None
    assert second.refused.reason == "VERSION_NOT_FOUND"
    assert isinstance(third.refused, NotFound)
    assert (fourth.rows, fourth.refused) == (50, None)


def test_a_restart_is_survived_by_watch_reads_and_ingest(served: ServedPlane, runway: Runway) -> None:
    seen: list[int] = []
    renamed = threading.Event()
    start = runway.revision

    def read() -> None:
        for item in runway.watch(start):
            if isinstance(item, messages.Event):
                seen.append(item.revision)
                if item.reason == "after the restart":
                    renamed.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert [answer.rows for answer in runway.ingest_predictions([flights(0)[0]])] == [50]
    served.stop()
    with connect(served.address, retry_for_s=0) as impatient, pytest.raises(Unreachable):
        impatient.operations.get_status()
    served.start()
    assert runway.registry.get_model("air_time").aliases["production"] == 1
    answers = list(runway.ingest_predictions([flights(0)[0], flights(1)[0]]))
    assert [answer.duplicate for answer in answers] == [True, False]
    runway.operations.hold_retraining(why=Why(reason="after the restart"))
    assert renamed.wait(30)
    runway.close()
    reader.join(10)
    assert seen == list(range(start + 1, start + len(seen) + 1))


def test_the_command_line_reads_the_real_thing(runway: Runway, capsys: pytest.CaptureFixture[str]) -> None:
    for line, code, expected in (
        ("status", 0, "2 models, 4 nodes, 3 dependencies"),
        ("models list", 0, "air_time"),
        ("models show arrival_delay", 0, "binary model on tier 1"),
        ("models history air_time", 0, "production"),
        ("versions list air_time", 0, "v1"),
        ("impact weather", 0, "dataset:weather reaches 3 nodes in 3 waves: 2 models (2 on tier 1) and 1 feature."),
        ("impact arrival_delay --upstream", 0, "model:arrival_delay depends on 3 nodes in 3 waves"),
        ("graph", 0, "4 nodes"),
        ("staleness show", 0, "UNKNOWN"),
        ("staleness explain air_time", 0, "air_time is UNKNOWN"),
        ("retrains list", 0, "no retrains yet"),
        ("retrains request air_time --ignore-cooldown --reason why --dry-run", 0, "nothing was changed"),
        ("retrains request air_time --ignore-cooldown --reason why", 0, "rt_000001 of air_time was requested."),
        ("retrains show rt_000001", 0, "rt_000001 of air_time: requested"),
        ("retrains cancel rt_000001 --reason enough", 0, "rt_000001 of air_time was cancelled."),
        ("rollouts list", 0, "ro_000001"),
        ("coverage air_time", 0, "air_time made no predictions"),
        ("performance air_time", 0, "air_time has no prediction of this time with a final outcome"),
        ("hold --reason storm", 0, "Retraining is held"),
        ("release", 0, "Retraining is released"),
        ("events --model air_time", 0, "rt_000001"),
        ("models show air_tme", 1, "did you mean air_time?"),
        ("impact wheather", 1, "did you mean dataset:weather?"),
        ("retrains cancel rt_000001", 1, "rt_000001"),
    ):
        assert run(line.split()) == code, (line, capsys.readouterr())
        captured = capsys.readouterr()
        assert expected in captured.out + captured.err, line


def test_json_of_the_real_thing(runway: Runway, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["impact", "dataset:weather", "--json"]) == 0
    reached = json.loads(capsys.readouterr().out)["reached"]
    assert [(one["node_id"], one["wave"]) for one in reached] == [
        ("feature:temp", 1),
        ("model:air_time", 2),
        ("model:arrival_delay", 3),
    ]
