"""Why truth is missing: likely causes, each with what speaks for it, how much it explains, and what to do.

Rules, in the order in which they take their share of the missing outcomes (what one has explained, the next cannot):
1. never any: not one outcome of this label type is here.
2. too late: outcomes came after the window. They are counted, nothing is inferred.
3. ids do not match, or sampling: outcomes came for predictions that are not here. Ids of another form, or changed in
   a way that can be undone, or all orphans from one sender: the ids do not match. Otherwise, or if outcomes are here
   only for some of the hashes of ids, which nothing but sampling by the hash can bring about: a sampling mismatch.
4. outcomes stopped: a silence longer than is usual, during which outcomes were expected. How many, the delay curve
   says: of predictions made h hours before the silence [a, b), the share F(b - h) - F(a - h).
5. source silent: the same of one sender among others, or a slice or prediction source that has next to nothing while
   the rest is as usual.
6. never labelled: what is left. Outcomes come, but for fewer predictions than is asked for.

Findings are ordered by their share. Enough coverage needs no cause: then only versions and slices that are low by
themselves are found.
"""

import math
from collections.abc import Sequence

import numpy as np

from control_plane.core.ground_truth.coverage import PartCoverage, coverage_of, is_low, low_parts
from control_plane.core.ground_truth.findings import (
    PART_MIN,
    SHARE_MIN,
    SILENT_SHARE,
    Cause,
    Finding,
    asked_of,
    instant_of,
    listed,
)
from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.missing import MissingFacts
from control_plane.core.ground_truth.partials import DELAY_EDGES_S
from control_plane.core.ground_truth.silence import silent_part, stopped
from control_plane.core.ground_truth.unmatched import unmatched
from control_plane.core.timewindow import spelled

LEAST_SHOWN = 3
PARTS_SHOWN = 5


def findings(facts: MissingFacts, minimum: float) -> tuple[Finding, ...]:
    """Likely causes of what is missing, the likeliest first; none if coverage is as wanted and of each part too."""
    mature, known = asked_of(facts, facts.mature), asked_of(facts, facts.known)
    parts = _low_parts(facts, minimum)
    if not is_low(coverage_of(known, mature), minimum):
        return tuple(parts)
    missing = mature - known
    if not facts.outcomes_ever and not known:
        return (_never_any(facts, mature),)
    found: list[Finding] = []
    left = 1.0
    for rule in (_too_late, unmatched, stopped, silent_part):
        finding = rule(facts, missing, left)
        if finding is not None and finding.share >= SHARE_MIN:
            found.append(finding)
            left = max(0.0, left - finding.share)
    if left >= SHARE_MIN or not found:
        found.append(_never_labelled(facts, mature, known, left))
    ordered = sorted(found, key=lambda one: -one.share)
    # What is low all over is no news of each part: only those that are lower still.
    lower = {part.name for part in _least((*facts.versions, *facts.slices), mature, known)}
    worse = [
        part
        for part in parts
        if (part.slice_name or f"version {part.version}") in lower
        and (part.version or part.cause is Cause.SOURCE_SILENT)  # others are named by the last rule
    ]
    named = {one.slice_name for one in ordered if one.slice_name}
    return (*ordered, *(part for part in worse if part.slice_name not in named or not part.slice_name))


def _never_any(facts: MissingFacts, mature: int) -> Finding:
    others = [name for name in facts.other_labels if name != facts.label.label_type]
    hint = f" Outcomes came as {listed(others)}." if others else ""
    remedy = (
        f"Send outcomes with the label type {facts.label.label_type}, or name {others[0]} in the model's label policy."
        if others
        else "Connect the system that knows the truth: `runway ingest` or a client's ingest_outcomes, with the "
        "prediction's id."
    )
    return Finding(
        cause=Cause.NEVER_ANY,
        explanation=f"No outcome of label type {facts.label.label_type} has ever come, for {mature:,} mature "
        f"predictions.{hint}",
        remedy=remedy,
        share=1.0,
    )


