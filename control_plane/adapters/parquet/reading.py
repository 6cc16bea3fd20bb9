"""Answers from partials and histograms: coverage, performance, evidence, recorded hours."""

from datetime import datetime
from itertools import pairwise

from control_plane.adapters.parquet.evidence import EvidenceReader
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.performance import PerformanceReader
from control_plane.adapters.parquet.recorded import recorded_hours
from control_plane.adapters.parquet.serving import (
    coverage_row,
    mature_before_hour,
    orphans_by_hour,
    served_hours,
    whole_hours,
)
from control_plane.app.fact_store import CoverageReport, FactEvidence, Grain, PerformanceReport, RecordedHours

_HOURS_PER_GRAIN = {"hour": 1, "day": 24}


class Reader:
    """Reads under the facts' lock, for milliseconds."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._evidence = EvidenceReader(facts)
        self._performance = PerformanceReader(facts)

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
            first, last = whole_hours(start, end)
            mature_before = mature_before_hour(spec, now)
            hours = served_hours(self._facts, model_id, version, spec, first, last, mature_before)
            orphans = orphans_by_hour(self._facts, model_id, spec.label_type, first, last)
            rows = [
                coverage_row(self._facts, model_id, spec, a, b, hours, orphans, mature_before)
                for a, b in _spans(first, last, _HOURS_PER_GRAIN[grain])
                if any(a <= hour < b for hour in (*hours, *orphans))
            ]
            total = coverage_row(self._facts, model_id, spec, first, last, hours, orphans, mature_before)
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
        slice_name: str = "",
        known_at: datetime | None = None,
        provisional: bool = False,
    ) -> PerformanceReport:
        """How good a model is on the truth that is here; see `FactStore.performance`."""
        return self._performance.performance(
            model_id,
            version,
            start,
            end,
            now,
            label_type=label_type,
            grain=grain,
            slice_name=slice_name,
            known_at=known_at,
            provisional=provisional,
        )

    def evidence(
        self, model_id: str, version: int, window_start: datetime, window_end: datetime, now: datetime
    ) -> FactEvidence:
        """Everything about one version; see `FactStore.evidence`."""
        with self._facts.lock:
            return self._evidence.evidence(model_id, version, window_start, window_end, now)

    def recorded_hours(self, model_id: str, start: datetime, end: datetime) -> RecordedHours:
        """The recorded history of a model; see `FactStore.recorded_hours`."""
        first, last = whole_hours(start, end)
        with self._facts.lock:
            spec = self._facts.label(model_id, "")
            return recorded_hours(self._facts, model_id, first, last, mature_before_hour(spec, end))


def _spans(first: int, last: int, step: int) -> list[tuple[int, int]]:
    """[first, last) cut at multiples of `step` hours."""
    cuts = [first, *range((first // step + 1) * step, last, step), last]
    return [(a, b) for a, b in pairwise(cuts) if a < b]
