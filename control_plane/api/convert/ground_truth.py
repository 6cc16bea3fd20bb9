"""Coverage; hours that producers counted."""

from runway.v1 import ground_truth_pb2

from control_plane.api.convert.common import instant_from, timestamp
from control_plane.app.fact_reports import CoverageRow, SentHistogram, ServedBy
from control_plane.app.ground_truth import CountedHour
from control_plane.core.ground_truth.coverage import standard_error
from control_plane.core.ground_truth.findings import Finding
from control_plane.core.ground_truth.representativeness import Likeness

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
    """How much of the truth has arrived for a stretch of prediction time, a version or a slice."""
    known = row.joined + row.absent
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
        absent=row.absent,
        joined_early=row.joined_early,
        outside=row.outside,
        pending=row.pending,
        imputed=row.imputed,
        sample_rate=row.sample_rate,
        standard_error=standard_error(known, row.mature, row.sample_rate),
        version=row.version,
        slice=row.slice_name,
    )


def coverage_finding(finding: Finding) -> ground_truth_pb2.CoverageFinding:
    """A likely cause."""
    return ground_truth_pb2.CoverageFinding(
        cause=cause_of(finding.cause.value),
        explanation=finding.explanation,
        remedy=finding.remedy,
        share=finding.share,
        version=finding.version,
        slice=finding.slice_name,
    )


def cause_of(cause: str) -> "ground_truth_pb2.CoverageCause.ValueType":
    """A cause as events name it; unspecified if it is empty."""
    return ground_truth_pb2.CoverageCause.Value(f"COVERAGE_CAUSE_{(cause or 'unspecified').upper()}")


def representativeness(found: Likeness) -> ground_truth_pb2.Representativeness:
    """Whether the labelled are like all."""
    return ground_truth_pb2.Representativeness(
        representative=found.representative,
        psi=found.psi,
        psi_chance=found.psi_chance,
        score_edges=found.edges.tolist(),
        weights=found.weights.tolist(),
        weighted=[
            ground_truth_pb2.PerformanceMetric(
                name=metric.name,
                value=metric.value,
                standard_error=metric.standard_error,
                sample_size=metric.sample_size,
                low=metric.interval[0],
                high=metric.interval[1],
            )
            for metric in found.weighted
        ],
        explanation=found.explanation,
    )
