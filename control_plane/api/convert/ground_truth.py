"""Coverage; hours that producers counted."""

from runway.v1 import ground_truth_pb2

from control_plane.api.convert.common import instant_from, timestamp
from control_plane.app.fact_store import CoverageRow, SentHistogram, ServedBy
from control_plane.app.ground_truth import CountedHour

LAYERS: "dict[ServedBy, ground_truth_pb2.Layer.ValueType]" = {
    "speed": ground_truth_pb2.LAYER_SPEED,
    "batch": ground_truth_pb2.LAYER_BATCH,
    "pending": ground_truth_pb2.LAYER_PENDING,
}


def counted_hour(request: ground_truth_pb2.IngestHistogramsRequest) -> CountedHour:
    """An hour as a producer counted it; `Invalid` if its time is none."""
    return CountedHour(
        producer=request.producer,
        hour=instant_from(request.hour, "hour"),
        predictions=request.predictions,
        features=tuple(_histogram(feature) for feature in request.features),
        prediction=_histogram(request.prediction) if request.HasField("prediction") else None,
        slice_name=request.slice,
        replace=request.replace,
    )


def _histogram(message: ground_truth_pb2.HourHistogram) -> SentHistogram:
    return SentHistogram(
        name=message.name,
        edges=tuple(message.edges),
        categories=tuple(message.categories),
        counts=tuple(message.counts),
    )


def coverage(row: CoverageRow) -> ground_truth_pb2.CoverageRow:
    """How much of the truth has arrived for a stretch of prediction time."""
    return ground_truth_pb2.CoverageRow(
        start_time=timestamp(row.start),
        end_time=timestamp(row.end),
        predicted=row.predicted,
        mature=row.mature,
        joined=row.joined,
        late=row.late,
        orphans=row.orphans,
        coverage=row.coverage,
        layer=LAYERS[row.layer],
    )
