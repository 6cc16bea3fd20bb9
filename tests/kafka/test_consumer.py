"""Facts out of a real Kafka broker: every batch once, whatever comes twice, late, broken, or not at all for a while."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from runway.v1 import facts_pb2, ground_truth_pb2, policies_pb2

from control_plane.adapters.kafka.consumer import FactConsumer
from control_plane.adapters.kafka.producer import FactProducer
from control_plane.adapters.kafka.records import Headers
from control_plane.app.arrivals import PROTOBUF, Arrival, Taken
from control_plane.core.errors import Reason, Unavailable
from stack.kafka import Broker
from tests.api.test_ground_truth import coverage
from tests.api.worlds import START, Api, Host, instant, span
from tests.ground_truth.arrows import ipc, outcome_columns, outcomes_for, prediction_columns, some_predictions, us
from tests.reference.join import Prediction

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
ROWS = 25
PARTITIONS = 4
_numbers = count()


class Topics:
    """Two topics of a test's own, and a group."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.consumers: list[FactConsumer] = []
        name = f"t{next(_numbers)}-{time.monotonic_ns()}"
        self.predictions, self.outcomes, self.group = f"{name}.predictions", f"{name}.outcomes", f"{name}.group"
        admin = AdminClient({"bootstrap.servers": broker.servers})
        made = admin.create_topics([NewTopic(one, PARTITIONS, 1) for one in (self.predictions, self.outcomes)])
        for answer in made.values():
            answer.result(30)

    def consumer(self, door: Callable[[Arrival], "Future[Taken]"], group: str = "") -> FactConsumer:
        topics = {self.predictions: "predictions", self.outcomes: "outcomes"}
        self.consumers.append(FactConsumer(self.broker.servers, topics, door, group=group or self.group))
        return self.consumers[-1]

    def producer(self) -> FactProducer:
        return FactProducer(self.broker.servers, self.predictions, self.outcomes)

    def committed(self) -> int:
        """Records behind the group's offsets, over all partitions of predictions."""
        asking = Consumer({"bootstrap.servers": self.broker.servers, "group.id": self.group})
        places = [TopicPartition(self.predictions, partition) for partition in range(PARTITIONS)]
        found = sum(max(one.offset, 0) for one in asking.committed(places, timeout=10))
        asking.close()
        return found


@pytest.fixture
async def topics(broker: Broker, serving: Api) -> AsyncIterator[Topics]:
    """Consumers stop before the control plane does, whose loop answers them."""
    broker.start()
    one = Topics(broker)
    yield one
    for consumer in one.consumers:
        await asyncio.to_thread(consumer.stop)


@pytest.fixture
async def serving(host: Host) -> AsyncIterator[Api]:
    async with host.life() as api:
        await api.serving("delay", policies=policies_pb2.Policies(label=policies_pb2.LabelSpec(window=span(DAY))))
        api.clock.at = START + timedelta(minutes=30)
        yield api


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not reached():
            await asyncio.sleep(0.05)


def batch(number: int) -> list[Prediction]:
    return some_predictions(ROWS, start_us=us(START), first=1_000 * number)


def produced(topics: Topics, numbers: range, *, outcomes: bool = True) -> None:
    """Batches of predictions, and of their outcomes, acknowledged by the broker."""
    producer = topics.producer()
    sent = []
    for number in numbers:
        rows = batch(number)
        sent.append(producer.produce_predictions(f"p{number}", "delay", 1, ipc(prediction_columns(rows))))
        if outcomes:
            known = ipc(outcome_columns(outcomes_for(rows)))
            sent.append(producer.produce_outcomes(f"o{number}", "delay", "", known, source="labels"))
    for one in sent:
        one.result(60)
    assert producer.close() == 0


async def predicted(api: Api) -> int:
    return (await coverage(api)).total.predicted


async def test_every_batch_is_stored_once_and_only_then_committed(topics: Topics, serving: Api) -> None:
    produced(topics, range(20))
    consumer = topics.consumer(serving.plane.intake.door)
    consumer.start()
    await until(lambda: serving.plane.ground_truth.counts().outcomes == 20 * ROWS)
    await until(lambda: serving.plane.ground_truth.counts().predictions == 20 * ROWS)
    await asyncio.to_thread(consumer.stop)
    assert topics.committed() == 20
    assert not consumer.degraded()
    serving.clock.at = START + 2 * DAY
    report = await coverage(serving)
    assert (report.total.predicted, report.total.joined) == (20 * ROWS, 20 * ROWS)
    # All of it again, from the start, by a group that knows nothing: duplicated and out of order, and nothing changes.
    again = topics.consumer(serving.plane.intake.door, topics.group + "2")
    before = serving.plane.ground_truth.counts()
    again.start()
    await until(lambda: sum(lag.position for lag in again.lags() if lag.lag == 0) == 40)
    await asyncio.to_thread(again.stop)
    assert serving.plane.ground_truth.counts() == before
    later = (await coverage(serving)).total
    assert (later.predicted, later.joined) == (20 * ROWS, 20 * ROWS)


