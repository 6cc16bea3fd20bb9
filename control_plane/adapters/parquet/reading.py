"""Answers from partials and histograms: coverage, performance, evidence.

Which layer answers for an hour: the speed view while the hour is live, for it then holds every row; after that the
batch join's partials; until those exist, the last ones of the speed view. An hour of which none exists yet is
*pending* and counts neither as mature nor as unlabelled: late is served as late, never as 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from control_plane.adapters.parquet.facts import Facts, hour_of
from control_plane.adapters.parquet.profiles import FeatureBins, Profile
from control_plane.app.fact_store import (
    CoverageReport,
    CoverageRow,
    FactEvidence,
    FeatureEvidence,
    Grain,
    PerformanceReport,
    PerformanceRow,
    ServedBy,
)
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import metrics_of
from control_plane.core.ground_truth.partials import EMPTY, Partial, merge, unpack

Int64s = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOURS_PER_GRAIN = {"hour": 1, "day": 24}


@dataclass(slots=True)
class _Hour:
    """One hour as served."""

    layer: ServedBy
    partial: Partial
    pending: int = 0


class Reader:
    """Reads under the facts' lock, for milliseconds."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def coverage(
        self,
        model_id: str,
        version: int | None,
        start: datetime,
        end: datetime,
        now: datetime,
        *,
        label_type: str = "",
        grain: Grain = "day",
    ) -> CoverageReport:
        """Coverage of predictions made in [start, end); see `FactStore.coverage`."""
        with self._facts.lock:
            spec = self._facts.label(model_id, label_type)
            first, last = _hours(start, end)
            mature_before = mature_before_hour(spec, now)
            hours = self._served(model_id, version, spec, first, last, mature_before)
            orphans = self._orphans(model_id, spec.label_type, first, last)
            rows = [
                self._coverage_row(model_id, spec, a, b, hours, orphans, mature_before)
                for a, b in _spans(first, last, _HOURS_PER_GRAIN[grain])
                if any(a <= hour < b for hour in (*hours, *orphans))
            ]
            total = self._coverage_row(model_id, spec, first, last, hours, orphans, mature_before)
        return CoverageReport(label=spec, total=total, rows=tuple(rows))

    def performance(
        self,
        model_id: str,
        version: int | None,
        start: datetime,
        end: datetime,
        now: datetime,
        *,
        label_type: str = "",
        grain: Grain = "day",
    ) -> PerformanceReport:
        """Performance over mature predictions made in [start, end); see `FactStore.performance`."""
        with self._facts.lock:
            spec = self._facts.label(model_id, label_type)
            first, last = _hours(start, end)
            mature_before = mature_before_hour(spec, now)
            hours = self._served(model_id, version, spec, first, min(last, mature_before), mature_before)
        rows = [
            _performance_row(spec, a, b, hours)
            for a, b in _spans(first, last, _HOURS_PER_GRAIN[grain])
            if any(a <= hour < b for hour in hours)
        ]
        return PerformanceReport(label=spec, total=_performance_row(spec, first, last, hours), rows=tuple(rows))

    def evidence(
        self, model_id: str, version: int, window_start: datetime, window_end: datetime, now: datetime
    ) -> FactEvidence:
        """Everything about one version; see `FactStore.evidence`."""
        with self._facts.lock:
            spec = self._facts.label(model_id, "")
            first, last = _hours(window_start, window_end)
            mature_before = mature_before_hour(spec, now)
            moved = max(0, last - mature_before)
            mature_first, mature_last = first - moved, last - moved
            hours = self._served(model_id, version, spec, mature_first, mature_last, mature_before)
            orphans = self._orphans(model_id, spec.label_type, mature_first, mature_last)
            coverage = self._coverage_row(model_id, spec, mature_first, mature_last, hours, orphans, mature_before)
            profile = self._facts.profile_of(model_id, version)
            features: tuple[FeatureEvidence, ...] = ()
            prediction = None
            if profile is not None:
                predictions, features, prediction = self._drift(model_id, version, profile, first, last)
            else:
                window = self._served(model_id, version, spec, first, last, mature_before)
                predictions = sum(hour.partial.of("predicted") for hour in window.values())
        return FactEvidence(
            model_id=model_id,
            version=version,
            window_start=_instant(first),
            window_end=_instant(last),
            predictions=predictions,
            profile_sha256=profile.digest if profile else "",
            features=features,
            prediction=prediction,
            label=spec,
            performance=_performance_row(spec, mature_first, mature_last, hours),
            coverage=coverage,
        )

    def _drift(
        self, model_id: str, version: int, profile: Profile, first: int, last: int
    ) -> tuple[int, tuple[FeatureEvidence, ...], FeatureEvidence | None]:
        current = self._facts.histograms.between(model_id, version, profile, first, last)
        features = tuple(_evidence_of(bins, current.counts) for bins in profile.features)
        prediction = _evidence_of(profile.prediction, current.counts) if profile.prediction else None
        return current.rows, features, prediction

    def _served(
        self, model_id: str, version: int | None, spec: LabelSpec, first: int, last: int, mature_before: int
    ) -> dict[int, _Hour]:
        """Each hour first <= hour < last that holds predictions, from the layer that answers for it."""
        found: dict[int, dict[str, list[Partial]]] = {}
        versions = "" if version is None else f" AND version = {int(version)}"
        for hour, layer, packed in self._facts.catalog.db.execute(
            "SELECT hour, layer, packed FROM partials "  # noqa: S608 - an int is all that is put in
            f"WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?{versions}",
            (model_id, spec.label_type, first, last),
        ):
            found.setdefault(hour, {}).setdefault(layer, []).append(unpack(packed))
        served: dict[int, _Hour] = {}
        for hour, layers in found.items():
            batch = layers.get("batch")
            served[hour] = _Hour("batch", merge(batch)) if batch else _Hour("speed", merge(layers["speed"]))
        for hour in self._facts.speed.hours(model_id):
            if first <= hour < last:
                live = self._facts.speed.partials(model_id, spec, hour, mature_before) or {}
                wanted = [partial for number, partial in live.items() if version in (None, number)]
                served[hour] = _Hour("speed", merge(wanted))
        self._add_pending(model_id, first, last, served, any_version=version is None)
        return served

    def _add_pending(
        self, model_id: str, first: int, last: int, served: dict[int, _Hour], *, any_version: bool
    ) -> None:
        """Hours of which there are rows but no partials of either layer."""
        live = set(self._facts.speed.hours(model_id))
        known = {
            int(row[0])
            for row in self._facts.catalog.db.execute(
                "SELECT DISTINCT hour FROM partials WHERE model_id = ? AND hour >= ? AND hour < ?",
                (model_id, first, last),
            )
        }
        for hour, rows in self._facts.catalog.db.execute(
            "SELECT hour, sum(rows) FROM file_hours "
            "WHERE model_id = ? AND kind = 'predictions' AND hour >= ? AND hour < ? GROUP BY hour",
            (model_id, first, last),
        ):
            if hour not in live and hour not in known:
                served[hour] = _Hour("pending", EMPTY, pending=int(rows) if any_version else 0)

    def _orphans(self, model_id: str, label_type: str, first: int, last: int) -> dict[int, int]:
        """Orphans by the hour in their ids; those without an hour are counted nowhere but in `stats`."""
        orphans = {
            int(hour): int(count)
            for hour, count in self._facts.catalog.db.execute(
                "SELECT hour, orphans FROM orphan_hours "
                "WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?",
                (model_id, label_type, first, last),
            )
        }
        return orphans | self._facts.speed.orphans(model_id, label_type, first, last)

    def _coverage_row(
        self,
        model_id: str,
        spec: LabelSpec,
        first: int,
        last: int,
        hours: dict[int, _Hour],
        orphans: dict[int, int],
        mature_before: int,
    ) -> CoverageRow:
        inside = {hour: served for hour, served in hours.items() if first <= hour < last}
        mature = merge(served.partial for hour, served in inside.items() if hour < mature_before)
        early = merge(served.partial for hour, served in inside.items() if hour >= mature_before)
        unseen_late = sum(self._facts.late_rows(model_id, spec.label_type, hour) for hour in range(first, last))
        pending = sum(served.pending for served in inside.values())
        return CoverageRow(
            start=_instant(first),
            end=_instant(last),
            predicted=mature.of("predicted") + early.of("predicted") + pending,
            mature=mature.of("predicted"),
            joined=mature.of("joined"),
            absent=mature.of("absent"),
            joined_early=early.of("joined"),
            late=mature.of("late") + early.of("late") + unseen_late,
            outside=mature.of("outside") + early.of("outside"),
            orphans=sum(count for hour, count in orphans.items() if first <= hour < last),
            pending=pending,
            layer=_layer(inside.values()),
        )


