"""Performance: metrics with intervals, and how long outcomes take."""

from collections.abc import Callable

from runway.v1 import ground_truth_pb2

from control_plane.api.convert.common import timestamp
from control_plane.api.convert.ground_truth import LAYERS
from control_plane.app.fact_reports import Grain, PerformanceReport, PerformanceRow
from control_plane.core.ground_truth.arrival import delay_quantile
from control_plane.core.ground_truth.labels import LabelKind, LabelSpec, all_labels
from control_plane.core.ground_truth.partials import DELAY_EDGES_S
from control_plane.core.registry.types import ModelVersion

GRAINS: "dict[int, Grain]" = {
    ground_truth_pb2.GRAIN_UNSPECIFIED: "day",
    ground_truth_pb2.GRAIN_DAY: "day",
    ground_truth_pb2.GRAIN_HOUR: "hour",
    ground_truth_pb2.GRAIN_VERSION: "version",
    ground_truth_pb2.GRAIN_SLICE: "slice",
}
_KINDS: "dict[LabelKind, ground_truth_pb2.LabelKind.ValueType]" = {
    "exact": ground_truth_pb2.LABEL_KIND_EXACT,
    "proxy": ground_truth_pb2.LABEL_KIND_PROXY,
    "imputed": ground_truth_pb2.LABEL_KIND_IMPUTED,
}

VersionOf = Callable[[int], ModelVersion | None]
"""The version by number, the one in production for 0; None if there is none."""


def performance_response(
    report: PerformanceReport, declared: LabelSpec, version_of: VersionOf, revision: int
) -> ground_truth_pb2.GetPerformanceResponse:
    """A report beside the holdouts of its versions, which are of the model's own label: on another one nothing is
    promised."""
    kinds = {spec.label_type: kind for spec, kind in all_labels(declared)}
    own = report.label.label_type == declared.label_type

    def version(row: PerformanceRow) -> ModelVersion | None:
        return version_of(row.version) if own else None

    return ground_truth_pb2.GetPerformanceResponse(
        total=_row(report.total, version(report.total)),
        rows=[_row(row, version(row)) for row in report.rows],
        revision=revision,
        delays=_delays(report),
        label_type=report.label.label_type,
        degraded=report.degraded,
        label_kind=_KINDS[kinds.get(report.label.label_type, "exact")],
    )


def _row(row: PerformanceRow, version: ModelVersion | None) -> ground_truth_pb2.PerformanceRow:
    baselines = {metric.name: metric.value for metric in version.facts.metrics} if version is not None else {}
    metrics = []
    for metric in row.metrics:
        low, high = metric.interval
        metrics.append(
            ground_truth_pb2.PerformanceMetric(
                name=metric.name,
                value=metric.value,
                standard_error=metric.standard_error,
                sample_size=metric.sample_size,
                baseline=baselines.get(metric.name),
                low=low,
                high=high,
            )
        )
    return ground_truth_pb2.PerformanceRow(
        start_time=timestamp(row.start),
        end_time=timestamp(row.end),
        metrics=metrics,
        layer=LAYERS[row.layer],
        provisional=row.provisional,
        predicted=row.partial.of("predicted"),
        labelled=row.partial.labelled,
        arrived=row.arrived,
        sample_rate=row.sample_rate,
        version=row.version,
        slice=row.slice_name,
        computed_at=timestamp(row.computed_at) if row.computed_at is not None else None,
        imputed=row.partial.of("imputed"),
    )


def _delays(report: PerformanceReport) -> ground_truth_pb2.DelayHistogram | None:
    if report.delays is None:
        return None
    return ground_truth_pb2.DelayHistogram(
        edges_s=DELAY_EDGES_S.tolist(),
        counts=report.delays.tolist(),
        arrived=report.arrival_curve.tolist() if report.arrival_curve is not None else [],
        median_s=delay_quantile(report.delays, 0.5),
        p95_s=delay_quantile(report.delays, 0.95),
    )
