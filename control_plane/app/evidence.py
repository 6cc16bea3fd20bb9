"""From what facts and the registry say about a version to what staleness looks at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from control_plane.app.fact_reports import EstimateFacts, FactEvidence, FeatureEvidence, PerformanceRow, ProxyFacts
from control_plane.core.ground_truth.metrics import MetricValue
from control_plane.core.ground_truth.partials import DECISION_THRESHOLD, score_bin_edges
from control_plane.core.ids import ModelId
from control_plane.core.policies import EffectivePolicies
from control_plane.core.registry.types import Metric, ModelVersion, TaskType
from control_plane.core.staleness.evidence import (
    ConceptCounts,
    Evidence,
    FeatureTable,
    PerformanceEvidence,
    PerformanceSource,
    PredictionCounts,
    ScoreAt,
    SliceEvidence,
    UpstreamEvidence,
    Volume,
    flat_feature_table,
)
from control_plane.core.staleness.guardrails import tolerances
from control_plane.core.statistics.cbpe import calibration, expected_metrics
from control_plane.core.statistics.correlation import rank_correlation
from control_plane.core.statistics.downstream import Attribution

HIGHER_IS_BETTER = frozenset({"auc", "accuracy", "precision", "recall", "r2"})
HOUR = timedelta(hours=1)

Metrics = Mapping[str, Metric]
"""The holdout's metrics of a version, by name; of slices `name slice`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedUpstream:
    """An upstream model that serves another version than this one was trained with; sha256 of their embeddings."""

    model_id: str
    trained_with: int
    serves: int
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model as it is about to be looked at; nothing in it changes while a thread reads it."""

    model_id: ModelId
    task_type: TaskType
    version: ModelVersion
    policies: EffectivePolicies
    moved: tuple[MovedUpstream, ...] = ()
    downstream: Attribution | None = None
    """What its labelled consumers say of it, if any."""
    coverage_alert: bool = False
    """Stands already."""


def evidence_of(
    subject: Subject,
    facts: FactEvidence,
    upstreams: tuple[UpstreamEvidence, ...] = (),
    history: tuple[ScoreAt, ...] = (),
) -> Evidence:
    """Everything known about a version; what is not known stays None."""
    version, label = subject.version, subject.policies.label
    holdout = {f"{one.name} {one.slice}".strip(): one for one in version.facts.metrics}
    prediction, concept = facts.prediction, facts.concept
    outcomes = subject.task_type.has_outcomes
    return Evidence(
        model_version=version.number,
        trained_until=version.facts.trained_until,
        features=table_of(facts.features),
        prediction=PredictionCounts(reference=prediction.reference, current=prediction.current)
        if prediction is not None
        else None,
        performance=_measured(facts.performance, holdout, label.primary_metric),
        coverage=facts.coverage.coverage if outcomes else None,
        guardrails=_guardrails(subject, facts, holdout),
        fallbacks=_fallbacks(subject, facts, holdout),
        concept=ConceptCounts(
            reference_total=concept.reference_total,
            reference_positive=concept.reference_positive,
            current_total=concept.current_total,
            current_positive=concept.current_positive,
        )
        if concept is not None
        else None,
        slices=tuple(
            SliceEvidence(
                name=one.name,
                features=table_of(one.features),
                performance=_measured(one.performance, holdout, label.primary_metric, slice_name=one.name),
            )
            for one in facts.slices
        ),
        volume=Volume(current=facts.volume[0], before=facts.volume[1]) if facts.volume[1] else None,
        upstreams=upstreams,
        labels_per_day=facts.labels_per_day,
        history=history,
    )


def table_of(features: Sequence[FeatureEvidence]) -> FeatureTable | None:
    """The features stacked; None if there are none."""
    if not features:
        return None
    return flat_feature_table(
        names=tuple(feature.name for feature in features),
        categorical=np.array([feature.kind == "categorical" for feature in features]),
        cells=np.array([len(feature.reference) for feature in features], np.int64),
        reference=np.concatenate([feature.reference for feature in features]),
        current=np.concatenate([feature.current for feature in features]),
        importance=np.array([feature.importance for feature in features], np.float64),
        psi_usual=np.array([feature.psi_usual for feature in features], np.float64),
        categories={feature.name: feature.cells for feature in features if feature.kind == "categorical"},
        outside=np.array([feature.outside for feature in features], np.int64),
    )


def _measured(
    row: PerformanceRow | None, holdout: Metrics, name: str, *, slice_name: str = ""
) -> PerformanceEvidence | None:
    """A metric now against the version's holdout, if that is known; None without outcomes.

    A slice that the holdout has no metric of is compared with all of the holdout.
    """
    now = row.metric(name) if row is not None else None
    if now is None:
        return None
    then = holdout.get(f"{name} {slice_name}".strip()) or holdout.get(name)
    return _against(now, then)


def _against(now: MetricValue, then: Metric | None) -> PerformanceEvidence:
    return PerformanceEvidence(
        metric=now.name,
        higher_is_better=now.name in HIGHER_IS_BETTER,
        baseline=then.value if then is not None else None,
        baseline_error=then.standard_error if then is not None else 0.0,
        current=now.value,
        current_error=now.standard_error,
        sample_size=now.sample_size,
    )


def _guardrails(subject: Subject, facts: FactEvidence, holdout: Metrics) -> tuple[PerformanceEvidence, ...]:
    names = sorted(tolerances(subject.policies.staleness.guardrails))
    return tuple(one for name in names if (one := _measured(facts.performance, holdout, name)) is not None)


def _fallbacks(subject: Subject, facts: FactEvidence, holdout: Metrics) -> tuple[PerformanceEvidence, ...]:
    """The primary metric from weaker sources, the strongest first."""
    metric = subject.policies.label.primary_metric
    found = []
    if facts.proxy is not None:
        found.append(_proxied(facts.proxy, metric, holdout))
    if subject.policies.staleness.estimate:
        if subject.downstream is not None:
            found.append(_of_consumers(subject, subject.downstream))
        if facts.estimate is not None:
            found.append(_expected(facts.estimate, metric, holdout))
    return tuple(one for one in found if one is not None)


def _proxied(proxy: ProxyFacts, metric: str, holdout: Metrics) -> PerformanceEvidence | None:
    now = proxy.performance.metric(metric)
    if now is None:
        return None
    found = _against(now, holdout.get(f"{metric} proxy") or holdout.get(metric))
    together = rank_correlation([own for own, _ in proxy.days], [real for _, real in proxy.days])
    return PerformanceEvidence(
        metric=metric,
        higher_is_better=found.higher_is_better,
        baseline=found.baseline,
        baseline_error=found.baseline_error,
        current=found.current,
        current_error=found.current_error,
        sample_size=found.sample_size,
        proxy=proxy.label.label_type,
        proxy_correlation=together.value if together is not None else None,
        source=PerformanceSource.PROXY,
    )


def _of_consumers(subject: Subject, found: Attribution) -> PerformanceEvidence:
    """What labelled consumers lost, in tolerances, as a loss of this model in its own."""
    tolerance = subject.policies.staleness.performance_tolerance
    troubled = ", ".join(found.troubled[:3]) + (" and more" if len(found.troubled) > 3 else "")
    consumers = len(found.troubled) + len(found.healthy)
    says = f"{troubled} got worse, {found.blame:.0%} of it laid to this model" if found.troubled else "all are well"
    return PerformanceEvidence(
        metric="loss of its consumers",
        higher_is_better=False,
        baseline=0.0,
        baseline_error=0.0,
        current=found.drop * tolerance,
        current_error=found.standard_error * tolerance,
        sample_size=found.sample_size,
        source=PerformanceSource.DOWNSTREAM,
        detail=f"read off {consumers} labelled consumer{'s' if consumers != 1 else ''}: {says}",
    )


def _expected(facts: EstimateFacts, metric: str, holdout: Metrics) -> PerformanceEvidence | None:
    known = calibration(facts.calibration_total, facts.calibration_positive)
    if known is None:
        return None
    edges = np.concatenate([[0.0], score_bin_edges(), [1.0]])
    middle = (edges[1:] + edges[:-1]) / 2
    found = expected_metrics(facts.scores, known, middle >= DECISION_THRESHOLD, middle).get(metric)
    if found is None or not math.isfinite(found.value):
        return None
    now = MetricValue(
        name=metric,
        value=found.value,
        standard_error=found.standard_error,
        sample_size=int(facts.scores.sum()),
    )
    then = holdout.get(metric)
    own = _against(now, then)
    return PerformanceEvidence(
        metric=metric,
        higher_is_better=own.higher_is_better,
        baseline=own.baseline,
        baseline_error=own.baseline_error,
        current=own.current,
        current_error=own.current_error,
        sample_size=own.sample_size,
        source=PerformanceSource.ESTIMATE,
        detail=f"calibrated on {int(facts.calibration_total.sum()):,} outcomes",
    )


def window_end(now: datetime) -> datetime:
    """Evidence is kept by whole hours: the window ends with the hour that `now` is in, what has come of it included."""
    whole = now.replace(minute=0, second=0, microsecond=0)
    return whole if whole == now else whole + HOUR