def mature_before_hour(spec: LabelSpec, now: datetime) -> int:
    """Hours before this one are mature: their last prediction's window has ended."""
    return (_microseconds(now) - spec.window_us) // MICROSECONDS_PER_HOUR


def _evidence_of(bins: FeatureBins, counts: Int64s) -> FeatureEvidence:
    return FeatureEvidence(
        name=bins.name,
        kind=bins.kind,
        cells=bins.bins.labels,
        reference=bins.reference,
        current=counts[bins.start : bins.start + len(bins.reference)],
    )


def _performance_row(spec: LabelSpec, first: int, last: int, hours: dict[int, _Hour]) -> PerformanceRow:
    inside = [served for hour, served in hours.items() if first <= hour < last]
    partial = merge(served.partial for served in inside)
    return PerformanceRow(
        start=_instant(first),
        end=_instant(last),
        metrics=metrics_of(partial, spec.task),
        partial=partial,
        layer=_layer(inside),
    )


def _layer(hours: Iterable[_Hour]) -> ServedBy:
    """The layer that is furthest from final."""
    layers: Sequence[ServedBy] = [served.layer for served in hours]
    if not layers or "speed" in layers:
        return "speed"
    return "pending" if "pending" in layers else "batch"


def _spans(first: int, last: int, step: int) -> list[tuple[int, int]]:
    """[first, last) cut at multiples of `step` hours."""
    cuts = [first, *range((first // step + 1) * step, last, step), last]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


def _hours(start: datetime, end: datetime) -> tuple[int, int]:
    """Hours that begin in [start, end), the first one whole."""
    first = hour_of(_microseconds(start))
    return first, max(first, -(-_microseconds(end) // MICROSECONDS_PER_HOUR))


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _instant(hour: int) -> datetime:
    return _EPOCH + timedelta(hours=hour)
