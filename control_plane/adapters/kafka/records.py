"""What a batch looks like as a Kafka record, both ways.

One record is one batch. Value: one Arrow IPC stream, or an IngestPredictionsRequest or IngestOutcomesRequest in
protobuf. Headers, all of them text: `content-type`, `model_id`, `version` (of predictions), `label_type` (of outcomes,
may be empty), and if the sender wants them `batch_id` and `source`. A protobuf message may say these itself.
"""

import zlib
from typing import Any

from control_plane.app.arrivals import ARROW, PROTOBUF, Arrival

KEYS_PER_MODEL = 64
"""A model's batches are spread over so many keys, and so over partitions: a large model must not make one hot."""

LOG_LEVEL = 2
"""The library's own log, by syslog's numbers: critical. What matters it tells in callbacks, and we log that."""

Headers = list[tuple[str, str | bytes | None]]


def key_of(model_id: str, batch_id: str) -> bytes:
    """The key of a batch: the model, and a bucket by its id. Order does not matter to the join."""
    return f"{model_id}/{zlib.crc32(batch_id.encode()) % KEYS_PER_MODEL}".encode()


def headers_of(arrival: Arrival) -> Headers:
    """The headers of a batch."""
    said = {
        "content-type": arrival.content_type,
        "model_id": arrival.model_id,
        "version": str(arrival.version) if arrival.kind == "predictions" else "",
        "label_type": arrival.label_type,
        "batch_id": arrival.batch_id,
        "source": arrival.source,
    }
    return [(name, text.encode()) for name, text in said.items() if text]


def arrival_of(message: Any, kind: str) -> Arrival:
    """A record as an arrival; what is wrong with its envelope is its fault, never an exception."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    # The time of the record too: a topic that was deleted and made anew counts its offsets from 0 again.
    own_id = f"kafka/{topic}/{partition}/{offset}@{message.timestamp()[1]}"
    said, fault = _said(message.headers() or [])
    payload = message.value()
    if payload is None:
        fault = fault or "the record has no value: one record is one batch"
    content_type = said.get("content-type", ARROW).partition(";")[0].strip()
    version = said.get("version", "")
    number = int(version) if version.isascii() and version.isdecimal() and len(version) < 10 else 0
    if version and not number:
        fault = fault or f"header version: {version[:40]!r} is no version"
    if content_type != PROTOBUF and not fault:
        missing = [
            name for name in ("model_id", "version") if name not in said and (name, kind) != ("version", "outcomes")
        ]
        if missing:
            fault = f"header {' and '.join(missing)}: missing, and Arrow cannot say it"
    return Arrival(
        kind=kind,
        batch_id=said.get("batch_id") or own_id,
        source=said.get("source") or f"kafka/{topic}",
        model_id=said.get("model_id", ""),
        version=number,
        label_type=said.get("label_type", ""),
        content_type=content_type,
        payload=payload or b"",
        fault=f"{fault} ({own_id})" if fault else "",
    )


def _said(headers: list[tuple[str, bytes | None]]) -> tuple[dict[str, str], str]:
    """Headers as text, the last one of a name; what is wrong with them."""
    said: dict[str, str] = {}
    for name, value in headers:
        try:
            said[name.lower()] = (value or b"").decode()
        except UnicodeDecodeError:
            return said, f"header {name}: not UTF-8"
    return said, ""
