"""Plain values of the port to messages of the contract, and back."""

from collections.abc import Sequence
from datetime import datetime
from typing import get_args

from google.protobuf.timestamp_pb2 import Timestamp
from runway_client import from_timestamp, messages, to_timestamp

from assets.fleet import Kind, Model, Node
from assets.plane import Evidence, Read, Validation, Verdict
from assets.tags import TRAINER_SOURCE, op_name

KINDS: dict[str, Kind] = {f"NODE_KIND_{kind.upper()}": kind for kind in get_args(Kind)}


def training_lineage(model_id: str, version: int, reads: Sequence[Read], run: str) -> messages.LineageRun:
    """A training as lineage. The source is the trainer: it knows what it loaded, Dagster only what it was told."""
    return messages.LineageRun(
        source=TRAINER_SOURCE,
        job=op_name(model_id),
        run_id=run,
        state=messages.RUN_STATE_COMPLETE,
        inputs=[messages.LineageNode(node_id=read.node_id, version=read.version) for read in reads],
        outputs=[messages.LineageNode(node_id=f"model:{model_id}", version=f"v{version}")],
    )


def bare_enum(value: str, prefix: str) -> str:
    """An enum value without its prefix."""
    return value.removeprefix(prefix)


def validation_message(told: Validation) -> messages.Validation:
    """A verdict of whoever validated."""
    return messages.Validation(
        passed=told.passed,
        metric=told.metric,
        candidate=told.candidate,
        production=told.production,
        standard_error=told.standard_error,
        sample_size=told.sample_size,
        explanation=told.explanation,
        holdout_from=timestamp_of(told.holdout_from),
        holdout_until=timestamp_of(told.holdout_until),
    )


def validation_from(known: messages.Validation) -> Validation:
    """A validation as Runway has it."""
    return Validation(
        passed=known.passed,
        metric=known.metric,
        candidate=known.candidate,
        production=known.production if known.HasField("production") else None,
        standard_error=known.standard_error,
        sample_size=known.sample_size,
        explanation=known.explanation,
        holdout_from=from_timestamp(known.holdout_from) if known.HasField("holdout_from") else None,
        holdout_until=from_timestamp(known.holdout_until) if known.HasField("holdout_until") else None,
    )


def evidence_message(measured: Evidence) -> messages.ValidationEvidence:
    """What was measured, for the gate."""
    return messages.ValidationEvidence(
        metric=measured.metric,
        candidate=measured.candidate,
        production=measured.production,
        standard_error=measured.standard_error,
        sample_size=measured.sample_size,
        higher_is_better=measured.higher_is_better,
        slices=[
            messages.ValidationEvidence.Slice(
                slice=one.slice,
                candidate=one.candidate,
                production=one.production,
                standard_error=one.standard_error,
                sample_size=one.sample_size,
            )
            for one in measured.slices
        ],
        calibration_error=measured.calibration_error,
        latency_p99_ms=measured.latency_p99_ms,
        size_mb=measured.size_mb,
        loads=measured.loads,
        embedding_overlap=measured.embedding_overlap,
        holdout_from=timestamp_of(measured.holdout_from),
        holdout_until=timestamp_of(measured.holdout_until),
    )


def timestamp_of(instant: datetime | None) -> Timestamp | None:
    """An instant that may be missing."""
    return None if instant is None else to_timestamp(instant)


def model_from(model: messages.Model) -> Model:
    """A model as Dagster shows it."""
    policy = model.effective_policies.staleness
    return Model(
        model_id=model.model_id,
        owner=model.owner,
        team=model.team,
        tier=int(model.tier),
        task_type=bare_enum(messages.TaskType.Name(model.task_type), "TASK_TYPE_").lower(),
        description=model.description,
        tags=dict(sorted(model.tags.items())),
        consumers=tuple(sorted(model.consumers)),
        age_backstop_days=policy.age_backstop_days if policy.HasField("age_backstop_days") else None,
        deprecated=model.lifecycle == messages.LIFECYCLE_STATE_DEPRECATED,
    )


def node_from(node: messages.Node) -> Node:
    """A node as Dagster shows it."""
    return Node(
        kind=KINDS[messages.NodeKind.Name(node.kind)],
        slug=node.node_id.partition(":")[2],
        description=node.description,
        owner=node.owner,
        team=node.team,
    )


def verdict_from(standing: messages.Staleness) -> Verdict:
    """A standing as Dagster shows it."""
    name = bare_enum(messages.Verdict.Name(standing.verdict), "VERDICT_")
    if not standing.HasField("evaluation"):
        return Verdict(model_id=standing.model_id, verdict=name)
    look = standing.evaluation
    top = look.top_features[0] if look.top_features else None
    return Verdict(
        model_id=standing.model_id,
        verdict=name,
        score=look.score,
        score_low=look.score_low,
        score_high=look.score_high,
        version=int(look.version),
        evaluated_at=from_timestamp(look.evaluated_at),
        top_psi=top.psi_debiased if top else None,
        top_feature=top.name if top else "",
        signals={signal.name: signal.raw for signal in look.signals if not signal.missing},
        confidence=bare_enum(messages.Confidence.Name(look.confidence), "CONFIDENCE_"),
        reasons=tuple(look.reasons),
        recommended_action=look.recommended_action,
        threshold=look.threshold,
        metrics={f"{metric.name} {metric.slice}".strip(): metric.current for metric in look.metrics},
        would_change=tuple(change.sentence for change in look.would_change),
        season=look.season.explanation,
        forecast=look.forecast,
        rules=standing.rules.explanation,
    )
