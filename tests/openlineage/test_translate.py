"""What an event says, by example."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control_plane.api.openlineage import limits
from control_plane.api.openlineage.translate import translate
from control_plane.core.commands import DeclareNodes
from control_plane.core.errors import Invalid
from control_plane.core.graph.facts import Node, NodeKind
from control_plane.core.graph.lineage_facts import LineageNode, LineageRun, RunState
from control_plane.core.ids import NodeId
from tests.core.fleets import Fleet
from tests.openlineage.folds import told as told_to
from tests.openlineage.http import Event, dataset, run_event

MODEL: Event = {"datasetType": {"datasetType": "MODEL"}}


def told(event: Event) -> LineageRun:
    """What it says; it must say something."""
    run = translate(event)
    assert run is not None
    return run


def only(event: Event) -> LineageNode:
    """The only input."""
    (node,) = told(event).inputs
    return node


def wrong(event: Any) -> dict[str, str]:
    """Rule by field, of all that is wrong."""
    with pytest.raises(Invalid) as caught:
        translate(event)
    return {violation.field: violation.rule for violation in caught.value.violations}


def test_a_complete_run() -> None:
    event = run_event("COMPLETE", [dataset("shop.orders")], [dataset("churn", "mlflow://m", **MODEL)])
    assert told(event) == LineageRun(
        source="openlineage",
        job="shop/train",
        run_id="01a20689-8a8c-7c83-9f2c-3c3b09b3086c",
        state=RunState.COMPLETE,
        event_time=datetime(2026, 3, 1, 12, tzinfo=UTC),
        inputs=(LineageNode(external_id="postgres://db:5432/shop.orders"),),
        outputs=(LineageNode(external_id="mlflow://m/churn", kind=NodeKind.MODEL),),
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("START", RunState.START),
        ("RUNNING", RunState.RUNNING),
        ("COMPLETE", RunState.COMPLETE),
        ("complete", RunState.COMPLETE),
        ("FAIL", RunState.FAIL),
        ("ABORT", RunState.ABORT),
        ("OTHER", RunState.RUNNING),
        ("SOMETHING_NEW", RunState.RUNNING),
        (None, RunState.RUNNING),
    ],
)
def test_states(state: str | None, expected: RunState) -> None:
    assert told(run_event(state, [dataset("a")])).state is expected


@pytest.mark.parametrize("state", ["START", "RUNNING", "OTHER", None])
def test_what_says_nothing_is_nothing(state: str | None) -> None:
    assert translate(run_event(state)) is None


@pytest.mark.parametrize("state", ["COMPLETE", "FAIL", "ABORT"])
def test_an_end_is_told_even_without_datasets(state: str) -> None:
    assert told(run_event(state)).inputs == ()


def test_a_job_event_is_static() -> None:
    event = run_event(None, [dataset("a")], [dataset("b")])
    del event["run"]
    assert told(event).state is RunState.STATIC
    assert told(event).run_id == ""
    assert translate(event | {"inputs": [], "outputs": []}) is None


def test_a_dataset_event_says_that_it_is_there_not_that_it_was_written() -> None:
    event = {"eventTime": "2026-03-01T12:00:00Z", "dataset": dataset("churn", "mlflow://m", **MODEL)}
    run = told(event)
    assert (run.state, run.outputs) == (RunState.STATIC, ())
    assert run.inputs == (LineageNode(external_id="mlflow://m/churn", kind=NodeKind.MODEL),)


def test_a_dataset_event_with_lineage_names_what_it_is_made_from() -> None:
    inputs = [{"namespace": "x", "name": "a", "type": "DATASET"}, {"namespace": "x", "name": "j", "type": "JOB"}]
    run = told({"eventTime": "2026-03-01T12:00:00Z", "dataset": dataset("b", lineage={"inputs": inputs})})
    assert [node.external_id for node in run.inputs] == ["x/a"]
    assert [node.external_id for node in run.outputs] == ["postgres://db:5432/b"]


@pytest.mark.parametrize(
    ("name", "facets", "node_id"),
    [
        ("weather", {}, "dataset:weather"),
        ("model:air_time", {}, "model:air_time"),
        ("air_time", MODEL, "model:air_time"),
        ("feature:temp", MODEL, "feature:temp"),
        ("app", {"runway": {"kind": "consumer"}}, "consumer:app"),
    ],
)
def test_names_of_the_namespace_runway_are_our_ids(name: str, facets: Event, node_id: str) -> None:
    node = only(run_event(inputs=[dataset(name, "runway", **facets)]))
    assert (node.node_id, node.external_id, node.kind) == (node_id, "", NodeKind(node_id.partition(":")[0]))


def test_our_facet_says_which_node_a_dataset_is() -> None:
    node = only(run_event(inputs=[dataset("w", "s3://b", runway={"nodeId": "dataset:weather", "title": "Weather"})]))
    assert (node.node_id, node.external_id, node.title) == ("dataset:weather", "s3://b/w", "Weather")


def test_facets_that_describe() -> None:
    facets: Event = {
        "version": {"datasetVersion": 17},
        "documentation": {"description": "x" * 5000},
        "symlinks": {"identifiers": [{"namespace": "hive://m", "name": "db.t", "type": "TABLE"}] * 2},
        "schema": {"fields": [{"name": "a"}]},
    }
    node = only(run_event(inputs=[dataset("t", **facets)]))
    assert (node.version, len(node.description)) == ("17", limits.DESCRIPTION_CHARS_MAX)
    assert node.aliases == ("hive://m/db.t",)


def test_a_deleted_facet_is_none() -> None:
    deleted: Event = {"datasetType": {"_deleted": True, "datasetType": "MODEL"}}
    assert only(run_event(inputs=[dataset("t", **deleted)])).kind is None


def test_a_dataset_named_twice_is_one() -> None:
    twice = [dataset("m"), dataset("m", **MODEL, version={"datasetVersion": "2"}), dataset("n")]
    nodes = told(run_event(inputs=twice)).inputs
    assert [(node.external_id[-1], node.kind, node.version) for node in nodes] == [
        ("m", NodeKind.MODEL, "2"),
        ("n", None, ""),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T12:00:00.123Z", datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)),
        ("2026-03-01T12:00:00.123456789Z", datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2026-03-01T14:00:00+02:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    assert told(run_event(inputs=[dataset("a")], eventTime=text)).event_time == expected


@pytest.mark.parametrize("text", ["yesterday", "2026-03-01", "0001-01-01T00:00:00+14:00", "2026-13-01T00:00:00Z", "٢"])
def test_what_is_no_time(text: str) -> None:
    assert wrong(run_event(eventTime=text)) == {"eventTime": "date_time"}


@pytest.mark.parametrize(
    ("run_facets", "job_facets", "expected"),
    [
        ({"airflow": {"taskInstance": {"log_url": "https://a/log"}}}, {}, "https://a/log"),
        ({}, {"sourceCodeLocation": {"url": "https://git/x"}}, "https://git/x"),
        (
            {"parent": {"job": {"namespace": "n", "name": "dag"}, "run": {"runId": "r"}}},
            {},
            "openlineage:n/dag#r",
        ),
        ({"airflow": {"taskInstance": {"log_url": "javascript:alert(1)"}}}, {}, ""),
        ({"airflow": 3, "parent": {"job": []}}, {}, ""),
    ],
)
def test_evidence(run_facets: Event, job_facets: Event, expected: str) -> None:
    event = run_event()
    event["run"]["facets"], event["job"]["facets"] = run_facets, job_facets
    assert told(event).evidence_url == expected


def test_everything_that_is_wrong_is_told_at_once() -> None:
    event = {
        "eventTime": 5,
        "eventType": "COMPLETE",
        "run": {"runId": ""},
        "job": {"namespace": "a\0", "name": 7},
        "inputs": [
            1,
            dataset("Bad Name", "runway"),
            dataset("y", datasetType={"datasetType": 3}),
            dataset("z", symlinks={"identifiers": [5]}, runway={"kind": "table"}),
        ],
        "outputs": {},
    }
    assert wrong(event) == {
        "eventTime": "type",
        "run.runId": "required",
        "job.namespace": "characters",
        "job.name": "type",
        "inputs[0]": "type",
        "inputs[1].name": "slug",
        "inputs[2].facets.datasetType.datasetType": "type",
        "inputs[3].facets.symlinks.identifiers[0]": "type",
        "inputs[3].facets.runway.kind": "one_of",
        "outputs": "type",
    }


@pytest.mark.parametrize(
    "event", [None, 1, [], "x", {}, {"job": {"namespace": "a", "name": "b"}}, {"eventType": "START"}]
)
def test_what_is_no_event(event: Any) -> None:
    assert "required" in wrong(event).values() or "type" in wrong(event).values()


def test_a_run_event_without_a_run_is_no_job_event() -> None:
    event = run_event()
    del event["run"]
    assert wrong(event) == {"run": "required"}


def test_limits() -> None:
    many = [dataset(str(number)) for number in range(limits.DATASETS_PER_SIDE_MAX + 1)]
    assert wrong(run_event(inputs=many)) == {"inputs": "size"}
    assert wrong(run_event(inputs=many[:1000], outputs=many[:1000])) == {"": "size"}
    assert wrong(run_event(inputs=[dataset("x" * limits.NAME_CHARS_MAX)])) == {"inputs[0]": "length"}
    assert wrong(run_event(run_id="x" * 501)) == {"run.runId": "length"}


# -- names of the same thing --------------------------------------------------------------------------------------


def files(*aliases: str) -> Event:
    """A dataset that is known by other names too."""
    identifiers = [{"namespace": "hive://m", "name": alias, "type": "TABLE"} for alias in aliases]
    return dataset("lake/orders", "s3://b", symlinks={"identifiers": identifiers})


FILES, TABLE = "s3://b/lake/orders", "hive://m/db.orders"


@pytest.mark.parametrize("table_first", [False, True])
def test_a_symlink_makes_one_node_of_two_names(table_first: bool) -> None:
    by_files = run_event(inputs=[files("db.orders")], outputs=[dataset("a", "n")], job="x")
    by_table = run_event(inputs=[dataset("db.orders", "hive://m")], outputs=[dataset("b", "n")], job="y")
    fleet = told_to(Fleet(), [by_table, by_files] if table_first else [by_files, by_table])
    fleet.pass_time(timedelta(seconds=1))
    claims = fleet.state.lineage.claims
    assert claims[FILES] == claims[TABLE]
    ups = {up for up, _, _ in fleet.state.lineage.records}
    assert ups == {claims[FILES]}


def test_a_symlink_finds_the_node_that_somebody_declared() -> None:
    fleet = Fleet()
    declared = NodeId("dataset:orders")
    fleet.do(DeclareNodes(nodes=(Node(node_id=declared, external_ids=(TABLE,)),)))
    told_to(fleet, [run_event(inputs=[files("db.orders")], outputs=[dataset("a", "n")])])
    fleet.pass_time(timedelta(seconds=1))
    assert {up for up, _, _ in fleet.state.lineage.records} == {declared}
    assert fleet.state.lineage.claims[FILES] == declared
