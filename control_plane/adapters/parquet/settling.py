"""What is done with partials once a pass has joined all that was due.

Days that are mature are merged, so that a month is read as thirty partials and not as 720; the hours that the speed
view still holds are noted as they stand, so that today's provisional numbers can be looked up next week; and the pass
itself is noted: until when all that had arrived is in the numbers.
"""

from control_plane.adapters.parquet.beliefs import keep_live, note_pass, thin
from control_plane.adapters.parquet.binning import HOURS_PER_DAY
from control_plane.adapters.parquet.facts import Facts
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, merge, merge_weighted, pack, unpack

DAYS_AT_ONCE = 64
"""Days merged under one hold of the lock: some 30 ms."""
DAYS_PER_PASS_MAX = 4_096
"""The rest is merged in later passes, and read by the hour until then."""
LIVE_HOURS_AT_ONCE = 256
THIN_EVERY_US = 24 * MICROSECONDS_PER_HOUR


class Settling:
    """Runs at the end of a pass; takes the facts' lock for moments."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._noted: dict[tuple[str, str, int], int] = {}
        """(model id, label type, hour) -> what a live hour looked like when it was noted."""

    def settle(self, now_us: int) -> None:
        """All that was due at `now_us` is joined."""
        self._note_live(now_us)
        for _ in range(DAYS_PER_PASS_MAX // DAYS_AT_ONCE):
            if not self._merge_days(now_us):
                break
        with self._facts.lock, self._facts.catalog.transaction():
            catalog = self._facts.catalog
            note_pass(catalog.db, now_us)
            if now_us - catalog.meta("thinned_us") >= THIN_EVERY_US:
                thin(catalog.db, catalog.meta("thinned_us"), now_us)
                catalog.set_meta("thinned_us", now_us)

    def _note_live(self, now_us: int) -> None:
        facts = self._facts
        with facts.lock:
            live = [
                (model_id, spec, hour)
                for model_id in facts.speed.models()
                for spec in facts.labels_of(model_id)
                for hour in facts.speed.hours(model_id)
            ]
        keys = {(model_id, spec.label_type, hour) for model_id, spec, hour in live}
        self._noted = {key: looks for key, looks in self._noted.items() if key in keys}
        for at in range(0, len(live), LIVE_HOURS_AT_ONCE):
            with facts.lock, facts.catalog.transaction():
                for model_id, spec, hour in live[at : at + LIVE_HOURS_AT_ONCE]:
                    self._note_hour(model_id, spec, hour, now_us)

    def _note_hour(self, model_id: str, spec: LabelSpec, hour: int, now_us: int) -> None:
        speed = self._facts.speed
        mature_before = (now_us - spec.window_us) // MICROSECONDS_PER_HOUR
        partials = speed.partials(model_id, spec, hour, mature_before) or {}
        looks = hash(tuple((version, int(p.count.sum()), p.sums.tobytes()) for version, p in sorted(partials.items())))
        key = (model_id, spec.label_type, hour)
        if not partials or self._noted.get(key) == looks:
            return
        weight = 1 / speed.rate(model_id, hour)
        packed = {version: pack(merge_weighted([(partial, weight)])) for version, partial in partials.items()}
        keep_live(self._facts.catalog.db, model_id, spec.label_type, hour, packed, now_us)
        self._noted[key] = looks

    def _merge_days(self, now_us: int) -> bool:
        """Merge some days; True if there may be more."""
        facts = self._facts
        with facts.lock, facts.catalog.transaction():
            ready = []
            for model_id, label_type, day in facts.catalog.db.execute(
                "SELECT model_id, label_type, day FROM stale_days ORDER BY day"
            ):
                spec = facts.label(model_id, label_type)
                end = (day + 1) * HOURS_PER_DAY
                mature = end * MICROSECONDS_PER_HOUR + spec.window_us <= now_us
                if mature and not any(hour // HOURS_PER_DAY == day for hour in facts.speed.hours(model_id)):
                    ready.append((model_id, label_type, int(day)))
                if len(ready) == DAYS_AT_ONCE:
                    break
            for one in ready:
                merge_day(facts, *one)
        return len(ready) == DAYS_AT_ONCE


def merge_day(facts: Facts, model_id: str, label_type: str, day: int) -> None:
    """Merge the served partials of a day by version; inside a transaction."""
    db = facts.catalog.db
    first = day * HOURS_PER_DAY
    layers: dict[int, dict[str, dict[int, Partial]]] = {}
    for hour, version, layer, packed in db.execute(
        "SELECT hour, version, layer, packed FROM partials "
        "WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?",
        (model_id, label_type, first, first + HOURS_PER_DAY),
    ):
        layers.setdefault(int(hour), {}).setdefault(layer, {})[int(version)] = unpack(packed)
    computed_us = db.execute(
        "SELECT coalesce(max(computed_us), 0) FROM partial_times "
        "WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?",
        (model_id, label_type, first, first + HOURS_PER_DAY),
    ).fetchone()[0]
    layer = "batch" if all("batch" in of_hour for of_hour in layers.values()) else "speed"
    by_version: dict[int, list[Partial]] = {}
    hours = 0
    for hour, of_hour in layers.items():
        hours |= 1 << (hour - first)
        for version, partial in (of_hour.get("batch") or of_hour["speed"]).items():
            by_version.setdefault(version, []).append(partial)
    db.execute(
        "DELETE FROM day_partials WHERE model_id = ? AND label_type = ? AND day = ?", (model_id, label_type, day)
    )
    db.executemany(
        "INSERT INTO day_partials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (model_id, label_type, day, version, layer, hours, kept_share(parts), computed_us, pack(merge(parts)))
            for version, parts in by_version.items()
        ],
    )
    db.execute("DELETE FROM stale_days WHERE model_id = ? AND label_type = ? AND day = ?", (model_id, label_type, day))


def kept_share(parts: list[Partial]) -> float:
    """Share of all predictions that partials of single hours were counted from."""
    predicted = [part.of("predicted") for part in parts]
    total = sum(predicted)
    return sum(n / part.design for n, part in zip(predicted, parts, strict=True)) / total if total else 1.0
