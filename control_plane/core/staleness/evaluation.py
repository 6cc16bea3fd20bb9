"""One look: from evidence to an evaluation. The rule, in order; the body follows it.

1. Each signal is read: a value from 0 to 1, or missing with the reason why. Performance comes from outcomes, or from
the first weaker source that is usable. 2. Hard triggers: age at the backstop, outcomes worse than the floor, an
upstream whose embeddings are not compatible with those it was trained with. 3. Faults of the data; vetoes of
guardrails and slices. 4. Signals, triggers, faults and vetoes give score and level, see `levels`. 5. What to do: a
data-quality finding goes to the data's owner, even of a model that is STALE, because training on broken data mends
nothing; STALE is retrained; AT_RISK and UNKNOWN wait; FRESH needs nothing. 6. Around it: how sure, why, what would
change it, when it will be stale.

More evidence of trouble never gives a better level: every step is monotone in the value of each signal. And a look
at one model is the same, bit for bit, whoever else is looked at with it: that is what makes it replayable.
"""

from collections.abc import Sequence
from datetime import datetime

from control_plane.core.staleness import signals
from control_plane.core.staleness.confidence import confidence_of
from control_plane.core.staleness.data_quality import volume_drop
from control_plane.core.staleness.evidence import Evidence
from control_plane.core.staleness.forecast import forecast
from control_plane.core.staleness.input_drift import InputDrift, input_drifts
from control_plane.core.staleness.levels import Situation, stand
from control_plane.core.staleness.performance import below_floor, metric_readings, performance
from control_plane.core.staleness.policy import Fusion, StalenessPolicy
from control_plane.core.staleness.reasons import Seen, reasons, season_of
from control_plane.core.staleness.signals import PredictionDrift, Reading, prediction_drifts
from control_plane.core.staleness.slices import slice_drifts
from control_plane.core.staleness.upstreams import compatibilities
from control_plane.core.staleness.verdict import Action, Evaluation, Level, Signal, SliceDrift, UpstreamCompatibility
from control_plane.core.staleness.would_change import Look, edges, would_change

Item = tuple[StalenessPolicy, Evidence]


def evaluate(policy: StalenessPolicy, evidence: Evidence, now: datetime) -> Evaluation:
    """One look at one model; `evaluate_fleet` of one, bit for bit.

    Args:
        policy: valid, see `policy_violations`.
        now: UTC-aware.
    """
    return evaluate_fleet([(policy, evidence)], now)[0]


def evaluate_fleet(items: Sequence[Item], now: datetime) -> list[Evaluation]:
    """One look at each of many models, drift computed for all at once; results in the order given.

    Evidence was checked when it was built, so nothing here refuses: one odd model must not keep the fleet
    from being looked at. A metric that is not a number is a missing signal.
    """
    given = [at for at, (_, evidence) in enumerate(items) if evidence.features is not None]
    inputs: list[InputDrift | None] = [None] * len(items)
    tables = [table for _, evidence in items if (table := evidence.features) is not None]
    for at, drift in zip(given, input_drifts(tables, [items[at][0] for at in given]), strict=True):
        inputs[at] = drift
    predictions = prediction_drifts([evidence.prediction for _, evidence in items])
    parts = slice_drifts(items)
    return [
        _evaluated(policy, evidence, own_input, own_prediction, own_parts, now)
        for (policy, evidence), own_input, own_prediction, own_parts in zip(
            items, inputs, predictions, parts, strict=True
        )
    ]


