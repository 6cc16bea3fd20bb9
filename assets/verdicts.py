"""Runway's verdict as Dagster shows it: the check `fresh` of every model, and observations whose numbers plot."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from assets.plane import ControlPlane, Verdict
from assets.tags import FRESH

SEVERITY = {"STALE": dg.AssetCheckSeverity.ERROR}
"""AT_RISK and UNKNOWN warn: neither may look fresh, and neither is worth waking somebody."""

CONFIDENCES = {"LOW": 1.0, "MEDIUM": 2.0, "HIGH": 3.0}
"""As a number too, because only numbers plot."""


def fresh_check(model_id: str, connect: Callable[[], ControlPlane]) -> dg.AssetChecksDefinition:
    """The check of one model. The staleness sensor reports its results; run by hand it evaluates the model now."""

    @dg.asset_check(
        name=FRESH,
        asset=dg.AssetKey([model_id]),
        description="Runway's verdict: age, input drift, prediction drift and performance together.",
    )
    def fresh() -> dg.AssetCheckResult:
        plane = connect()
        try:
            verdict = plane.evaluate(model_id)
        finally:
            plane.close()
        return dg.AssetCheckResult(
            passed=verdict.verdict == "FRESH",
            severity=severity_of(verdict),
            description=description_of(verdict),
            metadata=metadata_of(verdict),
        )

    return fresh


def severity_of(verdict: Verdict) -> dg.AssetCheckSeverity:
    """How bad a verdict that is not FRESH is."""
    return SEVERITY.get(verdict.verdict, dg.AssetCheckSeverity.WARN)


def description_of(verdict: Verdict) -> str:
    """The verdict with its first reasons."""
    return ": ".join((verdict.verdict, "; ".join(verdict.reasons[:3]))) if verdict.reasons else verdict.verdict


def metadata_of(verdict: Verdict) -> dict[str, Any]:
    """Numbers as floats, because Dagster plots those and only those."""
    found: dict[str, Any] = {"verdict": verdict.verdict}
    for name in ("score", "score_low", "score_high", "threshold", "top_psi"):
        value = getattr(verdict, name)
        if value is not None:
            found[name] = dg.MetadataValue.float(float(value))
    found |= {name: dg.MetadataValue.float(float(value)) for name, value in sorted(verdict.signals.items())}
    found |= {f"metric {name}": dg.MetadataValue.float(float(value)) for name, value in sorted(verdict.metrics.items())}
    if verdict.top_feature:
        found["top_feature"] = verdict.top_feature
    if verdict.version:
        found["version"] = dg.MetadataValue.int(verdict.version)
    if verdict.evaluated_at is not None:
        found["evaluated_at"] = dg.MetadataValue.timestamp(verdict.evaluated_at)
    if verdict.confidence in CONFIDENCES:
        found["confidence"] = verdict.confidence
        found["confidence level"] = dg.MetadataValue.float(CONFIDENCES[verdict.confidence])
    for name, sentences in (("reasons", verdict.reasons), ("would_change", verdict.would_change)):
        if sentences:
            found[name] = dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in sentences))
    for name in ("season", "forecast", "rules"):
        if getattr(verdict, name):
            found[name] = getattr(verdict, name)
    if verdict.recommended_action:
        found["recommended_action"] = verdict.recommended_action
    return found


def events_of(verdict: Verdict) -> tuple[dg.AssetObservation, dg.AssetCheckEvaluation]:
    """The runless events of a verdict: numbers over time, and the state of the check."""
    key, metadata = dg.AssetKey([verdict.model_id]), metadata_of(verdict)
    return (
        dg.AssetObservation(asset_key=key, description=description_of(verdict), metadata=metadata),
        dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=FRESH,
            passed=verdict.verdict == "FRESH",
            severity=severity_of(verdict),
            description=description_of(verdict),
            metadata=metadata,
            blocking=False,
        ),
    )
