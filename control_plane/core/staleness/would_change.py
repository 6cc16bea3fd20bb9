"""What would change a look: the nearest changes of one thing, all else as it is, that would bring another level.

Each is an exact inversion: the value of the signal at which the fused score reaches the next threshold (or a hard
trigger or veto fires), turned back into what an owner can see: the PSI of a feature, a metric, days of age, outcomes.
Doing what a sentence says gives the level it promises; hysteresis then applies as to any look.

| change                 | what is held                                                                        |
|------------------------|-------------------------------------------------------------------------------------|
| PSI of a feature       | the other features; the feature counts as significant beyond the threshold          |
| KL of the predictions  | their number                                                                        |
| a metric               | its standard error, the number of outcomes                                          |
| more outcomes          | the metric as it is measured now; its standard error falls with the root of their   |
|                        | number; where nothing is measured yet, the metric is taken to be at its baseline    |
| more predictions       | the drift as it is measured now                                                     |
| age                    | everything                                                                          |
"""

import math
from collections.abc import Sequence

import msgspec

from control_plane.core.staleness.evidence import Evidence, PerformanceSource
from control_plane.core.staleness.fusion import all_needed
from control_plane.core.staleness.input_drift import InputDrift
from control_plane.core.staleness.levels import (
    AGE,
    INPUT,
    PERFORMANCE,
    PREDICTION,
    Situation,
    level_with,
    too_scarce,
)
from control_plane.core.staleness.performance import Measured, source_of
from control_plane.core.staleness.signals import PredictionDrift, Reading
from control_plane.core.staleness.verdict import FeatureDrift, Level, WouldChange
from control_plane.core.statistics.performance import Z_95

WORDS = {level: level.value.replace("_", " ") for level in Level}
CHANGES_MAX = 5
FEATURES_MAX = 2
"""Features named among the changes, the nearest."""
LABELS_FACTOR_MAX = 50
"""More than so many times the outcomes there are is no advice."""
APART_MIN = 1e-3
"""Thresholds that are closer are one, as far as a change is concerned."""
STEP = 1e-9
"""Just beyond a threshold."""
DAYS_MAX = 365.0
"""Nobody waits longer for labels."""
HOURS_BELOW_DAYS = 3.0
"""Ages are told in hours below so many days."""

Found = tuple[float, WouldChange]
"""How far away, as a difference of the signal or a share; and the change."""


