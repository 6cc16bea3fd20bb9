"""Silences: of all senders of outcomes, of one of them, or of a part of the data.

A silence of the outcomes is one that is longer than is usual, and in which outcomes were expected: of predictions made
h hours before the silence [a, b), the delay curve F says that the share F(b - h) - F(a - h) should have come in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from control_plane.core.ground_truth.coverage import PartCoverage
from control_plane.core.ground_truth.findings import (
    EXPECTED_MIN,
    PART_MIN,
    SILENT_SHARE,
    Cause,
    Finding,
    asked_of,
    listed,
    source_name,
    time_of,
)
from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.missing import MissingFacts, SourceHours
from control_plane.core.ground_truth.partials import DELAY_EDGES_S
from control_plane.core.timewindow import spelled

SILENCE_FACTOR = 1.5
"""A silence is longer than usual if it is so much longer than the 99 % quantile of the others."""


@dataclass(frozen=True, slots=True)
class _Silence:
    start: int
    end: int
    usual: float
    expected: float
    """Of the outcomes of mature predictions, those that should have come in it."""


def stopped(facts: MissingFacts, missing: int, left: float) -> Finding | None:
    rows: dict[int, int] = {}
    for source in facts.sources:
        for hour, count in zip(source.hours, source.rows, strict=True):
            rows[hour] = rows.get(hour, 0) + count
    silence = _silence(facts, sorted(rows), 1.0)
    if silence is None:
        return None
    share = min(left, silence.expected / missing)
    length = spelled(timedelta(hours=silence.end - silence.start))
    usual = (
        f"usually no more than {spelled(timedelta(hours=math.ceil(silence.usual)))} pass without one"
        if silence.usual >= 1
        else "usually there are some every hour"
    )
    which = listed([source_name(source.source) for source in facts.sources if source.source])
    whom = f" ({which})" if which != "nobody" else ""
    if silence.end >= facts.until:
        return Finding(
            cause=Cause.OUTCOMES_STOPPED,
            explanation=f"Outcomes stopped: the last{whom} are of the hour from {time_of(silence.start - 1)}, {length} "
            f"without any since; {usual}. About {silence.expected:,.0f} should have come.",
            remedy="Look after the job that sends outcomes. When it runs again, let it send what it missed: outcomes "
            "of old predictions are joined however late they are sent.",
            share=share,
        )
    return Finding(
        cause=Cause.OUTCOMES_STOPPED,
        explanation=f"No outcome came from {time_of(silence.start)} to {time_of(silence.end)}{whom}, {length}; "
        f"{usual}. About {silence.expected:,.0f} are missing from that time.",
        remedy="Send the outcomes of that time again: batches that are here already change nothing.",
        share=share,
    )


def _silence(facts: MissingFacts, active: Sequence[int], weight: float) -> _Silence | None:
    """The silence in which most outcomes should have come; None if none was unusual.

    Args:
        active: hours with outcomes, ascending.
        weight: share of all outcomes that this sender usually sends.
    """
    if not active:
        return None
    bounds = np.array([*active, facts.until], np.int64)
    gaps = np.diff(bounds) - 1
    best: _Silence | None = None
    for at in np.argsort(-gaps)[:5].tolist():
        length = int(gaps[at])
        others = np.delete(gaps, at)
        usual = float(np.quantile(others, 0.99, method="higher")) if len(others) else 0.0
        if length < 2 or length <= SILENCE_FACTOR * usual:
            continue
        start, end = int(bounds[at]) + 1, int(bounds[at + 1])
        expected = weight * _expected(facts, start, end)
        if expected >= EXPECTED_MIN and (best is None or expected > best.expected):
            best = _Silence(start, end, usual, expected)
    return best


def _expected(facts: MissingFacts, start: int, end: int) -> float:
    """Outcomes of mature predictions of the stretch that should have come in [start, end), no more than are missing
    beyond what is usual."""
    due = _reached(facts.delays, end - facts.hours - 0.5) - _reached(facts.delays, start - facts.hours - 0.5)
    usual_at = due < 0.02
    usual = 0.95
    came = facts.known + facts.outside
    if facts.mature[usual_at].sum() >= PART_MIN:
        usual = float(came[usual_at].sum() / facts.mature[usual_at].sum())
    asked = (facts.hours >= facts.first) & (facts.hours < facts.last) & ~usual_at
    expected = float((facts.mature[asked] * due[asked]).sum()) * usual
    lacking = float((facts.mature[asked] - came[asked]).sum()) - (1 - usual) * float(facts.mature[asked].sum())
    return max(0.0, min(expected, lacking))


def _reached(delays: Int64s, hours: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Share of the outcomes that are here so many hours after the prediction, shape (n,)."""
    total = float(delays.sum())
    if not total:
        return np.asarray(hours >= 0, np.float64)
    shares = np.cumsum(delays[:-1]) / total
    return np.asarray(np.interp(hours * 3600, DELAY_EDGES_S, shares, left=0.0), np.float64)


def silent_part(facts: MissingFacts, missing: int, left: float) -> Finding | None:
    """One sender, one slice or the predictions of one sender are without outcomes."""
    candidates = [
        one for one in (_silent_sender(facts, missing), _silent_predictions(facts), _silent_slice(facts)) if one
    ]
    if not candidates:
        return None
    found = max(candidates, key=lambda one: one.share)
    return Finding(
        cause=found.cause,
        explanation=found.explanation,
        remedy=found.remedy,
        share=min(left, found.share),
        slice_name=found.slice_name,
    )


