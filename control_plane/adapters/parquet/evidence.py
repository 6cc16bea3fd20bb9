"""Everything that facts say about a version in a window, in one look of a few milliseconds.

What changes by the day (the usual range of the season, the calibration of scores, the correlation of a proxy) is worked
out once a day and model and kept here; all else is summed up anew.
"""

from datetime import datetime

from control_plane.adapters.parquet.binning import HOURS_PER_DAY
from control_plane.adapters.parquet.facts import Facts, proxy_label
from control_plane.adapters.parquet.histograms import Series
from control_plane.adapters.parquet.profile import FeatureBins, Int64s, Profile
from control_plane.adapters.parquet.scores import Calibrations, concept_facts
from control_plane.adapters.parquet.seasons import Seasons
from control_plane.adapters.parquet.serving import (
    ServedHour,
    coverage_row,
    instant_of,
    mature_before_hour,
    orphans_by_hour,
    performance_row,
    served_hours,
    whole_hours,
)
from control_plane.adapters.parquet.spans import ServedSpans
from control_plane.app.fact_reports import (
    WINDOWS_BEFORE_MAX,
    EstimateFacts,
    FactEvidence,
    FeatureEvidence,
    PerformanceRow,
    ProxyFacts,
    SliceFacts,
)
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, merge, unpack

PROXY_DAYS_MAX = 60
"""Days that a proxy is correlated over: enough for a correlation, few enough to follow a change."""


