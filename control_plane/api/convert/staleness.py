"""Verdicts and evaluations."""

from runway.v1 import staleness_pb2

from control_plane.api.convert.common import timestamp
from control_plane.api.convert.registry import TIERS
from control_plane.api.convert.rule_messages import outcome_message
from control_plane.core.ids import ModelId
from control_plane.core.staleness.evidence import MetricRole, PerformanceSource
from control_plane.core.staleness.verdict import (
    Confidence,
    Evaluation,
    FeatureDrift,
    Level,
    MetricReading,
    Season,
    Signal,
    UpstreamCompatibility,
)
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


SOURCES = {
    PerformanceSource.LABELS: staleness_pb2.PERFORMANCE_SOURCE_LABELS,
    PerformanceSource.PROXY: staleness_pb2.PERFORMANCE_SOURCE_PROXY,
    PerformanceSource.DOWNSTREAM: staleness_pb2.PERFORMANCE_SOURCE_DOWNSTREAM,
    PerformanceSource.ESTIMATE: staleness_pb2.PERFORMANCE_SOURCE_ESTIMATE,
}
ROLES = {
    MetricRole.PRIMARY: staleness_pb2.METRIC_ROLE_PRIMARY,
    MetricRole.GUARDRAIL: staleness_pb2.METRIC_ROLE_GUARDRAIL,
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
        signals=map(_signal, found.signals),
        top_features=map(_feature, found.top_features),
        reasons=found.reasons,
        recommended_action=found.recommended_action.value,
        data_quality=found.data_quality,
        weighted_average=found.weighted_average,
        noisy_or=found.noisy_or,
        hard_triggers=found.hard_triggers,
        would_change=[
            staleness_pb2.WouldChange(
                signal=one.signal, to=VERDICTS[one.to], now=one.now, needed=one.needed, sentence=one.sentence
            )
            for one in found.would_change
        ],
        crosses_at=timestamp(found.crosses_at),
        forecast=found.forecast,
        season=_season(found.season) if found.season is not None else None,
        metrics=map(_metric, found.metrics),
        slices=[
            staleness_pb2.SliceDrift(
                slice=one.slice,
                sample_size=one.sample_size,
                value=one.value,
                drifted_share=one.drifted_share,
                top_features=map(_feature, one.top_features),
            )
            for one in found.slices
        ],
        upstreams=map(upstream_message, found.upstreams),
        evidence_sha256=found.evidence_sha256,
    )


def _signal(signal: Signal) -> staleness_pb2.Signal:
    return staleness_pb2.Signal(
        name=signal.name,
        value=signal.value,
        raw=signal.raw,
        weight=signal.weight,
        contribution=signal.contribution,
        sample_size=signal.sample_size,
        significant=signal.significant,
        missing=signal.missing,
        explanation=signal.explanation,
        source=SOURCES[signal.source] if signal.source is not None else staleness_pb2.PERFORMANCE_SOURCE_UNSPECIFIED,
    )


def _feature(feature: FeatureDrift) -> staleness_pb2.FeatureDrift:
    return staleness_pb2.FeatureDrift(
        name=feature.name,
        psi=feature.psi,
        psi_debiased=feature.psi_debiased,
        p_value=feature.p_value,
        drifted=feature.drifted,
        seasonally_expected=feature.seasonally_expected,
        psi_usual=feature.psi_usual,
        importance=feature.importance,
    )


def _season(season: Season) -> staleness_pb2.Season:
    return staleness_pb2.Season(
        expected=season.expected,
        features_expected=season.features_expected,
        features_drifted=season.features_drifted,
        explanation=season.explanation,
    )


def _metric(metric: MetricReading) -> staleness_pb2.MetricReading:
    return staleness_pb2.MetricReading(
        name=metric.name,
        role=ROLES[metric.role],
        slice=metric.slice,
        source=SOURCES[metric.source],
        proxy=metric.proxy,
        proxy_correlation=metric.proxy_correlation,
        baseline=metric.baseline,
        current=metric.current,
        drop=metric.drop,
        drop_low=metric.drop_low,
        drop_high=metric.drop_high,
        p_value=metric.p_value,
        sample_size=metric.sample_size,
        tolerance=metric.tolerance,
    )


def upstream_message(upstream: UpstreamCompatibility) -> staleness_pb2.UpstreamCompatibility:
    """How an upstream's embeddings moved."""
    return staleness_pb2.UpstreamCompatibility(
        model_id=upstream.model_id,
        trained_with=upstream.trained_with,
        serves=upstream.serves,
        compatible=upstream.compatible,
        knn_jaccard=upstream.knn_jaccard,
        knn_jaccard_floor=upstream.knn_jaccard_floor,
        procrustes_cosine=upstream.procrustes_cosine,
        cka=upstream.cka,
        anchors=upstream.anchors,
        explanation=upstream.explanation,
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
