"""Rollouts, validations, canaries, freezes."""

from datetime import datetime

from runway.v1 import rollout_pb2

from control_plane.api.convert.common import duration, instant_from, timestamp
from control_plane.core.decide.canary import waits_for
from control_plane.core.ids import RolloutId
from control_plane.core.rollout.gate import checks_missing
from control_plane.core.rollout.types import (
    Arm,
    Direction,
    FreezeWindow,
    Judgement,
    JudgeVerdict,
    Look,
    MetricJudgement,
    Rollout,
    RolloutState,
    SliceEvidence,
    Validation,
    ValidationCheck,
    ValidationEvidence,
)
from control_plane.core.state import State

STATES = {state: rollout_pb2.RolloutState.Value(f"ROLLOUT_STATE_{state.value}") for state in RolloutState}
STATES_FROM = {number: state for state, number in STATES.items()}
VERDICTS = {verdict: rollout_pb2.JudgeVerdict.Value(f"JUDGE_VERDICT_{verdict.value}") for verdict in JudgeVerdict}
DIRECTIONS = {
    Direction.HIGHER: rollout_pb2.METRIC_DIRECTION_HIGHER,
    Direction.LOWER: rollout_pb2.METRIC_DIRECTION_LOWER,
}


def validation_from(message: rollout_pb2.Validation) -> Validation:
    """A comparison of candidate and production."""
    return Validation(
        passed=message.passed,
        metric=message.metric,
        candidate=message.candidate,
        production=message.production if message.HasField("production") else None,
        standard_error=message.standard_error,
        sample_size=message.sample_size,
        explanation=message.explanation,
        holdout_from=instant_from(message.holdout_from, "validation.holdout_from")
        if message.HasField("holdout_from")
        else None,
        holdout_until=instant_from(message.holdout_until, "validation.holdout_until")
        if message.HasField("holdout_until")
        else None,
        checks=tuple(check_from(check) for check in message.checks),
    )


def check_from(message: rollout_pb2.ValidationCheck) -> ValidationCheck:
    """A check of a candidate."""
    return ValidationCheck(
        name=message.name,
        passed=message.passed,
        value=message.value if message.HasField("value") else None,
        bound=message.bound if message.HasField("bound") else None,
        explanation=message.explanation,
    )


def evidence_from(message: rollout_pb2.ValidationEvidence) -> ValidationEvidence:
    """What was measured, for the gate."""
    return ValidationEvidence(
        metric=message.metric,
        candidate=message.candidate,
        production=message.production if message.HasField("production") else None,
        standard_error=message.standard_error,
        sample_size=message.sample_size,
        slices=tuple(
            SliceEvidence(
                slice=one.slice,
                candidate=one.candidate,
                production=one.production,
                standard_error=one.standard_error,
                sample_size=one.sample_size,
            )
            for one in message.slices
        ),
        calibration_error=message.calibration_error if message.HasField("calibration_error") else None,
        latency_p99_ms=message.latency_p99_ms if message.HasField("latency_p99_ms") else None,
        size_mb=message.size_mb if message.HasField("size_mb") else None,
        loads=message.loads if message.HasField("loads") else None,
        embedding_overlap=message.embedding_overlap if message.HasField("embedding_overlap") else None,
        holdout_from=instant_from(message.holdout_from, "evidence.holdout_from")
        if message.HasField("holdout_from")
        else None,
        holdout_until=instant_from(message.holdout_until, "evidence.holdout_until")
        if message.HasField("holdout_until")
        else None,
        custom=tuple(check_from(check) for check in message.custom),
        higher_is_better=message.higher_is_better if message.HasField("higher_is_better") else None,
    )


def look_from(message: rollout_pb2.ReportCanaryRequest, now: datetime) -> Look:
    """What both arms have measured. Numbers that are none stay: the judge says what they are worth."""
    return Look(
        at=now,
        candidate={metric.name: _arm_from(metric.candidate) for metric in message.metrics},
        control={metric.name: _arm_from(metric.control) for metric in message.metrics},
        candidate_requests=message.candidate_requests,
        control_requests=message.control_requests,
    )


def _arm_from(message: rollout_pb2.ArmStatistics) -> Arm:
    return Arm(count=message.count, mean=message.mean, m2=message.m2)


