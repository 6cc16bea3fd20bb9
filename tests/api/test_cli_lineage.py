"""`runway edges`, `disagreements`, `lineage`: what is printed of canned answers, and what a real control plane does."""

import json
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.rpc import code_pb2
from runway.v1 import graph_pb2, lineage_pb2
from runway_cli.main import run
from runway_client import Refused, Runway, Why, connect, messages, to_duration, to_timestamp

from tests.api.canned_fleet import NOW, before, serve_fleet
from tests.api.control_plane_fake import ControlPlaneFake, failure
from tests.api.served_plane import ServedPlane


class Ran(NamedTuple):
    """One command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Runner = Callable[[str], Ran]

TEMP = graph_pb2.Dependency(
    upstream_id="feature:temp", downstream_id="model:air_time", type=graph_pb2.DEPENDENCY_TYPE_READS_FEATURE
)
EDGE = lineage_pb2.Edge(
    dependency=TEMP,
    state=lineage_pb2.EDGE_STATE_SUPPRESSED,
    explanation="boris says that it is not there",
    declaration=lineage_pb2.Declaration(declared_at=before(days=60), declared_by="anna", revision=7),
    sightings=[
        lineage_pb2.Sighting(
            origin=lineage_pb2.EDGE_ORIGIN_DISCOVERED,
            source="metaflow",
            job="TrainAirTime",
            run_id="TrainAirTime/12",
            evidence_url="http://flows/12",
            first_seen_at=before(days=30),
            last_seen_at=before(days=3),
            runs_seen=9,
            runs_missed=2,
            confidence=0.8,
        )
    ],
    override=lineage_pb2.Override(
        present=False,
        owner="boris",
        reason="it is read but not used",
        set_at=before(days=1),
        expires_at=to_timestamp(NOW + timedelta(days=13)),
        revision=40,
    ),
    first_seen_at=before(days=60),
    last_seen_at=before(days=3),
    confidence=1,
)


@pytest.fixture(scope="module")
def server() -> Iterator[ControlPlaneFake]:
    one = ControlPlaneFake()
    yield one
    one.close()


@pytest.fixture
def fake(server: ControlPlaneFake, monkeypatch: pytest.MonkeyPatch) -> ControlPlaneFake:
    server.answers.clear()
    server.calls.clear()
    server.failures.clear()
    serve_fleet(server)
    server.answers |= {
        "LineageService/ListEdges": _edges,
        "LineageService/SetOverride": lambda r, _c: lineage_pb2.SetOverrideResponse(edge=EDGE, revision=43),
        "LineageService/ClearOverride": lambda r, _c: lineage_pb2.ClearOverrideResponse(edge=EDGE, revision=44),
        "LineageService/GetLineagePolicy": lambda _r, _c: lineage_pb2.GetLineagePolicyResponse(policy=_policy()),
        "LineageService/SetLineagePolicy": lambda r, _c: lineage_pb2.SetLineagePolicyResponse(policy=r.policy),
        "LineageService/ReportLineage": lambda r, _c: lineage_pb2.ReportLineageResponse(changed=len(r.runs)),
    }
    monkeypatch.setenv("RUNWAY_ADDRESS", server.address)
    monkeypatch.setenv("RUNWAY_ACTOR", "anna")
    return server


@pytest.fixture
def runway(fake: ControlPlaneFake, capsys: pytest.CaptureFixture[str]) -> Runner:
    def invoke(line: str) -> Ran:
        code = run(shlex.split(line))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return invoke


def _edges(request: Any, _context: Any) -> lineage_pb2.ListEdgesResponse:
    """Two pages, so that a client that reads one is found out."""
    asked = [one for one in (request.node_id, request.other_node_id) if one]
    found = [EDGE] if set(asked) <= {TEMP.upstream_id, TEMP.downstream_id} else []
    if request.page.page_token or not found:
        return lineage_pb2.ListEdgesResponse(edges=found if request.page.page_token else [])
    return lineage_pb2.ListEdgesResponse(next_page_token="more")


def _policy() -> lineage_pb2.LineagePolicy:
    return lineage_pb2.LineagePolicy(
        suspect_after_runs=3,
        suspect_after=to_duration(timedelta(days=14)),
        retire_after=to_duration(timedelta(days=45)),
        confidence_min=0.5,
    )


def test_edges_list(runway: Runner) -> None:
    ran = runway("edges list model:air_time")
    assert ran.code == 0, ran.err
    titles, row = (line.split("  ") for line in ran.out.splitlines())
    assert dict(zip(map(str.strip, filter(None, titles)), map(str.strip, filter(None, row)), strict=True)) == {
        "UPSTREAM": "feature:temp",
        "DOWNSTREAM": "model:air_time",
        "TYPE": "reads_feature",
        "STATE": "suppressed",
        "ORIGIN": "declared, discovered, overridden",
        "SOURCES": "metaflow",
        "LAST SEEN": "3 d ago",
    }


def test_filters_reach_the_control_plane(runway: Runner, fake: ControlPlaneFake) -> None:
    runway("edges list --state quarantined --state retired --origin observed --source openlineage")
    request = fake.requests("LineageService/ListEdges")[0]
    assert list(request.states) == [messages.EDGE_STATE_QUARANTINED, messages.EDGE_STATE_RETIRED]
    assert list(request.origins) == [messages.EDGE_ORIGIN_OBSERVED]
    assert request.source == "openlineage"


def test_an_edge_is_told_in_sentences(runway: Runner) -> None:
    assert runway("edges show temp model:air_time").out == (
        "feature:temp -> model:air_time (reads_feature) is suppressed.\n"
        "  boris says that it is not there, since 2013-03-03 11:00, until 2013-03-17 11:00 (in 13 d): it is read but "
        "not used (revision 40).\n"
        "  anna declared it on 2013-01-03 11:00 (revision 7).\n"
        "  TrainAirTime (metaflow) showed it in 9 runs, first on 2013-02-02 11:00, last 3 d ago in run "
        "TrainAirTime/12; 2 runs since did not; confidence 0.8 (http://flows/12).\n"
    )


def test_names_that_do_not_exist_are_answered_with_near_ones(runway: Runner) -> None:
    ran = runway("edges show feature:tmep model:air_time")
    assert ran.code == 1
    assert "there is no node 'feature:tmep': did you mean feature:temp?" in ran.err
    assert "there is no node 'dataset:wether'" in runway("edges list dataset:wether").err
    unknown = runway("edges show dataset:weather model:air_time")
    assert unknown.code == 1
    assert "nothing is known of an edge dataset:weather -> model:air_time: `runway edges list" in unknown.err


def test_override_needs_a_side_and_a_reason(runway: Runner) -> None:
    assert runway("edges override temp model:air_time").code == 2
    ran = runway("edges override temp model:air_time --absent")
    assert ran.code == 2
    assert "an override needs --reason" in ran.err


def test_override_is_sent_as_it_was_said(runway: Runner, fake: ControlPlaneFake) -> None:
    ran = runway("edges override temp model:air_time --absent --until 14d --replace --reason 'not used'")
    assert ran.code == 0, ran.err
    (request,) = fake.requests("LineageService/SetOverride")
    assert request.dependency == TEMP
    assert request.present is False
    assert request.expires_at == to_timestamp(NOW + timedelta(days=14))
    assert request.replace_revision == 40
    assert (request.mutation.actor, request.mutation.reason) == ("anna", "not used")
    assert "edge" in json.loads(runway("edges clear-override temp model:air_time --json").out)
    assert fake.requests("LineageService/ClearOverride")[0].dependency == TEMP


def test_somebody_elses_override_is_told_of(runway: Runner, fake: ControlPlaneFake) -> None:
    fake.failures["LineageService/SetOverride"].append(
        failure(code_pb2.ABORTED, "OVERRIDE_EXISTS", "boris has an override: look at it, then use --replace")
    )
    ran = runway("edges override temp model:air_time --present --reason x")
    assert ran.code == 1
    assert "boris has an override" in ran.err


def test_policy_is_shown_and_changed_field_by_field(runway: Runner, fake: ControlPlaneFake) -> None:
    ran = runway("lineage policy")
    assert ran.out.splitlines()[:2] == [
        "An edge is suspect when its source has not shown it for 3 runs or 14 d.",
        "It leaves the graph when its source has not shown it for 45 d.",
    ]
    ran = runway("lineage policy --set retire_after=90d --set suspect_after_runs=5 --reason slow")
    assert ran.code == 0, ran.err
    policy = fake.requests("LineageService/SetLineagePolicy")[0].policy
    assert policy.suspect_after_runs == 5
    assert policy.retire_after == to_duration(timedelta(days=90))
    assert policy.suspect_after == to_duration(timedelta(days=14))
    for wrong in ("retire_after=soon", "retire=3", "confidence_min", "suspect_after_runs=1.5"):
        assert runway(f"lineage policy --set {wrong}").code == 2


# -- against the real control plane ----------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedPlane]:
    one = ServedPlane(tmp_path, monkeypatch)
    one.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", one.address)
    yield one
    one.stop()
    one.close()


@pytest.fixture
def client(served: ServedPlane) -> Iterator[Runway]:
    with connect(served.address, "anna") as found:
        found.operations.advance_clock(datetime(2013, 3, 1, tzinfo=UTC))
        for model_id in ("air_time", "arrival_delay"):
            found.registry.register_model(
                messages.Model(
                    model_id=model_id,
                    owner="anna@example.com",
                    team="ops",
                    tier=messages.TIER_1,
                    task_type=messages.TASK_TYPE_REGRESSION,
                )
            )
        found.graph.declare_nodes([messages.Node(node_id="feature:temp"), messages.Node(node_id="feature:wind")])
        found.graph.declare_dependencies(
            [messages.Dependency(upstream_id="feature:temp", downstream_id="model:air_time")]
        )
        yield found


def reading(*inputs: str, run_id: str, output: str = "model:air_time") -> lineage_pb2.LineageRun:
    return lineage_pb2.LineageRun(
        source="metaflow",
        job="Train",
        run_id=run_id,
        state=lineage_pb2.RUN_STATE_COMPLETE,
        inputs=[lineage_pb2.LineageNode(node_id=one) for one in inputs],
        outputs=[lineage_pb2.LineageNode(node_id=output)],
    )


def test_discovered_disagreed_overridden_and_decided(client: Runway, capsys: pytest.CaptureFixture[str]) -> None:
    def said(line: list[str]) -> str:
        assert run(["--actor", "boris", *line]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    assert client.lineage.report_lineage([reading("feature:wind", run_id="Train/1")]).changed == 1
    assert client.lineage.report_lineage([reading("feature:wind", run_id="Train/1")]).changed == 0
    assert "feature:wind -> model:air_time: not declared" in said(["disagreements"])
    shown = said(["edges", "show", "wind", "air_time"])
    assert "is active" in shown
    assert "Nobody declared it." in shown
    assert "Train (metaflow) showed it in 1 run" in shown
    over = ["edges", "override", "wind", "air_time", "--absent", "--until", "7d", "--reason", "only logged"]
    assert "is suppressed" in said(over)
    assert "feature:wind -> model:air_time" not in said(["disagreements"])
    assert client.graph.get_upstream("model:air_time").reached[0].node_id == "feature:temp"
    with pytest.raises(Refused) as refused:
        client.lineage.set_override(
            messages.Dependency(upstream_id="feature:wind", downstream_id="model:air_time"),
            present=True,
            why=Why(reason="it is used"),
        )
    assert refused.value.reason == "OVERRIDE_EXISTS"
    assert "is active" in said(["edges", "clear-override", "wind", "air_time", "--reason", "asked again"])
    assert "90 d" in said(["lineage", "policy", "--set", "retire_after=90d", "--reason", "slow"])


def test_a_discovered_cycle_is_reported_with_its_path(client: Runway) -> None:
    client.lineage.report_lineage([reading("model:air_time", run_id="A/1", output="model:arrival_delay")])
    answer = client.lineage.report_lineage(
        [reading("model:arrival_delay", run_id="B/1"), reading("feature:wind", run_id="C/1")]
    )
    (edge,) = answer.quarantined
    assert edge.cycle[0] == edge.cycle[-1]
    states = [one.state for one in client.lineage.list_edges("model:arrival_delay", other_node_id="model:air_time")]
    assert sorted(states) == [messages.EDGE_STATE_ACTIVE, messages.EDGE_STATE_QUARANTINED]
    assert [one.state for one in client.lineage.list_edges("feature:wind")] == [messages.EDGE_STATE_ACTIVE]
