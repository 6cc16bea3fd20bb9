"""An evaluation in about ten lines for the owner: why, how sure, what to do."""

from control_plane.core.staleness.verdict import Action, Evaluation, FeatureDrift, Level, Signal

ADVICE = {
    Action.RETRAIN: "What to do: retrain it.",
    Action.ALERT_DATA_OWNER: "What to do: ask the owner of the data; a retrain on broken data mends nothing.",
    Action.WAIT: "What to do: wait for the next looks; nothing is retrained yet.",
    Action.NONE: "What to do: nothing.",
}
FEATURES_SHOWN = 3
FAULTS_SHOWN = 3
CHANGES_SHOWN = 2
SPREAD_MIN = 1e-9
"""Difference from value x weight from which on a contribution is more than that."""
NAMES = {
    "age": "Age",
    "input_drift": "Input drift",
    "prediction_drift": "Prediction drift",
    "performance": "Performance",
    "concept_drift": "Concept drift",
}


def explain(evaluation: Evaluation) -> list[str]:
    """Sentences for a terminal or a page, one a line, most important first."""
    found = [_headline(evaluation)]
    found.extend(f"Hard trigger: {trigger}." for trigger in evaluation.hard_triggers)
    found.extend(_faults(evaluation.data_quality))
    found.extend(_signals(evaluation.signals))
    if evaluation.top_features and any(feature.drifted for feature in evaluation.top_features):
        named = "; ".join(_feature(feature) for feature in evaluation.top_features[:FEATURES_SHOWN] if feature.drifted)
        found.append(f"Features that drifted most: {named}.")
    found.extend(_around(evaluation))
    ahead = [*_changes(evaluation), *([evaluation.forecast] if evaluation.forecast else [])]
    if ahead:
        found.append(" ".join(ahead))
    found.append(_sure(evaluation))
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


def _faults(faults: tuple[str, ...]) -> list[str]:
    if not faults:
        return []
    more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    return [f"Broken data: {'; '.join(faults[:FAULTS_SHOWN])}{more}."]


def _signals(signals: tuple[Signal, ...]) -> list[str]:
    """One line for each signal that adds something, one for those that add nothing, one for what is missing."""
    known = sorted((one for one in signals if not one.missing), key=lambda one: -one.contribution)
    adding = [one for one in known if one.contribution >= 0.005]
    quiet = [one for one in known if one.contribution < 0.005]
    missing = [one for one in signals if one.missing]
    heft = sum(one.weight for one in known)
    # What is missing is taken to be like the rest, so in an average a signal weighs its part of what is known.
    spread = any(abs(one.contribution - one.value * one.weight) > SPREAD_MIN for one in known)
    of_known = f" of {heft:.2f} known" if spread else ""
    found = [
        f"{NAMES.get(one.name, one.name)} adds {one.contribution:.2f} "
        f"({one.value:.2f} x weight {one.weight:.2f}{of_known}): {one.explanation}."
        for one in adding
    ]
    found.extend(f"{NAMES.get(one.name, one.name)} adds nothing: {one.explanation}." for one in quiet)
    found.extend(f"{NAMES.get(one.name, one.name)} is not known: {one.explanation}." for one in missing)
    return found


def _feature(feature: FeatureDrift) -> str:
    chance = "p < 0.001" if feature.p_value < 0.001 else f"p = {feature.p_value:.3f}"
    season = ", usual for the season" if feature.seasonally_expected else ""
    return f"{feature.name} PSI {feature.psi:.2f} (less chance {feature.psi_debiased:.2f}, {chance}{season})"


def _around(evaluation: Evaluation) -> list[str]:
    """Season, upstreams and slices, as far as there is something to say that no line above has."""
    found = []
    if evaluation.season is not None:
        found.append(f"Season: {evaluation.season.explanation}.")
    compatible = [one.explanation for one in evaluation.upstreams if one.compatible]
    if compatible:
        found.append(f"Upstreams: {'; '.join(compatible)}.")
    told = [reason for reason in evaluation.reasons if reason.startswith(("in slice ", "guardrail "))]
    if told:
        found.append(f"Besides: {'; '.join(told[:FAULTS_SHOWN])}.")
    return found


def _changes(evaluation: Evaluation) -> list[str]:
    told = [change.sentence for change in evaluation.would_change[:CHANGES_SHOWN]]
    return [f"What would change it: {'; or '.join(told)}."] if told else []


def _sure(evaluation: Evaluation) -> str:
    """How sure, with the bounds where something is missing."""
    found = f"How sure: {evaluation.confidence.value}, {evaluation.confidence_reason}."
    if any(signal.missing for signal in evaluation.signals):
        found += (
            f" With what is missing the score were {evaluation.score_low:.2f} at best "
            f"and {evaluation.score_high:.2f} at worst."
        )
    return found
