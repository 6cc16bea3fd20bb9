"""Dagster's asset lineage: from definitions and an instance here, and from a real webserver."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import pytest
from runway.v1 import lineage_pb2
from runway_cli.main import run
from runway_client import connect, messages
from runway_lineage.dagster_assets import read_dagster, read_definitions
from runway_lineage.reading import SourceError

from tests.api.served_plane import ServedPlane
from tests.dagster.worlds import World
from tests.lineage_sources import location

STATIC, COMPLETE = messages.RUN_STATE_STATIC, messages.RUN_STATE_COMPLETE


def edges(one: lineage_pb2.LineageRun) -> tuple[list[str], list[str]]:
    """Names of what it read and wrote."""
    return (
        [node.node_id or node.external_id for node in one.inputs],
        [node.node_id or node.external_id for node in one.outputs],
    )


def test_definitions_and_materializations_become_facts() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        executed = dg.materialize([location.temp, location.churn, location.raw], instance=instance)
        reading = read_definitions(location.defs, instance, "here")
    by_job = {(one.job, one.state): one for one in reading.runs}
    assert set(by_job) == {(f"here/{name}", state) for name in ("temp", "churn") for state in (STATIC, COMPLETE)}
    assert edges(by_job["here/temp", STATIC]) == (["dagster://here/lake/raw"], ["feature:temp"])
    assert edges(by_job["here/churn", STATIC]) == (["feature:temp"], ["dagster://here/churn"])
    ran = by_job["here/churn", COMPLETE]
    assert edges(ran) == (["feature:temp"], ["dagster://here/churn"])
    assert (ran.source, ran.run_id) == ("dagster", executed.run_id)
    # What it was made from, by Dagster's own account.
    assert ran.inputs[0].version == by_job["here/temp", COMPLETE].outputs[0].version != ""
    assert ran.outputs[0].kind == messages.NODE_KIND_MODEL
    assert by_job["here/temp", STATIC].inputs[0].title == "lake/raw"


def test_a_run_counts_by_what_it_was_made_from_then() -> None:
    """The definition has moved on; the run of before still says what it read."""
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([location.temp, location.churn, location.raw], instance=instance)
        other = dg.AssetSpec("other")

        @dg.asset(name="churn", deps=[other])
        def moved_on() -> None: ...

        reading = read_definitions(dg.Definitions(assets=[other, location.temp, moved_on]), instance, "here")
    of_churn = {one.state: edges(one)[0] for one in reading.runs if one.job == "here/churn"}
    assert of_churn == {STATIC: ["dagster://here/other"], COMPLETE: ["feature:temp"]}


def test_runs_before_since_are_left_out() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([location.temp, location.churn, location.raw], instance=instance)
        reading = read_definitions(location.defs, instance, "here", since=datetime.now(UTC))
    assert {one.state for one in reading.runs} == {STATIC}


def test_our_own_assets_are_the_nodes_they_were_drawn_from() -> None:
    """What Runway declared and Dagster ran comes back under the same names."""
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(instance)
        try:
            world.plane.ask("air_time")
            for lease in world.leases():
                assert world.execute(lease).success
            reading = read_definitions(world.defs, instance, "fleet")
        finally:
            world.close()
    of_air_time = {one.state: edges(one) for one in reading.runs if one.job == "fleet/air_time"}
    assert of_air_time == dict.fromkeys((STATIC, COMPLETE), (["feature:temp"], ["model:air_time"]))
    assert all(
        name.split(":")[0] in {"dataset", "feature", "model", "consumer"}
        for one in reading.runs
        for part in edges(one)
        for name in part
    )


class _Answering(BaseHTTPRequestHandler):
    body = b"<html>not Dagster</html>"

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        """Say nothing."""


@contextlib.contextmanager
def answering(body: bytes) -> Iterator[str]:
    handler = type("Handler", (_Answering,), {"body": body})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>not Dagster</html>", "does not answer as Dagster does"),
        (b"[]", "does not answer as Dagster does"),
        (b'{"errors": [{"message": "Cannot query field"}]}', "refuses the question: Cannot query field"),
        (b"{}", "it sent no data"),
    ],
)
def test_what_is_not_dagster_is_named(body: bytes, said: str) -> None:
    with answering(body) as url, pytest.raises(SourceError, match=said):
        read_dagster(url)


def test_an_address_that_is_none_or_where_nobody_listens() -> None:
    with pytest.raises(SourceError, match="write http://HOST:PORT"):
        read_dagster("file:///etc/passwd")
    with pytest.raises(SourceError, match="is its webserver running there"):
        read_dagster("http://127.0.0.1:1")


def test_an_asset_that_cannot_be_read_keeps_no_other_back() -> None:
    odd = {"assetKey": {"path": ["odd"]}}
    fine = {
        "assetKey": {"path": ["fine"]},
        "description": None,
        "kinds": [],
        "dependencyKeys": [{"path": ["a"]}],
        "repository": {"location": {"name": "here"}},
        "metadataEntries": [{"label": "runway/node"}],
        "assetMaterializations": [],
    }
    reading = read_dagster("http://x", ask=lambda query, variables: {"assetNodes": [odd, fine]})
    assert [one.job for one in reading.runs] == ["here/fine"]
    assert len(reading.unreadable) == 1


@pytest.fixture
def webserver(tmp_path: Path) -> Iterator[str]:
    """A real one, on the location of this folder."""
    home = tmp_path / "dagster"
    home.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = Path(location.__file__)
    environment = os.environ | {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
    subprocess.run(
        [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "*", "-f", str(file)],
        env=environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    log = (tmp_path / "webserver.log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port), "-f", str(file)],
        env=environment,
        stdout=log,
        stderr=log,
    )
    try:
        url, ready = f"http://127.0.0.1:{port}", threading.Event()
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None, Path(log.name).read_text(encoding="utf-8")
            ready.wait(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@pytest.mark.slow
def test_a_real_webserver(webserver: str, served: ServedPlane, capsys: pytest.CaptureFixture[str]) -> None:
    for said in ("new", "nothing new"):
        assert run(["discover", "dagster", "--url", webserver]) == 0
        assert said in capsys.readouterr().out
    with connect(served.address) as client:
        found = {
            (edge.dependency.upstream_id, edge.dependency.downstream_id): edge for edge in client.lineage.list_edges()
        }
        nodes = {node.node_id: node for node in client.graph.get_graph().nodes}
    assert len(found) == 2
    (churn,) = [node_id for node_id in nodes if node_id.startswith("model:")]
    seen = found["feature:temp", churn].sightings[0]
    assert (seen.source, seen.job) == ("dagster", "location.py/churn")
    assert seen.evidence_url.startswith(webserver)
    assert any(name.endswith("/lake/raw") for node in nodes.values() for name in node.external_ids)
