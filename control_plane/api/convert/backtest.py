"""Backtests between the wire and the rules."""

from collections.abc import Sequence
from datetime import timedelta

from runway.v1 import backtest_pb2

from control_plane.api.convert.common import span_from, timestamp
from control_plane.api.convert.policies import overrides_from
from control_plane.api.convert.rule_messages import rule_from
from control_plane.backtest.contenders import (
    EVERY_MODEL,
    HOUR,
    Contender,
    current,
    every,
    oracle,
    performance_only,
    psi_only,
    with_policies,
)
from control_plane.backtest.report import Point, Report, Result, RetrainRow
from control_plane.core.decide.rules import when_violations
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.policies import normal

EVERY_MAX = timedelta(days=3650)


def contenders_from(messages: Sequence[backtest_pb2.Contender]) -> list[Contender]:
    """Read contenders; `Invalid` with all that is wrong."""
    found: list[Contender] = []
    violations: list[Violation] = []
    names: set[str] = set()
    for number, message in enumerate(messages):
        field = f"contenders[{number}]"
        if message.name in names:
            text = f"{message.name!r} is the name of two contenders: give each its own"
            violations.append(Violation(field=f"{field}.name", rule="unique", message=text))
        names.add(message.name)
        try:
            found.append(_contender_from(message, field))
        except Invalid as error:
            violations += error.violations
    if violations:
        raise Invalid(Reason.INVALID_ARGUMENT, *violations)
    return found


def _contender_from(message: backtest_pb2.Contender, field: str) -> Contender:
    match message.WhichOneof("decides"):
        case "policies":
            overrides = normal(overrides_from(message.policies, f"{field}.policies"))
            return with_policies(message.name, (EVERY_MODEL, overrides))
        case "layers":
            return _layered(message, f"{field}.layers")
        case "every":
            span = span_from(message.every, f"{field}.every")
            if not HOUR <= span <= EVERY_MAX:
                text = f"a schedule is from 1 hour, the step of virtual time, to {EVERY_MAX.days} days"
                raise Invalid(Reason.INVALID_ARGUMENT, Violation(field=f"{field}.every", rule="range", message=text))
            return every(span, message.name)
        case "psi_only":
            kind = psi_only()
        case "performance_only":
            kind = performance_only()
        case "oracle":
            kind = oracle()
        case _:
            kind = current()
    return Contender(name=message.name, kind=kind.kind, layers=kind.layers)


def _layered(message: backtest_pb2.Contender, field: str) -> Contender:
    violations: list[Violation] = []
    for number, rule in enumerate(message.layers.rules):
        violations += when_violations(rule.when, f"{field}.rules[{number}].when")
    if violations:
        raise Invalid(Reason.INVALID_ARGUMENT, *violations)
    layers = [
        (layer.scope, normal(overrides_from(layer.policies, f"{field}.layers[{number}].policies")))
        for number, layer in enumerate(message.layers.layers)
    ]
    return with_policies(message.name, *layers, rules=[rule_from(rule) for rule in message.layers.rules])


def report_message(report: Report) -> backtest_pb2.BacktestReport:
    """A report on the wire."""
    return backtest_pb2.BacktestReport(
        start_time=timestamp(report.start_time),
        end_time=timestamp(report.end_time),
        models=report.models,
        results=map(_result, report.results),
        estimated=report.estimated,
        reading=report.reading,
        warnings=report.warnings,
    )


def _result(result: Result) -> backtest_pb2.BacktestResult:
    return backtest_pb2.BacktestResult(
        name=result.name,
        retrains=result.retrains,
        gpu_hours=result.gpu_hours,
        stale_hours=result.stale_hours,
        quality=result.quality,
        quality_fresh=result.quality_fresh,
        false_alarms_per_model_month=result.false_alarms_per_model_month,
        detection_delay_hours=result.detection_delay_hours,
        recall=result.recall,
        precision=result.precision,
        f1=result.f1,
        regret=result.regret,
        points=map(_point, result.points),
        retrain_log=map(_retrain, result.retrain_log),
    )


def _point(point: Point) -> backtest_pb2.BacktestPoint:
    return backtest_pb2.BacktestPoint(
        at=timestamp(point.at), quality=point.quality, stale_share=point.stale_share, retrains=point.retrains
    )


def _retrain(row: RetrainRow) -> backtest_pb2.BacktestRetrain:
    return backtest_pb2.BacktestRetrain(
        at=timestamp(row.at),
        model_id=row.model_id,
        reason=row.reason,
        truly_stale=row.truly_stale,
        promoted=row.promoted,
    )
