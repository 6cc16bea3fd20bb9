"""Tables of the catalogue, and how an older one is brought up to date.

Counts are keyed by one integer, `series << 32 | hour` (or day): ranges of a series are read in order, and old ones are
deleted without a scan. A series is a version's predictions, all or one slice of them, binned by one profile.
"""

import sqlite3

import numpy as np

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, model_id TEXT NOT NULL, path TEXT NOT NULL UNIQUE,
    rows INTEGER NOT NULL, hour_max INTEGER NOT NULL, sliced INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS file_hours (
    model_id TEXT NOT NULL, kind TEXT NOT NULL, hour INTEGER NOT NULL, file_id INTEGER NOT NULL, rows INTEGER NOT NULL,
    PRIMARY KEY (model_id, kind, hour, file_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_hours_by_file ON file_hours (file_id);
CREATE TABLE IF NOT EXISTS hours_in_ids (
    model_id TEXT NOT NULL, hour_in_id INTEGER NOT NULL, hour INTEGER NOT NULL,
    PRIMARY KEY (model_id, hour_in_id, hour)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hours_in_ids_by_hour ON hours_in_ids (model_id, hour);
CREATE TABLE IF NOT EXISTS volumes (
    model_id TEXT NOT NULL, hour INTEGER NOT NULL, predictions INTEGER NOT NULL,
    PRIMARY KEY (model_id, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hour_rates (
    model_id TEXT NOT NULL, hour INTEGER NOT NULL, rate REAL NOT NULL, PRIMARY KEY (model_id, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS due (
    model_id TEXT NOT NULL, hour INTEGER NOT NULL, file_id INTEGER NOT NULL, after_hour INTEGER NOT NULL,
    PRIMARY KEY (model_id, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (key BLOB PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, model_id TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,
    slice TEXT NOT NULL, UNIQUE (model_id, version, digest, slice));
CREATE TABLE IF NOT EXISTS hour_counts (key INTEGER PRIMARY KEY, rows INTEGER NOT NULL, cells BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS day_counts (key INTEGER PRIMARY KEY, rows INTEGER NOT NULL, cells BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS day_fine_counts (key INTEGER PRIMARY KEY, cells BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sent_counts (
    series INTEGER NOT NULL, hour INTEGER NOT NULL, producer TEXT NOT NULL, slice TEXT NOT NULL,
    rows INTEGER NOT NULL, content BLOB NOT NULL, cells BLOB NOT NULL,
    PRIMARY KEY (series, hour, producer, slice)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent_batches (
    key BLOB PRIMARY KEY, hour INTEGER NOT NULL, content BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sent_batches_by_hour ON sent_batches (hour);
CREATE TABLE IF NOT EXISTS slices (
    model_id TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (model_id, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS partials (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, version INTEGER NOT NULL,
    layer TEXT NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (model_id, label_type, hour, version, layer)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slice_partials (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, slice TEXT NOT NULL,
    version INTEGER NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (model_id, label_type, hour, slice, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orphan_hours (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, orphans INTEGER NOT NULL,
    PRIMARY KEY (model_id, label_type, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orphans (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, prediction_id BLOB NOT NULL,
    observed_us INTEGER NOT NULL, value REAL NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (model_id, label_type, hour, prediction_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labels (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, spec BLOB NOT NULL,
    PRIMARY KEY (model_id, label_type)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS first_labels (model_id TEXT PRIMARY KEY, label_type TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reference_profiles (
    model_id TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (model_id, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS horizons (model_id TEXT PRIMARY KEY, hour INTEGER NOT NULL) WITHOUT ROWID;
"""

_WIDTHS = (1, 2, 4, 8)


def migrate(db: sqlite3.Connection) -> None:
    """From version 3: counts get their series and days, files their mark, volumes are summed up. In a transaction."""
    db.execute("ALTER TABLE files ADD COLUMN sliced INTEGER NOT NULL DEFAULT 0")
    db.execute(
        "INSERT INTO volumes SELECT model_id, hour, sum(rows) FROM file_hours "
        "WHERE kind = 'predictions' GROUP BY model_id, hour"
    )
    known = db.execute("SELECT DISTINCT model_id, version, digest FROM histograms ORDER BY 1, 2, 3").fetchall()
    for number, (model_id, version, digest) in enumerate(known, 1):
        db.execute("INSERT INTO series VALUES (?, ?, ?, ?, '')", (number, model_id, version, digest))
        days: dict[int, tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]]] = {}
        for hour, rows, cells in db.execute(
            "SELECT hour, rows, cells FROM histograms WHERE model_id = ? AND version = ? AND digest = ?",
            (model_id, version, digest),
        ):
            db.execute("INSERT INTO hour_counts VALUES (?, ?, ?)", (key_of(number, hour), rows, cells))
            counts = unpack_counts(cells).astype(np.int64)
            before = days.get(hour // 24)
            days[hour // 24] = (rows, counts) if before is None else (before[0] + rows, before[1] + counts)
        db.executemany(
            "INSERT INTO day_counts VALUES (?, ?, ?)",
            [(key_of(number, day), rows, pack_counts(counts)) for day, (rows, counts) in days.items()],
        )
    db.execute("DROP TABLE histograms")


def key_of(series: int, hour_or_day: int) -> int:
    """The key of one row of counts."""
    return series << 32 | hour_or_day


def pack_counts(counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bytes:
    """The narrowest unsigned integers that hold all counts, after a byte that says how narrow: most hours need one
    byte a cell, and adding them up needs no decoding."""
    largest = int(counts.max(initial=0))
    width = next(width for width in _WIDTHS if largest < 256**width)
    return bytes([width]) + counts.astype(f"<u{width}").tobytes()


def unpack_counts(packed: bytes) -> np.ndarray[tuple[int], np.dtype[np.unsignedinteger]]:
    """The counts, as narrow as they were stored."""
    return np.frombuffer(packed, f"<u{packed[0]}", offset=1)
