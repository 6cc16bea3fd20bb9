"""Answers from partials and histograms: coverage, performance, evidence, recorded hours."""

from collections.abc import Sequence
from datetime import datetime

from control_plane.adapters.parquet.coverage import CoverageReader
from control_plane.adapters.parquet.evidence import EvidenceReader
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.performance import PerformanceReader
from control_plane.adapters.parquet.recorded import recorded_hours
from control_plane.adapters.parquet.serving import (
    mature_before_hour,
    whole_hours,
)
from control_plane.app.fact_reports import (
    CoverageReport,
    CoverageRow,
    FactEvidence,
    Grain,
    PerformanceReport,
    RecordedHours,
)
from control_plane.core.ground_truth.missing import MissingFacts
from control_plane.core.ground_truth.partials import Partial


class Reader:
    """Reads under the facts' lock, for milliseconds."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._evidence = EvidenceReader(facts)
        self._performance = PerformanceReader(facts)
        self._coverage = CoverageReader(facts)

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
        slice_name: str = "",
    ) -> CoverageReport:
        """Coverage of predictions made in [start, end); see `FactStore.coverage`."""
        return self._coverage.coverage(
            model_id, version, start, end, now, label_type=label_type, grain=grain, slice_name=slice_name
        )

    def fleet_coverage(
        self, model_ids: Sequence[str], start: datetime, end: datetime, now: datetime
    ) -> dict[str, CoverageRow]:
        """Coverage of many models; see `FactStore.fleet_coverage`."""
        return self._coverage.fleet(start, end, now, model_ids)

    def missing_facts(
        self,
        model_id: str,
        version: int | None,
        start: datetime,
        end: datetime,
        now: datetime,
        *,
        label_type: str = "",
        with_ids: bool = True,
    ) -> tuple[MissingFacts, Partial]:
        """Why truth is missing; see `FactStore.missing_facts`."""
        return self._coverage.missing_facts(
            model_id, version, start, end, now, label_type=label_type, with_ids=with_ids
        )

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
