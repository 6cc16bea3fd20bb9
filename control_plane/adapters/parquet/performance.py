"""How good a model is on the truth that is here: by time, version or slice; final or provisional; now or as known then.

Final rows rest on mature hours alone. A provisional report takes in young hours too, and weights what has arrived of
them by the arrival curve that mature predictions teach (`core.ground_truth.arrival`). What had been known at an earlier
time is read from the beliefs of that time, with the maturity, the curve and the ages as they were then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from control_plane.adapters.parquet.beliefs import last_pass
from control_plane.adapters.parquet.binning import HOURS_PER_DAY
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.parts import Part, Parts, believed_parts, served_parts, slice_parts
from control_plane.adapters.parquet.serving import (
    EPOCH,
    instant_of,
    microseconds,
    whole_hours,
)
from control_plane.app.fact_reports import Grain, PerformanceReport, PerformanceRow, ServedBy
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.ground_truth.arrival import (
    ARRIVED_MIN,
    ArrivalCurves,
    Arrived,
    arrived_by_hour,
    expected,
    learned,
)
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import Labelled, added, labelled_of, metrics_from
from control_plane.core.ground_truth.partials import Partial, merge
from control_plane.core.timewindow import spelled

LEARN_DAYS = 28
"""Mature days that an arrival curve is learned from: recent enough to follow the world."""

SLICES_NAMED_MAX = 20
"""Slices named to whoever asks for one that is not there."""

_Key = tuple[int, int, int, str]
"""(first hour, last hour, version, slice) of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is asked, in hours and microseconds."""

    model_id: str
    spec: LabelSpec
    first: int
    last: int
    version: int | None
    slice_name: str
    grain: Grain
    as_of_us: int
    """Now, or the time whose knowledge is asked for."""
    known: bool
    provisional: bool

    @property
    def mature_before(self) -> int:
        return (self.as_of_us - self.spec.window_us) // MICROSECONDS_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    """What rows and totals are made of."""

    partial: Partial
    labelled: Labelled
    layers: frozenset[ServedBy]
    predicted: float
    kept: float
    """Predictions that were really counted."""
    arrived: float
    """Predictions weighted by the share of their outcomes that is here."""
    young: bool
    live: bool
    computed_us: int
    left_out: frozenset[int] = frozenset()
    """Hours too young to say anything."""


class PerformanceReader:
    """Answers `FactStore.performance`."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._curves: dict[tuple[str, LabelSpec], tuple[int, ArrivalCurves | None]] = {}
        """By model and label: learned up to which day, and what."""

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
        """See `FactStore.performance`."""
        with self._facts.lock:
            spec = self._label(model_id, label_type)
            self._check_slice(model_id, slice_name)
            first, last = whole_hours(start, end)
            asked = _Question(
                model_id=model_id,
                spec=spec,
                first=first,
                last=last,
                version=version,
                slice_name=slice_name,
                grain=grain,
                as_of_us=microseconds(now if known_at is None else known_at),
                known=known_at is not None,
                provisional=provisional,
            )
            _check(asked, now)
            found = self._parts(asked)
            whole = self._parts(replace(asked, grain="day")) if asked.grain == "slice" else None
            curves = self._curves_of(asked)
            pass_us = last_pass(self._facts.catalog.db, asked.as_of_us)
            degraded = self._speed_samples(asked, found)
        return _report(asked, found, whole, curves, pass_us, degraded)

    def _label(self, model_id: str, label_type: str) -> LabelSpec:
        known = {spec.label_type: spec for spec in self._facts.labels_of(model_id)}
        if label_type and label_type not in known:
            message = f"{model_id} has no label type {label_type!r}: it has {', '.join(known)}"
            raise _invalid("label_type", "unknown", message)
        return known[label_type] if label_type else next(iter(known.values()))

    def _check_slice(self, model_id: str, slice_name: str) -> None:
        known = sorted(self._facts.slices.get(model_id, ()))
        if not slice_name or slice_name in known or slice_name.endswith("=other"):
            return
        few = ", ".join(known[:SLICES_NAMED_MAX]) + (" ..." if len(known) > SLICES_NAMED_MAX else "")
        has = f"it has {few}" if known else "its predictions carry no slices"
        raise _invalid("slice", "unknown", f"{model_id} has no slice {slice_name!r}: {has}")

    def _parts(self, asked: _Question) -> Parts:
        last = asked.last if asked.provisional else min(asked.last, asked.mature_before)
        span = (self._facts, asked.model_id, asked.spec, asked.first, max(asked.first, last))
        if asked.known:
            return believed_parts(*span, asked.as_of_us, version=asked.version)
        if asked.slice_name or asked.grain == "slice":
            return slice_parts(*span, asked.mature_before, version=asked.version, slice_name=asked.slice_name)
        return served_parts(*span, asked.mature_before, version=asked.version, by_day=asked.grain != "hour")

    def _curves_of(self, asked: _Question) -> ArrivalCurves | None:
        """Learned over all versions, once a day."""
        last_day = asked.mature_before // HOURS_PER_DAY
        if asked.known:
            return self._learned(asked, last_day)
        key = (asked.model_id, asked.spec)
        learned_day, curves = self._curves.get(key, (0, None))
        if curves is None or learned_day != last_day:
            curves = self._learned(asked, last_day)
            self._curves[key] = (last_day, curves)
        return curves

    def _learned(self, asked: _Question, last_day: int) -> ArrivalCurves | None:
        first, last = (last_day - LEARN_DAYS) * HOURS_PER_DAY, asked.mature_before
        facts, model_id, spec = self._facts, asked.model_id, asked.spec
        if asked.known:
            parts = believed_parts(facts, model_id, spec, first, last, asked.as_of_us).parts
        else:
            parts = served_parts(facts, model_id, spec, first, last, asked.mature_before).parts
        by_day: dict[int, list[Partial]] = {}
        for part in parts:
            by_day.setdefault(part.hour // HOURS_PER_DAY, []).append(part.partial)
        return learned([merge(of_day) for _, of_day in sorted(by_day.items())], spec)

    def _speed_samples(self, asked: _Question, found: Parts) -> list[str]:
        """Hours of which memory holds less than was stored."""
        stored = self._facts.rates.get(asked.model_id, {})
        fewer = [part.kept for part in found.parts if part.live and part.kept < stored.get(part.hour, 1.0)]
        if not fewer:
            return []
        return [
            f"memory is short: the speed view holds {min(fewer):.1%} of the ids of recent hours, and their numbers are "
            "estimates until the batch join replaces them"
        ]


def _check(asked: _Question, now: datetime) -> None:
    if not asked.known:
        return
    if asked.as_of_us > microseconds(now):
        raise _invalid("known_at", "order", "is in the future: nobody knows that yet")
    if asked.slice_name or asked.grain == "slice":
        raise _invalid(
            "known_at",
            "not_kept",
            "slices are kept as they are now, not as they were known: leave out the slice, or known_at",
        )


def _invalid(field: str, rule: str, message: str) -> Invalid:
    return Invalid(Reason.INVALID_ARGUMENT, Violation(field=field, rule=rule, message=message))


def _report(
    asked: _Question,
    found: Parts,
    whole: Parts | None,
    curves: ArrivalCurves | None,
    pass_us: int,
    degraded: list[str],
) -> PerformanceReport:
    every = found.parts if whole is None else whole.parts
    ages = _Ages(asked, curves, pass_us, [*found.parts, *every])
    rows: dict[_Key, list[Part]] = {}
    for part in found.parts:
        rows.setdefault(_key(asked, part), []).append(part)
    pending: dict[_Key, int] = {}
    if asked.grain in ("hour", "day"):
        for hour, predictions in found.pending.items():
            key = _key_of(asked, hour, 0, "")
            pending[key] = pending.get(key, 0) + predictions
    sums = {key: _sum(asked, ages, rows.get(key, ())) for key in sorted(rows.keys() | pending.keys())}
    # A prediction is in one slice of each name: the total is that of all data, not the sum of slices.
    total = _merged(asked, list(sums.values())) if whole is None else _sum(asked, ages, whole.parts)
    waiting = sum(found.pending.values())
    if waiting:
        what = " in slices" if asked.slice_name or asked.grain == "slice" else ""
        degraded.append(
            f"{waiting:,} predictions of {len(found.pending):,} hours wait for the batch join and are not counted{what}"
        )
    young = any(one.young for one in sums.values())
    if young and curves is None:
        degraded.append(
            f"too few predictions are older than {spelled(asked.spec.window)} to know how fast outcomes arrive: "
            "provisional numbers are of what has arrived, and not corrected"
        )
    left_out = len({hour for one in sums.values() for hour in one.left_out})
    if left_out:
        degraded.append(
            f"{left_out:,} hours are too young to say anything: less than {100 * ARRIVED_MIN:.0f} % of their outcomes "
            "has arrived, and they are left out of the metrics"
        )
    mature = [part for part in every if part.hour < asked.mature_before]
    delays = merge(part.partial for part in mature or every)
    return PerformanceReport(
        label=asked.spec,
        total=_row(asked, (asked.first, asked.last, 0, ""), total, waiting),
        rows=tuple(_row(asked, key, one, pending.get(key, 0)) for key, one in sums.items()),
        delays=delays.delays(),
        arrival_curve=None if curves is None else curves.all.reached,
        degraded=tuple(degraded),
    )


class _Ages:
    """How much of each young hour has arrived."""

    def __init__(self, asked: _Question, curves: ArrivalCurves | None, pass_us: int, parts: Sequence[Part]) -> None:
        self._known: dict[tuple[int, bool], Arrived] = {}
        young = sorted({(part.hour, part.live) for part in parts if part.hour >= asked.mature_before})
        if curves is None or not young:
            return
        # What is stored holds all that had arrived by the last pass; what is live, all until now.
        stored_us = pass_us or asked.as_of_us
        starts = np.array([hour for hour, _ in young]) * (MICROSECONDS_PER_HOUR / 1e6)
        as_of = np.array([asked.as_of_us if live else stored_us for _, live in young]) / 1e6
        self._known = dict(zip(young, arrived_by_hour(curves, asked.spec, starts, as_of), strict=True))

    def of(self, part: Part) -> Arrived | None:
        """None if nothing is known about arrival."""
        return self._known.get((part.hour, part.live))


def _key(asked: _Question, part: Part) -> _Key:
    return _key_of(asked, part.hour, part.version, part.slice_name)


def _key_of(asked: _Question, hour: int, version: int, slice_name: str) -> _Key:
    if asked.grain == "version":
        return asked.first, asked.last, version, ""
    if asked.grain == "slice":
        return asked.first, asked.last, 0, slice_name
    step = 1 if asked.grain == "hour" else HOURS_PER_DAY
    start = hour // step * step
    return max(start, asked.first), min(start + step, asked.last), 0, ""


def _sum(asked: _Question, ages: _Ages, parts: Sequence[Part]) -> _Sum:
    """Mature parts as they are; young ones by hour, as they will be."""
    mature = [part for part in parts if part.hour < asked.mature_before]
    young: dict[int, list[Part]] = {}
    for part in parts:
        if part.hour >= asked.mature_before:
            young.setdefault(part.hour, []).append(part)
    labelled = [labelled_of([(part.partial, 1.0) for part in mature], asked.spec.task)]
    arrived = float(sum(part.partial.of("predicted") for part in mature))
    left_out: set[int] = set()
    for hour, of_hour in young.items():
        now = merge(part.partial for part in of_hour)
        here = ages.of(of_hour[0])
        if here is None:
            labelled.append(labelled_of([(now, 1.0)], asked.spec.task))
            arrived += now.labelled
            continue
        arrived += now.of("predicted") * float(here.share[0])
        if here.enough:
            labelled.append(expected(now, 1.0, asked.spec, here))
        else:
            left_out.add(hour)
    predicted = [part.partial.of("predicted") for part in parts]
    return _Sum(
        partial=merge(part.partial for part in parts),
        labelled=added(labelled),
        layers=frozenset(part.layer for part in parts),
        predicted=float(sum(predicted)),
        kept=float(sum(n * part.kept for n, part in zip(predicted, parts, strict=True))),
        arrived=arrived,
        young=bool(young),
        live=any(part.live for part in parts),
        computed_us=max((part.computed_us for part in parts), default=0),
        left_out=frozenset(left_out),
    )


def _merged(asked: _Question, sums: Sequence[_Sum]) -> _Sum:
    if not sums:
        return _sum(asked, _Ages(asked, None, 0, ()), ())
    return _Sum(
        partial=merge(one.partial for one in sums),
        labelled=added([one.labelled for one in sums]),
        layers=frozenset(layer for one in sums for layer in one.layers),
        predicted=sum(one.predicted for one in sums),
        kept=sum(one.kept for one in sums),
        arrived=sum(one.arrived for one in sums),
        young=any(one.young for one in sums),
        live=any(one.live for one in sums),
        computed_us=max(one.computed_us for one in sums),
        left_out=frozenset(hour for one in sums for hour in one.left_out),
    )


def _row(asked: _Question, key: _Key, one: _Sum, pending: int) -> PerformanceRow:
    first, last, version, slice_name = key
    known = one.predicted > 0
    return PerformanceRow(
        start=instant_of(first),
        end=instant_of(last),
        metrics=metrics_from(one.labelled, asked.spec.task),
        partial=one.partial,
        layer=_layer(one.layers, pending),
        provisional=one.young,
        arrived=min(1.0, one.arrived / one.predicted) if known else 1.0,
        sample_rate=min(1.0, one.kept / one.predicted) if known else 1.0,
        version=version or asked.version or 0,
        slice_name=slice_name or asked.slice_name,
        computed_at=None if one.live or not one.computed_us else EPOCH + timedelta(microseconds=one.computed_us),
    )


def _layer(layers: Iterable[ServedBy], pending: int) -> ServedBy:
    """The layer that is furthest from final."""
    found = set(layers)
    if pending and not found:
        return "pending"
    if "speed" in found or not found:
        return "speed"
    return "pending" if pending else "batch"
