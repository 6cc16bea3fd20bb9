"""One look: from evidence to an evaluation. The rule, in order; the body follows it.

1. Each signal is read: a value from 0 to 1, or missing with the reason why. 2. The signals are fused to a
score with its bounds. 3. Hard triggers make it STALE whatever the score: age at the backstop, metric worse
than the floor. 4. Otherwise, with too little data, only what holds whatever the missing signals turn out to
be counts: the lower
   bound decides, and what would be FRESH is UNKNOWN. Too little means: no drift signal is known, although the
   version has a reference to compare with, or there are no outcomes either.
5. Otherwise the score decides between FRESH, AT_RISK and STALE. 6. Vetoes: nothing is FRESH that has a
data-quality finding, or whose metric surely dropped by the tolerance or more
   (an average would let the other signals hide it).
7. What to do: a data-quality finding goes to the data's owner, even of a model that is STALE, because
training on
   broken data mends nothing; STALE is retrained; AT_RISK and UNKNOWN wait; FRESH needs nothing.

More evidence of trouble never gives a better level: every step is monotone in the value of each signal.
"""

from collections.abc import Sequence
from datetime import datetime

from control_plane.core.staleness import signals
from control_plane.core.staleness.confidence import confidence_of
from control_plane.core.staleness.evidence import Evidence
from control_plane.core.staleness.fusion import Score, fuse
from control_plane.core.staleness.input_drift import InputDrift, input_drifts
from control_plane.core.staleness.policy import Fusion, StalenessPolicy
from control_plane.core.staleness.signals import PredictionDrift, Reading, prediction_drifts
from control_plane.core.staleness.verdict import SEVERITY, Action, Confidence, Evaluation, Level, Signal

Item = tuple[StalenessPolicy, Evidence]

NOTABLE = 0.05
"""Contribution to the score from which on a signal is worth a sentence among the reasons."""


def evaluate(policy: StalenessPolicy, evidence: Evidence, now: datetime) -> Evaluation:
    """One look at one model; `evaluate_fleet` of one.

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
    return [
        _evaluated(policy, evidence, own_input, own_prediction, now)
        for (policy, evidence), own_input, own_prediction in zip(items, inputs, predictions, strict=True)
    ]


def _evaluated(
    policy: StalenessPolicy,
    evidence: Evidence,
    inputs: InputDrift | None,
    predictions: PredictionDrift | None,
    now: datetime,
) -> Evaluation:
    readings = {
        "age": signals.age(policy, evidence, now),
        "input_drift": signals.input_drift(policy, evidence, inputs),
        "prediction_drift": signals.prediction_drift(policy, evidence, predictions),
        "performance": signals.performance(policy, evidence),
    }
    own = policy.weights
    weights = (own.age, own.input_drift, own.prediction_drift, own.performance)
    values = [reading.value for reading in readings.values()]
    average, noisy_or = (fuse(values, weights, fusion) for fusion in (Fusion.WEIGHTED_AVERAGE, Fusion.NOISY_OR))
    score = average if policy.fusion is Fusion.WEIGHTED_AVERAGE else noisy_or
    triggers = _hard_triggers(policy, evidence, readings)
    known_inputs = inputs if readings["input_drift"].value is not None else None
    faults = known_inputs.faults if known_inputs is not None else ()
    level = _level(policy, evidence, readings, score, triggered=bool(triggers), faulty=bool(faults))
    confidence, confidence_reason = confidence_of(policy, evidence, readings)
    weighed = _weighed(readings, weights, policy.fusion)
    action = _action(level, bool(faults))
    return Evaluation(
        version=evidence.model_version,
        at=now,
        level=level,
        score=score.score,
        score_low=score.low,
        score_high=score.high,
        weighted_average=average.score,
        noisy_or=noisy_or.score,
        threshold=policy.stale_threshold,
        confidence=confidence,
        confidence_reason=confidence_reason,
        signals=weighed,
        top_features=known_inputs.top if known_inputs is not None else (),
        reasons=_reasons(level, weighed, triggers, faults, (confidence, confidence_reason)),
        recommended_action=action,
        data_quality=faults,
        hard_triggers=triggers,
    )


def _hard_triggers(policy: StalenessPolicy, evidence: Evidence, readings: dict[str, Reading]) -> tuple[str, ...]:
    """Step 3."""
    found = []
    if readings["age"].raw >= policy.age_backstop_days:
        found.append(f"it is {readings['age'].raw:.1f} days old, its backstop is {policy.age_backstop_days:g} days")
    performance = evidence.performance
    if performance is not None and signals.below_floor(policy, performance):
        found.append(
            f"{performance.metric} is {performance.current:.4g}, worse than its floor of {policy.performance_floor:g}"
        )
    return tuple(found)


def _level(
    policy: StalenessPolicy,
    evidence: Evidence,
    readings: dict[str, Reading],
    score: Score,
    *,
    triggered: bool,
    faulty: bool,
) -> Level:
    """Steps 3 to 6."""
    if triggered:
        return Level.STALE
    blind = readings["input_drift"].value is None and readings["prediction_drift"].value is None
    comparable = evidence.features is not None or evidence.prediction is not None
    performance = readings["performance"].value
    scarce = blind and (comparable or performance is None)
    decisive = score.low if scarce else score.score
    if decisive >= policy.stale_threshold:
        return Level.STALE
    dropped = performance is not None and performance >= 1
    if decisive >= policy.at_risk_threshold or faulty or dropped:
        return Level.AT_RISK
    return Level.UNKNOWN if scarce else Level.FRESH


def _action(level: Level, faulty: bool) -> Action:
    """Step 7."""
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
    known = sum(w for reading, w in zip(readings.values(), weights, strict=True) if reading.value is not None)
    share = 1.0 if fusion is Fusion.NOISY_OR or known == 0 else 1 / known
    return tuple(
        Signal(
            name=name,
            value=reading.value if reading.value is not None else 0.0,
            raw=reading.raw,
            weight=weight,
            contribution=reading.value * weight * share if reading.value is not None else 0.0,
            sample_size=reading.sample_size,
            significant=reading.significant,
            missing=reading.value is None,
            explanation=reading.explanation,
        )
        for (name, reading), weight in zip(readings.items(), weights, strict=True)
    )


def _reasons(
    level: Level,
    weighed: tuple[Signal, ...],
    triggers: tuple[str, ...],
    faults: tuple[str, ...],
    confidence: tuple[Confidence, str],
) -> tuple[str, ...]:
    """Most important first: triggers, broken data, what moves the score by how much; what is missing at the
    end.
    """
    found = [*triggers, *(f"broken data, {fault}" for fault in faults)]
    notable = [signal for signal in weighed if signal.contribution >= NOTABLE]
    notable.sort(key=lambda signal: -signal.contribution)
    moving = [signal.explanation for signal in notable]
    if SEVERITY[level] >= SEVERITY[Level.AT_RISK]:
        found.extend(moving)
    elif level is Level.UNKNOWN:
        found.append(f"too little is known to say: {confidence[1]}")
    else:
        unsure = confidence[0] is not Confidence.HIGH
        found.append(f"healthy, but confidence is {confidence[0].value}: {confidence[1]}" if unsure else "healthy")
        found.extend(moving)
    if not found:
        found.append("the signals together reach the threshold, none of them much by itself")
    if level not in (Level.UNKNOWN, Level.FRESH):
        found.extend(signal.explanation for signal in weighed if signal.missing)
    return tuple(found)
