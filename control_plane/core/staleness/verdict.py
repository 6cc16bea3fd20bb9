"""What a look at a model says (`Evaluation`), and when looks become the verdict (`settle`).

Theory of operation. An evaluation is one look: it may be wrong by chance, and it is not logged. The verdict
is what the fleet acts on; it changes only after k of the last n evaluations say so, and only its changes are
logged. The state between two looks is a `Streak`: the latest looks since the first that disagreed with the
verdict. A fleet at rest has empty streaks, so nothing is written while nothing happens.

| verdict            | the last n looks hold                          | verdict after             |
|--------------------|------------------------------------------------|---------------------------|
| any                | a hard trigger in the last one                 | STALE, at once            |
| changed lately     | anything else, within the policy's cooldown    | unchanged                 |
| any                | k or more at level L or worse, L above verdict | the worst such L          |
| AT_RISK, STALE     | k or more at level L or better, L below verdict| the best such L           |
| any                | k or more UNKNOWN                              | UNKNOWN                   |
| otherwise          |                                                | unchanged                 |

Order: UNKNOWN < FRESH < AT_RISK < STALE; a look that says UNKNOWN counts neither for better nor for worse.

A hard trigger is a fact, not a measurement that may be off by chance (an age, embeddings that are another space), or a
line that the policy's author drew: a second look would only cost time. An UNKNOWN verdict has no cooldown: it says
nothing that could flap.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from control_plane.core.staleness.evidence import MetricRole, PerformanceSource
from control_plane.core.staleness.policy import StalenessPolicy


class Level(StrEnum):
    """How good a model still is. Too little data is UNKNOWN, never FRESH."""

    FRESH = "FRESH"
    AT_RISK = "AT_RISK"
    STALE = "STALE"
    UNKNOWN = "UNKNOWN"


class Confidence(StrEnum):
    """How much the evaluation stands on."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


class Action(StrEnum):
    """What follows for the owner."""

    RETRAIN = "RETRAIN"
    ALERT_DATA_OWNER = "ALERT_DATA_OWNER"
    WAIT = "WAIT"
    NONE = "NONE"


class Signal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One of the four signals."""

    name: str
    """age, input_drift, prediction_drift, performance, concept_drift."""
    value: float
    """0 (good) to 1 (bad); 0 and meaningless if missing."""
    raw: float
    """In the signal's own units: days, share of drifted features by importance, nats (debiased KL), metric
    drop."""
    weight: float
    contribution: float
    """What it adds to the weighted average (these sum to it); in a noisy OR, weight x value."""
    sample_size: int
    significant: bool
    missing: bool
    explanation: str
    source: PerformanceSource | None = None
    """Of performance."""


class FeatureDrift(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Drift of one feature. Significant after Benjamini-Hochberg *and* debiased PSI above the threshold:
    drifted.
    """

    name: str
    psi: float
    psi_debiased: float
    p_value: float
    drifted: bool
    seasonally_expected: bool = False
    """Inside the range that this calendar period usually shows."""
    psi_usual: float = 0.0
    """The upper end of that range; 0 without history."""
    importance: float = 1.0


