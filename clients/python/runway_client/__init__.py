"""Python client of Runway.

    from runway_client import connect

    with connect() as runway:
        for model in runway.registry.list_models(teams=["ops"]):
            print(model.model_id, runway.graph.get_impact(f"model:{model.model_id}").waves)

Changes carry a request id and are retried while the control plane is away; errors are `RunwayRpcError` and say what to
do. Messages of the contract are in `runway_client.messages`; Arrow builders, which import pyarrow, in
`runway_client.arrow`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from runway_client.client import Runway, connect
from runway_client.connection import ADDRESS_DEFAULT, MESSAGE_BYTES_MAX, Why
from runway_client.errors import (
    AlreadyExists,
    FieldViolation,
    InvalidRequest,
    NoAnswer,
    NotFound,
    Refused,
    RunwayRpcError,
    Unreachable,
)
from runway_client.ingest import BatchAnswer, Histogram, HistogramBatch, OutcomeBatch, PredictionBatch
from runway_client.times import from_duration, from_timestamp, to_duration, to_timestamp
from runway_client.watching import WatchItem

if TYPE_CHECKING:
    from runway_client.arrow import outcome_batch, prediction_batch, prediction_ids

__all__ = [
    "ADDRESS_DEFAULT",
    "MESSAGE_BYTES_MAX",
    "AlreadyExists",
    "BatchAnswer",
    "FieldViolation",
    "Histogram",
    "HistogramBatch",
    "InvalidRequest",
    "NoAnswer",
    "NotFound",
    "OutcomeBatch",
    "PredictionBatch",
    "Refused",
    "Runway",
    "RunwayRpcError",
    "Unreachable",
    "WatchItem",
    "Why",
    "connect",
    "from_duration",
    "from_timestamp",
    "outcome_batch",
    "prediction_batch",
    "prediction_ids",
    "to_duration",
    "to_timestamp",
]


def __getattr__(name: str) -> Any:
    """The Arrow builders, imported when first asked for."""
    if name in ("outcome_batch", "prediction_batch", "prediction_ids"):
        return getattr(importlib.import_module("runway_client.arrow"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
