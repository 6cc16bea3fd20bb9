"""Outcomes by score: what calibrates a model's scores, and whether the same score still means the same.

Scores are kept over `SCORE_BINS` bins on the logit scale, a profile counts them over its own few. A score bin that
holds an edge of the profile belongs below it: a score equal to the edge does, and models that answer with few distinct
scores have their edges there.
"""

from dataclasses import dataclass

import numpy as np

from control_plane.adapters.parquet.binning import HOURS_PER_DAY, Int64s
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.profile import Profile
from control_plane.adapters.parquet.serving import served_hours
from control_plane.app.fact_reports import ConceptFacts
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import SCORE_BINS, Partial, merge, score_bin_edges

CALIBRATION_DAYS = 28
"""Days of outcomes that scores are calibrated by: recent enough to follow the world, many enough to be smooth."""
CALIBRATION_DAYS_MAX = 42
"""Days that are added one by one before the oldest are let go of."""


def coarse_cells(profile: Profile) -> Int64s:
    """The prediction's bin of each score bin, shape (SCORE_BINS,)."""
    assert profile.prediction is not None
    lower = np.concatenate([[-np.inf], score_bin_edges()])
    return np.searchsorted(profile.prediction.edges, lower, side="left").astype(np.int64)


def concept_facts(spec: LabelSpec, profile: Profile | None, labelled: Partial) -> ConceptFacts | None:
    """Outcomes by score bin of the profile: of the holdout, and of the mature window."""
    if spec.task != "binary" or profile is None or profile.prediction is None or profile.positives is None:
        return None
    if not labelled.labelled:
        return None
    bins = len(profile.positives)
    cells = coarse_cells(profile)
    by_label = np.stack([np.bincount(cells, row, bins) for row in labelled.scores()]).astype(np.int64)
    return ConceptFacts(
        reference_total=profile.prediction.reference[:bins],
        reference_positive=profile.positives,
        current_total=by_label.sum(axis=0),
        current_positive=by_label[1],
    )


def holdout_scores(profile: Profile | None) -> tuple[Int64s, Int64s]:
    """Totals and positives of the holdout by score bin, shapes (SCORE_BINS,); the profile's bins are spread evenly."""
    total, positive = np.zeros(SCORE_BINS, np.int64), np.zeros(SCORE_BINS, np.int64)
    if profile is None or profile.prediction is None or profile.positives is None:
        return total, positive
    cells = coarse_cells(profile)
    for cell, (rows, ones) in enumerate(
        zip(profile.prediction.reference.tolist(), profile.positives.tolist(), strict=False)
    ):
        at = np.flatnonzero(cells == cell)
        if not len(at) or not rows:
            continue
        until = np.arange(1, len(at) + 1) * rows // len(at)
        total[at] = np.diff(until, prepend=0)
        # Of the first n rows n * ones / rows are positive: so no bin has more positives than rows.
        positive[at] = np.diff(until * ones // rows, prepend=0)
    return total, positive


@dataclass(slots=True)
class _Known:
    """Outcomes of days first <= day < last, by score bin."""

    first: int
    last: int
    total: Int64s
    positive: Int64s


class Calibrations:
    """Outcomes by score bin of each version's mature history and of its holdout. Days are added as they mature."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._known: dict[str, tuple[tuple[int, LabelSpec], _Known]] = {}
        self._holdouts: dict[str, tuple[Int64s, Int64s]] = {}

    def known(
        self, model_id: str, version: int, profile: Profile | None, spec: LabelSpec, mature_last: int
    ) -> tuple[Int64s, Int64s]:
        """Totals and positives by score bin, shapes (SCORE_BINS,), up to the day of `mature_last`."""
        day = mature_last // HOURS_PER_DAY
        key, known = self._known.get(model_id, (None, None))
        if known is None or key != (version, spec) or day < known.last or day - known.first > CALIBRATION_DAYS_MAX:
            first = day - CALIBRATION_DAYS
            known = _Known(first, first, np.zeros(SCORE_BINS, np.int64), np.zeros(SCORE_BINS, np.int64))
        if day > known.last:
            start, end = known.last * HOURS_PER_DAY, day * HOURS_PER_DAY
            hours = served_hours(self._facts, model_id, version, spec, start, end, end)
            scores = merge(served.partial for served in hours.values()).scores()
            known = _Known(known.first, day, known.total + scores.sum(axis=0), known.positive + scores[1])
            self._known[model_id] = ((version, spec), known)
        total, positive = self._holdout(profile)
        return known.total + total, known.positive + positive

    def _holdout(self, profile: Profile | None) -> tuple[Int64s, Int64s]:
        digest = profile.digest if profile is not None else ""
        found = self._holdouts.get(digest)
        if found is None:
            if len(self._holdouts) > HOLDOUTS_MAX:
                self._holdouts.clear()
            found = self._holdouts[digest] = holdout_scores(profile)
        return found


HOLDOUTS_MAX = 4_096
"""Holdouts kept spread out: 16 KB each, eight versions of each of 500 models."""
