"""Verdicts and evaluations."""

from runway.v1 import staleness_pb2

from control_plane.api.convert.common import timestamp
from control_plane.api.convert.registry import TIERS
from control_plane.api.convert.rule_messages import outcome_message
from control_plane.core.ids import ModelId
from control_plane.core.staleness.verdict import Confidence, Evaluation, Level
from control_plane.core.state import ModelRecord, VerdictChange

VERDICTS = {
    Level.FRESH: staleness_pb2.VERDICT_FRESH,
    Level.AT_RISK: staleness_pb2.VERDICT_AT_RISK,
    Level.STALE: staleness_pb2.VERDICT_STALE,
    Level.UNKNOWN: staleness_pb2.VERDICT_UNKNOWN,
}
VERDICTS_FROM = {number: level for level, number in VERDICTS.items()}
CONFIDENCES = {
    Confidence.LOW: staleness_pb2.CONFIDENCE_LOW,
    Confidence.MEDIUM: staleness_pb2.CONFIDENCE_MEDIUM,
    Confidence.HIGH: staleness_pb2.CONFIDENCE_HIGH,
}


def evaluation(found: Evaluation) -> staleness_pb2.Evaluation:
    """One look, whole."""
    return staleness_pb2.Evaluation(
        version=found.version,
        evaluated_at=timestamp(found.at),
        level=VERDICTS[found.level],
        score=found.score,
        score_low=found.score_low,
        score_high=found.score_high,
        threshold=found.threshold,
        confidence=CONFIDENCES[found.confidence],
        confidence_reason=found.confidence_reason,
        signals=[
            staleness_pb2.Signal(
                name=signal.name,
                value=signal.value,
                raw=signal.raw,
                weight=signal.weight,
                contribution=signal.contribution,
                sample_size=signal.sample_size,
                significant=signal.significant,
                missing=signal.missing,
                explanation=signal.explanation,
            )
            for signal in found.signals
        ],
        top_features=[
            staleness_pb2.FeatureDrift(
                name=feature.name,
                psi=feature.psi,
                psi_debiased=feature.psi_debiased,
                p_value=feature.p_value,
                drifted=feature.drifted,
            )
            for feature in found.top_features
        ],
        reasons=found.reasons,
        recommended_action=found.recommended_action.value,
        data_quality=found.data_quality,
        weighted_average=found.weighted_average,
        noisy_or=found.noisy_or,
        hard_triggers=found.hard_triggers,
    )


def staleness(record: ModelRecord, latest: Evaluation | None) -> staleness_pb2.Staleness:
    """A model's standing with its latest evaluation, or the one that brought its verdict about."""
    standing = record.standing
    shown = latest if latest is not None and latest.version == standing.version else standing.evaluation
    return staleness_pb2.Staleness(
        model_id=record.model_id,
        verdict=VERDICTS[standing.level],
        verdict_since=timestamp(standing.since),
        evaluation=evaluation(shown) if shown is not None else None,
        owner=record.facts.owner,
        team=record.facts.team,
        tier=TIERS[record.facts.tier],
        rules=outcome_message(record),
    )


def verdict_change(model_id: ModelId, change: VerdictChange) -> staleness_pb2.VerdictChange:
    """One entry of a model's verdict history."""
    return staleness_pb2.VerdictChange(
        model_id=model_id,
        version=change.version,
        from_verdict=VERDICTS[change.from_level],
        to_verdict=VERDICTS[change.to_level],
        changed_at=timestamp(change.changed_at),
        evaluation=evaluation(change.evaluation),
        revision=change.revision,
    )
