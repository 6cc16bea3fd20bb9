"""What was believed before: partials that were replaced, with the time at which they had been computed.

An hour's numbers change as outcomes arrive, as the batch join replaces the speed view, as corrections come. Whoever
asks what was known on Tuesday is answered with what had been computed by then. So whatever replaces an hour's partials
leaves the old ones here, and at each pass the hours that the speed view still holds are noted as they stand.

Beliefs of the last two days are kept as they came; older ones are thinned to the last of each half octave of an hour's
age (1 h, 1.4 h, 2 h ... a week is 15 of them), and dropped after `KEPT_US`. Blobs are compressed.
"""

import sqlite3
import zlib
from dataclasses import dataclass

import numpy as np

from control_plane.app.fact_reports import ServedBy
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR

KEPT_US = 400 * 24 * MICROSECONDS_PER_HOUR
"""13 months: the same season a year ago."""
FINE_US = 48 * MICROSECONDS_PER_HOUR
"""How long every belief is kept."""
BUCKETS_PER_OCTAVE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """An hour's partials by version, as they were computed at a time."""

    layer: ServedBy
    computed_us: int
    packed: dict[int, bytes]


def keep_replaced(
    db: sqlite3.Connection,
    model_id: str,
    label_type: str,
    hour: int,
    layer: ServedBy,
    packed: dict[int, bytes],
    computed_us: int,
) -> None:
    """Before an hour's partials are replaced: keep those that answered until now, unless the new ones are the same.

    Call inside the transaction that replaces them.
    """
    stored: dict[str, dict[int, bytes]] = {}
    for of, version, blob in db.execute(
        "SELECT layer, version, packed FROM partials WHERE model_id = ? AND label_type = ? AND hour = ?",
        (model_id, label_type, hour),
    ):
        stored.setdefault(of, {})[int(version)] = bytes(blob)
    if layer == "speed" and "batch" in stored:
        return  # the batch join's go on answering
    before_layer: ServedBy = "batch" if "batch" in stored else "speed"
    before = stored.get(before_layer, {})
    if before == packed:
        return
    if before:
        _insert(
            db,
            model_id,
            label_type,
            hour,
            Belief(layer=before_layer, computed_us=_time(db, model_id, label_type, hour), packed=before),
        )
    db.execute("INSERT OR REPLACE INTO partial_times VALUES (?, ?, ?, ?)", (model_id, label_type, hour, computed_us))


def keep_live(
    db: sqlite3.Connection, model_id: str, label_type: str, hour: int, packed: dict[int, bytes], computed_us: int
) -> None:
    """Note an hour as the speed view has it now."""
    _insert(db, model_id, label_type, hour, Belief(layer="speed", computed_us=computed_us, packed=packed))


def _time(db: sqlite3.Connection, model_id: str, label_type: str, hour: int) -> int:
    row = db.execute(
        "SELECT computed_us FROM partial_times WHERE model_id = ? AND label_type = ? AND hour = ?",
        (model_id, label_type, hour),
    ).fetchone()
    return int(row[0]) if row else 0


def _insert(db: sqlite3.Connection, model_id: str, label_type: str, hour: int, belief: Belief) -> None:
    bucket = _age_bucket(belief.computed_us, hour)
    db.executemany(
        "INSERT OR REPLACE INTO beliefs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (model_id, label_type, hour, belief.computed_us, version, belief.layer, bucket, zlib.compress(blob, 1))
            for version, blob in belief.packed.items()
        ],
    )


def _age_bucket(computed_us: int, hour: int) -> int:
    """Half octaves of the age of an hour, in hours since it began."""
    age_h = max(computed_us / MICROSECONDS_PER_HOUR - hour, 0.5)
    return int(np.floor(BUCKETS_PER_OCTAVE * np.log2(age_h)))


def computed_times(db: sqlite3.Connection, model_id: str, label_type: str, first: int, last: int) -> dict[int, int]:
    """When the stored partials of hours first <= hour < last were computed, microseconds since 1970; 0 is unknown."""
    return {
        int(hour): int(at)
        for hour, at in db.execute(
            "SELECT hour, computed_us FROM partial_times "
            "WHERE model_id = ? AND label_type = ? AND hour >= ? AND hour < ?",
            (model_id, label_type, first, last),
        )
    }


def believed(
    db: sqlite3.Connection, model_id: str, label_type: str, first: int, last: int, known_us: int
) -> dict[int, Belief]:
    """What had been computed of hours first <= hour < last by a time; hours of which nothing had been are missing."""
    found: dict[int, Belief] = {}
    for hour, version, layer, computed_us, blob in db.execute(
        "SELECT b.hour, b.version, b.layer, b.computed_us, b.packed FROM beliefs b "
        "WHERE b.model_id = ? AND b.label_type = ? AND b.hour >= ? AND b.hour < ? AND b.computed_us = ("
        "SELECT max(c.computed_us) FROM beliefs c WHERE c.model_id = b.model_id AND c.label_type = b.label_type "
        "AND c.hour = b.hour AND c.computed_us <= ?)",
        (model_id, label_type, first, last, known_us),
    ):
        one = found.setdefault(int(hour), Belief(layer=layer, computed_us=int(computed_us), packed={}))
        one.packed[int(version)] = zlib.decompress(blob)
    current: dict[int, dict[str, dict[int, bytes]]] = {}
    for hour, version, layer, blob in db.execute(
        "SELECT p.hour, p.version, p.layer, p.packed FROM partials p "
        "LEFT JOIN partial_times t ON t.model_id = p.model_id AND t.label_type = p.label_type AND t.hour = p.hour "
        "WHERE p.model_id = ? AND p.label_type = ? AND p.hour >= ? AND p.hour < ? AND coalesce(t.computed_us, 0) <= ?",
        (model_id, label_type, first, last, known_us),
    ):
        current.setdefault(int(hour), {}).setdefault(layer, {})[int(version)] = bytes(blob)
    times = computed_times(db, model_id, label_type, first, last)
    for hour, layers in current.items():
        of: ServedBy = "batch" if "batch" in layers else "speed"
        found[hour] = Belief(layer=of, computed_us=times.get(hour, 0), packed=layers[of])
    return found


def note_pass(db: sqlite3.Connection, now_us: int) -> None:
    """All that had arrived until now is in the stored partials and beliefs."""
    db.execute("INSERT OR REPLACE INTO passes VALUES (?)", (now_us,))


def last_pass(db: sqlite3.Connection, until_us: int) -> int:
    """The last pass at or before a time, microseconds since 1970; 0 if there was none."""
    return int(db.execute("SELECT coalesce(max(at_us), 0) FROM passes WHERE at_us <= ?", (until_us,)).fetchone()[0])


def thin(db: sqlite3.Connection, from_us: int, now_us: int) -> None:
    """Drop what is too old, and of beliefs that left the last two days since `from_us` all but the last of each
    bucket of age."""
    until_us = now_us - FINE_US
    db.execute("DELETE FROM beliefs WHERE computed_us < ?", (now_us - KEPT_US,))
    db.execute("DELETE FROM passes WHERE at_us < ?", (now_us - KEPT_US,))
    db.execute(
        "DELETE FROM beliefs AS b WHERE b.computed_us >= ? AND b.computed_us < ? AND EXISTS ("
        "SELECT 1 FROM beliefs l WHERE l.model_id = b.model_id AND l.label_type = b.label_type AND l.hour = b.hour "
        "AND l.bucket = b.bucket AND l.computed_us > b.computed_us AND l.computed_us < ?)",
        (from_us - FINE_US - 24 * MICROSECONDS_PER_HOUR, until_us, until_us),
    )