class MetricReading(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A metric against the version's own baseline. Positive drops are worse, whichever way the metric points."""

    name: str
    role: MetricRole
    slice: str = ""
    source: PerformanceSource = PerformanceSource.LABELS
    proxy: str = ""
    proxy_correlation: float | None = None
    baseline: float | None = None
    current: float
    drop: float = 0.0
    drop_low: float = 0.0
    drop_high: float = 0.0
    """Ends of the two-sided 90 % interval: each a one-sided bound at 95 %."""
    p_value: float = 1.0
    sample_size: int
    tolerance: float


class SliceDrift(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Drift of the inputs in one part of the data."""

    slice: str
    sample_size: int
    value: float
    drifted_share: float
    top_features: tuple[FeatureDrift, ...] = ()


class WouldChange(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A change that would bring another level, all else as it is. `now`, `needed`: in the unit of the sentence."""

    signal: str
    to: Level
    now: float
    needed: float
    sentence: str


class UpstreamCompatibility(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How an upstream model's embeddings moved from the version this one was trained with to the one that serves."""

    model_id: str
    trained_with: int
    serves: int
    compatible: bool
    knn_jaccard: float
    knn_jaccard_floor: float
    procrustes_cosine: float
    cka: float
    anchors: int
    explanation: str


class Season(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Is the drift what this time of the year usually brings?"""

    expected: bool
    features_expected: int
    features_drifted: int
    explanation: str


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One look at one version of a model. All numbers are finite, so that JSON can hold them."""

    version: int
    at: datetime
    level: Level
    score: float
    """By the policy's fusion. Missing signals are taken to be like the ones known, and never silently: see
    bounds."""
    score_low: float
    """The score if every missing signal were best ..."""
    score_high: float
    """... and if every one were worst."""
    weighted_average: float
    """Both scores are always shown, whichever the policy acts on."""
    noisy_or: float
    threshold: float
    """Score from which on it is STALE."""
    confidence: Confidence
    confidence_reason: str
    signals: tuple[Signal, ...]
    top_features: tuple[FeatureDrift, ...] = ()
    """The most drifted features, strongest first."""
    reasons: tuple[str, ...] = ()
    """Sentences that an on-call person reads, most important first; never empty."""
    recommended_action: Action = Action.NONE
    data_quality: tuple[str, ...] = ()
    """Faults of the data that no retrain can mend."""
    hard_triggers: tuple[str, ...] = ()
    """What made it STALE whatever the score."""
    would_change: tuple[WouldChange, ...] = ()
    crosses_at: datetime | None = None
    """When the score is expected to reach the threshold; None if it does not rise, or has reached it."""
    forecast: str = ""
    season: Season | None = None
    """None: no history of the same calendar period, or nothing drifted."""
    metrics: tuple[MetricReading, ...] = ()
    slices: tuple[SliceDrift, ...] = ()
    upstreams: tuple[UpstreamCompatibility, ...] = ()
    evidence_sha256: str = ""
    """Of the stored evidence that this look stands on; empty if it was not kept."""


class Streak(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The latest evaluations since the first that disagreed with the verdict, oldest first, at most n - 1."""

    recent: tuple[Level, ...] = ()


_ORDER = (Level.UNKNOWN, Level.FRESH, Level.AT_RISK, Level.STALE)
SEVERITY = {level: rank for rank, level in enumerate(_ORDER)}
"""UNKNOWN 0, FRESH 1, AT_RISK 2, STALE 3."""


def settle(
    current: Level,
    streak: Streak,
    evaluation: Evaluation,
    policy: StalenessPolicy,
    *,
    since: datetime | None = None,
) -> tuple[Level, Streak]:
    """The verdict and streak after one more evaluation; the table above, row by row.

    Evaluations of another version than the verdict's are the caller's to discard.

    Args:
        since: when the verdict became what it is; None knows no cooldown.
    """
    kept = policy.hysteresis_n - 1
    recent = (*streak.recent[max(len(streak.recent) - kept, 0) :], evaluation.level)
    if evaluation.hard_triggers and evaluation.level is Level.STALE:
        level = Level.STALE
    elif _cooling(current, evaluation, policy, since):
        level = current
    else:
        level = _voted(current, recent, policy.hysteresis_k)
    if level is not current:
        return level, Streak()
    while recent and (recent[0] is current or len(recent) > kept):
        recent = recent[1:]
    return current, Streak(recent=recent)


def _cooling(current: Level, evaluation: Evaluation, policy: StalenessPolicy, since: datetime | None) -> bool:
    if since is None or current is Level.UNKNOWN:
        return False
    return evaluation.at - since < policy.verdict_cooldown


def _voted(current: Level, recent: tuple[Level, ...], k: int) -> Level:
    ranks = [SEVERITY[level] for level in recent if level is not Level.UNKNOWN]
    now = SEVERITY[current]
    for rank in (3, 2, 1):
        if rank > now and sum(one >= rank for one in ranks) >= k:
            return _ORDER[rank]
    for rank in (1, 2):
        if rank < now and sum(one <= rank for one in ranks) >= k:
            return _ORDER[rank]
    if current is not Level.UNKNOWN and len(recent) - len(ranks) >= k:
        return Level.UNKNOWN
    return current
