"""The Kafka + Spark engine against the twin: a real broker, a real cluster of a master and two workers.

Every order of arrival of every case is a model of its own, all produced to real topics. The streaming job is killed
after its first micro-batch and the broker restarted; then every record is produced again, to other partitions and in
the opposite order of models, and the job takes the rest. What the speed layer and then the batch layer hand over must
be the twin's answer, row for row.
"""

import os
import signal
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from deltalake import DeltaTable

from control_plane.core.ground_truth.partials import unpack
from control_plane.core.ground_truth.tables import LABELS_FILE, PARTIALS
from stack.kafka import Broker
from stack.spark import Cluster
from tests.ground_truth.arrows import ipc, outcome_columns, prediction_columns
from tests.ground_truth.joins import Answer, hour_answer, twin_answer
from tests.ground_truth.test_join_conformance import CASES, SPEC
from tests.reference.join import Arrival, Prediction
from tools.jars import Engines, engines

pytestmark = pytest.mark.slow

PARTITIONS = 3
JOB_S_MAX = 600.0
HISTORIES: dict[str, list[Arrival]] = {
    f"m{case}_{order}": list(history)
    for case, rows in enumerate(CASES.values())
    for order, history in enumerate(dict.fromkeys(permutations(rows)))
}


@pytest.fixture(scope="module")
def found() -> Engines:
    """Spark, Java and jars, or the reason why there are none."""
    try:
        return engines()
    except OSError as error:
        pytest.skip(f"no engines here: {error}")


@pytest.fixture(scope="module")
def broker(found: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with both topics."""
    one = Broker(tmp_path_factory.mktemp("kafka"), found)
    try:
        one.start()
        admin = AdminClient({"bootstrap.servers": one.servers})
        topics = [NewTopic(topic, PARTITIONS, 1) for topic in ("runway.predictions", "runway.outcomes")]
        for future in admin.create_topics(topics).values():
            future.result(60)
        yield one
    finally:
        one.kill()


@pytest.fixture(scope="module")
def cluster(found: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and two workers."""
    one = Cluster(tmp_path_factory.mktemp("spark"), found)
    try:
        one.start()
        yield one
    finally:
        one.stop()


def produce(broker: Broker, histories: dict[str, list[Arrival]], *, partition_of: int) -> None:
    """Each arrival as a record; a model's records in one partition, so that their order is that of arrival."""
    producer = Producer({"bootstrap.servers": broker.servers, "acks": "all"})
    for number, (model_id, history) in enumerate(histories.items()):
        partition = (number + partition_of) % PARTITIONS
        for row in history:
            headers: list[tuple[str, str | bytes | None]] = [("model_id", model_id)]
            if isinstance(row, Prediction):
                value = ipc(prediction_columns([row]))
                headers.append(("version", str(row.version)))
                producer.produce("runway.predictions", value, headers=headers, partition=partition)
            else:
                value = ipc(outcome_columns([row]))
                producer.produce("runway.outcomes", value, headers=headers, partition=partition)
        producer.poll(0)
    assert producer.flush(60) == 0


def handed_over(tables: Path, layer: str) -> dict[str, tuple[Answer, int]]:
    """By model: the last answer of a layer for each hour, and the orphans."""
    rows = [
        row
        for action in pa.table(DeltaTable(str(tables / PARTIALS)).get_add_actions(flatten=True)).to_pylist()
        for row in pq.read_table(tables / PARTIALS / action["path"], partitioning=None).to_pylist()
        if row["layer"] == layer
    ]
    last = {(row["model_id"], row["hour"]): row for row in sorted(rows, key=lambda row: row["computed_us"])}
    answers: dict[str, tuple[Answer, int]] = {}
    for (model_id, hour), row in last.items():
        answer, orphans = answers.get(model_id, ({}, 0))
        answer |= {(hour, one["version"]): hour_answer(unpack(one["packed"])) for one in row["versions"]}
        answers[model_id] = (answer, orphans + row["orphans"])
    return answers


def wait_for_first_commit(tables: Path, job_log: Path) -> None:
    """Until the streaming job has handed something over."""
    until = time.monotonic() + JOB_S_MAX
    while time.monotonic() < until:
        if (tables / PARTIALS / "_delta_log").exists() and DeltaTable(str(tables / PARTIALS)).version() > 0:
            return
        time.sleep(0.5)
    raise TimeoutError(job_log.read_text(errors="replace")[-3000:])


def test_every_order_of_arrival_gives_what_the_twin_gives(broker: Broker, cluster: Cluster, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / LABELS_FILE).write_bytes(msgspec.json.encode({model_id: [SPEC] for model_id in HISTORIES}))
    expected = {model_id: twin_answer(history, SPEC) for model_id, history in HISTORIES.items()}
    half = dict(list(HISTORIES.items())[: len(HISTORIES) // 2])
    where = ("--tables", str(tables))

    produce(broker, half, partition_of=0)
    producer = Producer({"bootstrap.servers": broker.servers})
    producer.produce("runway.outcomes", b"no Arrow at all", headers=[("model_id", "m0_0")])
    assert producer.flush(60) == 0
    job = cluster.submit("stream", *where, "--brokers", broker.servers, log="first")
    wait_for_first_commit(tables, cluster.home / "first.log")
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    broker.kill()
    broker.start()

    produce(broker, {model_id: HISTORIES[model_id] for model_id in HISTORIES if model_id not in half}, partition_of=0)
    again = dict(reversed(HISTORIES.items()))
    produce(broker, again, partition_of=1)
    job = cluster.submit("stream", *where, "--brokers", broker.servers, "--once", log="second")
    assert job.wait(JOB_S_MAX) == 0, (cluster.home / "second.log").read_text(errors="replace")[-3000:]
    assert handed_over(tables, "speed") == expected
    letters = DeltaTable(str(tables / "dead_letters")).file_uris()
    [letter] = [row for uri in letters for row in pq.read_table(uri, partitioning=None).to_pylist()]
    assert (letter["kind"], letter["model_id"]) == ("outcomes", "m0_0")
    assert "not one Arrow IPC stream" in letter["fault"]

    job = cluster.submit("batch", *where, "--from", "2013-01-01", "--to", "2060-01-01", log="batch")
    assert job.wait(JOB_S_MAX) == 0, (cluster.home / "batch.log").read_text(errors="replace")[-3000:]
    assert handed_over(tables, "batch") == expected
