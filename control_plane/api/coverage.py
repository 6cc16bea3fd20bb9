"""What GetCoverage and ListCoverage answer: how much of the truth is here, and why not more."""

from datetime import datetime, timedelta

from runway.v1 import ground_truth_pb2

from control_plane.api.convert.common import instant_from
from control_plane.api.convert.ground_truth import cause_of, coverage, coverage_finding, representativeness
from control_plane.api.convert.performance import GRAINS
from control_plane.api.convert.registry import model_id_from
from control_plane.api.errors import invalid
from control_plane.api.plane import Plane
from control_plane.app.fact_reports import CoverageReport, CoverageRow
from control_plane.app.fact_store import FactStore
from control_plane.app.ground_truth import GroundTruth
from control_plane.core.ground_truth.causes import findings
from control_plane.core.ground_truth.coverage import is_low, standard_error
from control_plane.core.ground_truth.findings import Cause, Finding
from control_plane.core.ground_truth.labels import LabelSpec, all_labels
from control_plane.core.ground_truth.representativeness import Likeness, likeness
from control_plane.core.ground_truth.silence import silences
from control_plane.core.state import ModelRecord
from control_plane.core.timewindow import spelled

MATURE_DEFAULT = timedelta(days=7)
"""Mature predictions that are looked at unless a range is given."""


async def coverage_answer(
    plane: Plane, ground_truth: GroundTruth, request: ground_truth_pb2.GetCoverageRequest, longest: timedelta
) -> ground_truth_pb2.GetCoverageResponse:
    """Of one model. `longest`: a range may not be longer."""
    state = await plane.read(request.read)
    record = state.model(model_id_from(request.model_id))
    version = request.version or None
    if version:
        state.version(record.model_id, version)
    spec = _label(record, request.label_type)
    now = plane.now()
    start, end = _range(request, now, spec, longest)
    minimum = record.staleness_policy.coverage_min
    await ground_truth.tell(record, None)

    def look(
        store: FactStore,
    ) -> tuple[CoverageReport, tuple[Finding, ...], Likeness | None, tuple[str, ...]]:
        report = store.coverage(
            record.model_id,
            version,
            start,
            end,
            now,
            label_type=request.label_type,
            grain=GRAINS[request.grain],
            slice_name=request.slice,
        )
        low = is_low(report.total.coverage, minimum)
        facts, partial = store.missing_facts(
            record.model_id, version, start, end, now, label_type=request.label_type, with_ids=low and not request.slice
        )
        if request.label_type and request.label_type not in (*_names(record), *facts.other_labels):
            raise invalid(
                "label_type",
                "known",
                f"{record.model_id} has no label type {request.label_type!r}: it has {', '.join(_names(record))}",
            )
        if request.slice:
            return report, (), None, ()
        found = likeness(partial, facts.slices) if spec.task == "binary" else None
        causes = findings(facts, minimum)
        told = any(one.cause in (Cause.SOURCE_SILENT, Cause.OUTCOMES_STOPPED) for one in causes)
        return report, causes, found, () if told or end < now else silences(facts)

    report, found, alike, silent = await ground_truth.read(look)
    return ground_truth_pb2.GetCoverageResponse(
        total=coverage(report.total),
        rows=[coverage(row) for row in report.rows],
        coverage_min=minimum,
        alert=record.coverage_alert,
        explanation=explained(record, spec, report.total, minimum),
        revision=state.revision,
        findings=[coverage_finding(one) for one in found],
        representativeness=representativeness(alike) if alike is not None else None,
        label_type=report.label.label_type,
        degraded=[*report.degraded, *silent],
    )


async def fleet_answer(
    plane: Plane, ground_truth: GroundTruth, request: ground_truth_pb2.ListCoverageRequest
) -> ground_truth_pb2.ListCoverageResponse:
    """Of all models that get outcomes."""
    state = await plane.read(request.read)
    now = plane.now()
    records = [
        record
        for _, record in sorted(state.models.items())
        if not record.retired and record.facts.task_type.has_outcomes and request.team in ("", record.facts.team)
    ]
    for record in records:
        await ground_truth.tell(record, None)
    names = [record.model_id for record in records]
    rows = await ground_truth.read(lambda store: store.fleet_coverage(names, now - MATURE_DEFAULT, now, now))
    found = [_model(record, rows[record.model_id]) for record in records]
    low = sum(one.low for one in found)
    found.sort(key=_order)
    return ground_truth_pb2.ListCoverageResponse(
        models=[one for one in found if one.low or not request.low_only],
        total=len(found),
        low=low,
        revision=state.revision,
    )


def _model(record: ModelRecord, row: CoverageRow) -> ground_truth_pb2.ModelCoverage:
    minimum = record.staleness_policy.coverage_min
    return ground_truth_pb2.ModelCoverage(
        model_id=record.model_id,
        tier=record.facts.tier,
        total=coverage(row),
        coverage_min=minimum,
        low=is_low(row.coverage, minimum),
        alert=record.coverage_alert,
        cause=cause_of(record.coverage_cause),
        explanation=record.coverage_explanation,
    )


def _order(one: ground_truth_pb2.ModelCoverage) -> tuple[bool, bool, float, str]:
    known = one.total.HasField("coverage")
    return not one.low, not known, one.total.coverage - one.coverage_min if known else 0.0, one.model_id


def _names(record: ModelRecord) -> list[str]:
    """Its declared label types."""
    return [spec.label_type for spec, _ in all_labels(record.label_spec)]


def _label(record: ModelRecord, label_type: str) -> LabelSpec:
    """The label that is asked for; the model's own if it is not declared, but with its name."""
    known = {spec.label_type: spec for spec, _ in all_labels(record.label_spec)}
    return known.get(label_type or record.label_spec.label_type, record.label_spec)


def _range(
    request: ground_truth_pb2.GetCoverageRequest, now: datetime, spec: LabelSpec, longest: timedelta
) -> tuple[datetime, datetime]:
    """The asked stretch of prediction time; so that 7 days of it are mature, unless said otherwise."""
    end = instant_from(request.end_time, "end_time") if request.HasField("end_time") else now
    if request.HasField("start_time"):
        start = instant_from(request.start_time, "start_time")
    else:
        start = min(end, now - spec.window) - MATURE_DEFAULT
    if start >= end:
        raise invalid("start_time", "order", f"{start.isoformat()} is not before {end.isoformat()}")
    if end - start > longest:
        raise invalid("start_time", "range", f"at most {longest.days} days at once")
    return start, end


def explained(record: ModelRecord, spec: LabelSpec, total: CoverageRow, minimum: float) -> str:
    """The number in a sentence."""
    share = total.coverage
    if share is None:
        return (
            f"no prediction of {record.model_id} in this range is mature yet: "
            f"outcomes count for {spelled(spec.window)} after a prediction"
        )
    verdict = "enough" if share >= minimum else "too little"
    known = total.joined + total.absent
    either = " or count as negative" if total.absent else ""
    error = standard_error(known, total.mature, total.sample_rate)
    estimate = f", give or take {1.96 * error:.1%}: estimated from {total.sample_rate:.1%} of the ids" if error else ""
    young = total.predicted - total.mature - total.pending
    waiting = f"; {total.pending:,} wait for the batch join" if total.pending else ""
    return (
        f"{known:,} of {total.mature:,} mature predictions have their outcome{either} ({share:.1%}{estimate}, "
        f"{verdict}: {minimum:.1%} is asked for); {young:,} are younger than {spelled(spec.window)}{waiting}"
    )