async def test_what_cannot_be_used_blocks_nothing_and_is_kept(topics: Topics, serving: Api) -> None:
    raw = Producer({"bootstrap.servers": topics.broker.servers})
    good = ipc(prediction_columns(batch(1)))
    headers: Headers = [("model_id", b"delay"), ("version", b"1")]
    for value, said in (
        (b"not Arrow at all", headers),
        (None, headers),
        (good, []),
        (good, [("model_id", b"delay"), ("version", b"one")]),
        (good, [("model_id", b"\xff\xfe"), ("version", b"1")]),
        (good, [("model_id", b"unborn"), ("version", b"1")]),
        (good[: len(good) // 2], headers),
        (good, [*headers, ("content-type", b"text/csv")]),
    ):
        raw.produce(topics.predictions, value=value, headers=list(said), partition=0)
    plain = ground_truth_pb2.IngestPredictionsRequest(
        model_id="delay",
        version=1,
        predictions=[
            ground_truth_pb2.Prediction(prediction_id=row.id, predicted_at=instant(START), score=row.score)
            for row in batch(2)
        ],
    )
    raw.produce(
        topics.predictions,
        value=plain.SerializeToString(),
        headers=[("content-type", PROTOBUF.encode())],
        partition=0,
    )
    raw.produce(topics.predictions, value=good, headers=headers, partition=0)
    assert raw.flush(30) == 0
    consumer = topics.consumer(serving.plane.intake.door)
    serving.plane.intake.add(consumer)
    consumer.start()
    await until(lambda: serving.plane.ground_truth.counts().predictions == 2 * ROWS)
    await until(lambda: topics.committed() == 10)
    listed = await serving.facts.ListDeadLetters(facts_pb2.ListDeadLettersRequest())
    assert listed.total == 8
    told = " | ".join(one.message for one in listed.letters)
    for says in ("no value", "header model_id and version", "'one' is no version", "not UTF-8", "'unborn'", "text/csv"):
        assert says in told
    await serving.serving("unborn")
    done = await serving.facts.ReplayDeadLetters(facts_pb2.ReplayDeadLettersRequest(model_id="unborn"))
    assert done.replayed == 1
    await until(lambda: len(consumer.lags()) == 2 * PARTITIONS)
    status = await serving.facts.GetIngestStatus(facts_pb2.GetIngestStatusRequest())
    assert {lag.lag for lag in status.kafka} <= {0, -1}


async def test_what_cannot_be_stored_now_waits_uncommitted(topics: Topics, serving: Api) -> None:
    full = True

    def door(arrival: Arrival) -> "Future[Taken]":
        if not full:
            return serving.plane.intake.door(arrival)
        refused: Future[Taken] = Future()
        refused.set_exception(Unavailable(Reason.STORE_UNAVAILABLE, "the disk is full"))
        return refused

    produced(topics, range(5), outcomes=False)
    consumer = topics.consumer(door)
    consumer.start()
    await until(lambda: any("the disk is full" in text for text in consumer.degraded()))
    assert topics.committed() == 0
    full = False
    await until(lambda: serving.plane.ground_truth.counts().predictions == 5 * ROWS)
    await until(lambda: not consumer.degraded())
    await asyncio.to_thread(consumer.stop)
    assert topics.committed() == 5
    assert await predicted(serving) == 5 * ROWS


async def test_a_broker_that_is_gone_is_said_and_caught_up_with(topics: Topics, serving: Api) -> None:
    produced(topics, range(3))
    consumer = topics.consumer(serving.plane.intake.door)
    consumer.start()
    await until(lambda: serving.plane.ground_truth.counts().predictions == 3 * ROWS)
    topics.broker.kill()
    await until(lambda: any("has not been reached" in text for text in consumer.degraded()))
    topics.broker.start()
    produced(topics, range(3, 6))
    await until(lambda: serving.plane.ground_truth.counts().outcomes == 6 * ROWS)
    await until(lambda: not consumer.degraded())
    await asyncio.to_thread(consumer.stop)
    serving.clock.at = START + 2 * DAY
    report = await coverage(serving)
    assert (report.total.predicted, report.total.joined) == (6 * ROWS, 6 * ROWS)


async def test_a_control_plane_begins_without_a_broker(topics: Topics, tmp_path: Path) -> None:
    host = Host(home=tmp_path / "own")
    topics.broker.kill()
    host.settings |= {
        "kafka_brokers": topics.broker.servers,
        "kafka_predictions_topic": topics.predictions,
        "kafka_outcomes_topic": topics.outcomes,
    }
    async with host.life() as api:
        await api.serving("delay")
        api.clock.at = START + timedelta(minutes=30)
        [consumer] = api.plane.intake.sources
        await until(lambda: bool(consumer.degraded()))
        topics.broker.start()
        produced(topics, range(2))
        await until(lambda: api.plane.ground_truth.counts().outcomes == 2 * ROWS)
    # A second life goes on where the first one was.
    async with host.life() as api:
        produced(topics, range(2, 4))
        await until(lambda: api.plane.ground_truth.counts().outcomes == 2 * ROWS)
        assert await predicted(api) == 4 * ROWS


async def test_a_silent_partition_holds_up_no_other(topics: Topics, serving: Api) -> None:
    raw = Producer({"bootstrap.servers": topics.broker.servers})
    for number in range(6):  # partitions 2 and 3 never say anything
        raw.produce(
            topics.predictions,
            value=ipc(prediction_columns(batch(number))),
            headers=[("model_id", b"delay"), ("version", b"1")],
            partition=number % 2,
        )
    assert raw.flush(30) == 0
    consumer = topics.consumer(serving.plane.intake.door)
    consumer.start()
    await until(lambda: serving.plane.ground_truth.counts().predictions == 6 * ROWS)
    await until(lambda: sum(lag.lag == 0 for lag in consumer.lags()) >= 2)
    await asyncio.to_thread(consumer.stop)


async def test_a_producer_says_what_was_not_delivered(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.adapters.kafka.producer.DELIVERY_MS_MAX", 1_500)
    topics.broker.kill()
    producer = topics.producer()
    answer = producer.produce_predictions("p", "delay", 1, b"x")
    with pytest.raises(Unavailable, match="did not take the batch"):
        await asyncio.wrap_future(answer)
    assert producer.close() == 0
    topics.broker.start()
