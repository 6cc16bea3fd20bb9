"""A reference made of counts alone, for a version that was registered without one.

What the model saw in the days before the promotion is the new yardstick: new coarse bins at the quantiles of what was
counted over the fine bins, exactly; features without fine bins keep their bins and get the new counts. The score is
left out: what the version before answered says nothing about how this one does.
"""

from dataclasses import replace
from datetime import datetime

import numpy as np

from control_plane.adapters.parquet.binning import HOURS_PER_DAY
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.histograms import Series
from control_plane.adapters.parquet.profile import FeatureBins, Int64s
from control_plane.adapters.parquet.profile_format import written_profile
from control_plane.core.errors import NotFound, Reason
from control_plane.core.statistics.bins import coarsened, rebaselined

ROWS_MIN = 200
"""Predictions that a reference is made of: with fewer, its own noise would look like drift for ever after."""


def rebaselined_profile(facts: Facts, model_id: str, version: int, start: datetime, end: datetime) -> bytes:
    """The JSON of a profile of what was counted in [start, end), whole days; hold the facts' lock.

    Raises:
        NotFound: the version has no profile, or too little was counted then.
    """
    profile = facts.profile_of(model_id, version)
    if profile is None:
        raise _missing(f"version {version} of {model_id} has no reference profile to take bins from")
    first = int(start.timestamp()) // 3600 // HOURS_PER_DAY
    last = -(-int(end.timestamp()) // 3600 // HOURS_PER_DAY)
    series = Series(model_id, version, profile.digest)
    coarse = facts.histograms.between(series, profile, first * HOURS_PER_DAY, last * HOURS_PER_DAY)
    fine = np.zeros(profile.fine_cells, np.int64)
    for counts in facts.histograms.fine_days(series, first, last).values():
        fine += counts
    if coarse.rows < ROWS_MIN:
        says = f"{coarse.rows:,} predictions of version {version} of {model_id} were counted from {start:%Y-%m-%d} to"
        raise _missing(f"{says} {end:%Y-%m-%d}, and {ROWS_MIN} are needed")
    features = {}
    for feature in profile.features:
        counts = coarse.counts[feature.start : feature.end]
        if counts.any():
            features[feature.name] = _rebaselined(feature, counts, fine)
    return written_profile(features)


def _rebaselined(feature: FeatureBins, counts: Int64s, fine: Int64s) -> FeatureBins:
    """A feature with the new counts, over new bins if its fine counts are all there."""
    if feature.fine is None:
        return replace(feature, reference=counts)
    over = fine[feature.fine.start : feature.fine.start + feature.fine.bins.cells]
    if over.sum() != counts.sum():
        # A producer sent histograms over the coarse cells alone: these are all there is.
        return replace(feature, reference=counts, fine=None)
    bins = rebaselined(feature.fine.bins, over)
    return replace(
        feature,
        bins=bins,
        reference=coarsened(feature.fine.bins, bins, over),
        fine=replace(feature.fine, reference=over),
    )


def _missing(message: str) -> NotFound:
    return NotFound(Reason.VERSION_NOT_FOUND, message)
