"""Which layer answers for an hour.

The speed view while the hour is live, for it then holds every row; after that the batch join's partials; until those
exist, the last ones of the speed view. An hour of which none exists yet is *pending* and counts neither as mature nor
as unlabelled: late is served as late, never as 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from control_plane.adapters.parquet.facts import Facts
from control_plane.app.fact_reports import CoverageRow, PerformanceRow, ServedBy
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import metrics_of
from control_plane.core.ground_truth.partials import EMPTY, Partial, merge, merge_weighted, unpack

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class ServedHour:
    """One hour as served."""

    layer: ServedBy
    partial: Partial
    pending: int = 0


def served_hours(
    facts: Facts, model_id: str, version: int | None, spec: LabelSpec, first: int, last: int, mature_before: int
) -> dict[int, ServedHour]:
    """Each hour first <= hour < last that holds predictions, from the layer that answers for it."""
    found: dict[int, dict[str, list[Partial]]] = {}
    versions = "" if version is None else f" AND version = {int(version)}"
    for hour, layer, packed in facts.catalog.db.execute(
        "SELECT hour, layer, packed FROM partials "  # noqa: S608 - an int is all that is put in
        f"WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?{versions}",
        (model_id, spec.label_type, first, last),
    ):
        found.setdefault(hour, {}).setdefault(layer, []).append(unpack(packed))
    served: dict[int, ServedHour] = {}
    for hour, layers in found.items():
        batch = layers.get("batch")
        served[hour] = ServedHour("batch", merge(batch)) if batch else ServedHour("speed", merge(layers["speed"]))
    live = facts.speed.hours(model_id)
    for hour in live:
        if first <= hour < last:
            partials = facts.speed.partials(model_id, spec, hour, mature_before) or {}
            weight = 1 / facts.speed.rate(model_id, hour)
            wanted = [(partial, weight) for number, partial in partials.items() if version in (None, number)]
            served[hour] = ServedHour("speed", merge_weighted(wanted))
    _add_pending(facts, model_id, spec, first, last, served, any_version=version is None)
    return served


def _add_pending(
    facts: Facts,
    model_id: str,
    spec: LabelSpec,
    first: int,
    last: int,
    served: dict[int, ServedHour],
    *,
    any_version: bool,
) -> None:
    """Hours of which there are rows but no partials of either layer, of whatever version."""
    rows_of = facts.prediction_rows(model_id, first, last)
    unknown = sorted((hour, rows) for hour, rows in rows_of.items() if hour not in served)
    if not unknown:
        return
    known = {
        int(row[0])
        for row in facts.catalog.db.execute(
            "SELECT DISTINCT hour FROM partials WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?",
            (model_id, spec.label_type, unknown[0][0], unknown[-1][0] + 1),
        )
    }
    for hour, rows in unknown:
        if hour not in known:
            served[hour] = ServedHour("pending", EMPTY, pending=rows if any_version else 0)


def orphans_by_hour(facts: Facts, model_id: str, label_type: str, first: int, last: int) -> dict[int, int]:
    """Orphans by the hour in their ids; those without an hour are counted nowhere but in `stats`."""
    orphans = {
        int(hour): int(count)
        for hour, count in facts.catalog.db.execute(
            "SELECT hour, orphans FROM orphan_hours WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?",
            (model_id, label_type, first, last),
        )
    }
    return orphans | facts.speed.orphans(model_id, label_type, first, last)


def coverage_row(
    facts: Facts,
    model_id: str,
    spec: LabelSpec,
    first: int,
    last: int,
    hours: dict[int, ServedHour],
    orphans: dict[int, int],
    mature_before: int,
) -> CoverageRow:
    """Coverage of hours first <= hour < last."""
    inside = {hour: served for hour, served in hours.items() if first <= hour < last}
    mature = merge(served.partial for hour, served in inside.items() if hour < mature_before)
    early = merge(served.partial for hour, served in inside.items() if hour >= mature_before)
    unseen_late = (
        sum(facts.late_rows(model_id, spec.label_type, hour) for hour in range(first, last)) if facts.late else 0
    )
    pending = sum(served.pending for served in inside.values())
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
        orphans=sum(count for hour, count in orphans.items() if first <= hour < last),
        pending=pending,
        layer=layer_of(inside.values()),
    )


def performance_row(spec: LabelSpec, first: int, last: int, hours: dict[int, ServedHour]) -> PerformanceRow:
    """Metrics of hours first <= hour < last."""
    inside = [served for hour, served in hours.items() if first <= hour < last]
    partial = merge(served.partial for served in inside)
    return PerformanceRow(
        start=instant_of(first),
        end=instant_of(last),
        metrics=metrics_of(partial, spec.task),
        partial=partial,
        layer=layer_of(inside),
    )


def mature_before_hour(spec: LabelSpec, now: datetime) -> int:
    """Hours before this one are mature: their last prediction's window has ended."""
    return (microseconds(now) - spec.window_us) // MICROSECONDS_PER_HOUR


def layer_of(hours: Iterable[ServedHour]) -> ServedBy:
    """The layer that is furthest from final."""
    layers: Sequence[ServedBy] = [served.layer for served in hours]
    if not layers or "speed" in layers:
        return "speed"
    return "pending" if "pending" in layers else "batch"


def whole_hours(start: datetime, end: datetime) -> tuple[int, int]:
    """Hours that begin in [start, end), the first one whole."""
    first = microseconds(start) // MICROSECONDS_PER_HOUR
    return first, max(first, -(-microseconds(end) // MICROSECONDS_PER_HOUR))


def microseconds(instant: datetime) -> int:
    """Since 1970."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def instant_of(hour: int) -> datetime:
    """The start of an hour."""
    return EPOCH + timedelta(hours=hour)
