"""Outcomes without prediction, or only of some hashes: ids that do not match, or samples that differ."""

import math

import numpy as np

from control_plane.core.ground_truth.findings import (
    PART_MIN,
    SHARE_MIN,
    Cause,
    Finding,
    asked_of,
    listed,
    source_name,
)
from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.missing import IdFacts, MissingFacts

ORPHAN_SHARE_MIN = 0.05
"""Fewer orphans among the outcomes are the usual dust of retries and tests."""
SHAPE_MIN = 2.8
"""Kolmogorov's lambda from which two hash histograms differ: by chance once in three million times."""


def unmatched(facts: MissingFacts, missing: int, left: float) -> Finding | None:
    """Outcomes for predictions that are not here, or only for some hashes."""
    ids = facts.ids
    known = asked_of(facts, facts.known) + asked_of(facts, facts.outside)
    orphans = facts.orphans + facts.orphans_timeless
    if ids is not None:
        orphans = max(orphans, ids.orphans)
    if orphans / max(1, orphans + known) < ORPHAN_SHARE_MIN:
        return None if ids is None else _sampled(ids, 0, missing, left)
    share = min(left, orphans / missing)
    if ids is not None and ids.orphans:
        described = _changed_ids(facts, ids)
        if described is not None:
            explanation, remedy = described
            return Finding(cause=Cause.IDS_DO_NOT_MATCH, explanation=explanation, remedy=remedy, share=share)
        sampled = _sampled(ids, orphans, missing, left)
        if sampled is not None:
            return sampled
    outcomes = ids.outcomes if ids is not None and ids.outcomes else orphans + known
    seen = ids.orphans if ids is not None and ids.outcomes else orphans
    return Finding(
        cause=Cause.IDS_DO_NOT_MATCH,
        explanation=f"{seen:,} of {outcomes:,} outcomes are of predictions that nobody sent: their ids are well formed "
        "but unknown.",
        remedy="Send each outcome with the very id its prediction was sent with, and check that predictions and "
        "outcomes come from the same environment: `runway facts orphans MODEL` lists unknown ids.",
        share=share,
    )


def _changed_ids(facts: MissingFacts, ids: IdFacts) -> tuple[str, str] | None:
    """What is wrong with the form of ids, and what to do; None if nothing shows."""
    orphans, predictions = ids.orphans, int(ids.predicted.sum())
    if ids.changed and ids.changed_ids >= 0.2 * orphans:
        return (
            f"{orphans:,} of {ids.outcomes:,} outcomes have ids of no prediction, and {ids.changed_ids:,} of these are "
            f"ids of predictions that were changed on the way: {ids.changed}.",
            "Send the 16 bytes of the id as the prediction had them, in network order, unchanged.",
        )
    if ids.timeless >= 0.5 * orphans and ids.predictions_timeless < 0.5 * predictions:
        return (
            f"{orphans:,} of {ids.outcomes:,} outcomes have ids of no prediction: {ids.timeless:,} of these are no "
            f"UUIDv7, as the ids of predictions are.",
            "Send the prediction's id with its outcome, not an id of the outcome's own (a database key, another UUID).",
        )
    wrong = [one for one in ids.sources if one[1] >= PART_MIN and one[2] >= 0.95 * one[1]]
    right = [one for one in ids.sources if one[1] >= PART_MIN and one[2] <= 0.5 * one[1]]
    if wrong and right:
        names = listed([source_name(name) for name, _, _ in wrong])
        return (
            f"{sum(one[2] for one in wrong):,} outcomes from {names} are of predictions that nobody sent; those from "
            f"{listed([source_name(name) for name, _, _ in right])} fit.",
            f"Look at how {names} gets its ids: each outcome needs the very id its prediction was sent with.",
        )
    return None


