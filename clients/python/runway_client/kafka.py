"""A batch as the Kafka record that Runway consumes, for whichever Kafka client you have; none is needed here.

    batch = PredictionBatch(batch_id="scorer-7/2013-03-01T12", model_id="delay", version=3, arrow_ipc=rows)
    record = kafka_record(batch)
    producer.produce("runway.predictions", key=record.key, value=record.value, headers=record.headers)

Set `enable.idempotence=true` and `acks=all`, so that what your producer reports as delivered is not lost.
"""

import zlib
from dataclasses import dataclass

from runway_client.ingest import OutcomeBatch, PredictionBatch

ARROW = "application/vnd.apache.arrow.stream"
KEYS_PER_MODEL = 64
"""A model's batches are spread over so many keys, and so over partitions: a large model must not make one hot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaRecord:
    """One batch. The topic says whether it is of predictions or of outcomes."""

    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


def kafka_record(batch: PredictionBatch | OutcomeBatch) -> KafkaRecord:
    """A batch as a record. Its id travels along, so that a record that is produced twice is stored once."""
    said = {"content-type": ARROW, "model_id": batch.model_id, "batch_id": batch.batch_id, "source": batch.source}
    if isinstance(batch, PredictionBatch):
        said["version"] = str(batch.version)
    else:
        said["label_type"] = batch.label_type
    bucket = zlib.crc32(batch.batch_id.encode()) % KEYS_PER_MODEL
    return KafkaRecord(
        key=f"{batch.model_id}/{bucket}".encode(),
        value=batch.arrow_ipc,
        headers=[(name, text.encode()) for name, text in said.items() if text],
    )
