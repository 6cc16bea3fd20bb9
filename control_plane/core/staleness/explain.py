"""An evaluation in about ten sentences for the owner: why, how sure, what to do."""

from control_plane.core.staleness.verdict import Action, Evaluation, FeatureDrift, Level, Signal

ADVICE = {
    Action.RETRAIN: "What to do: retrain it.",
    Action.ALERT_DATA_OWNER: "What to do: ask the owner of the data; a retrain on broken data mends nothing.",
    Action.WAIT: "What to do: wait for the next looks; nothing is retrained yet.",
    Action.NONE: "What to do: nothing.",
}
FEATURES_SHOWN = 3
FAULTS_SHOWN = 3


def explain(evaluation: Evaluation) -> list[str]:
    """Sentences for a terminal or a page, one a line, most important first."""
    found = [_headline(evaluation)]
    found.extend(f"Hard trigger: {trigger}." for trigger in evaluation.hard_triggers)
    found.extend(f"Broken data: {fault}." for fault in evaluation.data_quality[:FAULTS_SHOWN])
    found.extend(_signal(signal) for signal in sorted(evaluation.signals, key=lambda s: (s.missing, -s.contribution)))
    if any(signal.missing for signal in evaluation.signals):
        found.append(
            f"What is missing is taken to be like the rest; at best the score were {evaluation.score_low:.2f}, "
            f"at worst {evaluation.score_high:.2f}."
        )
    if evaluation.top_features:
        named = "; ".join(_feature(feature) for feature in evaluation.top_features[:FEATURES_SHOWN])
        found.append(f"Features that moved most: {named}.")
    found.append(
        f"Fused otherwise: weighted average {evaluation.weighted_average:.2f}, noisy OR {evaluation.noisy_or:.2f}."
    )
    found.append(f"How sure: {evaluation.confidence.value}, {evaluation.confidence_reason}.")
    found.append(ADVICE[evaluation.recommended_action])
    return found


def _headline(evaluation: Evaluation) -> str:
    subject = f"Version {evaluation.version}, looked at on {evaluation.at:%Y-%m-%d %H:%M},"
    score = f"score {evaluation.score:.2f}, stale from {evaluation.threshold:.2f} on"
    match evaluation.level:
        case Level.FRESH:
            return f"{subject} is FRESH: {score}."
        case Level.AT_RISK:
            return f"{subject} is AT RISK: {score}."
        case Level.STALE:
            return f"{subject} is STALE: {score}."
        case Level.UNKNOWN:
            return f"{subject} is UNKNOWN: too little data to say."


def _signal(signal: Signal) -> str:
    name = signal.name.replace("_", " ").capitalize()
    if signal.missing:
        return f"{name} is not known: {signal.explanation}."
    return (
        f"{name} {signal.value:.2f} (weight {signal.weight:.2f}) adds {signal.contribution:.2f}: {signal.explanation}."
    )


def _feature(feature: FeatureDrift) -> str:
    chance = "p < 0.001" if feature.p_value < 0.001 else f"p = {feature.p_value:.3f}"
    drifted = "drifted" if feature.drifted else "not counted as drift"
    return f"{feature.name} PSI {feature.psi:.2f} (less chance {feature.psi_debiased:.2f}, {chance}, {drifted})"
