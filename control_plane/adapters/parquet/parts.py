"""The partials that answer for a stretch of time, one by one: by hour (or whole day), version or slice.

Where `served_hours` merges the versions of an hour at once, a report by version, or one that weights young hours, needs
them apart. Which layer answers is the same: live hours from the speed view, then the batch join, then what the speed
view left behind. Mature days that were merged come as one part for each version.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from control_plane.adapters.parquet.beliefs import believed, computed_times
from control_plane.adapters.parquet.binning import HOURS_PER_DAY
from control_plane.adapters.parquet.facts import Facts
from control_plane.app.fact_reports import ServedBy
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, merge_weighted, unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One partial, scaled to all ids."""

    hour: int
    """The first it holds."""
    version: int
    layer: ServedBy
    partial: Partial
    kept: float
    """Share of ids it was counted from."""
    computed_us: int = 0
    """0 if it is computed as it is read, or not known when."""
    live: bool = False
    slice_name: str = ""


@dataclass(slots=True)
class Parts:
    """Parts of a stretch of time, and what there is no part for."""

    parts: list[Part] = field(default_factory=list)
    pending: dict[int, int] = field(default_factory=dict)
    """Hour -> predictions that wait for a join."""


def served_parts(
    facts: Facts,
    model_id: str,
    spec: LabelSpec,
    first: int,
    last: int,
    mature_before: int,
    *,
    version: int | None = None,
    by_day: bool = True,
) -> Parts:
    """Parts of hours first <= hour < last as they are served now; hold the facts' lock."""
    found = Parts()
    live = [hour for hour in facts.speed.hours(model_id) if first <= hour < last]
    known: set[int] = set(live)
    merged: list[int] = []
    if by_day:
        merged = _days(facts, model_id, spec, first, last, mature_before, version, known, found)
    for start, end in _between(first, last, merged):
        _hours(facts, model_id, spec, start, end, version, known, found)
    for hour in live:
        rate = facts.speed.rate(model_id, hour)
        for number, partial in (facts.speed.partials(model_id, spec, hour, mature_before) or {}).items():
            if version in (None, number):
                scaled = merge_weighted([(partial, 1 / rate)])
                found.parts.append(Part(hour=hour, version=number, layer="speed", partial=scaled, kept=rate, live=True))
    # Also rows of hours that the speed view had let go of when they came: in no file yet, and not unseen.
    for hour, rows in sorted(facts.prediction_rows(model_id, first, last).items()):
        if hour not in known:
            found.pending[hour] = rows
    return found


def _days(
    facts: Facts,
    model_id: str,
    spec: LabelSpec,
    first: int,
    last: int,
    mature_before: int,
    version: int | None,
    known: set[int],
    found: Parts,
) -> list[int]:
    """Merged days that are wholly inside, mature and not live: their numbers, ascending."""
    start, end = -(-first // HOURS_PER_DAY), min(last, mature_before) // HOURS_PER_DAY
    live = {hour // HOURS_PER_DAY for hour in known}
    days = set()
    for day, number, layer, hours, kept, computed_us, packed in facts.catalog.db.execute(
        "SELECT day, version, layer, hours, kept, computed_us, packed FROM day_partials "
        "WHERE model_id = ? AND label_type = ? AND day >= ? AND day < ?",
        (model_id, spec.label_type, start, end),
    ):
        if day in live:
            continue
        if day not in days:
            days.add(int(day))
            known.update(day * HOURS_PER_DAY + at for at in range(HOURS_PER_DAY) if hours >> at & 1)
        if version in (None, number):
            found.parts.append(
                Part(
                    hour=day * HOURS_PER_DAY,
                    version=number,
                    layer=layer,
                    partial=unpack(packed),
                    kept=kept,
                    computed_us=computed_us,
                )
            )
    return sorted(days)


def _hours(
    facts: Facts,
    model_id: str,
    spec: LabelSpec,
    first: int,
    last: int,
    version: int | None,
    known: set[int],
    found: Parts,
) -> None:
    """Stored partials of hours that are not live."""
    live = set(known)
    times = computed_times(facts.catalog.db, model_id, spec.label_type, first, last)
    layers: dict[int, dict[str, dict[int, bytes]]] = {}
    for hour, number, layer, packed in facts.catalog.db.execute(
        "SELECT hour, version, layer, packed FROM partials "
        "WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?",
        (model_id, spec.label_type, first, last),
    ):
        layers.setdefault(hour, {}).setdefault(layer, {})[number] = packed
    for hour, of_hour in layers.items():
        if hour in live:
            continue
        known.add(hour)
        served: ServedBy = "batch" if "batch" in of_hour else "speed"
        for number, packed in of_hour[served].items():
            if version in (None, number):
                found.parts.append(_stored(hour, number, served, packed, times.get(hour, 0)))


def _stored(hour: int, version: int, layer: ServedBy, packed: bytes, computed_us: int, name: str = "") -> Part:
    partial = unpack(packed)
    return Part(
        hour=hour,
        version=version,
        layer=layer,
        partial=partial,
        kept=1 / partial.design,
        computed_us=computed_us,
        slice_name=name,
    )


def believed_parts(
    facts: Facts, model_id: str, spec: LabelSpec, first: int, last: int, known_us: int, *, version: int | None = None
) -> Parts:
    """Parts of hours first <= hour < last as they had been computed by a time; hold the facts' lock."""
    found = Parts()
    for hour, belief in believed(facts.catalog.db, model_id, spec.label_type, first, last, known_us).items():
        for number, packed in belief.packed.items():
            if version in (None, number):
                found.parts.append(_stored(hour, number, belief.layer, packed, belief.computed_us))
    return found


def slice_parts(
    facts: Facts,
    model_id: str,
    spec: LabelSpec,
    first: int,
    last: int,
    mature_before: int,
    *,
    version: int | None = None,
    slice_name: str = "",
) -> Parts:
    """Parts of one slice, or of all; hold the facts' lock. Only the batch join counts slices: what it has not joined
    yet is pending."""
    whole = served_parts(facts, model_id, spec, first, last, mature_before, version=version, by_day=False)
    found = Parts(pending=dict(whole.pending))
    joined = set()
    for part in whole.parts:
        if part.layer == "batch":
            joined.add(part.hour)
        else:
            found.pending[part.hour] = found.pending.get(part.hour, 0) + part.partial.of("predicted")
    times = computed_times(facts.catalog.db, model_id, spec.label_type, first, last)
    wanted = " AND slice = ?" if slice_name else ""
    for hour, name, number, packed in facts.catalog.db.execute(
        "SELECT hour, slice, version, packed FROM slice_partials "  # noqa: S608 - a constant is put in
        f"WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?{wanted}",
        (model_id, spec.label_type, first, last, *([slice_name] if slice_name else [])),
    ):
        if hour in joined and version in (None, number):
            found.parts.append(_stored(hour, number, "batch", packed, times.get(hour, 0), name))
    return found


def _between(first: int, last: int, days: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of hours of [first, last) outside of whole days, ascending."""
    cuts = [(first, first), *((day * HOURS_PER_DAY, (day + 1) * HOURS_PER_DAY) for day in days), (last, last)]
    return [(end, start) for (_, end), (start, _) in pairwise(cuts) if end < start]