class EvidenceReader:
    """Reads evidence; whoever calls holds the facts' lock."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._spans = ServedSpans(facts)
        self._seasons = Seasons(facts)
        self._calibrations = Calibrations(facts)
        self._proxy_days: dict[str, tuple[tuple[LabelSpec, int], tuple[tuple[float, float], ...]]] = {}
        """Model id -> what for, and the days."""

    def evidence(
        self, model_id: str, version: int, window_start: datetime, window_end: datetime, now: datetime
    ) -> FactEvidence:
        """See `FactStore.evidence`."""
        facts = self._facts
        spec = facts.label(model_id, "")
        first, last = whole_hours(window_start, window_end)
        mature_before = mature_before_hour(spec, now)
        moved = max(0, last - mature_before)
        mature_first, mature_last = first - moved, last - moved
        hours = self._spans.between(model_id, version, spec, mature_first, mature_last, mature_before)
        orphans = orphans_by_hour(facts, model_id, spec.label_type, mature_first, mature_last)
        coverage = coverage_row(facts, model_id, spec, mature_first, mature_last, hours, orphans, mature_before)
        performance = performance_row(spec, mature_first, mature_last, hours)
        profile = facts.profile_of(model_id, version)
        window: dict[int, ServedHour] = {}
        if profile is None or spec.task == "binary":
            window = hours if not moved else self._spans.between(model_id, version, spec, first, last, mature_before)
        features: tuple[FeatureEvidence, ...] = ()
        prediction = None
        if profile is not None:
            series = Series(model_id, version, profile.digest)
            current = facts.histograms.between(series, profile, first, last)
            predictions = current.rows
            usual = self._seasons.usual(series, profile, first, last)
            features = tuple(
                evidence_of(bins, current.counts, psi_usual=usual.get(bins.name, 0.0)) for bins in profile.features
            )
            prediction = evidence_of(profile.prediction, current.counts) if profile.prediction else None
        else:
            predictions = sum(hour.partial.of("predicted") for hour in window.values())
        return FactEvidence(
            model_id=model_id,
            version=version,
            window_start=instant_of(first),
            window_end=instant_of(last),
            predictions=predictions,
            profile_sha256=profile.digest if profile else "",
            features=features,
            prediction=prediction,
            label=spec,
            performance=performance,
            coverage=coverage,
            volume=self._volume(model_id, first, last),
            slices=self._slices(model_id, version, profile, spec, (first, last), (mature_first, mature_last)),
            concept=concept_facts(spec, profile, performance.partial),
            estimate=self._estimate(model_id, version, profile, spec, window, mature_last),
            proxy=self._proxy(model_id, version, spec, first, last, now),
            labels_per_day=_labels_per_day(performance, hours, mature_first, mature_last),
        )

    def _volume(self, model_id: str, first: int, last: int) -> tuple[int, tuple[int, ...]]:
        """Predictions of the window, and of the windows before it."""
        length = last - first
        if length <= 0:
            return 0, ()
        facts = self._facts
        start = first - WINDOWS_BEFORE_MAX * length
        sums = [0] * (WINDOWS_BEFORE_MAX + 1)
        for window, predictions in facts.catalog.db.execute(
            "SELECT (? - 1 - hour) / ? AS back, sum(predictions) FROM volumes "
            "WHERE model_id = ? AND hour >= ? AND hour < ? GROUP BY back",
            (last, length, model_id, start, last),
        ):
            sums[window] += int(predictions)
        began = facts.catalog.db.execute("SELECT min(hour) FROM volumes WHERE model_id = ?", (model_id,)).fetchone()[0]
        earliest = [] if began is None else [int(began)]
        for by_model in facts.unsealed_volumes.values():
            for hour, rows in by_model.get(model_id, {}).items():
                earliest.append(hour)
                if start <= hour < last:
                    sums[(last - 1 - hour) // length] += rows
        # A window that began before the model did says nothing of what is usual.
        whole = sum(first - at * length >= min(earliest) for at in range(1, WINDOWS_BEFORE_MAX + 1)) if earliest else 0
        return sums[0], tuple(sums[1 : 1 + whole])

    def _slices(
        self,
        model_id: str,
        version: int,
        profile: Profile | None,
        spec: LabelSpec,
        window: tuple[int, int],
        mature: tuple[int, int],
    ) -> tuple[SliceFacts, ...]:
        if not self._facts.slices.get(model_id):
            return ()
        partials: dict[str, list[Partial]] = {}
        for name, packed in self._facts.catalog.db.execute(
            "SELECT slice, packed FROM slice_partials "
            "WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ? AND version = ?",
            (model_id, spec.label_type, *mature, version),
        ):
            partials.setdefault(name, []).append(unpack(packed))
        found: dict[str, SliceFacts] = {}
        for series in self._facts.histograms.series_of(model_id):
            if series.slice and profile is not None and (series.version, series.digest) == (version, profile.digest):
                counts = self._facts.histograms.between(series, profile, *window)
                reference = profile.slices.get(series.slice, {})
                found[series.slice] = SliceFacts(
                    name=series.slice,
                    predictions=counts.rows,
                    features=tuple(
                        evidence_of(bins, counts.counts, reference=reference.get(bins.name))
                        for bins in profile.features
                    ),
                    performance=None,
                )
        slices = []
        for name in sorted(found.keys() | partials.keys()):
            one = found.get(name) or SliceFacts(name=name, predictions=0, features=(), performance=None)
            row = _slice_performance(spec, mature, partials.get(name, []))
            if one.predictions or row is not None:
                slices.append(
                    SliceFacts(name=name, predictions=one.predictions, features=one.features, performance=row)
                )
        return tuple(slices)

    def _estimate(
        self,
        model_id: str,
        version: int,
        profile: Profile | None,
        spec: LabelSpec,
        window: dict[int, ServedHour],
        mature_last: int,
    ) -> EstimateFacts | None:
        if spec.task != "binary":
            return None
        total, positive = self._calibrations.known(model_id, version, profile, spec, mature_last)
        if not total.any():
            return None
        scores = merge(served.partial for served in window.values()).all_scores()
        return EstimateFacts(scores=scores, calibration_total=total, calibration_positive=positive)

    def _proxy(
        self, model_id: str, version: int, spec: LabelSpec, first: int, last: int, now: datetime
    ) -> ProxyFacts | None:
        proxy = proxy_label(spec)
        if proxy is None:
            return None
        mature_before = mature_before_hour(proxy, now)
        moved = max(0, last - mature_before)
        hours = self._spans.between(model_id, version, proxy, first - moved, last - moved, mature_before)
        return ProxyFacts(
            label=proxy,
            performance=performance_row(proxy, first - moved, last - moved, hours),
            days=self._days_of_both(model_id, spec, proxy, now),
        )

    def _days_of_both(
        self, model_id: str, spec: LabelSpec, proxy: LabelSpec, now: datetime
    ) -> tuple[tuple[float, float], ...]:
        """(on the proxy, on the label) by day, over all versions; worked out once a day."""
        last_day = mature_before_hour(spec, now) // HOURS_PER_DAY
        key = (spec, last_day)
        known = self._proxy_days.get(model_id)
        if known is not None and known[0] == key:
            return known[1]
        first, last = (last_day - PROXY_DAYS_MAX) * HOURS_PER_DAY, last_day * HOURS_PER_DAY
        by_label = [
            served_hours(self._facts, model_id, None, one, first, last, mature_before_hour(one, now))
            for one in (proxy, spec)
        ]
        days: list[tuple[float, float]] = []
        for day in range(first, last, HOURS_PER_DAY):
            metrics = [
                performance_row(one, day, day + HOURS_PER_DAY, hours).metric(spec.primary_metric)
                for one, hours in zip((proxy, spec), by_label, strict=True)
            ]
            if metrics[0] is not None and metrics[1] is not None:
                days.append((metrics[0].value, metrics[1].value))
        self._proxy_days[model_id] = (key, tuple(days))
        return tuple(days)


def evidence_of(
    bins: FeatureBins, counts: Int64s, *, reference: Int64s | None = None, psi_usual: float = 0.0
) -> FeatureEvidence:
    """One histogram beside its reference."""
    return FeatureEvidence(
        name=bins.name,
        kind=bins.kind,
        cells=bins.labels,
        reference=bins.reference if reference is None else reference,
        current=counts[bins.start : bins.end],
        importance=bins.importance,
        psi_usual=psi_usual,
        outside=int(counts[bins.outside_at]) if bins.outside_at >= 0 else 0,
    )


def _slice_performance(spec: LabelSpec, mature: tuple[int, int], partials: list[Partial]) -> PerformanceRow | None:
    if not partials:
        return None
    # From the batch join alone, as all partials of slices are.
    hours = {mature[0]: ServedHour("batch", merge(partials))}
    row = performance_row(spec, *mature, hours)
    return row if row.partial.labelled else None


def _labels_per_day(
    performance: PerformanceRow, hours: dict[int, ServedHour], mature_first: int, mature_last: int
) -> float:
    """Outcomes a day, since the first of these hours that has predictions."""
    span = mature_last - min((*hours, mature_last))
    span = min(span, mature_last - mature_first)
    return performance.partial.of("joined") * HOURS_PER_DAY / span if span > 0 else 0.0


__all__ = ["EvidenceReader", "evidence_of"]