def _sampled(ids: IdFacts, orphans: int, missing: int, left: float) -> Finding | None:
    """Outcomes of another sample of the ids than the predictions."""
    predicted, joined = int(ids.predicted.sum()), int(ids.joined.sum())
    remedy = (
        "Sample both sides alike: send all outcomes and let Runway sample (ground_truth.sample_rate), or keep an id on "
        "both sides by the same hash and rate."
    )
    share = min(left, orphans / missing)
    if orphans and distance(ids.predicted, ids.orphaned) > SHAPE_MIN and not _same_range(ids):
        return Finding(
            cause=Cause.SAMPLING_MISMATCH,
            explanation=f"{ids.orphans:,} of {ids.outcomes:,} outcomes are of ids with other hashes than the "
            f"{predicted:,} predictions have ({_range_text(ids.orphaned)} against {_range_text(ids.predicted)}): both "
            "sides are samples, but not the same.",
            remedy=remedy,
            share=share,
        )
    if joined and distance(ids.predicted, ids.joined) > SHAPE_MIN:
        inside, share = _kept_part(ids)
        if share >= SHARE_MIN:
            return Finding(
                cause=Cause.SAMPLING_MISMATCH,
                explanation=f"Outcomes come only for ids whose hash is in {inside} of its range: there "
                "most predictions have one, elsewhere next to none. Only sampling by the id does that.",
                remedy=remedy,
                share=min(left, share),
            )
    if not orphans or not ids.orphans:
        return None
    if 0.02 <= joined / max(1, ids.outcomes) <= 0.95 and joined / max(1, predicted) >= 0.02:
        return Finding(
            cause=Cause.SAMPLING_MISMATCH,
            explanation=f"{joined:,} of {ids.outcomes:,} outcomes fit a prediction, the others have well-formed ids of "
            f"predictions that are not here, evenly mixed: of {predicted:,} predictions {joined / predicted:.0%} have "
            "an outcome. Both sides seem to be samples, drawn apart.",
            remedy=remedy,
            share=share,
        )
    return None


def distance(one: Int64s, other: Int64s) -> float:
    """Kolmogorov-Smirnov lambda of two histograms over the same cells: D * sqrt(n m / (n + m)); 0 if one is empty.

    P(lambda > x) is about 2 exp(-2 x^2), less for binned samples.

    >>> distance(np.array([50, 50]), np.array([5, 5])), distance(np.array([100, 0]), np.array([0, 100])) > 7
    (0.0, True)
    """
    n, m = float(one.sum()), float(other.sum())
    if not n or not m:
        return 0.0
    apart = float(np.max(np.abs(np.cumsum(one) / n - np.cumsum(other) / m)))
    return apart * math.sqrt(n * m / (n + m))


def _kept_part(ids: IdFacts) -> tuple[str, float]:
    """Where in the range of hashes outcomes are, and the share of the missing that their lack elsewhere explains."""
    predicted, joined = ids.predicted.reshape(16, -1).sum(1), ids.joined.reshape(16, -1).sum(1)
    if np.count_nonzero(predicted) < 4:  # predictions are a sample themselves: look closer
        used = np.flatnonzero(ids.predicted)
        cut = slice(int(used[0]), int(used[-1]) + 1)
        predicted, joined = ids.predicted[cut], ids.joined[cut]
    some = predicted > 0
    share = joined[some] / predicted[some]
    high = share >= 0.5 * float(np.quantile(share, 0.95))
    total, known = float(predicted.sum()), float(joined.sum())
    among = float(joined[some][high].sum() / max(1, predicted[some][high].sum()))
    coverage = known / total
    if coverage >= 1:
        return "all", 0.0
    return f"{predicted[some][high].sum() / total:.0%}", max(0.0, (among - coverage) / (1 - coverage))


def _same_range(ids: IdFacts) -> bool:
    """Do most orphans have hashes that predictions have too?"""
    return float(ids.orphaned[ids.predicted > 0].sum()) > 0.95 * ids.orphans


def _range_text(cells: Int64s) -> str:
    at = np.flatnonzero(cells)
    return f"{at[0] / len(cells):.2f} to {(at[-1] + 1) / len(cells):.2f}" if len(at) else "none"
