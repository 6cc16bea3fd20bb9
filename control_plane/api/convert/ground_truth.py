"""Coverage and performance."""

from runway.v1 import ground_truth_pb2

from control_plane.api.convert.common import timestamp
from control_plane.app.fact_store import CoverageRow, PerformanceRow, ServedBy
from control_plane.core.registry.types import ModelVersion

LAYERS: "dict[ServedBy, ground_truth_pb2.Layer.ValueType]" = {
    "speed": ground_truth_pb2.LAYER_SPEED,
    "batch": ground_truth_pb2.LAYER_BATCH,
    "pending": ground_truth_pb2.LAYER_UNSPECIFIED,
}


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


def performance(row: PerformanceRow, version: ModelVersion | None) -> ground_truth_pb2.PerformanceRow:
    """Metrics of a stretch of prediction time, beside those of the version's holdout."""
    baselines = {metric.name: metric.value for metric in version.facts.metrics} if version is not None else {}
    return ground_truth_pb2.PerformanceRow(
        start_time=timestamp(row.start),
        end_time=timestamp(row.end),
        metrics=[
            ground_truth_pb2.PerformanceMetric(
                name=metric.name,
                value=metric.value,
                standard_error=metric.standard_error,
                sample_size=metric.sample_size,
                baseline=baselines.get(metric.name),
            )
            for metric in row.metrics
        ],
        layer=LAYERS[row.layer],
    )