def _silent_sender(facts: MissingFacts, missing: int) -> Finding | None:
    if len(facts.sources) < 2:
        return None
    best: Finding | None = None
    for source in facts.sources:
        whole = _silence(facts, source.hours, 1.0)
        if whole is None:
            continue
        others = [one for one in facts.sources if one is not source]
        if not any(_rows_in(one, whole.start, whole.end) for one in others):
            continue  # all are silent together
        mine = sum(source.rows) - _rows_in(source, whole.start, whole.end)
        rest = sum(sum(one.rows) - _rows_in(one, whole.start, whole.end) for one in others)
        expected = min(whole.expected, _expected_alone(facts, whole) * mine / max(1, mine + rest))
        if expected < EXPECTED_MIN:
            continue
        since = "since" if whole.end >= facts.until else f"until {time_of(whole.end)} since"
        share = expected / missing
        went_on = listed([source_name(one.source) for one in others])
        finding = Finding(
            cause=Cause.SOURCE_SILENT,
            explanation=f"{source_name(source.source)} has sent no outcome {since} {time_of(whole.start)}; before, it "
            f"sent {mine / max(1, mine + rest):.0%} of them. {went_on} went on.",
            remedy=f"Look after {source_name(source.source)}; let it send what it missed when it runs again.",
            share=min(1.0, share),
        )
        if best is None or finding.share > best.share:
            best = finding
    return best


def _expected_alone(facts: MissingFacts, silence: _Silence) -> float:
    """As `_expected`, but not limited by what is missing: of all senders together."""
    due = _reached(facts.delays, silence.end - facts.hours - 0.5) - _reached(
        facts.delays, silence.start - facts.hours - 0.5
    )
    asked = (facts.hours >= facts.first) & (facts.hours < facts.last)
    return float((facts.mature[asked] * due[asked]).sum())


def _rows_in(source: SourceHours, start: int, end: int) -> int:
    return sum(rows for hour, rows in zip(source.hours, source.rows, strict=True) if start <= hour < end)


def _silent_predictions(facts: MissingFacts) -> Finding | None:
    """Predictions of one sender, none of which gets an outcome."""
    if facts.ids is None or len(facts.ids.prediction_sources) < 2:
        return None
    if facts.ids.orphans > SILENT_SHARE * facts.ids.outcomes:
        return None  # their outcomes came, under other ids
    parts = [
        PartCoverage(name=source_name(name), mature=n, known=joined) for name, n, joined in facts.ids.prediction_sources
    ]
    found = _without(parts, sum(part.mature for part in parts), sum(part.known for part in parts))
    if found is None:
        return None
    part, rest, share = found
    return Finding(
        cause=Cause.SOURCE_SILENT,
        explanation=f"Predictions from {part.name} get no outcomes ({part.share:.1%} of {part.mature:,}); those of "
        f"other senders do ({rest:.1%}).",
        remedy=f"Find out who knows the truth about predictions from {part.name}, and connect it.",
        share=share,
    )


def _silent_slice(facts: MissingFacts) -> Finding | None:
    found = _without(facts.slices, asked_of(facts, facts.mature), asked_of(facts, facts.known))
    if found is None:
        return None
    part, rest, share = found
    return Finding(
        cause=Cause.SOURCE_SILENT,
        explanation=f"{part.name} has next to no outcomes ({part.share:.1%} of {part.mature:,} predictions); all else "
        f"has {rest:.1%}.",
        remedy=f"Look at where outcomes of {part.name} come from: they are lost there, or nobody collects them.",
        share=share,
        slice_name=part.slice_name,
    )


def _without(parts: Sequence[PartCoverage], mature: int, known: int) -> tuple[PartCoverage, float, float] | None:
    """The largest part without outcomes while the rest has them, the rest's coverage, and the share of the missing that
    this explains."""
    best: tuple[PartCoverage, float, float] | None = None
    for part in parts:
        others, covered = mature - part.mature, known - part.known
        if part.mature < PART_MIN or others < PART_MIN or mature <= known:
            continue
        rest = covered / others
        if rest * part.mature < EXPECTED_MIN or part.share > SILENT_SHARE * rest:
            continue
        share = min(1.0, part.mature * (rest - part.share) / (mature - known))
        if best is None or share > best[2]:
            best = (part, rest, share)
    return best


def silences(facts: MissingFacts) -> tuple[str, ...]:
    """What is silent now, said before it lowers coverage: predictions that lack their outcome are not mature yet."""
    rows: dict[int, int] = {}
    for source in facts.sources:
        for hour, count in zip(source.hours, source.rows, strict=True):
            rows[hour] = rows.get(hour, 0) + count
    found = []
    for who, active in [("", sorted(rows)), *((source_name(one.source), list(one.hours)) for one in facts.sources)]:
        if len(active) < 3 or (who and len(facts.sources) < 2):
            continue
        gaps = np.diff(np.array(active, np.int64)) - 1
        length, usual = facts.until - active[-1] - 1, float(np.quantile(gaps, 0.99, method="higher"))
        total = sum(rows[hour] for hour in active)
        rate = total / (active[-1] - active[0] + 1)
        if length < 2 or length <= SILENCE_FACTOR * usual or rate * length < EXPECTED_MIN:
            continue
        found.append(
            f"no outcome{f' from {who}' if who else ''} since {time_of(active[-1] + 1)}: usually at most "
            f"{spelled(timedelta(hours=max(1, math.ceil(usual))))} pass without one"
        )
        if not who:
            break
    return tuple(found)
