"""Predictions and outcomes out of Kafka.

Theory of operation. One thread takes up to `RECORDS_AT_ONCE` records of all partitions, offers them all to the door,
and waits until each is durable, stored or kept as a dead letter. Then it commits the offsets behind them, and takes the
next. So nothing is committed that could be lost, and what was not committed comes again, where its batch id makes it
harmless. A malformed record is a dead letter, so that it holds nothing up; a full disk holds up everything, with the
partitions paused and the group kept. A partition that is silent holds up nothing: nobody waits for it.

The group is rebalanced at any time: a record of a partition that went elsewhere is stored here and there, once by id.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from datetime import UTC, datetime
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from control_plane.adapters.kafka.records import LOG_LEVEL, arrival_of
from control_plane.app.arrivals import Arrival, Door, Lag, Taken
from control_plane.core.errors import Unavailable

log = structlog.get_logger("runway.kafka")

GROUP = "runway"
"""One group for all: whoever leads consumes."""
RECORDS_AT_ONCE = 128
"""Records offered together: they share one sync of the disk."""
QUEUED_KB_MAX = 65_536
"""What the library fetches ahead, in all: the room that a burst may take."""
POLL_S = 0.2
RETRY_S = 1.0
"""Between two tries of what could not be stored now."""
LOOK_S = 2.0
"""Between two looks at lags, and at a broker that was gone."""
ANSWER_S = 5.0
"""How long a broker may take to answer a question."""


class FactConsumer:
    """Implements `app.arrivals.FactSource`; consumes in a thread of its own."""

    def __init__(self, brokers: str, topics: Mapping[str, str], door: Door, *, group: str = GROUP) -> None:
        """`topics`: topic -> `predictions` or `outcomes`."""
        self._brokers = brokers
        self._topics = dict(topics)
        self._door = door
        self._consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                "log_level": LOG_LEVEL,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                "queued.max.messages.kbytes": QUEUED_KB_MAX,
                "topic.metadata.refresh.interval.ms": 5_000,
                "allow.auto.create.topics": False,
                "reconnect.backoff.max.ms": 2_000,
                "error_cb": self._failed,
                "on_commit": self._committed_last,
            }
        )
        self._stopping = threading.Event()
        self._gone_since: datetime | None = None
        self._gone_why = ""
        self._waiting_why = ""
        self._missing: dict[str, str] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._lags: tuple[Lag, ...] = ()
        self._looked_s = 0.0
        self._carried: list[Any] = []
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)

    def start(self) -> None:
        """See `FactSource`. A broker that is not there yet is waited for."""
        self._consumer.subscribe(list(self._topics), on_revoke=self._revoked, on_lost=self._revoked)
        self._thread.start()

    def stop(self) -> None:
        """See `FactSource`. What was offered is waited for, and its offsets are committed."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def degraded(self) -> tuple[str, ...]:
        """See `FactSource`."""
        said = []
        if self._gone_since is not None:
            said.append(
                f"Kafka at {self._brokers} has not been reached since {self._gone_since:%Y-%m-%d %H:%M:%S} UTC "
                f"({self._gone_why}): what was produced waits there and is taken in as soon as it is back"
            )
        if self._waiting_why:
            said.append(f"records of Kafka wait, they cannot be stored now: {self._waiting_why}")
        said += [f"Kafka's topic {topic} cannot be read: {why}" for topic, why in sorted(self._missing.items())]
        return tuple(said)

    def lags(self) -> tuple[Lag, ...]:
        """See `FactSource`."""
        return self._lags

    def _run(self) -> None:
        """This thread's edge: it goes on until it is told to stop."""
        try:
            while not self._stopping.is_set():
                try:
                    self._turn()
                except KafkaException as error:
                    self._lost(str(error))
                    self._stopping.wait(RETRY_S)
            self._commit_all()
        finally:
            self._consumer.close()

    def _turn(self) -> None:
        """Take some records in, to the end."""
        self._look()
        messages = self._carried or self._consumer.consume(RECORDS_AT_ONCE, POLL_S)
        self._carried = []
        good = [message for message in messages if self._usable(message)]
        if not good:
            return
        self._reached()
        arrivals = [arrival_of(message, self._topics[str(message.topic())]) for message in good]
        if self._stored(arrivals):
            self._commit(good)

    def _stored(self, arrivals: Sequence[Arrival]) -> bool:
        """Offer all, again and again those that cannot be stored now. False if it was told to stop before."""
        left = list(arrivals)
        while left:
            offered: list[tuple[Arrival, Future[Taken]]] = [(one, self._door(one)) for one in left]
            left = []
            for arrival, answer in offered:
                try:
                    answer.result()
                except Unavailable as error:
                    left.append(arrival)
                    self._waiting_why = error.message
                except CancelledError:
                    return False
            if left and self._stopping.is_set():
                return False
            if left:
                log.warning("kafka.waiting", records=len(left), message=self._waiting_why)
                self._wait()
        self._waiting_why = ""
        return True

    def _wait(self) -> None:
        """Let time pass without leaving the group: partitions are paused and the library is asked all the same."""
        assigned = self._consumer.assignment()
        self._consumer.pause(assigned)
        until_s = time.monotonic() + RETRY_S
        while time.monotonic() < until_s and not self._stopping.is_set():
            message = self._consumer.poll(POLL_S)
            if message is not None:  # of a partition that has just come
                self._carried.append(message)
        self._consumer.resume(self._consumer.assignment())

    def _commit(self, messages: Sequence[Any]) -> None:
        """Say how far all is durable. If that fails the records come again, which changes nothing."""
        for message in messages:
            place = (message.topic(), message.partition())
            self._positions[place] = max(self._positions.get(place, 0), message.offset() + 1)
        behind: dict[tuple[str, int], int] = {}
        for message in messages:
            place = (message.topic(), message.partition())
            behind[place] = max(behind.get(place, 0), message.offset() + 1)
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in behind.items()]
        # Not waited for: a broker that is gone answers no sooner than its session ends, and this thread has to say so.
        self._consumer.commit(offsets=offsets, asynchronous=True)

    def _committed_last(self, error: KafkaError | None, _places: Sequence[TopicPartition]) -> None:
        """The library tells how a commit went."""
        if error is not None and error.code() != KafkaError._NO_OFFSET:
            log.warning("kafka.commit_failed", message=error.str())

    def _commit_all(self) -> None:
        """At the end, and waited for: where this group goes on. Nothing is lost if it fails."""
        if self._gone_since is not None or not self._positions:
            return
        offsets = [TopicPartition(topic, number, at) for (topic, number), at in self._positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.warning("kafka.commit_failed", message=str(error))

    def _usable(self, message: Any) -> bool:
        """Is it a record? Else note what it says."""
        error = message.error()
        if error is None:
            self._missing.pop(message.topic(), None)
            return True
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            self._missing[message.topic()] = error.str()
        elif error.code() != KafkaError._PARTITION_EOF:
            self._failed(error)
        return False

    def _look(self) -> None:
        """How far behind each partition is, and whether a broker that was gone is back."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        if self._gone_since is not None:
            try:
                self._consumer.list_topics(timeout=ANSWER_S)
            except KafkaException as error:
                self._gone_why = _short(error)
                return
            self._reached()
        lags = []
        for place in self._consumer.assignment():
            low, high = self._consumer.get_watermark_offsets(place, cached=True)
            position = self._positions.get((place.topic, place.partition), -1)
            if position < 0:
                position = self._committed(place, low)
            known = high >= 0 and position >= 0
            lags.append(
                Lag(
                    topic=place.topic,
                    partition=place.partition,
                    position=max(position, 0),
                    lag=max(0, high - position) if known else -1,
                )
            )
            self._missing.pop(place.topic, None)
        self._lags = tuple(sorted(lags, key=lambda lag: (lag.topic, lag.partition)))

    def _committed(self, place: TopicPartition, low: int) -> int:
        """Where the group was in a partition of which nothing came since the start; its beginning if nowhere."""
        [found] = self._consumer.committed([place], timeout=ANSWER_S)
        position = int(found.offset) if found.offset >= 0 else max(low, 0)
        self._positions[(place.topic, place.partition)] = position
        return position

    def _revoked(self, _consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        for place in places:
            self._positions.pop((place.topic, place.partition), None)

    def _failed(self, error: KafkaError) -> None:
        """The library tells of trouble; most of it mends itself."""
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE):
            self._lost(error.str())
        else:
            log.warning("kafka.error", code=error.name(), message=error.str())

    def _lost(self, why: str) -> None:
        if self._gone_since is None:
            self._gone_since = datetime.now(UTC)
            log.warning("kafka.lost", brokers=self._brokers, message=why)
        self._gone_why = why[:200]

    def _reached(self) -> None:
        if self._gone_since is not None:
            log.info("kafka.reached", brokers=self._brokers)
        self._gone_since = None


def _short(error: KafkaException) -> str:
    found = error.args[0]
    return str(found.str() if isinstance(found, KafkaError) else found)[:200]