def freeze_from(message: rollout_pb2.FreezeWindow, set_by: str) -> FreezeWindow:
    """A freeze window."""
    return FreezeWindow(
        name=message.name,
        scope=message.scope,
        starts_at=instant_from(message.starts_at, "freeze.starts_at"),
        ends_at=instant_from(message.ends_at, "freeze.ends_at"),
        reason=message.reason,
        set_by=set_by,
    )


def freeze(found: FreezeWindow) -> rollout_pb2.FreezeWindow:
    """A freeze window on the wire."""
    return rollout_pb2.FreezeWindow(
        name=found.name,
        scope=found.scope,
        starts_at=timestamp(found.starts_at),
        ends_at=timestamp(found.ends_at),
        reason=found.reason,
        set_by=found.set_by,
    )


def validation(found: Validation) -> rollout_pb2.Validation:
    """A comparison on the wire."""
    return rollout_pb2.Validation(
        passed=found.passed,
        metric=found.metric,
        candidate=found.candidate,
        production=found.production,
        standard_error=found.standard_error,
        sample_size=found.sample_size,
        explanation=found.explanation,
        holdout_from=timestamp(found.holdout_from),
        holdout_until=timestamp(found.holdout_until),
        checks=[_check(check) for check in found.checks],
    )


def _check(found: ValidationCheck) -> rollout_pb2.ValidationCheck:
    return rollout_pb2.ValidationCheck(
        name=found.name, passed=found.passed, value=found.value, bound=found.bound, explanation=found.explanation
    )


def judgement(found: Judgement) -> rollout_pb2.Judgement:
    """What the judge said, on the wire."""
    return rollout_pb2.Judgement(
        verdict=VERDICTS[found.verdict],
        at=timestamp(found.at),
        step=found.step,
        metrics=[_metric(metric) for metric in found.metrics],
        reason=found.reason,
        sample_ratio_evidence=found.sample_ratio_evidence,
    )


def _metric(found: MetricJudgement) -> rollout_pb2.MetricJudgement:
    return rollout_pb2.MetricJudgement(
        name=found.name,
        verdict=VERDICTS[found.verdict],
        direction=DIRECTIONS[found.direction],
        tolerance=found.tolerance,
        control_mean=found.control_mean,
        candidate_mean=found.candidate_mean,
        difference=found.difference,
        low=found.low,
        high=found.high,
        control_count=found.control_count,
        candidate_count=found.candidate_count,
    )


def rollout(state: State, found: Rollout, now: datetime) -> rollout_pb2.Rollout:
    """A rollout on the wire, with what it waits for at `now`."""
    return rollout_pb2.Rollout(
        rollout_id=found.rollout_id,
        model_id=found.model_id,
        version=found.version,
        production_before=found.production_before,
        state=STATES[found.state],
        validation=validation(found.validation) if found.validation else None,
        started_at=timestamp(found.started_at),
        ended_at=timestamp(found.ended_at),
        retrain_id=found.retrain_id or "",
        conclusion=found.conclusion,
        serving=found.plan.serving,
        steps=[
            rollout_pb2.RolloutStep(
                weight=step.weight, bake=duration(step.bake), observations_min=step.observations_min
            )
            for step in found.plan.steps
        ],
        step=found.step,
        weight=found.weight,
        weight_applied=found.weight_applied,
        weight_failure=found.weight_failure,
        stepped_at=timestamp(found.stepped_at),
        judgement=judgement(found.judgement) if found.judgement else None,
        approvals_required=found.plan.approvals,
        approvals=[
            rollout_pb2.Approval(approver=one.approver, at=timestamp(one.at), reason=one.reason)
            for one in found.approvals
        ],
        approval_until=timestamp(found.approval_until),
        held_by=found.held_by,
        hold_reason=found.hold_reason,
        group_id=found.group_id,
        requested_by=found.requested_by,
        waiting_for=waits_for(state, found, now),
        story=[rollout_pb2.RolloutMoment(at=timestamp(one.at), sentence=one.sentence) for one in found.story],
        checks=[_check(one) for one in found.checks],
        missing_checks=checks_missing(state.models[found.model_id].validation_policy, found) if found.live else (),
    )


def rollout_id_from(text: str) -> RolloutId:
    """A rollout's id, as it is given."""
    return RolloutId(text.strip())
