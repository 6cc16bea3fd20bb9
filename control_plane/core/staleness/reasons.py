"""Why a look says what it says, in sentences that an on-call person reads."""

import msgspec

from control_plane.core.staleness.input_drift import InputDrift
from control_plane.core.staleness.verdict import (
    SEVERITY,
    Confidence,
    Level,
    Season,
    Signal,
    SliceDrift,
    UpstreamCompatibility,
)

NOTABLE = 0.05
"""Contribution to the score from which on a signal is worth a sentence among the reasons."""
SLICES_NAMED_MAX = 3


class Seen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that a reason may be made of."""

    level: Level
    signals: tuple[Signal, ...]
    triggers: tuple[str, ...]
    faults: tuple[str, ...]
    vetoes: tuple[str, ...]
    season: Season | None
    slices: tuple[SliceDrift, ...]
    quiet: bool
    """The features of the whole are known, and none drifted."""
    upstreams: tuple[UpstreamCompatibility, ...]
    unknown_upstreams: tuple[str, ...]
    confidence: Confidence
    confidence_reason: str


def reasons(seen: Seen) -> tuple[str, ...]:
    """Most important first: triggers, broken data, vetoes, what moves the score by how much; what is missing at the
    end.
    """
    found = [*seen.triggers, *(f"broken data, {fault}" for fault in seen.faults), *seen.vetoes]
    notable = [signal for signal in seen.signals if signal.contribution >= NOTABLE]
    notable.sort(key=lambda signal: -signal.contribution)
    moving = [signal.explanation for signal in notable]
    if SEVERITY[seen.level] >= SEVERITY[Level.AT_RISK]:
        found.extend(moving)
    elif seen.level is Level.UNKNOWN:
        found.append(f"too little is known to say: {seen.confidence_reason}")
    else:
        unsure = seen.confidence is not Confidence.HIGH
        found.append(
            f"healthy, but confidence is {seen.confidence.value}: {seen.confidence_reason}" if unsure else "healthy"
        )
        found.extend(moving)
    if not found:
        found.append("the signals together reach the threshold, none of them much by itself")
    if seen.season is not None:
        found.append(seen.season.explanation)
    if seen.slices:
        found.extend(_slices(seen))
    found.extend(upstream.explanation for upstream in seen.upstreams if upstream.compatible)
    if seen.level not in (Level.UNKNOWN, Level.FRESH):
        found.extend(seen.unknown_upstreams)
        found.extend(signal.explanation for signal in seen.signals if signal.missing)
    return tuple(found)


def _slices(seen: Seen) -> list[str]:
    """Slices that drifted although the whole did not, the strongest first."""
    if not seen.quiet:
        return []
    moved = sorted((part for part in seen.slices if part.drifted_share > 0), key=lambda part: (-part.value, part.slice))
    told = [
        f"in slice {part.slice} {_named(part)} drifted, although the whole did not" for part in moved[:SLICES_NAMED_MAX]
    ]
    return [*told, f"and {len(moved) - SLICES_NAMED_MAX} more slices"] if len(moved) > SLICES_NAMED_MAX else told


def _named(part: SliceDrift) -> str:
    names = [feature.name for feature in part.top_features if feature.drifted]
    return ", ".join(names[:3]) or f"{part.drifted_share:.0%} of the features"


def season_of(inputs: InputDrift) -> Season | None:
    """Is the drift usual for the season? None if nothing drifted, or nobody knows what is usual."""
    if inputs.drifted == 0 or not inputs.seasonal:
        return None
    expected = inputs.expected == inputs.drifted
    if expected:
        which = "all" if inputs.drifted > 1 else "what"
        explanation = f"seasonally expected: {which} that drifted is inside its usual range for this time of the year"
    elif inputs.expected:
        explanation = (
            f"{inputs.expected} of the {inputs.drifted} drifted features are seasonally expected, the others are not"
        )
    else:
        explanation = "the drift is beyond what this time of the year usually brings"
    return Season(
        expected=expected,
        features_expected=inputs.expected,
        features_drifted=inputs.drifted,
        explanation=explanation,
    )
