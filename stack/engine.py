"""The Kafka + Spark engine beside a stack: a broker, a cluster and the streaming job, for `make up ENGINE=spark`."""

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from stack.kafka import Broker
from stack.settings import StackError
from stack.spark import Cluster
from tools.jars import engines

TOPICS = ("runway.predictions", "runway.outcomes")
PARTITIONS = 4


@contextmanager
def spark_engine(home: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Start the engine, tell the control plane of it in the environment, and end it.

    Raises:
        StackError: there is no Java, a jar cannot be had, or a server does not start.
    """
    say("looking for Spark, Kafka and a Java (the first time they are fetched: 500 MB)")
    try:
        found = engines()
    except OSError as error:
        raise StackError(f"the engine cannot be had: {error}") from error
    broker, cluster = Broker(home / "kafka", found), Cluster(home / "spark", found)
    tables = home / "facts" / "tables"
    try:
        say("starting Kafka")
        broker.start()
        _make_topics(broker.servers)
        say("starting a Spark master and two workers")
        cluster.start()
        tables.mkdir(parents=True, exist_ok=True)
        cluster.submit("stream", "--tables", str(tables), "--brokers", broker.servers, log="stream")
        say(f"the streaming job writes to {home / 'spark' / 'stream.log'}")
        os.environ |= {
            "RUNWAY_ENGINE": "spark",
            "RUNWAY_KAFKA_BROKERS": broker.servers,
            "RUNWAY_SPARK_JOB": shlex.join(cluster.job_command()),
        }
        yield
    except TimeoutError as error:
        raise StackError(f"the engine did not start: {error}") from error
    finally:
        cluster.stop()
        broker.stop()


def _make_topics(servers: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    known = set(admin.list_topics(timeout=30).topics)
    wanted = [NewTopic(topic, PARTITIONS, 1) for topic in TOPICS if topic not in known]
    for future in (admin.create_topics(wanted) if wanted else {}).values():
        future.result(60)
