"""Kafka records: what clients make is what the control plane reads, and what is wrong with one is its fault alone."""

from dataclasses import dataclass, field

import pytest
from runway_client import OutcomeBatch, PredictionBatch
from runway_client.kafka import KafkaRecord, kafka_record

from control_plane.adapters.kafka.records import arrival_of, headers_of, key_of
from control_plane.app.arrivals import ARROW, PROTOBUF, Arrival


@dataclass(frozen=True)
class Message:
    """What the library hands over."""

    sent: KafkaRecord
    at_ms: int = field(default=1_000)

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 42

    def timestamp(self) -> tuple[int, int]:
        return 1, self.at_ms

    def headers(self) -> list[tuple[str, str | bytes | None]]:
        return self.sent.headers

    def value(self) -> bytes | None:
        return self.sent.value


PREDICTIONS = PredictionBatch(batch_id="b", model_id="m", version=3, arrow_ipc=b"rows", source="s")
OUTCOMES = OutcomeBatch(batch_id="b", model_id="m", arrow_ipc=b"rows", label_type="click")


def test_clients_and_the_control_plane_speak_alike() -> None:
    read = arrival_of(Message(kafka_record(PREDICTIONS)), "predictions")
    assert read == Arrival(
        kind="predictions", batch_id="b", source="s", model_id="m", version=3, content_type=ARROW, payload=b"rows"
    )
    assert (kafka_record(PREDICTIONS).key, sorted(kafka_record(PREDICTIONS).headers)) == (
        key_of("m", "b"),
        sorted(headers_of(read)),
    )
    outcomes = arrival_of(Message(kafka_record(OUTCOMES)), "outcomes")
    assert (outcomes.label_type, outcomes.version, outcomes.source) == ("click", 0, "kafka/t")


def bare(**headers: bytes) -> KafkaRecord:
    return KafkaRecord(
        key=b"",
        value=b"rows",
        headers=[
            (name.replace("_type", "-type") if name == "content_type" else name, value)
            for name, value in headers.items()
        ],
    )


def test_a_record_without_an_id_is_known_by_its_place_and_time() -> None:
    record = bare(model_id=b"m", version=b"1")
    assert arrival_of(Message(record), "predictions").batch_id == "kafka/t/3/42@1000"
    # A topic that was deleted and made anew begins at offset 0 again: another batch all the same.
    assert arrival_of(Message(record, at_ms=2_000), "predictions").batch_id == "kafka/t/3/42@2000"


@pytest.mark.parametrize(
    ("record", "kind", "says"),
    [
        (bare(version=b"1"), "predictions", "header model_id: missing"),
        (bare(model_id=b"m"), "predictions", "header version: missing"),
        (bare(model_id=b"m", version=b"0"), "predictions", "'0' is no version"),
        (bare(model_id=b"m", version="१".encode()), "predictions", "is no version"),
        (bare(model_id=b"\xff", version=b"1"), "predictions", "header model_id: not UTF-8"),
        (KafkaRecord(key=b"", value=None, headers=[("model_id", b"m")]), "outcomes", "no value"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_with_an_envelope_is_said(record: KafkaRecord, kind: str, says: str) -> None:
    found = arrival_of(Message(record), kind)
    assert says in found.fault
    assert "kafka/t/3/42" in found.fault


def test_a_protobuf_message_may_say_all_of_it_itself() -> None:
    found = arrival_of(Message(bare(content_type=PROTOBUF.encode())), "predictions")
    assert (found.content_type, found.fault) == (PROTOBUF, "")
