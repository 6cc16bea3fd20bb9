"""How much of the truth has arrived: by hour, day, version or slice, of the fleet, and facts about what is missing.

All of it comes from partials. A part of a stretch that waits for the batch join (every slice of a live hour does) is
pending, and neither mature nor missing.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np

from control_plane.adapters.parquet.binning import HOURS_PER_DAY
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.join_facts import ask_ids, look_at_ids
from control_plane.adapters.parquet.parts import Part, Parts, served_parts, slice_parts
from control_plane.adapters.parquet.serving import (
    instant_of,
    mature_before_hour,
    microseconds,
    orphans_by_hour,
    whole_hours,
)
from control_plane.adapters.parquet.sources import labels_with_outcomes, outcome_sources
from control_plane.app.fact_reports import CoverageReport, CoverageRow, Grain, ServedBy
from control_plane.core.ground_truth.coverage import PartCoverage
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, NO_HOUR
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.missing import MissingFacts
from control_plane.core.ground_truth.partials import Partial, count_at, merge

HISTORY_HOURS = 28 * HOURS_PER_DAY
"""Before the stretch in question: what is usual."""
_Key = tuple[int, int, int, str]
"""(first hour, last hour, version, slice) of a row."""
_PREDICTED, _JOINED, _ABSENT = count_at("predicted"), count_at("joined"), count_at("absent")
_HEAD = struct.Struct("<i")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    model_id: str
    spec: LabelSpec
    first: int
    last: int
    version: int | None
    slice_name: str
    grain: Grain
    mature_before: int


class CoverageReader:
    """Answers what is asked about coverage; takes the facts' lock by itself."""

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
        slice_name: str = "",
    ) -> CoverageReport:
        """See `FactStore.coverage`."""
        facts = self._facts
        with facts.lock:
            spec = facts.label(model_id, label_type)
            first, last = whole_hours(start, end)
            asked = _Question(
                model_id=model_id,
                spec=spec,
                first=first,
                last=last,
                version=version,
                slice_name=slice_name,
                grain=grain,
                mature_before=mature_before_hour(spec, now),
            )
            found = self._parts(asked)
            whole = self._parts(_by_day(asked)) if grain == "slice" else found
            orphans = orphans_by_hour(facts, model_id, spec.label_type, first, last)
            if asked.slice_name:
                orphans = {}  # nobody knows of which slice they are
            late = {hour: facts.late_rows(model_id, spec.label_type, hour) for hour in self._late_hours(asked)}
            degraded = self._degraded(asked, found)
        return _report(asked, found, whole, orphans, late, degraded)

    def _parts(self, asked: _Question) -> Parts:
        span = (self._facts, asked.model_id, asked.spec, asked.first, asked.last, asked.mature_before)
        if asked.slice_name or asked.grain == "slice":
            return slice_parts(*span, version=asked.version, slice_name=asked.slice_name)
        return served_parts(*span, version=asked.version, by_day=asked.grain != "hour")

    def _late_hours(self, asked: _Question) -> list[int]:
        """Hours with late outcomes that no batch join has seen."""
        return [
            hour
            for model_id, label_type, hour in self._facts.late
            if (model_id, label_type) == (asked.model_id, asked.spec.label_type) and asked.first <= hour < asked.last
        ]

    def _degraded(self, asked: _Question, found: Parts) -> tuple[str, ...]:
        stored = self._facts.rates.get(asked.model_id, {})
        fewer = [part.kept for part in found.parts if part.live and part.kept < stored.get(part.hour, 1.0)]
        notes = []
        if fewer:
            notes.append(
                f"memory is short: the speed view holds {min(fewer):.1%} of the ids of recent hours, and their numbers "
                "are estimates until the batch join replaces them"
            )
        if found.pending:
            what = "of slices " if asked.slice_name or asked.grain == "slice" else ""
            notes.append(
                f"{sum(found.pending.values()):,} predictions {what}wait for the batch join and are neither counted as "
                "mature nor as missing"
            )
        return tuple(notes)

    def fleet(self, start: datetime, end: datetime, now: datetime, model_ids: Iterable[str]) -> dict[str, CoverageRow]:
        """Coverage of the mature predictions of [start, end) of many models by their first label; see `FactStore`."""
        first, last = whole_hours(start, end)
        found = {}
        for model_id in model_ids:
            with self._facts.lock:
                spec = self._facts.label(model_id, "")
                mature = mature_before_hour(spec, now)
                moved = max(0, last - mature)  # the same length of time, where labels are complete
                found[model_id] = self._quick(model_id, spec, first - moved, last - moved, mature)
        return found

    def _quick(self, model_id: str, spec: LabelSpec, first: int, last: int, mature: int) -> CoverageRow:
        """As `coverage`, of mature hours and without a merge of the rest of the partials."""
        facts = self._facts
        live = [hour for hour in facts.speed.hours(model_id) if first <= hour < last]
        sums = [0, 0, 0]
        kept = 0.0
        layers: dict[int, tuple[str, list[bytes]]] = {}
        days = {hour // HOURS_PER_DAY for hour in live}
        for day, layer, packed in facts.catalog.db.execute(
            "SELECT day, layer, packed FROM day_partials "
            "WHERE model_id = ? AND label_type = ? AND day >= ? AND day < ?",
            (model_id, spec.label_type, -(-first // HOURS_PER_DAY), last // HOURS_PER_DAY),
        ):
            if day not in days:
                layers.setdefault(day * HOURS_PER_DAY, (layer, []))[1].append(packed)
        merged = {hour // HOURS_PER_DAY for hour in layers}
        for start, end in _between(first, last, sorted(merged)):
            for hour, layer, packed in facts.catalog.db.execute(
                "SELECT hour, layer, packed FROM partials "
                "WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?",
                (model_id, spec.label_type, start, end),
            ):
                known = layers.get(hour)
                if hour in live:
                    continue
                if known is None or (known[0] == "speed" and layer == "batch"):
                    layers[hour] = (layer, [packed])
                elif known[0] == layer:
                    known[1].append(packed)
        for _, packs in layers.values():
            for packed in packs:
                counts, design = _counts_of(packed)
                sums = [have + more for have, more in zip(sums, counts, strict=True)]
                kept += counts[0] / design
        for hour in live:
            rate = facts.speed.rate(model_id, hour)
            for partial in (facts.speed.partials(model_id, spec, hour, mature) or {}).values():
                counts = (partial.of("predicted"), partial.of("joined"), partial.of("absent"))
                sums = [have + round(more / rate) for have, more in zip(sums, counts, strict=True)]
                kept += counts[0]
        served: ServedBy = "speed" if live or any(one == "speed" for one, _ in layers.values()) else "batch"
        return CoverageRow(
            start=instant_of(first),
            end=instant_of(last),
            predicted=sums[0],
            mature=sums[0],
            joined=sums[1],
            absent=sums[2],
            joined_early=0,
            late=0,
            outside=0,
            orphans=0,
            pending=0,
            layer=served,
            sample_rate=min(1.0, kept / sums[0]) if sums[0] else 1.0,
        )

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
        """See `FactStore.missing_facts`."""
        facts = self._facts
        with facts.lock:
            spec = facts.label(model_id, label_type)
            first, last = whole_hours(start, end)
            mature_before = mature_before_hour(spec, now)
            until = -(-microseconds(now) // MICROSECONDS_PER_HOUR)
            begin = first - HISTORY_HOURS
            parts = [
                part
                for part in served_parts(
                    facts, model_id, spec, begin, min(last, mature_before), mature_before, version=version, by_day=False
                ).parts
                if part.hour < mature_before
            ]
            hours = np.array(sorted({part.hour for part in parts}), np.int64)
            place = {int(hour): at for at, hour in enumerate(hours)}
            columns = np.zeros((3, len(hours)), np.int64)
            for part in parts:
                counts = (part.partial.of("predicted"), part.partial.labelled, part.partial.of("outside"))
                columns[:, place[part.hour]] += counts
            ends = max(until, last)
            orphans = orphans_by_hour(facts, model_id, spec.label_type, first, min(last, mature_before))
            timeless = _timeless(facts, model_id, spec.label_type)
            labels = labels_with_outcomes(facts, model_id)
            asked_parts = [part for part in parts if first <= part.hour < last]
            sources = outcome_sources(facts, model_id, spec.label_type, begin, ends)
            slices = self._slices(model_id, spec, first, min(last, mature_before), mature_before, version)
            question = (
                ask_ids(facts, model_id, spec.label_type, sorted({part.hour for part in asked_parts}))
                if with_ids and asked_parts
                else None
            )
        merged = merge(part.partial for part in asked_parts)
        delays = merge(part.partial for part in parts).delays()
        found = MissingFacts(
            label=spec,
            first=first,
            last=last,
            until=until,
            hours=hours,
            mature=columns[0],
            known=columns[1],
            outside=columns[2],
            orphans=sum(orphans.values()),
            orphans_timeless=timeless,
            delays=delays,
            outcomes_ever=labels.get(spec.label_type, 0),
            other_labels=tuple(sorted(labels)),
            sources=sources,
            slices=slices,
            versions=_versions(asked_parts) if version is None else (),
            ids=look_at_ids(question) if question is not None else None,
        )
        return found, merged

    def _slices(
        self, model_id: str, spec: LabelSpec, first: int, last: int, mature_before: int, version: int | None
    ) -> tuple[PartCoverage, ...]:
        """Coverage of each slice, from the head of its partials alone."""
        sums: dict[str, list[int]] = {}
        wanted = "" if version is None else f" AND version = {int(version)}"
        for name, packed in self._facts.catalog.db.execute(
            "SELECT slice, packed FROM slice_partials "  # noqa: S608 - an int is all that is put in
            f"WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?{wanted}",
            (model_id, spec.label_type, first, min(last, mature_before)),
        ):
            (predicted, joined, absent), _ = _counts_of(packed)
            of = sums.setdefault(name, [0, 0])
            of[0] += predicted
            of[1] += joined + absent
        return tuple(
            PartCoverage(name=name, mature=both[0], known=both[1], slice_name=name)
            for name, both in sorted(sums.items())
        )


def _counts_of(packed: bytes) -> tuple[tuple[int, int, int], float]:
    """Predicted, joined and absent of a packed partial, and its design effect: its head and its tail alone."""
    size = _HEAD.unpack_from(packed)[0]
    few = min(size, 3)
    cells = struct.unpack_from(f"<{few}i", packed, 4)
    counts = struct.unpack_from(f"<{few}q", packed, 4 + 4 * size)
    by_cell = dict(zip(cells, counts, strict=True))
    floats = (len(packed) - 4 - 12 * size) // 8
    design = 1.0 if floats <= 10 else struct.unpack_from("<d", packed, len(packed) - 8)[0]
    return (by_cell.get(_PREDICTED, 0), by_cell.get(_JOINED, 0), by_cell.get(_ABSENT, 0)), design


def _timeless(facts: Facts, model_id: str, label_type: str) -> int:
    """Orphans whose ids carry no time. Memory lets go of old ones, which the batch join has all of."""
    row = facts.catalog.db.execute(
        "SELECT coalesce(sum(orphans), 0) FROM orphan_hours WHERE model_id = ? AND label_type = ? AND hour = ?",
        (model_id, label_type, NO_HOUR),
    ).fetchone()
    live = facts.speed.orphans(model_id, label_type, NO_HOUR, NO_HOUR + 1)
    return max(int(row[0]), sum(live.values()))


def _versions(parts: Iterable[Part]) -> tuple[PartCoverage, ...]:
    sums: dict[int, list[int]] = {}
    for part in parts:
        of = sums.setdefault(part.version, [0, 0])
        of[0] += part.partial.of("predicted")
        of[1] += part.partial.labelled
    return tuple(
        PartCoverage(name=f"version {number}", mature=both[0], known=both[1], version=number)
        for number, both in sorted(sums.items())
    )


def _by_day(asked: _Question) -> _Question:
    return _Question(
        model_id=asked.model_id,
        spec=asked.spec,
        first=asked.first,
        last=asked.last,
        version=asked.version,
        slice_name="",
        grain="day",
        mature_before=asked.mature_before,
    )


def _report(
    asked: _Question,
    found: Parts,
    whole: Parts,
    orphans: dict[int, int],
    late: dict[int, int],
    degraded: tuple[str, ...],
) -> CoverageReport:
    by_time = asked.grain in ("hour", "day")
    of_all = not asked.slice_name and asked.version is None
    rows: dict[_Key, list[Part]] = {}
    pending: dict[_Key, int] = {}
    strays: dict[_Key, int] = {}
    unseen: dict[_Key, int] = {}
    for part in found.parts:
        rows.setdefault(_key(asked, part.hour, part.version, part.slice_name), []).append(part)
    if by_time:
        for counts, into in ((found.pending, pending), (orphans, strays), (late, unseen)):
            for hour, count in counts.items():
                key = _key(asked, hour, 0, "")
                into[key] = into.get(key, 0) + count
    keys = sorted(rows.keys() | pending.keys() | (strays.keys() if of_all else set()))
    listed = tuple(
        _row(asked, key, rows.get(key, ()), pending.get(key, 0), strays.get(key, 0), unseen.get(key, 0)) for key in keys
    )
    total = _row(
        asked,
        (asked.first, asked.last, 0, ""),
        whole.parts,
        sum(whole.pending.values()),
        sum(orphans.values()),
        sum(late.values()),
    )
    return CoverageReport(label=asked.spec, total=total, rows=listed, degraded=degraded)


def _key(asked: _Question, hour: int, version: int, slice_name: str) -> _Key:
    if asked.grain == "version":
        return asked.first, asked.last, version, ""
    if asked.grain == "slice":
        return asked.first, asked.last, 0, slice_name
    step = 1 if asked.grain == "hour" else HOURS_PER_DAY
    start = hour // step * step
    return max(start, asked.first), min(start + step, asked.last), 0, ""


def _row(
    asked: _Question, key: _Key, parts: Iterable[Part], pending: int, orphans: int, unseen_late: int
) -> CoverageRow:
    first, last, version, slice_name = key
    every = list(parts)
    mature = merge(part.partial for part in every if part.hour < asked.mature_before)
    early = merge(part.partial for part in every if part.hour >= asked.mature_before)
    predicted = sum(part.partial.of("predicted") for part in every)
    kept = sum(part.partial.of("predicted") * part.kept for part in every)
    return CoverageRow(
        start=instant_of(first),
        end=instant_of(last),
        predicted=mature.of("predicted") + early.of("predicted") + pending,
        mature=mature.of("predicted"),
        joined=mature.of("joined"),
        absent=mature.of("absent"),
        joined_early=early.of("joined"),
        late=mature.of("late") + early.of("late") + unseen_late,
        outside=mature.of("outside") + early.of("outside"),
        orphans=orphans,
        pending=pending,
        layer=_layer(every, pending),
        imputed=mature.of("imputed"),
        sample_rate=min(1.0, kept / predicted) if predicted else 1.0,
        version=version or asked.version or 0,
        slice_name=slice_name or asked.slice_name,
    )


def _layer(parts: list[Part], pending: int) -> ServedBy:
    """The layer that is furthest from final."""
    layers = {part.layer for part in parts}
    if pending and not layers:
        return "pending"
    if "speed" in layers or not layers:
        return "speed"
    return "pending" if pending else "batch"


def _between(first: int, last: int, days: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of hours of [first, last) outside of whole days, ascending."""
    cuts = [(first, first), *((day * HOURS_PER_DAY, (day + 1) * HOURS_PER_DAY) for day in days), (last, last)]
    return [(end, start) for (_, end), (start, _) in pairwise(cuts) if end < start]
