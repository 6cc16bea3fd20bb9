"""Metaflow's runs as lineage, from flows that really ran."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from metaflow.client import core
from runway.v1 import lineage_pb2
from runway_cli.main import run
from runway_client import connect, messages
from runway_lineage import metaflow_runs
from runway_lineage.metaflow_runs import read_metaflow
from runway_lineage.reading import Reading, SourceError

from tests.api.served_plane import ServedPlane
from tests.lineage_sources.conftest import Datastore

pytestmark = pytest.mark.slow


class Ran:
    """Everything that was run once for this module, in order."""

    def __init__(self, store: Datastore) -> None:
        self.store = store
        self.plain = store.run("plain")
        self.routes = store.run("routes", user="boris")
        self.first = store.run("arrivals")
        self.failed = store.run("arrivals", FAIL="1")
        self.resumed = store.run("arrivals", "resume")
        self.odd = store.run("plain", READS="3")
        self.misnamed = store.run("plain", READS='["dataset:weather", "model:Air Time"]')
        self.killed = store.run("plain", DIE="1")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(Datastore(tmp_path_factory.mktemp("metaflow") / "store"))


def named(nodes: "list[lineage_pb2.LineageNode]") -> dict[str, str]:
    """Nodes by their name, with the version."""
    return {node.node_id or node.external_id: node.version for node in nodes}


def runs_of(reading: Reading) -> dict[str, lineage_pb2.LineageRun]:
    return {one.run_id: one for one in reading.runs}


def test_finished_runs_become_facts(ran: Ran) -> None:
    reading = read_metaflow(metadata=ran.store.metadata)
    runs = runs_of(reading)
    assert set(runs) == {f"Routes/{ran.routes}", f"Arrivals/{ran.first}", f"Arrivals/{ran.resumed}"}
    routes = runs[f"Routes/{ran.routes}"]
    assert (routes.source, routes.job, routes.state) == ("metaflow", "Routes", messages.RUN_STATE_COMPLETE)
    assert set(named(list(routes.inputs))) == {
        *("dataset:schedule", "s3://lake/airports"),
        *("feature:east", "feature:west"),
    }
    version = f"Routes/{ran.routes}"
    assert named(list(routes.outputs)) == {"model:route_embedding": version, "dataset:route_report": version}
    assert abs(routes.event_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(hours=1)


def test_reads_of_other_flows_are_recorded_with_the_exact_run(ran: Ran) -> None:
    runs = runs_of(read_metaflow(metadata=ran.store.metadata))
    read = {"model:route_embedding": f"Routes/{ran.routes}", "metaflow://Plain": f"Plain/{ran.plain}"}
    for run_id in (ran.first, ran.resumed):
        arrivals = runs[f"Arrivals/{run_id}"]
        # Only the artifact that was read: the report that the flow makes too is no input.
        assert named(list(arrivals.inputs)) == read
        assert named(list(arrivals.outputs)) == {"model:arrival_delay": f"Arrivals/{run_id}"}


def test_what_is_left_out_is_said(ran: Ran) -> None:
    reading = read_metaflow(metadata=ran.store.metadata)
    assert reading.notes == {"running or given up": 2, "without lineage": 1}
    why = {one.what: one.why for one in reading.unreadable}
    assert set(why) == {f"Plain/{ran.odd}", f"Plain/{ran.misnamed}"}
    assert "is a int: write a list of node ids or names" in why[f"Plain/{ran.odd}"]
    assert "'model:Air Time' is not a node id" in why[f"Plain/{ran.misnamed}"]


def test_the_next_look_begins_where_something_was_not_finished(ran: Ran) -> None:
    first = read_metaflow(metadata=ran.store.metadata)
    core.namespace(None)
    core.metadata(ran.store.metadata)
    unfinished = core.Run(f"Arrivals/{ran.failed}").created_at.astimezone(UTC)
    assert first.next_since is not None
    assert first.next_since == unfinished - metaflow_runs.OVERLAP
    again = read_metaflow(metadata=ran.store.metadata, since=first.next_since)
    assert runs_of(again).keys() == runs_of(first).keys()
    assert not read_metaflow(metadata=ran.store.metadata, since=datetime.now(UTC)).runs


def test_flows_and_tags_narrow_it(ran: Ran) -> None:
    only = read_metaflow(metadata=ran.store.metadata, flows=["Routes"])
    assert set(runs_of(only)) == {f"Routes/{ran.routes}"}
    of_boris = read_metaflow(metadata=ran.store.metadata, tags=["user:boris"])
    assert set(runs_of(of_boris)) == {f"Routes/{ran.routes}"}
    missing = read_metaflow(metadata=ran.store.metadata, flows=["Nobody"])
    assert [one.what for one in missing.unreadable] == ["Nobody"]


def test_a_run_that_was_deleted_after_it_was_read_is_reported(ran: Ran, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(ran.store.folder, copy)
    shutil.rmtree(copy / ".metaflow" / "Routes" / ran.routes)
    reading = read_metaflow(metadata=f"local@{copy}")
    assert f"Routes/{ran.routes}" in {one.what for one in reading.unreadable}
    arrivals = runs_of(reading)[f"Arrivals/{ran.first}"]
    assert named(list(arrivals.inputs))["metaflow://Routes"] == f"Routes/{ran.routes}"


def test_an_artifact_that_cannot_be_loaded_keeps_its_run_out_and_no_other(ran: Ran, tmp_path: Path) -> None:
    """Blobs are named by their content; the artifact's metadata names one that is not there."""
    copy = tmp_path / "store"
    shutil.copytree(ran.store.folder, copy)
    for file in (copy / ".metaflow" / "Routes").rglob("*artifact_runway_reads.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(
            json.dumps(content | {"sha": "0" * 40, "location": f":root:{copy}/.metaflow"}), encoding="utf-8"
        )
    for blob in (copy / ".metaflow" / "Routes" / "data").rglob("*"):
        if blob.is_file():
            blob.write_bytes(b"not what it was")
    reading = read_metaflow(metadata=f"local@{copy}", flows=["Routes", "Arrivals"])
    assert f"Routes/{ran.routes}" not in runs_of(reading)
    assert f"Arrivals/{ran.first}" in runs_of(reading)
    assert f"Routes/{ran.routes}" in {one.what for one in reading.unreadable}