def _evaluated(
    policy: StalenessPolicy,
    evidence: Evidence,
    inputs: InputDrift | None,
    predictions: PredictionDrift | None,
    parts: tuple[SliceDrift, ...],
    now: datetime,
) -> Evaluation:
    own_performance, measured = performance(policy, evidence)
    readings = {
        "age": signals.age(policy, evidence, now),
        "input_drift": signals.input_drift(policy, evidence, inputs),
        "prediction_drift": signals.prediction_drift(policy, evidence, predictions),
        "performance": own_performance,
    }
    own = policy.weights
    weights: tuple[float, ...] = (own.age, own.input_drift, own.prediction_drift, own.performance)
    concept = signals.concept_drift(policy, evidence)
    if concept is not None:
        readings["concept_drift"] = concept
        weights = (*weights, own.concept_drift)
    upstreams, unknown_upstreams = compatibilities(policy, evidence.upstreams) if evidence.upstreams else ((), ())
    triggers = _hard_triggers(policy, evidence, readings["age"], upstreams)
    known = inputs if readings["input_drift"].value is not None else None
    faults = (known.faults if known is not None else ()) + volume_drop(evidence.volume, policy.window_days)
    metrics, vetoes = metric_readings(policy, evidence, measured)
    situation = Situation(
        policy=policy,
        weights=weights,
        comparable=evidence.features is not None or evidence.prediction is not None,
        faulty=bool(faults),
        vetoed=bool(vetoes),
        triggered=bool(triggers),
    )
    values = [reading.value for reading in readings.values()]
    standing = stand(situation, values)
    score, level = standing.score, standing.level
    averaged = policy.fusion is Fusion.WEIGHTED_AVERAGE
    confidence, confidence_reason = confidence_of(policy, evidence, readings, measured, unknown_upstreams)
    weighed = _weighed(readings, weights, policy.fusion)
    season = season_of(known) if known is not None else None
    at_risk_from, stale_from = edges(situation, values)
    look = Look(
        situation=situation,
        values=tuple(values),
        level=level,
        evidence=evidence,
        readings=readings,
        inputs=known,
        predictions=predictions,
        measured=measured,
        at_risk_from=at_risk_from,
        stale_from=stale_from,
    )
    crosses_at, sentence = forecast(look, now, policy.stale_threshold)
    seen = Seen(
        level=level,
        signals=weighed,
        triggers=triggers,
        faults=faults,
        vetoes=vetoes,
        season=season,
        slices=parts,
        quiet=known is not None and known.drifted == 0,
        upstreams=upstreams,
        unknown_upstreams=unknown_upstreams,
        confidence=confidence,
        confidence_reason=confidence_reason,
    )
    return Evaluation(
        version=evidence.model_version,
        at=now,
        level=level,
        score=score.score,
        score_low=score.low,
        score_high=score.high,
        weighted_average=score.score if averaged else standing.other,
        noisy_or=standing.other if averaged else score.score,
        threshold=policy.stale_threshold,
        confidence=confidence,
        confidence_reason=confidence_reason,
        signals=weighed,
        top_features=known.top if known is not None else (),
        reasons=reasons(seen),
        recommended_action=_action(level, bool(faults)),
        data_quality=faults,
        hard_triggers=triggers,
        would_change=would_change(look),
        crosses_at=crosses_at,
        forecast=sentence,
        season=season,
        metrics=metrics,
        slices=parts,
        upstreams=upstreams,
    )


def _hard_triggers(
    policy: StalenessPolicy, evidence: Evidence, age: Reading, upstreams: Sequence[UpstreamCompatibility]
) -> tuple[str, ...]:
    """Step 2."""
    found = [upstream.explanation for upstream in upstreams if not upstream.compatible]
    if age.raw >= policy.age_backstop_days:
        found.append(f"it is {age.raw:.1f} days old, its backstop is {policy.age_backstop_days:g} days")
    metric = evidence.performance
    if metric is not None and below_floor(policy, metric):
        found.append(f"{metric.metric} is {metric.current:.4g}, worse than its floor of {policy.performance_floor:g}")
    return tuple(found)


def _action(level: Level, faulty: bool) -> Action:
    """Step 5."""
    if faulty:
        return Action.ALERT_DATA_OWNER
    match level:
        case Level.STALE:
            return Action.RETRAIN
        case Level.AT_RISK | Level.UNKNOWN:
            return Action.WAIT
        case Level.FRESH:
            return Action.NONE


def _weighed(readings: dict[str, Reading], weights: Sequence[float], fusion: Fusion) -> tuple[Signal, ...]:
    """Signals with what each contributes; in an average the contributions add up to the score."""
    known = 0.0
    for reading, weight in zip(readings.values(), weights, strict=True):
        if reading.value is not None:
            known += weight
    share = 1.0 if fusion is Fusion.NOISY_OR or known == 0 else 1 / known
    found = []
    for (name, reading), weight in zip(readings.items(), weights, strict=True):
        value = reading.value
        found.append(
            Signal(
                name=name,
                value=value if value is not None else 0.0,
                raw=reading.raw,
                weight=weight,
                contribution=value * weight * share if value is not None else 0.0,
                sample_size=reading.sample_size,
                significant=reading.significant,
                missing=value is None,
                explanation=reading.explanation,
                source=reading.source,
            )
        )
    return tuple(found)
