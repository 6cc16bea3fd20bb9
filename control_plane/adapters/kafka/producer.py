"""Batches into Kafka: idempotent, acknowledged by all in-sync replicas before anybody is told.

`engine=spark` takes gRPC batches this way: validated as ever, produced, and answered once the broker has them.
"""

import threading
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from control_plane.adapters.kafka.records import LOG_LEVEL, headers_of, key_of
from control_plane.app.arrivals import Arrival
from control_plane.core.errors import Reason, Unavailable

DELIVERY_MS_MAX = 60_000
"""After so long a batch counts as not delivered, and its sender is told to send it again."""
RECORD_BYTES_MAX = 64 * 2**20
"""The largest batch; topics need `max.message.bytes` as large (`stack` sets it)."""
POLL_S = 0.05


class FactProducer:
    """Sends batches to the two topics. Safe to use from several threads."""

    def __init__(self, brokers: str, predictions_topic: str, outcomes_topic: str) -> None:
        self._brokers = brokers
        self._topics = {"predictions": predictions_topic, "outcomes": outcomes_topic}
        self._producer = Producer(
            {
                "bootstrap.servers": brokers,
                "log_level": LOG_LEVEL,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "zstd",
                "linger.ms": 5,
                "delivery.timeout.ms": DELIVERY_MS_MAX,
                "message.max.bytes": RECORD_BYTES_MAX,
                "queue.buffering.max.kbytes": 262_144,
            }
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka-producer", daemon=True)
        self._thread.start()

    def produce_predictions(
        self, batch_id: str, model_id: str, version: int, ipc: bytes, *, source: str = ""
    ) -> "Future[None]":
        """Send a batch of predictions; see `produce`."""
        return self.produce(
            Arrival(
                kind="predictions", batch_id=batch_id, model_id=model_id, version=version, payload=ipc, source=source
            )
        )

    def produce_outcomes(
        self, batch_id: str, model_id: str, label_type: str, ipc: bytes, *, source: str = ""
    ) -> "Future[None]":
        """Send a batch of outcomes; see `produce`."""
        return self.produce(
            Arrival(
                kind="outcomes",
                batch_id=batch_id,
                model_id=model_id,
                label_type=label_type,
                payload=ipc,
                source=source,
            )
        )

    def produce(self, arrival: Arrival) -> "Future[None]":
        """Send a batch. Resolves when all in-sync replicas have it; fails with `Unavailable` if they may not."""
        answer: Future[None] = Future()

        def delivered(error: KafkaError | None, _message: Any) -> None:
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(self._unavailable(error.str()))

        try:
            self._producer.produce(
                self._topics[arrival.kind],
                value=arrival.payload,
                key=key_of(arrival.model_id, arrival.batch_id),
                headers=headers_of(arrival),
                on_delivery=delivered,
            )
        except BufferError:
            answer.set_exception(self._unavailable("too much waits to be sent: slow down"))
        except KafkaException as error:
            answer.set_exception(self._unavailable(str(error)))
        return answer

    def close(self, timeout_s: float = 10.0) -> int:
        """Send what waits; how many batches could not be delivered in time."""
        left = int(self._producer.flush(timeout_s))
        self._stopping.set()
        self._thread.join()
        return left

    def _serve(self) -> None:
        """Let the library tell what was delivered."""
        while not self._stopping.is_set():
            self._producer.poll(POLL_S)

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(
            Reason.STORE_UNAVAILABLE, f"Kafka at {self._brokers} did not take the batch: {why}; send it again"
        )