def test_a_wrong_place_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="write local@PATH"):
        read_metaflow(metadata=f"local@{tmp_path}")


def test_the_callers_namespace_is_put_back(ran: Ran) -> None:
    core.namespace("user:somebody")
    read_metaflow(metadata=ran.store.metadata)
    assert core.get_namespace() == "user:somebody"


def test_discover_tells_the_control_plane_once(
    ran: Ran, served: ServedPlane, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cursor = tmp_path / "cursor.json"
    line = ["discover", "metaflow", "--metadata", ran.store.metadata, "--cursor", str(cursor)]
    assert run(line) == 0
    first = capsys.readouterr().out
    assert "Runway was told of 3 runs" in first
    assert "3 of them were new" in first
    assert "is not a node id" in first
    assert run(line) == 0
    assert "nothing new" in capsys.readouterr().out
    assert json.loads(cursor.read_text(encoding="utf-8"))["next_since"]
    with connect(served.address) as client:
        edges = {
            (edge.dependency.upstream_id, edge.dependency.downstream_id): edge
            for edge in client.lineage.list_edges(source="metaflow")
        }
        shown = edges["model:route_embedding", "model:arrival_delay"]
        assert shown.state == messages.EDGE_STATE_ACTIVE
        assert shown.sightings[0].runs_seen == 2
        assert shown.sightings[0].run_id == f"Arrivals/{ran.resumed}"
        reached = {one.node_id for one in client.graph.get_impact("feature:east").reached}
    assert {"model:route_embedding", "model:arrival_delay"} <= reached