def _too_late(facts: MissingFacts, missing: int, left: float) -> Finding | None:
    outside = asked_of(facts, facts.outside)
    if not outside:
        return None
    share = min(left, outside / missing)
    return Finding(
        cause=Cause.TOO_LATE,
        explanation=f"{outside:,} outcomes came, but later than the window of {spelled(facts.label.window)} after "
        f"their predictions ({share:.0%} of what is missing).",
        remedy="Lengthen the label's window in the model's policy (coverage is then computed anew), or deliver "
        "outcomes sooner.",
        share=share,
    )


def _never_labelled(facts: MissingFacts, mature: int, known: int, left: float) -> Finding:
    missing = round(left * (mature - known))
    least = _least(facts.slices, mature, known) or _least(_months(facts), mature, known)
    where = f" Least have {listed([f'{part.name} ({part.share:.1%})' for part in least])}." if least else ""
    late = (
        f" Half of those that come are here within {_delay(facts.delays, 0.5)}." if known and facts.delays.sum() else ""
    )
    text = (
        f"Outcomes come steadily, but for {known:,} of {mature:,} predictions ({known / mature:.1%}): {missing:,} "
        f"never get one.{where}{late}"
        if left > 1 - SHARE_MIN
        else f"About {missing:,} predictions more never get an outcome, without a pattern in time or ids.{where}"
    )
    return Finding(
        cause=Cause.NEVER_LABELLED,
        explanation=text,
        remedy="If these cannot have an outcome (a flight that never flew), lower coverage_min for this model to what "
        "is right; if no outcome means no, set absence_means_negative; else look for who should know.",
        share=left,
    )


def _least(parts: Sequence[PartCoverage], mature: int, known: int) -> list[PartCoverage]:
    """Parts that have surely less than all together, the lowest first."""
    whole = known / mature if mature else 0.0
    low = []
    for part in parts:
        if part.mature < PART_MIN:
            continue
        error = math.sqrt(max(whole * (1 - whole), 1e-9) / part.mature)
        if part.share < whole - 3 * error:
            low.append(part)
    return sorted(low, key=lambda part: (part.share, part.name))[:LEAST_SHOWN]


def _months(facts: MissingFacts) -> list[PartCoverage]:
    """By month, or by day if it all is of one month."""
    for form in ("%B %Y", "%-d %B"):
        sums: dict[str, list[int]] = {}
        for hour, mature, known in zip(facts.hours.tolist(), facts.mature.tolist(), facts.known.tolist(), strict=True):
            if facts.first <= hour < facts.last:
                of = sums.setdefault(instant_of(hour).strftime(form), [0, 0])
                of[0] += mature
                of[1] += known
        if len(sums) > 1:
            return [PartCoverage(name=name, mature=both[0], known=both[1]) for name, both in sums.items()]
    return []


def _low_parts(facts: MissingFacts, minimum: float) -> list[Finding]:
    """Versions and slices that are below the minimum by themselves, while the others are not."""
    found = []
    missing = asked_of(facts, facts.mature) - asked_of(facts, facts.known)
    for parts in (facts.versions, facts.slices):
        low = low_parts(parts, minimum)
        if len(parts) < 2 or len(low) == len(parts):
            continue
        for part in low[:PARTS_SHOWN]:
            mature, known = sum(one.mature for one in parts), sum(one.known for one in parts)
            share = (part.mature - part.known) / max(1, missing)
            silent = part.share <= SILENT_SHARE * (known / max(1, mature))
            found.append(
                Finding(
                    cause=Cause.SOURCE_SILENT if silent else Cause.NEVER_LABELLED,
                    explanation=f"{part.name} is below the minimum by itself: {part.known:,} of {part.mature:,} mature "
                    f"predictions have their outcome ({part.share:.1%}).",
                    remedy=f"Look at where outcomes of {part.name} come from.",
                    share=min(1.0, share),
                    version=part.version,
                    slice_name=part.slice_name,
                )
            )
    return found


def _delay(delays: Int64s, quantile: float) -> str:
    """About how long it takes until a share of the outcomes is here."""
    reached = np.cumsum(delays) / delays.sum()
    at = int(np.searchsorted(reached, quantile))
    seconds = float(DELAY_EDGES_S[min(at, len(DELAY_EDGES_S) - 1)])
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
