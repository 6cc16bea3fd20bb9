"""Facts that came by themselves as protobuf become Arrow; dead letters and lags become messages."""

from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError
from runway.v1 import facts_pb2, ground_truth_pb2

from control_plane.api.convert.common import timestamp
from control_plane.api.convert.ingest import outcomes_ipc, predictions_ipc
from control_plane.api.interceptors import validate
from control_plane.app.arrivals import ARROW, PROTOBUF, Arrival, DeadLetter, Lag
from control_plane.core.errors import Invalid, Reason, Violation


def decoded(arrival: Arrival) -> Arrival:
    """A protobuf payload as Arrow. What the message says of itself fills what the envelope leaves open.

    Raises:
        Invalid(INVALID_BATCH): it is not such a message, or contradicts its envelope.
    """
    if arrival.content_type != PROTOBUF:
        raise _refused("content-type", f"{arrival.content_type[:100]!r} is unknown: use {ARROW} or {PROTOBUF}")
    if arrival.kind == "predictions":
        message = _parsed(ground_truth_pb2.IngestPredictionsRequest(), arrival)
        filled = _filled(arrival, message)
        return msgspec.structs.replace(
            filled,
            version=_agreed("version", arrival.version, message.version),
            payload=predictions_ipc(message),
            content_type=ARROW,
        )
    if arrival.kind == "outcomes":
        outcomes = _parsed(ground_truth_pb2.IngestOutcomesRequest(), arrival)
        filled = _filled(arrival, outcomes)
        return msgspec.structs.replace(
            filled,
            label_type=_agreed("label_type", arrival.label_type, outcomes.label_type),
            payload=outcomes_ipc(outcomes),
            content_type=ARROW,
        )
    raise _refused("kind", f"{arrival.kind!r} is neither predictions nor outcomes")


_Request = ground_truth_pb2.IngestPredictionsRequest | ground_truth_pb2.IngestOutcomesRequest

_RequestT = TypeVar("_RequestT", ground_truth_pb2.IngestPredictionsRequest, ground_truth_pb2.IngestOutcomesRequest)
_ValueT = TypeVar("_ValueT", int, str)


def _parsed(message: _RequestT, arrival: Arrival) -> _RequestT:
    try:
        message.ParseFromString(arrival.payload)
    except DecodeError as error:
        raise _refused("payload", f"not a {message.DESCRIPTOR.name}: {error}") from error
    if not message.batch_id:
        message.batch_id = arrival.batch_id
    if not message.model_id:
        message.model_id = arrival.model_id
    if isinstance(message, ground_truth_pb2.IngestPredictionsRequest) and not message.version:
        message.version = arrival.version
    validate(message)
    return message


def _filled(arrival: Arrival, message: _Request) -> Arrival:
    return msgspec.structs.replace(
        arrival,
        batch_id=message.batch_id,
        model_id=_agreed("model_id", arrival.model_id, message.model_id),
        source=message.source or arrival.source,
    )


def _agreed(field: str, envelope: _ValueT, message: _ValueT) -> _ValueT:
    if envelope and message and envelope != message:
        raise _refused(field, f"the header says {envelope!r}, the message {message!r}")
    return envelope or message


def dead_letter(letter: DeadLetter) -> facts_pb2.DeadLetter:
    """A dead letter, without its payload."""
    return facts_pb2.DeadLetter(
        id=letter.letter_id,
        received_at=timestamp(letter.received_at),
        source=letter.arrival.source,
        kind=letter.arrival.kind,
        model_id=letter.arrival.model_id,
        batch_id=letter.arrival.batch_id,
        bytes=letter.size,
        reason=letter.reason,
        message=letter.message,
        replays=letter.replays,
    )


def kafka_lag(lag: Lag) -> facts_pb2.KafkaLag:
    """How far a partition has been taken in."""
    return facts_pb2.KafkaLag(topic=lag.topic, partition=lag.partition, position=lag.position, lag=lag.lag)


def _refused(field: str, message: str) -> Invalid:
    return Invalid(Reason.INVALID_BATCH, Violation(field=field, rule="envelope", message=message))
