"""Events of the real `openlineage-python` client, through its real HTTP transport, to a whole control plane."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import (
    Dataset,
    DatasetEvent,
    InputDataset,
    Job,
    JobEvent,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
    StaticDataset,
)
from openlineage.client.facet_v2 import (
    DatasetFacet,
    column_lineage_dataset,
    dataset_type_dataset,
    dataset_version_dataset,
    parent_run,
    symlinks_dataset,
)

from control_plane.api.openlineage import limits
from control_plane.core.errors import Reason, Unavailable
from tests.openlineage.http import KeptPlane, listening
from tests.openlineage.known import Known

RUN_ID = "01a20689-8a8c-7c83-9f2c-3c3b09b3086c"
PRODUCER = "https://example.com/test"
WAREHOUSE = "postgres://db:5432"
MODEL: dict[str, DatasetFacet] = {"datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(datasetType="MODEL")}
ORDERS = InputDataset(namespace=WAREHOUSE, name="shop.public.orders")
CHURN = OutputDataset(namespace="mlflow://models", name="churn", facets=MODEL)
ORDERS_ID, CHURN_ID = "postgres://db:5432/shop.public.orders", "mlflow://models/churn"


def client(url: str, **options: str) -> OpenLineageClient:
    """The client as somebody would configure it."""
    return OpenLineageClient(config={"transport": {"type": "http", "url": url, **options}})


def at(second: int) -> str:
    """A time of day."""
    return datetime(2013, 2, 28, 12, 0, second, tzinfo=UTC).isoformat()


def run(state: RunState, second: int = 0, *, run_id: str = RUN_ID, **changes: list[Dataset]) -> RunEvent:
    """An event of a training run."""
    sides = {"inputs": [ORDERS], "outputs": [CHURN], **changes}
    job = Job(namespace="shop", name="train")
    return RunEvent(
        eventTime=at(second),
        producer=PRODUCER,
        run=Run(runId=run_id),
        job=job,
        eventType=state,
        **sides,  # type: ignore[arg-type]
    )


async def emit(known: Known, *events: RunEvent | JobEvent | DatasetEvent, **options: str) -> None:
    """Send them, one after the other."""
    sending = client(known.sender.url, **options)
    for event in events:
        await asyncio.to_thread(sending.emit, event)


async def test_start_then_complete(known: Known) -> None:
    await emit(known, run(RunState.START))
    assert await known.edges() == {}
    await emit(known, run(RunState.COMPLETE, 9, inputs=[], outputs=[]))
    assert await known.edges() == {(ORDERS_ID, CHURN_ID): "ACTIVE"}
    nodes = await known.nodes()
    assert nodes[CHURN_ID].node_id.startswith("model:churn_")
    assert nodes[ORDERS_ID].node_id.startswith("dataset:")
    (seen,) = await known.evidence(ORDERS_ID, CHURN_ID)
    assert (seen.source, seen.job, seen.run_id, seen.runs_seen) == ("openlineage", "shop/train", RUN_ID, 1)
    assert seen.last_seen_at.ToDatetime(UTC) == datetime.fromisoformat(at(9))


@pytest.mark.parametrize("state", [RunState.START, RunState.RUNNING, RunState.FAIL, RunState.ABORT, RunState.OTHER])
async def test_nothing_but_complete_confirms(known: Known, state: RunState) -> None:
    await emit(known, run(RunState.START), run(state, 1))
    assert await known.edges() == {}


async def test_gzip(known: Known) -> None:
    await emit(known, run(RunState.COMPLETE), compression="gzip")
    assert await known.edges() == {(ORDERS_ID, CHURN_ID): "ACTIVE"}


async def test_the_asynchronous_transport(known: Known) -> None:
    options = {"type": "async_http", "url": known.sender.url}

    def send() -> bool:
        sending = OpenLineageClient(config={"transport": options})
        for event in (run(RunState.START), run(RunState.COMPLETE, 1)):
            sending.emit(event)
        return sending.close(30)

    assert await asyncio.to_thread(send)
    assert await known.edges() == {(ORDERS_ID, CHURN_ID): "ACTIVE"}


async def test_job_and_dataset_events(known: Known) -> None:
    job = Job(namespace="shop", name="nightly")
    await emit(
        known,
        JobEvent(eventTime=at(0), producer=PRODUCER, job=job, inputs=[ORDERS], outputs=[CHURN]),
        DatasetEvent(
            eventTime=at(0), producer=PRODUCER, dataset=StaticDataset(namespace="s3://b", name="x", facets=MODEL)
        ),
    )
    assert await known.edges() == {(ORDERS_ID, CHURN_ID): "ACTIVE"}
    assert (await known.nodes())["s3://b/x"].node_id.startswith("model:x_")


async def test_facets_that_say_which_node_and_which_version(known: Known) -> None:
    table = symlinks_dataset.Identifier(namespace="hive://metastore", name="shop.orders", type="TABLE")
    facets = {
        "symlinks": symlinks_dataset.SymlinksDatasetFacet(identifiers=[table]),
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion="41"),
    }
    files = InputDataset(namespace="s3://lake", name="warehouse/orders", facets=facets)
    by_table = InputDataset(namespace="hive://metastore", name="shop.orders")
    await emit(
        known,
        run(RunState.COMPLETE, inputs=[files]),
        run(RunState.COMPLETE, run_id=str(UUID(int=2)), inputs=[by_table]),
    )
    assert await known.edges() == {("s3://lake/warehouse/orders", CHURN_ID): "ACTIVE"}
    assert list((await known.nodes())["s3://lake/warehouse/orders"].external_ids) == [
        "s3://lake/warehouse/orders",
        "hive://metastore/shop.orders",
    ]


async def test_names_of_the_namespace_runway_are_nodes_of_ours(known: Known) -> None:
    await known.api.model("air_time")
    weather, ours = (InputDataset(namespace="runway", name=name) for name in ("weather", "model:air_time"))
    await emit(known, run(RunState.COMPLETE, inputs=[weather, ours]))
    assert await known.edges() == {("dataset:weather", CHURN_ID): "ACTIVE", ("model:air_time", CHURN_ID): "ACTIVE"}


async def test_a_parent_run_is_evidence_not_an_edge(known: Known) -> None:
    parent = parent_run.ParentRunFacet(
        run=parent_run.Run(runId=str(UUID(int=9))), job=parent_run.Job(namespace="shop", name="dag")
    )
    event = run(RunState.COMPLETE)
    event.run.facets["parent"] = parent  # type: ignore[index]
    await emit(known, event)
    (seen,) = await known.evidence(ORDERS_ID, CHURN_ID)
    assert seen.evidence_url == f"openlineage:shop/dag#{UUID(int=9)}"


async def test_column_lineage_is_read_past(known: Known) -> None:
    field = column_lineage_dataset.InputField(namespace=WAREHOUSE, name="shop.public.orders", field="amount")
    columns = {"score": column_lineage_dataset.Fields(inputFields=[field])}
    facets = {"columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet(fields=columns), **MODEL}
    await emit(
        known, run(RunState.COMPLETE, outputs=[OutputDataset(namespace="mlflow://models", name="churn", facets=facets)])
    )
    assert await known.edges() == {(ORDERS_ID, CHURN_ID): "ACTIVE"}


async def test_the_client_tries_again_what_cannot_be_stored_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RETRY_AFTER_S", 0)
    plane = KeptPlane(refuse=[Unavailable(Reason.NOT_LEADER, "another leads")] * 2)
    async with listening(plane) as sender:
        await asyncio.to_thread(client(sender.url).emit, run(RunState.COMPLETE))
    assert len(plane.runs) == 1