class Look(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A look as far as it has come."""

    situation: Situation
    values: tuple[float | None, ...]
    level: Level
    evidence: Evidence
    readings: dict[str, Reading]
    inputs: InputDrift | None
    predictions: PredictionDrift | None
    measured: Measured | None
    at_risk_from: tuple[float | None, ...]
    """Value of each signal from which on the score is at the threshold of AT_RISK, all else as it is; may be out of
    reach, None if the signal weighs nothing."""
    stale_from: tuple[float | None, ...]
    """Likewise of STALE."""


def edges(
    situation: Situation, values: Sequence[float | None]
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """`at_risk_from` and `stale_from` of a look."""
    policy, low = situation.policy, too_scarce(situation, values)
    at_risk = all_needed(values, situation.weights, policy.fusion, target=policy.at_risk_threshold, low=low)
    stale = all_needed(values, situation.weights, policy.fusion, target=policy.stale_threshold, low=low)
    return at_risk, stale


def would_change(look: Look) -> tuple[WouldChange, ...]:
    """At most five changes, nearest first."""
    if look.situation.triggered:
        return ()
    found: list[Found] = []
    if look.level is Level.STALE:
        _of_signals(look, Level.AT_RISK, found, worse=False)
    elif look.level is Level.AT_RISK:
        _of_signals(look, Level.STALE, found, worse=True)
        if not (look.situation.faulty or look.situation.vetoed):
            _of_signals(look, Level.FRESH, found, worse=False)
    else:
        _of_signals(look, Level.AT_RISK, found, worse=True)
        # What would make it STALE lies beyond what makes it AT RISK, but for what is STALE by itself.
        _age(look, Level.STALE, _reachable(look, AGE), found)
        floor = _floor(look)
        if floor is not None:
            _metric(look, Level.STALE, _reachable(look, PERFORMANCE), found, worse=True, floor=floor)
    if look.level is not Level.STALE:
        _more_outcomes(look, found)
    if look.values[INPUT] is None and look.values[PREDICTION] is None:
        _more_predictions(look, found)
    found.sort(key=lambda one: one[0])
    return tuple([change for _, change in found[:CHANGES_MAX]])


def _reachable(look: Look, at: int) -> float | None:
    """The value of a signal that makes it STALE, if there is one."""
    value, wanted = look.values[at], look.stale_from[at]
    return wanted if value is not None and wanted is not None and value < wanted <= 1 else None


def _of_signals(look: Look, target: Level, found: list[Found], *, worse: bool) -> None:
    """Changes of one signal each. Better from STALE is below the threshold of STALE, from AT_RISK below its own."""
    edge = target if worse else look.level
    policy = look.situation.policy
    # Going up, just beyond one threshold is below the other, unless the two are the same.
    plain = worse and policy.stale_threshold - policy.at_risk_threshold > APART_MIN
    wanted_of = look.stale_from if edge is Level.STALE else look.at_risk_from
    for at in (AGE, INPUT, PREDICTION, PERFORMANCE):
        value = look.values[at]
        if value is None or (at == AGE and not worse):
            continue
        wanted = wanted_of[at]
        if at == PERFORMANCE and edge is Level.AT_RISK:
            # A sure drop by the tolerance is a veto by itself.
            wanted = 1.0 if wanted is None else min(wanted, 1.0)
        if wanted is not None and not ((value < wanted <= 1) if worse else (0 < wanted <= value)):
            wanted = None
        if wanted is not None and not (plain or _level_at(look, at, wanted, worse=worse) is target):
            wanted = None
        if at == AGE:
            _age(look, target, wanted, found)
        elif at == PERFORMANCE:
            floor = _floor(look) if worse and target is Level.STALE else None
            if wanted is not None or floor is not None:
                _metric(look, target, wanted, found, worse=worse, floor=floor)
        elif wanted is not None and at == INPUT:
            _features(look, target, wanted, found, worse=worse)
        elif wanted is not None:
            _kl(look, target, wanted, found, worse=worse)


def _level_at(look: Look, at: int, value: float, *, worse: bool) -> Level:
    """The level just beyond a value of one signal."""
    tried = list(look.values)
    tried[at] = min(value + STEP, 1.0) if worse else max(value - STEP, 0.0)
    return level_with(look.situation, tried)


def _age(look: Look, target: Level, wanted: float | None, found: list[Found]) -> None:
    policy = look.situation.policy
    if look.values[AGE] is None:
        return
    age = look.readings["age"].raw
    days = wanted * policy.age_backstop_days if wanted is not None else math.inf
    if target is Level.STALE:
        days = min(days, policy.age_backstop_days)
    elif days >= policy.age_backstop_days * (1 - STEP):
        return
    more = days - age
    if not 0 < more < math.inf:
        return
    if more > HOURS_BELOW_DAYS:
        text = f"{math.ceil(more - 1e-6):,} more days"
    else:
        hours = max(math.ceil(more * 24 - 1e-6), 1)
        text = f"{hours:,} more hour{'s' if hours != 1 else ''}"
    sentence = f"{text} of age would make it {WORDS[target]}"
    change = _change("age", target, now=age, wanted=days, sentence=sentence)
    found.append((more / policy.age_backstop_days, change))


def _features(look: Look, target: Level, wanted: float, found: list[Found], *, worse: bool) -> None:
    """The features whose PSI alone would do, the nearest of them; if none would, how many of all would."""
    inputs = look.inputs
    if inputs is None:
        return
    policy = look.situation.policy
    more = wanted * policy.drifted_share_full - inputs.strength
    nearest: list[tuple[float, FeatureDrift, float]] = []
    for feature, share in zip(inputs.top, inputs.top_weights, strict=True):
        if share <= 0 or (not worse and not feature.drifted):
            continue
        debiased = psi_needed(look, feature, strength_of(look, feature) + more / share, worse=worse)
        if debiased is not None:
            nearest.append((abs(debiased - feature.psi_debiased), feature, debiased))
    nearest.sort(key=lambda one: one[0])
    for distance, feature, debiased in nearest[:FEATURES_MAX]:
        psi = debiased + (feature.psi - feature.psi_debiased)
        level = _level_of_psi(look, feature, debiased + (STEP if worse else -STEP))
        sentence = f"PSI of {feature.name} {_beyond(psi, up=worse)} would make it {WORDS[level]}"
        if level is look.level or any(other.sentence == sentence for _, other in found):
            continue
        found.append((distance, _change("input_drift", level, now=feature.psi, wanted=psi, sentence=sentence)))
    if not nearest and worse:
        share = wanted * policy.drifted_share_full
        if 0 < share <= 1:
            many = math.ceil(share * 100 - 1e-6)
            sentence = f"drift of {many}% of its features (by importance, in full) would make it {WORDS[target]}"
            change = _change("input_drift", target, now=inputs.strength, wanted=share, sentence=sentence)
            found.append((wanted - inputs.value, change))


def _level_of_psi(look: Look, feature: FeatureDrift, debiased: float) -> Level:
    """The level if the feature had this debiased PSI: a drift begins with a jump, which may pass two thresholds."""
    inputs, policy = look.inputs, look.situation.policy
    assert inputs is not None
    share = inputs.top_weights[inputs.top.index(feature)]
    counted = min(debiased / policy.psi_significant, 1.0) if debiased > policy.psi_moderate else 0.0
    if feature.psi_usual > 0 and debiased <= feature.psi_usual:
        counted *= policy.seasonal_weight
    mean = inputs.strength + share * (counted - strength_of(look, feature))
    tried = list(look.values)
    tried[INPUT] = min(max(mean / policy.drifted_share_full, 0.0), 1.0)
    return level_with(look.situation, tried)


def strength_of(look: Look, feature: FeatureDrift) -> float:
    """What a feature's drift counts, from 0 to 1."""
    if not feature.drifted:
        return 0.0
    policy = look.situation.policy
    counted = min(feature.psi_debiased / policy.psi_significant, 1.0)
    return counted * policy.seasonal_weight if feature.seasonally_expected else counted


def psi_needed(look: Look, feature: FeatureDrift, strength: float, *, worse: bool) -> float | None:
    """The debiased PSI beyond which a feature counts as much (if worse: more, else: less) as `strength`; None if no
    PSI does."""
    policy = look.situation.policy
    moderate, full = policy.psi_moderate, policy.psi_significant
    usual, season = feature.psi_usual, policy.seasonal_weight
    if not worse:
        if strength <= 0:
            return None
        counted = strength / season if feature.seasonally_expected and season > 0 else strength
        if not feature.seasonally_expected and 0 < usual < feature.psi_debiased and strength * full <= usual:
            return max(min(usual, strength / season * full if season > 0 else usual), moderate)
        return max(counted * full, moderate)
    if not feature.drifted and feature.psi_debiased > moderate:
        return None  # it is large but may be chance: more rows are missing, not more PSI
    if usual > 0 and season > 0 and strength <= season:
        inside = max(strength / season * full, moderate)
        if inside <= usual:
            return inside
    if strength > 1:
        return None
    outside = max(strength * full, moderate, usual)
    return outside if outside > feature.psi_debiased else None


def _kl(look: Look, target: Level, wanted: float, found: list[Found], *, worse: bool) -> None:
    own = look.predictions
    if own is None:
        return
    debiased = wanted * look.situation.policy.psi_significant / 2
    if worse and own.kl_debiased >= debiased:
        return  # it is large but may be chance: more rows are missing, not more KL
    kl = debiased + (own.kl - own.kl_debiased)
    far = abs(wanted - (look.values[PREDICTION] or 0.0))
    sentence = f"KL of its predictions {_beyond(kl, up=worse)} nats would make it {WORDS[target]}"
    found.append((far, _change("prediction_drift", target, now=own.kl, wanted=kl, sentence=sentence)))


def _floor(look: Look) -> float | None:
    """The floor, where it is watched."""
    own = look.evidence.performance
    if own is None or own.sample_size < max(look.situation.policy.labels_min, 1):
        return None
    return look.situation.policy.performance_floor if source_of(own) is PerformanceSource.LABELS else None


def _metric(
    look: Look, target: Level, wanted: float | None, found: list[Found], *, worse: bool, floor: float | None
) -> None:
    measured = look.measured
    if measured is None:
        return
    own, drop, tolerance = measured.evidence, measured.drop, look.situation.policy.performance_tolerance
    assert own.baseline is not None
    edges = []
    if wanted is not None:
        bound = wanted * tolerance + Z_95 * drop.standard_error
        edges.append(own.baseline - bound if own.higher_is_better else own.baseline + bound)
    if floor is not None and measured.source is PerformanceSource.LABELS:
        edges.append(floor)
    if not edges:
        return
    metric = max(edges) if own.higher_is_better == worse else min(edges)
    up = worse is not own.higher_is_better
    sentence = f"{own.metric} {_beyond(metric, up=up)} would make it {WORDS[target]}"
    change = _change("performance", target, now=own.current, wanted=metric, sentence=sentence)
    found.append((abs(metric - own.current) / tolerance, change))


def _more_outcomes(look: Look, found: list[Found]) -> None:
    """Outcomes that are missing, or that would make a drop sure."""
    measured, policy = look.measured, look.situation.policy
    if measured is None or measured.source is not PerformanceSource.LABELS:
        own = look.evidence.performance
        have = own.sample_size if own is not None else 0
        if have < max(policy.labels_min, 1):
            _first_outcomes(look, have, max(policy.labels_min, 1), found)
        return
    evidence, drop = measured.evidence, measured.drop
    if drop.drop <= 0 or drop.standard_error <= 0:
        return
    now = look.values[PERFORMANCE] or 0.0
    for target in (Level.STALE,) if look.level is Level.AT_RISK else (Level.AT_RISK, Level.STALE):
        value = (look.stale_from if target is Level.STALE else look.at_risk_from)[PERFORMANCE]
        if target is Level.AT_RISK:
            value = 1.0 if value is None else min(value, 1.0)
        if value is None or not now < value <= 1:
            continue
        # The bound reaches value x tolerance once the standard error is this:
        error = (drop.drop - value * policy.performance_tolerance) / Z_95
        spread = error * error - evidence.baseline_error * evidence.baseline_error
        if error <= 0 or spread <= 0 or _level_at(look, PERFORMANCE, value, worse=True) is not target:
            continue
        total = math.ceil(evidence.sample_size * evidence.current_error * evidence.current_error / spread * (1 + 1e-9))
        if not evidence.sample_size < total <= evidence.sample_size * LABELS_FACTOR_MAX:
            continue
        more = total - evidence.sample_size
        sentence = f"{more:,} more labels with the same drop{_how_long(look, more)} would make it {WORDS[target]}"
        change = _change("performance", target, now=float(evidence.sample_size), wanted=float(total), sentence=sentence)
        found.append((1 - evidence.sample_size / total, change))
        return


def _first_outcomes(look: Look, have: int, wanted: int, found: list[Found]) -> None:
    """What the least number of outcomes would say, if they are like those there are, else if all is well."""
    values = list(look.values)
    values[PERFORMANCE] = performance_at(look, wanted)
    level = level_with(look.situation, values)
    if level is look.level:
        return
    more = wanted - have
    like = "like those there are" if have and values[PERFORMANCE] else "as good as its baseline"
    sentence = f"{more:,} more labels {like}{_how_long(look, more)} would make it {WORDS[level]}"
    change = _change("performance", level, now=float(have), wanted=float(wanted), sentence=sentence)
    found.append((more / wanted, change))


def performance_at(look: Look, outcomes: int) -> float:
    """The performance signal if the metric stays as it is measured now and so many outcomes are there."""
    own, policy = look.evidence.performance, look.situation.policy
    if own is None or own.baseline is None or own.sample_size < 1:
        return 0.0
    drop = own.baseline - own.current if own.higher_is_better else own.current - own.baseline
    error = math.hypot(own.baseline_error, own.current_error * math.sqrt(own.sample_size / outcomes))
    bound = drop - Z_95 * error
    return min(max(bound / policy.performance_tolerance, 0.0), 1.0) if math.isfinite(bound) else 0.0


def _more_predictions(look: Look, found: list[Found]) -> None:
    """Predictions that are missing for drift to be known."""
    wanted = look.situation.policy.predictions_min
    have = max(look.readings[name].sample_size for name in ("input_drift", "prediction_drift"))
    if not look.situation.comparable or not 0 < have < wanted:
        return
    values = list(look.values)
    values[INPUT] = values[PREDICTION] = 0.0
    level = level_with(look.situation, values)
    if level is look.level:
        return
    more = wanted - have
    sentence = f"{more:,} more predictions without drift would make it {WORDS[level]}"
    change = _change("input_drift", level, now=float(have), wanted=float(wanted), sentence=sentence)
    found.append((more / wanted, change))


def _how_long(look: Look, more: int) -> str:
    pace = look.evidence.labels_per_day
    days = more / pace if 0 < pace < math.inf else math.inf
    if days > DAYS_MAX:
        return ""
    return f" (about {math.ceil(days * 24)} hours)" if days < HOURS_BELOW_DAYS else f" (about {math.ceil(days):,} days)"


def _change(signal: str, to: Level, *, now: float, wanted: float, sentence: str) -> WouldChange:
    return WouldChange(signal=signal, to=to, now=now, needed=wanted, sentence=sentence)


def _beyond(edge: float, *, up: bool) -> str:
    """An edge with three digits, rounded to the safe side: what the sentence says is enough.

    >>> _beyond(0.30512, up=True), _beyond(0.30512, up=False)
    ('above 0.306', 'below 0.305')
    """
    digits = 2 - math.floor(math.log10(abs(edge))) if edge else 2
    scaled = edge * 10.0**digits
    rounded = (math.ceil(scaled - 1e-6) if up else math.floor(scaled + 1e-6)) / 10.0**digits
    return f"{'above' if up else 'below'} {rounded:.{max(digits, 0)}f}"
