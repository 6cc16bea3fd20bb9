"""What a real Airflow 3 with its OpenLineage provider sent (`python -m tools.airflow_lineage --record`), told again."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.core.fleets import Fleet
from tests.openlineage.folds import edges_of, told
from tests.openlineage.http import Event
from tests.openlineage.known import Known
from tools.airflow_lineage.__main__ import run_pipeline

FOLDER = Path(__file__).parent / "airflow_events"
EVENTS: list[Event] = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]

EDGES = {
    ("file//data/fares/raw.csv", "file//data/fares/clean.parquet"),
    ("file//data/fares/clean.parquet", "file//data/fares/features.parquet"),
    ("file//data/fares/features.parquet", "mlflow://models/fare"),
    ("dataset:weather", "mlflow://models/fare"),
    ("mlflow://models/fare", "postgres://db:5432/shop.public.scores"),
    ("model:air_time", "postgres://db:5432/shop.public.scores"),
}


def of(job: str, state: str) -> Event:
    """The event of a job."""
    (event,) = (event for event in EVENTS if (event["job"]["name"], event["eventType"]) == (job, state))
    return event


def test_what_airflow_sends() -> None:
    """Facts that the rules rest on, so that a new recording that differs is noticed; they are in docs/lineage.md."""
    assert [event["eventType"] for event in EVENTS if event["job"]["name"] == "fares.train"] == ["START", "COMPLETE"]
    # Declared inlets and outlets are listed when a task starts, and again when it fails.
    assert of("fares.clean", "START")["outputs"] == of("fares.clean", "COMPLETE")["outputs"] != []
    assert of("fares.broken", "FAIL")["outputs"] == of("fares.broken", "START")["outputs"] != []
    # What hooks collect while the task runs is there only at its end.
    assert of("fares.features", "START")["inputs"] == []
    assert of("fares.features", "COMPLETE")["inputs"] != []
    # The run of the whole DAG is the parent, and reads and writes nothing.
    assert of("fares", "FAIL")["inputs"] == of("fares", "FAIL")["outputs"] == []
    assert of("fares.clean", "START")["run"]["facets"]["parent"]["run"]["runId"] == of("fares", "FAIL")["run"]["runId"]
    # An asset becomes a dataset without facets; facets of OpenLineage datasets come through.
    assert of("fares.clean", "COMPLETE")["outputs"][0]["facets"] == {}
    assert of("fares.train", "COMPLETE")["outputs"][0]["facets"]["datasetType"]["datasetType"] == "MODEL"


def test_no_names_of_machines_or_people() -> None:
    for event in EVENTS:
        text = json.dumps(event)
        assert str(Path.home()) not in text
        assert str(Path.cwd()) not in text
        assert '"triggering_user_name": "somebody"' in text or "triggering_user_name" not in text


async def test_replayed_one_by_one(known: Known) -> None:
    for event in EVENTS:
        assert (await known.sender.send(event)).status == 201
    edges = await known.edges()
    assert set(edges) == EDGES
    nodes = await known.nodes()
    assert nodes["mlflow://models/fare"].node_id.startswith("model:fare_")
    (seen,) = await known.evidence("dataset:weather", "mlflow://models/fare")
    assert seen.evidence_url.startswith("http://airflow.example.com:8080/dags/fares/runs/")
    assert (seen.job, seen.runs_seen) == ("airflow_test/fares.train", 1)


async def test_replayed_as_a_batch_backwards_and_twice(known: Known) -> None:
    for _ in range(2):
        answer = await known.sender.batch([*reversed(EVENTS), *EVENTS])
        assert (answer.status, answer.body["status"]) == (200, "success")
    assert set(await known.edges()) == EDGES


def test_a_repeated_event_writes_nothing() -> None:
    fleet = Fleet()
    told(fleet, EVENTS)
    before = fleet.state.revision
    told(fleet, EVENTS)
    assert fleet.state.revision == before
    assert edges_of(fleet) == EDGES


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("RUNWAY_TEST_AIRFLOW"),
    reason="installs and runs Airflow: set RUNWAY_TEST_AIRFLOW=1, some 2 minutes",
)
async def test_a_live_airflow(known: Known, tmp_path: Path) -> None:
    await asyncio.to_thread(run_pipeline, known.sender.url, tmp_path / "airflow")
    assert set(await known.edges()) == EDGES
