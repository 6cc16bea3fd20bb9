"""The recorded history of one model, in bulk: what a backtest replays.

One query each for counts and for partials; what is in memory (hours of segments that are not sealed, live hours of the
speed view) is added to it.
"""

import numpy as np
import numpy.typing as npt

from control_plane.adapters.parquet.binning import Cells
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.profile import FeatureBins, Profile
from control_plane.app.fact_reports import FeatureCells, RecordedCounts, RecordedHours, RecordedPartials
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, merge_weighted, unpack

INT32_MAX = 2**31 - 1
SURE_BYTES = 2
"""Unsigned counts of two bytes fit into a signed four."""


def recorded_hours(facts: Facts, model_id: str, first: int, last: int, mature_before: int) -> RecordedHours:
    """History of hours first <= hour < last; hold the facts' lock.

    Args:
        mature_before: hours before this one are mature.
    """
    spec = facts.label(model_id, "")
    return RecordedHours(
        model_id=model_id,
        label=spec,
        counts=tuple(_counts(facts, model_id, first, last)),
        partials=tuple(_partials(facts, model_id, spec, first, last, mature_before)),
    )


def _counts(facts: Facts, model_id: str, first: int, last: int) -> list[RecordedCounts]:
    found = []
    for (version, digest), by_hour in sorted(facts.histograms.recorded(model_id, first, last).items()):
        profile = facts.profiles.get(digest)
        if profile is not None and by_hour:
            found.append(_recorded(version, profile, by_hour))
    return found


def _recorded(version: int, profile: Profile, by_hour: dict[int, Cells]) -> RecordedCounts:
    hours = sorted(by_hour)
    counts: npt.NDArray[np.integer] = np.empty(
        (len(hours), profile.cells), np.int32 if all(_fits_32_bits(cells) for cells in by_hour.values()) else np.int64
    )
    for at, hour in enumerate(hours):
        counts[at] = by_hour[hour].counts[: profile.cells]
    return RecordedCounts(
        version=version,
        profile_sha256=profile.digest,
        features=tuple(feature_cells(bins) for bins in profile.features),
        prediction=feature_cells(profile.prediction) if profile.prediction is not None else None,
        hours=np.array(hours, np.int64),
        predictions=np.array([by_hour[hour].rows for hour in hours], np.int64),
        counts=counts,
    )


def _fits_32_bits(cells: Cells) -> bool:
    """Stored counts are as narrow as they fit, so that hardly any need be looked at."""
    return cells.counts.dtype.itemsize <= SURE_BYTES or int(cells.counts.max(initial=0)) <= INT32_MAX


def feature_cells(bins: FeatureBins) -> FeatureCells:
    """Where one histogram is in the vector of all cells."""
    return FeatureCells(
        name=bins.name,
        kind=bins.kind,
        cells=bins.labels,
        reference=bins.reference,
        start=bins.start,
        importance=bins.importance,
    )


def _partials(
    facts: Facts, model_id: str, spec: LabelSpec, first: int, last: int, mature_before: int
) -> list[RecordedPartials]:
    """By version. Of an hour the speed view answers while it is live, then the batch join, then what was kept."""
    found: dict[int, dict[int, tuple[str, Partial]]] = {}
    for hour, version, layer, packed in facts.catalog.db.execute(
        "SELECT hour, version, layer, packed FROM partials "
        "WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?",
        (model_id, spec.label_type, first, last),
    ):
        by_hour = found.setdefault(int(version), {})
        if layer == "batch" or hour not in by_hour:
            by_hour[int(hour)] = (layer, unpack(packed))
    for hour in facts.speed.hours(model_id):
        if first <= hour < last:
            weight = 1 / facts.speed.rate(model_id, hour)
            for version, partial in (facts.speed.partials(model_id, spec, hour, mature_before) or {}).items():
                found.setdefault(version, {})[hour] = ("live", merge_weighted([(partial, weight)]))
    return [
        RecordedPartials(
            version=version,
            hours=np.array(sorted(by_hour), np.int64),
            partials=tuple(by_hour[hour][1] for hour in sorted(by_hour)),
        )
        for version, by_hour in sorted(found.items())
    ]
